"""The part of a frame that a rectangle shows, upright."""

from __future__ import annotations

import math

import numpy as np

from agent.contract import Frame, Rectangle


def crop(frame: Frame, rectangle: Rectangle) -> Frame:
    """The pixels inside a rectangle, turned back where it is turned; at least one, black where there is no frame."""
    from PIL import Image

    width = max(1, round(rectangle.right - rectangle.left))
    height = max(1, round(rectangle.bottom - rectangle.top))
    turn = math.radians(rectangle.rotation)
    cos, sin = math.cos(turn), math.sin(turn)
    middle_x, middle_y = (rectangle.left + rectangle.right) / 2, (rectangle.top + rectangle.bottom) / 2
    # Where each pixel of the part comes from: PIL wants x = a*u + b*v + c.
    across = (cos, -sin, middle_x - cos * width / 2 + sin * height / 2)
    down = (sin, cos, middle_y - sin * width / 2 - cos * height / 2)
    part = Image.fromarray(frame.image).transform(
        (width, height), Image.Transform.AFFINE, (*across, *down), Image.Resampling.BILINEAR
    )
    return Frame(frame.index, frame.name, np.asarray(part))

"""The part of a picture that a rectangle shows, upright."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from agent.contract import Rectangle

if TYPE_CHECKING:
    from numpy.typing import NDArray


def crop(image: NDArray[np.uint8], rectangle: Rectangle) -> NDArray[np.uint8]:
    """The pixels inside a rectangle, at least one; turned back where it is turned, black where there is no picture.

    An upright rectangle gives a view of the picture, cut at its edges.
    """
    if rectangle.rotation:
        return _turned_back(image, rectangle)
    height, width = image.shape[:2]
    left = min(max(0, round(rectangle.left)), width - 1)
    top = min(max(0, round(rectangle.top)), height - 1)
    right, bottom = max(left + 1, round(rectangle.right)), max(top + 1, round(rectangle.bottom))
    return image[top:bottom, left:right]


def _turned_back(image: NDArray[np.uint8], rectangle: Rectangle) -> NDArray[np.uint8]:
    import cv2

    width = max(1, round(rectangle.right - rectangle.left))
    height = max(1, round(rectangle.bottom - rectangle.top))
    turn = math.radians(rectangle.rotation)
    cos, sin = math.cos(turn), math.sin(turn)
    middle_x, middle_y = (rectangle.left + rectangle.right) / 2, (rectangle.top + rectangle.bottom) / 2
    # Where the centre of each pixel of the part lies in the picture; OpenCV counts from the centre of the first.
    across, down = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, middle_x - 0.5 - cos * across + sin * down],
            [sin, cos, middle_y - 0.5 - sin * across - cos * down],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=flags), np.uint8)

"""Masks of any shape: CVAT's editor takes nothing else from an interactor, and makes polygons of them where wanted."""

from __future__ import annotations

import math

from agent.contract import Ellipse, Mask, Polygon, Rectangle, Shape, Skeleton
from agent.shapes.geometry import corners
from agent.shapes.outlines import polygon_to_mask

_STEPS = 128
"""Points around an ellipse."""


def as_mask(shape: Shape, size: tuple[int, int]) -> Shape | None:
    """The mask of a shape in a picture of `size` (width, height), None for one without pixels.

    Points and lines, which no mask can tell, stay what they are.
    """
    if isinstance(shape, Rectangle):
        return polygon_to_mask(corners(shape), *size)
    if isinstance(shape, Polygon):
        return polygon_to_mask(shape.points, *size)
    if isinstance(shape, Ellipse):
        return polygon_to_mask(_around(shape), *size)
    if isinstance(shape, Mask):
        return shape if shape.bitmap.any() else None
    return None if isinstance(shape, Skeleton) else shape


def _around(ellipse: Ellipse) -> list[float]:
    """Points on an ellipse, close enough for a mask."""
    turn, points = math.radians(ellipse.rotation), list[float]()
    for step in range(_STEPS):
        across = ellipse.radius_x * math.cos(2 * math.pi * step / _STEPS)
        down = ellipse.radius_y * math.sin(2 * math.pi * step / _STEPS)
        points += [ellipse.x + across * math.cos(turn) - down * math.sin(turn)]
        points += [ellipse.y + across * math.sin(turn) + down * math.cos(turn)]
    return points

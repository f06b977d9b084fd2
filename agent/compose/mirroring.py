"""Shapes seen in a mirror, and shapes of a picture of another size, brought back to the picture as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from agent.contract import (
    Cuboid,
    Detection,
    Ellipse,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Shape,
    Skeleton,
)

_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)
"""In a name: left_eye, Right Hand, l_wrist, ankle-R."""
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def mirrored(detection: Detection, width: int, points: Mapping[str, Collection[str]]) -> Detection:
    """The detection in the mirror image of a picture of this width.

    A left wrist is a right one there, and a left hand a right hand, where both have names: `points` are the names of
    the points of each label's skeleton, by label.
    """
    label = _other_side(detection.label, points)
    shape = detection.shape
    if isinstance(shape, Skeleton):
        # What is not among the points seen may be among those that there are.
        names = {*points.get(detection.label, ()), *(element.label for element in shape.elements)}
        turned = [replace(e, label=_other_side(e.label, names), x=width - e.x) for e in shape.elements]
        return replace(detection, label=label, shape=Skeleton(tuple(turned)))
    return replace(detection, label=label, shape=None if shape is None else _mirrored(shape, width))


def _mirrored(shape: Rectangle | Ellipse | Mask | Polygon | Polyline | Points | Cuboid, width: int) -> Shape:
    if isinstance(shape, Rectangle):
        return replace(shape, left=width - shape.right, right=width - shape.left, rotation=-shape.rotation % 360)
    if isinstance(shape, Ellipse):
        return replace(shape, x=width - shape.x, rotation=-shape.rotation % 360)
    if isinstance(shape, Mask):
        return Mask(shape.bitmap[:, ::-1], width - shape.left - shape.bitmap.shape[1], shape.top)
    points = [width - number if place % 2 == 0 else number for place, number in enumerate(shape.points)]
    if isinstance(shape, Cuboid):
        # The edges come in pairs from left to right; in the mirror the right one comes first.
        points = [number for start in (4, 0, 12, 8) for number in points[start : start + 4]]
    return replace(shape, points=tuple(points))


def has_sides(names: Collection[str]) -> bool:
    """Whether there is a name for each of two sides among them."""
    return any(_other_side(name, names) != name for name in names)


def _other_side(name: str, names: Collection[str]) -> str:
    """The name of the other side, where that is among the names too."""
    other = _SIDE.sub(_swapped, name)
    return other if other in names else name


def _swapped(side: re.Match[str]) -> str:
    other = _OTHER[side[0].lower()]
    return other.upper() if side[0].isupper() else other.capitalize() if side[0][0].isupper() else other


def scaled(detection: Detection, x: float, y: float, size: tuple[int, int]) -> Detection:
    """The detection with its coordinates multiplied; masks are drawn anew for a picture of `size` (width, height)."""
    shape = detection.shape
    return detection if shape is None else replace(detection, shape=_scaled(shape, x, y, size))


def _scaled(shape: Shape, x: float, y: float, size: tuple[int, int]) -> Shape:
    if isinstance(shape, Rectangle):
        return replace(shape, left=shape.left * x, top=shape.top * y, right=shape.right * x, bottom=shape.bottom * y)
    if isinstance(shape, Ellipse):
        return replace(shape, x=shape.x * x, y=shape.y * y, radius_x=shape.radius_x * x, radius_y=shape.radius_y * y)
    if isinstance(shape, Mask):
        return _scaled_mask(shape, x, y, size)
    if isinstance(shape, Skeleton):
        return Skeleton(tuple(replace(e, x=e.x * x, y=e.y * y) for e in shape.elements))
    return replace(shape, points=tuple(n * (y if place % 2 else x) for place, n in enumerate(shape.points)))


def _scaled_mask(mask: Mask, x: float, y: float, size: tuple[int, int]) -> Mask:
    """Each pixel takes the value of the one that its centre falls into."""
    rows, columns = mask.bitmap.shape
    left, top = round(mask.left * x), round(mask.top * y)
    right = min(size[0], max(left + 1, round((mask.left + columns) * x)))
    bottom = min(size[1], max(top + 1, round((mask.top + rows) * y)))
    across = np.clip(((np.arange(left, right) + 0.5) / x - mask.left).astype(int), 0, columns - 1)
    down = np.clip(((np.arange(top, bottom) + 0.5) / y - mask.top).astype(int), 0, rows - 1)
    return Mask(mask.bitmap[np.ix_(down, across)], left, top)

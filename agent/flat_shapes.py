"""Shapes by themselves, as CVAT's API writes them: a type, and points in a flat list."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agent.annotations import encode_mask
from agent.contract import Cuboid, Ellipse, Mask, Points, Polygon, Polyline, Rectangle, Shape
from agent.errors import BadRequest
from agent.ledger.content import DIGITS

MASK_PIXELS = 150_000_000
"""Of the masks of a request together; one in a larger box is refused before it is decoded."""


def read_shape(raw: Any) -> Shape:
    """The shape of `{"type": …, "points": […]}`. BadRequest where it is none; skeletons have no points of their own."""
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    if not isinstance(kind, str) or kind not in _MAKERS:
        raise BadRequest(f"shape: got the type {kind!r}, allowed: {', '.join(_MAKERS)}")
    points = raw.get("points")
    if not isinstance(points, Sequence) or isinstance(points, str) or not all(map(is_number, points)):
        raise BadRequest(f"{kind}: points: got {type(points).__name__}, allowed: a list of numbers")
    try:
        return _MAKERS[kind](tuple(map(float, points)))
    except ValueError as error:
        raise BadRequest(str(error)) from error


def write_shape(shape: Shape) -> dict[str, Any]:
    """The shape as `{"type": …, "points": […]}`; a turn has no place in it. ValueError for skeletons, empty masks."""
    return {"type": shape.type, "points": _flat(shape)}


def _flat(shape: Shape) -> list[float] | list[int]:
    if isinstance(shape, Mask):
        if not shape.bitmap.any():
            raise ValueError("mask: it is empty")
        return encode_mask(shape)
    if isinstance(shape, Rectangle):
        return _rounded((shape.left, shape.top, shape.right, shape.bottom))
    if isinstance(shape, Ellipse):
        return _rounded((shape.x, shape.y, shape.x + shape.radius_x, shape.y - shape.radius_y))
    if isinstance(shape, Polygon | Polyline | Points | Cuboid):
        return _rounded(shape.points)
    raise ValueError(f"{shape.type}: it has no points of its own")


def _rounded(points: Sequence[float]) -> list[float]:
    # Adding 0.0 turns -0.0, which JSON keeps, into 0.0.
    return [round(float(number), DIGITS) + 0.0 for number in points]


def _rectangle(points: Sequence[float]) -> Rectangle:
    left, top, right, bottom = _four("rectangle", points)
    return Rectangle(left, top, right, bottom)


def _ellipse(points: Sequence[float]) -> Ellipse:
    """CVAT writes centre, right edge, top edge."""
    x, y, right, top = _four("ellipse", points)
    return Ellipse(x, y, right - x, y - top)


def _four(kind: str, points: Sequence[float]) -> Sequence[float]:
    if len(points) != 4:
        raise ValueError(f"{kind}: got {len(points)} numbers, allowed: 4")
    return points


def _mask(points: Sequence[float]) -> Mask:
    """Lengths of runs, the first of zeros, row by row in a box; then the box, its far edges inclusive."""
    if len(points) < 5 or any(value != int(value) or value < 0 for value in points):
        raise ValueError("mask: allowed: lengths of runs and a box, in whole numbers")
    *runs, left, top, right, bottom = (int(value) for value in points)
    width, height = right - left + 1, bottom - top + 1
    if width < 1 or height < 1 or width * height > MASK_PIXELS or sum(runs) != width * height:
        raise ValueError(f"mask: got runs of {sum(runs)} pixels for a box of {width}x{height}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return Mask(flat.reshape(height, width), left, top)


_MAKERS: Mapping[str, Callable[[tuple[float, ...]], Shape]] = {
    "rectangle": _rectangle,
    "polygon": Polygon,
    "polyline": Polyline,
    "points": Points,
    "ellipse": _ellipse,
    "cuboid": Cuboid,
    "mask": _mask,
}


def is_number(value: Any) -> bool:
    """Whether JSON's value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's whole numbers may be larger than any float
        return False

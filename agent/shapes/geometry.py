"""Shapes as geometry: bounds, areas, corners, shifting, overlap. Pure functions, coordinates in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agent.contract import Cuboid, Ellipse, Mask, Polygon, Rectangle, Shape, Skeleton

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bounds: TypeAlias = tuple[float, float, float, float]
"""left, top, right, bottom."""


def coordinates(shape: Shape) -> Sequence[float]:
    """Every number of a shape that must be finite."""
    if isinstance(shape, Rectangle):
        return (shape.left, shape.top, shape.right, shape.bottom, shape.rotation)
    if isinstance(shape, Ellipse):
        return (shape.x, shape.y, shape.radius_x, shape.radius_y, shape.rotation)
    if isinstance(shape, Skeleton):
        return [number for element in shape.elements for number in (element.x, element.y)]
    return () if isinstance(shape, Mask) else shape.points


def bounds(shape: Shape) -> Bounds:
    """The smallest upright rectangle around a shape; turned shapes by their corners."""
    if isinstance(shape, Rectangle):
        if not shape.rotation:
            return shape.left, shape.top, shape.right, shape.bottom
        return _around(corners(shape))
    if isinstance(shape, Ellipse):
        turn = math.radians(shape.rotation)
        across = math.hypot(shape.radius_x * math.cos(turn), shape.radius_y * math.sin(turn))
        down = math.hypot(shape.radius_x * math.sin(turn), shape.radius_y * math.cos(turn))
        return shape.x - across, shape.y - down, shape.x + across, shape.y + down
    if isinstance(shape, Mask):
        return _mask_bounds(shape)
    if isinstance(shape, Skeleton):
        inside = [element for element in shape.elements if not element.outside] or list(shape.elements)
        return _around([number for element in inside for number in (element.x, element.y)])
    return _around(shape.points)


def _around(points: Sequence[float]) -> Bounds:
    return min(points[0::2]), min(points[1::2]), max(points[0::2]), max(points[1::2])


def _mask_bounds(mask: Mask) -> Bounds:
    rows = np.flatnonzero(mask.bitmap.any(axis=1))
    if not rows.size:
        return mask.left, mask.top, mask.left, mask.top
    columns = np.flatnonzero(mask.bitmap[rows[0] : rows[-1] + 1].any(axis=0))
    left, top = mask.left + int(columns[0]), mask.top + int(rows[0])
    return left, top, mask.left + int(columns[-1]) + 1, mask.top + int(rows[-1]) + 1


def tight(mask: Mask) -> Mask | None:
    """The mask in the smallest box that holds its pixels; None where it has none."""
    left, top, right, bottom = _mask_bounds(mask)
    rows, columns = mask.bitmap.shape
    if (right - left, bottom - top) == (columns, rows):
        return mask
    left, top, right, bottom = (int(edge) for edge in (left, top, right, bottom))
    part = mask.bitmap[top - mask.top : bottom - mask.top, left - mask.left : right - mask.left]
    # A copy: a view would keep the whole frame's bitmap in memory.
    return Mask(part.copy(), left, top) if part.size else None


def corners(rectangle: Rectangle) -> list[float]:
    """x, y of the four corners of a turned rectangle, clockwise from its top left one."""
    centre_x, centre_y = (rectangle.left + rectangle.right) / 2, (rectangle.top + rectangle.bottom) / 2
    half_width, half_height = (rectangle.right - rectangle.left) / 2, (rectangle.bottom - rectangle.top) / 2
    turn = math.radians(rectangle.rotation)
    cos, sin = math.cos(turn), math.sin(turn)
    points: list[float] = []
    for x, y in (
        (-half_width, -half_height),
        (half_width, -half_height),
        (half_width, half_height),
        (-half_width, half_height),
    ):
        points += [centre_x + x * cos - y * sin, centre_y + x * sin + y * cos]
    return points


def area(shape: Shape) -> float | None:
    """Square pixels that a shape covers; None for what has no area by its nature (points, lines, skeletons)."""
    if isinstance(shape, Rectangle):
        return max(0.0, shape.right - shape.left) * max(0.0, shape.bottom - shape.top)
    if isinstance(shape, Ellipse):
        return math.pi * max(0.0, shape.radius_x) * max(0.0, shape.radius_y)
    if isinstance(shape, Mask):
        return float(np.count_nonzero(shape.bitmap))
    if isinstance(shape, Polygon):
        return polygon_area(shape.points)
    if isinstance(shape, Cuboid):
        left, top, right, bottom = bounds(shape)
        return (right - left) * (bottom - top)
    return None


def polygon_area(points: Sequence[float]) -> float:
    """Square pixels inside a closed line (the shoelace formula)."""
    x, y = np.asarray(points[0::2]), np.asarray(points[1::2])
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def shift(shape: Shape, dx: float, dy: float) -> Shape:
    """The shape moved to the right and down."""
    if isinstance(shape, Rectangle):
        left, top, right, bottom = shape.left + dx, shape.top + dy, shape.right + dx, shape.bottom + dy
        return replace(shape, left=left, top=top, right=right, bottom=bottom)
    if isinstance(shape, Ellipse):
        return replace(shape, x=shape.x + dx, y=shape.y + dy)
    if isinstance(shape, Mask):
        return Mask(shape.bitmap, shape.left + round(dx), shape.top + round(dy))
    if isinstance(shape, Skeleton):
        return Skeleton(tuple(replace(e, x=e.x + dx, y=e.y + dy) for e in shape.elements))
    moved = [number + (dy if place % 2 else dx) for place, number in enumerate(shape.points)]
    return replace(shape, points=tuple(moved))


# --------------------------------------------------------------------- overlap


def iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) intersection over union of (N, 4) and (M, 4) rectangles given as left, top, right, bottom."""
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    far = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.clip(far - corner, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    result: NDArray[np.float64] = shared / np.where(union > 0, union, 1)
    return result

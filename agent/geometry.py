"""Shapes as geometry: bounds, areas, clipping, shifting, masks and polygons. Pure functions, coordinates in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agent.contract import Cuboid, Ellipse, Keypoint, Mask, Points, Polygon, Polyline, Rectangle, Shape, Skeleton

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
    rows, columns = np.flatnonzero(mask.bitmap.any(axis=1)), np.flatnonzero(mask.bitmap.any(axis=0))
    if not rows.size:
        return mask.left, mask.top, mask.left, mask.top
    left, top = mask.left + int(columns[0]), mask.top + int(rows[0])
    return left, top, mask.left + int(columns[-1]) + 1, mask.top + int(rows[-1]) + 1


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


# -------------------------------------------------------------------- clipping


def clip(shape: Shape, width: float, height: float) -> Shape | None:
    """What of a shape lies in a picture of width x height; None where nothing does.

    Turned rectangles, ellipses and cuboids keep their form (CVAT lets them reach over the edge) if their centre is
    inside. Points of skeletons that are outside are marked so.
    """
    left, top, right, bottom = bounds(shape)
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return shape
    if isinstance(shape, Rectangle) and not shape.rotation:
        box = Rectangle(max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
        return box if box.left < box.right and box.top < box.bottom else None
    if isinstance(shape, Rectangle | Ellipse | Cuboid):
        return shape if 0 <= (left + right) / 2 <= width and 0 <= (top + bottom) / 2 <= height else None
    if isinstance(shape, Mask):
        return _clip_mask(shape, int(width), int(height))
    if isinstance(shape, Polygon):
        points = _clip_polygon(shape.points, width, height)
        return Polygon(points) if len(points) >= 6 else None
    if isinstance(shape, Polyline):
        pairs = [(min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in _pairs(shape.points)]
        touches = left < width and right > 0 and top < height and bottom > 0
        return Polyline(_flat(pairs)) if touches and len(set(pairs)) > 1 else None
    if isinstance(shape, Points):
        pairs = [(x, y) for x, y in _pairs(shape.points) if _inside(x, y, width, height)]
        return Points(_flat(pairs)) if pairs else None
    elements = tuple(_clip_element(element, width, height) for element in shape.elements)
    return Skeleton(elements) if any(not element.outside for element in elements) else None


def _inside(x: float, y: float, width: float, height: float) -> bool:
    return 0 <= x <= width and 0 <= y <= height


def _clip_element(element: Keypoint, width: float, height: float) -> Keypoint:
    if _inside(element.x, element.y, width, height):
        return element
    x, y = min(max(element.x, 0.0), width), min(max(element.y, 0.0), height)
    return replace(element, x=x, y=y, outside=True)


def _clip_mask(mask: Mask, width: int, height: int) -> Mask | None:
    rows, columns = mask.bitmap.shape
    left, top = max(mask.left, 0), max(mask.top, 0)
    right, bottom = min(mask.left + columns, width), min(mask.top + rows, height)
    if left >= right or top >= bottom:
        return None
    part = mask.bitmap[top - mask.top : bottom - mask.top, left - mask.left : right - mask.left]
    return Mask(part, left, top) if part.any() else None


def _clip_polygon(points: Sequence[float], width: float, height: float) -> tuple[float, ...]:
    """The part of a polygon inside the picture, edge by edge (Sutherland and Hodgman, 1974)."""
    found = list(_pairs(points))
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        source, found = found, []
        for before, here in zip([source[-1], *source[:-1]] if source else [], source, strict=True):
            was, is_now = sign * (before[axis] - limit) >= 0, sign * (here[axis] - limit) >= 0
            if was != is_now:
                share = (limit - before[axis]) / (here[axis] - before[axis])
                crossing = [before[0] + share * (here[0] - before[0]), before[1] + share * (here[1] - before[1])]
                crossing[axis] = limit
                found.append((crossing[0], crossing[1]))
            if is_now:
                found.append(here)
    return _flat([pair for place, pair in enumerate(found) if pair != found[place - 1]])


def _pairs(points: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(points[0::2], points[1::2], strict=True))


def _flat(pairs: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(number for pair in pairs for number in pair)


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

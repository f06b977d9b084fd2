"""How much two shapes overlap: intersection over union, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract import Mask, Rectangle, Shape
from agent.shapes.geometry import area, bounds, corners, iou, polygon_area

if TYPE_CHECKING:
    from numpy.typing import NDArray


def overlaps(shapes: Sequence[Shape]) -> NDArray[np.float64]:
    """(n, n) intersection over union of each with each."""
    boxes = np.array([bounds(shape) for shape in shapes], dtype=np.float64).reshape(-1, 4)
    shares = iou(boxes, boxes)
    for i, j in np.argwhere(np.tril(shares, -1)):
        shares[i, j] = shares[j, i] = overlap(shapes[i], shapes[j], float(shares[i, j]))
    return shares


def overlap(one: Shape, other: Shape, of_boxes: float) -> float:
    """The overlap of two shapes, the upright rectangles around which overlap by `of_boxes`.

    Of masks it is that of their pixels, of turned rectangles that of their own form, of others that of the boxes.
    """
    if isinstance(one, Mask) and isinstance(other, Mask):
        return _of_masks(one, other)
    if isinstance(one, Rectangle) and isinstance(other, Rectangle) and (one.rotation or other.rotation):
        return _of_turned(one, other)
    return of_boxes


def _of_masks(one: Mask, other: Mask) -> float:
    left, top = max(one.left, other.left), max(one.top, other.top)
    right = min(one.left + one.bitmap.shape[1], other.left + other.bitmap.shape[1])
    bottom = min(one.top + one.bitmap.shape[0], other.top + other.bitmap.shape[0])
    if right <= left or bottom <= top:
        return 0.0
    parts = [m.bitmap[top - m.top : bottom - m.top, left - m.left : right - m.left] for m in (one, other)]
    shared = int(np.count_nonzero(parts[0] & parts[1]))
    union = int(np.count_nonzero(one.bitmap)) + int(np.count_nonzero(other.bitmap)) - shared
    return shared / union if union else 0.0


def _of_turned(one: Rectangle, other: Rectangle) -> float:
    """The one is cut off along each side of the other (Sutherland and Hodgman, 1974)."""
    left, frame = (_points(corners(shape)) for shape in (one, other))
    for start, end in pairwise([*frame, frame[0]]):
        along = end - start
        # Corners go clockwise, with y down: what is inside lies on the right of each side.
        depths = along[0] * (left[:, 1] - start[1]) - along[1] * (left[:, 0] - start[0])
        left = _inside(left, depths)
        if not len(left):
            return 0.0
    shared = polygon_area(left.ravel().tolist())
    union = (area(one) or 0.0) + (area(other) or 0.0) - shared
    return shared / union if union > 0 else 0.0


def _inside(points: NDArray[np.float64], depths: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of a convex polygon of points with a depth of 0 or more."""
    kept = []
    for place, (point, depth) in enumerate(zip(points, depths, strict=True)):
        before = depths[place - 1]
        if (before < 0) != (depth < 0):
            kept.append(points[place - 1] + (point - points[place - 1]) * (before / (before - depth)))
        if depth >= 0:
            kept.append(point)
    return _points(kept)


def _points(values: Sequence[Any]) -> NDArray[np.float64]:
    """(n, 2)."""
    return np.asarray(values, np.float64).reshape(-1, 2)

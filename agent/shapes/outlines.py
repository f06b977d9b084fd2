"""Masks into polygons and back. Outlines run along the edges of pixels, so that areas stay what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.contract import Mask, Polygon
from agent.shapes.geometry import polygon_area, tight

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_PART = 4
"""Square pixels: parts and holes below that are noise, unless there is nothing else."""

FULL_TOLERANCE_FROM = 20
"""Pixels across: a pixel of tolerance costs a part of 10 x 10 a tenth of its area. Measured on COCO's masks."""

_CHUNK = 1 << 18
"""Pairs of edges that are compared at a time."""


def mask_to_polygons(mask: Mask, tolerance: float = 1.0, min_area: float = 0.0) -> list[Polygon]:
    """Simple polygons (no line crosses or touches another) that cover the mask, its largest part first.

    CVAT's polygons have no holes: from each hole a slit of one pixel leads out, so that one part stays one polygon.
    `tolerance` is how far, in pixels, the simplified line may lie from the outline (Douglas and Peucker, 1973); parts
    smaller than some 20 x 20 pixels get a share of it that suits their size, but half a pixel. Of several parts, those
    below `min_area` square pixels are left out.
    """
    close = tight(mask)
    if close is None:
        return []
    corner = np.array([close.left - 1, close.top - 1], np.float64)
    outlines = _outlines(_without_holes(_without_corner_contacts(np.pad(close.bitmap, 1))))
    lines = [(_simplified(outline, tolerance) + corner).ravel().tolist() for outline in outlines]
    parts = sorted(((polygon_area(line), line) for line in lines), reverse=True)
    least = max(min_area, SMALLEST_PART)
    return [Polygon(tuple(line)) for place, (area, line) in enumerate(parts) if place == 0 or area >= least]


def _without_corner_contacts(bitmap: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bitmap with pixels added where two others touch at a corner only; an outline would touch itself there."""
    result = bitmap.copy()
    while (falling := _corner_contacts(result))[0].any() or falling[1].any():
        result[:-1, 1:] |= falling[0]
        result[:-1, :-1] |= falling[1]
    return result


def _corner_contacts(bitmap: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where, of four pixels, only those on the falling or only those on the rising diagonal are set."""
    a, b, c, d = bitmap[:-1, :-1], bitmap[:-1, 1:], bitmap[1:, :-1], bitmap[1:, 1:]
    return a & d & ~b & ~c, b & c & ~a & ~d


def _without_holes(bitmap: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bitmap with small holes filled and a slit from each other one to what is outside. Its border is empty."""
    import cv2

    count, numbers, stats, _ = cv2.connectedComponentsWithStats((~bitmap).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < SMALLEST_PART
    result: NDArray[np.bool_] = bitmap | small[numbers]
    for number in range(1, count):
        if number == numbers[0, 0] or small[number]:
            continue
        x, y, _, height, _ = (int(value) for value in stats[number])
        row = y + int(np.flatnonzero(numbers[y : y + height, x] == number)[0])
        # Always to the left, from the hole's leftmost pixel: where that leads into another hole, that one's own slit
        # goes on from there, so that no hole is left in the end.
        result[row, np.flatnonzero(~result[row, :x])[-1] + 1 : x] = False
    # The ends of slits may touch pixels across a corner; taking pixels away opens those, and makes no new hole.
    while (contacts := _corner_contacts(result))[0].any() or contacts[1].any():
        result[:-1, :-1] &= ~contacts[0]
        result[:-1, 1:] &= ~contacts[1]
    return result


def _outlines(bitmap: NDArray[np.bool_]) -> Iterator[NDArray[np.int32]]:
    """(N, 2) the corners of each part's outline, along the edges of pixels. There are no holes or corner contacts."""
    import cv2

    # With each pixel as 2 x 2, the outline passes through pixels whose number tells the edge that they lie at.
    doubled = np.repeat(np.repeat(bitmap.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        edges = (contour[:, 0, :] + 1) // 2
        edges = edges[(edges != np.roll(edges, 1, axis=0)).any(axis=1)]
        turns = (edges - np.roll(edges, 1, axis=0) != np.roll(edges, -1, axis=0) - edges).any(axis=1)
        yield edges[turns].astype(np.int32)


def _simplified(outline: NDArray[np.int32], tolerance: float) -> NDArray[np.float64]:
    """The outline, as simple as the tolerance allows without crossing itself."""
    import cv2

    across = polygon_area(outline.ravel().tolist()) ** 0.5
    tolerance = min(tolerance, max(0.5, tolerance * across / FULL_TOLERANCE_FROM))
    # Below a third of a pixel nothing is left to simplify: the steps of a slanting edge are that high.
    while tolerance > 0.3:
        points = cv2.approxPolyDP(outline[:, None, :], tolerance, closed=True)[:, 0, :]
        if len(points) >= 3 and is_simple(points):
            return np.asarray(points, np.float64)
        tolerance /= 2
    return outline.astype(np.float64)


def is_simple(points: NDArray[np.int32] | NDArray[np.float64]) -> bool:
    """Whether a closed line of (N, 2) points neither crosses nor touches itself."""
    start = points.astype(np.float64)
    end = np.roll(start, -1, axis=0)
    count = len(start)
    if count < 3 or len(np.unique(start, axis=0)) != count:
        return False
    low, high = np.minimum(start, end), np.maximum(start, end)
    rows = max(1, _CHUNK // count)
    for first in range(0, count, rows):
        mine, others = slice(first, min(first + rows, count)), slice(first, count)
        near = (low[mine, None] <= high[None, others]).all(axis=2) & (high[mine, None] >= low[None, others]).all(axis=2)
        one, other = np.nonzero(near)
        one, other = one + first, other + first
        apart = other > one
        if _any_contact(start, end, one[apart], other[apart]):
            return False
    return True


def _any_contact(
    start: NDArray[np.float64], end: NDArray[np.float64], one: NDArray[np.intp], other: NDArray[np.intp]
) -> bool:
    """Whether two edges, whose boxes meet, have a point in common that is not the corner between neighbours."""
    count = len(start)
    next_to = (other == one + 1) | ((one == 0) & (other == count - 1))
    a, b, c, d = start[one], end[one], start[other], end[other]
    sides = [_side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)]
    meets = (sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0)
    # Neighbours always meet in their corner; more than that they share if one runs back along the other.
    in_line = (sides[0] == 0) & (sides[1] == 0)
    runs_back = in_line & (((b - a) * (d - c)).sum(axis=1) < 0)
    return bool(np.where(next_to, runs_back, meets).any())


def _side(a: NDArray[np.float64], b: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 or -1 for a point on one or the other side of the line from a to b, 0 on it."""
    across = (b[:, 0] - a[:, 0]) * (point[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (point[:, 0] - a[:, 0])
    return np.asarray(np.sign(across), np.float64)


def polygon_to_mask(points: Sequence[float], width: int, height: int) -> Mask | None:
    """The pixels of a picture whose centres lie inside a polygon (even-odd rule); None if there are none."""
    x, y = np.asarray(points[0::2], np.float64), np.asarray(points[1::2], np.float64)
    left, right = max(0, int(np.floor(x.min()))), min(width, int(np.ceil(x.max())))
    top, bottom = max(0, int(np.floor(y.min()))), min(height, int(np.ceil(y.max())))
    if left >= right or top >= bottom:
        return None
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    # The rows whose centre an edge passes: from the first at or below its upper end to the last above its lower end.
    first = np.ceil(np.minimum(y, next_y) - 0.5).clip(top, bottom).astype(np.intp)
    last = np.ceil(np.maximum(y, next_y) - 0.5).clip(top, bottom).astype(np.intp)
    edge = np.repeat(np.arange(len(x)), last - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    place = x[edge] + (row + 0.5 - y[edge]) / (next_y[edge] - y[edge]) * (next_x[edge] - x[edge])
    # Each crossing turns inside into outside for all pixels whose centre lies to the right of it.
    turns = np.zeros((bottom - top, right - left + 1), np.int32)
    np.add.at(turns, (row - top, np.ceil(place - 0.5).clip(left, right).astype(np.intp) - left), 1)
    return tight(Mask(np.cumsum(turns, axis=1)[:, :-1] % 2 == 1, left, top))

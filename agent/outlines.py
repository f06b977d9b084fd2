"""Masks into polygons and back. Outlines run along the edges of pixels, so that areas stay what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.contract import Mask, Polygon
from agent.geometry import polygon_area

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_PART = 4
"""Square pixels: parts and holes below that are noise."""


def mask_to_polygons(mask: Mask, tolerance: float = 1.0) -> list[Polygon]:
    """Simple polygons (no line crosses or touches another) that cover the mask, its largest part first.

    CVAT's polygons have no holes: a part with a hole is cut in two through it. `tolerance` is how far, in pixels, the
    simplified line may lie from the outline (Douglas and Peucker, 1973).
    """
    found = []
    for part, left, top in _parts(mask.bitmap, mask.left, mask.top):
        points = _simplified(_outline(part), tolerance)
        pairs = [(x + left, y + top) for x, y in points.tolist()]
        polygon = tuple(float(number) for pair in pairs for number in pair)
        if len(pairs) >= 3 and polygon_area(polygon) >= SMALLEST_PART:
            found.append(Polygon(polygon))
    return sorted(found, key=lambda polygon: -polygon_area(polygon.points))


def _parts(bitmap: NDArray[np.bool_], left: int, top: int) -> Iterator[tuple[NDArray[np.bool_], int, int]]:
    """Connected parts without holes, each cropped, with the place of its corner."""
    import cv2

    bitmap = _without_corner_contacts(bitmap)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(bitmap.astype(np.uint8), connectivity=4)
    for number in range(1, count):
        x, y, width, height, size = (int(value) for value in stats[number])
        if size < SMALLEST_PART:
            continue
        part = numbers[y : y + height, x : x + width] == number
        part, cut = _fill_or_cut(part)
        if cut is None:
            yield part, left + x, top + y
        else:
            yield from _parts(part[:, :cut], left + x, top + y)
            yield from _parts(part[:, cut:], left + x + cut, top + y)


def _fill_or_cut(part: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int | None]:
    """The part with its tiny holes filled, and the column through its largest other hole."""
    import cv2

    outside = np.pad(~part, 1, constant_values=True).astype(np.uint8)
    # The background touches itself across corners where the foreground does not, hence 8 neighbours.
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=8)
    numbers = numbers[1:-1, 1:-1]
    surrounding = cv2.connectedComponentsWithStats(outside, connectivity=8)[1][0, 0]
    largest, cut = 0, None
    filled = part.copy()
    for number in range(1, count):
        size = int(stats[number, 4])
        if number == surrounding:
            continue
        if size < SMALLEST_PART:
            filled[numbers == number] = True
        elif size > largest:
            columns = np.flatnonzero((numbers == number).any(axis=0))
            largest, cut = size, int(columns[len(columns) // 2])
            cut = min(max(cut, 1), part.shape[1] - 1)
    return filled, cut


def _without_corner_contacts(bitmap: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bitmap with pixels added where two others touch at a corner only; an outline would touch itself there."""
    result = bitmap.copy()
    while True:
        a, b, c, d = result[:-1, :-1], result[:-1, 1:], result[1:, :-1], result[1:, 1:]
        falling, rising = a & d & ~b & ~c, b & c & ~a & ~d
        if not (falling.any() or rising.any()):
            return result
        result[:-1, 1:] |= falling
        result[:-1, :-1] |= rising


def _outline(part: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(N, 2) corner points of a part's outline, in half pixels of a grid on which pixel x covers 2x to 2x + 2."""
    import cv2

    height, width = part.shape
    grid = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    for dy in range(3):
        for dx in range(3):
            grid[dy : dy + 2 * height : 2, dx : dx + 2 * width : 2] |= part
    contours, _ = cv2.findContours(grid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points: NDArray[np.int32] = max(contours, key=cv2.contourArea)[:, 0, :]
    return points


def _simplified(outline: NDArray[np.int32], tolerance: float) -> NDArray[np.float64]:
    """The outline in pixels, as simple as the tolerance allows without crossing itself."""
    import cv2

    while tolerance > 0.05:
        points = cv2.approxPolyDP(outline[:, None, :], 2 * tolerance, closed=True)[:, 0, :]
        if len(points) >= 3 and is_simple(points):
            return np.asarray(points, np.float64) / 2
        tolerance /= 2
    return outline.astype(np.float64) / 2


def is_simple(points: NDArray[np.int32] | NDArray[np.float64]) -> bool:
    """Whether a closed line neither crosses nor touches itself. Compares all pairs of edges."""
    start = points.astype(np.float64)
    end = np.roll(start, -1, axis=0)
    if len(np.unique(start, axis=0)) != len(start):
        return False
    count = len(start)
    first, second = np.triu_indices(count, k=2)
    apart = ~((first == 0) & (second == count - 1))
    first, second = first[apart], second[apart]
    a, b, c, d = start[first], end[first], start[second], end[second]
    sides = [_side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)]
    crosses = (sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0)
    # Four zeros: both on one line; then they touch only if their boxes do.
    in_line = (sides[0] == 0) & (sides[1] == 0)
    overlap = (np.maximum(np.minimum(a, b), np.minimum(c, d)) <= np.minimum(np.maximum(a, b), np.maximum(c, d))).all(
        axis=1
    )
    return not bool((crosses & (~in_line | overlap)).any())


def _side(a: NDArray[np.float64], b: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.sign(
        (b[:, 0] - a[:, 0]) * (point[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (point[:, 0] - a[:, 0])
    )
    return result


def polygon_to_mask(points: Sequence[float], width: int, height: int) -> Mask | None:
    """The pixels of a picture whose centres lie inside a polygon (even-odd rule); None if there are none."""
    x, y = np.asarray(points[0::2], np.float64), np.asarray(points[1::2], np.float64)
    left, right = max(0, int(np.floor(x.min()))), min(width, int(np.ceil(x.max())))
    top, bottom = max(0, int(np.floor(y.min()))), min(height, int(np.ceil(y.max())))
    if left >= right or top >= bottom:
        return None
    bitmap = np.zeros((bottom - top, right - left), bool)
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    centres = np.arange(left, right) + 0.5
    for row in range(top, bottom):
        level = row + 0.5
        crossing = (y <= level) != (next_y <= level)
        if crossing.any():
            share = (level - y[crossing]) / (next_y[crossing] - y[crossing])
            places = np.sort(x[crossing] + share * (next_x[crossing] - x[crossing]))
            bitmap[row - top] = np.searchsorted(places, centres, side="right") % 2 == 1
    return Mask(bitmap, left, top) if bitmap.any() else None

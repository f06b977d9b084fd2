"""From bitmaps to masks: cut to their pixels, and taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from agent.contract import Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray


def tight_mask(bitmap: NDArray[np.bool_], left: int = 0, top: int = 0) -> Mask | None:
    """The bitmap, which lies at (left, top) of the frame, cut to its pixels; None where it has none."""
    rows = np.flatnonzero(bitmap.any(axis=1))
    if not rows.size:
        return None
    first, last = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(bitmap[first:last].any(axis=0))
    # A copy: a view would keep the whole frame's bitmap in memory.
    part = bitmap[first:last, columns[0] : columns[-1] + 1].copy()
    return Mask(part, left + int(columns[0]), top + first)


def connected_parts(mask: Mask, smallest: int = 1) -> Iterator[Mask]:
    """The connected parts (corners connect) that have at least `smallest` pixels, the largest first."""
    import cv2

    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.bitmap.astype(np.uint8), connectivity=8)
    for number in sorted(range(1, count), key=lambda n: -int(stats[n, cv2.CC_STAT_AREA])):
        x, y, width, height, area = (int(value) for value in stats[number])
        if area >= smallest:
            yield Mask(numbers[y : y + height, x : x + width] == number, mask.left + x, mask.top + y)

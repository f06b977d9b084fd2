"""Boxes with scores on their way from a network's output to detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CANDIDATES = 4096
"""The best-scored boxes that are compared with each other; keeps the worst frame bounded."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """`boxes` (n, 4) left, top, right, bottom in input pixels; `scores` (n,) 0..1; `classes` (n,) indices."""

    boxes: NDArray[Any]
    scores: NDArray[Any]
    classes: NDArray[Any]

    def at(self, places: NDArray[Any]) -> Candidates:
        """Those at the given places, or where a bool array is true."""
        return Candidates(self.boxes[places], self.scores[places], self.classes[places])

    def best(self, limit: int) -> Candidates:
        """The `limit` with the highest scores, best first; equal scores in the network's order."""
        return self.at(np.argsort(-self.scores, kind="stable")[:limit])


def from_centres(boxes: NDArray[Any]) -> NDArray[Any]:
    """(n, 4) centre x, centre y, width, height as left, top, right, bottom."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def suppress(found: Candidates, iou: float, limit: int) -> Candidates:
    """Greedy non-maximum suppression within each class, best first, until `limit` boxes are kept.

    A box goes if its overlap with a better one of its class is above `iou`. Since the best are kept first, a higher
    score threshold gives a prefix of the same list.
    """
    found = found.best(MAX_CANDIDATES)
    boxes = found.boxes.astype(np.float64)
    if not len(boxes):
        return found
    # Boxes of different classes are moved apart, so that one pass serves all classes.
    span = boxes.max() - boxes.min() + 1
    left, top, right, bottom = (boxes + (found.classes * span)[:, None]).T
    area = (right - left) * (bottom - top)
    waiting, kept = np.arange(len(boxes)), list[int]()
    while len(waiting) and len(kept) < limit:
        first, rest = waiting[0], waiting[1:]
        kept.append(first)
        width = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        height = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        waiting = rest[shared <= iou * (area[first] + area[rest] - shared)]
    return found.at(np.array(kept))

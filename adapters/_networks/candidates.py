"""Boxes with scores on their way from a network's output to detections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CANDIDATES = 4096
"""The best-scored boxes that are compared with each other; keeps the worst frame bounded."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """`boxes` (n, 4) left, top, right, bottom in input pixels; `scores` (n,) 0..1; `classes` (n,) indices.

    `more` (n, k): what else a family gives for a box: mask coefficients, points, a turn in radians.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    classes: NDArray[Any]
    more: NDArray[Any] | None = None

    def at(self, places: NDArray[Any]) -> Candidates:
        """Those at the given places, or where a bool array is true."""
        more = None if self.more is None else self.more[places]
        return Candidates(self.boxes[places], self.scores[places], self.classes[places], more)

    @property
    def rows(self) -> NDArray[Any]:
        """`more`, with no column where there is nothing more."""
        return np.zeros((len(self.scores), 0)) if self.more is None else self.more

    def best(self, limit: int) -> Candidates:
        """The `limit` with the highest scores, best first; equal scores in the network's order."""
        return self.at(np.argsort(-self.scores, kind="stable")[:limit])


def from_centres(boxes: NDArray[Any]) -> NDArray[Any]:
    """(n, 4) centre x, centre y, width, height as left, top, right, bottom."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def suppress(found: Candidates, iou: float, limit: int, *, turned: bool = False) -> Candidates:
    """Greedy non-maximum suppression within each class, best first, until `limit` boxes are kept.

    A box goes if its overlap with a better one of its class is above `iou`. Since the best are kept first, a higher
    score threshold gives a prefix of the same list. Where boxes are `turned`, by `more`, their overlap is told by the
    Gaussians in them (probabilistic IoU, arXiv 2106.06072), which is quick, and how the YOLO families do it.
    """
    found = found.best(MAX_CANDIDATES)
    boxes = found.boxes.astype(np.float64)
    if not len(boxes):
        return found
    # Boxes of different classes are moved apart, so that one pass serves all classes.
    boxes += (found.classes * (boxes.max() - boxes.min() + 1))[:, None]
    overlap = _turned_overlap(boxes, found.rows[:, 0].astype(np.float64)) if turned else _overlap(boxes)
    waiting: NDArray[Any] = np.arange(len(boxes))
    kept: list[int] = []
    while len(waiting) and len(kept) < limit:
        first, rest = waiting[0], waiting[1:]
        kept.append(first)
        waiting = rest[~overlap(first, rest, iou)]
    return found.at(np.array(kept))


_Overlaps = Callable[[int, "NDArray[Any]", float], "NDArray[np.bool_]"]
"""Which of some boxes overlap one of them by more than so much."""


def _overlap(boxes: NDArray[np.float64]) -> _Overlaps:
    left, top, right, bottom = boxes.T
    area = (right - left) * (bottom - top)

    def above(first: int, rest: NDArray[Any], iou: float) -> NDArray[np.bool_]:
        width = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        height = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        return np.asarray(shared > iou * (area[first] + area[rest] - shared))

    return above


def _turned_overlap(boxes: NDArray[np.float64], turns: NDArray[Any]) -> _Overlaps:
    """As `_overlap`, with 1 - Hellinger distance of the boxes' Gaussians in place of intersection over union."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    wide, high = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6).T ** 2 / 12
    cos, sin = np.cos(turns), np.sin(turns)
    a, b, c = wide * cos**2 + high * sin**2, wide * sin**2 + high * cos**2, (wide - high) * cos * sin
    spread = np.maximum(a * b - c**2, 1e-12)

    def above(first: int, rest: NDArray[Any], iou: float) -> NDArray[np.bool_]:
        sum_a, sum_b, sum_c = a[first] + a[rest], b[first] + b[rest], c[first] + c[rest]
        dx, dy = x[first] - x[rest], y[first] - y[rest]
        both = np.maximum(sum_a * sum_b - sum_c**2, 1e-12)
        away = (sum_a * dy**2 + sum_b * dx**2 - 2 * sum_c * dx * dy) / both / 4
        size = np.log(both / (4 * np.sqrt(spread[first] * spread[rest]))) / 2
        return np.asarray(1 - np.sqrt(1 - np.exp(-np.clip(away + size, 0, 100))) > iou)

    return above

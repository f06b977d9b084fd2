"""Detections of one frame that mean the same things, made one: weighted boxes fusion, NMS, soft-NMS, merging.

Sources: Solovyev, Wang, Gabruseva, Weighted boxes fusion, Image and Vision Computing 2021; Bodla et al., Soft-NMS,
ICCV 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.contract import Detection, Mask, Rectangle, Shape
from agent.shapes.geometry import bounds, iou, tight
from agent.shapes.overlap import overlap, overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

Group = Sequence[Detection]
"""What one model, one view or one tile saw of a frame."""
SIGMA = 0.5
"""Of soft-NMS: how quickly overlap lowers a score."""


def fuse(
    groups: Sequence[Group],
    method: str,
    limit: float,
    weights: Sequence[float] | None = None,
    *,
    known: Sequence[Collection[str]] | None = None,
    least: float = 0.0,
) -> list[Detection]:
    """The detections of all groups, those of one label that overlap by `limit` (IoU) or more made one, best first.

    Tags count once, with their best score. What has neither a rectangle nor a mask is chosen among, never averaged.
    `known` are each group's labels: who has no word for a thing is not asked whether it agrees. What is below `least`
    in the end is left out.
    """
    weights = list(weights or [1.0] * len(groups))
    entries = [_Entry(d, number, weights[number]) for number, group in enumerate(apart(groups)) for d in group]
    kept: list[Detection] = []
    for label in dict.fromkeys(entry.detection.label for entry in entries):
        own = [entry for entry in entries if entry.detection.label == label]
        drawn, tags = [e for e in own if e.detection.shape is not None], [e for e in own if e.detection.shape is None]
        if tags:
            kept.append(max((entry.detection for entry in tags), key=_score))
        if drawn:
            asked = sum(weight for number, weight in enumerate(weights) if known is None or label in known[number])
            kept += _METHODS[method](sorted(drawn, key=lambda e: -e.score), limit, asked)
    return sorted((one for one in kept if _score(one) >= least), key=lambda detection: -_score(detection))


def apart(groups: Sequence[Group]) -> list[list[Detection]]:
    """The groups, with numbers of their own for what belongs together: two models may both begin with 1."""
    numbers: dict[tuple[int, int], int] = {}
    return [
        [
            d if d.group is None else replace(d, group=numbers.setdefault((place, d.group), len(numbers) + 1))
            for d in group
        ]
        for place, group in enumerate(groups)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A detection and where it is from."""

    detection: Detection
    source: int
    weight: float

    @property
    def score(self) -> float:
        return _score(self.detection) * self.weight

    @property
    def shape(self) -> Shape:
        assert self.detection.shape is not None  # tags never come here
        return self.detection.shape


def _score(detection: Detection) -> float:
    return 1.0 if detection.score is None else detection.score


# ------------------------------------------------------------------- methods


def _nms(entries: Sequence[_Entry], limit: float, asked: float) -> list[Detection]:
    """The best of each heap."""
    shares, kept = overlaps([entry.shape for entry in entries]), list[int]()
    for number in range(len(entries)):
        if all(shares[number, better] < limit for better in kept):
            kept.append(number)
    return [entries[number].detection for number in kept]


def _soft_nms(entries: Sequence[_Entry], limit: float, asked: float) -> list[Detection]:
    """All, with scores lowered by the overlap with better ones; equal ones (IoU from 0.95) are one."""
    shares = overlaps([entry.shape for entry in entries])
    left = np.ones(len(entries))
    waiting, kept = list(range(len(entries))), list[Detection]()
    while waiting:
        # Weights say whom to believe first; they are no part of the score.
        best = max(waiting, key=lambda number: entries[number].score * left[number])
        waiting.remove(best)
        found = entries[best].detection
        kept.append(found if left[best] == 1 else replace(found, score=_score(found) * float(left[best])))
        for other in list(waiting):
            if shares[best, other] >= 0.95:
                waiting.remove(other)
            elif shares[best, other] >= limit:
                left[other] *= math.exp(-(shares[best, other] ** 2) / SIGMA)
    return kept


def _wbf(entries: Sequence[_Entry], limit: float, asked: float) -> list[Detection]:
    """One for each heap: sides weighted by score, and a score that counts how many of the sources agree."""
    heaps: list[list[_Entry]] = []
    fused: list[Shape] = []
    boxes = np.zeros((len(entries), 4))
    for entry in entries:
        shares = iou(np.array([bounds(entry.shape)]), boxes[: len(fused)])[0]
        for number in np.flatnonzero(shares):
            shares[number] = overlap(entry.shape, fused[number], float(shares[number]))
        best = int(shares.argmax()) if len(shares) else -1
        if best >= 0 and shares[best] >= limit:
            heaps[best].append(entry)
            fused[best] = _mean(heaps[best])
        else:
            best = len(fused)
            heaps.append([entry])
            fused.append(entry.shape)
        boxes[best] = bounds(fused[best])
    return [_agreed(heap, shape, asked) for heap, shape in zip(heaps, fused, strict=True)]


def _agreed(heap: Sequence[_Entry], shape: Shape, asked: float) -> Detection:
    own = sum(entry.weight for entry in heap)
    score = sum(entry.score for entry in heap) / own
    # Sources that saw nothing here count too: what one of three sees is worth a third.
    seen = sum({entry.source: entry.weight for entry in heap}.values())
    return replace(heap[0].detection, shape=shape, score=float(min(1.0, score * seen / max(seen, asked))))


def _mean(heap: Sequence[_Entry]) -> Shape:
    """The sides' mean of upright rectangles, the pixels that most of the score agrees on of masks, else the best."""
    shapes, scores = [entry.shape for entry in heap], np.array([max(entry.score, 1e-6) for entry in heap])
    if all(isinstance(shape, Rectangle) and not shape.rotation for shape in shapes):
        sides = np.array([bounds(shape) for shape in shapes])
        left, top, right, bottom = (float(side) for side in (sides * scores[:, None]).sum(0) / scores.sum())
        return Rectangle(left, top, right, bottom)
    masks = [shape for shape in shapes if isinstance(shape, Mask)]
    if len(masks) == len(shapes):
        return _voted(masks, scores) or masks[0]
    return shapes[0]


def _voted(masks: Sequence[Mask], scores: NDArray[np.float64]) -> Mask | None:
    left, top = min(mask.left for mask in masks), min(mask.top for mask in masks)
    right = max(mask.left + mask.bitmap.shape[1] for mask in masks)
    bottom = max(mask.top + mask.bitmap.shape[0] for mask in masks)
    votes = np.zeros((bottom - top, right - left))
    for mask, score in zip(masks, scores, strict=True):
        rows, columns = mask.bitmap.shape
        votes[mask.top - top : mask.top - top + rows, mask.left - left : mask.left - left + columns] += (
            mask.bitmap * score
        )
    return tight(Mask(votes > scores.sum() / 2, left, top))


_METHODS: dict[str, Callable[[Sequence[_Entry], float, float], list[Detection]]] = {
    "wbf": _wbf,
    "nms": _nms,
    "soft-nms": _soft_nms,
}

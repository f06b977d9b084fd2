"""Pieces of things that the borders of tiles cut, put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent.contract import Detection, Mask, Rectangle, Shape
from agent.shapes.geometry import Bounds, bounds

SAME = 0.5
"""Share of the smaller one that two detections have in common if they are of one thing."""


def merge(detections: Sequence[Detection], cut: Sequence[bool]) -> list[Detection]:
    """Detections of overlapping tiles: doubles go, and pieces of a thing become the whole.

    `cut` tells of each whether a border may have cut it. A whole one swallows what lies in it; two cut ones that share
    enough become one that covers both (rectangles and masks; of other shapes the larger stays).
    """
    # Whole things first: a piece must not grow into a thing that another tile has seen entirely.
    order = sorted(range(len(detections)), key=lambda n: (cut[n], -(detections[n].score or 1.0)))
    kept: list[tuple[Detection, bool]] = []
    for number in order:
        detection, piece = detections[number], cut[number]
        for place, (other, other_cut) in enumerate(kept):
            if other.label == detection.label and _same(other.shape, detection.shape):
                if piece and other_cut:
                    kept[place] = (_whole(other, detection), True)
                break
        else:
            kept.append((detection, piece))
    return [detection for detection, _ in kept]


def _same(one: Shape | None, other: Shape | None) -> bool:
    if one is None or other is None:
        return one is other
    a, b = bounds(one), bounds(other)
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    smaller = min(_area(a), _area(b))
    return smaller > 0 and shared / smaller >= SAME


def _area(box: Bounds) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _whole(one: Detection, other: Detection) -> Detection:
    score = max(one.score or 0.0, other.score or 0.0) if one.score is not None or other.score is not None else None
    a, b = one.shape, other.shape
    if isinstance(a, Mask) and isinstance(b, Mask):
        return replace(one, shape=_union(a, b), score=score)
    if isinstance(a, Rectangle) and isinstance(b, Rectangle) and not (a.rotation or b.rotation):
        sides = min(a.left, b.left), min(a.top, b.top), max(a.right, b.right), max(a.bottom, b.bottom)
        return replace(one, shape=Rectangle(*sides), score=score)
    assert a is not None
    assert b is not None  # tags are never cut
    return one if _area(bounds(a)) >= _area(bounds(b)) else other


def _union(one: Mask, other: Mask) -> Mask:
    left, top = min(one.left, other.left), min(one.top, other.top)
    right = max(one.left + one.bitmap.shape[1], other.left + other.bitmap.shape[1])
    bottom = max(one.top + one.bitmap.shape[0], other.top + other.bitmap.shape[0])
    bitmap = np.zeros((bottom - top, right - left), bool)
    for mask in (one, other):
        rows, columns = mask.bitmap.shape
        bitmap[mask.top - top : mask.top - top + rows, mask.left - left : mask.left - left + columns] |= mask.bitmap
    return Mask(bitmap, left, top)

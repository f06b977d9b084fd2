"""What overlapping views of one picture show, each thing once: doubles go, and pieces are put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.contract import Detection, Mask, Rectangle
from agent.shapes.geometry import Bounds, bounds, iou
from agent.shapes.overlap import overlap

SAME = 0.5
"""Share of a piece that lies in a whole thing, or of what two pieces show of the part that both views see."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A detection, in coordinates of the picture, and the part of the picture in which it was seen."""

    detection: Detection
    view: Bounds
    cut: bool = False
    """Whether a border of the view may have cut it."""

    @property
    def box(self) -> Bounds:
        assert self.detection.shape is not None  # tags are never asked
        return bounds(self.detection.shape)


def merge(pieces: Sequence[Piece], limit: float) -> list[Detection]:
    """The things that the pieces are of.

    Whole things of two views that overlap by `limit` (IoU) are one, and swallow the pieces that lie in them. Two pieces
    are of one thing where both views show the same of it; they become one that covers both (rectangles and masks; of
    other shapes the larger stays). What one view tells apart stays apart.
    """
    # Whole things first: a piece must not grow into a thing that another view has seen entirely.
    kept: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.cut, -_score(piece.detection))):
        for place, other in enumerate(kept):
            if other.detection.label == piece.detection.label and _same(other, piece, limit):
                if piece.cut and other.cut:
                    whole = _whole(other.detection, piece.detection)
                    kept[place] = Piece(whole, _around(other.view, piece.view), cut=True)
                break
        else:
            kept.append(piece)
    return [piece.detection for piece in kept]


def _score(detection: Detection) -> float:
    return 1.0 if detection.score is None else detection.score


def _same(one: Piece, other: Piece, limit: float) -> bool:
    """Whether a piece, or another whole thing, is of the first."""
    a, b = one.detection.shape, other.detection.shape
    if a is None or b is None:
        return a is b
    if one.view == other.view:
        return False
    if not other.cut:
        return overlap(a, b, _iou(one.box, other.box)) >= limit
    if not one.cut:
        return _area(_shared(one.box, other.box)) >= SAME * _area(other.box) > 0
    zone = _shared(one.view, other.view)
    return _iou(_shared(one.box, zone), _shared(other.box, zone)) >= SAME


def _iou(one: Bounds, other: Bounds) -> float:
    return float(iou(np.array([one]), np.array([other]))[0, 0])


def _shared(one: Bounds, other: Bounds) -> Bounds:
    """What two boxes share; of no area where that is nothing."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    return left, top, max(left, min(one[2], other[2])), max(top, min(one[3], other[3]))


def _around(one: Bounds, other: Bounds) -> Bounds:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _area(box: Bounds) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _whole(one: Detection, other: Detection) -> Detection:
    score = max(one.score or 0.0, other.score or 0.0) if one.score is not None or other.score is not None else None
    a, b = one.shape, other.shape
    if isinstance(a, Mask) and isinstance(b, Mask):
        return replace(one, shape=_union(a, b), score=score)
    if isinstance(a, Rectangle) and isinstance(b, Rectangle) and not (a.rotation or b.rotation):
        return replace(one, shape=Rectangle(*_around(bounds(a), bounds(b))), score=score)
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

"""What boxes become in the frame: rectangles, turned rectangles, masks, skeletons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from adapters._masks import tight_mask
from adapters._networks.candidates import Candidates
from adapters._networks.head import Canvas, Outputs
from adapters._networks.maps import to_frame
from agent.contract import BadPrediction, Keypoint, Rectangle, Shape, Skeleton

if TYPE_CHECKING:
    from numpy.typing import NDArray

Drawer: TypeAlias = "Callable[[Candidates, Outputs, Canvas], Sequence[Shape | None]]"
"""For each candidate its shape, or None where nothing of it is in the frame."""


def rectangles(found: Candidates, outputs: Outputs, canvas: Canvas) -> list[Shape | None]:
    """Upright boxes, cut at the frame's edges."""
    boxes = canvas.placement.to_frame(found.boxes, canvas.width, canvas.height).tolist()
    return [Rectangle(*box) if box[2] > box[0] and box[3] > box[1] else None for box in boxes]


def turned_rectangles(found: Candidates, outputs: Outputs, canvas: Canvas) -> list[Shape | None]:
    """Turned boxes; where the frame was stretched, each has the sides that its middle lines have in the frame."""
    where = canvas.placement
    drawn: list[Shape | None] = []
    for (left, top, right, bottom), turn in zip(found.boxes.tolist(), found.rows[:, 0].tolist(), strict=True):
        x = ((left + right) / 2 - where.left) / where.scale_x
        y = ((top + bottom) / 2 - where.top) / where.scale_y
        along = (right - left) * math.cos(turn) / where.scale_x, (right - left) * math.sin(turn) / where.scale_y
        across = (bottom - top) * math.sin(turn) / where.scale_x, (bottom - top) * math.cos(turn) / where.scale_y
        width, height = math.hypot(*along), math.hypot(*across)
        degrees = math.degrees(math.atan2(along[1], along[0])) % 360
        seen = 0 <= x <= canvas.width and 0 <= y <= canvas.height and width > 0 and height > 0
        box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        drawn.append(Rectangle(*box, rotation=degrees) if seen and math.isfinite(degrees) else None)
    return drawn


def masks(prototypes: str) -> Drawer:
    """Masks mixed of prototypes by each candidate's coefficients, within its box (YOLACT, arXiv 1904.02689)."""

    def draw(found: Candidates, outputs: Outputs, canvas: Canvas) -> list[Shape | None]:
        maps = outputs[prototypes]
        boxes = canvas.placement.to_frame(found.boxes, canvas.width, canvas.height)
        drawn: list[Shape | None] = []
        for box, coefficients in zip(np.rint(boxes).astype(int).tolist(), found.rows, strict=True):
            left, top, right, bottom = box
            if left >= right or top >= bottom:
                drawn.append(None)
                continue
            mixed = np.tensordot(coefficients.astype(np.float32), maps.astype(np.float32, copy=False), axes=1)
            if not np.isfinite(mixed).all():
                raise BadPrediction(
                    "the graph gave mask coefficients or prototypes that are no numbers (NaN, infinite)"
                )
            logits = to_frame(mixed, canvas.placement, canvas.input_size, (left, top, right, bottom))
            drawn.append(tight_mask(logits > 0, left, top))
        return drawn

    return draw


def skeletons(names: Sequence[str], least: float) -> Drawer:
    """Skeletons of named points; points with a score below `least` are outside, and a skeleton of none is left out."""

    def draw(found: Candidates, outputs: Outputs, canvas: Canvas) -> list[Shape | None]:
        where = canvas.placement
        points = found.rows.reshape(-1, found.rows.shape[1] // 3, 3).astype(np.float64)
        points[..., 0] = np.clip((points[..., 0] - where.left) / where.scale_x, 0, canvas.width)
        points[..., 1] = np.clip((points[..., 1] - where.top) / where.scale_y, 0, canvas.height)
        return [_skeleton(names, rows, least) for rows in points]

    return draw


def _skeleton(names: Sequence[str], rows: NDArray[np.float64], least: float) -> Skeleton | None:
    """(K, 3) x, y, score as a skeleton."""
    points = tuple(
        Keypoint(name, x, y, outside=not score >= least)
        for name, (x, y, score) in zip(names, rows.tolist(), strict=True)
        if name
    )
    if not np.isfinite(rows).all() or all(point.outside for point in points):
        return None
    return Skeleton(points)

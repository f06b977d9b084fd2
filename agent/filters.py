"""What becomes of detections before they become annotations: thresholds, clipping, refusals, each with its reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.annotations import UNSEEN
from agent.contract import Detection, Rectangle, Shape, Skeleton
from agent.labels.matching import Thresholds
from agent.shapes.clipping import clip
from agent.shapes.geometry import area, bounds, coordinates, corners, iou

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Filters:
    """What a request wants to be left out."""

    thresholds: Thresholds
    min_area: float = 1.0
    """Square pixels; shapes without an area (points, lines, skeletons) are not asked."""
    max_per_frame: int | None = None


def filter_detections(
    detections: Sequence[Detection], width: int, height: int, filters: Filters
) -> tuple[list[Detection], Counter[str]]:
    """(what is left, clipped to the frame; how many were left out, by reason).

    A polygon or a line that leaves the frame and comes back becomes several detections of one group.
    """
    kept: list[Detection] = []
    refused: Counter[str] = Counter()
    thresholds = {label: filters.thresholds.of(label) for label in {d.label for d in detections}}
    group = max((detection.group or 0 for detection in detections), default=0)
    for detection in detections:
        if detection.score is not None and detection.score < thresholds[detection.label]:
            refused["below the threshold"] += 1
            continue
        if detection.shape is None:
            kept.append(detection)
            continue
        parts = _parts(detection.shape, width, height, filters.min_area)
        if isinstance(parts, str):
            refused[parts] += 1
        elif len(parts) == 1:
            kept.append(detection if parts[0] is detection.shape else replace(detection, shape=parts[0]))
        else:
            group += 1
            own = group if detection.group is None else detection.group
            kept += [replace(detection, shape=part, group=own) for part in parts]
    limit = filters.max_per_frame
    if limit is not None and len(kept) > limit:
        refused["more than --max-per-frame"] += len(kept) - limit
        kept = _best(kept, limit)
    return kept, refused


def _parts(shape: Shape, width: int, height: int, min_area: float) -> Sequence[Shape] | str:
    """What of a shape is in the frame and large enough; or why nothing is."""
    if not all(map(math.isfinite, coordinates(shape))):
        return "not finite"
    size = area(shape)
    if size is not None and size <= 0:
        return "without area"
    if isinstance(shape, Skeleton) and all(element.outside for element in shape.elements):
        return UNSEEN
    parts = clip(shape, width, height)
    if not parts:
        return "outside the frame"
    if size is None or (parts[0] is shape and size >= min_area):
        return parts
    large = [part for part in parts if (size := area(part)) is None or size >= max(min_area, 1e-6)]
    return large or "smaller than --min-area"


def _best(detections: Sequence[Detection], count: int) -> list[Detection]:
    """Those with the best scores, in their order. One without a score is not known to be worse than others."""
    scores = [1.0 if detection.score is None else detection.score for detection in detections]
    best = sorted(range(len(detections)), key=lambda number: -scores[number])[:count]
    return [detections[number] for number in sorted(best)]


# ------------------------------------------------------- beside what is there already


def leave_out_overlapping(
    detections: Sequence[Detection], label_ids: Mapping[str, int], existing: Sequence[Mapping[str, Any]], limit: float
) -> tuple[list[Detection], int]:
    """(detections that overlap no existing shape of the same task label, how many others).

    Overlap is the intersection over union of the upright rectangles around both, which is exact for rectangles and
    generous for other shapes; it is too much from `limit` on, and never where there is none. `label_ids` has the task
    label of each model label.
    """
    boxes: dict[int, list[Sequence[float]]] = {}
    for item in existing:
        if (box := stored_bounds(item)) is not None:
            boxes.setdefault(item["label_id"], []).append(box)
    own: dict[int, list[tuple[int, Sequence[float]]]] = {}
    for number, detection in enumerate(detections):
        if detection.shape is not None and (label_id := label_ids[detection.label]) in boxes:
            own.setdefault(label_id, []).append((number, bounds(detection.shape)))
    left_out: set[int] = set()
    for label_id, asked in own.items():
        shares: NDArray[np.float64] = iou(np.array([box for _, box in asked], np.float64), np.array(boxes[label_id]))
        most = shares.max(axis=1).tolist()
        left_out.update(n for (n, _), share in zip(asked, most, strict=True) if share > 0 and share >= limit)
    return [d for n, d in enumerate(detections) if n not in left_out], len(left_out)


def stored_bounds(item: Mapping[str, Any]) -> Sequence[float] | None:
    """The upright rectangle around a shape of CVAT's JSON: left, top, right, bottom; None for one without points."""
    points, kind = item.get("points") or [], item["type"]
    if kind == "skeleton":
        points = [n for e in item.get("elements") or () if not e.get("outside") for n in e["points"]]
    if not points or item.get("outside"):
        return None
    if kind == "mask":
        left, top, right, bottom = points[-4:]
        return left, top, right + 1, bottom + 1
    if kind == "ellipse":
        x, y, right, top = points
        return 2 * x - right, top, right, 2 * y - top
    if kind == "rectangle" and item.get("rotation"):
        left, top, right, bottom = points
        points = corners(Rectangle(left, top, right, bottom, item["rotation"]))
    return min(points[0::2]), min(points[1::2]), max(points[0::2]), max(points[1::2])

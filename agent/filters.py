"""What becomes of detections before they become annotations: thresholds, clipping, refusals, each with its reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agent.contract import Detection
from agent.geometry import area, bounds, clip, coordinates, iou
from agent.labels import Thresholds


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
    """(what is left, clipped to the frame; how many were left out, by reason)."""
    kept: list[Detection] = []
    refused: Counter[str] = Counter()
    for detection in detections:
        found = _judge(detection, width, height, filters)
        if isinstance(found, str):
            refused[found] += 1
        else:
            kept.append(found)
    if filters.max_per_frame is not None and len(kept) > filters.max_per_frame:
        refused["more than --max-per-frame"] += len(kept) - filters.max_per_frame
        # Those without a score are not known to be worse than others.
        kept = sorted(kept, key=lambda d: -(1.0 if d.score is None else d.score))[: filters.max_per_frame]
    return kept, refused


def _judge(detection: Detection, width: int, height: int, filters: Filters) -> Detection | str:
    if detection.score is not None and detection.score < filters.thresholds.of(detection.label):
        return "below the threshold"
    shape = detection.shape
    if shape is None:
        return detection
    if not all(map(math.isfinite, coordinates(shape))):
        return "not finite"
    size = area(shape)
    if size is not None and size <= 0:
        return "without area"
    clipped = clip(shape, width, height)
    if clipped is None:
        return "outside the frame"
    size = area(clipped)
    if size is not None and size < filters.min_area:
        return "smaller than --min-area"
    return detection if clipped is shape else replace(detection, shape=clipped)


def leave_out_overlapping(
    detections: Sequence[Detection], label_ids: Mapping[str, int], existing: Sequence[Mapping[str, Any]], limit: float
) -> tuple[list[Detection], int]:
    """(detections that overlap no existing shape of the same task label, how many others).

    Overlap is the intersection over union of the upright rectangles around both, which is exact for rectangles and
    generous for other shapes. `label_ids` has the task label of each model label.
    """
    boxes: dict[int, list[Sequence[float]]] = {}
    for item in existing:
        if (box := _box_of(item)) is not None:
            boxes.setdefault(item["label_id"], []).append(box)
    kept = []
    for detection in detections:
        others = boxes.get(label_ids[detection.label])
        if detection.shape is not None and others:
            own = np.asarray([bounds(detection.shape)], np.float64)
            if float(iou(own, np.asarray(others, np.float64)).max()) >= limit:
                continue
        kept.append(detection)
    return kept, len(detections) - len(kept)


def _box_of(item: Mapping[str, Any]) -> Sequence[float] | None:
    """The upright rectangle around a shape of CVAT's JSON."""
    points, kind = item.get("points") or [], item["type"]
    if kind == "skeleton":
        points = [n for e in item.get("elements", ()) if not e.get("outside") for n in e["points"]]
    if kind == "mask":
        left, top, right, bottom = points[-4:]
        return left, top, right + 1, bottom + 1
    if kind == "ellipse":
        x, y, right, top = points
        return 2 * x - right, top, right, 2 * y - top
    if not points:
        return None
    return min(points[0::2]), min(points[1::2]), max(points[0::2]), max(points[1::2])

"""A model held to its contract: what it must not answer is said clearly, and costs its frame only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from agent.contract import Detection, Frame, Label, Skeleton
from agent.errors import BadPrediction


def check_predictions(
    predictions: Sequence[Sequence[Detection] | BadPrediction], frames: Sequence[Frame], labels: Sequence[Label]
) -> list[list[Detection] | BadPrediction]:
    """For each frame its detections, or what is wrong with them."""
    known = {label.name: label for label in labels}
    return [
        found if isinstance(found, BadPrediction) else _checked(found, frame, known)
        for found, frame in zip(predictions, frames, strict=True)
    ]


def _checked(found: Sequence[Detection], frame: Frame, labels: Mapping[str, Label]) -> list[Detection] | BadPrediction:
    for detection in found:
        if problem := _problem(detection, labels):
            return BadPrediction(f"frame {frame.index} ({frame.name}): {problem}")
    return list(found)


def _problem(detection: Detection, labels: Mapping[str, Label]) -> str | None:
    if not isinstance(detection, Detection):
        return f"got {type(detection).__name__}, allowed: Detection"
    label = labels.get(detection.label)
    if label is None:
        return f"label {detection.label!r} is none of the model's: {', '.join(list(labels)[:8])}"
    score = detection.score
    if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
        return f"score of {detection.label!r}: got {score}, allowed: 0 to 1"
    kind = detection.shape.type if detection.shape is not None else "tag"
    if label.type not in ("any", kind) and {label.type, kind} != {"mask", "polygon"}:
        return f"label {detection.label!r}: got a {kind}, the model declares it as {label.type}"
    if isinstance(detection.shape, Skeleton):
        sublabels = {sub.name for sub in label.sublabels}
        if strangers := sorted({element.label for element in detection.shape.elements} - sublabels):
            return f"skeleton {detection.label!r}: {', '.join(strangers)} is none of its sublabels"
    if strangers := sorted(set(detection.attributes) - {attribute.name for attribute in label.attributes}):
        return f"label {detection.label!r}: {', '.join(strangers)} is none of its attributes"
    return None

"""The forms of answers: what kind of model gives them, which classes they name, and their values held to sense.

Source: roboflow/inference, inference/core/entities/responses/inference.py, and the kinds of workflows in
inference/core/workflows/execution_engine/entities/types.py (release 1.5.0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

from agent.contract import BadPrediction

Task: TypeAlias = Literal[
    "object-detection",
    "instance-segmentation",
    "keypoint-detection",
    "classification",
    "multi-label-classification",
    "semantic-segmentation",
]
TASKS: tuple[Task, ...] = get_args(Task)
"""Roboflow's names of what a model does."""

BACKGROUND = ("background", "__background__")
_TOO_MUCH = 0.001
"""How far a score may be outside of 0 to 1: servers round."""


@dataclass(frozen=True, slots=True)
class Told:
    """The classes that an answer names, and the keypoints of those that have any."""

    task: Task | None
    classes: tuple[str, ...]
    keypoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def form_of(answer: Mapping[str, Any]) -> Task | None:
    """What kind of model gives such an answer; None where nothing was found and all detectors look the same."""
    predictions = answer.get("predictions")
    if isinstance(predictions, Mapping):
        return "semantic-segmentation" if "segmentation_mask" in predictions else "multi-label-classification"
    if not isinstance(predictions, list):
        raise BadPrediction(_not_predictions(answer))
    if "top" in answer:
        return "classification"
    if not predictions:
        return None
    first = predictions[0]
    if not isinstance(first, Mapping):
        raise BadPrediction(f"a prediction is no object: {str(first)[:80]}")
    if "keypoints" in first:
        return "keypoint-detection"
    if any(name in first for name in ("points", "rle", "rle_mask")):
        return "instance-segmentation"
    return "object-detection" if "width" in first else "classification"


def looks_like_predictions(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether one of a workflow's outputs can be read here."""
    if not isinstance(value, Mapping):
        return False
    predictions = value.get("predictions")
    if isinstance(predictions, Mapping):
        one = next(iter(predictions.values()), None)
        return "segmentation_mask" in predictions or (isinstance(one, Mapping) and "confidence" in one)
    return isinstance(predictions, list) and all(isinstance(p, Mapping) and "confidence" in p for p in predictions)


def classes_in(answer: Mapping[str, Any]) -> Told:
    """The classes that an answer names: classifiers and semantic segmentation tell all that they have."""
    task, predictions = form_of(answer), answer["predictions"]
    if task == "semantic-segmentation":
        named = [str(name) for name in predictions.get("class_map", {}).values()]
        return Told(task, tuple(name for name in named if name.lower() not in BACKGROUND))
    if task == "multi-label-classification":
        return Told(task, tuple(predictions))
    classes: dict[str, None] = {}
    keypoints: dict[str, tuple[str, ...]] = {}
    for one in predictions:
        classes[class_of(one)] = None
        points = one.get("keypoints")
        if isinstance(points, list) and points:
            ordered = sorted(points, key=lambda point: number_in(point, "class_id", class_of(point)))
            names = (*keypoints.get(class_of(one), ()), *map(class_of, ordered))
            keypoints[class_of(one)] = tuple(dict.fromkeys(names))
    return Told(task, tuple(classes), keypoints)


def class_of(one: Any) -> str:
    name = one.get("class", one.get("class_name")) if isinstance(one, Mapping) else None
    if not isinstance(name, str) or not name:
        raise BadPrediction(f"a prediction without a class: {str(one)[:80]}")
    return name


def score_of(one: Any, name: str) -> float:
    score = number_in(one, "confidence", name)
    if not -_TOO_MUCH <= score <= 1 + _TOO_MUCH:
        raise BadPrediction(f"{name!r}: got the confidence {score:g}, allowed: 0 to 1")
    return min(1.0, max(0.0, score))


def number_in(one: Any, what: str, name: str) -> float:
    value = one.get(what) if isinstance(one, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadPrediction(f"{name!r}: got {what} = {str(value)[:40]}, allowed: a number")
    return float(value)


def _not_predictions(answer: Mapping[str, Any]) -> str:
    got = ", ".join(sorted(map(str, answer))[:6]) or "nothing"
    return f"the server's answer has no predictions, it has {got}"

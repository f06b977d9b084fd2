"""A model held to its contract: what it must not answer is said clearly, and costs its frame only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from agent.contract import Detection, Frame, Label, Rectangle, Reidentifier, Shape, Skeleton
from agent.errors import BadPrediction, ModelError
from agent.labels.names import some
from agent.shapes.geometry import coordinates

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHAPES: tuple[type, ...] = get_args(Shape)


def check_predictions(
    predictions: Sequence[Sequence[Detection] | BadPrediction], frames: Sequence[Frame], labels: Sequence[Label]
) -> list[list[Detection] | BadPrediction]:
    """For each frame its detections, or what is wrong with them.

    BadPrediction is raised where it cannot be told which list belongs to which frame.
    """
    if not isinstance(predictions, Sequence) or len(predictions) != len(frames):
        got = len(predictions) if isinstance(predictions, Sequence) else type(predictions).__name__
        raise BadPrediction(f"the model: got {got}, allowed: one list of detections for each of {len(frames)} frames")
    known = {label.name: _Known(label) for label in labels}
    return [
        found if isinstance(found, BadPrediction) else _checked(found, frame, known)
        for found, frame in zip(predictions, frames, strict=True)
    ]


def describe(model: Reidentifier, frame: Frame, rectangles: Sequence[Rectangle], name: str) -> NDArray[np.float32]:
    """(N, D) descriptors of the rectangles; BadPrediction where the model fails or gives something else."""
    try:
        looks = np.asarray(model.describe(frame, rectangles), np.float32)
    except ModelError:
        raise
    except Exception as error:
        raise BadPrediction(f"{name}: the model failed: {type(error).__name__}: {error}") from error
    if looks.ndim != 2 or len(looks) != len(rectangles) or not np.isfinite(looks).all():
        allowed = f"finite descriptors of shape ({len(rectangles)}, D)"
        raise BadPrediction(f"{name}: got an array of shape {looks.shape}, allowed: {allowed}")
    return looks


class _Known:
    """What a label of the model may come with."""

    def __init__(self, label: Label) -> None:
        self.type = label.type
        self.attributes = {attribute.name for attribute in label.attributes}
        self.sublabels = {sub.name: {attribute.name for attribute in sub.attributes} for sub in label.sublabels}


def _checked(found: Any, frame: Frame, labels: Mapping[str, _Known]) -> list[Detection] | BadPrediction:
    place = f"frame {frame.index} ({frame.name})"
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return BadPrediction(f"{place}: got {type(found).__name__}, allowed: a list of detections")
    for detection in found:
        if problem := _problem(detection, labels):
            return BadPrediction(f"{place}: {problem}")
    return list(found)


def _problem(detection: Any, labels: Mapping[str, _Known]) -> str | None:
    if not isinstance(detection, Detection):
        return f"got {type(detection).__name__}, allowed: Detection"
    known = labels.get(detection.label) if isinstance(detection.label, str) else None
    if known is None:
        return f"label {detection.label!r} is none of the model's: {some(list(labels))}"
    score = detection.score
    # NaN is outside of every range.
    if score is not None and not (isinstance(score, Real) and 0 <= score <= 1):
        return f"score of {detection.label!r}: got {score!r}, allowed: 0 to 1, or None"
    if not (detection.group is None or isinstance(detection.group, Integral)):
        return f"group of {detection.label!r}: got {detection.group!r}, allowed: a number, or None"
    if strangers := set(detection.attributes) - known.attributes:
        return f"label {detection.label!r}: it has no attribute {some(sorted(strangers))}"
    return None if detection.shape is None and known.type in ("any", "tag") else _shape_problem(detection, known)


def _shape_problem(detection: Detection, known: _Known) -> str | None:
    shape = detection.shape
    if not (shape is None or isinstance(shape, _SHAPES)):
        return f"shape of {detection.label!r}: got {type(shape).__name__}, allowed: a shape of agent.contract, or None"
    kind = "tag" if shape is None else shape.type
    if known.type not in ("any", kind) and {known.type, kind} != {"mask", "polygon"}:
        return f"label {detection.label!r}: got a {kind}, the model declares it as {known.type}"
    if shape is None:
        return None
    try:
        # Whether they are finite is the filters' matter: one such shape does not cost the frame.
        all(map(math.isfinite, coordinates(shape)))
    except (TypeError, ValueError):
        return f"{kind} {detection.label!r}: got coordinates that are no numbers"
    if isinstance(shape, Skeleton):
        for element in shape.elements:
            if element.label not in known.sublabels:
                return f"skeleton {detection.label!r}: it has no point {element.label!r}: {some(list(known.sublabels))}"
            if strangers := set(element.attributes) - known.sublabels[element.label]:
                return f"point {element.label!r} of {detection.label!r}: it has no attribute {some(sorted(strangers))}"
    return None

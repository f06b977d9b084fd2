"""Our models as CVAT auto-annotation functions, for cvat-cli and for CVAT's own agents.

    cvat-cli task auto-annotate 42 --function-module adapters.as_function -p model=str:local:weights/yolo.onnx
    cvat-cli function create-native "A tracker" --function-module adapters.as_function -p model=str:opencv:mil

Detectors, interactors and trackers are handed over, each as the kind of function that it is. With
`-p config=str:service.toml`, `model` may be an id of its `[[models]]`. Further parameters are the model's options;
lists and tables are written as JSON, since cvat-cli knows none: `-p 'labels=str:["car", "bus"]'`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._cvat.labels import spec_labels
from adapters._cvat.shapes import AnnotationWriter
from agent.contract import BadPrediction, Context, Frame, ModelLoadFailed, PromptNeeds, Prompts, Rectangle, Shape

if TYPE_CHECKING:
    from PIL.Image import Image

    from agent.models.loading import LoadedModel

Function = Any
"""An auto-annotation function in the sense of cvat_sdk: what has a `spec`, and the methods that go with it."""
_LEAST_BOXES: Mapping[str, int | None] = {"no": None, "optional": 0, "required": 1}


def create(model: str, device: str = "auto", config: str | None = None, **options: Any) -> Function:
    """The function of a model reference, or of an id of `[[models]]` in the service.toml that `config` names."""
    from agent.compose.named import open_named
    from agent.settings.service import load_models

    models = load_models(None if config is None else Path(config))
    loaded = open_named(model, models, device=device, options={name: _value(o) for name, o in options.items()})
    if (function := _FUNCTIONS.get(loaded.kind)) is None:
        raise ModelLoadFailed(f"{model}: is of the kind {loaded.kind}, allowed: {', '.join(_FUNCTIONS)}")
    return function(loaded)


class DetectorFunction:
    """A DetectionFunction in the sense of cvat_sdk.auto_annotation."""

    def __init__(self, loaded: LoadedModel) -> None:
        from cvat_sdk.auto_annotation import DetectionFunctionSpec

        self.spec = DetectionFunctionSpec(labels=spec_labels(loaded.labels))
        self._loaded = loaded
        self._writer = AnnotationWriter(loaded.labels)

    def detect(self, context: Any, image: Image) -> list[Any]:
        """The tags and shapes on a picture, as LabeledImageRequest and LabeledShapeRequest."""
        threshold = context.conf_threshold
        if threshold is None:
            threshold = self._loaded.default_threshold
        frame = _frame(image, context.frame_name)
        asked = Context(threshold=threshold, masks_as_polygons=context.conv_mask_to_poly)
        (found,) = self._loaded.model.detect([frame], asked)
        if isinstance(found, BadPrediction):
            raise found
        return [
            annotation
            for detection in found
            if detection.score is None or detection.score >= threshold
            for annotation in self._writer.write(detection, frame, context.conv_mask_to_poly)
        ]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an interactor keeps of a picture, and the picture's size."""

    embedding: Any
    width: int
    height: int


class InteractorFunction:
    """An InteractionFunction: what it makes of a picture is kept by CVAT's agent between two clicks."""

    def __init__(self, loaded: LoadedModel) -> None:
        from cvat_sdk.auto_annotation import InteractionFunctionSpec

        needs: PromptNeeds = getattr(loaded.model, "needs", PromptNeeds())
        self.spec = InteractionFunctionSpec(
            min_pos_points=needs.positive, min_neg_points=needs.negative, min_bounding_boxes=_LEAST_BOXES[needs.box]
        )
        self._model = loaded.model

    def preprocess_image(self, context: Any, image: Image) -> _Seen:
        """What the model keeps of a picture."""
        frame = _frame(image)
        return _Seen(self._model.embed(frame), frame.width, frame.height)

    def detect(self, context: Any, pp_image: _Seen, prompts: Any) -> list[Any]:
        """What was marked, best first, as masks: CVAT's editor takes nothing else."""
        from cvat_sdk import models
        from cvat_sdk.auto_annotation import InteractionResultAttributes, InteractionResultShape

        from agent.flat_shapes import write_shape
        from agent.shapes.editor_masks import as_mask

        answer = []
        for found in self._model.segment(pp_image.embedding, _prompts(prompts)):
            shape = found.shape and as_mask(found.shape, (pp_image.width, pp_image.height))
            if shape is None:
                continue
            more = []
            if found.score is not None:
                number = int(InteractionResultAttributes.CONFIDENCE)
                more = [models.AttributeValRequest(spec_id=number, value=f"{float(found.score):.4g}")]
            answer.append(InteractionResultShape(**write_shape(shape), attributes=more))
        return answer


class TrackerFunction:
    """A TrackingFunction. CVAT's agent hands the same state back with every frame: ours is changed in place."""

    def __init__(self, loaded: LoadedModel) -> None:
        from cvat_sdk.auto_annotation import TrackingFunctionSpec

        self.spec = TrackingFunctionSpec(supported_shape_types=list(loaded.model.shape_types))
        self._model = loaded.model

    def preprocess_image(self, context: Any, image: Image) -> Frame:
        """The picture as models see it."""
        return _frame(image)

    def init_tracking_state(self, context: Any, pp_image: Frame, shape: Any) -> list[bytes]:
        """The state of a shape that is to be followed."""
        from agent.flat_shapes import read_shape

        return list(self._model.begin(pp_image, [read_shape({"type": shape.type, "points": shape.points})]))

    def track(self, context: Any, pp_image: Frame, state: list[bytes]) -> Any:
        """Where the shape is on the next picture, None where it is not to be seen."""
        from cvat_sdk.auto_annotation import TrackableShape

        from agent.flat_shapes import write_shape

        found: Shape | None
        ((state[0], found),) = self._model.follow(pp_image, state)
        return None if found is None else TrackableShape(**write_shape(found))


_FUNCTIONS: Mapping[str, Callable[[LoadedModel], Function]] = {
    "detector": DetectorFunction,
    "interactor": InteractorFunction,
    "tracker": TrackerFunction,
}


def _frame(image: Image, name: str = "") -> Frame:
    """The picture as our own doors see it: grays of 16 bits too, which PIL alone makes white."""
    from agent.cvat.decode import as_rgb

    return Frame(0, name, np.asarray(as_rgb(image)))


def _prompts(given: Any) -> Prompts:
    box = given.bounding_box
    if box is not None:
        (left, top), (right, bottom) = box
        box = Rectangle(min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    return Prompts(tuple(map(tuple, given.pos_points)), tuple(map(tuple, given.neg_points)), box)


def _value(option: Any) -> Any:
    if isinstance(option, str) and option[:1] in ("[", "{"):
        return json.loads(option)
    return option

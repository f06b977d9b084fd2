"""Our models as CVAT auto-annotation functions, for cvat-cli and for CVAT's own agents.

    cvat-cli task auto-annotate 42 --function-module adapters.as_function -p model=str:local:weights/yolo.onnx

Further parameters are the model's options; a list is written as JSON, since cvat-cli knows no lists:
`-p 'labels=str:["car", "bus"]'`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._cvat.labels import spec_labels
from adapters._cvat.shapes import AnnotationWriter
from agent.contract import Context, Frame

if TYPE_CHECKING:
    from PIL.Image import Image

    from agent.models import LoadedModel


def create(model: str, device: str = "auto", **options: Any) -> Function:
    """A detection function made of a model reference and the model's options."""
    from agent.contract import ModelLoadFailed
    from agent.models import load_model

    loaded = load_model(model, device=device, options={name: _value(o) for name, o in options.items()})
    if loaded.kind != "detector":
        raise ModelLoadFailed(f"{model}: is of the kind {loaded.kind}, allowed so far: detector")
    return Function(loaded)


class Function:
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
        frame = Frame(0, context.frame_name, np.asarray(image.convert("RGB")))
        asked = Context(threshold=threshold, masks_as_polygons=context.conv_mask_to_poly)
        (found,) = self._loaded.model.detect([frame], asked)
        return [
            annotation
            for detection in found
            if detection.score is None or detection.score >= threshold
            for annotation in self._writer.write(detection, frame, context.conv_mask_to_poly)
        ]


def _value(option: Any) -> Any:
    if isinstance(option, str) and option[:1] == "[":
        return json.loads(option)
    return option

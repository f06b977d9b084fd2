"""transformers' object detection models: DETR, RT-DETR, D-FINE, DEIMv2, YOLOS, Table Transformer and others."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._names import Names, as_names
from adapters._torch import Precision, choose_device, choose_precision
from adapters.huggingface.source import NeedsTimm, Source
from agent.contract import ConfigError, Context, Detection, Frame, Label, ModelError, ModelLoadFailed, Rectangle

if TYPE_CHECKING:
    from PIL.Image import Image

LOWEST_SCORE = 0.001
"""Below this a box is noise to everyone."""


class HubDetector:
    """Runs a model and its image processor on batches of frames; gives rectangles."""

    default_threshold = 0.5

    def __init__(
        self,
        source: Source,
        *,
        device: str,
        precision: Precision,
        names: Names | None,
        trust_remote_code: bool,
        allow_pickle: bool,
        batch_size: int,
    ) -> None:
        self._device = choose_device(device, source.owner)
        self._dtype = choose_precision(precision, self._device)
        with _quiet(), _load_errors(source.owner):
            self._model, self._processor = _load(source, self._dtype, trust_remote_code, allow_pickle)
            self._model.to(self._device).eval()
        self._names, labels_from = _class_names(self._model.config, names, source)
        self.labels = [Label(name, "rectangle") for name in self._names if name]
        self.batch_size = batch_size
        self.facts = {
            "source": source.owner.removeprefix("hf:"),
            "version": source.version,
            "architecture": type(self._model).__name__,
            "input size": _input_size(self._processor),
            "labels from": labels_from,
            "runs on": f"{self._device}, {str(self._dtype).removeprefix('torch.')}",
        }
        if source.revision:
            self.facts["revision"] = source.revision
        if source.licence:
            self.facts["licence"] = source.licence

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        found: list[list[Detection]] = [[] for _ in frames]
        # Processors pad pictures of different sizes to the largest, which not every model is told to ignore:
        # only frames of one size share a batch, so that a frame's boxes do not depend on its neighbours.
        by_size = defaultdict(list)
        for place, frame in enumerate(frames):
            by_size[frame.image.shape].append(place)
        for places in by_size.values():
            for start in range(0, len(places), self.batch_size):
                batch = places[start : start + self.batch_size]
                for place, detections in zip(batch, self._run([frames[i] for i in batch], context), strict=True):
                    found[place] = detections
        return found

    def _run(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        import torch

        inputs = self._processor(images=[_picture(frame) for frame in frames], return_tensors="pt")
        inputs = inputs.to(self._device, dtype=self._dtype)  # changes the dtype of floats only
        with torch.inference_mode():
            outputs = self._model(**inputs)
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        results = self._processor.post_process_object_detection(
            outputs,
            threshold=max(context.threshold, LOWEST_SCORE),
            target_sizes=[(frame.height, frame.width) for frame in frames],
        )
        return [self._detections(*pair, context) for pair in zip(results, frames, strict=True)]

    def _detections(self, result: Any, frame: Frame, context: Context) -> list[Detection]:
        """transformers' scores, labels and (n, 4) corners in frame pixels, best first."""
        scores, classes = result["scores"].cpu().numpy(), result["labels"].cpu().numpy()
        edge = np.array([frame.width, frame.height] * 2, np.float32)
        boxes = np.clip(result["boxes"].cpu().numpy(), 0, edge)
        found = []
        for place in np.argsort(-scores, kind="stable"):
            left, top, right, bottom = boxes[place].tolist()
            name = self._names[classes[place]] if classes[place] < len(self._names) else ""
            wanted = name and (context.labels is None or name in context.labels)
            if wanted and left < right and top < bottom:
                found.append(Detection(name, Rectangle(left, top, right, bottom), float(scores[place])))
        return found


def _picture(frame: Frame) -> Image:
    """PIL, since a processor guesses the axes of an array, and takes a picture of 3x3 pixels for channels."""
    from PIL import Image

    return Image.fromarray(frame.image)


def _load(source: Source, dtype: Any, trust_remote_code: bool, allow_pickle: bool) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(source.folder, **given)
    _check_task(config, source)
    if (
        not (source.folder / "preprocessor_config.json").exists()
        and not (source.folder / "processor_config.json").exists()
    ):
        raise ModelLoadFailed(
            f"{source.owner}: has no preprocessor_config.json, which says how to prepare pictures; a repository"
            " of the same architecture has one to copy"
        )
    processor = AutoImageProcessor.from_pretrained(source.folder, backend="pil", **given)
    safe = None if allow_pickle else True
    model, report = AutoModelForObjectDetection.from_pretrained(
        source.folder, config=config, dtype=dtype, use_safetensors=safe, output_loading_info=True, **given
    )
    if missing := [key for key in report["missing_keys"] if "num_batches_tracked" not in key]:
        raise ModelLoadFailed(
            f"{source.owner}: its weights lack {len(missing)} of the tensors that {type(model).__name__} needs,"
            f" e.g. {sorted(missing)[0]}"
        )
    return model, processor


def _check_task(config: Any, source: Source) -> None:
    """ModelLoadFailed unless transformers has an object detection class for the config."""
    from transformers import MODEL_FOR_OBJECT_DETECTION_MAPPING

    if "AutoModelForObjectDetection" in (getattr(config, "auto_map", None) or {}):
        return
    architectures = ", ".join(getattr(config, "architectures", None) or []) or f"model type {config.model_type}"
    if type(config) not in MODEL_FOR_OBJECT_DETECTION_MAPPING or (
        getattr(config, "architectures", None) and "Detection" not in architectures
    ):
        raise ModelLoadFailed(
            f"{source.owner}: got {architectures}, allowed: models of AutoModelForObjectDetection"
            " (DETR, RT-DETR, D-FINE, DEIMv2, YOLOS, …)"
        )


def _class_names(config: Any, names: Names | None, source: Source) -> tuple[Names, str]:
    """One name for each class index, and where the names are from."""
    count = int(config.num_labels)
    if names is not None:
        if len(names) != count:
            raise ConfigError(f"{source.owner}: labels: got {len(names)} names, the model has {count} classes")
        return names, "option labels"
    stored = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    found = as_names(config.id2label, f"{source.owner}: id2label")
    if not stored.get("id2label"):
        return found, "nowhere: its config has no id2label; give names by the option labels"
    return found, "its config"


def _input_size(processor: Any) -> str:
    size = getattr(processor, "size", None)
    size = dict(size) if size else {}
    if {"height", "width"} <= size.keys():
        return f"{size['width']}x{size['height']}"
    return ", ".join(f"{name} {value}" for name, value in size.items() if value) or "unknown"


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its progress bars, advice and deprecation notes, which are not for our users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield


@contextmanager
def _load_errors(owner: str) -> Iterator[None]:
    try:
        yield
    except (ModelError, ConfigError):
        raise
    except ImportError as error:
        if "timm" in str(error):
            raise NeedsTimm(
                f"{owner}: its backbone needs the package timm (and with it torchvision); some repositories have a"
                ' branch without it, e.g. revision = "no_timm"'
            ) from error
        raise ModelLoadFailed(f"{owner}: needs a package that is not installed: {_short(error)}") from error
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelLoadFailed(
                f"{owner}: brings its own Python code, which runs only with trust_remote_code = true"
            ) from error
        raise ModelLoadFailed(f"{owner}: transformers cannot load it: {_short(error)}") from error


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

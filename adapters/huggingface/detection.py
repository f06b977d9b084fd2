"""Object detection: DETR, RT-DETR, D-FINE, DEIMv2, YOLOS, RF-DETR, Table Transformer and others give rectangles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.huggingface.class_names import class_names, labels_of, name_at
from adapters.huggingface.opening import NeedsTorchvision, Opened
from adapters.huggingface.pictures import Preparation, in_batches, picture, size_text
from agent.contract import Context, Detection, Frame, Rectangle

LOWEST_SCORE = 0.001
"""Below this a box is noise to everyone."""


class HubDetector:
    """Runs a model and its image processor on batches of frames; gives rectangles."""

    default_threshold = 0.5

    def __init__(self, opened: Opened, *, labels: str | list[str] | None = None) -> None:
        self._opened = opened
        self._names, labels_from = class_names(opened, labels)
        self._prepare = _processor(opened)
        self._model = opened.model("AutoModelForObjectDetection")
        self.labels = labels_of(self._names, "rectangle")
        self.batch_size = opened.batch_size
        self.facts = opened.facts(self._model, "detection", self._prepare.size, labels_from=labels_from)

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return in_batches(frames, self.batch_size, lambda batch: self._run(batch, context))

    def _run(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        import torch

        with torch.inference_mode():
            outputs = self._model(**self._opened.placed(self._prepare(frames)))
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        self._opened.check(scores=outputs.logits, boxes=outputs.pred_boxes)
        sizes = [(frame.height, frame.width) for frame in frames]
        results = self._prepare.boxes(outputs, max(context.threshold, LOWEST_SCORE), sizes)
        return [self._detections(*pair, context) for pair in zip(results, frames, strict=True)]

    def _detections(self, result: Any, frame: Frame, context: Context) -> list[Detection]:
        """transformers' scores, labels and (n, 4) corners in frame pixels, best first."""
        scores, classes = result["scores"].cpu().numpy(), result["labels"].cpu().numpy()
        edge = np.array([frame.width, frame.height] * 2, np.float32)
        boxes = np.clip(result["boxes"].cpu().numpy(), 0, edge)
        found = []
        for place in np.argsort(-scores, kind="stable"):
            left, top, right, bottom = boxes[place].tolist()
            name = name_at(self._names, int(classes[place]))
            wanted = name and (context.labels is None or name in context.labels)
            if wanted and left < right and top < bottom:
                found.append(Detection(name, Rectangle(left, top, right, bottom), float(scores[place])))
        return found


class _Own:
    """transformers' own image processor."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.size = size_text(getattr(processor, "size", None))

    def __call__(self, frames: Sequence[Frame]) -> dict[str, Any]:
        return dict(self._processor(images=[picture(frame) for frame in frames], return_tensors="pt"))

    def boxes(self, outputs: Any, threshold: float, sizes: list[tuple[int, int]]) -> Any:
        return self._processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)


class _Plain:
    """For models whose processor needs torchvision: pictures are stretched, each class has a sigmoid of its own.

    RF-DETR (arXiv 2511.09554) and PP-DocLayout are of this kind.
    """

    def __init__(self, opened: Opened) -> None:
        content = opened.preparation()
        # RF-DETR was trained on pictures that were resized without smoothing.
        self._prepare = Preparation.read(content, opened.owner, antialias=False)
        self.size = f"{self._prepare.width}x{self._prepare.height}"

    def __call__(self, frames: Sequence[Frame]) -> dict[str, Any]:
        return {"pixel_values": self._prepare(frames)}

    def boxes(self, outputs: Any, threshold: float, sizes: list[tuple[int, int]]) -> Any:
        import torch

        results = []
        for logits, boxes, (height, width) in zip(outputs.logits, outputs.pred_boxes, sizes, strict=True):
            queries, classes = logits.shape
            scores, places = logits.sigmoid().flatten().topk(queries)
            x, y, w, h = boxes[places // classes].unbind(1)
            edges = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
            kept = scores > threshold
            scale = torch.tensor([width, height, width, height], device=edges.device)
            results.append({"scores": scores[kept], "labels": (places % classes)[kept], "boxes": (edges * scale)[kept]})
        return results


def _processor(opened: Opened) -> Any:
    try:
        opened.preparation()
        return _Own(opened.image_processor())
    except NeedsTorchvision:
        return _Plain(opened)


build = HubDetector

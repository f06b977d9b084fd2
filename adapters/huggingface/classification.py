"""Image classification: what a whole frame shows, as tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from adapters.huggingface.class_names import class_names, labels_of, name_at
from adapters.huggingface.opening import NeedsTorchvision, Opened
from adapters.huggingface.pictures import Preparation, in_batches, picture, size_text
from agent.contract import ConfigError, Context, Detection, Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

MULTI_LABEL = "multi_label_classification"
"""What transformers calls models whose classes do not exclude each other."""


class Classifier:
    """Gives a frame the best tag, or the best few; models whose classes go together, all that are likely."""

    def __init__(
        self,
        opened: Opened,
        *,
        labels: str | list[str] | None = None,
        top_k: int | None = None,
        multi_label: bool | None = None,
    ) -> None:
        """`top_k`: at most so many tags a frame (1; all that pass the threshold where classes go together)."""
        if top_k is not None and top_k < 1:
            raise ConfigError(f"{opened.owner}: top_k: got {top_k}, allowed: 1 or more")
        self._opened = opened
        self._names, labels_from = class_names(opened, labels)
        self._together = opened.config.problem_type == MULTI_LABEL if multi_label is None else multi_label
        self._most = top_k or (len(self._names) if self._together else 1)
        content = opened.preparation()
        try:
            self._processor = opened.image_processor()
            self._plain = None
        except NeedsTorchvision:
            self._plain = Preparation.read(content, opened.owner)
        self._model = opened.model("AutoModelForImageClassification")
        self.labels = labels_of(self._names, "tag")
        self.batch_size = opened.batch_size
        # The best of classes that exclude each other is an answer even where it is unsure.
        self.default_threshold = 0.5 if self._together else 0.0
        self.facts = opened.facts(
            self._model,
            "classification",
            size_text(content.get("crop_size") if content.get("do_center_crop") else content.get("size")),
            labels_from=labels_from,
            tags=f"the best {self._most}" if not self._together else f"any, at most {self._most}",
        )

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return in_batches(frames, self.batch_size, lambda batch: self._run(batch, context))

    def _run(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        import torch

        if self._plain is not None:
            inputs = {"pixel_values": self._plain(frames)}
        else:
            inputs = self._processor(images=[picture(frame) for frame in frames], return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**self._opened.placed(inputs)).logits.float()
        self._opened.check(scores=logits)
        scores = (logits.sigmoid() if self._together else logits.softmax(-1)).cpu().numpy()
        return [self._tags(row, context) for row in scores]

    def _tags(self, scores: NDArray[np.float32], context: Context) -> list[Detection]:
        found: dict[str, float] = {}
        for index in np.argsort(-scores, kind="stable"):
            name, score = name_at(self._names, int(index)), float(scores[index])
            if score < context.threshold or len(found) == self._most:
                break
            if name:
                found.setdefault(name, score)
        # The best few of all classes, and then those that have a place: not the best few of those that have one.
        return [
            Detection(name, None, score)
            for name, score in found.items()
            if context.labels is None or name in context.labels
        ]


build = Classifier

"""Segmentation by queries: Mask2Former, MaskFormer, OneFormer, EoMT, DETR and RF-DETR give masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from adapters.huggingface.class_names import class_names, labels_of, name_at
from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import in_batches
from adapters.huggingface.queries import Queries
from adapters.huggingface.segmentation_inputs import inputs_of, joined
from adapters.huggingface.semantic import Regions
from agent.contract import Context, Detection, Frame

Segments = Literal["instance", "panoptic", "semantic"]
KINDS: tuple[Segments, ...] = ("instance", "panoptic", "semantic")


class Segmenter:
    """Gives the masks of things, of everything without overlap, or of classes, as `segments` says."""

    def __init__(
        self,
        opened: Opened,
        *,
        labels: str | list[str] | None = None,
        segments: Segments | None = None,
        split_regions: bool = False,
        smallest_region: int = 1,
    ) -> None:
        self._opened = opened
        self._names, labels_from = class_names(opened, labels)
        self._regions = Regions.by_options(self._names, split_regions, smallest_region, opened.owner)
        self._segments, why = (segments, "option") if segments else _trained_for(opened)
        self._prepare = inputs_of(opened, self._segments)
        self._model = opened.model(_auto_class(opened.config))
        self.labels = labels_of(self._names, "mask")
        self.batch_size = opened.batch_size
        self.default_threshold = 0.0 if self._segments == "semantic" else 0.5
        self.facts = opened.facts(
            self._model,
            "segmentation",
            self._prepare.size,
            segments=f"{self._segments} ({why})",
            labels_from=labels_from,
        )

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return in_batches(frames, self.batch_size, lambda batch: self._run(batch, context))

    def _run(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        import torch

        inputs = self._prepare(frames)
        with torch.inference_mode():
            outputs = self._model(**self._opened.placed(inputs))
        logits, masks = _answers(outputs)
        self._opened.check(scores=logits, masks=masks)
        if offsets := inputs.get("patch_offsets"):
            tiles = [Queries.of(*pair, len(self._names)).semantic() for pair in zip(logits, masks, strict=True)]
            whole = joined(tiles, offsets, frames)
            return [self._semantic(maps, frame, context) for maps, frame in zip(whole, frames, strict=True)]
        found = []
        for place, frame in enumerate(frames):
            share = self._prepare.share(inputs, place, frame)
            queries = Queries.of(logits[place], masks[place], len(self._names), share)
            found.append(self._detections(queries, frame, context))
        return found

    def _detections(self, queries: Queries, frame: Frame, context: Context) -> list[Detection]:
        if self._segments == "semantic":
            return self._semantic(queries.semantic(), frame, context)
        regions = queries.instances if self._segments == "instance" else queries.panoptic
        return [
            Detection(name, mask, min(1.0, score))
            for index, score, mask in regions(frame.height, frame.width, context.threshold)
            if (name := name_at(self._names, index)) and (context.labels is None or name in context.labels)
        ]

    def _semantic(self, maps: Any, frame: Frame, context: Context) -> list[Detection]:
        return self._regions(maps, maps / maps.sum(0).clamp(min=1e-6), frame, context)


def _trained_for(opened: Opened) -> tuple[Segments, str]:
    """What a model was trained for, which its config does not say, but its name often does."""
    if opened.preparation().get("do_split_image"):
        return "semantic", "its pictures are cut into tiles"
    name = opened.owner.rpartition("/")[2].lower()
    for kind in KINDS:
        if kind in name:
            return kind, "its name"
    return "panoptic", "nobody says otherwise; option segments"


def _auto_class(config: Any) -> str:
    from transformers import AutoModelForUniversalSegmentation

    known = type(config) in AutoModelForUniversalSegmentation._model_mapping
    return "AutoModelForUniversalSegmentation" if known else "AutoModelForInstanceSegmentation"


def _answers(outputs: Any) -> tuple[Any, Any]:
    """(N, Q, C) logits of classes and (N, Q, h, w) of masks; DETR's own names differ from those of the others."""
    if "class_queries_logits" in outputs:
        return outputs.class_queries_logits, outputs.masks_queries_logits
    return outputs.logits, outputs.pred_masks


build = Segmenter

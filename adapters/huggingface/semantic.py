"""Semantic segmentation: SegFormer, UperNet, BEiT, DPT, MobileViT and others give a mask for each class they see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters._masks import connected_parts
from adapters._names import Names
from adapters.huggingface.class_names import class_names, labels_of, name_at
from adapters.huggingface.masks import enlarged, mask_of
from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import in_batches, picture, size_text
from agent.contract import ConfigError, Context, Detection, Frame

_CLASSES_AT_ONCE = 8
"""Maps of a large frame are enlarged a few at a time: 150 classes of a 4K frame are 5 GB."""


@dataclass(frozen=True, slots=True)
class Regions:
    """How the regions of classes become detections."""

    names: Names
    split: bool = False
    smallest: int = 1
    """The least number of pixels of a region, or of a part where regions are split."""

    @classmethod
    def by_options(cls, names: Names, split_regions: bool, smallest_region: int, owner: str) -> Regions:
        if smallest_region < 1:
            raise ConfigError(f"{owner}: smallest_region: got {smallest_region}, allowed: 1 pixel or more")
        return cls(names, split_regions, smallest_region)

    def __call__(self, logits: Any, chances: Any, frame: Frame, context: Context) -> list[Detection]:
        """From (C, h, w) maps: each pixel is of its best class, a region's score is the mean chance of its pixels."""
        best = _best_class(logits, frame.height, frame.width)
        small = chances.float().cpu().numpy()
        rows = np.arange(frame.height) * small.shape[1] // frame.height
        columns = np.arange(frame.width) * small.shape[2] // frame.width
        found = []
        for index in np.unique(best).tolist():
            name = name_at(self.names, index)
            if not name or (context.labels is not None and name not in context.labels):
                continue
            whole = mask_of(best == index)
            for mask in self._parts(whole) if whole is not None else ():
                height, width = mask.bitmap.shape
                place = np.ix_(rows[mask.top : mask.top + height], columns[mask.left : mask.left + width])
                score = float(small[index][place][mask.bitmap].mean())
                if score >= context.threshold:
                    found.append(Detection(name, mask, min(1.0, max(0.0, score))))
        return sorted(found, key=lambda one: -(one.score or 0))

    def _parts(self, mask: Any) -> Iterator[Any]:
        if self.split:
            yield from connected_parts(mask, self.smallest)
        elif np.count_nonzero(mask.bitmap) >= self.smallest:
            yield mask


def _best_class(maps: Any, height: int, width: int) -> Any:
    """(height, width) the class whose map is highest, once the (C, h, w) maps are enlarged."""
    import torch

    best = torch.full((height, width), -torch.inf, device=maps.device)
    owner = torch.zeros((height, width), dtype=torch.int16, device=maps.device)
    for first in range(0, len(maps), _CLASSES_AT_ONCE):
        high, number = enlarged(maps[first : first + _CLASSES_AT_ONCE], height, width).max(0)
        better = high > best
        owner[better] = (number[better] + first).to(torch.int16)
        best = torch.maximum(best, high)
    return owner.cpu().numpy()


class SemanticSegmenter:
    """Gives a mask for each class that a frame shows, or for each connected part of it."""

    # A region is an answer even where the network is unsure: most of its pixels may be of a class by a small margin.
    default_threshold = 0.0

    def __init__(
        self,
        opened: Opened,
        *,
        labels: str | list[str] | None = None,
        split_regions: bool = False,
        smallest_region: int = 1,
    ) -> None:
        self._opened = opened
        names, labels_from = class_names(opened, labels)
        self._regions = Regions.by_options(names, split_regions, smallest_region, opened.owner)
        opened.preparation()
        # A crop would leave the edges of the frame without an answer.
        self._processor = opened.image_processor(do_center_crop=False)
        self._model = opened.model("AutoModelForSemanticSegmentation")
        self.labels = labels_of(names, "mask")
        self.batch_size = opened.batch_size
        size = size_text(getattr(self._processor, "size", None))
        self.facts = opened.facts(self._model, "semantic segmentation", size, labels_from=labels_from)

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return in_batches(frames, self.batch_size, lambda batch: self._run(batch, context))

    def _run(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        import torch

        inputs = self._processor(images=[picture(frame) for frame in frames], return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**self._opened.placed(inputs)).logits.float()
        self._opened.check(scores=logits)
        return [
            self._regions(maps, maps.softmax(0), frame, context) for maps, frame in zip(logits, frames, strict=True)
        ]


build = SemanticSegmenter

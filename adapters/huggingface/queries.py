"""From a transformer's queries, each with a class and a mask, to the regions of a frame.

The rules are those of MaskFormer (arXiv 2107.06278, section 3.4) and Mask2Former (2112.01527). transformers' own
versions enlarge the maps of all queries at once, which for a large frame takes gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adapters.huggingface.masks import enlarged, mask_of
from agent.contract import Mask

LOWEST_SCORE = 0.01
"""Below this a query is noise to everyone, and its mask is not worth enlarging."""
_INSIDE = 0.5
_FINER = 4
"""By how much a map is smaller than the picture that the network was given, more or less."""
_REMAINS = 0.8
"""A region of which the others leave less than this is no region."""

Region = tuple[int, float, Mask]
"""Class, score, pixels."""


@dataclass(frozen=True, slots=True)
class Queries:
    """One frame's queries: (Q, C) probabilities of the classes and (Q, h, w) logits of the masks."""

    scores: Any
    masks: Any
    nothing: Any
    """(Q,) whether a query says that it sees nothing; all False for models without such a class."""
    share: tuple[float, float] = (1.0, 1.0)
    """How much of the height and width of the maps shows the frame; the rest is padding."""

    @classmethod
    def of(cls, logits: Any, masks: Any, classes: int, share: tuple[float, float] = (1.0, 1.0)) -> Queries:
        """From a model's own answer for one frame; a class too many is the one that means nothing."""
        import torch

        if logits.shape[-1] == classes:
            return cls(logits.float().sigmoid(), masks.float(), torch.zeros(len(logits), dtype=torch.bool), share)
        scores = logits.float().softmax(-1)
        return cls(scores[:, :-1], masks.float(), (scores.argmax(-1) == scores.shape[-1] - 1).cpu(), share)

    def _chances(self, place: int, height: int, width: int) -> Any:
        """(height, width) how likely each pixel of the frame is of a query's region."""
        maps = self.masks[place : place + 1]
        if self.share != (1.0, 1.0):
            # Where the padding begins is not between two values of a small map.
            maps = self._shown(enlarged(maps, maps.shape[-2] * _FINER, maps.shape[-1] * _FINER))
        return enlarged(maps, height, width)[0].sigmoid()

    def _shown(self, maps: Any) -> Any:
        rows, columns = (max(1, round(side * part)) for side, part in zip(maps.shape[-2:], self.share, strict=True))
        return maps[..., :rows, :columns]

    def instances(self, height: int, width: int, threshold: float) -> Iterator[Region]:
        """Each query's best class and its mask, best first; regions may overlap. The score counts the mask as well."""
        scores, classes = self.scores.max(-1)
        order = scores.argsort(descending=True, stable=True)
        found = []
        for place in order[scores[order] >= max(threshold, LOWEST_SCORE)].tolist():
            chances = self._chances(place, height, width)
            inside = chances > _INSIDE
            if (mask := mask_of(inside)) is not None:
                found.append((int(classes[place]), float(scores[place] * chances[inside].mean()), mask))
        yield from sorted((region for region in found if region[1] >= threshold), key=lambda region: -region[1])

    def panoptic(self, height: int, width: int, threshold: float) -> Iterator[Region]:
        """Regions that do not overlap: each pixel goes to the query that is surest of it, of those above the threshold.

        A lower threshold lets more queries compete, and may take pixels from others.
        """
        import torch

        scores, classes = self.scores.max(-1)
        kept = [
            place
            for place in scores.argsort(descending=True, stable=True).tolist()
            if scores[place] >= max(threshold, LOWEST_SCORE) and not self.nothing[place]
        ]
        best = torch.zeros((height, width), device=self.masks.device)
        owner = torch.full((height, width), -1, dtype=torch.int16, device=self.masks.device)
        alone = {}
        for place in kept:
            chances = self._chances(place, height, width)
            alone[place] = int((chances >= _INSIDE).sum())
            better = chances * scores[place] > best
            # Where nobody is sure, the winner takes the pixel from the others, and nobody has it.
            owner[better] = torch.where(chances[better] >= _INSIDE, place, -1).to(torch.int16)
            best = torch.maximum(best, chances * scores[place])
        for place in kept:
            mine = owner == place
            if alone[place] and int(mine.sum()) >= _REMAINS * alone[place] and (mask := mask_of(mine)) is not None:
                yield int(classes[place]), float(scores[place]), mask

    def semantic(self) -> Any:
        """(C, h, w) how much each pixel is of each class."""
        import torch

        return torch.einsum("qc,qhw->chw", self.scores, self._shown(self.masks).sigmoid())

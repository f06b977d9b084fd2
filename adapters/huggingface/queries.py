"""From a transformer's queries, each with a class and a mask, to the regions of a frame.

The rules are those of MaskFormer (arXiv 2107.06278, section 3.4) and Mask2Former (2112.01527). transformers' own
versions stretch the part of the map that is padding over the frame, and enlarge the maps of all queries at once.
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

    @classmethod
    def of(cls, logits: Any, masks: Any, classes: int) -> Queries:
        """From a model's own answer for one frame; a class too many is the one that means nothing."""
        import torch

        if logits.shape[-1] == classes:
            return cls(logits.float().sigmoid(), masks.float(), torch.zeros(len(logits), dtype=torch.bool))
        scores = logits.float().softmax(-1)
        return cls(scores[:, :-1], masks.float(), (scores.argmax(-1) == scores.shape[-1] - 1).cpu())

    def instances(self, height: int, width: int, threshold: float) -> Iterator[Region]:
        """Each query's best class and its mask, best first; regions may overlap. The score counts the mask as well."""
        scores, classes = self.scores.max(-1)
        order = scores.argsort(descending=True, stable=True)
        found = []
        for place in order[scores[order] >= max(threshold, LOWEST_SCORE)].tolist():
            chances = enlarged(self.masks[place : place + 1], height, width)[0].sigmoid()
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
            chances = enlarged(self.masks[place : place + 1], height, width)[0].sigmoid()
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

        return torch.einsum("qc,qhw->chw", self.scores, self.masks.sigmoid())

"""Semantic segmentation: a map of scores for each class, or a map of class numbers, and a mask for each class seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._masks import connected_parts, tight_mask
from adapters._networks.head import Canvas, Outputs, Reader
from adapters._networks.maps import to_frame
from adapters._networks.options import at_least
from adapters._networks.pictures import IMAGENET_MEAN, IMAGENET_STD, Recipe
from adapters._networks.signature import Signature
from agent.contract import BadPrediction, Context, Detection, Label, Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGENET = Recipe(resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD)
ULTRALYTICS = Recipe(resize="letterbox")
_HELP = "aux"
"""What torchvision's networks give beside `out`: it helped to train them."""
_NO_CLASS = (-1, 255)
"""The usual numbers of pixels without a class."""


@dataclass(frozen=True, slots=True)
class RegionHead:
    """A map of classes, fitted to one graph."""

    output: str
    classes: int | None
    recipe: Recipe
    kind: str
    """scores: a map a class; numbers: one map of class numbers; chance: one map that says how likely the class is."""
    family: str = "semantic"
    names: tuple[str, ...] = ()
    joined: bool = False
    note: str = ""
    options: tuple[str, ...] = ("split_regions", "smallest_region")

    def reader(self, names: Sequence[str], given: Mapping[str, Any], owner: str) -> Reader:
        at_least(owner, "smallest_region", given.get("smallest_region", 1), 1)
        return RegionReader(self, names, owner, given.get("split_regions", False), given.get("smallest_region", 1))


class RegionReader:
    """Gives a mask for each class that a frame shows, or for each connected part of it."""

    threshold = 0.0
    """A region is an answer even where the network is unsure: its class is the best for its pixels."""

    def __init__(self, head: RegionHead, names: Sequence[str], owner: str, split: bool, smallest: int) -> None:
        self._head, self._names, self._owner, self._split, self._smallest = head, names, owner, split, smallest
        self.labels: Sequence[Label] = [Label(name, "mask") for name in dict.fromkeys(names) if name]

    def read(self, outputs: Outputs, canvas: Canvas, context: Context) -> list[Detection]:
        grid = outputs[self._head.output]
        if grid.dtype.kind == "f" and not np.isfinite(grid).all():
            raise BadPrediction(f"{self._owner}: the map of classes has numbers that are none (NaN or infinite)")
        best, chances = self._classified(grid, canvas)
        found = []
        for index in np.unique(best).tolist():
            if not 0 <= index < len(self._names):
                if index in _NO_CLASS:
                    continue
                raise BadPrediction(f"{self._owner}: got class {index}, there are {len(self._names)} class names")
            name = self._names[index]
            if not name or not (context.labels is None or name in context.labels):
                continue
            for mask in self._parts(best == index):
                score = self._score(mask, chances, index, canvas)
                if score is None or score >= context.threshold:
                    found.append(Detection(name, mask, score))
        return sorted(found, key=lambda one: -(one.score or 0))

    def _classified(self, grid: NDArray[Any], canvas: Canvas) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """((height, width) class of each pixel of the frame, (C, h, w) how likely each is, where that is known)."""
        if self._head.kind == "numbers":
            return _nearest(grid.reshape(grid.shape[-2:]), canvas), None
        whole = (0, 0, canvas.width, canvas.height)
        if self._head.kind == "chance":
            chance = _sigmoid(grid.reshape(grid.shape[-2:]))
            seen = to_frame(chance, canvas.placement, canvas.input_size, whole) > 0.5
            return np.where(seen, 0, -1), chance[None]
        highest = np.full((canvas.height, canvas.width), -np.inf, np.float32)
        best = np.zeros((canvas.height, canvas.width), np.int64)
        # Only classes that are the best of some cell: maps of 150 classes of a large frame would be gigabytes.
        for index in np.unique(grid.argmax(axis=0)).tolist():
            scores = to_frame(grid[index], canvas.placement, canvas.input_size, whole)
            better = scores > highest
            best[better] = index
            np.maximum(highest, scores, out=highest)
        return best, _softmax(grid)

    def _parts(self, region: NDArray[np.bool_]) -> Iterator[Mask]:
        if self._split:
            yield from connected_parts(Mask(region, 0, 0), self._smallest)
        elif (mask := tight_mask(region)) is not None and np.count_nonzero(mask.bitmap) >= self._smallest:
            yield mask

    def _score(self, mask: Mask, chances: NDArray[Any] | None, index: int, canvas: Canvas) -> float | None:
        """How likely the class is on average over the mask's pixels."""
        if chances is None:
            return None
        rows, columns = mask.bitmap.shape
        box = (mask.left, mask.top, mask.left + columns, mask.top + rows)
        likely = to_frame(chances[index], canvas.placement, canvas.input_size, box)
        return min(1.0, max(0.0, float(likely[mask.bitmap].mean())))


def semantic(signature: Signature) -> RegionHead | None:
    """(1, C, h, w) scores, (1, 1, h, w) the chance of one class, or (1, h, w) class numbers, no coarser than an eighth.

    Heat maps of points have the same shape: C has to be the number of class names, or `head` has to say it.
    """
    both = {"out", _HELP} <= signature.outputs.keys()
    outputs = {name: value for name, value in signature.outputs.items() if not (both and name == _HELP)}
    if len(outputs) != 1:
        return None
    ((name, value),) = outputs.items()
    told = signature.metadata.get("task") == "semantic"
    asked = told or signature.asked == "semantic"
    if value.ndim not in (3, 4) or value.shape[0] != 1 or value.shape[-1] * 8 < signature.width:
        return None
    count = 1 if value.ndim == 3 else value.shape[1]
    recipe = ULTRALYTICS if told else IMAGENET
    if count == 1 and value.dtype.kind in "iu":
        return RegionHead(name, None, recipe, "numbers") if asked or signature.classes else None
    if value.ndim == 3 or value.dtype.kind != "f":
        return None
    if not (asked or (signature.classes is not None and count in (signature.classes, signature.classes - 1))):
        return None
    return RegionHead(name, count, recipe, "scores" if count > 1 else "chance")


def _nearest(numbers: NDArray[Any], canvas: Canvas) -> NDArray[np.int64]:
    """A map of numbers at the frame's pixels: that of the cell in which each pixel's centre lies."""
    where, (wide, high) = canvas.placement, canvas.input_size
    x = ((np.arange(canvas.width) + 0.5) * where.scale_x + where.left) * numbers.shape[1] / wide
    y = ((np.arange(canvas.height) + 0.5) * where.scale_y + where.top) * numbers.shape[0] / high
    columns = np.clip(x.astype(np.int64), 0, numbers.shape[1] - 1)
    rows = np.clip(y.astype(np.int64), 0, numbers.shape[0] - 1)
    return np.asarray(numbers[np.ix_(rows, columns)], np.int64)


def _sigmoid(grid: NDArray[Any]) -> NDArray[np.float32]:
    """Logits as chances; what is between 0 and 1 already is left as it is."""
    if grid.min() >= 0 and grid.max() <= 1:
        return np.asarray(grid, np.float32)
    return np.asarray(1 / (1 + np.exp(-np.clip(grid.astype(np.float32), -80, 80))))


def _softmax(grid: NDArray[Any]) -> NDArray[np.float32]:
    if grid.min() >= 0 and np.allclose(grid.sum(axis=0), 1, atol=1e-2):
        return np.asarray(grid, np.float32)
    powers = np.exp(grid.astype(np.float32) - grid.max(axis=0, keepdims=True))
    return np.asarray(powers / powers.sum(axis=0, keepdims=True), np.float32)

"""Classifiers: one number for each class, and tags of the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.head import Canvas, Outputs, Reader
from adapters._networks.options import at_least
from adapters._networks.pictures import IMAGENET_MEAN, IMAGENET_STD, Recipe
from adapters._networks.signature import Signature
from agent.contract import BadPrediction, Context, Detection, Label

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDED = 0.01
"""How far a probability may lie outside of 0 to 1, where half precision or quantisation rounds."""
ULTRALYTICS = Recipe(resize="centre-crop", smooth=True)
IMAGENET = Recipe(resize="centre-crop", mean=IMAGENET_MEAN, std=IMAGENET_STD, smooth=True)


@dataclass(frozen=True, slots=True)
class TagHead:
    """A classifier, fitted to one graph."""

    output: str
    classes: int
    recipe: Recipe
    logits: bool
    """Whether the graph leaves the softmax (or the sigmoids) to whoever reads it."""
    family: str = "classifier"
    names: tuple[str, ...] = ()
    joined: bool = False
    note: str = ""
    options: tuple[str, ...] = ("top_k", "multi_label")

    def reader(self, names: Sequence[str], given: Mapping[str, Any], owner: str) -> Reader:
        at_least(owner, "top_k", given.get("top_k", 1), 1)
        return TagReader(self, names, owner, given.get("top_k"), given.get("multi_label", False))


class TagReader:
    """Gives the best tag of a frame, or the best few; of classes that go together, all that are likely."""

    def __init__(self, head: TagHead, names: Sequence[str], owner: str, top_k: int | None, multi_label: bool) -> None:
        self._head, self._names, self._owner, self._together = head, names, owner, multi_label
        self._most = top_k or (len(names) if multi_label else 1)
        # The best of classes that exclude each other is an answer even where it is unsure.
        self.threshold = 0.5 if multi_label else 0.0
        self.labels: Sequence[Label] = [Label(name, "tag") for name in dict.fromkeys(names) if name]

    def read(self, outputs: Outputs, canvas: Canvas, context: Context) -> list[Detection]:
        scores = self._scores(outputs[self._head.output].ravel())
        found: dict[str, float] = {}
        for index in np.argsort(-scores, kind="stable").tolist():
            name, score = self._names[index], float(scores[index])
            if score < context.threshold or len(found) == self._most:
                break
            if name:
                found.setdefault(name, min(score, 1.0))
        # The best few of all classes, and of these the asked ones: not the best few of the asked ones.
        asked = context.labels
        return [Detection(name, None, score) for name, score in found.items() if asked is None or name in asked]

    def _scores(self, row: NDArray[Any]) -> NDArray[np.float64]:
        values = row.astype(np.float64)
        if not np.isfinite(values).all():
            raise BadPrediction(f"{self._owner}: some scores are no numbers (NaN or infinite)")
        # The gray picture's logits of a few classes may all lie between 0 and 1; those of others do not.
        if not self._head.logits and values.min() >= -_ROUNDED and values.max() <= 1 + _ROUNDED:
            return values
        if self._together:
            return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))))
        powers = np.exp(values - values.max())
        return np.asarray(powers / powers.sum())


def classifier(signature: Signature) -> TagHead | None:
    """(1, C), also with sides of 1 behind it: probabilities or logits. C has to be the number of class names.

    An embedding has the same shape: without names, only the option `head` makes it a classifier.
    """
    task = signature.metadata.get("task", "")
    found = row_of(signature)
    if found is None:
        return None
    output, row = found
    known = signature.classes is not None and row.size in (signature.classes, signature.classes - 1)
    if not (task == "classify" or known or signature.asked == "classifier"):
        return None
    logits = "logit" in output.lower() or float(row.min()) < 0 or float(row.max()) > 1
    return TagHead(output, row.size, ULTRALYTICS if task == "classify" else IMAGENET, logits)


def row_of(signature: Signature) -> tuple[str, NDArray[Any]] | None:
    """The one output that is a row of floats, and that row."""
    rows = {
        name: value.reshape(-1)
        for name, value in signature.outputs.items()
        if value.dtype.kind == "f" and value.ndim >= 2 and value.shape[0] == 1 and value.size == value.shape[1] > 1
    }
    return next(iter(rows.items())) if len(rows) == len(signature.outputs) == 1 else None

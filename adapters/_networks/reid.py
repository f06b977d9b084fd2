"""Reidentifiers: a graph that turns the picture of an object into a descriptor, near for the same object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._crops import crop
from adapters._networks.detectors import running_facts
from adapters._networks.files import open_weights
from adapters._networks.graph import Graph, open_graph, prepared
from adapters._networks.options import at_least, running
from adapters._networks.pictures import IMAGENET_MEAN, IMAGENET_STD, Recipe, place
from agent.contract import BadPrediction, Frame, ModelLoadFailed, Rectangle

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECIPE = Recipe(resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""As deep-person-reid's and most others' networks were trained (KaiyangZhou/deep-person-reid)."""


def load_reid(name: str, device: str, given: Mapping[str, Any]) -> NetworkReidentifier:
    """The reidentifier in a file."""
    owner = f"local:{name}"
    at_least(owner, "batch_size", given.get("batch_size", 1), 1)
    run = running(device, given, owner)
    file = open_weights(name)
    graph = open_graph(file, owner, run, threads=run.cores)
    signature = graph.signature(None)
    rows = {name: value.reshape(1, -1) for name, value in signature.outputs.items() if _is_row(value)}
    if len(rows) != 1:
        raise ModelLoadFailed(f"{owner}: got the outputs {signature}, allowed for kind reid: one of (N, D)")
    ((output, row),) = rows.items()
    graph, recipe = prepared(graph, RECIPE, given)
    facts = {
        "source": file.path.name,
        "version": file.version,
        "descriptor": f"{row.size} numbers of unit length",
        "input size": f"{graph.width}x{graph.height}",
        "preparation": str(recipe),
        **running_facts(file, graph),
    }
    return NetworkReidentifier(graph, output, row.size, recipe, facts, given.get("batch_size", 16))


def _is_row(value: NDArray[Any]) -> bool:
    """(1, D), also with sides of 1 behind it."""
    return value.ndim >= 2 and value.dtype.kind == "f" and value.size == value.shape[1] > 1 and value.shape[0] == 1


class NetworkReidentifier:
    """Descriptors of what is inside rectangles."""

    def __init__(
        self, graph: Graph, output: str, length: int, recipe: Recipe, facts: Mapping[str, str], step: int
    ) -> None:
        self.facts = facts
        self._graph, self._output, self._length, self._recipe = graph, output, length, recipe
        self._step = graph.batch or step

    def describe(self, frame: Frame, rectangles: Sequence[Rectangle]) -> NDArray[np.float32]:
        rows = np.zeros((len(rectangles), self._length), np.float32)
        for start in range(0, len(rectangles), self._step):
            part = rectangles[start : start + self._step]
            blob, view = self._graph.blank(len(part))
            for number, rectangle in enumerate(part):
                place(crop(frame.image, rectangle), self._recipe, view[number])
            rows[start : start + len(part)] = self._graph.run(blob)[self._output].reshape(-1, self._length)[: len(part)]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            which = int(np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))[0])
            raise BadPrediction(f"{self._graph.owner}: the descriptor of rectangle {which} is NaN, infinite or all 0")
        return np.asarray(rows / lengths, np.float32)

"""A detector made of a graph, a recipe, and a reader of what the graph gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.graph import Graph
from adapters._networks.head import Canvas, Head, Reader
from adapters._networks.pictures import Recipe, place
from agent.contract import BadPrediction, Context, Detection, Frame, Label

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS_PER_LANE = 4
_MOST_WRONG = 0.5
"""Of an output's numbers: if more of them are none, the graph has failed; fewer cost only their own detections."""


class NetworkDetector:
    """Runs a graph on batches of frames, and gives what its reader makes of the outputs."""

    def __init__(
        self,
        graph: Graph,
        head: Head,
        reader: Reader,
        recipe: Recipe,
        facts: Mapping[str, str],
        *,
        batch_size: int,
        lanes: int = 1,
    ) -> None:
        self.labels: Sequence[Label] = reader.labels
        self.facts = facts
        self.default_threshold = reader.threshold
        self._joined = head.joined
        self._step = 1 if head.joined else graph.batch or batch_size
        # Several steps for each lane, so that lanes seldom wait for each other at a batch's end.
        self.batch_size = self._step if lanes == 1 else self._step * lanes * STEPS_PER_LANE
        self._lanes = ThreadPoolExecutor(lanes, thread_name_prefix="onnx") if lanes > 1 else None
        self._graph, self._reader, self._recipe = graph, reader, recipe

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        parts = [frames[start : start + self._step] for start in range(0, len(frames), self._step)]
        each = self._lanes.map if self._lanes is not None and len(parts) > 1 else map
        found = each(lambda part: self._detect_batch(part, context), parts)
        return [detections for part in found for detections in part]

    def close(self) -> None:
        """Ends the threads."""
        if self._lanes is not None:
            self._lanes.shutdown()

    def _detect_batch(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        blob, view = self._graph.blank(len(frames))
        placements = [place(frame.image, self._recipe, view[i]) for i, frame in enumerate(frames)]
        outputs = self._graph.run(blob)
        for name, value in outputs.items():
            _check(self._graph.owner, name, value)
        size = (self._graph.width, self._graph.height)
        found = []
        for number, (frame, placement) in enumerate(zip(frames, placements, strict=True)):
            one = outputs if self._joined else {name: value[number] for name, value in outputs.items()}
            found.append(self._reader.read(one, Canvas(frame.width, frame.height, placement, size), context))
        return found


def _check(owner: str, name: str, value: NDArray[Any]) -> None:
    """BadPrediction where most of an output's numbers are none: it must not look like a frame with nothing in it."""
    if value.dtype.kind != "f" or not value.size:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(value.sum()):  # one NaN spoils the sum: nearly always this is all
            return
    wrong = 1 - float(np.isfinite(value).mean())
    if wrong > _MOST_WRONG:
        raise BadPrediction(f"{owner}: {wrong:.0%} of the output {name!r} are no numbers (NaN or infinite)")

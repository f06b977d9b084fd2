"""A detector made of a graph, a head and a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from adapters._names import Names
from adapters._onnx.candidates import Candidates, suppress
from adapters._onnx.graph import Graph
from adapters._onnx.head import Head
from adapters._onnx.pictures import Placement, Recipe, place
from agent.contract import BadPrediction, Context, Detection, Frame, Label, Rectangle

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST_SCORE = 0.001
"""Below this a box is noise to everyone; it keeps a request without a threshold from drowning in boxes."""


STEPS_PER_LANE = 4


class OnnxDetector:
    """Runs a graph on batches of frames, and gives what its head makes of them as rectangles."""

    def __init__(
        self,
        graph: Graph,
        head: Head,
        recipe: Recipe,
        names: Names,
        facts: Mapping[str, str],
        *,
        iou: float,
        limit: int,
        batch_size: int,
        lanes: int = 1,
    ) -> None:
        self.labels: Sequence[Label] = [Label(name, "rectangle") for name in names if name]
        self.facts = facts
        self.default_threshold = head.threshold
        self._step = 1 if head.joined else graph.batch or batch_size
        # Several steps for each lane, so that lanes seldom wait for each other at a batch's end.
        self.batch_size = self._step if lanes == 1 else self._step * lanes * STEPS_PER_LANE
        self._lanes = ThreadPoolExecutor(lanes, thread_name_prefix="onnx") if lanes > 1 else None
        self._graph, self._head, self._recipe, self._names = graph, head, recipe, names
        self._iou, self._limit = iou, limit

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
        wanted = self._wanted(context)
        found = []
        for number, (frame, placement) in enumerate(zip(frames, placements, strict=True)):
            one = outputs if self._head.joined else {name: value[number] for name, value in outputs.items()}
            candidates = self._head.decode(one, max(context.threshold, LOWEST_SCORE))
            found.append(self._detections(candidates, wanted, frame, placement))
        return found

    def _wanted(self, context: Context) -> NDArray[np.bool_]:
        """For each class whether anyone asks for it; classes without a name are never asked for."""
        asked = context.labels
        return np.array([bool(name) and (asked is None or name in asked) for name in self._names], bool)

    def _detections(
        self, found: Candidates, wanted: NDArray[np.bool_], frame: Frame, placement: Placement
    ) -> list[Detection]:
        if len(found.classes) and not 0 <= found.classes.min() <= found.classes.max() < len(self._names):
            got = int(found.classes.max())
            raise BadPrediction(f"the graph gave class {got}, there are {len(self._names)} class names")
        found = found.at(wanted[found.classes] & np.isfinite(found.boxes).all(axis=1))
        found = suppress(found, self._iou, self._limit) if self._head.overlapping else found.best(self._limit)
        boxes = placement.to_frame(found.boxes, frame.width, frame.height)
        visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return [
            Detection(self._names[kind], Rectangle(*box), min(score, 1.0))
            for box, score, kind in zip(
                boxes[visible].tolist(),
                found.scores[visible].tolist(),
                found.classes[visible].tolist(),
                strict=True,
            )
        ]

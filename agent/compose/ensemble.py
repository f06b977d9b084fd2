"""Several detectors as one: `ensemble:` with the option `of`, a list of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from agent.compose.fusion import fuse
from agent.compose.parts import Answer, Parts, each_frame, joint_facts, joint_labels
from agent.contract import Context, Frame

LOWEST = 0.05
"""Fusing lowers what few agree on, so the parts are asked for less than the request wants."""


class Ensemble:
    """Fuses what its parts find. A label of the same name is the same; label maps of the parts make it so."""

    def __init__(
        self,
        name: str,
        *,
        device: str,
        parts: Parts,
        of: list[Any],
        method: Literal["wbf", "nms", "soft-nms"] = "wbf",
        iou: float = 0.65,
    ) -> None:
        self._parts = parts.detectors(of, "of", 2)
        self._method, self._iou = method, iou
        self._known = [{label.name for label in part.labels} for part in self._parts]
        self.close = parts.close
        self.labels = joint_labels(self._parts)
        self.batch_size = max(part.loaded.batch_size for part in self._parts)
        self.default_threshold = min(part.loaded.default_threshold for part in self._parts)
        self.facts = joint_facts(self._parts, method=method, iou=f"{iou:g}")

    def detect(self, frames: Sequence[Frame], context: Context) -> list[Answer]:
        asked = Context(min(context.threshold, LOWEST), context.labels, context.masks_as_polygons)
        waiting = [part.submit(frames, asked) for part in self._parts]
        found = [wait() for wait in waiting]
        weights = [part.weight for part in self._parts]
        return each_frame(
            zip(*found, strict=True),
            lambda number, groups: fuse(
                groups, self._method, self._iou, weights, known=self._known, least=context.threshold
            ),
        )


load = Ensemble

"""Steps that show a model the crops of what has been found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from agent.compose.fusion import apart
from agent.compose.wish import Wish, rectangle_of, with_attribute
from agent.contract import Attribute, ConfigError, Context, Detection, Frame, Label
from agent.labels.names import some
from agent.shapes.geometry import shift

LEAST = 2
"""Pixels a side; a smaller crop has nothing to say."""


class _OnCrops:
    """Shows its part the crops of the detections that it is wanted for."""

    def __init__(self, wish: Wish) -> None:
        self.wish, self.part = wish, wish.part
        if self.part.loaded.kind != "detector":
            raise ConfigError(
                f"{wish.place}: {self.part.name} is of the kind {self.part.loaded.kind}, allowed: detector"
            )

    def look(
        self, frames: Sequence[Frame], found: Sequence[Sequence[Detection]], context: Context
    ) -> list[list[Detection]]:
        crops: list[tuple[int, int, Frame, int, int]] = []
        for at, (frame, detections) in enumerate(zip(frames, found, strict=True)):
            for number, detection in enumerate(detections):
                if self.wish.wants(detection) and (crop := _crop(frame, detection, self.wish.margin)) is not None:
                    crops.append((at, number, *crop))
        # A score that counts for the first model says nothing about the second.
        seen = self.part.detect([crop for _, _, crop, _, _ in crops], Context(self.part.loaded.default_threshold))
        answers, added = [list(detections) for detections in found], [list[list[Detection]]() for _ in found]
        for (at, number, _, left, top), own in zip(crops, seen, strict=True):
            answers[at][number], more = self.change(answers[at][number], own, left, top)
            added[at].append(more)
        return [list(chain.from_iterable(apart([own, *more]))) for own, more in zip(answers, added, strict=True)]

    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        raise NotImplementedError

    def change(
        self, detection: Detection, seen: Sequence[Detection], left: int, top: int
    ) -> tuple[Detection, list[Detection]]:
        """The detection after the look, and what comes to it."""
        raise NotImplementedError


class _OfClassifier(_OnCrops):
    """Wants a model whose answers are tags; of one that gives shapes too, these say nothing about the whole crop."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        # A function of CVAT's may leave open what its labels are of.
        self.tags = [label for label in self.part.labels if label.type in ("tag", "any")]
        if not self.tags:
            kinds = ", ".join(dict.fromkeys(label.type for label in self.part.labels)) or "nothing"
            names = some([label.name for label in self.part.labels], 5)
            raise ConfigError(
                f"{wish.place}: {self.part.name} is no classifier: it gives {kinds} ({names}), allowed for"
                f" {wish.gives!r}: a model that gives tags"
            )


class AttributeStep(_OfClassifier):
    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        values = tuple(label.name for label in self.tags)
        return [with_attribute(label, Attribute(self.wish.attribute, "select", values), self.wish) for label in labels]

    def change(
        self, detection: Detection, seen: Sequence[Detection], left: int, top: int
    ) -> tuple[Detection, list[Detection]]:
        if (best := _best_tag(seen)) is None:
            return detection, []
        attributes = {**detection.attributes, self.wish.attribute: best.label}
        return replace(detection, attributes=attributes, score=self.wish.score_after(detection, best)), []


class LabelStep(_OfClassifier):
    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        # What the classifier is not sure of keeps its label, so the old ones stay too.
        types = {label.type for label in labels if self.wish.concerns(label)}
        kind = types.pop() if len(types) == 1 else "any"
        known = {label.name for label in labels}
        return [*labels, *(replace(label, type=kind) for label in self.tags if label.name not in known)]

    def change(
        self, detection: Detection, seen: Sequence[Detection], left: int, top: int
    ) -> tuple[Detection, list[Detection]]:
        if (best := _best_tag(seen)) is None:
            return detection, []
        return replace(detection, label=best.label, score=self.wish.score_after(detection, best)), []


class DetectionsStep(_OnCrops):
    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        known = {label.name for label in labels}
        return [*labels, *(label for label in self.part.labels if label.name not in known)]

    def change(
        self, detection: Detection, seen: Sequence[Detection], left: int, top: int
    ) -> tuple[Detection, list[Detection]]:
        return detection, [replace(d, shape=shift(d.shape, left, top)) for d in seen if d.shape is not None]


def _best_tag(seen: Sequence[Detection]) -> Detection | None:
    tags = (detection for detection in seen if detection.shape is None)
    return max(tags, key=lambda detection: 1.0 if detection.score is None else detection.score, default=None)


def _crop(frame: Frame, detection: Detection, margin: float) -> tuple[Frame, int, int] | None:
    """The part of the frame, and its left and top; None for one too small to see anything."""
    box = rectangle_of(detection, frame, margin)
    left, top, right, bottom = int(box.left), int(box.top), round(box.right + 0.499), round(box.bottom + 0.499)
    part = frame.image[top : min(bottom, frame.height), left : min(right, frame.width)]
    if min(part.shape[:2]) < LEAST:
        return None
    return Frame(frame.index, frame.name, np.ascontiguousarray(part)), left, top

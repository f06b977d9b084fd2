"""Steps that ask a model about rectangles of the whole frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from agent.compose.wish import Wish, rectangle_of, with_attribute
from agent.contract import (
    Attribute,
    BadPrediction,
    ConfigError,
    Context,
    Detection,
    Frame,
    Label,
    PromptNeeds,
    Prompts,
    Rectangle,
    Skeleton,
)


class _OnRectangles:
    """Asks its part about rectangles of a whole frame; what it has no answer to stays as it was."""

    method = ""
    """What the model must be able to do."""

    def __init__(self, wish: Wish) -> None:
        self.wish, self.part = wish, wish.part
        if not callable(getattr(self.part.loaded.model, self.method, None)):
            raise ConfigError(f"{wish.place}: {self.part.name} cannot give a {wish.gives}")

    def look(
        self, frames: Sequence[Frame], found: Sequence[Sequence[Detection]], context: Context
    ) -> list[list[Detection]]:
        answers = []
        for frame, detections in zip(frames, found, strict=True):
            changed = list(detections)
            wanted = [number for number, detection in enumerate(changed) if self.wish.wants(detection)]
            if wanted:
                boxes = [self.box(changed[number], frame) for number in wanted]
                seen = self.part.call(partial(self.ask, frame=frame, boxes=boxes))
                if len(seen) != len(boxes):
                    raise BadPrediction(f"{self.part.name}: gave {len(seen)} answers for {len(boxes)} rectangles")
                for number, answer in zip(wanted, seen, strict=True):
                    if answer is not None:
                        changed[number] = self.change(changed[number], answer)
            answers.append(changed)
        return answers

    def box(self, detection: Detection, frame: Frame) -> Rectangle:
        """What is asked about."""
        return rectangle_of(detection, frame, self.wish.margin)

    def ask(self, model: Any, frame: Frame, boxes: Sequence[Rectangle]) -> Sequence[Any]:
        answers: Sequence[Any] = getattr(model, self.method)(frame, boxes)
        return answers

    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        raise NotImplementedError

    def change(self, detection: Detection, answer: Any) -> Detection:
        raise NotImplementedError


class TextStep(_OnRectangles):
    method = "read"

    def box(self, detection: Detection, frame: Frame) -> Rectangle:
        """A turned line as it is turned: upright, it would be read askew, with its neighbours."""
        shape = detection.shape
        if not isinstance(shape, Rectangle) or not shape.rotation:
            return super().box(detection, frame)
        x, y = (shape.right - shape.left) * self.wish.margin, (shape.bottom - shape.top) * self.wish.margin
        return replace(shape, left=shape.left - x, top=shape.top - y, right=shape.right + x, bottom=shape.bottom + y)

    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        return [with_attribute(label, Attribute(self.wish.attribute, "text"), self.wish) for label in labels]

    def change(self, detection: Detection, answer: Any) -> Detection:
        return replace(detection, attributes={**detection.attributes, self.wish.attribute: str(answer)})


class SkeletonStep(_OnRectangles):
    method = "estimate"

    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        points = self.part.loaded.labels[0].sublabels
        return [
            replace(label, type="skeleton", sublabels=points) if self.wish.concerns(label) else label
            for label in labels
        ]

    def change(self, detection: Detection, answer: Any) -> Detection:
        if not isinstance(answer, Skeleton):
            raise BadPrediction(f"{self.part.name}: got {type(answer).__name__}, allowed: Skeleton")
        return replace(detection, shape=answer)


class MaskStep(_OnRectangles):
    method = "segment"

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        needs: PromptNeeds = getattr(self.part.loaded.model, "needs", PromptNeeds())
        wanted = [f"{needs.positive} or more points"] if needs.positive else []
        wanted += [f"{needs.negative} or more negative points"] if needs.negative else []
        if needs.box == "no" or wanted:
            asked = " and ".join(wanted) or "something else"
            raise ConfigError(
                f"{wish.place}: {self.part.name} wants {asked}, allowed for 'mask': an interactor that answers to a"
                " box alone"
            )

    def labels_after(self, labels: Sequence[Label]) -> list[Label]:
        return [replace(label, type="mask") if self.wish.concerns(label) else label for label in labels]

    def ask(self, model: Any, frame: Frame, boxes: Sequence[Rectangle]) -> Sequence[Any]:
        embedding = model.embed(frame)  # once for all rectangles of the frame
        answers = (model.segment(embedding, Prompts(box=box)) for box in boxes)
        return [next((one for one in found if one.shape is not None), None) for found in answers]

    def change(self, detection: Detection, answer: Any) -> Detection:
        return replace(detection, shape=answer.shape)

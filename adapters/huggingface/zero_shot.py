"""Open-vocabulary detection: Grounding DINO, OWL-ViT, OWLv2 and OmDet-Turbo find what they are asked for in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.huggingface.class_names import labels_of
from adapters.huggingface.opening import Opened
from adapters.huggingface.phrases import Phrase, Vocabulary
from adapters.huggingface.pictures import in_batches, size_text
from adapters.huggingface.questions import questions_of
from agent.contract import ConfigError, Context, Detection, Frame, Rectangle

LOWEST_SCORE = 0.01
"""Below this a box is noise to everyone."""


class OpenVocabulary:
    """Gives rectangles for phrases; its labels are those of the options, or of each task."""

    def __init__(
        self,
        opened: Opened,
        *,
        labels: str | list[str] | None = None,
        phrases: dict[str, Any] | None = None,
        nms_iou: float = 0.5,
    ) -> None:
        """`nms_iou`: of two boxes of a label that overlap more than that, the better stays."""
        if not 0 <= nms_iou <= 1:
            raise ConfigError(f"{opened.owner}: nms_iou: got {nms_iou}, allowed: 0 to 1")
        self._vocabulary = Vocabulary(labels, phrases, opened.owner)
        self._questions = questions_of(opened)
        self._iou = nms_iou
        self.labels = labels_of((phrase.label for phrase in self._vocabulary.phrases), "rectangle")
        self.finds = "rectangle" if self._vocabulary.open else None
        self.batch_size = opened.batch_size
        self.default_threshold = self._questions.default_threshold
        self.facts = opened.facts(
            self._questions.model,
            "zero-shot detection",
            size_text(self._questions.size),
            asked_for=", ".join(phrase.words for phrase in self._vocabulary.phrases[:20]),
        )

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        phrases = self._vocabulary.asked(context)
        if not phrases:
            return [[] for _ in frames]
        return in_batches(frames, self.batch_size, lambda batch: self._run(batch, phrases, context.threshold))

    def _run(self, frames: Sequence[Frame], phrases: Sequence[Phrase], threshold: float) -> list[list[Detection]]:
        scores, boxes = self._questions.ask(frames, [phrase.words for phrase in phrases])
        return [
            self._detections(scores[place].cpu(), boxes[place].cpu(), frame, phrases, max(threshold, LOWEST_SCORE))
            for place, frame in enumerate(frames)
        ]

    def _detections(
        self, scores: Any, boxes: Any, frame: Frame, phrases: Sequence[Phrase], threshold: float
    ) -> list[Detection]:
        """Each query's best phrase, best first, without those that say the same again."""
        best, which = scores.max(-1)
        order = best.argsort(descending=True, stable=True)
        found: dict[str, list[Detection]] = {}
        for place in order[best[order] >= threshold].tolist():
            rectangle = _rectangle(boxes[place].tolist(), frame)
            same = found.setdefault(phrases[which[place]].label, [])
            if rectangle and all(_iou(rectangle, one.shape) <= self._iou for one in same):
                same.append(Detection(phrases[which[place]].label, rectangle, float(best[place])))
        return sorted((one for same in found.values() for one in same), key=lambda one: -(one.score or 0))


def _rectangle(box: Sequence[float], frame: Frame) -> Rectangle | None:
    """Centre, width and height as shares of the frame, in its pixels; None for what lies outside."""
    x, y, width, height = box
    left, right = ((x + side * width / 2) * frame.width for side in (-1, 1))
    top, bottom = ((y + side * height / 2) * frame.height for side in (-1, 1))
    left, right = max(0.0, left), min(float(frame.width), right)
    top, bottom = max(0.0, top), min(float(frame.height), bottom)
    return Rectangle(left, top, right, bottom) if left < right and top < bottom else None


def _iou(one: Rectangle, other: Any) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in (one, other)]
    return float(width * height / (sum(areas) - width * height))


build = OpenVocabulary

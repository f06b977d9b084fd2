"""What service.toml says of one step of a chain, and what all steps do with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.compose.parts import Part
from agent.contract import Attribute, Detection, Frame, Label, Rectangle
from agent.shapes.geometry import bounds


@dataclass(frozen=True, slots=True)
class Wish:
    """A step as service.toml has it."""

    place: str
    part: Part
    gives: str
    labels: frozenset[str] | None
    attribute: str
    margin: float
    scored: bool = False
    """Whether the score of an answer takes the place of the detection's."""

    def wants(self, detection: Detection) -> bool:
        return detection.shape is not None and (self.labels is None or detection.label in self.labels)

    def concerns(self, label: Label) -> bool:
        return label.type != "tag" and (self.labels is None or label.name in self.labels)

    def score_after(self, detection: Detection, answer: Detection) -> float | None:
        return answer.score if self.scored else detection.score


def with_attribute(label: Label, attribute: Attribute, wish: Wish) -> Label:
    if not wish.concerns(label):
        return label
    others = tuple(own for own in label.attributes if own.name != attribute.name)
    return replace(label, attributes=(*others, attribute))


def rectangle_of(detection: Detection, frame: Frame, margin: float) -> Rectangle:
    assert detection.shape is not None  # `wants` has seen to it
    left, top, right, bottom = bounds(detection.shape)
    x, y = (right - left) * margin, (bottom - top) * margin
    return Rectangle(
        max(0.0, left - x), max(0.0, top - y), min(float(frame.width), right + x), min(float(frame.height), bottom + y)
    )

"""The steps of a chain: what a second model makes of the rectangles that the first one found.

attribute    a classifier's best label becomes the value of an attribute
label        a classifier's best label takes the place of the label
text         a reader's words become the value of an attribute
mask         an interactor's answer to the rectangle takes its place
skeleton     a pose estimator's skeleton takes the place of the rectangle
detections   what a detector finds within the rectangle is added
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from agent.compose.on_crops import AttributeStep, DetectionsStep, LabelStep
from agent.compose.on_rectangles import MaskStep, SkeletonStep, TextStep
from agent.compose.parts import Part, Parts
from agent.compose.wish import Wish
from agent.contract import ConfigError, Context, Detection, Frame, Label

_KEYS = ("gives", "labels", "attribute", "margin")


class Step(Protocol):
    """What the chain needs of a step."""

    part: Part

    def labels_after(self, labels: Sequence[Label]) -> list[Label]: ...

    def look(
        self, frames: Sequence[Frame], found: Sequence[Sequence[Detection]], context: Context
    ) -> list[list[Detection]]: ...


def open_step(
    parts: Parts, wish: Mapping[str, Any], option: str, labels: Sequence[Label], *, scored: bool = False
) -> Step:
    """The step that a table describes; ConfigError where it makes no sense with the labels found before it.

    `scored`: a classifier's score takes the place of the detection's.
    """
    place = f"{parts.owner}: option {option!r}"
    gives = wish.get("gives")
    if gives not in STEPS:
        raise ConfigError(f"{place}: gives: got {gives!r}, allowed: {', '.join(STEPS)}")
    own = wish.get("labels")
    known = [label.name for label in labels]
    if own is not None and (not isinstance(own, Sequence) or isinstance(own, str) or set(own) - set(known)):
        raise ConfigError(f"{place}: labels: got {own!r}, allowed: a list of {', '.join(known[:20])}")
    margin = wish.get("margin", 0.0)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin <= 2:
        raise ConfigError(f"{place}: margin: got {margin!r}, allowed: 0 to 2 (of the rectangle's sides)")
    part = parts.open({key: value for key, value in wish.items() if key not in _KEYS}, option)
    attribute = wish.get("attribute", "text" if gives == "text" else "")
    if gives in ("attribute", "text") and (not isinstance(attribute, str) or not attribute):
        raise ConfigError(f"{place}: attribute: got {attribute!r}, allowed: the name of an attribute")
    wanted = None if own is None else frozenset(own)
    return STEPS[gives](Wish(place, part, gives, wanted, attribute, float(margin), scored))


STEPS: dict[str, Callable[[Wish], Step]] = {
    "attribute": AttributeStep,
    "label": LabelStep,
    "text": TextStep,
    "mask": MaskStep,
    "skeleton": SkeletonStep,
    "detections": DetectionsStep,
}

"""A detector whose finds are looked at again: `chain:` with the options `of` (a detector) and `then` (steps)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.compose.parts import Answer, Parts, each_frame, joint_facts
from agent.compose.steps import STEPS, Step, open_step
from agent.contract import BadPrediction, ConfigError, Context, Detection, Frame, Label


class Chain:
    """Runs `of` on the frames, then each step on what has been found so far."""

    def __init__(self, name: str, *, device: str, parts: Parts, of: Any, then: list[Any]) -> None:
        if not then:
            raise ConfigError(f"{parts.owner}: option 'then': got none, allowed: one or more of {', '.join(STEPS)}")
        (self._first,) = parts.detectors([of], "of", 1)
        self.labels: list[Label] = list(self._first.labels)
        self._steps: list[Step] = []
        for number, wish in enumerate(then, 1):
            if not isinstance(wish, Mapping):
                raise ConfigError(
                    f"{parts.owner}: option 'then': got {wish!r}, allowed: tables with `model` and `gives`"
                )
            step = open_step(parts, wish, f"then {number}", self.labels)
            self._steps.append(step)
            self.labels = step.labels_after(self.labels)
        self._stay = not any(wish["gives"] in ("label", "detections") for wish in then)
        self._types = {label.name: label.type for label in self.labels}
        self.close = parts.close
        self.batch_size = self._first.loaded.batch_size
        self.default_threshold = self._first.loaded.default_threshold
        self.facts = joint_facts([self._first, *(step.part for step in self._steps)])

    def detect(self, frames: Sequence[Frame], context: Context) -> list[Answer]:
        # Where labels change on the way, or come to it, nothing is left out by its label before the end.
        wanted = context.labels if self._stay else None
        answers = self._first.submit(frames, replace(context, labels=wanted))()
        seen = {number: answer for number, answer in enumerate(answers) if not isinstance(answer, BadPrediction)}
        found = list(seen.values())
        if wanted is not None:
            found = [[detection for detection in own if detection.label in wanted] for own in found]
        for step in self._steps:
            found = step.look([frames[number] for number in seen], found, context)
        after = dict(zip(seen, found, strict=True))
        return each_frame(
            ([answer] for answer in answers), lambda number, _: [one for one in after[number] if self._fits(one)]
        )

    def _fits(self, detection: Detection) -> bool:
        """Whether a detection has become what its label says: to some rectangles there is no mask, or no skeleton."""
        kinds = {self._types.get(detection.label, "any"), "tag" if detection.shape is None else detection.shape.type}
        return len(kinds) == 1 or "any" in kinds or kinds == {"mask", "polygon"}


load = Chain

"""Models whose answers depend on the number that a picture carries, and on nothing else; an adapter as anybody's is.

`soak:finder`, `soak:clicker` and `soak:follower`. What they answer can be told beforehand: `boxes`, `square`, `moved`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.contract import Context, Detection, Frame, Label, Mask, PromptNeeds, Prompts, Rectangle, Shape
from tests.support.material import number_of

LABEL = "thing"
SIZE = (224, 64)
"""Of the pictures: small, and still with room for their number."""
FRAME_SECONDS, SLOW_SECONDS = 0.004, 0.2
SLOW = range(3000, 4000)
"""Pictures that take long: with several of them a request outlives its first sign of life."""

Box = tuple[float, float, float, float]


def boxes(number: int) -> list[Box]:
    """What the detector finds on a picture: none to three rectangles."""
    found = []
    for turn in range(number % 4):
        left, top = float(number * (turn + 3) % 150), float(number * (turn + 5) % 40)
        found.append((left, top, left + 20 + number % 29, top + 10 + turn))
    return found


def square(number: int, point: tuple[int, int]) -> tuple[int, int, int]:
    """Left, top and side of what the interactor finds around a point."""
    reach = 2 + number % 5
    return point[0] - reach, point[1] - reach, 2 * reach


def moved(box: Box, began: int, number: int) -> Box:
    """Where a rectangle that was drawn on the picture `began` is on another one."""
    by = (number - began) % 11
    return box[0] + by, box[1] + by, box[2] + by, box[3] + by


class Finder:
    labels = (Label(LABEL, "rectangle"),)
    batch_size = 4

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        numbers = [number_of(frame.image) for frame in frames]
        time.sleep(sum(SLOW_SECONDS if number in SLOW else FRAME_SECONDS for number in numbers))
        return [[Detection(LABEL, Rectangle(*box), 0.9) for box in boxes(number)] for number in numbers]


class Clicker:
    needs = PromptNeeds(positive=1, negative=0)

    def embed(self, frame: Frame) -> Any:
        # As large as it is, so that the agent's cache is soon full.
        return np.ascontiguousarray(frame.image)

    def segment(self, embedding: Any, prompts: Prompts) -> list[Detection]:
        x, y = (round(value) for value in prompts.positive[0])
        left, top, side = square(number_of(embedding), (x, y))
        return [Detection("object", Mask(np.ones((side, side), bool), left, top), 0.75)]


class Follower:
    shape_types = ("rectangle",)

    def begin(self, frame: Frame, shapes: Sequence[Shape]) -> list[bytes]:
        number = number_of(frame.image)
        drawn = [(s.left, s.top, s.right, s.bottom) for s in shapes if isinstance(s, Rectangle)]
        return [json.dumps([number, *box]).encode() for box in drawn]

    def follow(self, frame: Frame, states: Sequence[bytes]) -> list[tuple[bytes, Shape | None]]:
        found: list[tuple[bytes, Shape | None]] = []
        for state in states:
            began, *box = json.loads(state)
            found.append((state, Rectangle(*moved(tuple(box), began, number_of(frame.image)))))
        return found


def load(name: str, *, device: str) -> Finder | Clicker | Follower:
    return {"finder": Finder, "clicker": Clicker, "follower": Follower}[name]()

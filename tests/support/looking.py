"""Models of the scheme `looking:`, which say what their names tell them to, frame by frame.

tags/red@0.9,blue,-   a classifier: red with the score 0.9 on frame 0, blue on frame 1, nothing on the next ones
texts/AB,,CD          a reader: what it reads on frames 0, 1, 2, …
looks/                a reidentifier: things look alike whose left sides are in the same hundred of pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.contract import Context, Detection, Frame, Label, Rectangle

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Named:
    def __init__(self, said: str) -> None:
        self.said = said.split(",")

    def on(self, frame: Frame) -> str:
        return self.said[min(frame.index, len(self.said) - 1)]


class Tags(_Named):
    def __init__(self, said: str) -> None:
        super().__init__(said)
        names = dict.fromkeys(word.partition("@")[0] for word in self.said if word != "-")
        self.labels = tuple(Label(name, "tag") for name in names)

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        words = [self.on(frame).partition("@") for frame in frames]
        return [[] if name == "-" else [Detection(name, None, float(score or 1))] for name, _, score in words]


class Texts(_Named):
    labels = (Label("text", "rectangle"),)

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return [[] for _ in frames]

    def read(self, frame: Frame, rectangles: Sequence[Rectangle]) -> list[str]:
        return [self.on(frame)] * len(rectangles)


class Looks:
    def describe(self, frame: Frame, rectangles: Sequence[Rectangle]) -> NDArray[np.float32]:
        """What is not of the thing but of the moment is a third of a look."""
        looks = np.zeros((len(rectangles), 64), np.float32)
        for row, rectangle in enumerate(rectangles):
            looks[row, int(rectangle.left // 100)] = 3
            looks[row, 16 + frame.index % 48] = 1
        return looks / np.sqrt(np.float32(10))


def load(name: str, *, device: str) -> Tags | Texts | Looks:
    kind, _, said = name.partition("/")
    return Looks() if kind == "looks" else {"tags": Tags, "texts": Texts}[kind](said)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scheme known, as a package that is installed does."""
    info = folder / "looking-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: looking\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cvat_sidecar.adapters]\nlooking = tests.support.looking\n")
    monkeypatch.syspath_prepend(str(folder))

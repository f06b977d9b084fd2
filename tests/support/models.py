"""Models whose answers are known, and which tell what they were asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agent.contract import (
    Context,
    Detection,
    Frame,
    Label,
    Mask,
    PromptNeeds,
    Prompts,
    Rectangle,
    Shape,
)
from agent.models.loading import LoadedModel, ModelReference
from tests.support.material import number_of


class Finder:
    """Finds one `thing` in each frame, whose left edge is the number that the picture carries.

    `calls` has the frame numbers of each batch. `gate` holds every call up while it is clear, `began` is set by each.
    """

    def __init__(
        self,
        *,
        labels: Sequence[Label] = (Label("thing", "rectangle"),),
        batch_size: int = 4,
        seconds: float = 0.0,
        find: Callable[[Frame, Context], list[Detection]] | None = None,
    ) -> None:
        self.labels, self.batch_size, self.seconds = list(labels), batch_size, seconds
        self.calls: list[list[int]] = []
        self.contexts: list[Context] = []
        self.gate, self.began = threading.Event(), threading.Event()
        self.gate.set()
        self._find = find or (lambda frame, context: [self._thing(frame)])

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        self.calls.append([frame.index for frame in frames])
        self.contexts.append(context)
        self.began.set()
        time.sleep(self.seconds)
        assert self.gate.wait(60), "the test forgot to open the gate"
        return [self._find(frame, context) for frame in frames]

    def _thing(self, frame: Frame) -> Detection:
        left = number_of(frame.image)
        return Detection(self.labels[0].name, Rectangle(left, 20, left + 30, 50), 0.9)


class Clicker:
    """An interactor: a square of 10 pixels around the first positive point, or the box."""

    needs = PromptNeeds(positive=0, negative=0, box="optional")

    def __init__(self, needs: PromptNeeds | None = None) -> None:
        self.needs = needs or self.needs
        self.embedded: list[tuple[int, int]] = []
        self.prompts: list[Prompts] = []

    def embed(self, frame: Frame) -> Any:
        self.embedded.append((frame.width, frame.height))
        return np.array([frame.width, frame.height])

    def segment(self, embedding: Any, prompts: Prompts) -> list[Detection]:
        self.prompts.append(prompts)
        if prompts.box is not None:
            box = prompts.box
            left, top, right, bottom = (round(v) for v in (box.left, box.top, box.right, box.bottom))
        else:
            x, y = (round(value) for value in prompts.positive[0])
            left, top, right, bottom = x - 5, y - 5, x + 5, y + 5
        return [Detection("object", Mask(np.ones((bottom - top, right - left), bool), left, top), 0.93)]


class Follower:
    """A tracker: each shape goes a pixel to the right and down with every frame, and is lost beyond x = 60."""

    def __init__(self, shape_types: Sequence[str] = ("rectangle",)) -> None:
        self.shape_types = list(shape_types)
        self.frames: list[int] = []

    def begin(self, frame: Frame, shapes: Sequence[Shape]) -> list[bytes]:
        self.frames.append(frame.index)
        return [f"{s.left},{s.top},{s.right},{s.bottom}".encode() for s in shapes if isinstance(s, Rectangle)]

    def follow(self, frame: Frame, states: Sequence[bytes]) -> list[tuple[bytes, Shape | None]]:
        self.frames.append(frame.index)
        found: list[tuple[bytes, Shape | None]] = []
        for state in states:
            left, top, right, bottom = (float(value) + 1 for value in state.decode().split(","))
            next_state = f"{left},{top},{right},{bottom}".encode()
            found.append((next_state, Rectangle(left, top, right, bottom) if left <= 60 else None))
        return found


def loader(models: dict[str, Any]) -> Callable[..., LoadedModel]:
    """Loads these models by the name after `test:`; an exception among them is raised."""

    def load(reference: str, *, device: str = "auto", options: Any = None) -> LoadedModel:
        name = reference.partition(":")[2]
        model = models[name]
        if isinstance(model, BaseException):
            raise model
        kind = "detector" if hasattr(model, "detect") else "interactor" if hasattr(model, "segment") else "tracker"
        return LoadedModel(
            ModelReference("test", name),
            model,
            kind,
            labels=tuple(getattr(model, "labels", ())),
            version="1",
            batch_size=getattr(model, "batch_size", 1),
        )

    return load

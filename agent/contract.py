"""What a model author implements, and everything that an adapter may import from `agent`.

An adapter is a module with `load(name, *, device, **options) -> model`; a class will do. `name` is what follows the
scheme in a model reference (`hf:facebook/detr-resnet-50` gives `facebook/detr-resnet-50`), options are keyword-only and
come from the model's table in service.toml or from `-p` on the command line, with TOML's types. What it raises is a
`ModelError`, or a `ConfigError` for a bad option. What it returns is one of the four kinds below: no base class, no
CVAT types, no label ids; answer with names, pixels and scores, for a batch of frames.

A model may also have
    default_threshold: float     the score below which its detections are noise (0 where it is not said)
    batch_size: int              how many frames it likes at once (1 where it is not said)
    facts: Mapping[str, str]     what `models show` prints: source, version, input size, format, licence, …
                                 `version` names the weights: the ledger keeps it
    finds: str                   of a detector that finds whatever it is told to: the type of what it gives
                                 (`rectangle`). It is told by Context.labels, and needs no labels of its own
    memory_bytes: int            what it takes, where the growth of the process does not tell it (a GPU's memory)
    close() -> None              called once when the model is no longer needed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from agent.domain import (
    Attribute,
    Cuboid,
    Detection,
    Ellipse,
    Frame,
    Keypoint,
    Label,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Shape,
    Skeleton,
)
from agent.errors import BadPrediction, ConfigError, ModelError, ModelLoadFailed, ModelNotFound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Attribute",
    "BadPrediction",
    "ConfigError",
    "Context",
    "Cuboid",
    "Detection",
    "Detector",
    "Ellipse",
    "Frame",
    "Interactor",
    "Keypoint",
    "Label",
    "Mask",
    "Model",
    "ModelError",
    "ModelLoadFailed",
    "ModelNotFound",
    "Points",
    "Polygon",
    "Polyline",
    "PromptNeeds",
    "Prompts",
    "Rectangle",
    "Reidentifier",
    "Shape",
    "Skeleton",
    "Tracker",
]


@dataclass(frozen=True, slots=True)
class Context:
    """What the request is about; a model may use it to save work, and may ignore it."""

    threshold: float = 0.0
    """The lowest score that anyone will look at; the agent filters again."""
    labels: frozenset[str] | None = None
    """The model's labels that have a place in the task; None means all. Open-vocabulary models prompt with them."""
    masks_as_polygons: bool = False


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a person marked on a frame for an interactor, in pixels."""

    positive: tuple[tuple[float, float], ...] = ()
    negative: tuple[tuple[float, float], ...] = ()
    box: Rectangle | None = None
    texts: tuple[str, ...] = ()


@runtime_checkable
class Detector(Protocol):
    """Finds labelled things in frames (CVAT's function kind `detector`)."""

    labels: Sequence[Label]

    def detect(self, frames: Sequence[Frame], context: Context) -> Sequence[Sequence[Detection] | BadPrediction]:
        """One list of detections for each frame, in the frames' order; frames may differ in size.

        After an error all frames are tried again one by one. A model for which that is dear answers several frames
        with a BadPrediction in the place of each list that failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class PromptNeeds:
    """What a person has to mark before an interactor can answer; CVAT's editor holds them to it."""

    positive: int = 1
    """The least number of positive points."""
    negative: int | None = 0
    """The least number of negative points, None where it takes none."""
    box: Literal["no", "optional", "required"] = "no"
    texts: bool = False
    """Whether it understands words."""


@runtime_checkable
class Interactor(Protocol):
    """Answers clicks and boxes with shapes (CVAT's function kind `interactor`).

    It may have `needs: PromptNeeds` (PromptNeeds() where it is not said) and `help_message: str`, for annotators.
    """

    def embed(self, frame: Frame) -> Any:
        """What is worth keeping of a frame between two clicks: arrays, tensors, or tuples and dicts of them.

        The agent caches it by the picture's content, and bounds the cache by what `nbytes` of its arrays add up to.
        """
        ...

    def segment(self, embedding: Any, prompts: Prompts) -> Sequence[Detection]:
        """What was marked, best first, in pixels of the frame; a mask's score is the model's own opinion of it."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Follows shapes from frame to frame (CVAT's function kind `tracker`).

    Each shape has a state of its own: CVAT may follow some of them and leave others, or mix those of several
    beginnings. States are bytes, because they outlive the process: they hold all that `follow` needs.
    """

    shape_types: Sequence[str]
    """The types of shapes that it can follow."""

    def begin(self, frame: Frame, shapes: Sequence[Shape]) -> Sequence[bytes]:
        """The state of each shape."""
        ...

    def follow(self, frame: Frame, states: Sequence[bytes]) -> Sequence[tuple[bytes, Shape | None]]:
        """For each state its next one, and the shape on this frame (of the type it began with), None while it is lost.

        ValueError for a state that is not one of this model's.
        """
        ...


@runtime_checkable
class Reidentifier(Protocol):
    """Gives rectangles a descriptor that is near for the same object (CVAT's function kind `reid`)."""

    def describe(self, frame: Frame, rectangles: Sequence[Rectangle]) -> NDArray[np.float32]:
        """(N, D) float32 of unit length."""
        ...


Model = Detector | Interactor | Tracker | Reidentifier


class Adapter(Protocol):
    """The module (or object) behind a scheme."""

    def load(self, name: str, *, device: str, **options: Any) -> Model: ...


def facts_of(model: object) -> Mapping[str, str]:
    """What the model tells about itself, or nothing."""
    facts: Mapping[str, str] = getattr(model, "facts", {})
    return facts

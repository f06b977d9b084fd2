"""A family's way from a network's output to detections, and what goes with it.

A family of box detectors is a `Head`; classifiers (`tags.py`), maps of classes (`regions.py`) have heads of their own.
All of them have the fields of `AnyHead`, and make a reader once the class names are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from adapters._networks.candidates import Candidates
from adapters._networks.pictures import Placement, Recipe
from agent.contract import Context, Detection, Label

if TYPE_CHECKING:
    from numpy.typing import NDArray

Outputs: TypeAlias = "Mapping[str, NDArray[Any]]"
"""One picture's outputs, by name, without the batch axis."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The frame that outputs are about, and where it lies in the network's input."""

    width: int
    height: int
    placement: Placement
    input_size: tuple[int, int]
    """(width, height)."""


class Reader(Protocol):
    """Turns one picture's outputs into detections."""

    labels: Sequence[Label]
    threshold: float
    """The score below which its detections are noise."""

    def read(self, outputs: Outputs, canvas: Canvas, context: Context) -> list[Detection]:
        """BadPrediction where the outputs make no sense."""
        ...


class AnyHead(Protocol):
    """What every head says of itself."""

    @property
    def family(self) -> str: ...
    @property
    def recipe(self) -> Recipe:
        """How the family's networks were trained to see pictures; options can say otherwise."""
        ...

    @property
    def classes(self) -> int | None:
        """How many classes the graph tells apart; None where its shapes do not say."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The class names where the family has only one set."""
        ...

    @property
    def joined(self) -> bool:
        """Whether the outputs of a batch cannot be told apart by their first axis: run pictures one by one."""
        ...

    @property
    def note(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]:
        """The options about its answers."""
        ...

    def reader(self, names: Sequence[str], given: Mapping[str, Any], owner: str) -> Reader:
        """ConfigError where the options cannot be met."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """A family of box detectors, fitted to one graph."""

    family: str
    decode: Callable[[Outputs, float], Candidates]
    """One picture's outputs and the lowest score that matters -> boxes of at least that score."""
    recipe: Recipe
    classes: int | None = None
    overlapping: bool = True
    """Whether it gives several boxes for one object, so that non-maximum suppression is needed."""
    threshold: float = 0.25
    iou: float = 0.65
    names: tuple[str, ...] = ()
    joined: bool = False
    note: str = ""
    shapes: tuple[str, ...] = ("rectangle",)
    """What its boxes can become; the first, unless options say otherwise."""
    prototypes: str = ""
    """The output whose maps a candidate's coefficients (`more`) mix into a mask."""
    points: int = 0
    """How many points a candidate has (`more`: x, y in input pixels, score)."""
    point_names: tuple[str, ...] = ()
    """The points' names where the family has only one set."""
    first_class: int = 0
    """The number of the first class; where it is 1, names may begin with one for the background, or without."""
    turned: bool = False
    """Whether boxes are turned (`more`: radians, clockwise)."""

    @property
    def options(self) -> tuple[str, ...]:
        points = ("points", "point_threshold") if self.points else ()
        return ("nms_iou", "max_detections", "shape", *points)

    def reader(self, names: Sequence[str], given: Mapping[str, Any], owner: str) -> Reader:
        from adapters._networks.boxes import BoxReader

        return BoxReader(self, names, given, owner)

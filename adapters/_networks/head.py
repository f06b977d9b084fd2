"""A family's way from a network's output to detections, and what goes with it.

Box detectors (`boxes.py`), classifiers (`tags.py`) and maps of classes (`regions.py`) have heads of their own. All have
the fields of `Head`, and make a reader once the class names are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

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


class Head(Protocol):
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

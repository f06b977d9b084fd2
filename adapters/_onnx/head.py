"""A family's way from a network's output to boxes, and what goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from adapters._onnx.candidates import Candidates
from adapters._onnx.pictures import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

Outputs: TypeAlias = "Mapping[str, NDArray[Any]]"
"""One picture's outputs, by name, without the batch axis."""


@dataclass(frozen=True, slots=True)
class Head:
    """A family of detectors, fitted to one graph."""

    family: str
    decode: Callable[[Outputs, float], Candidates]
    """One picture's outputs and the lowest score that matters -> boxes of at least that score."""
    recipe: Recipe
    """How the family's networks were trained to see pictures; options can say otherwise."""
    classes: int | None = None
    """How many classes the graph tells apart; None where its shapes do not say."""
    overlapping: bool = True
    """Whether it gives several boxes for one object, so that non-maximum suppression is needed."""
    threshold: float = 0.25
    iou: float = 0.65
    names: tuple[str, ...] = ()
    """The class names where the family has only one set."""
    joined: bool = False
    """Whether the outputs of a batch cannot be told apart by their first axis: run pictures one by one."""
    note: str = ""

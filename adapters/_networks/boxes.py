"""Box detectors: what a family says of itself, and from its candidates to detections.

The asked classes are kept, doubles suppressed, and shapes drawn in pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._names import as_names, vocabulary
from adapters._networks.candidates import Candidates, suppress
from adapters._networks.head import Canvas, Outputs, Reader
from adapters._networks.pictures import Recipe
from adapters._networks.shapes import Drawer, masks, rectangles, skeletons, turned_rectangles
from agent.contract import BadPrediction, ConfigError, Context, Detection, Label

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST_SCORE = 0.001
"""Below this a box is noise to everyone; it keeps a request without a threshold from drowning in boxes."""
_USUAL_POINTS = {17: "coco-17-keypoints"}


@dataclass(frozen=True, slots=True)
class BoxHead:
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
        return BoxReader(self, names, given, owner)


class BoxReader:
    """Gives what a box detector's head finds, as rectangles, masks or skeletons."""

    def __init__(self, head: BoxHead, names: Sequence[str], given: Mapping[str, Any], owner: str) -> None:
        # Lists of names that begin with the background's fit as they are.
        names = [*[""] * (head.first_class if names[0] else 0), *names]
        self._head, self._names, self._owner, self.threshold = head, names, owner, head.threshold
        self._iou = given.get("nms_iou", head.iou)
        self._limit = given.get("max_detections", 300)
        self.shape = given.get("shape", head.shapes[0])
        if self.shape not in head.shapes:
            allowed = ", ".join(head.shapes)
            raise ConfigError(f"{owner}: shape: got {self.shape!r}, allowed for its {head.family} head: {allowed}")
        points: list[str] = []
        if self.shape == "skeleton":
            points = point_names(head.points, head.point_names, given.get("points"), head.family, owner)
        self._draw = self._drawer(points, given.get("point_threshold", 0.5))
        sublabels = tuple(Label(name, "points") for name in points if name)
        self.labels: Sequence[Label] = [Label(name, self.shape, sublabels=sublabels) for name in names if name]

    def read(self, outputs: Outputs, canvas: Canvas, context: Context) -> list[Detection]:
        found = self._head.decode(outputs, max(context.threshold, LOWEST_SCORE))
        if len(found.classes) and not 0 <= found.classes.min() <= found.classes.max() < len(self._names):
            got = int(found.classes.max())
            raise BadPrediction(f"{self._owner}: got class {got}, there are {len(self._names)} class names")
        found = found.at(self._wanted(context)[found.classes] & np.isfinite(found.boxes).all(axis=1))
        if self._head.overlapping:
            found = suppress(found, self._iou, self._limit, turned=self._head.turned)
        else:
            found = found.best(self._limit)
        kinds, scores = found.classes.tolist(), found.scores.tolist()
        return [
            Detection(self._names[kind], shape, min(score, 1.0))
            for kind, score, shape in zip(kinds, scores, self._draw(found, outputs, canvas), strict=True)
            if shape is not None
        ]

    def _wanted(self, context: Context) -> NDArray[np.bool_]:
        """For each class whether anyone asks for it; classes without a name are never asked for."""
        asked = context.labels
        return np.array([bool(name) and (asked is None or name in asked) for name in self._names], bool)

    def _drawer(self, points: Sequence[str], point_threshold: float) -> Drawer:
        if self.shape == "mask":
            return masks(self._head.prototypes)
        if self.shape == "skeleton":
            return skeletons(points, point_threshold)
        return turned_rectangles if self._head.turned else rectangles


def point_names(count: int, usual: Sequence[str], given: str | list[str] | None, family: str, owner: str) -> list[str]:
    """The names of points: the options', the family's usual ones, COCO's for 17, else CVAT's own way: 1, 2, 3, …"""
    if isinstance(given, str):
        names = vocabulary(given, owner)
    elif given is not None:
        names = as_names(given, f"{owner}: points")
    elif usual:
        names = list(usual)
    elif count in _USUAL_POINTS:
        names = vocabulary(_USUAL_POINTS[count], owner)
    else:
        names = [str(number + 1) for number in range(count)]
    if len(names) != count or not any(names):
        raise ConfigError(f"{owner}: points: got {len(names)} names, its {family} head has {count} points")
    return names

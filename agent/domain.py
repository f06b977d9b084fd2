"""The nouns: frames, shapes, detections, labels. No I/O, no SDK, no model library.

Coordinates are float pixels of the stored frame: x to the right, y down, the origin at the top left corner of the
top left pixel. Scores are 0..1, or None where a model has none. Structure is checked at birth (a polygon has three
points); values that only a frame can judge (finite, inside the picture) are judged in `agent.filters`, because one
bad shape must not cost the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHAPE_TYPES = ("rectangle", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton")
LABEL_TYPES = ("any", "tag", *SHAPE_TYPES)
INPUT_TYPES = ("select", "radio", "checkbox", "number", "text")

Coordinates: TypeAlias = tuple[float, ...]
"""x0, y0, x1, y1, …: the flat order that CVAT uses."""


def _pairs(owner: str, points: Coordinates, least: int) -> None:
    if len(points) % 2 or len(points) < 2 * least:
        raise ValueError(f"{owner}: got {len(points)} numbers, allowed: x, y of at least {least} point(s)")


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box by its corners, turned clockwise around its centre by `rotation` degrees."""

    type: ClassVar[str] = "rectangle"
    left: float
    top: float
    right: float
    bottom: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Centre and radii; turned clockwise around its centre by `rotation` degrees."""

    type: ClassVar[str] = "ellipse"
    x: float
    y: float
    radius_x: float
    radius_y: float
    rotation: float = 0.0


@dataclass(frozen=True, slots=True)
class Polygon:
    """A closed line of at least three points, without holes."""

    type: ClassVar[str] = "polygon"
    points: Coordinates

    def __post_init__(self) -> None:
        _pairs("polygon", self.points, 3)


@dataclass(frozen=True, slots=True)
class Polyline:
    """An open line of at least two points."""

    type: ClassVar[str] = "polyline"
    points: Coordinates

    def __post_init__(self) -> None:
        _pairs("polyline", self.points, 2)


@dataclass(frozen=True, slots=True)
class Points:
    """One or more points."""

    type: ClassVar[str] = "points"
    points: Coordinates

    def __post_init__(self) -> None:
        _pairs("points", self.points, 1)


@dataclass(frozen=True, slots=True)
class Cuboid:
    """Eight corners in CVAT's order: the left edge of the front face, its right edge, then those of the back."""

    type: ClassVar[str] = "cuboid"
    points: Coordinates

    def __post_init__(self) -> None:
        if len(self.points) != 16:
            raise ValueError(f"cuboid: got {len(self.points)} numbers, allowed: 16 (x, y of eight corners)")


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A (h, w) bool bitmap of the box whose top left pixel is (left, top) in the frame.

    A bitmap of the whole frame has left = top = 0; a box keeps many masks of a large frame small in memory.
    """

    type: ClassVar[str] = "mask"
    bitmap: NDArray[np.bool_]
    left: int = 0
    top: int = 0

    def __post_init__(self) -> None:
        if self.bitmap.ndim != 2 or self.bitmap.dtype != bool:
            got = f"{self.bitmap.dtype} of shape {self.bitmap.shape}"
            raise ValueError(f"mask: got a bitmap of {got}, allowed: bool of shape (h, w)")


@dataclass(frozen=True, slots=True)
class Keypoint:
    """One element of a skeleton: a sublabel's point. `outside` means that it is not in the picture."""

    label: str
    x: float
    y: float
    outside: bool = False
    occluded: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Named points; sublabels of the label that are not among them count as outside."""

    type: ClassVar[str] = "skeleton"
    elements: tuple[Keypoint, ...]

    def __post_init__(self) -> None:
        names = [element.label for element in self.elements]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"skeleton: got the elements {names}, allowed: at least one, each name once")


Shape: TypeAlias = Rectangle | Ellipse | Polygon | Polyline | Points | Cuboid | Mask | Skeleton


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing that a model saw in a frame. Without a shape it is a tag of the whole frame."""

    label: str
    shape: Shape | None
    score: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    group: int | None = None
    """Detections of one frame with the same number belong together."""
    track_id: int | None = None
    """The same number on several frames means the same object."""
    occluded: bool = False
    z_order: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded picture, as CVAT shows it (EXIF rotation applied).

    `index` is task-relative, 0 … size-1; `image` is (height, width, 3) uint8 RGB.
    """

    index: int
    name: str
    image: NDArray[np.uint8]
    digest: str | None = None
    """Names the bytes of the file that it was decoded from, where somebody has asked for that."""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or str(self.image.dtype) != "uint8":
            got = f"{self.image.dtype} of shape {self.image.shape}"
            raise ValueError(f"frame {self.index}: got {got}, allowed: uint8 of shape (height, width, 3)")

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        return int(self.image.shape[0])


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that a label can have; `values` are CVAT's: choices, or minimum, maximum, step of a number."""

    name: str
    input_type: str = "text"
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.input_type not in INPUT_TYPES:
            raise ValueError(f"attribute {self.name!r}: input type {self.input_type!r}, allowed: {INPUT_TYPES}")


@dataclass(frozen=True, slots=True)
class Label:
    """A label that a model can give. `sublabels` are the points of a skeleton."""

    name: str
    type: str = "any"
    attributes: tuple[Attribute, ...] = ()
    sublabels: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        if self.type not in LABEL_TYPES:
            raise ValueError(f"label {self.name!r}: type {self.type!r}, allowed: {', '.join(LABEL_TYPES)}")


@dataclass(frozen=True, slots=True)
class TaskAttribute:
    """An attribute as the server knows it."""

    id: int
    name: str
    input_type: str
    values: tuple[str, ...]
    mutable: bool = False


@dataclass(frozen=True, slots=True)
class TaskLabel:
    """A label as the server knows it."""

    id: int
    name: str
    type: str
    attributes: tuple[TaskAttribute, ...] = ()
    sublabels: tuple[TaskLabel, ...] = ()


@dataclass(frozen=True, slots=True)
class Roi:
    """The part of each frame that a model sees: left, top, right, bottom in pixels, the far edges exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right and 0 <= self.top < self.bottom):
            got = f"{self.left},{self.top},{self.right},{self.bottom}"
            raise ValueError(f"roi: got {got}, allowed: left,top,right,bottom with left < right and top < bottom")

"""What a request of the queue asks for: raw JSON becomes a value here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agent.contract import Mask, Prompts, Rectangle, Shape
from agent.errors import BadRequest
from agent.flat_shapes import MASK_PIXELS, is_number, read_shape


@dataclass(frozen=True, slots=True)
class Region:
    """The part of each picture that counts, in pixels, as CVAT says it; annotations are given relative to it."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a detector."""

    mapping: Mapping[str, Any] | None
    """Model label -> task label, in CVAT's form; None: by their names."""
    threshold: float | None
    masks_as_polygons: bool
    region: Region | None


@dataclass(frozen=True, slots=True)
class AnnotateTask:
    """All frames of a task, for a detector."""

    task: int
    wishes: Wishes


@dataclass(frozen=True, slots=True)
class AnnotateFrame:
    """One frame, for a detector."""

    task: int
    frame: int
    wishes: Wishes


@dataclass(frozen=True, slots=True)
class Interact:
    """What a person marked, for an interactor."""

    task: int
    frame: int
    prompts: Prompts
    region: Region | None


@dataclass(frozen=True, slots=True)
class InitTracking:
    """Shapes that are to be followed, for a tracker."""

    task: int
    frame: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Track:
    """Shapes that are being followed, by the names of their states."""

    task: int
    frame: int
    states: tuple[str, ...]


Wanted: TypeAlias = AnnotateTask | AnnotateFrame | Interact | InitTracking | Track

KINDS: Mapping[str, tuple[str, ...]] = {
    "detector": ("annotate_task", "annotate_frame"),
    "interactor": ("interact",),
    "tracker": ("init_tracking", "track"),
}
"""What the functions of each kind are asked for."""

REQUEST_TYPES = frozenset(name for names in KINDS.values() for name in names)


def read_parameters(raw: Any, kind: str) -> Wanted:
    """What is asked of a model of a kind. BadRequest says which parameter is wrong."""
    if not isinstance(raw, Mapping):
        raise BadRequest(f"the request's parameters: got {_short(raw)}, allowed: an object")
    type_ = raw.get("type")
    if type_ not in KINDS[kind]:
        raise BadRequest(f"type: got {_short(type_)}, allowed for a {kind}: {', '.join(KINDS[kind])}")
    return _READERS[type_](raw)


def subject(raw: Any) -> str:
    """What a request is about, for a person."""
    if not isinstance(raw, Mapping):
        return "nothing"
    parts = [f"{name} {_short(raw[name])}" for name in ("task", "frame") if name in raw]
    return " ".join(parts) or "nothing"


def _annotate_task(raw: Mapping[str, Any]) -> AnnotateTask:
    return AnnotateTask(_number(raw, "task", 1), _wishes(raw))


def _annotate_frame(raw: Mapping[str, Any]) -> AnnotateFrame:
    return AnnotateFrame(_number(raw, "task", 1), _number(raw, "frame", 0), _wishes(raw))


def _interact(raw: Mapping[str, Any]) -> Interact:
    corners = _points(raw, "obj_bbox")
    if len(corners) not in (0, 2):
        raise BadRequest(f"obj_bbox: got {len(corners)} points, allowed: none, or two corners")
    prompts = Prompts(
        positive=_points(raw, "pos_points"), negative=_points(raw, "neg_points"), box=_box(corners) if corners else None
    )
    return Interact(_number(raw, "task", 1), _number(raw, "frame", 0), prompts, _region(raw))


def _init_tracking(raw: Mapping[str, Any]) -> InitTracking:
    shapes = raw.get("shapes")
    if not isinstance(shapes, Sequence) or isinstance(shapes, str):
        raise BadRequest(f"shapes: got {_short(shapes)}, allowed: a list of shapes")
    return InitTracking(_number(raw, "task", 1), _number(raw, "frame", 0), tuple(_shapes(shapes)))


def _shapes(raw: Sequence[Any]) -> Iterator[Shape]:
    pixels = 0
    for value in raw:
        yield (shape := read_shape(value))
        # A few numbers stand for a mask of any size, and a list may hold very many of them.
        pixels += shape.bitmap.size if isinstance(shape, Mask) else 0
        if pixels > MASK_PIXELS:
            raise BadRequest(f"shapes: got masks of {pixels:,} pixels and more, allowed: {MASK_PIXELS:,} together")


def _track(raw: Mapping[str, Any]) -> Track:
    states = raw.get("states")
    if not isinstance(states, Sequence) or isinstance(states, str) or not all(isinstance(s, str) for s in states):
        raise BadRequest(f"states: got {_short(states)}, allowed: a list of names")
    return Track(_number(raw, "task", 1), _number(raw, "frame", 0), tuple(states))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Wanted]] = {
    "annotate_task": _annotate_task,
    "annotate_frame": _annotate_frame,
    "interact": _interact,
    "init_tracking": _init_tracking,
    "track": _track,
}


def _wishes(raw: Mapping[str, Any]) -> Wishes:
    mapping, threshold = raw.get("mapping"), raw.get("threshold")
    if not (mapping is None or isinstance(mapping, Mapping)):
        raise BadRequest(f"mapping: got {_short(mapping)}, allowed: an object of labels")
    if threshold is not None and not (is_number(threshold) and 0 <= threshold <= 1):
        raise BadRequest(f"threshold: got {_short(threshold)}, allowed: 0 to 1, or null")
    polygons = raw.get("conv_mask_to_poly")
    if not (polygons is None or isinstance(polygons, bool)):
        raise BadRequest(f"conv_mask_to_poly: got {_short(polygons)}, allowed: true or false")
    return Wishes(mapping, threshold, bool(polygons), _region(raw))


def _region(raw: Mapping[str, Any]) -> Region | None:
    if not (roi := raw.get("roi")):
        return None
    if isinstance(roi, Sequence) and len(roi) == 4 and all(is_number(value) for value in roi):
        left, top, right, bottom = map(float, roi)
        if 0 <= left < right and 0 <= top < bottom:
            return Region(left, top, right, bottom)
    raise BadRequest(f"roi: got {_short(roi)}, allowed: [left, top, right, bottom] with left < right and top < bottom")


def _number(raw: Mapping[str, Any], name: str, least: int) -> int:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadRequest(f"{name}: got {_short(value)}, allowed: a number from {least}")
    return value


def _points(raw: Mapping[str, Any], name: str) -> tuple[tuple[float, float], ...]:
    value = raw.get(name)
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(_is_point(point) for point in value):
        raise BadRequest(f"{name}: got {_short(value)}, allowed: a list of [x, y]")
    return tuple((float(x), float(y)) for x, y in value)


def _box(corners: Sequence[tuple[float, float]]) -> Rectangle:
    """The box between two corners, in whichever order a person drew them."""
    (x0, y0), (x1, y1) = corners
    if x0 == x1 or y0 == y1:
        raise BadRequest(f"obj_bbox: got {_short([[x0, y0], [x1, y1]])}, allowed: a box that has an area")
    return Rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _is_point(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(is_number(number) for number in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"

"""Which frames of a track need a keyframe: CVAT draws a straight line between two of them, for each side."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.contract import Rectangle
from agent.shapes.geometry import corners
from agent.shapes.overlap import overlap
from agent.tracks.link import Box, Sighting, at_gaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_IOU = 0.95
"""Of what is drawn with what was seen: two pixels are little for a bus and half of a distant bird."""


@dataclass(frozen=True, slots=True)
class ThinOptions:
    """How much of a track is written down."""

    tolerance: float = 2.0
    """Pixels by which a side may lie beside what was seen."""
    bridge: int = 30
    """Frames without a sighting over which the thing is drawn on a straight line; after more it is outside."""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A frame at which CVAT is told where the thing is; `sighting` is the one that it was taken from."""

    frame: int
    box: Box
    outside: bool = False
    sighting: Sighting | None = None
    rotation: float = 0.0
    """Degrees, clockwise, by which the box is turned around its centre; it goes on beyond 360."""


def thin(
    track: Sequence[Sighting],
    options: ThinOptions | None = None,
    said: Callable[[Sighting], object] = lambda sighting: None,
) -> list[Keyframe]:
    """The keyframes of a track: as few as keep every sighting within the tolerance, and `outside` where it is gone.

    What is `said` of a sighting holds from one keyframe to the next: where it changes, there is one. The last one is
    `outside`, one frame after the last sighting.
    """
    options = options or ThinOptions()
    found: list[Keyframe] = []
    for stretch in at_gaps(track, options.bridge + 1):
        places = _places(stretch)
        frames = np.array([sighting.frame for sighting in stretch])
        turns = [k for k in range(1, len(stretch)) if said(stretch[k]) != said(stretch[k - 1])]
        for k in _kept(frames, np.array(places), options, turns):
            *box, rotation = places[k]
            found.append(Keyframe(stretch[k].frame, _box(box), sighting=stretch[k], rotation=rotation))
        found.append(replace(found[-1], frame=found[-1].frame + 1, outside=True, sighting=None))
    return found


def box_at(keyframes: Sequence[Keyframe], frame: int) -> Box | None:
    """Where CVAT draws the track on a frame, None where it is outside or has not begun; the box before it is turned."""
    found = place_at(keyframes, frame)
    return None if found is None else found.box


def place_at(keyframes: Sequence[Keyframe], frame: int) -> Keyframe | None:
    """The keyframe that says on this frame what CVAT draws there, None where that is nothing."""
    before = max((k for k in range(len(keyframes)) if keyframes[k].frame <= frame), default=None)
    if before is None or keyframes[before].outside:
        return None
    one = keyframes[before]
    # Before it is gone it stands still.
    if one.frame == frame or before + 1 == len(keyframes) or keyframes[before + 1].outside:
        return replace(one, frame=frame)
    other = keyframes[before + 1]
    share = (frame - one.frame) / (other.frame - one.frame)
    box = _box([a + (b - a) * share for a, b in zip(one.box, other.box, strict=True)])
    return replace(one, frame=frame, box=box, rotation=one.rotation + (other.rotation - one.rotation) * share)


def _box(sides: Sequence[float]) -> Box:
    left, top, right, bottom = sides
    return left, top, right, bottom


def _places(stretch: Sequence[Sighting]) -> list[tuple[float, ...]]:
    """The box and the turn of each; a turned rectangle can be told in four ways, and each is told as its neighbours."""
    places: list[tuple[float, ...]] = []
    for sighting in stretch:
        shape = sighting.turned
        if shape is None:
            place: tuple[float, ...] = (*sighting.box, 0.0)
        else:
            place = (shape.left, shape.top, shape.right, shape.bottom, shape.rotation)
        places.append(_as_turned(place, places[-1][4]) if places else place)
    return places


def _as_turned(place: tuple[float, ...], turn: float) -> tuple[float, ...]:
    """The same rectangle with the turn that is nearest to another; a quarter more swaps its sides."""
    left, top, right, bottom, own = place
    quarters = round((turn - own) / 90)
    if quarters % 2:
        x, y, wide, high = (left + right) / 2, (top + bottom) / 2, (bottom - top) / 2, (right - left) / 2
        left, top, right, bottom = x - wide, y - high, x + wide, y + high
    return left, top, right, bottom, own + 90 * quarters


def _kept(
    frames: NDArray[np.int_], places: NDArray[np.float64], options: ThinOptions, turns: Sequence[int]
) -> list[int]:
    """Indices of the sightings that stay, `turns` among them: from each, the furthest that all between agree with."""
    kept, at, stops = [0], 0, [*turns, len(frames) - 1]
    while at < len(frames) - 1:
        last = stops[bisect_right(stops, at)]
        reach, step = at + 1, 1
        # What fits need not fit further on, so the reach grows in doubling steps and is then narrowed down.
        while reach + step <= last and _fit(frames, places, at, reach + step, options):
            reach, step = reach + step, 2 * step
        while step:
            if reach + step <= last and _fit(frames, places, at, reach + step, options):
                reach += step
            step //= 2
        kept.append(reach)
        at = reach
    return kept


def _fit(frames: NDArray[np.int_], places: NDArray[np.float64], first: int, last: int, options: ThinOptions) -> bool:
    """Whether the straight line from one sighting to another tells all between."""
    share = (frames[first + 1 : last] - frames[first]) / (frames[last] - frames[first])
    drawn = places[first] + (places[last] - places[first]) * share[:, None]
    seen = places[first + 1 : last]
    if not len(seen):
        return True
    if places[first : last + 1, 4].any():
        # CVAT turns the shorter way round.
        return abs(places[last, 4] - places[first, 4]) < 180 and _turned_fit(drawn, seen, options.tolerance)
    drawn, seen = drawn[:, :4], seen[:, :4]
    return bool(np.abs(drawn - seen).max() <= options.tolerance and _iou(drawn, seen).min() >= LEAST_IOU)


def _turned_fit(drawn: NDArray[np.float64], seen: NDArray[np.float64], tolerance: float) -> bool:
    """As `_fit` wants it, of the corners of turned rectangles and of what they share."""
    for pair in zip(drawn.tolist(), seen.tolist(), strict=True):
        one, other = (Rectangle(*place) for place in pair)
        apart = np.subtract(corners(one), corners(other)).reshape(4, 2)
        if np.linalg.norm(apart, axis=1).max() > tolerance or overlap(one, other, 1.0) < LEAST_IOU:
            return False
    return True


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of pairs of boxes, (N, 4) each."""
    inner = np.clip(np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2]), 0, None).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return np.asarray(inner / np.maximum(areas[0] + areas[1] - inner, 1e-9))

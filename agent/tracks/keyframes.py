"""Which frames of a track need a keyframe: CVAT draws a straight line between two of them, for each side."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
        boxes = np.array([sighting.box for sighting in stretch])
        frames = np.array([sighting.frame for sighting in stretch])
        turns = [k for k in range(1, len(stretch)) if said(stretch[k]) != said(stretch[k - 1])]
        kept = (stretch[k] for k in _kept(frames, boxes, options, turns))
        found += [Keyframe(s.frame, s.box, sighting=s) for s in kept]
        found.append(Keyframe(stretch[-1].frame + 1, stretch[-1].box, outside=True))
    return found


def box_at(keyframes: Sequence[Keyframe], frame: int) -> Box | None:
    """Where CVAT draws the track on a frame, None where it is outside or has not begun."""
    before = max((k for k in range(len(keyframes)) if keyframes[k].frame <= frame), default=None)
    if before is None or keyframes[before].outside:
        return None
    one = keyframes[before]
    if one.frame == frame or before + 1 == len(keyframes):
        return one.box
    other = keyframes[before + 1]
    if other.outside:  # it stands still until it is gone
        return one.box
    share = (frame - one.frame) / (other.frame - one.frame)
    left, top, right, bottom = (a + (b - a) * share for a, b in zip(one.box, other.box, strict=True))
    return left, top, right, bottom


def _kept(
    frames: NDArray[np.int_], boxes: NDArray[np.float64], options: ThinOptions, turns: Sequence[int]
) -> list[int]:
    """Indices of the sightings that stay, `turns` among them: from each, the furthest that all between agree with."""
    kept, at, stops = [0], 0, [*turns, len(frames) - 1]
    while at < len(frames) - 1:
        last = stops[bisect_right(stops, at)]
        reach, step = at + 1, 1
        # What fits need not fit further on, so the reach grows in doubling steps and is then narrowed down.
        while reach + step <= last and _fit(frames, boxes, at, reach + step, options):
            reach, step = reach + step, 2 * step
        while step:
            if reach + step <= last and _fit(frames, boxes, at, reach + step, options):
                reach += step
            step //= 2
        kept.append(reach)
        at = reach
    return kept


def _fit(frames: NDArray[np.int_], boxes: NDArray[np.float64], first: int, last: int, options: ThinOptions) -> bool:
    """Whether the straight line from one sighting to another tells all between."""
    share = (frames[first + 1 : last] - frames[first]) / (frames[last] - frames[first])
    drawn = boxes[first] + (boxes[last] - boxes[first]) * share[:, None]
    seen = boxes[first + 1 : last]
    if not len(seen):
        return True
    return bool(np.abs(drawn - seen).max() <= options.tolerance and _iou(drawn, seen).min() >= LEAST_IOU)


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of pairs of boxes, (N, 4) each."""
    inner = np.clip(np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2]), 0, None).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return np.asarray(inner / np.maximum(areas[0] + areas[1] - inner, 1e-9))

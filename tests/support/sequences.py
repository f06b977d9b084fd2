"""Sequences with known tracks: things that move over a picture, hide each other, leave and come back; and what a
detector that misses, invents and trembles would say of them. Everything follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SIZE = (960, 540)


@dataclass(frozen=True, slots=True)
class Seen:
    """A rectangle on a frame: of the truth (`track` is the thing's number), or of the detector (None)."""

    frame: int
    box: tuple[float, float, float, float]
    label: str
    score: float = 1.0
    track: int | None = None
    thing: int | None = None
    """Which thing a detection was really of; None for an invented one. For judging only."""


@dataclass(slots=True)
class Thing:
    """A person or a vehicle: where it is on every frame, how near it is, and how it looks."""

    number: int
    label: str
    begin: int
    boxes: NDArray[np.float64]
    depth: float
    crop: int
    """Which of the crops stands for it."""


@dataclass(slots=True)
class Sequence:
    """Truth and detections."""

    frames: int
    size: tuple[int, int]
    things: list[Thing]
    truth: list[Seen] = field(default_factory=list)
    detections: list[Seen] = field(default_factory=list)


def sequence(
    seed: int,
    *,
    frames: int = 150,
    things: int = 10,
    miss: float = 0.08,
    invented: float = 0.3,
    tremble: float = 0.02,
    speed: float = 4.0,
    hideouts: int = 2,
    size: tuple[int, int] = SIZE,
) -> Sequence:
    """`miss` is the share of detections that are not there, `invented` how many there are a frame that nobody sees,
    `tremble` the error of the sides in parts of the size, `speed` pixels a frame, `hideouts` still things in front.
    """
    random = np.random.default_rng(seed)
    walls = [_wall(random, size) for _ in range(hideouts)]
    found = Sequence(frames, size, [_thing(random, number, frames, speed, size) for number in range(things)])
    for frame in range(frames):
        _look(found, frame, walls, random, miss, invented, tremble)
    return found


def _wall(random: np.random.Generator, size: tuple[int, int]) -> tuple[float, float, float, float]:
    left = random.uniform(0.2, 0.7) * size[0]
    return left, 0.0, left + random.uniform(0.04, 0.09) * size[0], float(size[1])


def _thing(random: np.random.Generator, number: int, frames: int, speed: float, size: tuple[int, int]) -> Thing:
    """Walks with a slowly changing direction, in at a side or in the middle, larger when nearer."""
    begin = 0 if random.random() < 0.5 else int(random.integers(0, frames // 2))
    end = frames if random.random() < 0.6 else int(random.integers(begin + frames // 4, frames + 1))
    vehicle = random.random() < 0.4
    depth = random.uniform(0, 1)
    height = (60 + 120 * depth) * (0.7 if vehicle else 1.0)
    width = height * (1.8 if vehicle else 0.42)
    count = max(2, end - begin)
    angle = random.choice([0.0, np.pi]) + random.normal(0, 0.15)
    turns = np.cumsum(random.normal(0, 0.03, count)) + angle
    pace = (
        speed
        * (0.5 + depth)
        * random.uniform(0.5, 1.5)
        * (1 + 0.3 * np.sin(np.arange(count) / 25 + random.uniform(0, 6)))
    )
    start = np.array([random.uniform(0.1, 0.9) * size[0], (0.35 + 0.5 * depth) * size[1]])
    if random.random() < 0.5:
        start[0] = 0.0 if np.cos(angle) > 0 else float(size[0])
    path = start + np.cumsum(np.stack([np.cos(turns) * pace, np.sin(turns) * pace * 0.4], 1), 0)
    grown = 1 + 0.001 * (path[:, 1] - path[0, 1])
    half = np.stack([width / 2 * grown, height / 2 * grown], 1)
    boxes = np.concatenate([path - half, path + half], 1)
    return Thing(number, "car" if vehicle else "person", begin, boxes, depth, int(random.integers(0, 1000)))


def _look(
    found: Sequence,
    frame: int,
    walls: list[tuple[float, float, float, float]],
    random: np.random.Generator,
    miss: float,
    invented: float,
    tremble: float,
) -> None:
    width, height = found.size
    here = [thing for thing in found.things if thing.begin <= frame < thing.begin + len(thing.boxes)]
    for thing in here:
        whole = thing.boxes[frame - thing.begin]
        box = np.clip(whole, 0, [width, height, width, height])
        if (box[2] - box[0]) * (box[3] - box[1]) < 0.3 * (whole[2] - whole[0]) * (whole[3] - whole[1]):
            continue  # it has left the picture
        nearer = [o.boxes[frame - o.begin] for o in here if o.depth > thing.depth]
        visible = _visible(box, [*nearer, *walls])
        if visible < 0.05:
            continue  # nobody could say where it is
        found.truth.append(Seen(frame, _flat(box), thing.label, track=thing.number))
        chance = (1 - miss) * min(1.0, max(0.0, (visible - 0.25) * 4))
        if random.random() < chance:
            error = random.normal(0, tremble, 4) * np.tile([box[2] - box[0], box[3] - box[1]], 2)
            score = float(np.clip(random.normal(0.45 + 0.4 * visible, 0.1), 0.15, 0.99))
            found.detections.append(Seen(frame, _flat(box + error), thing.label, score, thing=thing.number))
    for _ in range(random.poisson(invented)):
        centre, side = random.uniform([0, 0], [width, height]), random.uniform(30, 120, 2)
        box = np.concatenate([centre - side / 2, centre + side / 2])
        label = "person" if random.random() < 0.6 else "car"
        found.detections.append(Seen(frame, _flat(box), label, float(random.uniform(0.15, 0.6))))


def _visible(box: NDArray[np.float64], nearer: list[NDArray[np.float64] | tuple[float, ...]]) -> float:
    """The share of a box that nothing nearer covers, on a grid of 12 x 12 points."""
    xs, ys = np.meshgrid(np.linspace(box[0], box[2], 14)[1:-1], np.linspace(box[1], box[3], 14)[1:-1])
    free = np.ones(xs.shape, bool)
    for left, top, right, bottom in nearer:
        free &= ~((xs >= left) & (xs <= right) & (ys >= top) & (ys <= bottom))
    return float(free.mean())


def _flat(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)

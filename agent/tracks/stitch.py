"""Pieces of tracks put together over gaps: the whole sequence is known, so each end is held against all beginnings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

LIMIT = 0.8
"""Cost up to which two pieces are one: roughly, the distance of the places foretold, in sizes of the thing."""
HISTORY = 12
"""Sightings from which the motion at an end is told."""
SLACK = 0.02
"""By so much more distance, for each frame of the gap, is forgiven."""
RATIO_LIMIT, RATIO_WEIGHT = 0.6, 0.3
"""Of the logarithm of the sizes' ratio."""
LOOK_WEIGHT = 0.5


class Seen(Protocol):
    """What is stitched."""

    @property
    def frame(self) -> int: ...
    @property
    def box(self) -> tuple[float, float, float, float]: ...
    @property
    def descriptor(self) -> NDArray[np.float32] | None: ...


S = TypeVar("S", bound=Seen)


def stitch(pieces: Sequence[list[S]], max_gap: int, max_distance: float) -> list[list[S]]:
    """The pieces, those of the same thing put together; each in the order of its frames.

    Two pieces are one where motion foretells, from both sides, that the end of the one leads to the beginning of the
    other within `max_gap` frames, where their sizes are alike, and where their looks are no further apart than
    `max_distance` (of the cosine), as far as they have descriptors. All pairs compete at once; repeated until none is
    left, because a longer piece tells its motion better.
    """
    current = [sorted(piece, key=lambda seen: seen.frame) for piece in pieces]
    while pairs := _pairs(current, max_gap, max_distance):
        used = {number for pair in pairs for number in pair}
        joined = [current[first] + current[second] for first, second in pairs]
        current = [piece for number, piece in enumerate(current) if number not in used] + joined
    return current


def _pairs(pieces: Sequence[list[S]], max_gap: int, max_distance: float) -> list[tuple[int, int]]:
    """Which piece goes on as which, each at most once in either part, the cheapest choice for all together."""
    ends = [_Ends.of(piece) for piece in pieces]
    order = sorted(range(len(pieces)), key=lambda number: ends[number].first)
    begins = [ends[number].first for number in order]
    costs: dict[tuple[int, int], float] = {}
    for number, end in enumerate(ends):
        low, high = bisect_right(begins, end.last), bisect_right(begins, end.last + max_gap)
        for other in order[low:high]:
            if (cost := _cost(end, ends[other], max_distance)) < LIMIT:
                costs[number, other] = cost
    chosen = sorted(_assigned(costs), key=lambda pair: costs[pair])
    taken: set[int] = set()
    pairs = []
    for pair in chosen:
        if not taken & set(pair):  # a chain is put together link by link
            taken |= set(pair)
            pairs.append(pair)
    return pairs


def _assigned(costs: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """The assignment of ends to beginnings with the most pairs at the least cost, group by group."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not costs:
        return []
    rows, columns = (np.array(numbers) for numbers in zip(*costs, strict=True))
    size = int(max(rows.max(), columns.max())) + 1
    # Ends are nodes 0 … size-1 and beginnings size … 2 size-1; groups without a link between them do not compete.
    graph = coo_array((np.ones(len(rows)), (rows, columns + size)), shape=(2 * size, 2 * size))
    _, group = connected_components(graph, directed=False)
    found = []
    for number in np.unique(group[rows]):
        links = [pair for pair, own in zip(costs, group[rows], strict=True) if own == number]
        first, second = sorted({a for a, _ in links}), sorted({b for _, b in links})
        table = np.full((len(first), len(second)), 1e3)
        for a, b in links:
            table[first.index(a), second.index(b)] = costs[a, b]
        for i, j in zip(*linear_sum_assignment(table), strict=True):
            if table[i, j] < LIMIT:
                found.append((first[i], second[j]))
    return found


@dataclass(frozen=True, slots=True)
class _Ends:
    """What of a piece decides whether another goes on from it."""

    first: int
    last: int
    length: int
    entry: Vector
    entry_speed: Vector
    entry_size: Vector
    exit: Vector
    exit_speed: Vector
    exit_size: Vector
    look: NDArray[np.float32] | None

    @classmethod
    def of(cls, piece: Sequence[Seen]) -> _Ends:
        head, tail = piece[:HISTORY], piece[-HISTORY:]
        entry, entry_speed = _motion(head, head[0].frame)
        leave, exit_speed = _motion(tail, tail[-1].frame)
        return cls(
            first=piece[0].frame,
            last=piece[-1].frame,
            length=len(piece),
            entry=entry,
            entry_speed=entry_speed,
            entry_size=_size(piece[:5]),
            exit=leave,
            exit_speed=exit_speed,
            exit_size=_size(piece[-5:]),
            look=_look(piece),
        )


def _cost(one: _Ends, other: _Ends, max_distance: float) -> float:
    gap = other.first - one.last
    ratio = float(np.abs(np.log(one.exit_size / other.entry_size)).max())
    if ratio > RATIO_LIMIT:
        return np.inf
    size = (one.exit_size + other.entry_size) / 2
    forward = np.abs(one.exit + one.exit_speed * gap - other.entry) / size
    backward = np.abs(other.entry - other.entry_speed * gap - one.exit) / size
    # A piece of one or two sightings has no motion to tell: then the other's is believed.
    short = min(one.length, other.length) <= 2
    apart = np.minimum(forward, backward) if short else (forward + backward) / 2
    cost = float(np.hypot(*apart)) / (1 + SLACK * gap) + RATIO_WEIGHT * ratio
    if one.look is None or other.look is None:
        return cost
    distance = 1 - float(one.look @ other.look)
    if distance > max_distance:
        return np.inf
    return cost + LOOK_WEIGHT * ((distance / max_distance if max_distance else 0.0) - 0.5)


def _motion(some: Sequence[Seen], at: int) -> tuple[Vector, Vector]:
    """The centre at frame `at`, and its speed in pixels a frame, by a straight line through the sightings."""
    centres = np.array([[(s.box[0] + s.box[2]) / 2, (s.box[1] + s.box[3]) / 2] for s in some])
    if len(some) < 3:
        return centres[0 if some[0].frame == at else -1], np.zeros(2)
    frames = np.array([s.frame for s in some], dtype=float)
    middle = frames.mean()
    offsets = frames - middle
    speed = (offsets[:, None] * centres).sum(0) / (offsets**2).sum()
    # A line through few trembling points is a bad prophet.
    return centres.mean(0) + speed * (at - middle), speed * min(1.0, len(some) / 6)


def _size(some: Sequence[Seen]) -> Vector:
    sizes = [[max(1.0, s.box[2] - s.box[0]), max(1.0, s.box[3] - s.box[1])] for s in some]
    return np.asarray(np.median(sizes, axis=0))


def _look(piece: Sequence[Seen]) -> NDArray[np.float32] | None:
    """The mean of its descriptors, of unit length."""
    known = [seen.descriptor for seen in piece if seen.descriptor is not None]
    if not known:
        return None
    mean = np.mean(known, axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)

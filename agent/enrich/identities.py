"""Which of many looks (descriptors of faces, of persons) are of the same one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 20_000
"""Looks; the distances of all pairs have to fit into memory."""
NEVER = 1e9
"""The distance of two on the same frame: nobody is there twice. A mean that it is part of, of however many distances,
is more than any distance that is allowed."""


def identities(looks: NDArray[np.float32], frames: Sequence[Iterable[Hashable]], max_distance: float) -> list[int]:
    """A number from 1 for each look, the same for the same one, in the order of their first appearance.

    `looks` is (N, D) of unit length, `frames` where each of them was seen. Groups are joined, the nearest first, as
    long as their mean cosine distance is at most `max_distance`.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    count = len(looks)
    if count > MOST:
        raise BadRequest(
            f"identities: got {count} shapes and tracks, allowed: up to {MOST}; choose labels or fewer frames"
        )
    if count < 2:
        return [1] * count
    apart = np.clip(1.0 - looks @ looks.T, 0.0, 2.0).astype(np.float32)
    there: dict[Hashable, list[int]] = defaultdict(list)
    for row, places in enumerate(frames):
        for place in places:
            there[place].append(row)
    # Long tracks are together on many frames.
    for rows in {tuple(rows) for rows in there.values() if len(rows) > 1}:
        apart[np.ix_(rows, rows)] = NEVER
    np.fill_diagonal(apart, 0.0)
    groups = fcluster(linkage(squareform(apart, checks=False), "average"), max_distance, "distance")
    order: dict[int, int] = {}
    return [order.setdefault(int(group), len(order) + 1) for group in groups]

"""The groups of a job's rectangles, as their tracks keep them: in CVAT a group is a job's, and a track is in one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

_KINDS = ("tags", "shapes", "tracks")
_Item = tuple[str, int]
"""Kind and id of what a job holds; of what becomes of it, `made` and a number."""


class JobGroups:
    """Which things of a job belong together, before and after its rectangles have become tracks."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._before = {
            (kind, item["id"]): group
            for kind in _KINDS
            for item in stored.get(kind, ())
            if (group := item.get("group"))
        }
        self._tracks: list[tuple[int, list[int]]] = []
        """Group and ids of the rectangles of each."""
        self.mixed = 0
        """Tracks of rectangles that were in several groups."""

    def track_of(self, shapes: Iterable[int]) -> int:
        """The group for a track of the shapes with these ids: that of most of them, 0 where none is in any.

        A shape without a group says nothing: it is not kept apart from anything. Of several groups that are as frequent
        it is the lowest, so that things which have always been together stay so.
        """
        ids = list(shapes)
        counts = Counter(self._before[item] for item in (("shapes", number) for number in ids) if item in self._before)
        group = min(counts, key=lambda number: (-counts[number], number), default=0)
        self.mixed += len(counts) > 1
        self._tracks.append((group, ids))
        return group

    def parted(self) -> int:
        """How many rectangles were in a group with something that their tracks are in no group with."""
        after, becomes = dict(self._before), dict[_Item, _Item]()
        for number, (group, ids) in enumerate(self._tracks):
            after["made", number] = group
            becomes |= {("shapes", one): ("made", number) for one in ids}
        members: dict[int, set[_Item]] = defaultdict(set)
        for item, group in self._before.items():
            members[group].add(becomes.get(item, item))
        return sum(
            any(other != own and after[other] != after[own] for other in members[group])
            for item, group in self._before.items()
            if (own := becomes.get(item)) is not None and after[own] != group
        )

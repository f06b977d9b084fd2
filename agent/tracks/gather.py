"""The rectangles that a task's jobs hold, as sightings to be linked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agent.contract import Rectangle
from agent.shapes.geometry import bounds, iou
from agent.shapes.overlap import overlap
from agent.tracks.link import Sighting

SAME = 0.9
"""IoU from which two rectangles of one label, in two jobs that share a frame, are the same thing."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A rectangle in a job, or the same one in several jobs that share its frame; `shape` is CVAT's."""

    label: int
    shape: Mapping[str, Any]
    places: tuple[tuple[int, int], ...]
    """(job id, shape id) of each."""


@dataclass(slots=True)
class Gathered:
    """What may be linked; the sightings' items are `Stored`."""

    sightings: list[Sighting] = field(default_factory=list)
    left: int = 0
    """Shapes that are no rectangles."""


def gather(by_job: Iterable[tuple[int, Sequence[Mapping[str, Any]]]], labels: Iterable[int] | None = None) -> Gathered:
    """The rectangles of jobs given as (id, shapes); `labels` are the ids wanted, None all."""
    wanted = None if labels is None else set(labels)
    found = Gathered()
    frames: dict[tuple[int, int], list[Stored]] = defaultdict(list)
    for job, shapes in by_job:
        own: dict[tuple[int, int], list[Stored]] = defaultdict(list)
        for shape in shapes:
            if wanted is not None and shape["label_id"] not in wanted:
                continue
            if shape["type"] != "rectangle":
                found.left += 1
                continue
            own[shape["label_id"], shape["frame"]].append(Stored(shape["label_id"], shape, ((job, shape["id"]),)))
        for key, more in own.items():
            frames[key] = _united(frames[key], more)
    for (_, frame), stored in sorted(frames.items()):
        for item in stored:
            score, rectangle = item.shape.get("score"), _rectangle(item)
            found.sightings.append(
                Sighting(
                    frame,
                    bounds(rectangle),
                    1.0 if score is None else float(score),
                    item=item,
                    turned=rectangle if rectangle.rotation else None,
                )
            )
    return found


def _rectangle(item: Stored) -> Rectangle:
    left, top, right, bottom = (float(value) for value in item.shape["points"])
    return Rectangle(left, top, right, bottom, float(item.shape.get("rotation") or 0.0))


def _united(known: list[Stored], more: list[Stored]) -> list[Stored]:
    """Two jobs' rectangles of one label on one frame; those that are the same thing become one."""
    if not known or not more:
        return known + more
    one, other = ([_rectangle(item) for item in items] for items in (known, more))
    shares = iou(*(np.array([bounds(rectangle) for rectangle in some]) for some in (one, other)))
    for row, column in np.argwhere(shares):
        shares[row, column] = overlap(one[row], other[column], float(shares[row, column]))
    united, taken = list(known), set[int]()
    for row, column in sorted(np.argwhere(shares >= SAME).tolist(), key=lambda pair: -shares[pair[0], pair[1]]):
        if column not in taken and len(united[row].places) == len(known[row].places):
            taken.add(column)
            united[row] = replace(united[row], places=united[row].places + more[column].places)
    return united + [item for number, item in enumerate(more) if number not in taken]

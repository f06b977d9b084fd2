"""Where a task's jobs have something to look at: shapes, and tracks on some of their frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.cvat.annotations_api import get_annotations
from agent.cvat.ours import untouched
from agent.cvat.session import Session
from agent.cvat.work import JobWork, TaskWork
from agent.domain import TaskLabel
from agent.errors import BadRequest
from agent.existing import occupied_frames, track_shapes
from agent.labels.names import meant
from agent.ledger.ledger import Ledger

LOOKS = 8
"""Frames on which a track is looked at, where one answer is wanted for all of it."""
ON_FRAMES = ("mask", "skeleton")
"""What takes the place of a rectangle on one frame, and of no track."""

Item = Mapping[str, Any]
"""A shape or a track as CVAT's JSON has it."""


@dataclass(frozen=True, slots=True)
class EnrichOptions:
    """Which shapes and tracks are looked at, and what for."""

    model: str
    gives: str
    """One of the steps of a chain, or `identity`."""
    attribute: str = ""
    labels: tuple[str, ...] = ()
    """Task labels; none means all."""
    of: str = "own"
    """own: what this program made and nobody has changed; auto: all that models made; all: everything."""
    margin: float = 0.0
    max_distance: float = 0.4
    """Of identities: the cosine distance up to which two are the same one."""
    quality: str = "compressed"
    into: str = ""
    """The task's label of masks and skeletons; without it, that of the rectangle."""

    @property
    def fills(self) -> str:
        """The attribute that the answers go into, empty where they are no values."""
        return self.attribute or ("text" if self.gives == "text" else "")


@dataclass(frozen=True, slots=True)
class Place:
    """A shape, or a track as it is drawn on a frame."""

    shape: Item
    track: Item | None = None


@dataclass(slots=True)
class JobPlaces:
    """A job, what it held, and what there is to look at, by frame."""

    work: JobWork
    stored: Mapping[str, Any]
    places: dict[int, list[Place]]
    own: frozenset[tuple[str, int]] = frozenset()
    """(kind, id) of what this program made and nobody has changed."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """By kind: what `of` leaves alone."""
    left: Counter[str] = field(default_factory=Counter)
    """Shapes that are not looked at, by reason."""

    def add(self, frame: int, place: Place) -> None:
        self.places.setdefault(frame, []).append(place)


def read_job(session: Session, ledger: Ledger, part: TaskWork, job: JobWork, options: EnrichOptions) -> JobPlaces:
    names = {label.name: label.id for label in part.labels}
    if unknown := [name for name in options.labels if name not in names]:
        near = meant(unknown[0], list(names))
        raise BadRequest(f"task {part.task_id}: it has no label {unknown[0]!r}{near}")
    stored = get_annotations(session, job.id)
    own = untouched(ledger.made(job=job.id, server=session.url), stored, ledger.known_ids(job.id, session.url))[0]
    wanted = {names[name] for name in options.labels} or set(names.values())
    found = JobPlaces(job, stored, {}, frozenset((kind, item["id"]) for kind, items in own.items() for item in items))
    for kind in ("shapes",) if options.gives in ON_FRAMES else ("shapes", "tracks"):
        for item in stored.get(kind, ()):
            if item["label_id"] not in wanted or (kind == "shapes" and not job.start <= item["frame"] <= job.stop):
                continue
            if not _is_meant(found, kind, item, options.of):
                found.passed_over[kind] += 1
            elif kind == "tracks":
                _add_track(found, item, part.labels, options)
            elif options.gives in ON_FRAMES and item["type"] != "rectangle":
                found.left[f"{item['type']}: a {options.gives} takes the place of rectangles only"] += 1
            else:
                found.add(item["frame"], Place(item))
    return found


def _is_meant(job: JobPlaces, kind: str, item: Item, of: str) -> bool:
    return of == "all" or (item.get("source") == "auto" if of == "auto" else (kind, item["id"]) in job.own)


def tracks_in(jobs: Collection[int]) -> str:
    """How many tracks there are, of which each is in one of the jobs; CVAT keeps a task's track by job."""
    count = "1 track" if len(jobs) == 1 else f"{len(jobs)} tracks"
    return f"{count} (a track's part in each job is one)" if len(set(jobs)) > 1 else count


def changes_on_the_way(label: TaskLabel | None, options: EnrichOptions) -> bool:
    """Whether a track of the label is told the answers keyframe by keyframe; an identity is the same throughout."""
    attributes = label.attributes if label is not None and options.gives != "identity" else ()
    return any(attribute.mutable for attribute in attributes if attribute.name == options.fills)


def _add_track(found: JobPlaces, track: Item, labels: Sequence[TaskLabel], options: EnrichOptions) -> None:
    job = found.work
    seen = occupied_frames({"tracks": [track]}, job.stop)
    keyframes = {shape["frame"] for shape in track["shapes"]}
    # Of two jobs that share frames the earlier one has them, but for tracks that are nowhere else.
    frames = [frame for frame in job.frames if frame in seen] or [frame for frame in job.positions if frame in seen]
    if changes_on_the_way(next((label for label in labels if label.id == track["label_id"]), None), options):
        wanted = [frame for frame in job.positions if frame in seen and frame in keyframes]
    else:
        wanted = spread([frame for frame in frames if frame in keyframes], LOOKS)
        wanted += spread([frame for frame in frames if frame not in keyframes], LOOKS - len(wanted))
    for frame, shape in _drawn(track, job.stop, set(wanted)):
        found.add(frame, Place(shape, track))


def _drawn(track: Item, stop: int, frames: set[int]) -> Iterator[tuple[int, Item]]:
    """The track's shape on these frames; a skeleton's with its points."""
    elements = [dict(track_shapes(element, stop, frames)) for element in track.get("elements") or ()]
    for frame, shape in track_shapes(track, stop, frames):
        yield frame, {**shape, "elements": [element[frame] for element in elements if frame in element]}


def spread(frames: Sequence[int], most: int) -> list[int]:
    """At most so many of the frames, evenly over all of them: a thing's first and last ones show the least of it."""
    if len(frames) <= most:
        return list(frames)
    return [frames[int((number + 0.5) * len(frames) / most)] for number in range(most)]

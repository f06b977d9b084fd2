"""The rectangles of one task, gathered from its jobs and linked: what becomes of each job, before anything is sent."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from agent.contract import Frame, Rectangle
from agent.cvat.annotations_api import get_annotations
from agent.cvat.frames import ChunkFrames
from agent.cvat.ours import untouched
from agent.cvat.session import Session
from agent.cvat.work import JobWork, TaskWork
from agent.domain import TaskLabel
from agent.errors import BadRequest, RequestCancelled
from agent.ledger.ledger import Ledger
from agent.models.loading import wrong_kind
from agent.predict import describe
from agent.runs.surroundings import ReadyModel, Surroundings
from agent.tracks.encode import encode_track, mutable_ids, said
from agent.tracks.gather import gather
from agent.tracks.groups import JobGroups
from agent.tracks.keyframes import Keyframe, ThinOptions, thin
from agent.tracks.link import LinkOptions, Sighting, link

_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
"""Of a file's name."""


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """What is linked, and how."""

    of: str = "own"
    """own: what this program made and nobody has changed; auto: all that models made; all: everything."""
    labels: tuple[str, ...] = ()
    """Task labels; none means all."""
    link: LinkOptions = field(default_factory=LinkOptions)
    thin: ThinOptions = field(default_factory=ThinOptions)
    keep_shapes: bool = False
    """Leave the rectangles where they are; else a backup is kept, and they go when the tracks are there."""
    quality: str = "compressed"


@dataclass(slots=True)
class Linked:
    """What of a task becomes what."""

    work: TaskWork
    tracks: dict[int, list[dict[str, Any]]]
    """By job."""
    gone: dict[int, list[int]]
    """By job, the ids of the shapes that are in a track now."""
    stored: dict[int, Mapping[str, Any]]
    """By job, all that it held."""
    by_label: dict[str, tuple[int, int]]
    """(tracks, rectangles in them)."""
    left: int = 0
    """Shapes that are no rectangles."""
    rectangles: int = 0
    """How many there were to be linked."""
    frames: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By job, where those are that are in a track now."""
    groups: dict[int, JobGroups] = field(default_factory=dict)
    """By job."""

    def add(self, track: Sequence[Sighting], keyframes: Sequence[Keyframe], label: TaskLabel) -> None:
        """Adds a track to the jobs that show it, and says which shapes it was made of."""
        made_of: dict[int, list[int]] = defaultdict(list)
        for sighting in track:
            for job_id, shape_id in sighting.item.places:
                made_of[job_id].append(shape_id)
                self.frames[job_id].add(sighting.frame)
        for job in self.work.jobs:
            group = self.groups[job.id].track_of(made_of[job.id])
            if (part := encode_track(keyframes, label, job.start, job.stop, group=group)) is not None:
                self.tracks[job.id].append(part)
            self.gone[job.id] += made_of[job.id]


def link_task(
    session: Session,
    ledger: Ledger,
    work: TaskWork,
    options: TrackOptions,
    around: Surroundings,
    reidentifier: ReadyModel | None,
) -> Linked:
    names = {label.name: label for label in work.labels}
    if unknown := [name for name in options.labels if name not in names]:
        raise BadRequest(f"task {work.task_id}: it has no label {unknown[0]!r}, allowed: {', '.join(names)}")
    stored: dict[int, Mapping[str, Any]] = {job.id: get_annotations(session, job.id) for job in work.jobs}
    chosen = [(job.id, _chosen(stored[job.id], job, session, ledger, options.of)) for job in work.jobs]
    gathered = gather(chosen, [names[name].id for name in options.labels] or None)
    sightings = gathered.sightings
    if reidentifier is not None:
        sightings = _described(session, work, sightings, options, around, reidentifier)
    by_label: dict[int, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        by_label[sighting.item.label].append(sighting)
    linked = Linked(work, defaultdict(list), defaultdict(list), stored, {}, gathered.left, len(sightings))
    linked.groups = {job: JobGroups(held) for job, held in stored.items()}
    for label in work.labels:
        tracks = link(by_label[label.id], options.link)
        if not tracks:
            continue
        linked.by_label[label.name] = (len(tracks), sum(map(len, tracks)))
        told = partial(said, mutable=mutable_ids(label))
        for track in tracks:
            linked.add(track, _clipped(thin(track, options.thin, told), work), label)
    return linked


def _clipped(keyframes: list[Keyframe], work: TaskWork) -> list[Keyframe]:
    """Without the word that it is gone, where there is no frame left to say it on."""
    last = max(job.stop for job in work.jobs)
    return [keyframe for keyframe in keyframes if keyframe.frame <= last or not keyframe.outside]


def _chosen(
    stored: Mapping[str, Any], job: JobWork, session: Session, ledger: Ledger, of: str
) -> Sequence[Mapping[str, Any]]:
    """The shapes of a job that may become tracks."""
    shapes: Sequence[Mapping[str, Any]] = stored.get("shapes", ())
    if of == "own":
        made = ledger.made(job=job.id, server=session.url)
        shapes = untouched(made, stored, ledger.known_ids(job.id, session.url))[0]["shapes"]
    elif of == "auto":
        shapes = [shape for shape in shapes if shape.get("source") == "auto"]
    return shapes


def is_sequence(job: JobWork) -> bool:
    """Whether the job shows a video, or pictures whose names count up in equal steps."""
    if len(job.names) < 2:
        return True
    places = [_LAST_NUMBER.fullmatch(PurePath(name).with_suffix("").as_posix()) for name in job.names]
    if not all(places):
        return False
    words = {(place[1], place[3]) for place in places if place}
    steps = {int(after[2]) - int(before[2]) for before, after in pairwise(place for place in places if place)}
    return len(words) == len(steps) == 1 and min(steps) > 0


def _described(
    session: Session,
    work: TaskWork,
    sightings: Sequence[Sighting],
    options: TrackOptions,
    around: Surroundings,
    model: ReadyModel,
) -> list[Sighting]:
    """The sightings with what the reidentifier says of their looks; a frame that cannot be read has none."""
    if model.loaded.kind != "reid":
        raise wrong_kind(str(model.loaded.reference), model.loaded.kind, "reid")
    by_frame: dict[int, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        by_frame[sighting.frame].append(sighting)
    places = [(job, frame) for job in work.jobs for frame in job.frames if frame in by_frame]
    found: list[Sighting] = []
    with ChunkFrames(session, quality=options.quality, wanted=around.the_lease().wanted) as source:
        for done, ((_, number), frame) in enumerate(zip(places, source.read(places), strict=True), 1):
            if around.stop.is_set():
                raise RequestCancelled("interrupted while rectangles were looked at")
            own = by_frame.pop(number)
            if isinstance(frame, Frame):
                boxes = [Rectangle(*sighting.box) for sighting in own]
                look = partial(describe, model.loaded.model, frame, boxes, str(model.loaded.reference))
                looks = model.host.call(look).result()
                own = [replace(sighting, descriptor=one) for sighting, one in zip(own, looks, strict=True)]
            found += own
            around.progress(done, len(places))
    return found + [sighting for rest in by_frame.values() for sighting in rest]

"""Shapes and tracks of a task's jobs, looked at on their frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.compose.parts import Part, Parts
from agent.compose.steps import Step, open_step
from agent.compose.wish import rectangle_of
from agent.contract import Context, Detection, Frame
from agent.cvat.frames import ChunkFrames
from agent.cvat.session import Session
from agent.cvat.work import TaskWork
from agent.enrich.identities import identities
from agent.enrich.places import ON_FRAMES, EnrichOptions, JobPlaces, Place, tracks_in
from agent.enrich.shapes import ShapeBook, check_attribute, check_room, check_values, model_label
from agent.errors import RequestCancelled
from agent.existing import occupied_frames
from agent.models.loading import wrong_kind
from agent.predict import describe
from agent.report import RunReport
from agent.runs.surroundings import Surroundings

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 8
"""Frames that are looked at together."""


Looked = tuple[JobPlaces, Place, Detection, Detection, tuple[int, int]]
"""A place in a job before and after the look (the same where nothing was found), and its frame's size."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What of a task is looked at, and the loaded model that is to do it."""

    work: TaskWork
    jobs: Sequence[JobPlaces]
    book: ShapeBook
    by: Step | Part
    """A step of a chain, or the reidentifier."""

    @property
    def part(self) -> Part:
        """The model, whatever it does."""
        return self.by if isinstance(self.by, Part) else self.by.part


def prepare(
    part: TaskWork, jobs: Sequence[JobPlaces], options: EnrichOptions, parts: Parts, params: Mapping[str, Any]
) -> Ready:
    """Opens the model for a task. SidecarError where the model, or the task's labels, cannot be used for that."""
    labels, place = [model_label(label) for label in part.labels], f"task {part.task_id}"
    used = {one.shape["label_id"] for job in jobs for found in job.places.values() for one in found}
    looked_at = [label for label in part.labels if label.id in used]
    if options.gives == "identity":
        check_attribute(part.labels, options.labels, options.attribute, place)
        reidentifier = parts.open({"model": options.model, "options": params}, "model")
        if reidentifier.loaded.kind != "reid":
            raise wrong_kind(options.model, reidentifier.loaded.kind, "reid")
        check_values(looked_at, options.attribute, ("1", "2", "3"), place)
        return Ready(part, jobs, ShapeBook(part.labels, labels, replaces=False), reidentifier)
    replaces = options.gives in ON_FRAMES
    if replaces and not options.into:
        check_room(looked_at, options.gives, place)
    wish: dict[str, Any] = {"model": options.model, "gives": options.gives, "margin": options.margin, "options": params}
    wish |= {"labels": list(options.labels)} if options.labels else {}
    wish |= {"attribute": options.attribute} if options.attribute else {}
    step = open_step(parts, wish, f"--gives {options.gives}", labels, scored=True)
    if options.fills:
        check_attribute(part.labels, options.labels, options.fills, place)
    if options.gives == "attribute":
        check_values(looked_at, options.attribute, [label.name for label in step.part.labels], place)
    after = step.labels_after(labels)
    if options.into:
        names = {label.name for label in looked_at}
        after = [replace(label, name=options.into) for label in after if label.name in names][:1]
    return Ready(part, jobs, ShapeBook(part.labels, after, replaces=replaces, into=options.into), step)


def look(
    session: Session, ready: Ready, options: EnrichOptions, around: Surroundings, report: RunReport
) -> list[Looked]:
    """What the model makes of each shape of a task, and of each track on each of the frames that it is looked at on."""
    if isinstance(ready.by, Part):
        return _identified(session, ready.book, ready.jobs, options, ready.by, around, report)
    return list(_stepped(session, ready.book, ready.jobs, ready.by, options, around, report))


def _stepped(
    session: Session, book: ShapeBook, jobs: Sequence[JobPlaces], step: Step, options: EnrichOptions,
    around: Surroundings, report: RunReport,
) -> Iterator[Looked]:  # fmt: skip
    for batch in _batches(_frames(session, jobs, options, around, report), AT_ONCE):
        before = [_detections(book, job, frame.index) for job, frame in batch]
        after = step.look([frame for _, frame in batch], [[one for _, one in known] for known in before], Context())
        for (job, frame), known, found in zip(batch, before, after, strict=True):
            # What a step adds comes after what it was given; here only that is asked for. What it says nothing of is
            # the very detection that it was given.
            for (place, one), other in zip(known, found[: len(known)], strict=True):
                yield job, place, one, other, (frame.width, frame.height)


def _identified(
    session: Session, book: ShapeBook, jobs: Sequence[JobPlaces], options: EnrichOptions, part: Part,
    around: Surroundings, report: RunReport,
) -> list[Looked]:  # fmt: skip
    seen: list[tuple[JobPlaces, Place, Detection, tuple[int, int]]] = []
    looks: dict[_Key, list[NDArray[np.float32]]] = defaultdict(list)
    frames: dict[_Key, list[tuple[int, ...]]] = {}
    for job, frame in _frames(session, jobs, options, around, report):
        known = _detections(book, job, frame.index)
        boxes = [rectangle_of(found, frame, options.margin) for _, found in known]
        if boxes:
            described = part.call(partial(describe, frame=frame, rectangles=boxes, name=part.name))
            for (place, found), look in zip(known, described, strict=True):
                key = _key(job, place)
                looks[key].append(look)
                if key not in frames:
                    frames[key] = _frames_of(job, place)
                seen.append((job, place, found, (frame.width, frame.height)))
    means = np.array([_mean(own) for own in looks.values()], np.float32)
    numbers = identities(means, list(frames.values()), options.max_distance)
    number_of = dict(zip(looks, numbers, strict=True))
    tracks = [number for number, kind, _ in looks if kind == "tracks"]
    and_tracks = f" and {tracks_in(tracks)}" if tracks else ""
    report.notes.append(f"identities  {len(set(numbers))} in {len(numbers) - len(tracks)} shapes{and_tracks}")
    return [
        (job, place, found, replace(found, attributes={options.attribute: str(number_of[_key(job, place)])}), size)
        for job, place, found, size in seen
    ]


_Key = tuple[int, str, int]
"""Job, kind and id."""


def _key(job: JobPlaces, place: Place) -> _Key:
    if place.track is None:
        return job.work.id, "shapes", place.shape["id"]
    return job.work.id, "tracks", place.track["id"]


def _frames_of(job: JobPlaces, place: Place) -> list[tuple[int, ...]]:
    """Where a thing is: nobody is twice on a frame. But two jobs that share one may hold the same thing, and so may
    shapes and the tracks that were made of them."""
    if place.track is None:
        return [(job.work.id, 0, place.shape["frame"])]
    return [(job.work.id, 1, frame) for frame in occupied_frames({"tracks": [place.track]}, job.work.stop)]


def _mean(looks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Of unit length, as each of them."""
    mean = np.mean(looks, axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)


def _frames(
    session: Session, jobs: Sequence[JobPlaces], options: EnrichOptions, around: Surroundings, report: RunReport
) -> Iterator[tuple[JobPlaces, Frame]]:
    """The frames that have something to look at, job by job; those that cannot be read are reported."""
    places = [(job, frame) for job in jobs for frame in sorted(job.places)]
    with ChunkFrames(session, quality=options.quality, wanted=around.the_lease().wanted) as source:
        for (job, number), frame in zip(places, source.read([(j.work, n) for j, n in places]), strict=True):
            if around.stop.is_set():
                raise RequestCancelled(f"interrupted after {report.done} of {report.total} frames")
            if isinstance(frame, Frame):
                yield job, frame
                report.count(())
            else:
                report.skip(job.work.task_id, job.work.id, number, frame.reason)
            around.progress(report.done, report.total)


def _detections(book: ShapeBook, job: JobPlaces, frame: int) -> list[tuple[Place, Detection]]:
    found = ((place, book.detection(place.shape)) for place in job.places.get(frame, ()))
    return [(place, detection) for place, detection in found if detection is not None]


def _batches(items: Iterator[tuple[JobPlaces, Frame]], size: int) -> Iterator[list[tuple[JobPlaces, Frame]]]:
    batch: list[tuple[JobPlaces, Frame]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

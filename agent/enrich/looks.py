"""Shapes of a task's jobs, looked at on their frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from agent.compose.parts import Part, Parts
from agent.compose.steps import Step, open_step
from agent.compose.wish import rectangle_of
from agent.contract import Context, Detection, Frame
from agent.cvat.annotations_api import get_annotations
from agent.cvat.frames import ChunkFrames
from agent.cvat.session import Session
from agent.cvat.uploads import untouched
from agent.cvat.work import JobWork, TaskWork
from agent.enrich.identities import identities
from agent.enrich.shapes import ShapeBook, check_attribute, check_room, check_values, model_label
from agent.errors import BadRequest, RequestCancelled
from agent.labels.names import meant
from agent.ledger.ledger import Ledger
from agent.models.loading import wrong_kind
from agent.predict import describe
from agent.report import RunReport
from agent.runs.surroundings import Surroundings

AT_ONCE = 8
"""Frames that are looked at together."""


@dataclass(frozen=True, slots=True)
class EnrichOptions:
    """Which shapes are looked at, and what for."""

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


@dataclass(slots=True)
class JobShapes:
    """A job, what it held, and the shapes to look at by frame."""

    work: JobWork
    stored: Mapping[str, Any]
    shapes: dict[int, list[Mapping[str, Any]]]


Looked = tuple[JobShapes, Mapping[str, Any], Detection, Detection, tuple[int, int]]
"""A shape of a job before and after the look, and its frame's size."""


def read_job(session: Session, ledger: Ledger, part: TaskWork, job: JobWork, options: EnrichOptions) -> JobShapes:
    names = {label.name: label.id for label in part.labels}
    if unknown := [name for name in options.labels if name not in names]:
        near = meant(unknown[0], list(names))
        raise BadRequest(f"task {part.task_id}: it has no label {unknown[0]!r}{near}")
    stored = get_annotations(session, job.id)
    shapes: Sequence[Mapping[str, Any]] = stored["shapes"]
    if options.of == "own":
        made = ledger.made(job=job.id, server=session.url)
        shapes = untouched(made, stored, ledger.known_ids(job.id, session.url))[0]["shapes"]
    elif options.of == "auto":
        shapes = [shape for shape in shapes if shape.get("source") == "auto"]
    wanted = {names[name] for name in options.labels} or set(names.values())
    found = JobShapes(job, stored, {})
    for shape in shapes:
        if shape["label_id"] in wanted and job.start <= shape["frame"] <= job.stop:
            found.shapes.setdefault(shape["frame"], []).append(shape)
    return found


@dataclass(frozen=True, slots=True)
class Ready:
    """The shapes of a task, and the loaded model that is to look at them."""

    work: TaskWork
    jobs: Sequence[JobShapes]
    book: ShapeBook
    by: Step | Part
    """A step of a chain, or the reidentifier."""


def prepare(
    part: TaskWork, jobs: Sequence[JobShapes], options: EnrichOptions, parts: Parts, params: Mapping[str, Any]
) -> Ready:
    """Opens the model for a task. SidecarError where the model, or the task's labels, cannot be used for that."""
    labels, place = [model_label(label) for label in part.labels], f"task {part.task_id}"
    used = {shape["label_id"] for job in jobs for shapes in job.shapes.values() for shape in shapes}
    looked_at = [label for label in part.labels if label.id in used]
    if options.gives == "identity":
        check_attribute(part.labels, options.labels, options.attribute, place)
        reidentifier = parts.open({"model": options.model, "options": params}, "model")
        if reidentifier.loaded.kind != "reid":
            raise wrong_kind(options.model, reidentifier.loaded.kind, "reid")
        check_values(looked_at, options.attribute, ("1", "2", "3"), place)
        return Ready(part, jobs, ShapeBook(part.labels, labels, replaces=False), reidentifier)
    replaces = options.gives in ("mask", "skeleton")
    if replaces and not options.into:
        check_room(looked_at, options.gives, place)
    wish: dict[str, Any] = {"model": options.model, "gives": options.gives, "margin": options.margin, "options": params}
    wish |= {"labels": list(options.labels)} if options.labels else {}
    wish |= {"attribute": options.attribute} if options.attribute else {}
    step = open_step(parts, wish, f"--gives {options.gives}", labels)
    if options.gives in ("attribute", "text"):
        check_attribute(part.labels, options.labels, options.attribute or "text", place)
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
    """What the model makes of each shape of a task."""
    if isinstance(ready.by, Part):
        return _identified(session, ready.book, ready.jobs, options, ready.by, around, report)
    return list(_stepped(session, ready.book, ready.jobs, ready.by, options, around, report))


def _stepped(
    session: Session, book: ShapeBook, jobs: Sequence[JobShapes], step: Step, options: EnrichOptions,
    around: Surroundings, report: RunReport,
) -> Iterator[Looked]:  # fmt: skip
    for batch in _batches(_frames(session, jobs, options, around, report), AT_ONCE):
        before = [[found for _, found in _detections(book, job, frame.index)] for job, frame in batch]
        after = step.look([frame for _, frame in batch], before, Context())
        for (job, frame), found in zip(batch, after, strict=True):
            known = _detections(book, job, frame.index)
            # What a step adds comes after what it was given; here only that is asked for.
            for (shape, one), other in zip(known, found[: len(known)], strict=True):
                unchanged = one.shape == other.shape and one.label == other.label and one.attributes == other.attributes
                yield job, shape, one, one if unchanged else other, (frame.width, frame.height)


def _identified(
    session: Session, book: ShapeBook, jobs: Sequence[JobShapes], options: EnrichOptions, part: Part,
    around: Surroundings, report: RunReport,
) -> list[Looked]:  # fmt: skip
    seen: list[tuple[JobShapes, Mapping[str, Any], Detection, tuple[int, int]]] = []
    looks: list[Any] = []
    for job, frame in _frames(session, jobs, options, around, report):
        known = _detections(book, job, frame.index)
        boxes = [rectangle_of(found, frame, options.margin) for _, found in known]
        if boxes:
            looks += list(part.call(partial(describe, frame=frame, rectangles=boxes, name=part.name)))
            seen += [(job, shape, found, (frame.width, frame.height)) for shape, found in known]
    numbers = identities(
        np.array(looks, np.float32), [_place(job, shape) for job, shape, _, _ in seen], options.max_distance
    )
    report.notes.append(f"identities  {len(set(numbers))} in {len(numbers)} shapes")
    return [
        (job, shape, found, replace(found, attributes={options.attribute: str(number)}), size)
        for (job, shape, found, size), number in zip(seen, numbers, strict=True)
    ]


def _place(job: JobShapes, shape: Mapping[str, Any]) -> int:
    """Names a frame of a job: nobody is twice on one, but two jobs that share a frame may hold the same one."""
    return int(job.work.id) * 10**8 + int(shape["frame"])


def _frames(
    session: Session, jobs: Sequence[JobShapes], options: EnrichOptions, around: Surroundings, report: RunReport
) -> Iterator[tuple[JobShapes, Frame]]:
    """The frames that have shapes to look at, job by job; those that cannot be read are reported."""
    places = [(job, frame) for job in jobs for frame in sorted(job.shapes)]
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


def _detections(book: ShapeBook, job: JobShapes, frame: int) -> list[tuple[Mapping[str, Any], Detection]]:
    found = ((shape, book.detection(shape)) for shape in job.shapes.get(frame, ()))
    return [(shape, detection) for shape, detection in found if detection is not None]


def _batches(items: Iterator[tuple[JobShapes, Frame]], size: int) -> Iterator[list[tuple[JobShapes, Frame]]]:
    batch: list[tuple[JobShapes, Frame]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

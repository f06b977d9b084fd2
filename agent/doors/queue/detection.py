"""What a detector is asked: all frames of a task, or one of them. Both go through the one flow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.annotate import annotate
from agent.annotations import FrameAnnotations
from agent.contract import Context, Frame
from agent.cvat.chunks import BadFrame
from agent.cvat.frames import ChunkFrames
from agent.cvat.session import Session
from agent.cvat.single_frames import FrameCache, KeptFrame
from agent.cvat.task_cache import KnownTask, TaskCache, unseen
from agent.cvat.work import JobWork, TaskWork, find_work
from agent.domain import Roi
from agent.doors.queue.parameters import AnnotateFrame, AnnotateTask, Region, Wishes
from agent.doors.queue.result import ResultSink
from agent.errors import BadPrediction, BadRequest, ServerRefused
from agent.lease import HeldLease
from agent.models.host import Host, Prediction
from agent.models.line import INTERACTIVE
from agent.options import Target
from agent.plan import Plan, request_plan
from agent.pool.pool import HostedModel
from agent.report import RunReport

log = logging.getLogger(__name__)

Lend = Callable[[], AbstractContextManager[HostedModel]]
"""The model, loaded; it stays while the block runs."""

_OUTSIDE = "the region lies outside the picture"


def annotate_task(
    wanted: AnnotateTask,
    lend: Lend,
    session: Session,
    tasks: TaskCache,
    lease: HeldLease,
    sink: ResultSink,
    max_bad_frames: int,
) -> RunReport:
    """Annotates all frames of a task's annotation jobs; what comes of it is in the sink."""
    work = lease.fetched(lambda: _work(session, wanted.task))
    tasks.learn(work)
    places = [(job, frame) for job in work.jobs for frame in job.frames]
    lease.check()
    with lend() as hosted, ChunkFrames(session, wanted=lease.wanted) as source:
        plan = _plan(work, places, hosted, wanted.wishes, max_bad_frames)
        report = RunReport(total=len(places))
        for note in work.notes:
            log.warning("%s", note)
        log.info("task %d: %d frames, %d labels match", work.task_id, len(places), len(plan.match.targets))
        lease.check_in(0, len(places))
        frames = _watched(source.read(places), wanted.wishes.region, lease)
        annotate(plan, frames, hosted.host, sink, lease, report)
    if places and len(report.skipped) == len(places):
        last = list(report.skipped.values())[-1]
        asked = all(_OUTSIDE in reason for reason in report.skipped.values())
        raise (BadRequest if asked else BadPrediction)(
            f"none of the {len(places)} frames could be annotated; the last one: {last}"
        )
    return report


def annotate_frame(
    wanted: AnnotateFrame, lend: Lend, tasks: TaskCache, frames: FrameCache, lease: HeldLease
) -> Mapping[str, Any]:
    """The annotations of one frame."""
    with lend() as hosted:

        def prepare(task: KnownTask) -> tuple[Plan, KeptFrame]:
            job = task.job_of(wanted.frame)
            work = TaskWork(task.id, f"task {task.id}", task.labels, (job,))
            # The plan first: a hopeless request needs no picture.
            plan = _plan(work, [(job, wanted.frame)], hosted, wanted.wishes, 0)
            return plan, frames.get(job, wanted.frame)

        plan, kept = lease.fetched(lambda: tasks.use(wanted.task, prepare))
        frame = cropped(kept.frame, wanted.wishes.region)
        if isinstance(frame, BadFrame):
            raise BadRequest(f"frame {wanted.frame}: {frame.reason}")
        sink = _OneFrame()
        annotate(plan, [frame], _Urgent(hosted.host, lease), sink, lease, RunReport(total=1))
        return {"tags": sink.found.tags, "shapes": sink.found.shapes}


def cropped(frame: Frame, region: Region | None) -> Frame | BadFrame:
    """What a region leaves of a frame. Answers stay in its coordinates: the server moves them."""
    if region is None:
        return frame
    roi = Roi(int(region.left), int(region.top), int(np.ceil(region.right)), int(np.ceil(region.bottom)))
    part = frame.image[roi.top : roi.bottom, roi.left : roi.right]
    if not part.size:
        size = f"{frame.width}x{frame.height}"
        return BadFrame(frame.index, frame.name, f"{_OUTSIDE} of {size}")
    return Frame(frame.index, frame.name, np.ascontiguousarray(part))


def _work(session: Session, task: int) -> TaskWork:
    try:
        (work,) = find_work(session, Target("task", task))
    except ServerRefused as error:
        if error.status in (403, 404):
            raise BadRequest(unseen(task)) from error
        raise
    return work


def _plan(
    work: TaskWork, places: Sequence[tuple[JobWork, int]], hosted: HostedModel, wishes: Wishes, max_bad_frames: int
) -> Plan:
    settings = hosted.settings
    return request_plan(
        work,
        places,
        hosted.loaded,
        mapping=wishes.mapping,
        threshold=wishes.threshold,
        default_threshold=settings.threshold,
        label_map=str(settings.label_map) if settings.label_map is not None else None,
        masks_as_polygons=wishes.masks_as_polygons,
        max_bad_frames=max_bad_frames,
    )


def _watched(frames: Iterable[Frame | BadFrame], region: Region | None, lease: HeldLease) -> Iterator[Frame | BadFrame]:
    """Frames as long as somebody wants them."""
    for frame in frames:
        lease.check()
        yield frame if isinstance(frame, BadFrame) else cropped(frame, region)


@dataclass(slots=True)
class _Urgent:
    """A host that a person waits for: before the batches of long requests, and only as long as she does."""

    host: Host
    lease: HeldLease
    batch_size: int = 1

    def stream(
        self, batches: Iterable[list[Frame]], context: Context, *, wanted: Callable[[], bool]
    ) -> Iterator[tuple[list[Frame], list[Prediction]]]:
        for batch in batches:
            yield batch, self.lease.result(self.host.submit(batch, context, INTERACTIVE, wanted))


class _OneFrame:
    """Takes the annotations of one frame."""

    busy_seconds = 0.0
    removed = 0

    def __init__(self) -> None:
        self.found = FrameAnnotations()

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None:
        self.found = annotations

    def skip(self, job: int, frame: int, reason: str) -> None: ...

    def close(self) -> None: ...

    def abandon(self, patience: float | None = None) -> None: ...

"""What is to be annotated: tasks, their jobs, the frames of each, and the labels.

Job endpoints first: somebody who is only the assignee of a job gets 403 on every task endpoint, and needs none here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.cvat.at_once import at_once
from agent.cvat.session import Session
from agent.domain import TaskAttribute, TaskLabel
from agent.errors import BadRequest, ServerRefused
from agent.options import Target

log = logging.getLogger(__name__)

PAGE_SIZE = 500


@dataclass(frozen=True, slots=True, eq=False)
class JobWork:
    """A job and the frames that are to be annotated in it. All frame numbers are task-relative."""

    id: int
    task_id: int
    type: str
    start: int
    stop: int
    """The job's last frame, inclusive."""
    frames: tuple[int, ...]
    """Frames that exist, are not deleted, and belong to this job rather than to an overlapping earlier one."""
    positions: tuple[int, ...]
    """All frame numbers of the job in the order in which its chunks hold them."""
    chunk_size: int
    names: tuple[str, ...]
    """By position; a video has one name for all its frames."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height as annotations are drawn, like `names`; (0, 0) where the server does not know."""
    state: str
    stage: str

    def name_of(self, frame: int) -> str:
        """The file name of a frame; for a video, with its number."""
        if len(self.names) == 1 < len(self.positions) or not self.names:
            return f"{self.names[0] if self.names else 'frame'}#{frame}"
        return self.names[self._entry(frame)]

    def size_of(self, frame: int) -> tuple[int, int] | None:
        """Width and height of a frame in the coordinates of its annotations, None where the server does not know."""
        size = self.sizes[self._entry(frame)] if self.sizes else (0, 0)
        return size if min(size) > 0 else None

    def _entry(self, frame: int) -> int:
        """Where a frame stands in the server's list; one of a few frames can list placeholders for the others too."""
        if len(self.names) == 1:
            return 0
        if len(self.names) == len(self.positions):
            return self.positions.index(frame) if self.included else frame - self.start
        return frame - self.start

    @property
    def included(self) -> bool:
        """Whether the job holds some frames only, as ground truth jobs do."""
        return len(self.positions) != self.stop - self.start + 1


@dataclass(frozen=True, slots=True, eq=False)
class TaskWork:
    """A task, its labels, and those of its jobs that are to be annotated, in frame order."""

    task_id: int
    name: str
    labels: tuple[TaskLabel, ...]
    jobs: tuple[JobWork, ...]
    seen: bool = True
    """Whether we may see the task itself; where not, it may have jobs that we do not see."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever asked for the task should know."""
        jobs = ", ".join(f"job {job.id}" for job in self.jobs)
        text = f"task {self.task_id}: this user may not see all of it; annotated is only what is assigned to it: {jobs}"
        return () if self.seen else (text,)


class NothingThere(BadRequest):
    """There is nothing to annotate. Why can name our account and options, which is nothing for people in CVAT."""

    def __init__(self, message: str, public: str) -> None:
        super().__init__(message)
        self._public = public

    @property
    def public(self) -> str:
        return self._public


def find_work(
    session: Session, target: Target, *, ground_truth: bool = False, honeypots: bool = False
) -> list[TaskWork]:
    """The tasks behind a task, job or project, by task id. BadRequest where there is nothing to annotate.

    Of a task or project, a frame that two jobs share belongs to the first of them; of a single job, all frames do.
    """
    if target.kind == "job":
        rows = [session.request("GET", f"/api/jobs/{target.id}").json()]
    else:
        listed = list(pages(session, "/api/jobs", {f"{target.kind}_id": target.id}))
        rows = [row for row in listed if _wanted(row, ground_truth)]
        if not rows:
            raise _nothing(session, target, listed)
    rows = _with_pictures(rows, target)
    by_task: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["task_id"], row["start_frame"], row["id"])):
        by_task.setdefault(row["task_id"], []).append(row)
    works = []
    for task_id, found in by_task.items():
        # Of a single job only job endpoints are used: its assignee may have no others.
        seen, pool = (True, True) if target.kind == "job" else _look_at_task(session, task_id)
        works.append(replace(_task_work(session, task_id, found, honeypots or not pool), seen=seen))
    return works


def _wanted(row: Mapping[str, Any], ground_truth: bool) -> bool:
    # Replicas of a consensus job are made to be annotated independently of each other; a model has nothing to add.
    return row["type"] == "annotation" or (ground_truth and row["type"] == "ground_truth")


def _nothing(session: Session, target: Target, listed: Sequence[Any]) -> BadRequest:
    """Why there are no jobs to annotate among those listed; asks the server whether the thing exists at all."""
    where, place = "", session.settings.organization
    if place is not None:
        name = f"the organization {place!r}" if place else "the personal workspace"
        where = f", in {name}; is that the right one? (--organization, or [cvat] organization)"
    try:
        found = session.request("GET", f"/api/{target.kind}s/{target.id}").json()
    except ServerRefused as error:
        if error.status == 403:
            hidden = f"{target}: it does not exist, or the user of this agent may not see it"
            return NothingThere(f"{target}: {session.user} has no job in it{where}", hidden)
        if target.kind == "task" and error.status == 404 and (job := _job_of_that_number(session, target.id)):
            raise ServerRefused(
                f"{error}; did you mean --job {target.id}, of task {job['task_id']}?", status=404
            ) from None
        raise
    if target.kind == "task" and not found.get("size"):
        return BadRequest(f"{target}: it has no data yet")
    if not listed and where:
        return NothingThere(f"{target}: it has no jobs{where}", f"{target}: the user of this agent sees no jobs of it")
    text = f"{target}: it has no annotation jobs"
    return NothingThere(f"{text} (ground truth jobs count if --ground-truth is given)", text)


def _job_of_that_number(session: Session, number: int) -> dict[str, Any] | None:
    """CVAT's pages show the numbers of a task and of its jobs side by side: one is easily taken for the other."""
    try:
        found: dict[str, Any] = session.request("GET", f"/api/jobs/{number}").json()
    except ServerRefused:
        return None
    return found


def _with_pictures(rows: list[dict[str, Any]], target: Target) -> list[dict[str, Any]]:
    """The jobs that have something to look at. Other tasks of a project do not keep those from being annotated."""
    other = {row["task_id"]: kind for row in rows if (kind := media(row)) not in ("image", "video")}
    if target.kind != "project" or len(other) == len({row["task_id"] for row in rows}):
        for task, kind in other.items():
            what = "it" if target.kind == "task" else f"task {task}"
            raise BadRequest(f"{target}: {what} holds {kind} data, allowed: pictures and video")
    for task, kind in other.items():
        log.warning("%s: task %d is left out, it holds %s data", target, task, kind)
    return [row for row in rows if row["task_id"] not in other]


def media(row: Mapping[str, Any]) -> str:
    """What a job shows: image, video, or something that has no pictures."""
    # Servers before audio tasks came do not tell the media type.
    return "3D" if row.get("dimension") == "3d" else row.get("media_type") or "image"


def _task_work(session: Session, task_id: int, rows: list[dict[str, Any]], honeypots: bool) -> TaskWork:
    found = at_once(lambda row: job_work(session, row, not honeypots), rows)
    jobs, taken = [], set[int]()
    for job in found:
        frames = tuple(frame for frame in job.frames if frame not in taken)
        if job.type == "annotation":
            taken.update(frames)
            job = replace(job, frames=frames)
        jobs.append(job)
    name = rows[0].get("task_name") or f"task {task_id}"
    return TaskWork(task_id, name, task_labels(session, rows[0]["id"]), tuple(jobs))


def task_labels(session: Session, job: int) -> tuple[TaskLabel, ...]:
    """The labels of a job's task."""
    return tuple(_label(label) for label in pages(session, "/api/labels", {"job_id": job, "sort": "id"}))


def job_work(session: Session, row: Mapping[str, Any], leave_honeypots_out: bool) -> JobWork:
    """A job of the server's list, with its frames."""
    number = row["id"]
    meta = session.request("GET", f"/api/jobs/{number}/data/meta").json()
    start, stop = row["start_frame"], row["stop_frame"]
    if start is None or stop is None or not meta.get("chunk_size"):
        raise BadRequest(f"job {number}: its task has no data yet")
    included = meta.get("included_frames")
    positions = tuple(range(start, stop + 1)) if included is None else _included(included, start, meta)
    left_out = set(meta.get("deleted_frames") or ())
    if leave_honeypots_out and row["type"] == "annotation":
        left_out |= _honeypots(session, number)
    return JobWork(
        id=number,
        task_id=row["task_id"],
        type=row["type"],
        start=start,
        stop=stop,
        frames=tuple(frame for frame in positions if frame not in left_out),
        positions=positions,
        chunk_size=meta["chunk_size"],
        names=tuple(frame["name"] for frame in meta["frames"]),
        sizes=tuple((frame.get("width") or 0, frame.get("height") or 0) for frame in meta["frames"]),
        state=row["state"],
        stage=row["stage"],
    )


def _included(included: list[int], start: int, meta: Mapping[str, Any]) -> tuple[int, ...]:
    """The frames of a job that holds some only; the server numbers them as in the source, before start and step."""
    step = int(str(meta.get("frame_filter") or "step=1").partition("=")[2] or 1)
    return tuple(start + (number - meta["start_frame"]) // step for number in sorted(included))


def _look_at_task(session: Session, task_id: int) -> tuple[bool, bool]:
    """Whether we may see it, and whether it may have honeypots: only tasks with a pool of ground truth do."""
    try:
        return True, session.request("GET", f"/api/tasks/{task_id}").json().get("validation_mode") == "gt_pool"
    except ServerRefused:
        return False, True


def _honeypots(session: Session, job: int) -> set[int]:
    """Frames of known truth mixed into a job to check its annotator, where this user may know of them."""
    try:
        layout = session.request("GET", f"/api/jobs/{job}/validation_layout").json()
    except ServerRefused:
        return set()
    return set(layout.get("honeypot_frames") or ())


def pages(session: Session, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a list of the API holds, page by page."""
    page = 1
    while True:
        found = session.request("GET", path, query={**query, "page": page, "page_size": PAGE_SIZE}).json()
        yield from found["results"]
        if not found.get("next"):
            return
        page += 1


def _label(row: Mapping[str, Any]) -> TaskLabel:
    attributes = tuple(
        TaskAttribute(a["id"], a["name"], a["input_type"], tuple(a["values"]), bool(a["mutable"]))
        for a in row.get("attributes") or ()
    )
    sublabels = tuple(_label(sub) for sub in row.get("sublabels") or ())
    return TaskLabel(row["id"], row["name"], row.get("type") or "any", attributes, sublabels)

"""What interactive requests need to know of a task, kept for a short time: its labels, and which job holds a frame."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.cvat.session import Session
from agent.cvat.work import JobWork, TaskWork, job_work, media, pages, task_labels
from agent.domain import TaskLabel
from agent.errors import BadRequest, LabelMismatch, ServerRefused

T = TypeVar("T")

KEEP_SECONDS = 60.0
TASKS = 200
"""How many tasks are remembered."""


@dataclass(slots=True)
class KnownTask:
    """A task as it was when it was looked at. What nobody asks for is not fetched."""

    id: int
    session: Session
    looked: float
    _rows: list[dict[str, Any]] | None = None
    _jobs: dict[int, JobWork] = field(default_factory=dict)
    _labels: tuple[TaskLabel, ...] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def labels(self) -> tuple[TaskLabel, ...]:
        with self._lock:
            if self._labels is None:
                self._labels = task_labels(self.session, self._list()[0]["id"])
            return self._labels

    def job_of(self, frame: int) -> JobWork:
        """The job that holds a frame. BadRequest where none does, or where it was deleted."""
        with self._lock:
            for job in self._jobs.values():
                if frame in job.frames:
                    return job
            rows = [row for row in self._list() if row["start_frame"] <= frame <= row["stop_frame"]]
            for row in rows:
                if row["id"] not in self._jobs:
                    self._jobs[row["id"]] = job_work(self.session, row, False)
                if frame in self._jobs[row["id"]].frames:
                    return self._jobs[row["id"]]
        why = "it was deleted" if rows else "the task has no such frame"
        raise BadRequest(f"task {self.id}: frame {frame}: {why}")

    def _list(self) -> list[dict[str, Any]]:
        """The jobs that the server tells of; annotation jobs come before those that hold copies of their frames."""
        if self._rows is None:
            found = list(pages(self.session, "/api/jobs", {"task_id": self.id}))
            if not found:
                raise BadRequest(unseen(self.id))
            if kinds := {media(row) for row in found} - {"image", "video"}:
                raise BadRequest(f"task {self.id}: it holds {kinds.pop()} data, allowed: pictures and video")
            if any(row["start_frame"] is None for row in found):
                raise BadRequest(f"task {self.id}: it has no data yet")
            self._rows = sorted(found, key=lambda row: (row["type"] != "annotation", row["start_frame"], row["id"]))
        return self._rows


class TaskCache:
    """The tasks that people work on. Threads may share it."""

    def __init__(
        self, session: Session, *, keep: float = KEEP_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session, self._keep, self._clock = session, keep, clock
        self._known: OrderedDict[int, KnownTask] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, task: int, work: Callable[[KnownTask], T]) -> T:
        """What `work` makes of a task. Where what was known of it does not do, it looks again, once."""
        began = self._clock()
        known = self._get(task)
        try:
            return work(known)
        except (BadRequest, LabelMismatch, ServerRefused) as error:
            self.forget(task)
            if known.looked >= began:
                raise _as_request_error(task, error) from error
        try:
            return work(self._get(task))
        except (BadRequest, LabelMismatch, ServerRefused) as error:
            self.forget(task)
            raise _as_request_error(task, error) from error

    def learn(self, work: TaskWork) -> None:
        """Takes over what somebody else has just fetched: people often look at what is being annotated."""
        known = KnownTask(work.task_id, self._session, self._clock(), _labels=work.labels)
        known._jobs = {job.id: job for job in work.jobs}
        with self._lock:
            self._keep_known(known)

    def forget(self, task: int) -> None:
        """The server says that it has changed."""
        with self._lock:
            self._known.pop(task, None)

    def _get(self, task: int) -> KnownTask:
        with self._lock:
            known, now = self._known.get(task), self._clock()
            if known is None or now - known.looked >= self._keep:
                known = KnownTask(task, self._session, now)
            self._keep_known(known)
            return known

    def _keep_known(self, known: KnownTask) -> None:
        self._known[known.id] = known
        self._known.move_to_end(known.id)
        while len(self._known) > TASKS:
            self._known.popitem(last=False)


def unseen(task: int) -> str:
    """Why there is nothing to be had of a task."""
    return f"task {task}: it does not exist, or the user of this agent may not see it"


def _as_request_error(task: int, error: Exception) -> Exception:
    """A refusal about a task says something about the request."""
    if isinstance(error, ServerRefused) and error.status in (403, 404):
        return BadRequest(unseen(task))
    return error

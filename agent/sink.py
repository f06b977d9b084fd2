"""Where finished frames go: gathered into uploads of a sensible size, sent by a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.annotations import FrameAnnotations
from agent.cvat.session import Session
from agent.cvat.uploads import JobUploads
from agent.errors import RequestCancelled
from agent.ledger import Ledger

log = logging.getLogger(__name__)

SHAPES_PER_UPLOAD = 500
FRAMES_PER_UPLOAD = 200
SECONDS_PER_UPLOAD = 10.0
"""A crash costs at most this much work; a server takes some 500 shapes in 0.8 s."""

Removes = Mapping[tuple[int, int], Sequence[tuple[str, int]]]
"""For (job, frame), the (kind, server id) of what its new annotations replace."""


class Sink(Protocol):
    """Takes finished frames, job by job."""

    busy_seconds: float

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None: ...

    def skip(self, job: int, frame: int, reason: str) -> None: ...

    def close(self) -> None:
        """Returns when all that was added has arrived; raises what went wrong."""
        ...

    def abandon(self) -> None:
        """Ends without sending what still waits."""
        ...


class DrySink:
    """Takes frames and sends nothing."""

    busy_seconds = 0.0

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None: ...

    def skip(self, job: int, frame: int, reason: str) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


@dataclass(slots=True)
class _Pending:
    """What waits to be sent to one job."""

    job: int
    since: float
    frames: list[int] = field(default_factory=list)
    payload: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"tags": [], "shapes": [], "tracks": []})

    @property
    def full(self) -> bool:
        return sum(map(len, self.payload.values())) >= SHAPES_PER_UPLOAD or len(self.frames) >= FRAMES_PER_UPLOAD


class UploadSink:
    """Uploads to CVAT while the model works on the next frames; a run's frames come job by job."""

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        run: str,
        *,
        removes: Removes | None = None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._ledger, self._run = session, ledger, run
        self._removes = removes or {}
        self._clock = clock
        self._stop = stop or threading.Event()
        self.busy_seconds = 0.0
        self._error: BaseException | None = None
        self._uploads: JobUploads | None = None
        self._pending: _Pending | None = None
        # A short queue: when the server is slower than the model, the model waits rather than memory grows.
        self._queue: queue.Queue[tuple[int, int, FrameAnnotations] | None] = queue.Queue(maxsize=64)
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
        self._thread.start()

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None:
        self._raise_error()
        self._queue.put((job, frame, annotations))

    def skip(self, job: int, frame: int, reason: str) -> None:
        self._ledger.skip(self._run, job, frame, reason)

    def recover(self, jobs: Iterable[int]) -> None:
        """Brings to their end the uploads that an earlier process left half done; before the first frame."""
        for job in jobs:
            uploads = self._job_uploads(job)
            uploads.recover()
            uploads.settle()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._raise_error()

    def abandon(self) -> None:
        """Ends the thread after the upload it works on; what waits is not sent, a resumed run does it again."""
        self._error = self._error or RequestCancelled("abandoned")
        self._queue.put(None)
        self._thread.join()

    # ----------------------------------------------------------- in the thread

    def _work(self) -> None:
        while (item := self._next()) is not None:
            if self._error is None:
                self._guard(self._take, item)
        if self._error is None:
            self._guard(self._leave_job)

    def _next(self) -> tuple[int, int, FrameAnnotations] | None:
        """The next item; meanwhile what has waited long enough is sent."""
        while True:
            pending = self._pending
            patience = None if pending is None else max(0.0, pending.since + SECONDS_PER_UPLOAD - self._clock())
            try:
                return self._queue.get(timeout=patience)
            except queue.Empty:
                self._guard(self._send)

    def _guard(self, step: Callable[..., None], *values: Any) -> None:
        began = time.perf_counter()
        try:
            step(*values)
        except BaseException as error:  # handed to the thread that adds
            self._error = error
            self._pending = None
        self.busy_seconds += time.perf_counter() - began

    def _take(self, item: tuple[int, int, FrameAnnotations]) -> None:
        job, frame, annotations = item
        if self._pending is not None and self._pending.job != job:
            self._leave_job()
        if self._pending is None:
            self._pending = _Pending(job, self._clock())
        self._pending.frames.append(frame)
        self._pending.payload["tags"] += annotations.tags
        self._pending.payload["shapes"] += annotations.shapes
        if self._pending.full:
            self._send()

    def _send(self) -> None:
        if (pending := self._pending) is None:
            return
        self._pending = None
        removes = [item for frame in pending.frames for item in self._removes.get((pending.job, frame), ())]
        self._job_uploads(pending.job).add(pending.frames, pending.payload, removes)

    def _leave_job(self) -> None:
        self._send()
        if self._uploads is not None:
            self._uploads.settle()
            self._uploads = None

    def _job_uploads(self, job: int) -> JobUploads:
        if self._uploads is None or self._uploads.job != job:
            if self._uploads is not None:
                self._uploads.settle()
            self._uploads = JobUploads(self._session, self._ledger, self._run, job, wait=self._wait)
        return self._uploads

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

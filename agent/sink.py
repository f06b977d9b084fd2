"""Where finished frames go: gathered into uploads of a sensible size, sent by a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.annotations import FrameAnnotations
from agent.cvat.uploads import JobUploads
from agent.errors import RequestCancelled

SHAPES_PER_UPLOAD = 500
FRAMES_PER_UPLOAD = 200
SECONDS_PER_UPLOAD = 10.0
"""A crash costs at most this much work; a server takes some 500 shapes in 0.8 s."""

Removes = Mapping[tuple[int, int], Sequence[tuple[str, int]]]
"""For (job, frame), the (kind, server id) of what its new annotations replace."""


class Sink(Protocol):
    """Takes finished frames, job by job."""

    busy_seconds: float

    @property
    def removed(self) -> int:
        """How many annotations the new ones have replaced."""
        ...

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None: ...

    def skip(self, job: int, frame: int, reason: str) -> None: ...

    def close(self) -> None:
        """Returns when all that was added has arrived; raises what went wrong."""
        ...

    def abandon(self, patience: float | None = None) -> None:
        """Ends without sending what still waits; at the latest after `patience` seconds."""
        ...


class DrySink:
    """Takes frames, sends nothing, and counts what would have made room for them."""

    busy_seconds = 0.0

    def __init__(self, *, removes: Removes | None = None) -> None:
        self._removes = removes or {}
        self.removed = 0

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None:
        self.removed += len(self._removes.get((job, frame), ()))

    def skip(self, job: int, frame: int, reason: str) -> None:
        self.removed += sum(kind == "tracks" for kind, _ in self._removes.get((job, frame), ()))

    def close(self) -> None: ...

    def abandon(self, patience: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Item:
    """What was added at once."""

    job: int
    frames: Sequence[int]
    annotations: FrameAnnotations
    removes: Sequence[tuple[str, int]]


@dataclass(slots=True)
class _Pending:
    """What waits to be sent to a job."""

    since: float
    frames: list[int] = field(default_factory=list)
    payload: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"tags": [], "shapes": [], "tracks": []})
    removes: list[tuple[str, int]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return sum(map(len, self.payload.values())) >= SHAPES_PER_UPLOAD or len(self.frames) >= FRAMES_PER_UPLOAD


class UploadSink:
    """Uploads to CVAT while the model works on the next frames; a run's frames come job by job.

    `uploads_to` makes the JobUploads of a job, `skipped` keeps for the run why a frame has none.
    """

    def __init__(
        self,
        uploads_to: Callable[[int], JobUploads],
        skipped: Callable[[int, int, str], None],
        *,
        removes: Removes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uploads_to, self._skipped = uploads_to, skipped
        self._removes = removes or {}
        self._clock = clock
        self.busy_seconds = 0.0
        self._removed = 0
        self._error: BaseException | None = None
        self._abandoned = False
        self._uploads: JobUploads | None = None
        self._pending: _Pending | None = None
        # A short queue: when the server is slower than the model, the model waits rather than memory grows.
        self._queue: queue.Queue[_Item | None] = queue.Queue(maxsize=64)
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
        self._thread.start()

    @property
    def removed(self) -> int:
        return self._removed + (self._uploads.removed if self._uploads is not None else 0)

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None:
        self._raise_error()
        self._queue.put(_Item(job, [frame], annotations, self._removes.get((job, frame), ())))

    def skip(self, job: int, frame: int, reason: str) -> None:
        # Tracks go with the last frame of their job, even if it is a bad one; what else a bad frame holds stays.
        if tracks := [item for item in self._removes.get((job, frame), ()) if item[0] == "tracks"]:
            self._queue.put(_Item(job, [], FrameAnnotations(), tracks))
        self._skipped(job, frame, reason)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._raise_error()

    def abandon(self, patience: float | None = None) -> None:
        """Ends the thread after the upload it works on; what waits is not sent, a resumed run does it again."""
        self._error = self._error or RequestCancelled("abandoned")
        self._abandoned = True
        with suppress(queue.Full):  # then the thread sees it at the next item
            self._queue.put_nowait(None)
        self._thread.join(patience)

    # ----------------------------------------------------------- in the thread

    def _work(self) -> None:
        while (item := self._next()) is not None and not self._abandoned:
            if self._error is None:
                self._guard(self._take, item)
        if self._error is None:
            self._guard(self._leave_job)

    def _next(self) -> _Item | None:
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

    def _take(self, item: _Item) -> None:
        if self._uploads is not None and self._uploads.job != item.job:
            self._leave_job()
        if self._uploads is None:
            self._uploads = self._uploads_to(item.job)
        if self._pending is None:
            self._pending = _Pending(self._clock())
        self._pending.frames += item.frames
        self._pending.payload["tags"] += item.annotations.tags
        self._pending.payload["shapes"] += item.annotations.shapes
        self._pending.removes += item.removes
        if self._pending.full:
            self._send()

    def _send(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and self._uploads is not None:
            self._uploads.add(pending.frames, pending.payload, pending.removes)

    def _leave_job(self) -> None:
        self._send()
        if self._uploads is not None:
            self._uploads.settle()
            self._removed += self._uploads.removed
            self._uploads = None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

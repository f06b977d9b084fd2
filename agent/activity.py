"""What this process is doing, and has done lately: the requests of all doors, with progress, cancellation and outcome.

The doors open a `Request` around each piece of work; the status page, the metrics and the log live on what it tells.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal

from agent.errors import RequestCancelled, SidecarError, public_message
from agent.log_fields import log_fields

log = logging.getLogger(__name__)

Outcome = Literal["running", "done", "failed", "cancelled"]
REMEMBERED = 100
"""Finished requests, and as many errors, that the status page can show."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """How a request stands, at one moment."""

    id: str
    door: str
    kind: str
    """annotate_task, annotate_frame, interact, detect, track, reid, rule, …: what was asked for."""
    model: str
    what: str
    """What it is about, for a person: `task 12`, `job 7 frame 3`."""
    began: float
    """Seconds since the epoch."""
    since: float = field(default_factory=time.monotonic)
    """Of the clock that nobody sets."""
    ended: float | None = None
    seconds_in_all: float | None = None
    outcome: Outcome = "running"
    done: int = 0
    total: int = 0
    run: str | None = None
    """Of the ledger, where there is one."""
    cancelling: bool = False
    """Somebody has cancelled it, and it has not heard of it yet."""
    error: str | None = None
    """What went wrong, as others may read it."""
    detail: str | None = None
    """What went wrong, for whoever runs this service; it may name files and hosts."""
    quiet: bool = False
    """One of very many: not listed among the finished, unless it failed."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage, as far as they were told; stages overlap."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since if self.seconds_in_all is None else self.seconds_in_all


class Request:
    """A piece of work that somebody asked a door for; leaving it tells the outcome.

    An exception that leaves the block makes it failed, or cancelled for RequestCancelled; it is not swallowed.
    """

    def __init__(self, record: RequestRecord, ended: Callable[[Request, BaseException | None], None]) -> None:
        self.record = record
        self.cancelled = threading.Event()
        """Set by the status page; whoever works looks at it at every check-in."""
        self.why = ""
        self._ended = ended
        self._lock = threading.Lock()
        self._names = {"request": record.id, "model": record.model}
        self._fields = log_fields(self._names)

    @property
    def id(self) -> str:
        return self.record.id

    def progress(self, done: int, total: int) -> None:
        self._note(done=done, total=total)

    def belongs_to(self, run: str) -> None:
        """Names the ledger's run."""
        self._names["run"] = run
        self._note(run=run)

    def spent(self, stages: Mapping[str, float]) -> None:
        """Adds to the seconds by stage."""
        with self._lock:
            added = Counter(self.record.stages)
            added.update(stages)
            self.record = replace(self.record, stages=added)

    def cancel(self, why: str) -> None:
        self.why = self.why or why
        self._note(cancelling=True)
        self.cancelled.set()

    def check(self) -> None:
        """Raises RequestCancelled once somebody has cancelled it."""
        if self.cancelled.is_set():
            raise RequestCancelled(self.why)

    def end(self, outcome: Outcome, error: BaseException | None, text: str | None) -> RequestRecord:
        """The record at the end; nothing is noted after it."""
        detail = None
        if outcome == "failed" and error is not None:
            detail = str(error) if isinstance(error, SidecarError) else one_line(error)
        self._note(ended=time.time(), seconds_in_all=self.record.seconds, outcome=outcome, error=text, detail=detail)
        return self.record

    def _note(self, **changes: Any) -> None:
        with self._lock:
            if self.record.ended is None:
                self.record = replace(self.record, **changes)

    def __enter__(self) -> Request:
        self._fields.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ended(self, error)
        finally:
            self._fields.__exit__(kind, error, trace)


@dataclass(slots=True)
class Activity:
    """The requests that run now and those that ended lately. Threads may share it.

    `on_end` hears of each that ends.
    """

    on_end: Callable[[RequestRecord], None] = lambda record: None
    _running: dict[str, Request] = field(default_factory=dict)
    _finished: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _errors: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, door: str, kind: str, model: str, what: str, *, quiet: bool = False) -> Request:
        """A request that runs until its block is left: `with activity.begin("queue", …) as request:`."""
        record = RequestRecord(secrets.token_hex(4), door, kind, model, what, time.time(), quiet=quiet)
        request = Request(record, self._end)
        with self._lock:
            self._running[record.id] = request
        return request

    def turned_away(self, door: str, model: str, what: str, error: BaseException) -> None:
        """Counts a request on which nobody has worked, as one that failed; whoever refuses it tells the log."""
        record = RequestRecord(secrets.token_hex(4), door, "refused", model, what, time.time(), quiet=True)
        record = Request(record, self._end).end("failed", error, public_message(error))
        with self._lock:
            self._errors.append(record)
        self._told(record)

    def running(self) -> list[RequestRecord]:
        """Those that run, the oldest first."""
        with self._lock:
            return [request.record for request in self._running.values()]

    def finished(self) -> list[RequestRecord]:
        """Those that ended, the newest first."""
        with self._lock:
            return list(reversed(self._finished))

    def errors(self) -> list[RequestRecord]:
        """Those that failed, the newest first."""
        with self._lock:
            return list(reversed(self._errors))

    def cancel(self, request: str, why: str = "cancelled on the status page") -> bool:
        """Cancels a running request; False where there is none of that id."""
        with self._lock:
            found = self._running.get(request)
        if found is not None:
            found.cancel(why)
        return found is not None

    def _end(self, request: Request, error: BaseException | None) -> None:
        outcome: Outcome = "done"
        if error is not None:
            outcome = "cancelled" if isinstance(error, RequestCancelled) else "failed"
        text = None if error is None else (str(error) if outcome == "cancelled" else public_message(error))
        record = request.end(outcome, error, text)
        with self._lock:
            self._running.pop(record.id, None)
            if not record.quiet or outcome == "failed":
                self._finished.append(record)
            if outcome == "failed":
                self._errors.append(record)
        # What we can name is told by its text; where it was noticed helps nobody but who looks for a defect.
        traceback = outcome == "failed" and not isinstance(error, SidecarError)
        if outcome == "failed" and not traceback:
            text = str(error)  # the log is for whoever runs this
        level = logging.WARNING if outcome == "failed" else logging.DEBUG if record.quiet else logging.INFO
        log.log(
            level, "%s %s of %s for %s: %s after %.1f s%s", record.door, record.kind, record.what, record.model,
            outcome, record.seconds, f": {text}" if text else "", exc_info=error if traceback else None,
        )  # fmt: skip
        if outcome == "failed" and not traceback:
            log.debug("request %s: where it failed", record.id, exc_info=error)
        self._told(record)

    def _told(self, record: RequestRecord) -> None:
        try:
            self.on_end(record)
        except Exception:  # whoever counts must not change how a request ends
            log.exception("the end of a request could not be told")


def one_line(error: BaseException) -> str:
    """A foreign error as a line: its kind, and the beginning of what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__

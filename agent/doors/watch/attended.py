"""A job that a rule works on: who may stop it, why it was stopped, and the thread that looks whether it is ours."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum

from agent.activity import Request
from agent.cvat.jobs import find_job
from agent.cvat.session import Session
from agent.doors.watch.rules import Rule
from agent.errors import RequestCancelled, ServerError

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that an end waits for a look that hangs; its thread ends by itself, with the connection's time-out."""


class Stop(Enum):
    """Why a run was stopped."""

    BY_PERSON = "somebody here has cancelled it"
    TAKEN_BACK = "somebody at the server does not want it any more"
    ENDING = "the service ends"


class Attended:
    """A job at work. It is the run's lease too."""

    def __init__(self, rule: Rule, job: int, request: Request, stop: threading.Event) -> None:
        self.rule, self.job = rule, job
        self.nudged = threading.Event()
        """Set when the job is to be looked at before its time."""
        self._request, self._stop = request, stop
        self._why: Stop | None = None
        self._lock = threading.Lock()

    @property
    def cancelled(self) -> threading.Event:
        return self._request.cancelled

    @property
    def why(self) -> Stop | None:
        """Why it was stopped, None if it was not."""
        if self._why is None and self._request.cancelled.is_set():
            return Stop.BY_PERSON
        return self._why

    def stop(self, why: Stop, text: str) -> None:
        """Ends the run after the batch at hand; the first reason counts."""
        with self._lock:
            if self.why is None:
                self._why = why
        self._request.cancel(text)

    def check_in(self, done: int, total: int) -> None:
        """As a lease: tells the progress, raises RequestCancelled once somebody has stopped us."""
        self._request.progress(done, total)
        if self._stop.is_set():
            self.stop(Stop.ENDING, Stop.ENDING.value)
        self._request.check()

    def may_finish(self) -> bool:
        """Whether finished frames may still be uploaded; not to a job that somebody else has now."""
        return self.why is not Stop.TAKEN_BACK


class Watcher:
    """Looks at an attended job every so many seconds, in a thread of its own, while its block runs."""

    def __init__(self, attended: Attended, session: Session, every: Callable[[], float]) -> None:
        self._attended, self._session, self._every = attended, session, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-job-{attended.job}", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._attended.nudged.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            self._attended.nudged.wait(self._every())
            self._attended.nudged.clear()
            if self._done.is_set():
                return
            try:
                job = find_job(self._session, self._attended.job, self._done)
            except RequestCancelled:
                return
            except ServerError as error:
                log.info("job %d: it could not be looked at: %s", self._attended.job, error)
                continue
            reason = self._attended.rule.taken_back(job)
            if reason is not None and not self._done.is_set():
                log.info("job %d: %s", self._attended.job, reason)
                self._attended.stop(Stop.TAKEN_BACK, reason)
                return

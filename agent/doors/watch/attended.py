"""A job that a rule works on: who may stop it, why it was stopped, and who looks whether it is ours."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum

from agent.activity import Request
from agent.cvat.jobs import Job, find_job
from agent.cvat.session import Session
from agent.doors.watch.rules import Rule
from agent.errors import RequestCancelled, ServerError

log = logging.getLogger(__name__)

PATIENCE = 0.3
"""Seconds that an end waits for a look that hangs; its thread ends by itself, with the connection's time-out."""


LOOK_PATIENCE = 10.0
"""Seconds that the server may be silent about a job before the next look."""


class Stop(Enum):
    """Why a run was stopped."""

    BY_PERSON = "somebody here has cancelled it"
    TAKEN_BACK = "somebody at the server does not want it any more"
    ENDING = "the service ends"


class Attended:
    """A job at work. It is the run's lease too."""

    def __init__(self, rule: Rule, job: int, request: Request, stop: threading.Event, *, failed: bool = False) -> None:
        self.rule, self.job, self.failed = rule, job, failed
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

    def wanted(self) -> bool:
        """As a lease: whether the next batch may begin."""
        return not (self.cancelled.is_set() or self._stop.is_set())

    def may_finish(self) -> bool:
        """Whether finished frames may still be uploaded; not to a job that somebody else has now."""
        return self.why is not Stop.TAKEN_BACK


class Watcher:
    """Looks at an attended job every so many seconds, in a thread of its own, while its block runs; and when it is told
    to. What it sees stops the run before its next batch."""

    def __init__(
        self,
        attended: Attended,
        session: Session,
        every: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attended, self._session, self._every, self._clock = attended, session, every, clock
        self._next = 0.0
        """When the thread looks again."""
        self._failing = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-job-{attended.job}", daemon=True)

    def check(self) -> None:
        """Looks now. RequestCancelled where the job is not ours any more, ServerError where that cannot be told."""
        if self._attended.why is Stop.TAKEN_BACK:
            raise RequestCancelled("somebody has taken the job back")
        job = find_job(self._session, self._attended.job)
        # Its own look need not be taken for a while.
        self._next = self._clock() + self._every()
        if (reason := self._judge(job)) is not None:
            raise RequestCancelled(reason)

    def __enter__(self) -> Watcher:
        self._next = self._clock() + self._every()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._attended.nudged.set()
        self._thread.join(PATIENCE)

    def _judge(self, job: Job | None) -> str | None:
        """Why the job is not ours any more; then the run is stopped."""
        reason = self._attended.rule.taken_back(job, failed=self._attended.failed)
        if reason is not None and not self._done.is_set() and self._attended.why is not Stop.TAKEN_BACK:
            log.info("job %d: %s", self._attended.job, reason)
            self._attended.stop(Stop.TAKEN_BACK, reason)
        return reason

    # ----------------------------------------------------------- in the thread

    def _run(self) -> None:
        nudged = self._attended.nudged
        while not self._done.is_set():
            if not nudged.wait(max(0.0, self._next - self._clock())) and self._clock() < self._next:
                continue  # somebody else has looked meanwhile
            nudged.clear()
            try:
                if self._done.is_set() or self._look():
                    return
            except Exception:  # who takes the job back must be heard all the same
                log.exception("job %d: it could not be looked at", self._attended.job)
                self._next = self._clock() + self._every()

    def _look(self) -> bool:
        """Whether there is no need to look again."""
        began = self._clock()
        try:
            job = find_job(self._session, self._attended.job, self._done, patience=LOOK_PATIENCE)
        except RequestCancelled:
            return True
        except ServerError as error:
            level = logging.DEBUG if self._failing else logging.INFO
            log.log(level, "job %d: it could not be looked at: %s", self._attended.job, error)
            self._failing, asked = True, getattr(error, "retry_after", None) or 0.0
            self._next = self._clock() + max(self._every(), asked)
            return False
        self._failing, self._next = False, began + self._every()
        return self._judge(job) is not None

"""Jobs claimed among sidecars that share no ledger, by what CVAT offers: issues with ascending ids, and states of jobs.

CVAT has no transactions for clients: two sidecars that both see a new job may both set its state. So each first leaves
a short-lived issue on the job, waits until every issue with a lower id must be visible, and looks. The lowest of the
fresh ones may set the state, if the job is still to be had; the others go away. Whoever comes later sees the issue, or,
once that is gone, the state. (The idea is the bakery's: Lamport, A New Solution of Dijkstra's Concurrent Programming
Problem, 1974.)

It holds as long as the server shows an issue to others by the time it has answered its sender, and as long as nothing
that was sent within LONGEST seconds arrives after FRESH. A server that takes longer than `settle` for the issue is not
claimed from; the next look tries again.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from agent.cvat.issues import Comment, comments_on, leave_issue, remove_issue
from agent.cvat.jobs import Job, find_job, set_state
from agent.cvat.session import Session
from agent.errors import RequestCancelled, ServerError, ServerRefused, ServerUnavailable

log = logging.getLogger(__name__)

LONGEST = 20.0
"""Seconds that a claim may take from its issue to the job's state."""
FRESH = timedelta(seconds=60)
"""An older issue is of somebody who died while claiming."""
LATE = LONGEST + FRESH.total_seconds()
"""Seconds after the beginning of a claim until which the state that it sent, without an answer, may still arrive."""
_MARK = re.compile(r"\[cvat-sidecar claim ([0-9a-f]{16})\]")


def new_marker() -> str:
    """Names a claim."""
    return secrets.token_hex(8)


class Claims:
    """Claims jobs on a server for one sidecar."""

    def __init__(
        self,
        session: Session,
        stop: threading.Event,
        *,
        settle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._stop = session, stop
        self._settle, self._clock = settle, clock
        self._litter: dict[str, int] = {}
        """Markers that could not be taken away yet, and their jobs."""

    def take(
        self,
        job: Job,
        marker: str,
        state: str,
        unfit: Callable[[Job], str | None],
        step: Callable[[str], None] = lambda name: None,
    ) -> bool:
        """Whether the job is ours now, its state set; what was left on it for that is gone.

        `unfit` says why a job is none of ours. `step` hears `taking` before the state is set, when nobody else may do
        so any more, and `running` after it, while our note is still there. RequestCancelled when we are stopped.
        """
        began = self._clock()
        message = f"cvat-sidecar looks whether it may annotate this job; this note goes by itself. {_mark(marker)}"
        # Where the server fails here, the issue stays: it tells `is_ours` and `clear` later how far we had come.
        issue = leave_issue(self._session, job.id, job.first_frame or 0, message)
        try:
            taken = self._take(job.id, marker, state, unfit, step, began)
        except RequestCancelled:
            self._remove(job.id, marker, issue)
            raise
        self._remove(job.id, marker, issue)
        return taken

    def _take(
        self,
        job: int,
        marker: str,
        state: str,
        unfit: Callable[[Job], str | None],
        step: Callable[[str], None],
        began: float,
    ) -> bool:
        if self._clock() - began > self._settle:
            log.info("job %d: the server is too slow to claim it now", job)
            return False
        if self._stop.wait(self._settle):
            raise RequestCancelled("stopped while a job was being claimed")
        if not self._is_first(job, marker):
            log.info("job %d: another sidecar claims it", job)
            return False
        # In this order: who was first and has finished claiming has set the state before it took its issue away.
        now = find_job(self._session, job)
        if now is None or unfit(now) is not None or self._clock() - began > LONGEST:
            return False
        step("taking")
        set_state(self._session, job, state, once_within=LONGEST)
        step("running")
        return True

    def is_ours(self, job: Job, marker: str) -> bool:
        """Whether it was us who set the job's state, which is set, where a claim broke off while it was `taking`.

        As long as our issue is there, and fresh, it has kept others from doing so.
        """
        comments = comments_on(self._session, job.id)
        mine = next((comment for comment in comments if _marker_of(comment) == marker), None)
        return mine is not None and _time(job.updated) - _time(mine.created) < FRESH

    def clear(self, job: int, marker: str) -> None:
        """Takes away what a claim that broke off may have left; `sweep` tries again where the server fails."""
        self._litter[marker] = job
        try:
            for comment in comments_on(self._session, job):
                if _marker_of(comment) == marker:
                    remove_issue(self._session, comment.issue)
        except ServerUnavailable as error:
            log.info("job %d: a note of ours may have stayed there for now: %s", job, error)
            return
        except ServerRefused as error:
            log.warning("job %d: a note of ours may have stayed there: %s", job, error)
        self._litter.pop(marker, None)

    def sweep(self) -> None:
        """Takes away what could not be taken away before."""
        for marker, job in list(self._litter.items()):
            self.clear(job, marker)

    def _is_first(self, job: int, marker: str) -> bool:
        marked = [comment for comment in comments_on(self._session, job) if _marker_of(comment)]
        mine = next((comment for comment in marked if _marker_of(comment) == marker), None)
        if mine is None:
            return False
        limit = _time(mine.created) - FRESH
        return all(comment.id >= mine.id or _time(comment.created) < limit for comment in marked)

    def _remove(self, job: int, marker: str, issue: int) -> None:
        try:
            remove_issue(self._session, issue)
        except ServerError as error:
            log.info("job %d: a note of ours (issue %d) has stayed there for now: %s", job, issue, error)
            self._litter[marker] = job


def _mark(marker: str) -> str:
    return f"[cvat-sidecar claim {marker}]"


def _marker_of(comment: Comment) -> str | None:
    found = _MARK.search(comment.message)
    return found[1] if found else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)

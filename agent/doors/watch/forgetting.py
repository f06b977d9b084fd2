"""What rules remember of jobs that are gone from the server: forgotten, a few jobs at a time.

Nothing else can be: a row that says `done` keeps its job from being annotated again for as long as there is the job,
and a version of a model that was superseded may come back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from agent.cvat.jobs import is_gone, list_jobs
from agent.cvat.session import Session
from agent.errors import ServerRefused
from agent.ledger.rules import RuleMemory

log = logging.getLogger(__name__)

TURN_SECONDS = 3600.0
AT_ONCE = 100
"""Jobs of which rules remember something and that are looked for in one turn; their numbers go into one address."""
_FIRST = ("", -1)


class Forgetting:
    """Looks, one turn an hour, whether the next few of the remembered jobs are still there. Threads may share it."""

    def __init__(
        self,
        memory: RuleMemory,
        session: Session,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory, self._session, self._stop, self._clock = memory, session, stop, clock
        self._lock = threading.Lock()
        self._next: float | None = None
        """When the next turn is, None before the first."""
        self._last = _FIRST

    def take_turn(self, since: float) -> None:
        """Forgets jobs that are gone, as far as nothing was noted of them since then; where its time has come.

        Seconds since the epoch. ServerUnavailable where the server does not tell.
        """
        with self._lock:
            if self._next is not None and self._clock() < self._next:
                return
            self._next = self._clock() + TURN_SECONDS
            known = self._memory.untouched(since, self._last, AT_ONCE)
            self._last = known[-1] if len(known) == AT_ONCE else _FIRST
        try:
            gone = self._gone({job for _, job in known})
        except ServerRefused as error:
            log.debug("whether remembered jobs are gone stays open: %s", error)
            return
        count = sum(self._memory.forget_untouched(rule, job, since) for rule, job in known if job in gone)
        if count:
            log.info("%d jobs are gone from the server: what rules remembered of them is forgotten", count)

    def _gone(self, jobs: set[int]) -> set[int]:
        if not jobs:
            return set()
        there = {job.id for job in list_jobs(self._session, [{"in": [{"var": "id"}, sorted(jobs)]}], self._stop)}
        # One that is not in the list may only be hidden from this user.
        return {job for job in sorted(jobs - there) if is_gone(self._session, job, self._stop)}

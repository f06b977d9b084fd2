"""What all behind the watch door share: memory, clock, the jobs at work, and whether the server can be reached."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from agent.cvat.session import Session
from agent.doors import Shared
from agent.doors.watch.attended import Attended, Stop
from agent.doors.watch.claims import Claims
from agent.doors.watch.forgetting import Forgetting
from agent.doors.watch.hours import pause_after
from agent.errors import RequestCancelled, ServerError, ServerRefused
from agent.ledger.rules import RuleMemory

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0
"""Seconds between two looks at a server that cannot be reached: doubled each time."""


def local_now() -> datetime:
    """The time here, with its zone."""
    return datetime.now().astimezone()


class Reach:
    """Whether the server answers, and when it is to be asked again if not. Threads may share it."""

    def __init__(self, jitter: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._jitter, self._clock = jitter, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next = self._asked = 0.0
        self._reached = False
        self._since: datetime | None = None
        self._said = self._told = ""

    def failed(self, error: ServerError, now: datetime) -> None:
        with self._lock:
            if self._clock() >= self._next:
                self._failures += 1  # else it is the same silence that somebody else has met
            wait = pause_after(self._failures, self._jitter(), first=FIRST_WAIT, longest=LONGEST_WAIT)
            asked = getattr(error, "retry_after", None) or 0.0
            self._next, self._asked = self._clock() + max(wait, asked), self._clock() + asked
            self._since = self._since or now
            self._said = str(error)
            away = "the server is away" if self._reached else "waiting for the server"
            what = "the server refuses us" if isinstance(error, ServerRefused) else away
            # Once: how long it lasts is seen by when it answers again.
            level = logging.DEBUG if what == self._told else logging.WARNING
            self._told = what
        log.log(level, "watch: %s: %s; looking again in %.0f s", what, error, max(wait, asked))

    def answered(self) -> None:
        with self._lock:
            if self._failures or not self._reached:
                log.info("watch: the server %s", "answers again" if self._reached else "is reached")
            self._failures, self._next, self._since, self._reached, self._told = 0, 0.0, None, True, ""

    def heard(self) -> None:
        """The server has called us: it is worth asking it sooner, but not before it allows it."""
        with self._lock:
            self._next = min(self._next, self._asked)

    @property
    def reached(self) -> bool:
        """Whether the server has ever answered."""
        return self._reached

    @property
    def wait(self) -> float:
        """Seconds until the server is to be asked again; 0 while it answers."""
        with self._lock:
            return max(0.0, self._next - self._clock())

    @property
    def trouble(self) -> str | None:
        """What is wrong, for a person."""
        with self._lock:
            if self._since is None:
                return None
            what = "cannot use the server" if self._reached else "waiting for the server"
            return f"{what} since {self._since:%H:%M:%S}: {self._said}"


@dataclass(slots=True)
class Place:
    """Where jobs are attended to."""

    shared: Shared
    memory: RuleMemory
    settle: float
    now: Callable[[], datetime] = local_now
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the door ends: nobody may begin anything more."""
    reach: Reach = field(init=False)
    claims: Claims = field(init=False)
    forgetting: Forgetting = field(init=False)
    put_off: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often a rule's job had to wait for the server since it was last done."""
    _attended: dict[int, Attended] = field(default_factory=dict)
    _visitors: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.reach = Reach(self.jitter, self.clock)
        self.claims = Claims(self.session, self.closing, settle=self.settle)
        self.forgetting = Forgetting(self.memory, self.session, self.closing, clock=self.clock)

    @property
    def session(self) -> Session:
        return self.shared.session

    def timestamp(self) -> float:
        """Seconds since the epoch."""
        return self.now().timestamp()

    def check(self) -> None:
        """RequestCancelled when the door ends."""
        if self.closing.is_set():
            raise RequestCancelled(Stop.ENDING.value)

    @contextmanager
    def visited(self) -> Iterator[None]:
        """Counts whoever is here while the block runs: what all share must not be closed under them.

        RequestCancelled when the door ends.
        """
        with self._changed:
            self.check()
            self._visitors += 1
        try:
            yield
        finally:
            with self._changed:
                self._visitors -= 1
                self._changed.notify_all()

    @contextmanager
    def attending(self, attended: Attended) -> Iterator[None]:
        """Counts a job among those at work while the block runs. RequestCancelled when the door ends."""
        with self._changed:
            self.check()
            self._attended[attended.job] = attended
        try:
            yield
        finally:
            with self._changed:
                del self._attended[attended.job]

    def at_work(self) -> list[Attended]:
        with self._changed:
            return list(self._attended.values())

    def is_at_work(self, job: int, rule: str) -> bool:
        """Whether the rule is working on the job."""
        with self._changed:
            attended = self._attended.get(job)
        return attended is not None and attended.rule.name == rule

    def look_at(self, job: int | None) -> int:
        """Lets a job at work (None: all) be looked at now, because something has changed; how many there are."""
        at_work = [attended for attended in self.at_work() if job is None or attended.job == job]
        for attended in at_work:
            attended.nudged.set()
        return len(at_work)

    def end(self, patience: float) -> bool:
        """Stops all that is at work; whether everybody has left within so many seconds."""
        with self._changed:
            self.closing.set()
            for attended in self._attended.values():
                attended.stop(Stop.ENDING, Stop.ENDING.value)
            return self._changed.wait_for(lambda: not self._visitors, patience)

"""A rule's looks for work: what fits is listed, places in the batch lane are claimed, and jobs attended to in them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from agent.cvat.jobs import Job, list_jobs
from agent.cvat.work import task_labels
from agent.doors.watch.attending import Attendant, is_due
from agent.doors.watch.place import Place
from agent.doors.watch.resting import Rest
from agent.doors.watch.rules import Rule
from agent.errors import ModelError, RequestCancelled, ServerError, ServerRefused, SidecarError
from agent.ledger.file import HeldElsewhere
from agent.ledger.rules import HOUR

log = logging.getLogger(__name__)

BACKLOG = 200
"""Jobs that are kept from one listing; the next one finds the others."""
LABELS_SECONDS = 300.0
"""How long it is remembered whether a task's labels fit."""
LEFT_ALONE_SECONDS = 10.0
"""A job with which there was nothing to do is not tried again before that, while the backlog is filled up."""
CLAIM_SECONDS = 1.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that may have to be attended to."""

    id: int
    begun: bool
    """Whether the rule has begun it before."""


class Looker:
    """Looks for the work of one rule, one look at a time.

    `ended` hears when a place has become free again, `failed` for how many seconds the server is left alone.
    """

    def __init__(
        self,
        place: Place,
        rule: Rule,
        ended: Callable[[], None],
        failed: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.rule = rule
        self.starved = False
        """Whether there is work for which no place was free, or that others held."""
        self.rest = Rest(place, rule)
        self.looks = 0
        """How many looks have ended."""
        self._place, self._ended, self._failed = place, ended, failed
        self._lock = threading.Lock()
        self._left = False
        self._looking = self._wanted = self._list_wanted = False
        self._backlog: deque[Candidate] = deque()
        self._more = False
        self._labels: dict[int, tuple[float, bool]] = {}
        self._left_alone: dict[int, float] = {}
        self._frees = 0
        """How often a job was put down."""

    def look(self, *, fresh: bool = True) -> None:
        """Lets a thread begin what there is to do and for which there is a place; `fresh`: list anew before.

        While another look is under way, that one looks once more.
        """
        with self._lock:
            self._wanted, self._list_wanted = True, self._list_wanted or fresh
            if self._looking or self._left:
                return
            self._looking = True
        try:
            threading.Thread(target=self._run, name=f"look-{self.rule.name}", daemon=True).start()
        except BaseException:  # the machine has no more threads now: the next look must come all the same
            self._looking = False
            raise

    def _go_on(self) -> None:
        self.look(fresh=False)

    def freed(self) -> None:
        """Somebody has put a job down, which may be one that we could not have."""
        self._frees += 1

    def forget_labels(self) -> None:
        """Labels of tasks may have changed: the next look asks for them anew."""
        self._labels = {}

    def leave(self) -> None:
        """No more looks: the door drains, or the rule is another one now. What is at work goes on."""
        self._left = True

    # --------------------------------------------------------------- looking

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._looking = False
                    return
                fresh, self._wanted, self._list_wanted = self._list_wanted, False, False
            try:
                with self._place.visited():
                    if not self._left and not self.rest.rests():
                        self._look(fresh)
            except RequestCancelled:
                pass  # the door ends
            except SidecarError as error:
                self._note(error)
            except BaseException:  # the next look must come all the same
                log.exception("rule %s: a look broke off", self.rule.name)
            self.looks += 1

    def _note(self, error: SidecarError) -> None:
        self.rest.failed(error)
        if isinstance(error, ServerError):
            # Not only when it is time for the next look, which may be hours away.
            self._failed(self._place.reach.wait)

    def _look(self, fresh: bool) -> None:
        if fresh or (self._more and not self._backlog):
            self._list(again=not fresh)
            self.rest.listed()
        self._begin_backlog()
        if fresh and (days := self._place.shared.config.service.keep_runs_days):
            self._place.forgetting.take_turn(self._place.timestamp() - days * DAY)

    def _list(self, *, again: bool) -> None:
        """Fills the backlog: what was begun and is in no list any more, then what fits, the oldest first.

        `again`: to go on with what the last list was too short for.
        """
        place, rule = self._place, self.rule
        now, listed, fitting, key = place.timestamp(), set[int](), list[Candidate](), None
        self._more = False
        self._forget_old(all_left_alone=not again)
        for job in list_jobs(place.session, list(rule.conditions(place.now())), place.closing):
            if rule.unfit(job) is not None:
                continue
            key = key or rule.key(self._version())
            listed.add(job.id)
            row = place.memory.row(rule.name, job.id, key)
            too_old = row is None and rule.is_too_old(job, place.now())
            if not too_old and is_due(row, job, now) and self._is_free(job.id) and self._has_labels(job):
                fitting.append(Candidate(job.id, row is not None))
            if len(fitting) == BACKLOG:
                self._more = True
                break
        place.claims.sweep()
        left = place.memory.left(rule.name, now) - listed
        self._backlog = deque([*(Candidate(job, True) for job in sorted(left)), *fitting])

    def _version(self) -> str:
        """The version of the rule's model; it is loaded to find out where it never was."""
        pool = self._place.shared.pool
        if (description := pool.describe(self.rule.model)) is not None:
            return description.version
        with pool.use(self.rule.model, self._place.check) as hosted:
            return hosted.loaded.version

    def _begin_backlog(self) -> None:
        """Begins what there are places for; what another rule or process holds waits for the next time."""
        self.starved = False
        held: list[Candidate] = []
        frees = self._frees
        exhausted = self._is_exhausted()
        while self._backlog and not self._left and not self.rest.rests():
            candidate = self._backlog.popleft()
            if (exhausted and not candidate.begun) or not self._is_free(candidate.id):
                continue
            try:
                if not self._begin(candidate.id):
                    self._backlog.appendleft(candidate)
                    self.starved = True
                    # Others work in the lane too, and do not tell us when they end.
                    self._place.shared.lanes.batch.when_free(self._go_on)
                    break
            except HeldElsewhere:
                held.append(candidate)
            exhausted = self._is_exhausted()
        self._backlog.extend(held)
        self.starved = self.starved or bool(held)
        if held and self._frees != frees:
            # It was put down while we looked at others, when nobody knew yet that we would want it.
            with self._lock:
                self._wanted = True

    def _is_exhausted(self) -> bool:
        """Whether the rule has begun as much as it may within an hour."""
        limit = self.rule.settings.jobs_per_hour
        since = self._place.timestamp() - HOUR
        return limit is not None and self._place.memory.begun_since(self.rule.name, since) >= limit

    def _is_free(self, job: int) -> bool:
        return self._place.clock() >= self._left_alone.get(job, 0.0) and not self._place.is_at_work(job, self.rule.name)

    def _has_labels(self, job: Job) -> bool:
        """Whether the job's task has the label that the rule asks for."""
        if self.rule.settings.label is None:
            return True
        labels = self._labels
        if job.task_id not in labels:
            try:
                names = [label.name for label in task_labels(self._place.session, job.id)]
            except ServerRefused:
                return False  # the job has gone meanwhile
            labels[job.task_id] = (self._place.clock() + LABELS_SECONDS, self.rule.wants_labels(names))
        return labels[job.task_id][1]

    def _forget_old(self, *, all_left_alone: bool) -> None:
        now = self._place.clock()
        with self._lock:
            left_alone = {} if all_left_alone else self._left_alone
            self._left_alone = {job: until for job, until in left_alone.items() if until > now}
        self._labels = {task: known for task, known in self._labels.items() if known[0] > now}

    def _begin(self, job: int) -> bool:
        """Attends to a job; False where there is no place to do so, HeldElsewhere where somebody else is at it."""
        with ExitStack() as lock:
            lock.enter_context(self._place.memory.hold_job(job))
            # A place whose work has just ended is given back a moment after that is told.
            claim = self._place.shared.lanes.batch.claim(CLAIM_SECONDS)
            if claim is None:
                return False
            held = lock.pop_all()
        try:
            claim.run(lambda: self._attend(job, held))
        except BaseException:
            held.close()
            raise
        return True

    # ------------------------------------------------------- in the lane

    def _attend(self, job: int, held: ExitStack) -> None:
        attendant = Attendant(self._place, self.rule, job)
        worked = False
        try:
            pool, check = self._place.shared.pool, self._place.check
            with held, self._place.visited(), pool.use(self.rule.model, check) as hosted:
                worked = attendant.attend(hosted)
        except RequestCancelled:
            pass  # the door ends
        except SidecarError as error:
            self._note(error)
        finally:
            if not worked:
                with self._lock:
                    self._left_alone[job] = self._place.clock() + LEFT_ALONE_SECONDS
            elif isinstance(attendant.error, ModelError):
                self.rest.model_failed(attendant.error)
            elif attendant.error is None:
                self.rest.worked()
            elif (wait := self._place.reach.wait) > 0:
                # What waits for the server goes on with it, not only when it is time for the next look.
                self._failed(wait)
            self._ended()

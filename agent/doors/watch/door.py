"""The watch door: rules of service.toml that annotate new work by themselves."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from agent.doors import DoorHealth, Shared
from agent.doors.watch.looking import Looker
from agent.doors.watch.place import Place, local_now
from agent.doors.watch.rules import Rule, read_rules
from agent.doors.watch.webhooks import Refused, read_event
from agent.ledger.rules import RuleMemory
from agent.settings.service import secret

log = logging.getLogger(__name__)

SETTLE = 2.0
"""Seconds that a claim waits for those of other sidecars to be seen."""
DEBOUNCE = 0.5
"""Seconds for which the events of a webhook are gathered before the rules look."""
WAKES = 100
"""At once, of one kind. Each is over in no time, but one that was dropped because the last was not would be missed."""
PATIENCE = 2.5
"""Seconds that closing waits for the jobs at work to be put down."""


class Watch:
    """Looks for the work of all rules: now and then, and at once when a webhook says that something has changed.

    The scheduler only says when to look. What is found runs in the batch lane.
    """

    name = "watch"

    def __init__(
        self,
        shared: Shared,
        *,
        now: Callable[[], datetime] = local_now,
        clock: Callable[[], float] = time.monotonic,
        settle: float = SETTLE,
        debounce: float = DEBOUNCE,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._shared, self._debounce = shared, debounce
        self._secret = self._read_secret()
        self._wanted = read_rules(shared.config)
        self._memory = RuleMemory(shared.ledger, shared.session.url)
        self._place = Place(shared, self._memory, settle, now, jitter, clock)
        self._lock = threading.RLock()
        self._lookers: dict[str, Looker] = {}
        self._open = False
        self._scheduler = BackgroundScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": WAKES, "misfire_grace_time": None}
        )

    # ------------------------------------------------------------- as a door

    def start(self) -> None:
        with self._lock:
            self._open = True
            self._scheduler.start()
            self._follow(self._wanted)

    def drain(self) -> None:
        with self._lock:
            self._open = False
            if self._scheduler.running:
                self._scheduler.remove_all_jobs()
        for looker in self._all():
            looker.leave()

    def close(self) -> None:
        self.drain()
        if self._place.end(PATIENCE):
            self._memory.close()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def reload(self) -> None:
        self._secret = self._read_secret()
        with self._lock:
            self._wanted = read_rules(self._shared.config)
            if self._open:
                self._follow(self._wanted)

    def health(self) -> DoorHealth:
        lookers = self._all()
        enabled = [looker for looker in lookers if looker.rule.settings.enabled]
        troubles = [f"rule {looker.rule.name}: {looker.rest.trouble}" for looker in enabled if looker.rest.trouble]
        if trouble := self._place.reach.trouble:
            return DoorHealth(False, trouble)
        at_work = [f"job {attended.job}" for attended in self._place.at_work()]
        quiet = [f"rule {one.rule.name}: quiet until {end}" for one in enabled if (end := one.rest.quiet_until)]
        parts = [f"{len(enabled)} of {len(lookers)} rules look for work", *quiet, *troubles]
        if enabled and not self._place.reach.reached:
            parts.append("the server has not been asked yet")
        if at_work:
            parts.append(f"at work: {', '.join(at_work)}")
        # While one rule can work, the door can.
        return DoorHealth(not troubles or len(troubles) < len(enabled), "; ".join(parts))

    # --------------------------------------------------------------- webhooks

    def receive(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Takes an event of CVAT's: HTTP status and text of the answer.

        All rules that it can concern look soon: what one of them leaves, another may be for. The jobs at work that it
        can be about are looked at now.
        """
        try:
            event = read_event(body, headers, self._secret)
        except Refused as refused:
            return refused.status, str(refused)
        self._place.reach.heard()
        told = []
        if event.may_take_work and (jobs := self._place.look_at(event.job)):
            told.append(f"{jobs} jobs at work are looked at")
        if event.may_bring_work:
            concerned = [one for one in self._all() if one.rule.settings.enabled and one.rule.concerns(event)]
            for looker in concerned:
                if event.may_change_labels:
                    looker.forget_labels()
                self.wake(looker.rule.name, after=self._debounce)
            told.append(f"{len(concerned)} rules look")
        return 200, ", ".join(told) or "nothing to do"

    def wake(self, rule: str, *, after: float = 0.0, fresh: bool = True, why: str = "wake") -> None:
        """Lets a rule look soon; what else wakes it for the same reason until then is the same look."""
        with self._lock:
            looker = self._lookers.get(rule)
            if looker is None or not self._open:
                return
            name = f"{why}: {rule}"
            if self._scheduler.get_job(name) is not None:
                return
            moment = datetime.now(UTC) + timedelta(seconds=after)
            self._scheduler.add_job(looker.look, "date", run_date=moment, id=name, kwargs={"fresh": fresh})

    # ---------------------------------------------------------------- inside

    def _follow(self, rules: tuple[Rule, ...]) -> None:
        """Makes the lookers and their times those of the rules; what is at work for a rule that went, goes on."""
        wanted = {rule.name: rule for rule in rules}
        for name in [name for name, looker in self._lookers.items() if wanted.get(name) != looker.rule]:
            self._lookers.pop(name).leave()
            for job in (f"look: {name}", f"wake: {name}", f"go on: {name}", f"try again: {name}"):
                with suppress(JobLookupError):
                    self._scheduler.remove_job(job)
        for name, rule in wanted.items():
            if name in self._lookers:
                self._lookers[name].rest.forget()
                self.wake(name)
            else:
                self._lookers[name] = self._new(rule)

    def _new(self, rule: Rule) -> Looker:
        looker = Looker(
            self._place,
            rule,
            ended=lambda: self._free(rule.name),
            failed=lambda seconds: self.wake(rule.name, after=seconds, why="try again"),
        )
        every = rule.settings.every_seconds
        timing: dict[str, Any] = {"seconds": every, "jitter": min(every / 10, 10.0) if every >= 10 else None}
        self._scheduler.add_job(
            looker.look, "interval", **timing, id=f"look: {rule.name}", next_run_time=datetime.now(UTC)
        )
        return looker

    def _free(self, rule: str) -> None:
        """A place has become free: those that found none go first, then the rule whose place it was."""
        for looker in self._all():
            looker.freed()
            if looker.starved and looker.rule.name != rule:
                self.wake(looker.rule.name, fresh=False, why="go on")
        self.wake(rule, fresh=False, why="go on")

    def _all(self) -> list[Looker]:
        with self._lock:
            return list(self._lookers.values())

    def _read_secret(self) -> str | None:
        config = self._shared.config
        return secret(config.watch.webhook_secret_env, f"{config.file}: watch: webhook_secret_env")

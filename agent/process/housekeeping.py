"""The service's own work beside the doors': models loaded from the start, idle ones unloaded, old states and runs
forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from agent.doors import Shared
from agent.errors import SidecarError
from agent.pool.pool import RETRY_SECONDS
from agent.runs.pruning import prune

log = logging.getLogger(__name__)

SWEEP_SECONDS = 15.0
LONGEST_RETRY = 600.0
PRUNE_SECONDS = 3600.0
"""How often old runs are looked for."""


class Housekeeping:
    """Three threads: one loads models, and tries again what failed; one sweeps; one forgets old runs."""

    def __init__(
        self,
        shared: Shared,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
        retry: float = RETRY_SECONDS,
        prune_seconds: float = PRUNE_SECONDS,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._shared, self._sweep_seconds, self._retry, self._also = shared, sweep_seconds, retry, also
        self._prune_seconds = prune_seconds
        self._ended = threading.Event()
        self._look, self._look_at_runs = threading.Event(), threading.Event()
        work = {"models": self._load_models, "sweep": self._sweep, "prune": self._prune}
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in work.items()]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def look_again(self) -> None:
        """Loads what has come to be wanted, and forgets what need not be kept any more: settings have changed."""
        self._look.set()
        self._look_at_runs.set()

    def close(self) -> None:
        """Ends the threads; one that loads a model ends with it."""
        self._ended.set()
        self.look_again()

    def _load_models(self) -> None:
        wait = self._retry
        while not self._ended.is_set():
            done = False
            try:
                done = self._shared.pool.preload()
            except Exception:  # the thread must live on
                log.exception("models could not be loaded")
            # Also what was there, and could not come back when it was used, is to be seen soon.
            wait = self._retry if done else wait
            if self._look.wait(wait):
                self._look.clear()
                wait = self._retry
            else:
                wait = min(2 * wait, LONGEST_RETRY)

    def _sweep(self) -> None:
        while not self._ended.wait(self._sweep_seconds):
            try:
                self._shared.pool.sweep()
                self._also()
                if gone := self._shared.track_states.sweep():
                    log.info("%d tracking states forgotten", gone)
            except Exception:
                log.exception("the sweep broke off")

    def _prune(self) -> None:
        while not self._ended.is_set():
            self._look_at_runs.clear()
            if days := self._shared.config.service.keep_runs_days:
                try:
                    self._forget_runs(timedelta(days=days))
                except SidecarError as error:
                    log.warning("old runs stay for now: %s", error)
                except Exception:
                    log.exception("old runs stay for now")
            self._look_at_runs.wait(self._prune_seconds)

    def _forget_runs(self, age: timedelta) -> None:
        gone = prune(self._shared.ledger, age, ended=self._ended.is_set)
        if gone.runs or gone.backups:
            for line in gone.summary():
                log.info("older than %g days: %s", age / timedelta(days=1), line)

"""The service's own work beside the doors': models loaded from the start, idle ones unloaded, old states forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agent.doors import Shared
from agent.pool import RETRY_SECONDS

log = logging.getLogger(__name__)

SWEEP_SECONDS = 15.0
LONGEST_RETRY = 600.0


class Housekeeping:
    """Two threads: one loads models, and tries again what failed; one sweeps."""

    def __init__(
        self,
        shared: Shared,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
        retry: float = RETRY_SECONDS,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._shared, self._sweep_seconds, self._retry, self._also = shared, sweep_seconds, retry, also
        self._ended = threading.Event()
        self._look = threading.Event()
        work = {"models": self._load_models, "sweep": self._sweep}
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in work.items()]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def look_at_models(self) -> None:
        """Loads what has come to be wanted."""
        self._look.set()

    def close(self) -> None:
        """Ends the threads; one that loads a model ends with it."""
        self._ended.set()
        self._look.set()

    def _load_models(self) -> None:
        wait = self._retry
        while not self._ended.is_set():
            done = False
            try:
                done = self._shared.pool.preload()
            except Exception:  # the thread must live on
                log.exception("models could not be loaded")
            if self._look.wait(None if done else wait):
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

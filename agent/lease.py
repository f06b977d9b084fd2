"""The right to work on a request, and the duty to look up from the work now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from agent.errors import RequestCancelled


class Lease(Protocol):
    """What the flow knows of whoever asked: tell them how far we are, and hear whether they still want it."""

    def check_in(self, done: int, total: int) -> None:
        """Reports progress; raises RequestCancelled when the work is no longer wanted."""
        ...


class LocalLease:
    """A request of the person at this terminal, cancelled by Ctrl-C."""

    def __init__(self, stop: threading.Event, progress: Callable[[int, int], None] = lambda done, total: None):
        self._stop = stop
        self._progress = progress

    def check_in(self, done: int, total: int) -> None:
        self._progress(done, total)
        if self._stop.is_set():
            raise RequestCancelled(f"interrupted after {done} of {total} frames")

"""Weights being read: one model after the other, but nobody waits for ever for one that never comes to an end."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from agent.errors import ConfigError, ModelError, SidecarError
from agent.waiting import LOOK_SECONDS

log = logging.getLogger(__name__)


class Load:
    """One reading of a model's weights; all who need the model wait for the same one. The pool's lock guards it."""

    def __init__(self, model: str) -> None:
        self.ended: Future[None] = Future()
        """Whatever came of it."""
        self.error: SidecarError | None = None
        """Why the model cannot be loaded, where that came of it."""
        self._model = model
        self._reader: int | None = None
        self._began, self._late_at = 0.0, math.inf
        self._told = False

    def begin(self, now: float, seconds: float) -> bool:
        """Whether it is for this thread to read them: not where somebody has begun. It is late after so many seconds.

        ConfigError where this thread has begun: the model needs itself.
        """
        if self._reader == threading.get_ident():
            raise ConfigError(f"model {self._model!r}: it is a part of itself")
        if self._reader is not None:
            return False
        self._reader, self._began, self._late_at = threading.get_ident(), now, now + seconds
        return True

    def late(self, now: float) -> ModelError | None:
        """Why nobody should wait for it any more."""
        if now < self._late_at:
            return None
        error = ModelError(f"model {self._model}: it is still being loaded after {now - self._began:.0f} s")
        if not self._told:
            self._told = True
            log.warning("%s; what needs it fails until it is there", error)
        return error


class Turns:
    """Gives one thread after the other its turn; who keeps it for longer than `seconds` is waited for no longer."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._changed = threading.Condition()
        self._holder: object | None = None
        self._began = 0.0
        self._of_thread = threading.local()

    @property
    def mine(self) -> bool:
        """Whether this thread is within a turn: what it needs meanwhile is a part of it."""
        return getattr(self._of_thread, "inside", False)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn of this thread's, while the block runs."""
        turn = object()
        with self._changed:
            while self._holder is not None and self._clock() - self._began < self._seconds:
                self._changed.wait(LOOK_SECONDS)
            self._holder, self._began = turn, self._clock()
        self._of_thread.inside = True
        try:
            yield
        finally:
            self._of_thread.inside = False
            with self._changed:
                if self._holder is turn:
                    self._holder = None
                    self._changed.notify_all()

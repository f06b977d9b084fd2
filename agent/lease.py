"""The right to work on a request, and the duty to look up from the work now and then."""

from __future__ import annotations

import contextvars
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Protocol, TypeVar

from agent.errors import RequestCancelled, ServerRefused, ServerUnavailable
from agent.waiting import LOOK_SECONDS, await_result, begin_apart

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_PAUSE = 60.0
"""Seconds between two signs of life while the server does not take them."""
NOT_ABOUT_US = frozenset({401, 407, 408, 425, 429})
"""Refusals that say nothing about the request: who we are, proxies, haste."""


class Lease(Protocol):
    """What the flow knows of whoever asked: tell them how far we are, and hear whether they still want it."""

    def check_in(self, done: int, total: int) -> None:
        """Reports progress; raises RequestCancelled when the work is no longer wanted."""
        ...

    def wanted(self) -> bool:
        """Whether the work is still wanted, as far as that is known; asked often, in any thread, it must not wait."""
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

    def wanted(self) -> bool:
        return not self._stop.is_set()


class HeldLease:
    """A request that a server gave to us: a thread of its own tells it that we are still at it, while the block runs.

    `beat(share)` tells it, 0 to 1. Where the server refuses that, the request is lost: somebody cancelled it, or it was
    given to another. `checks` raise RequestCancelled where somebody here does not want it any more.
    """

    def __init__(
        self,
        beat: Callable[[float], None],
        *,
        every: float,
        progress: Callable[[int, int], None] = lambda done, total: None,
        checks: Sequence[Callable[[], None]] = (),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._beat, self._every, self._jitter = beat, every, jitter
        self._progress, self._checks = progress, checks
        self._share = 0.0
        self._lost: str | None = None
        self._changed = threading.Condition()
        self._ended = False

    @property
    def lost(self) -> bool:
        """Whether the server has taken the request back."""
        return self._lost is not None

    def check_in(self, done: int, total: int) -> None:
        self._share = done / total if total else 0.0
        self._progress(done, total)
        self.check()

    def check(self) -> None:
        """Raises RequestCancelled when the work is no longer wanted."""
        if self._lost is not None:
            raise RequestCancelled(self._lost)
        for check in self._checks:
            check()

    def wanted(self) -> bool:
        try:
            self.check()
        except RequestCancelled:
            return False
        return True

    def pause(self, seconds: float) -> None:
        """Waits, as long as the work is wanted."""
        end = time.monotonic() + seconds
        while True:
            self.check()
            if (left := end - time.monotonic()) <= 0:
                return
            with self._changed:
                self._changed.wait(min(left, LOOK_SECONDS))

    def result(self, future: Future[T]) -> T:
        """What a model answers, as long as it is wanted. RequestCancelled also where the model is gone."""
        try:
            return await_result(future, self.check)
        except CancelledError as error:
            self.check()
            raise RequestCancelled("the model was ended") from error
        finally:
            future.cancel()

    def fetched(self, fetch: Callable[[], T]) -> T:
        """What `fetch` gets of a server, as long as it is wanted: a silent one is left to a thread of its own."""
        return await_result(begin_apart(fetch, "fetch"), self.check)

    def __enter__(self) -> HeldLease:
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._run), name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # ----------------------------------------------------------- in the thread

    def _run(self) -> None:
        failures, wait = 0, self._every
        while self._sleep(wait):
            try:
                self._beat(self._share)
                failures, wait = 0, self._every
            except ServerRefused as error:
                if error.status not in NOT_ABOUT_US:
                    self._lose(error)
                    return
                failures, wait = failures + 1, self._pause_after(failures, None)
                log.warning("a sign of life was refused: %s", error)
            except ServerUnavailable as error:
                failures, wait = failures + 1, self._pause_after(failures, error.retry_after)
                log.info("a sign of life did not arrive: %s; the next one in %.1f s", error, wait)
            except Exception:  # whatever it is, the work itself must not suffer
                failures, wait = failures + 1, self._pause_after(failures, None)
                log.exception("a sign of life could not be sent")

    def _sleep(self, seconds: float) -> bool:
        """Waits; False when the block is left."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._ended, seconds)

    def _pause_after(self, failures: int, asked: float | None) -> float:
        if asked is not None:
            return min(asked, LONGEST_PAUSE) + self._jitter()
        # The first tries come soon: they are what keeps the request ours.
        return min(self._every, 2.0) * min(2.0 ** min(failures, 10), LONGEST_PAUSE / 2.0) * (0.5 + 0.5 * self._jitter())

    def _lose(self, error: ServerRefused) -> None:
        self._lost = "the server does not want it any more (cancelled, or given to another agent)"
        log.info("the request is not ours any more: %s", error)
        with self._changed:
            self._changed.notify_all()

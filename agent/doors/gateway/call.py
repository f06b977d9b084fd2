"""One call at the gateway: how long it may take, how it ends early, and which HTTP status its errors have."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from agent.activity import Request
from agent.doors.gateway.budget import Budget
from agent.errors import (
    BadPrediction,
    BadRequest,
    ModelError,
    RequestCancelled,
    RequestError,
    ServerError,
    SidecarError,
    public_message,
)

T = TypeVar("T")

MIB = 2**20
_LOOK = 0.5
"""Seconds after which a call that waits looks whether the status page has cancelled it."""


class Refused(BadRequest):
    """A call that is refused with a status of its own."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: BaseException) -> tuple[int, str]:
    """The HTTP status of an error, and the text that the caller may read."""
    if isinstance(error, Refused):
        return error.status, str(error)
    if isinstance(error, BadPrediction):
        return 500, public_message(error)
    if isinstance(error, ModelError | ServerError | RequestCancelled):
        return 503, public_message(error)
    if isinstance(error, RequestError):
        return 400, public_message(error)
    return 500, public_message(error)


def reason_of(error: BaseException) -> str:
    """The same for our own log, which may be told everything."""
    return str(error) if isinstance(error, SidecarError) else f"{type(error).__name__}: {error}"


class Call:
    """What a thread that works for a caller waits with: nobody waits longer than the caller does."""

    def __init__(
        self,
        seconds: float,
        *,
        megapixels: float = math.inf,
        memory: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds, self.megapixels = seconds, megapixels
        self.counts = False
        """Whether it has become a request, whose end is told by itself."""
        self._memory, self._taken, self._inside = memory, 0, 0
        self._clock, self._end = clock, clock() + seconds
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._why: Refused | None = None

    @property
    def left(self) -> float:
        """Seconds that the caller will still wait."""
        return max(0.0, self._end - self._clock())

    def give_up(self, why: Refused) -> None:
        """Ends the waiting: what has not begun never will."""
        with self._lock:
            self._why = self._why or why
            self._bell.set()

    def check(self) -> None:
        """Raises Refused once nobody waits any more."""
        if self._why is not None:
            raise self._why
        if not self.left:
            raise self.too_late()

    def too_late(self) -> Refused:
        return Refused(f"the model has not answered within {self.seconds:g} s", 504)

    def take(self, count: int) -> None:
        """Counts memory until the call has ended. Refused (429) where all calls together hold too much.

        A call that is alone may hold what it likes: its body and its picture have bounds of their own.
        """
        if self._memory is None:
            return
        if not self._memory.take(count, alone=self._taken):
            limit = self._memory.limit / MIB
            raise Refused(f"the calls that are being answered fill {limit:.3g} MiB, try again", 429)
        self._taken += count

    def __enter__(self) -> Call:
        with self._lock:
            self._inside += 1
        return self

    def __exit__(self, *exc: object) -> None:
        """Gives its memory back when the last one has left."""
        with self._lock:
            self._inside -= 1
            if self._inside or self._memory is None:
                return
            taken, self._taken = self._taken, 0
        self._memory.give(taken)

    def wait(self, future: Future[T], request: Request | None = None, *, keep: bool = False) -> T:
        """What the future gives. Refused (504, 503) where the time is over or the gateway closes; it is cancelled then,
        which takes it out of the model's queue, unless it is to be kept for others, who may be told of its end."""
        bell = threading.Event()
        with self._lock:
            self._bell = bell
            if self._why is not None:
                bell.set()
        future.add_done_callback(lambda _: bell.set())
        try:
            while not bell.wait(min(self.left, _LOOK)) and self.left:
                if request is not None:
                    request.check()
        except BaseException:
            if not keep:
                future.cancel()
            raise
        if not future.done():
            if not keep:
                future.cancel()
            self.check()
            raise self.too_late()
        try:
            return future.result()
        except CancelledError as error:
            if keep:
                raise
            raise Refused("the service ends, or the model was unloaded", 503) from error

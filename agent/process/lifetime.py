"""From the first signal to the exit code: reading again, the stop in two steps, and an end that never hangs.

The first SIGTERM or SIGINT takes nothing new and finishes what is held; the second one, or the end of the grace period,
gives up what is held; the third one does not even close anything.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""How often we look whether all is done."""
WAKE_SECONDS = 0.5
"""A signal that comes just before the main thread falls asleep does not wake it, so that it must not sleep for long."""
LAST_RESORT = 20.0
"""Seconds after which an end that does not come about is forced."""
GIVEN_UP = 130
"""Exit code where something that was held had to be given up."""
STOPS = (signal.SIGINT, signal.SIGTERM)


class Runs(Protocol):
    """What is to be run: agent.process.service.Service is one."""

    def reload(self) -> bool: ...
    def drain(self) -> None: ...
    def busy(self) -> bool: ...
    def close(self) -> None: ...


class Signals:
    """The signals that came within the block, one after the other; none of them ends the process by itself, but for the
    third stop."""

    def __init__(self) -> None:
        # A lock that the main thread may hold would be a trap for a handler; this queue has none.
        self._queue: SimpleQueue[int] = SimpleQueue()
        self._stops = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (*STOPS, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def next(self, timeout: float = WAKE_SECONDS) -> int | None:
        """The next signal, None where there is none for `timeout` seconds."""
        try:
            return self._queue.get(timeout=timeout)
        except Empty:
            return None

    def _handle(self, number: int, frame: object) -> None:
        if number in STOPS:
            self._stops += 1
            if self._stops > 2:
                os._exit(GIVEN_UP)
        self._queue.put(number)


def run_until_stopped(
    service: Runs,
    signals: Signals,
    grace: Callable[[], float],
    say: Callable[[str], None],
    force: Callable[[int], None] | None = None,
) -> int:
    """Runs an open service until it is told to stop; the exit code. It is closed at the end.

    `grace` are the seconds that a stop waits for what is held; `force` sees to an end that hangs.
    """
    while (number := signals.next()) not in STOPS:
        if number == signal.SIGHUP:
            # In a thread: a model that goes may first have to end its batch, and a stop must not wait for that.
            threading.Thread(target=_reload, args=(service,), name="reload", daemon=True).start()
    code = _stop(service, signals, grace(), say)
    (force or force_end)(code)
    service.close()
    say("stopped" if code == 0 else "stopped; what was held is given up, and may be taken by others")
    return code


def force_end(code: int) -> None:
    """Ends this process after a while, whatever hangs in it: threads, native code, the interpreter's own end."""

    def end() -> None:
        log.error("the end hangs, it is forced")
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(LAST_RESORT, end)
    timer.daemon = True
    timer.start()
    # For native code that keeps the interpreter's lock; no thread of Python's would get to run.
    faulthandler.dump_traceback_later(LAST_RESORT + 5, exit=True)


def _stop(service: Runs, signals: Signals, grace: float, say: Callable[[str], None]) -> int:
    draining = threading.Thread(target=service.drain, name="drain", daemon=True)
    draining.start()
    draining.join(LOOK_SECONDS)
    end, told = time.monotonic() + grace, False
    while draining.is_alive() or service.busy():
        if not told:
            say(f"stopping: what is held is finished first, within {grace:g} s; once more stops at once")
            told = True
        if (left := end - time.monotonic()) <= 0:
            say(f"{grace:g} s are over; stopping at once")
            return GIVEN_UP
        if signals.next(min(LOOK_SECONDS, left)) in STOPS:
            say("stopping at once")
            return GIVEN_UP
    return 0


def _reload(service: Runs) -> None:
    try:
        service.reload()
    except Exception:
        log.exception("service.toml could not be read again")

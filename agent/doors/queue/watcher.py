"""Listens to a function's event stream and rings the bell; comes back after a break, sooner at first than later."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable

from agent.cvat.events import Event, ReconnectAfter, read_events
from agent.cvat.functions_api import CATEGORIES, FunctionQueue
from agent.cvat.session import Stream
from agent.doors.queue.bell import Bell
from agent.errors import ServerError, ServerRefused

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
STEADY_SECONDS = 10.0
"""A stream that holds for so long is one that works; the next break starts from the shortest pause again."""


class Watcher:
    """A thread that reads the stream. `longest` tells the longest pause, in seconds, between two tries."""

    def __init__(
        self,
        queue: FunctionQueue,
        bell: Bell,
        longest: Callable[[], float],
        *,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue, self._bell, self._longest = queue, bell, longest
        self._jitter, self._clock = jitter, clock
        self._first = self._pause = FIRST_PAUSE
        self._stream: Stream | None = None
        self._opened = False
        """Whether the last try got as far as a stream."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{queue.function}", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the stream is there: then there is hardly a need to ask."""
        return self._stream is not None

    def start(self) -> None:
        self._thread.start()

    def close(self, patience: float) -> None:
        """Ends the thread, also while it waits for the server; after `patience` seconds it is left to itself."""
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._thread.is_alive():
            self._thread.join(patience)

    # ----------------------------------------------------------- in the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            longest = self._longest()
            try:
                self._listen()
                level = logging.DEBUG if self._stop.is_set() else logging.INFO
                log.log(level, "function %d: the event stream has ended", self._queue.function)
            except ServerRefused as error:
                # A server without such streams, or a function that is gone: asking tells.
                log.info("function %d: no event stream: %s", self._queue.function, error)
                longest *= 10
            except ServerError as error:
                # Without a server there is none: that it is away is told for all functions at once.
                what, level = ("broke", logging.INFO) if self._opened else ("cannot be opened", logging.DEBUG)
                log.log(level, "function %d: the event stream %s: %s", self._queue.function, what, error)
            except Exception:  # half deaf is worse than late: the thread lives on
                log.exception("function %d: the event stream cannot be read", self._queue.function)
            if self._stop.is_set():
                return
            self._bell.ring()
            pause = min(self._pause, longest)
            self._pause = min(2 * pause, longest)
            self._stop.wait(pause * (0.5 + self._jitter()))

    def _listen(self) -> None:
        self._opened = False
        stream = self._queue.watch()
        self._opened = True
        began = self._clock()
        with self._lock:
            self._stream = stream
            if self._stop.is_set():
                stream.close()
        log.info("function %d: watching its queue", self._queue.function)
        # What came in before the stream was there is not told by it.
        self._bell.ring()
        try:
            for message in read_events(stream):
                if isinstance(message, ReconnectAfter):
                    self._first = self._pause = min(max(message.seconds, 0.1), self._longest())
                else:
                    self._hear(message)
        finally:
            with self._lock:
                self._stream = None
            if self._clock() - began >= STEADY_SECONDS:
                self._pause = self._first

    def _hear(self, event: Event) -> None:
        if event.type != "newrequest":
            log.debug("function %d: an event of the type %r", self._queue.function, event.type)
            return
        try:
            category = json.loads(event.data)["request_category"]
        except (ValueError, KeyError, TypeError):
            category = None
        if category in CATEGORIES:
            self._bell.ring(category)
        else:
            # Whatever it is, something has come in.
            log.warning("function %d: an event without a known category", self._queue.function)
            self._bell.ring()

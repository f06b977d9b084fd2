"""Whether the server answers: told in the log once when that changes, for all functions of the door."""

from __future__ import annotations

import logging
import threading

from agent.errors import ServerUnavailable

log = logging.getLogger(__name__)


class Reach:
    """What the functions of a door know of the server. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._away: set[int] = set()
        """Functions whose last call was not answered."""
        self._reached = False

    @property
    def trouble(self) -> str:
        """What keeps a function from being served while its calls are not answered, for a person."""
        return (
            "the server cannot be reached" if self._reached else "waiting for the server, which cannot be reached yet"
        )

    def failed(self, function: int, error: ServerUnavailable) -> None:
        with self._lock:
            first, what = not self._away, "the server is away" if self._reached else "waiting for the server"
            self._away.add(function)
        if first:
            log.warning("queue: %s: %s", what, error)

    def answered(self, function: int) -> None:
        with self._lock:
            back = function in self._away and len(self._away) == 1
            first, self._reached = not self._reached, True
            self._away.discard(function)
        if first or back:
            log.info("queue: the server %s", "is reached" if first else "answers again")

    def forget(self, function: int) -> None:
        """The function is not served any more."""
        with self._lock:
            self._away.discard(function)

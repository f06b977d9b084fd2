"""What waits for a model: the most urgent first, calls that may be answered together at once."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from agent.contract import Context, Frame

INTERACTIVE, BATCH = 0, 1
"""Priorities: an interactive request goes before the next batch of a long one."""


def always() -> bool:
    """Whether work is wanted that nobody takes back."""
    return True


@dataclass(slots=True)
class Asked:
    """A call for the model."""

    priority: int
    answer: Future[Any] = field(default_factory=Future)
    work: Callable[[], Any] | None = None
    """What to do; or else frames for the detector, which may go with others."""
    frames: Sequence[Frame] = ()
    context: Context | None = None
    wanted: Callable[[], bool] = always
    caller: contextvars.Context = field(default_factory=contextvars.copy_context)
    """So that a log line of the model's names the request that it belongs to."""

    def goes_with(self, other: Asked) -> bool:
        """Whether the model may see both at once."""
        return self.context is not None and (self.priority, self.context) == (other.priority, other.context)

    def begins(self) -> bool:
        """Whether it is still wanted, now that its turn has come."""
        try:
            if not self.wanted():
                self.answer.cancel()
        except BaseException as error:  # the model's thread must live on; whoever waits gets the error
            if self.answer.set_running_or_notify_cancel():
                self.answer.set_exception(error)
            return False
        return self.answer.set_running_or_notify_cancel()


class Line:
    """Calls in the order of their turns. Threads may share it."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Asked]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, asked: Asked) -> None:
        """Lets it wait for its turn; it is cancelled where the line is closed, as nobody would ever come to it."""
        with self._changed:
            if self._closed:
                asked.answer.cancel()
                return
            heapq.heappush(self._waiting, (asked.priority, next(self._numbers), asked))
            self._changed.notify_all()

    def take(self, most: int) -> list[Asked]:
        """The most urgent call, once there is one, with others that go with it: up to `most` frames. [] when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            first = heapq.heappop(self._waiting)[2]
            together, staying, room = [first], [], most - len(first.frames)
            for row in sorted(self._waiting):
                if room > 0 and row[2].goes_with(first) and len(row[2].frames) <= room:
                    together.append(row[2])
                    room -= len(row[2].frames)
                else:
                    staying.append(row)
            self._waiting = staying  # in order, it is a heap
            return together

    def close(self) -> None:
        """Cancels all that waits, and all that will come."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for *_, asked in waiting:
            asked.answer.cancel()

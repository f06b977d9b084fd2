"""Lanes: how many requests are worked on at once, interactive ones apart from long ones.

A door claims a place before it asks anybody for work, so that nothing is acquired that would then wait here.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Lane:
    """A fixed number of places; each runs one piece of work in a thread of its own."""

    def __init__(self, name: str, places: int) -> None:
        self.name, self.places = name, places
        self._taken = 0
        self._closed = False
        self._changed = threading.Condition()
        self._hungry: dict[Callable[[], None], None] = {}
        """In the order in which they came."""

    @property
    def taken(self) -> int:
        """Places that are claimed or at work."""
        return self._taken

    def claim(self, timeout: float | None = 0.0) -> Claim | None:
        """A place, once one is free; None after `timeout` seconds, or when the lane is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._taken < self.places, timeout)
            if self._closed or self._taken >= self.places:
                return None
            self._taken += 1
            return Claim(self)

    def when_free(self, act: Callable[[], None]) -> None:
        """Calls `act` once, soon after a place has come free, or at once where one is; it must not wait.

        Who asks again before that is called once all the same.
        """
        with self._changed:
            if self._closed:
                return
            if self._taken >= self.places:
                self._hungry[act] = None
                return
        act()

    def close(self) -> None:
        """No more claims; what is at work goes on."""
        with self._changed:
            self._closed = True
            self._hungry = {}
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Waits until no place is taken: a claim may become work at any moment. False when that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._taken, timeout)

    def _start(self, work: Callable[[], None]) -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: self._run(context, work), name=f"lane-{self.name}", daemon=True)
        try:
            thread.start()
        except BaseException:  # the machine has no more threads: the place must not be lost with this one
            self._release()
            raise

    def _run(self, context: contextvars.Context, work: Callable[[], None]) -> None:
        try:
            context.run(work)
        except Exception:  # whoever works here tells its own errors; this is the last net
            log.exception("a request of the lane %s broke off", self.name)
        finally:
            self._release()

    def _release(self) -> None:
        with self._changed:
            self._taken -= 1
            acts, self._hungry = self._hungry, {}
            self._changed.notify_all()
        for act in acts:
            try:
                act()
            except Exception:  # one of those who wait must not cost the others their turn
                log.exception("lane %s: whoever waited for a place could not be told", self.name)


class Claim:
    """A place in a lane: run something in it, or give it back. Leaving its block gives it back if nothing was run."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._open = True

    def run(self, work: Callable[[], None]) -> None:
        """Runs `work` in a thread; the place is free again when it ends."""
        if not self._open:
            raise RuntimeError("this place was given back already")
        self._open = False
        self._lane._start(work)

    def release(self) -> None:
        if self._open:
            self._open = False
            self._lane._release()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class Lanes:
    """The two lanes of a process."""

    def __init__(self, *, interactive: int, batch: int) -> None:
        self.interactive = Lane("interactive", interactive)
        self.batch = Lane("batch", batch)

    def close(self) -> None:
        self.interactive.close()
        self.batch.close()

    def join(self, timeout: float) -> bool:
        end = time.monotonic() + timeout
        return self.interactive.join(timeout) and self.batch.join(max(0.0, end - time.monotonic()))

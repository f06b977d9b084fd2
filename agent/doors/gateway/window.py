"""The answers of one run that are ready or on their way, by what their pictures are.

A call does not tell its frame. What was read ahead is recognised by the very bytes of the picture file, or, for frames
of a video, by each of its pixels: an answer is given for the same picture or for none.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field

from agent.contract import Detection

KEPT = 4
"""Answers that stay when the calls have gone past them; some ask twice."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said of a frame, filtered."""

    kept: list[Detection]
    size: tuple[int, int]
    written: bytes | None = None
    """The reply, where it depends on nothing that only the call knows."""


@dataclass(eq=False, slots=True)
class Entry:
    """A frame that was given to the model."""

    place: int
    """In the order in which CVAT asks."""
    digest: str
    bytes: int
    """Of memory: first the frame's, then the answer's."""
    answer: Future[Answer] = field(default_factory=Future)


class Window:
    """The entries between the call that came last and the frame that was read last. Threads may share it."""

    def __init__(self) -> None:
        self.at = -1
        """The place of the last call that was recognised."""
        self.since = 0
        """Calls after it that were not."""
        self.changed = threading.Condition()
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._places: dict[str, list[int]] = {}

    @property
    def current(self) -> int:
        """Where CVAT is, as far as we can tell: it asks for one frame after the other."""
        return self.at + self.since

    def open(self, place: int) -> None:
        """The call that came first was for this place; those that have come since go on from there."""
        with self.changed:
            self.at = place

    def add(self, entry: Entry) -> None:
        with self.changed:
            self._entries[entry.place] = entry
            self._places.setdefault(entry.digest, []).append(entry.place)

    def find(self, digest: str) -> Entry | None:
        """The entry of a call's picture; the calls are there now."""
        with self.changed:
            places = self._places.get(digest)
            if not places:
                self.since += 1
                self.changed.notify_all()
                return None
            # Of several that look the same the next one.
            place = next((place for place in places if place > self.at), places[-1])
            if place > self.at:
                self.at, self.since = place, 0
                self.changed.notify_all()
            return self._entries[place]

    def drop_passed(self) -> list[Entry]:
        """Takes out the entries that CVAT has gone past."""
        with self.changed:
            passed = [entry for place, entry in self._entries.items() if place < self.at - KEPT]
            return [self._drop(entry) for entry in passed if entry.answer.done()]

    def clear(self) -> list[Entry]:
        """Takes out all; who waits for one is told that there will be none."""
        with self.changed:
            entries = [self._drop(entry) for entry in list(self._entries.values())]
        for entry in entries:
            entry.answer.cancel()
        return entries

    def _drop(self, entry: Entry) -> Entry:
        del self._entries[entry.place]
        places = self._places[entry.digest]
        places.remove(entry.place)
        if not places:
            del self._places[entry.digest]
        return entry

"""One pass over chunks: downloaded and decoded by threads of their own, read in order, in bounded memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.cvat.chunks import BadFrame, Chunk, decode_chunk
from agent.cvat.single_frames import SERVER_ERROR
from agent.domain import Frame
from agent.errors import RequestCancelled, ServerUnavailable
from agent.waiting import LOOK_SECONDS

log = logging.getLogger(__name__)

LATER_SHARE = 0.75
"""What of it chunks may take that are not being read yet: the one that is read needs room to stay ahead."""
PATIENCE = 2.0
"""Seconds that ending waits for threads that are at work here."""
SILENT_PATIENCE = 0.25
"""And for those that the server keeps waiting: they end by themselves, with its answer or its time-out."""


@dataclass(eq=False, slots=True)
class _Lane:
    """A chunk on its way: first bytes, then decoded frames."""

    chunk: Chunk
    content: bytes | None = None
    refused: ServerUnavailable | None = None
    """Why the server cannot make the chunk as a whole."""
    frames: deque[Frame | BadFrame] = field(default_factory=deque)
    decoding: bool = False
    ended: bool = False
    error: BaseException | None = None


class Reading:
    """One pass over the wanted frames: what its threads have in hand, all of it under one condition.

    Lanes are begun, decoded and read in the order of their chunks, so the one that is read always has a decoder; and
    its next frame always finds room. Whatever later lanes hold, the reader cannot wait for them in vain.
    """

    def __init__(
        self,
        chunks: deque[Chunk],
        fetch: Callable[[Chunk, threading.Event], bytes],
        fetch_singly: Callable[[Chunk, ServerUnavailable, threading.Event], Iterator[Frame | BadFrame]],
        *,
        limit: int,
        waiting_chunks: int,
        wanted: Callable[[], bool],
        digests: bool = False,
    ) -> None:
        self._left, self._fetch, self._fetch_singly = chunks, fetch, fetch_singly
        self._limit, self._digests, self._wanted = limit, digests, wanted
        self._waiting_chunks = waiting_chunks  # how many may be on their way or lie undecoded
        self._changed = threading.Condition()
        self._lanes: deque[_Lane] = deque()
        self._held = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._here = 0
        """How many of them the server does not keep waiting."""
        self._broken: BaseException | None = None

    def start(self, downloads: int, decoders: int) -> None:
        """Starts the threads; a few frames need no more of them than they have chunks."""
        chunks = len(self._left)
        for name, work, count in (("download", self._download, downloads), ("decode", self._decode, decoders)):
            for number in range(min(count, chunks)):
                thread = threading.Thread(target=self._run, args=(work,), name=f"{name}-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def close(self) -> None:
        """Ends the threads and forgets what they had in hand."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._here, PATIENCE)
        end = time.monotonic() + SILENT_PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                log.debug("%s still waits for the server", thread.name)
        self._lanes.clear()

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        while (frame := self._take()) is not None:
            yield frame

    def _take(self) -> Frame | BadFrame | None:
        """The next frame, None after the last one. Raises what went wrong with its chunk."""
        with self._changed:
            while not self._stop.is_set():
                if self._broken is not None:
                    raise self._broken
                if not self._lanes and not self._left:
                    return None
                lane = self._lanes[0] if self._lanes else None
                if lane and lane.frames:
                    frame = lane.frames.popleft()
                    self._held -= _bytes_of(frame)
                    self._changed.notify_all()
                    return frame
                if lane and lane.ended:
                    self._lanes.popleft()
                    self._changed.notify_all()
                    if lane.error is not None:
                        raise lane.error
                    continue
                if not self._wanted():
                    raise RequestCancelled("nobody waits for the frames any more")
                self._changed.wait(LOOK_SECONDS)
        return None

    # ---------------------------------------------------------- in the threads

    def _run(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._here += 1
        try:
            work()
        except BaseException as error:  # the reader must not wait for a thread that is gone
            self._broken = error
        finally:
            with self._changed:
                self._here -= 1
                self._changed.notify_all()

    @contextmanager
    def _away(self) -> Iterator[None]:
        """While the thread is in the server's hands."""
        with self._changed:
            self._here -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._here += 1

    def _download(self) -> None:
        while (lane := self._begin(self._room_for_chunk, self._new_lane)) is not None:
            refused, content = None, b""
            try:
                with self._away():
                    content = self._fetch(lane.chunk, self._stop)
            except BaseException as error:  # raised where the frames are asked for
                if not (isinstance(error, ServerUnavailable) and error.status == SERVER_ERROR):
                    self._end(lane, error)
                    return
                refused = error
            with self._changed:
                lane.content, lane.refused = content, refused
                self._changed.notify_all()

    def _decode(self) -> None:
        while (lane := self._begin(self._next_decodable, self._to_decode)) is not None:
            content, lane.content = lane.content or b"", None
            try:
                for frame in self._frames(lane, content):
                    if not self._put(lane, frame):
                        return
                self._end(lane)
            except BaseException as error:  # as above
                self._end(lane, error)

    def _frames(self, lane: _Lane, content: bytes) -> Iterator[Frame | BadFrame]:
        if lane.refused is not None:
            return self._fetched_singly(lane.chunk, lane.refused)
        return decode_chunk(lane.chunk, content, digests=self._digests)

    def _fetched_singly(self, chunk: Chunk, why: ServerUnavailable) -> Iterator[Frame | BadFrame]:
        frames = self._fetch_singly(chunk, why, self._stop)
        while True:
            with self._away():
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _begin(self, may: Callable[[], bool], begin: Callable[[], _Lane | None]) -> _Lane | None:
        """What a thread is to do next, once it may; None when there is nothing left."""
        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or may())
            return None if self._stop.is_set() else begin()

    def _room_for_chunk(self) -> bool:
        waiting = [lane for lane in self._lanes if not lane.decoding and not lane.ended]
        bytes_ = sum(len(lane.content) for lane in waiting if lane.content is not None)
        return not self._left or not waiting or (len(waiting) < self._waiting_chunks and bytes_ < self._limit)

    def _new_lane(self) -> _Lane | None:
        if not self._left:
            return None
        lane = _Lane(self._left.popleft())
        self._lanes.append(lane)
        return lane

    def _first_waiting(self) -> _Lane | None:
        return next((lane for lane in self._lanes if not lane.decoding and not lane.ended), None)

    def _next_decodable(self) -> bool:
        # Strictly in order: decoders busy with later chunks could fill the room that this one needs.
        lane = self._first_waiting()
        return lane.content is not None if lane else not self._left

    def _to_decode(self) -> _Lane | None:
        lane = self._first_waiting()
        if lane is not None:
            lane.decoding = True
            self._changed.notify_all()
        return lane

    def _put(self, lane: _Lane, frame: Frame | BadFrame) -> bool:
        size = _bytes_of(frame)

        def room() -> bool:
            if lane is self._lanes[0]:
                return not lane.frames or self._held + size <= self._limit
            return self._held + size <= self._limit * LATER_SHARE

        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or room())
            if self._stop.is_set():
                return False
            lane.frames.append(frame)
            self._held += size
            self._changed.notify_all()
        return True

    def _end(self, lane: _Lane, error: BaseException | None = None) -> None:
        with self._changed:
            lane.ended, lane.error = True, error
            self._changed.notify_all()


def _bytes_of(frame: Frame | BadFrame) -> int:
    return int(frame.image.nbytes) if isinstance(frame, Frame) else 0

"""Frames by the chunk, downloaded and decoded ahead of whoever asks for them, in bounded memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from agent.cvat.chunks import BadFrame, Chunk, chunks_of, decode_chunk, download
from agent.cvat.session import Session
from agent.cvat.single_frames import SERVER_ERROR, fetch_frame, one_by_one
from agent.cvat.work import JobWork
from agent.domain import Frame
from agent.errors import ServerUnavailable

__all__ = ["BadFrame", "ChunkFrames", "fetch_frame"]

log = logging.getLogger(__name__)

AHEAD_BYTES = 128 * 2**20
"""How much decoded pictures may take that nobody has asked for yet."""
LATER_SHARE = 0.75
"""What of it chunks may take that are not being read yet: the one that is read needs room to stay ahead."""
PATIENCE = 2.0
"""Seconds that ending waits for threads; one that hangs in a silent connection ends by itself, with its time-out."""


class ChunkFrames:
    """The frames of jobs, in the order in which they are wanted."""

    def __init__(
        self,
        session: Session,
        *,
        quality: str = "compressed",
        downloads: int = 2,
        decoders: int = 2,
        ahead_bytes: int = AHEAD_BYTES,
        digests: bool = False,
    ) -> None:
        self._session = session
        self._digests = digests
        self._quality = quality
        self._downloads, self._decoders = downloads, decoders
        self._ahead_bytes = ahead_bytes
        self._open: set[_Reading] = set()

    def read(self, wanted: Iterable[tuple[JobWork, int]]) -> Iterator[Frame | BadFrame]:
        """Each wanted frame once, or why it cannot be had. ServerError where a whole chunk cannot be had.

        Chunks are downloaded and decoded by threads of their own, which end when the iterator or this source is closed.
        Frames that share a chunk should be neighbours: each time that the chunk changes, one is downloaded.
        """
        reading = _Reading(
            deque(chunks_of(wanted)),
            lambda chunk, stop: download(self._session, chunk, self._quality, stop),
            lambda chunk, why, stop: one_by_one(self._session, chunk, why, stop),
            limit=self._ahead_bytes,
            digests=self._digests,
            waiting_chunks=self._downloads,
        )
        self._open.add(reading)
        try:
            reading.start(self._downloads, self._decoders)
            yield from reading
        finally:
            reading.close()
            self._open.discard(reading)

    def close(self) -> None:
        """Ends what is still being read."""
        for reading in list(self._open):
            reading.close()

    def __enter__(self) -> ChunkFrames:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


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


class _Reading:
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
        digests: bool = False,
    ) -> None:
        self._left, self._fetch, self._fetch_singly = chunks, fetch, fetch_singly
        self._limit, self._digests = limit, digests
        self._waiting_chunks = waiting_chunks  # how many may be on their way or lie undecoded
        self._changed = threading.Condition()
        self._lanes: deque[_Lane] = deque()
        self._held = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, downloads: int, decoders: int) -> None:
        """Starts the threads; a few frames need no more of them than they have chunks."""
        kinds = [("download", self._download, downloads), ("decode", self._decode, decoders)]
        for name, work, count in kinds:
            for number in range(min(count, len(self._left))):
                thread = threading.Thread(target=work, name=f"{name}-{number}", daemon=True)
                self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads and forgets what they had in hand."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        end = time.monotonic() + PATIENCE
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
                self._changed.wait()
        return None

    # ---------------------------------------------------------- in the threads

    def _download(self) -> None:
        while (lane := self._begin(self._room_for_chunk, self._new_lane)) is not None:
            refused, content = None, b""
            try:
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
            return self._fetch_singly(lane.chunk, lane.refused, self._stop)
        return decode_chunk(lane.chunk, content, digests=self._digests)

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

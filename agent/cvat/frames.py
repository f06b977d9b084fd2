"""Frames by the chunk, downloaded and decoded ahead of whoever asks for them, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from agent.cvat.chunks import BadFrame, Chunk, chunks_of, decode_chunk, download
from agent.cvat.decode import BadPicture, decode_picture
from agent.cvat.session import Session
from agent.cvat.work import JobWork
from agent.domain import Frame

__all__ = ["BadFrame", "ChunkFrames", "fetch_frame"]

AHEAD_BYTES = 192 * 2**20
"""How much decoded pictures may take that nobody has asked for yet."""


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
    ) -> None:
        self._session = session
        self._quality = quality
        self._downloads, self._decoders = downloads, decoders
        self._lane_bytes = max(1, ahead_bytes // decoders)

    def read(self, wanted: Iterable[tuple[JobWork, int]]) -> Iterator[Frame | BadFrame]:
        """Each wanted frame once, or why it cannot be had. ServerError where a whole chunk cannot be had.

        Chunks are downloaded and decoded by threads of their own. They end when the iterator is closed.
        """
        chunks = chunks_of(wanted)
        stop = threading.Event()
        lanes: deque[_Lane] = deque()
        coming: deque[tuple[Chunk, Future[bytes]]] = deque()
        with (
            ThreadPoolExecutor(self._downloads, thread_name_prefix="download") as downloaders,
            ThreadPoolExecutor(self._decoders, thread_name_prefix="decode") as decoders,
        ):

            def look_ahead() -> None:
                while len(coming) < self._downloads and (chunk := next(chunks, None)) is not None:
                    coming.append((chunk, downloaders.submit(download, self._session, chunk, self._quality)))
                while coming and len(lanes) < self._decoders:
                    lane = _Lane(*coming.popleft(), self._lane_bytes, stop)
                    decoders.submit(lane.fill)
                    lanes.append(lane)

            try:
                look_ahead()
                look_ahead()
                while lanes:
                    lane = lanes.popleft()
                    look_ahead()
                    yield from lane
            finally:
                stop.set()
                for lane in lanes:
                    lane.wake()
                downloaders.shutdown(wait=False, cancel_futures=True)
                decoders.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> ChunkFrames:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing outlives an iterator; the class is a context manager so that sources can need closing."""


class _Lane:
    """The decoded frames of one chunk between the thread that decodes and the one that asks, bounded in bytes."""

    def __init__(self, chunk: Chunk, content: Future[bytes], limit: int, stop: threading.Event) -> None:
        self._chunk, self._content, self._limit, self._stop = chunk, content, limit, stop
        self._frames: deque[Frame | BadFrame] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    def fill(self) -> None:
        """Decodes the chunk; waits while there is enough."""
        try:
            content = self._content.result()
            for frame in decode_chunk(self._chunk, content):
                if not self._put(frame):
                    break
        except BaseException as error:  # raised where the frames are asked for
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, frame: Frame | BadFrame) -> bool:
        size = _bytes_of(frame)
        with self._changed:
            # One frame always fits, however large.
            self._changed.wait_for(lambda: self._stop.is_set() or not self._bytes or self._bytes + size <= self._limit)
            if self._stop.is_set():
                return False
            self._frames.append(frame)
            self._bytes += size
            self._changed.notify_all()
        return True

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        try:
            while (frame := self._take()) is not None:
                yield frame
        finally:
            if not self._ended:
                self._stop.set()
                self.wake()
        if self._error is not None:
            raise self._error

    def _take(self) -> Frame | BadFrame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._bytes -= _bytes_of(frame)
            self._changed.notify_all()
            return frame

    def wake(self) -> None:
        """Lets the decoding thread see that it is to stop."""
        with self._changed:
            self._changed.notify_all()


def _bytes_of(frame: Frame | BadFrame) -> int:
    return int(frame.image.nbytes) if isinstance(frame, Frame) else 0


def fetch_frame(session: Session, job: JobWork, number: int, *, quality: str = "original") -> Frame | BadFrame:
    """One frame by itself; ten times slower than by the chunk, but at once."""
    query = {"type": "frame", "number": number, "quality": quality}
    reply = session.request("GET", f"/api/jobs/{job.id}/data", query=query)
    try:
        return Frame(number, job.name_of(number), decode_picture(reply.body))
    except BadPicture as error:
        return BadFrame(number, job.name_of(number), str(error))

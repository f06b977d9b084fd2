"""Frames by the chunk, downloaded and decoded ahead of whoever asks for them, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from agent.cvat.chunks import BadFrame, chunks_of, download
from agent.cvat.reading_ahead import Reading
from agent.cvat.session import Session
from agent.cvat.single_frames import fetch_frame, one_by_one
from agent.cvat.work import JobWork
from agent.domain import Frame

__all__ = ["BadFrame", "ChunkFrames", "fetch_frame"]

AHEAD_BYTES = 128 * 2**20
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
        digests: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._session = session
        self._digests, self._wanted = digests, wanted
        self._quality = quality
        self._downloads, self._decoders = downloads, decoders
        self._ahead_bytes = ahead_bytes
        self._open: set[Reading] = set()

    def read(self, wanted: Iterable[tuple[JobWork, int]]) -> Iterator[Frame | BadFrame]:
        """Each wanted frame once, or why it cannot be had. ServerError where a whole chunk cannot be had.

        RequestCancelled where none is waited for any more, as `wanted` says; it is asked often, and by nobody else.
        Chunks are downloaded and decoded by threads of their own, which end when the iterator or this source is closed.
        Frames that share a chunk should be neighbours: each time that the chunk changes, one is downloaded.
        """
        reading = Reading(
            deque(chunks_of(wanted)),
            lambda chunk, stop: download(self._session, chunk, self._quality, stop),
            lambda chunk, why, stop: one_by_one(self._session, chunk, why, stop),
            limit=self._ahead_bytes,
            digests=self._digests,
            wanted=self._wanted,
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

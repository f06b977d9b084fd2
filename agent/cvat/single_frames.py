"""Single frames, for people who wait: downloaded by themselves, and kept for the next click."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.cvat.chunks import BadFrame, Chunk
from agent.cvat.decode import BadPicture, decode_picture
from agent.cvat.session import Session
from agent.cvat.work import JobWork
from agent.domain import Frame
from agent.errors import BadRequest, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

SERVER_ERROR = 500
SINGLE_RETRIES = 2
KEEP_SECONDS = 900.0
"""A picture hardly ever changes, but it can: CVAT may show another one for a frame of known truth."""


def fetch_frame(session: Session, job: JobWork, number: int, *, quality: str = "original") -> Frame | BadFrame:
    """One frame by itself; ten times slower than by the chunk, but at once."""
    return _frame_or_why(_download(session, job, number, quality), job, number)


def one_by_one(
    session: Session, chunk: Chunk, why: ServerUnavailable, stop: threading.Event
) -> Iterator[Frame | BadFrame]:
    """The wanted frames of a chunk that the server cannot make (`why`): a corrupt picture costs the server the chunk.

    Raises `why` where the server can give none of them.
    """
    log.info("%s: %s; its frames are fetched one by one", chunk, why)
    failed: list[BadFrame] = []
    given = False
    for number, _ in chunk.wanted:
        try:
            # The original is handed out as it was uploaded; we can see for ourselves that it is no picture.
            content = _download(session, chunk.job, number, "original", retries=SINGLE_RETRIES, stop=stop)
        except ServerUnavailable as error:
            if error.status != SERVER_ERROR:
                raise
            failed.append(BadFrame(number, chunk.job.name_of(number), "the server cannot give it (status 500)"))
            continue
        given = True
        yield from failed
        failed = []
        yield _frame_or_why(content, chunk.job, number)
    if failed and not given:
        raise why
    yield from failed


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame, and a name for what is to be seen on it."""

    frame: Frame
    digest: str


@dataclass(slots=True)
class _Slot:
    """A frame that is kept, or on its way; who comes second waits for whoever came first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    kept: KeptFrame | None = None
    fetched: float = 0.0
    waiting: int = 0


class FrameCache:
    """The frames that people look at, up to a number of bytes. Threads may share it."""

    def __init__(
        self,
        session: Session,
        limit: int,
        *,
        quality: str = "compressed",
        keep: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._quality = session, quality
        self._limit, self._keep, self._clock = limit, keep, clock
        self._slots: OrderedDict[tuple[int, int], _Slot] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, job: JobWork, number: int) -> KeptFrame:
        """A frame of a job. BadRequest where it is no picture, ServerError where it cannot be had."""
        with self._slot((job.id, number)) as slot:
            if slot.kept is None or self._clock() - slot.fetched >= self._keep:
                content = self._fetch(job, number)
                digest = hashlib.blake2b(content, digest_size=16).hexdigest()
                try:
                    found = KeptFrame(_decoded(content, job, number), digest)
                except BadPicture as error:
                    raise BadRequest(f"frame {number}: {error}") from error
                self._keep_in(slot, found)
            return slot.kept  # type: ignore[return-value]

    def set_limit(self, limit: int) -> None:
        """Another number of bytes."""
        with self._lock:
            self._limit = limit
            self._make_room()

    def _fetch(self, job: JobWork, number: int) -> bytes:
        try:
            return _download(self._session, job, number, self._quality, retries=SINGLE_RETRIES)
        except ServerUnavailable as error:
            if error.status != SERVER_ERROR:
                raise
        # A picture that the server cannot compress can still be what we can read, or tell why not.
        return _download(self._session, job, number, "original")

    @contextmanager
    def _slot(self, key: tuple[int, int]) -> Iterator[_Slot]:
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            slot.waiting += 1
        try:
            with slot.lock:
                yield slot
        finally:
            with self._lock:
                slot.waiting -= 1
                self._make_room()

    def _keep_in(self, slot: _Slot, found: KeptFrame) -> None:
        with self._lock:
            self.bytes += _size(found) - _size(slot.kept)
            slot.kept, slot.fetched = found, self._clock()

    def _make_room(self) -> None:
        """Forgets what was not asked for for longest, and slots that came to nothing; under the lock."""
        for key, slot in list(self._slots.items()):
            if not slot.waiting and (slot.kept is None or self.bytes > self._limit):
                self.bytes -= _size(slot.kept)
                del self._slots[key]


def _size(kept: KeptFrame | None) -> int:
    return int(kept.frame.image.nbytes) if kept is not None else 0


def _download(session: Session, job: JobWork, number: int, quality: str, **how: Any) -> bytes:
    query = {"type": "frame", "number": number, "quality": quality}
    return session.request("GET", f"/api/jobs/{job.id}/data", query=query, **how).body


def _frame_or_why(content: bytes, job: JobWork, number: int) -> Frame | BadFrame:
    try:
        return _decoded(content, job, number)
    except BadPicture as error:
        return BadFrame(number, job.name_of(number), str(error))


def _decoded(content: bytes, job: JobWork, number: int) -> Frame:
    return Frame(number, job.name_of(number), decode_picture(content, job.size_of(number)))

"""Chunks: which ones hold the wanted frames, their bytes, and the frames in them."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.cvat.decode import BadPicture, decode_picture, decode_video
from agent.cvat.session import Session
from agent.cvat.work import JobWork
from agent.domain import Frame
from agent.errors import ServerUnavailable

log = logging.getLogger(__name__)

DOWNLOADS = 3
"""How often a chunk is fetched whose checksum does not fit."""


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A frame that cannot be had as a picture."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a job, and which of its frames are wanted: (frame number, place in the chunk)."""

    job: JobWork
    index: int
    wanted: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return f"job {self.job.id}, chunk {self.index}"

    @property
    def length(self) -> int:
        """How many frames it holds."""
        begin = self.index * self.job.chunk_size
        return min(self.job.chunk_size, len(self.job.positions) - begin)


def chunks_of(wanted: Iterable[tuple[JobWork, int]]) -> Iterator[Chunk]:
    """The chunks that hold the wanted frames, in the frames' order; neighbours in one chunk share it.

    The places within a chunk ascend, so that a video can be decoded as it runs; where the order goes back, the chunk
    comes once more.
    """
    job: JobWork | None = None
    index, places = -1, list[tuple[int, int]]()
    numbers: dict[int, int] = {}
    for next_job, frame in wanted:
        if next_job is not job:
            if job is not None and places:
                yield Chunk(job, index, tuple(places))
            job, index, places = next_job, -1, []
            numbers = {number: position for position, number in enumerate(job.positions)} if job.included else {}
        position = numbers[frame] if job.included else frame - job.start
        chunk, place = divmod(position, job.chunk_size)
        if places and (chunk != index or place <= places[-1][1]):
            yield Chunk(job, index, tuple(places))
            places = []
        index = chunk
        places.append((frame, place))
    if job is not None and places:
        yield Chunk(job, index, tuple(places))


def download(session: Session, chunk: Chunk, quality: str, stop: threading.Event | None = None) -> bytes:
    """The chunk's bytes, by the job's endpoint. ServerError where they cannot be had; `stop` ends the call."""
    query = {"type": "chunk", "index": chunk.index, "quality": quality}
    seen = set[str]()
    for _ in range(DOWNLOADS):
        reply = session.request("GET", f"/api/jobs/{chunk.job.id}/data", query=query, stop=stop)
        expected, got = reply.headers.get("X-Checksum"), str(zlib.crc32(reply.body))
        if expected is None or got == expected.strip():
            return reply.body
        log.info("%s: its checksum does not fit", chunk)
        if got in seen:
            # Twice the same bytes: then it is the checksum that is off, and decoding will tell.
            return reply.body
        seen.add(got)
    raise ServerUnavailable(f"{chunk}: it arrives damaged, {DOWNLOADS} times another way", maybe_done=False)


def digest_of(content: bytes) -> str:
    """Names the bytes of a file."""
    return hashlib.sha256(content, usedforsecurity=False).hexdigest()


def decode_chunk(chunk: Chunk, content: bytes, *, digests: bool = False) -> Iterator[Frame | BadFrame]:
    """The wanted frames of a chunk, in order; one that is damaged does not cost the others.

    With `digests`, those of pictures tell the file that they were; a video's frames have none.
    ServerUnavailable where the chunk as a whole is not what the server should send.
    """
    if content[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _from_zip(chunk, content, digests)
    else:
        yield from _from_video(chunk, content)


def _from_zip(chunk: Chunk, content: bytes, digests: bool) -> Iterator[Frame | BadFrame]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, OSError) as error:
        raise ServerUnavailable(f"{chunk}: it is no readable zip", maybe_done=False) from error
    with archive:
        members = _by_place(chunk, archive.namelist())
        for number, place in chunk.wanted:
            name = chunk.job.name_of(number)
            if place not in members:
                yield BadFrame(number, name, f"its chunk has {len(members)} pictures, expected {chunk.length}")
                continue
            try:
                file = archive.read(members[place])
                image = decode_picture(file, chunk.job.size_of(number))
                yield Frame(number, name, image, digest_of(file) if digests else None)
            except (BadPicture, zipfile.BadZipFile, zlib.error, OSError, NotImplementedError) as error:
                yield BadFrame(number, name, str(error))


def _by_place(chunk: Chunk, names: Sequence[str]) -> dict[int, str]:
    """Place in the chunk -> member. Members stand in frame order; where some are missing, their numbers tell."""
    if len(names) == chunk.length:
        return dict(enumerate(names))
    numbers = {name: re.search(r"(\d+)\.\w+$", name) for name in names}
    return {int(found[1]): name for name, found in numbers.items() if found}


def _from_video(chunk: Chunk, content: bytes) -> Iterator[Frame | BadFrame]:
    wanted = {place: number for number, place in chunk.wanted}
    given = set[int]()
    try:
        for place, image in decode_video(content, wanted, chunk.job.size_of(chunk.wanted[0][0])):
            given.add(place)
            yield Frame(wanted[place], chunk.job.name_of(wanted[place]), image)
        reason = f"its video chunk ends before it, expected {chunk.length} frames"
    except BadPicture as error:
        reason = str(error)
    for place, number in wanted.items():
        if place not in given:
            yield BadFrame(number, chunk.job.name_of(number), reason)

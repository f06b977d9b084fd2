"""Chunks: built when first asked for, kept as files."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from av.video.frame import VideoFrame

from agent.sandbox import pictures, video
from agent.sandbox.records import Data
from agent.sandbox.state import State

_locks: dict[str, threading.Lock] = {}
_guard = threading.Lock()
QUALITIES = ("original", "compressed")
# Quality of a video's original chunks; the source itself is never sent.
_ORIGINAL_VIDEO = 67


def chunk_type(data: Data, quality: str) -> str:
    """Whether a quality's chunks are `video` or `imageset`."""
    return data.original_chunk_type if quality == "original" else data.compressed_chunk_type


def build(state: State, data: Data, numbers: Sequence[int], quality: str) -> Path:
    """The file of the chunk with these frames; two who ask at once share the work."""
    kind = "mp4" if chunk_type(data, quality) == "video" else "zip"
    shown = [data.frames[number]["file"] for number in numbers] if data.kind == "images" else [*numbers]
    digest = hashlib.sha1(json.dumps([shown, data.image_quality]).encode(), usedforsecurity=False).hexdigest()[:16]
    path = state.cache(data.id) / f"{quality}-{numbers[0]}-{len(numbers)}-{digest}.{kind}"
    if path.exists():
        return path
    with _lock(str(path)):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{threading.get_ident()}")
            try:
                _write(state, data, numbers, quality, fresh)
                os.replace(fresh, path)
            finally:
                fresh.unlink(missing_ok=True)
    with _guard:
        _locks.pop(str(path), None)
    return path


def _lock(key: str) -> threading.Lock:
    with _guard:
        return _locks.setdefault(key, threading.Lock())


def _write(state: State, data: Data, numbers: Sequence[int], quality: str, path: Path) -> None:
    if data.kind == "video" and chunk_type(data, quality) == "video":
        compressed = quality == "compressed"
        rate = data.image_quality if compressed else _ORIGINAL_VIDEO
        video.write_video(path, _video_frames(state, data, numbers), quality=rate, compressed=compressed)
        return
    # Pictures are compressed already: stored, a chunk is built (and read) fast.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for at, (suffix, content) in enumerate(_pictures(state, data, numbers, quality)):
            archive.writestr(f"{at:06d}{suffix}", content)


def _video_frames(state: State, data: Data, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    folder = state.media(data.id)
    times = json.loads((folder / "index.json").read_text())
    wanted = [data.start_frame + number * data.step for number in numbers]
    return video.read_frames(folder / data.frames[0]["file"], times, wanted)


def _pictures(state: State, data: Data, numbers: Sequence[int], quality: str) -> Iterator[tuple[str, bytes]]:
    if data.kind == "video":
        for frame in _video_frames(state, data, numbers):
            yield ".jpeg", pictures.compressed(frame.to_ndarray(format="rgb24"), data.image_quality)
        return
    for number in numbers:
        yield picture(state, data, number, quality)


def picture(state: State, data: Data, number: int, quality: str) -> tuple[str, bytes]:
    """A picture of an image task: file suffix and content."""
    entry = data.frames[number]
    path = state.media(data.id) / entry["file"]
    if quality == "original":
        return path.suffix, pictures.original(path, rotated=entry["rotated"])
    return ".jpeg", pictures.compressed(path, data.image_quality)


def checksum(path: Path) -> int:
    """The CRC32 of a chunk, kept beside it."""
    note = path.with_suffix(".crc")
    if not note.exists():
        value = 0
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                value = zlib.crc32(piece, value)
        fresh = note.with_suffix(f".{threading.get_ident()}")
        fresh.write_text(str(value))
        os.replace(fresh, note)
    return int(note.read_text())

"""The annotations of a whole task, kept as JSON until all of them are there: in memory while few, in a file when many.

The queue takes a result in one piece, but nothing says that it has to be one in our memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from agent.annotations import FrameAnnotations
from agent.errors import BadRequest

IN_MEMORY = 16 * 2**20
"""Bytes of tags, and as many of shapes, that do not yet go into a file."""
LARGEST = 2**30
_PIECE = 1 << 18


class ResultSink:
    """Takes finished frames; gives CVAT's `annotations` as JsonPieces."""

    busy_seconds = 0.0
    removed = 0

    def __init__(self) -> None:
        self._kinds = {"tags": _List(), "shapes": _List()}

    def add(self, job: int, frame: int, annotations: FrameAnnotations) -> None:
        self._kinds["tags"].extend(annotations.tags)
        self._kinds["shapes"].extend(annotations.shapes)
        if self.length > LARGEST:
            raise BadRequest(f"the result is larger than {LARGEST >> 20} MiB; annotate the task in parts")

    def skip(self, job: int, frame: int, reason: str) -> None: ...

    def close(self) -> None: ...

    def abandon(self, patience: float | None = None) -> None: ...

    def release(self) -> None:
        """Forgets all of it."""
        for items in self._kinds.values():
            items.file.close()

    @property
    def count(self) -> int:
        """How many annotations there are."""
        return sum(items.count for items in self._kinds.values())

    @property
    def length(self) -> int:
        return sum(len(head) + items.bytes for head, items in self._parts()) + len(b"]}")

    def __iter__(self) -> Iterator[bytes]:
        for head, items in self._parts():
            yield head
            yield from items
        yield b"]}"

    def _parts(self) -> Iterator[tuple[bytes, _List]]:
        yield b'{"tags":[', self._kinds["tags"]
        yield b'],"shapes":[', self._kinds["shapes"]

    def __enter__(self) -> ResultSink:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class _List:
    """Items of a JSON list."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 (released by the sink)
        self.bytes = self.count = 0

    def extend(self, items: Sequence[Mapping[str, Any]]) -> None:
        for item in items:
            text = json.dumps(item, separators=(",", ":"), allow_nan=False)
            self.bytes += self.file.write(f"{',' if self.count else ''}{text}".encode())
            self.count += 1

    def __iter__(self) -> Iterator[bytes]:
        self.file.seek(0)
        while piece := self.file.read(_PIECE):
            yield piece

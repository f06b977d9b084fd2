"""Which frames: `all`, `empty`, `0-99,200`, `every:10`, `random:50`, or several of them joined by `+`."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.errors import BadRequest, ConfigError

ALLOWED = "all, empty, 0-99,200, every:10, random:50, or several joined by '+' (empty+every:10)"


@dataclass(frozen=True, slots=True)
class Selection:
    """A parsed wish; each part narrows what the parts before it have left."""

    parts: tuple[tuple[str, str], ...]
    seed: int = 0

    @property
    def needs_occupied(self) -> bool:
        """Whether it must be known which frames have annotations."""
        return any(kind == "empty" for kind, _ in self.parts)

    def choose(self, frames: Sequence[int], occupied: Collection[int] = ()) -> tuple[int, ...]:
        """The chosen of the frames that there are, ascending; the same for the same seed, however jobs are cut."""
        left = sorted(frames)
        for kind, value in self.parts:
            if kind == "empty":
                left = [frame for frame in left if frame not in occupied]
            elif kind == "every":
                left = [frame for frame in left if frame % int(value) == 0]
            elif kind == "random":
                left = sorted(random.Random(self.seed).sample(left, min(int(value), len(left))))
            elif kind == "numbers":
                left = _numbered(value, left)
        return tuple(left)


def parse_selection(text: str, seed: int = 0) -> Selection:
    """The selection that a text asks for; ConfigError for nonsense."""
    parts = []
    for part in text.replace(" ", "").split("+"):
        kind, _, value = part.partition(":")
        if part in ("all", "empty"):
            parts.append((part, ""))
        elif kind in ("every", "random") and value.isdecimal() and int(value) > 0:
            parts.append((kind, value))
        elif re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", part):
            parts.append(("numbers", part))
        else:
            raise ConfigError(f"--frames {text!r}: got {part!r}, allowed: {ALLOWED}")
    return Selection(tuple(parts), seed)


def _numbered(text: str, frames: Sequence[int]) -> list[int]:
    there, wanted = set(frames), set[int]()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        begin, end = int(first), int(last or first)
        if begin > end:
            raise BadRequest(f"--frames {piece}: got a range that runs backwards, allowed: {end}-{begin}")
        if frames and (begin > frames[-1] or end < frames[0]):
            raise BadRequest(f"--frames {piece}: outside, allowed: {frames[0]} to {frames[-1]}")
        wanted.update(there.intersection(range(begin, end + 1)) if end - begin > len(there) else range(begin, end + 1))
    return sorted(there & wanted)

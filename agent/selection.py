"""Which frames: `all`, `empty`, `0-99,200`, `every:10`, `random:50`; joined by `+`, each narrows those before it."""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.errors import BadRequest, ConfigError

ALLOWED = "all, empty, 0-99,200, every:10, random:50, or several joined by '+' (empty+every:10)"

NUMBER = "[0-9]{1,9}"


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
        """The chosen of the frames that there are, ascending; the same for the same seed, however jobs are cut.

        BadRequest where numbers are asked for that lie beyond them all.
        """
        left = every = sorted(frames)
        for kind, value in self.parts:
            if kind == "empty":
                left = [frame for frame in left if frame not in occupied]
            elif kind == "every":
                left = [frame for frame in left if frame % int(value) == 0]
            elif kind == "random":
                left = sorted(random.Random(self.seed).sample(left, min(int(value), len(left))))
            elif kind == "numbers":
                wanted = _numbered(value, every)
                left = [frame for frame in left if frame in wanted]
        return tuple(left)

    def cut(self, frames: Sequence[int]) -> list[str]:
        """The ranges that reach over the ends of the frames that there are, in words."""
        pieces = [piece for kind, value in self.parts if kind == "numbers" for piece in value.split(",")]
        if not frames:
            return []
        low, high = min(frames), max(frames)
        over = [piece for piece in pieces if _ends(piece)[0] < low or _ends(piece)[1] > high]
        return [f"--frames {piece}: there are the frames {low} to {high} only" for piece in over]


def parse_selection(text: str, seed: int = 0) -> Selection:
    """The selection that a text asks for; ConfigError for nonsense."""
    parts = []
    for part in re.sub(r"\s+", "", text).split("+"):
        kind, _, value = part.partition(":")
        if part in ("all", "empty"):
            parts.append((part, ""))
        elif kind in ("every", "random") and re.fullmatch(NUMBER, value) and int(value) > 0:
            parts.append((kind, value))
        elif re.fullmatch(f"{NUMBER}(-{NUMBER})?(,{NUMBER}(-{NUMBER})?)*", part):
            parts.append(("numbers", part))
        else:
            raise ConfigError(f"--frames {text!r}: got {part!r}, allowed: {ALLOWED}")
        for piece in part.split(",") if parts[-1][0] == "numbers" else ():
            first, last = _ends(piece)
            if first > last:
                raise ConfigError(f"--frames {text!r}: got {piece!r}, which runs backwards, allowed: {last}-{first}")
    return Selection(tuple(parts), seed)


def _ends(piece: str) -> tuple[int, int]:
    first, _, last = piece.partition("-")
    return int(first), int(last or first)


def _numbered(text: str, frames: Sequence[int]) -> set[int]:
    """Those of the frames (ascending) that are asked for; a range may reach over the ends, not lie beyond them."""
    wanted = set[int]()
    for piece in text.split(","):
        first, last = _ends(piece)
        if frames and (first > frames[-1] or last < frames[0]):
            raise BadRequest(f"--frames {piece}: there are no such frames, allowed: {frames[0]} to {frames[-1]}")
        wanted.update(frames[bisect_left(frames, first) : bisect_right(frames, last)])
    return wanted

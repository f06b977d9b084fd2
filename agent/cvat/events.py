"""Server-sent events, read from the pieces of a stream.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.errors import ServerUnavailable

LONGEST_LINE = 1 << 20
"""Characters; whoever sends more without an end of a line sends something else than events."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    type: str
    data: str


@dataclass(frozen=True, slots=True)
class ReconnectAfter:
    """How long the server wants us to wait before we come back."""

    seconds: float


def read_events(pieces: Iterable[bytes]) -> Iterator[Event | ReconnectAfter]:
    """The events of a stream, as they are complete; one that breaks off at the end is none.

    Comments, unknown fields, ids, and blank lines without data are passed over.
    """
    kind, data = "", list[str]()
    for line in _lines(pieces):
        if not line:
            if data:
                yield Event(kind or "message", "\n".join(data))
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "retry" and value.isascii() and value.isdecimal() and len(value) < 16:
            yield ReconnectAfter(int(value) / 1000)


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Whole lines, that end with LF, CR, or both, without their ends."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest, after_cr, first = "", False, True
    for piece in pieces:
        text = decode(piece)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if after_cr and text:
            # The CR that ended the line before was the first half of a CR LF.
            text, after_cr = text.removeprefix("\n"), False
        rest += text
        if rest.endswith("\r"):
            after_cr = True
        *whole, rest = rest.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        yield from whole
        if len(rest) > LONGEST_LINE:
            raise ServerUnavailable("the event stream: what comes are no events", maybe_done=False)

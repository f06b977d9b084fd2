"""A call's body, piece by piece, within bounds."""

from __future__ import annotations

from starlette.requests import Request

from agent.doors.gateway.call import MIB, Call, Refused

SWALLOWED = 4
"""How many times the limit of a body is read, and thrown away, so that the sender gets to see why it is refused."""


async def read_body(request: Request, call: Call, limit: int) -> bytes:
    """The body. Refused for a larger one (413), or where memory is short (429), once it was sent: who still sends does
    not listen.
    """
    why: Refused | None = None
    too_large = Refused(f"body: it is larger than allowed: {limit / MIB:.3g} MiB", 413)
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdigit() else 0
    if size > SWALLOWED * limit:
        raise too_large
    pieces, got = [], 0
    async for piece in request.stream():
        got += len(piece)
        if got > SWALLOWED * limit:
            raise too_large
        try:
            if max(got, size) > limit:
                raise too_large
            if why is None:
                call.take(len(piece))
                pieces.append(piece)
        except Refused as error:
            why = error
            pieces.clear()
    if why is not None:
        raise why
    return b"".join(pieces)

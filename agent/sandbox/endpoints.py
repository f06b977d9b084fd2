"""From routes to handlers: reading the body, finding the caller, turning refusals and errors into answers."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agent.sandbox.accounts import authenticate
from agent.sandbox.exchange import SERVER_ERROR, Call, Refusal, page, reply

MAX_BODY = 256 << 20
_ACCEPTED = re.compile(r"\*/\*|application/\*|application/vnd\.cvat\+json|text/event-stream|image/|video/|text/html")
log = logging.getLogger(__name__)

Handler = Callable[[Call], Response]
AsyncHandler = Callable[[Call], Awaitable[Response]]


def negotiate(call: Call) -> None:
    """Raises 406 where the caller accepts nothing that the API speaks."""
    accept = call.request.headers.get("accept", "*/*")
    if not _ACCEPTED.search(accept):
        raise Refusal(406, {"detail": "Could not satisfy the request Accept header."})


async def body_of(request: Request) -> bytes:
    """The whole body, up to a bound."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY:
            raise Refusal(413, {"detail": "Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE."})
        pieces.append(piece)
    return b"".join(pieces)


async def answered(request: Request, work: Callable[[Call], Awaitable[Response]]) -> Response:
    """What a call comes to: its answer, its refusal, or a server error page."""
    call = Call(request, request.app.state.sandbox)
    try:
        return await work(call)
    except Refusal as refusal:
        return reply(refusal.payload, refusal.status, refusal.headers)
    except ClientDisconnect:
        return page(SERVER_ERROR, 500)
    except Exception:
        log.exception("sandbox: %s %s", request.method, request.url.path)
        return page(SERVER_ERROR, 500)


def threaded(handler: Handler, *, anyone: bool = False) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a synchronous handler; it runs in a thread, so that slow work holds up nobody else."""

    def run(call: Call) -> Response:
        if not anyone:
            authenticate(call)
        negotiate(call)
        return handler(call)

    async def work(call: Call) -> Response:
        call.body = await body_of(call.request)
        return await run_in_threadpool(run, call)

    async def endpoint(request: Request) -> Response:
        return await answered(request, work)

    return endpoint


def streamed(handler: AsyncHandler) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a handler that reads the body, or sends the answer, piece by piece."""

    def prepare(call: Call) -> None:
        authenticate(call)
        negotiate(call)

    async def work(call: Call) -> Response:
        await run_in_threadpool(prepare, call)
        return await handler(call)

    async def endpoint(request: Request) -> Response:
        return await answered(request, work)

    return endpoint

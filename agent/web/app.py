"""The routes of the status page, and what is asked of callers before each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.errors import SidecarError
from agent.web.guard import HEADERS, Guard
from agent.web.metrics import CONTENT_TYPE, Metrics
from agent.web.page import parts, run_page, status_page
from agent.web.status import View, run_values, status

log = logging.getLogger(__name__)

LONGEST_FORM, LONGEST_EVENT = 2**16, 2**22
"""Bytes of a body."""
BODY_SECONDS = 30.0
"""A body must have come by then: strangers may send one, too, and there is room for so many connections only."""
STATIC = Path(__file__).parent / "static"
OPEN = ("/healthz", "/readyz", "/webhook")
"""Paths that anybody may ask: two say nothing but yes or no to strangers, one has a signature of its own."""


class Receiver(Protocol):
    """The watch door, as far as webhooks go."""

    def receive(self, body: bytes, headers: Any) -> tuple[int, str]:
        """The status and the text to answer with."""
        ...


class StatusApp:
    """The ASGI application."""

    def __init__(self, view: View, metrics: Metrics, guard: Guard, receiver: Callable[[], Receiver | None]) -> None:
        self._view, self._metrics, self.guard, self._receiver = view, metrics, guard, receiver
        kinds = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}
        static = [Route(f"/{name}", _file(STATIC / name, kind)) for name, kind in kinds.items()]
        routes = [
            Route("/", self._page),
            Route("/runs/{run}", self._run),
            Route("/runs/{run}/undo", self._post(self._undo), methods=["POST"]),
            Route("/requests/{request}/cancel", self._post(self._cancel), methods=["POST"]),
            Route("/api/status", self._status),
            Route("/api/parts", self._parts),
            Route("/metrics", self._prometheus),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/webhook", self._webhook, methods=["POST"]),
            *static,
        ]
        self._app: ASGIApp = Starlette(routes=routes, exception_handlers={SidecarError: _told})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        scope.setdefault("state", {})["refusal"] = refusal = self._refusal(request)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        # Not the path of `request.url`, which is made of what the Host header says, too.
        answer = self._app if refusal is None or scope["path"] in OPEN else refusal
        await answer(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """What strangers are answered."""
        host = request.headers.get("host", "")
        if not self.guard.knows_host(host):
            allowed = "an address, localhost, or one of service.allowed_hosts"
            return PlainTextResponse(f"host: got {host[:100]!r}, allowed: {allowed}\n", 403)
        if not self.guard.admits(request.headers):
            asked = {"WWW-Authenticate": 'Basic realm="cvat-sidecar", charset="UTF-8"'}
            return PlainTextResponse("a password is needed\n", 401, headers=asked)
        return None

    # -------------------------------------------------------------- looking

    def _page(self, request: Request) -> Response:
        return HTMLResponse(status_page(status(self._view), self.guard.token))

    def _status(self, request: Request) -> Response:
        return JSONResponse(status(self._view))

    def _parts(self, request: Request) -> Response:
        return JSONResponse(parts(status(self._view), self.guard.token))

    def _run(self, request: Request) -> Response:
        return self._run_page(request.path_params["run"], None)

    def _run_page(self, run: str, refusal: str | None) -> Response:
        try:
            record = self._view.book.run(run)
        except SidecarError as error:
            return PlainTextResponse(f"{error}\n", 404)
        made, state = self._view.book.made_counts(record.id), self._view.undoing.state(record.id)
        page = run_page(
            run_values(self._view, record), made, asdict(state) if state else None, self.guard.token, refusal
        )
        return HTMLResponse(page, 409 if refusal else 200)

    def _prometheus(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, request: Request) -> Response:
        # Not in a thread: pages that wait for the ledger may have all of them.
        return PlainTextResponse("ok\n")

    def _readyz(self, request: Request) -> Response:
        found = self._view.obstacles()
        values: dict[str, Any] = {"ready": not found}
        if request.state.refusal is None:
            values["reasons"] = [self._view.redact(line) for line in found]
        return JSONResponse(values, 503 if found else 200)

    # ------------------------------------------------------------- changing

    def _post(self, work: Callable[[Request, dict[str, str]], Response]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint for forms of our own page only."""

        async def endpoint(request: Request) -> Response:
            form = dict(parse_qsl((await _body(request, LONGEST_FORM)).decode(errors="replace")))
            why = self.guard.refuses(request.headers, form.get("token", ""))
            if why is not None:
                return PlainTextResponse(f"{why}\n", 403)
            return await run_in_threadpool(work, request, form)

        return endpoint

    def _cancel(self, request: Request, form: dict[str, str]) -> Response:
        found = self._view.shared.activity.cancel(request.path_params["request"])
        log.info("cancelled on the status page: %s", request.path_params["request"])
        # One that has ended in the meantime needs no cancelling: the page shows how it ended.
        return RedirectResponse("/" if found else "/#finished", 303)

    def _undo(self, request: Request, form: dict[str, str]) -> Response:
        run = request.path_params["run"]
        try:
            self._view.undoing.start(run, changed_too=form.get("changed_too") == "yes")
        except SidecarError as error:
            return self._run_page(run, str(error))
        log.info("run %s is undone on the status page", run)
        return RedirectResponse(f"/runs/{run}", 303)

    async def _webhook(self, request: Request) -> Response:
        receiver = self._receiver()
        if receiver is None:
            return PlainTextResponse("webhooks are not received here\n", 404)
        body = await _body(request, LONGEST_EVENT)
        code, text = await run_in_threadpool(receiver.receive, body, request.headers)
        return PlainTextResponse(f"{text}\n", code)


async def _body(request: Request, longest: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > longest:
                    raise HTTPException(413, f"got a body of more than {longest} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the body has not come within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body has not come") from None
    return bytes(body)


def _file(path: Path, kind: str) -> Callable[[Request], Response]:
    content = path.read_bytes()
    return lambda request: Response(content, headers={"Content-Type": f"{kind}; charset=utf-8"})


def _told(request: Request, error: Exception) -> Response:
    """An error that says what is wrong, a ledger that cannot be used for example, is the answer."""
    return PlainTextResponse(f"{error}\n", 500)

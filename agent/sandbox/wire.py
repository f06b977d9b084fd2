"""What lies between the socket and the application: the request log, injected faults, cut connections."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.sandbox.faults import Fault, Faults

_TRANSPORT = "sandbox.transport"
_DRAIN = 4 << 20


@dataclass(frozen=True)
class LoggedRequest:
    """A request that was answered; status is 0 where the connection was cut instead."""

    method: str
    path: str
    query: str
    status: int
    user: str | None


class RequestLog:
    """The latest requests, oldest first; at most `limit` are kept."""

    def __init__(self, limit: int = 20_000) -> None:
        self._lock = threading.Lock()
        self._entries: deque[LoggedRequest] = deque(maxlen=limit)

    def append(self, entry: LoggedRequest) -> None:
        """Notes a request."""
        with self._lock:
            self._entries.append(entry)

    def clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._entries.clear()

    def matching(self, method: str | None = None, path: str = "", status: int | None = None) -> list[LoggedRequest]:
        """Those of a method, with a match of the pattern in the path, with a status."""
        found = re.compile(path)
        return [
            entry
            for entry in self
            if method in (None, entry.method) and status in (None, entry.status) and found.search(entry.path)
        ]

    def __iter__(self) -> Iterator[LoggedRequest]:
        with self._lock:
            return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> LoggedRequest:
        with self._lock:
            return self._entries[index]


class CuttableProtocol(H11Protocol):
    """uvicorn's protocol, with the transport in the application's reach: it can cut the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Gives every request of this connection its transport."""
        super().connection_made(transport)
        inner: Any = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[_TRANSPORT] = transport
            await inner(scope, receive, send)

        self.app = with_transport


class Wire:
    """The outermost application: logs every request and lets faults strike."""

    def __init__(self, app: ASGIApp, log: RequestLog, faults: Faults) -> None:
        self._app = app
        self._log = log
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"])
            await send(message)

        fault = self._faults.strike(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, logged)
        elif fault.when == "before":
            await self._before(fault, scope, receive, logged)
        else:
            await self._after(fault, scope, receive, logged)

    def _note(self, scope: Scope, status: int) -> None:
        user = scope.get("state", {}).get("user")
        query = scope["query_string"].decode("latin-1")
        self._log.append(LoggedRequest(scope["method"], scope["path"], query, status, user))

    async def _before(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(fault.delay)
        if fault.cut or fault.status is not None:
            await _drain(receive)
            await self._answer(fault, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _after(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        left = fault.after_bytes
        replaced = fault.cut or fault.status is not None

        async def filtered(message: Message) -> None:
            nonlocal left
            if not replaced:
                if message["type"] == "http.response.start":
                    await asyncio.sleep(fault.delay)
                await send(message)
            elif left is not None and message["type"] == "http.response.start":
                await send(message)
            elif left:
                piece = message.get("body", b"")[:left]
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if not left and fault.cut:
                    # An answer that never ends (an event stream) has to hear of it, too.
                    await self._break(scope)

        await self._app(scope, receive, filtered)
        if replaced:
            await asyncio.sleep(fault.delay)
            await self._answer(fault, scope, receive, send)

    async def _answer(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if not fault.cut:
            status, headers, body = fault.answer()
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        if fault.after_bytes is None:
            self._note(scope, 0)
            scope[_TRANSPORT].abort()
        else:
            await self._break(scope)
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _break(self, scope: Scope) -> None:
        # What was let through has to leave the machine before the connection breaks.
        await asyncio.sleep(0.05)
        scope[_TRANSPORT].abort()


async def _drain(receive: Receive) -> None:
    """Reads the request's body (up to a bound), so that the client is listening when the answer comes."""
    read = 0
    while read < _DRAIN:
        message = await receive()
        read += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return

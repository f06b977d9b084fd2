"""uvicorn in a thread, on ports that come and go while it runs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

from agent.http_server import InTime

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds that a port may take to open or close; far more than it ever does."""
_ACCEPTED = 0.05
"""Seconds until a connection that was accepted has surely come to uvicorn; asyncio forgets those that have not when
their listener closes, and nobody would ever answer or close them."""


class Server:
    """Runs from the moment that it is made; serves on what it is told to listen to."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = uvicorn.Config(
            app,
            http=InTime,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            # Whoever forwards calls must not choose the address that `allow` looks at.
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(self._config)
        self._listening: dict[socket.socket, asyncio.Server] = {}
        self._running = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gateway", daemon=True)
        self._thread.start()
        self._running.wait(_PATIENCE)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def listen(self, listener: socket.socket) -> None:
        """Serves who connects there."""
        self._in_its_loop(self._listen(listener))

    def forget(self, listener: socket.socket) -> None:
        """Closes the port; the calls that came by it are answered."""
        self._in_its_loop(self._forget(listener))

    def close(self, patience: float) -> None:
        """Ends, after what is being sent."""
        with suppress(RuntimeError, TimeoutError):  # it has ended by itself
            self._in_its_loop(self._forget_all())
        self._server.should_exit = True
        self._thread.join(patience)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(patience)

    def _in_its_loop(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None or not self.alive:
            work.close()
            raise RuntimeError("the gateway's server has ended")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    # ------------------------------------------------------------ in its thread

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        asyncio.get_running_loop().call_soon(self._running.set)
        await self._server.serve(sockets=[])

    async def _listen(self, listener: socket.socket) -> None:
        self._listening[listener] = await asyncio.get_running_loop().create_server(self._protocol, sock=listener)

    async def _forget(self, listener: socket.socket) -> None:
        opened = self._listening.pop(listener)
        asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.sleep(_ACCEPTED)
        opened.close()

    async def _forget_all(self) -> None:
        await asyncio.gather(*map(self._forget, list(self._listening)))

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes one for each connection to a socket that it was started with."""
        kind: Any = self._config.http_protocol_class
        made: asyncio.Protocol = kind(
            config=self._config, server_state=self._server.server_state, app_state=self._server.lifespan.state
        )
        return made

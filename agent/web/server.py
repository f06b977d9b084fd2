"""HTTP for the status page: uvicorn in a thread, on a port that is taken before anything else happens."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn

from agent.errors import ConfigError
from agent.http_server import InTime


class WebServer:
    """An address that is taken, and then served in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        """Takes the port; ConfigError where that cannot be."""
        self._listener = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._listener.getsockname()[1]}"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, app: Any) -> None:
        """Serves; who has connected already is served first."""
        # Nothing but the connection says who calls: no headers of proxies.
        config = uvicorn.Config(
            app, http=InTime, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, limit_concurrency=100, timeout_keep_alive=10, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: server.run(sockets=[self._listener]), name="status-page", daemon=True
        )
        self._thread.start()

    def close(self, patience: float = 3.0) -> None:
        """Ends the server, and waits for its thread for so long."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(patience)
        self._listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol has to be named: only then asyncio turns off Nagle's algorithm, which costs 40 ms a request.
        listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except OSError as error:
        raise ConfigError(f"service: host: cannot listen on {host!r}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # At once: two processes may bind the same port as long as neither listens.
        listener.listen(128)
    except OSError as error:
        listener.close()
        why = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise ConfigError(f"service: port: {why}; is another service running?") from error
    return listener

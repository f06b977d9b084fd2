"""Starting and stopping a sandbox: uvicorn in a thread, real HTTP on a port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import uvicorn

from agent.sandbox import creation, lambda_requests
from agent.sandbox.accounts import ensure_users
from agent.sandbox.app import build
from agent.sandbox.faults import Faults
from agent.sandbox.state import State
from agent.sandbox.wire import CuttableProtocol, RequestLog, Wire


class Sandbox:
    """A CVAT stand-in.

    `users` are names and passwords (the first gets id 2, as the first user after the installing
    administrator); `data` is a folder that keeps the state, None keeps it in memory and a temporary folder;
    `nuclio` is the address of a Nuclio dashboard; `admins` are names of users that may do everything.
    `invoke` is CVAT's way to call functions: "dashboard", or "direct" at each function's own port.

    `url` is the address, `faults` and `requests` are for tests, and so is `state` (see state.py).
    """

    def __init__(
        self,
        users: dict[str, str] | None = None,
        port: int = 0,
        data: str | Path | None = None,
        nuclio: str | None = None,
        admins: Iterable[str] = (),
        *,
        host: str = "127.0.0.1",
        invoke: str = "dashboard",
    ) -> None:
        self._address = (host, port)
        self.users = users or {"sandbox": "sandbox"}
        self.state = State(Path(data) if data is not None else None, nuclio, invoke=invoke)
        self.faults = Faults()
        self.requests = RequestLog()
        self._admins = tuple(admins)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address, http://host:port."""
        return self.state.url

    def start(self) -> Sandbox:
        """Listens; returns when requests are served."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        # The protocol has to be named: only then asyncio turns off Nagle's algorithm, which costs 40 ms a request.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(self._address)
        except OSError:
            listener.close()
            self.state.close()
            raise
        host = self._address[0] if self._address[0] not in ("0.0.0.0", "::") else "127.0.0.1"
        shown = f"[{host}]" if ":" in host else host
        self.state.url = f"http://{shown}:{listener.getsockname()[1]}"
        with self.state.store.change():
            if not len(self.state.users):
                self.state.store.next_id("users")  # 1 is the installing administrator's, who is not among ours
        ensure_users(self.state, self.users, self._admins)
        app = Wire(build(self.state), self.requests, self.faults)
        config = uvicorn.Config(
            app,
            http=CuttableProtocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        listener.listen(2048)  # who connects from now on is served as soon as the loop runs
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="sandbox", daemon=True)
        self._thread.start()
        lambda_requests.settle_interrupted(self.state)
        creation.resume(self.state)
        return self

    def _serve(self, listener: socket.socket) -> None:
        assert self._server is not None
        self._server.run(sockets=[listener])
        listener.close()

    def stop(self) -> None:
        """Stops listening, ends background work, removes what was temporary."""
        self.state.closing.set()
        self.state.ring()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=15)
        self.state.close()

    def __enter__(self) -> Sandbox:
        """Starts the sandbox."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self.stop()

"""A logged-in connection to one CVAT server: every call with a time-out, retries where they are safe, one error tree.

The transport is the SDK's (its credentials, organization header and TLS), but answers stay raw JSON, because its
generated models are slow, and retries are ours: the SDK's know neither 429 nor which call may be repeated.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import urllib3
from cvat_sdk.core.client import Client
from cvat_sdk.version import VERSION

from agent.config import ServerSettings
from agent.cvat.failures import Failure
from agent.cvat.login import authorization, make_client, renewable
from agent.errors import RequestCancelled, ServerRefused

log = logging.getLogger(__name__)

REPEATABLE = {"GET", "HEAD", "PUT", "DELETE"}
LONGEST_CALL = 10
"""An answer that keeps trickling in is given up after this many time-outs."""
_PIECE = 1 << 20
_SLICE = 0.2
"""Seconds after which a wait looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with a status of 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    what: str = "the call"

    def json(self) -> Any:
        """The body's JSON value, None without a body. ServerRefused where it is no JSON."""
        try:
            return json.loads(self.body) if self.body else None
        except ValueError as error:
            # Any web server answers 200 with a page of its own to a path that it does not know.
            raise ServerRefused(
                f"{self.what}: the answer is no JSON; is there a CVAT server at this address?", status=self.status
            ) from error


class Session:
    """Calls to one server as one user. Threads may share it.

    `settings.timeout` bounds how long the server may be silent within a call; the whole call may take ten times that.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        sleep: Callable[[float], None] | None = None,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        stop: threading.Event | None = None,
    ) -> None:
        self.settings = settings
        self._client = make_client(settings)
        self._stop = stop or threading.Event()
        self._sleep, self._jitter, self._clock = sleep, jitter, clock
        self._login_lock = threading.Lock()
        self._logins = 0

    @property
    def client(self) -> Client:
        """The SDK's client, logged in, for what it does better: uploads of files. Its calls are never retried."""
        self._log_in()
        return self._client

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return str(self._client.api_client.configuration.host).rstrip("/")

    @cached_property
    def user(self) -> str:
        """Who we are there."""
        return str(self.request("GET", "/api/users/self").json()["username"])

    @cached_property
    def server_version(self) -> str:
        """The server's version, as it says it."""
        version = str(self.request("GET", "/api/server/about").json()["version"])
        if version.split(".")[:2] != VERSION.split(".")[:2]:
            log.debug("the server is CVAT %s, cvat-sdk is %s", version, VERSION)
        return version

    def close(self) -> None:
        """Closes the connections. The login stays: CVAT has one token for all of a user's programs."""
        self._client.api_client.rest_client.pool_manager.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def log_in(self) -> None:
        """Makes sure that the server knows us; calls do so by themselves."""
        self._log_in()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeatable: bool | None = None,
        timeout: float | None = None,
        stop: threading.Event | None = None,
    ) -> Reply:
        """The answer to one call.

        A call that may not be repeated (`repeatable`; POST and PATCH unless it is said) is sent again only where no
        connection came about: even behind a 429 a proxy may have passed it on. `stop` ends this call's waiting and
        downloading by RequestCancelled. Raises ServerRefused, and ServerUnavailable whose `maybe_done` tells whether
        the server may have done it.
        """
        self._log_in()
        call = _Call(method, path, query, body, timeout or self.settings.timeout, stop)
        safe = method in REPEATABLE if repeatable is None else repeatable
        return self._insist(call, safe=safe, renew=True)

    def _insist(self, call: _Call, *, safe: bool, renew: bool) -> Reply:
        attempt, maybe_done, what = 0, False, f"{call.method} {self.url}{call.path}"
        while True:
            logins = self._logins
            try:
                return self._once(call, what)
            except Failure as failure:
                if failure.status == 401 and renew and self._log_in(beyond=logins):
                    renew = False
                    continue
                maybe_done = maybe_done or failure.maybe_done
                again = failure.retry and (safe or not failure.maybe_done) and not self._stop.is_set()
                error = failure.error(what, attempt + 1, maybe_done=maybe_done)
                if not again or attempt >= self.settings.retries:
                    raise error from failure.__cause__
                wait = failure.wait(attempt, self._jitter())
                log.info("%s; trying again in %.1f s", error, wait)
            self._pause(wait, call.stop)
            attempt += 1

    def _once(self, call: _Call, what: str) -> Reply:
        try:
            with _Answer(self._client, call) as response:
                content = _read(response, call, self._clock)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Failure.of_transport(error) from error
        if not 200 <= response.status < 300:
            raise Failure.of_status(response.status, response.headers, content)
        return Reply(response.status, response.headers, content, what)

    def _pause(self, seconds: float, stop: threading.Event | None) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif stop is None:
            self._stop.wait(seconds)
        else:
            end = self._clock() + seconds
            while (left := end - self._clock()) > 0 and not self._stop.is_set() and not stop.is_set():
                stop.wait(min(left, _SLICE))
        if stop is not None and stop.is_set():
            raise RequestCancelled("nobody waits for the answer any more")

    def _log_in(self, *, beyond: int = 0) -> bool:
        """Logs in unless that was done more than `beyond` times; False where doing it again would change nothing."""
        if self._logins > beyond:
            return True
        with self._login_lock:
            if self._logins > beyond:
                return True
            if beyond and not renewable(self.settings):
                return False
            header = authorization(self.settings, self._post_login)
            # What the SDK sends on its own (uploads) goes by the same credentials.
            self._client.api_client.default_headers.update(header)
            self._logins += 1
            return True

    def _post_login(self, path: str, body: Mapping[str, Any]) -> Any:
        # Without the old token: the server looks at that first, and refuses the login for it.
        call = _Call("POST", path, None, body, self.settings.timeout, None, {"Authorization": None})
        return self._insist(call, safe=True, renew=False).json()


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    query: Mapping[str, Any] | None
    body: Any
    timeout: float
    stop: threading.Event | None
    headers: Mapping[str, str | None] | None = None


class _Answer:
    """The response to a call; its connection goes back to the pool, or is closed if something is left in it."""

    def __init__(self, client: Client, call: _Call) -> None:
        # Chunks are compressed already; to squeeze them again would only cost the server time.
        encoding = "identity" if call.path.endswith("/data") else "gzip"
        _, self._response = client.api_client.call_api(
            call.path,
            call.method,
            query_params=[(name, str(value)) for name, value in (call.query or {}).items()],
            header_params={
                "Accept": "application/vnd.cvat+json, */*;q=0.5",
                "Accept-Encoding": encoding,
                **(call.headers or {}),
            },
            body=call.body,
            _parse_response=False,
            _check_status=False,
            _request_timeout=(min(call.timeout, 20.0), call.timeout),
        )

    def __enter__(self) -> Any:
        return self._response

    def __exit__(self, *exc: object) -> None:
        self._response.close()
        self._response.release_conn()


def _read(response: Any, call: _Call, clock: Callable[[], float]) -> bytes:
    """The whole body; an end before its length is an IncompleteRead."""
    end = clock() + LONGEST_CALL * call.timeout
    pieces = []
    # read1 hands over what has come; read would wait for a whole piece, however slowly it comes.
    while piece := response.read1(_PIECE, decode_content=True):
        pieces.append(piece)
        if call.stop is not None and call.stop.is_set():
            raise RequestCancelled("nobody waits for the answer any more")
        if clock() > end:
            raise urllib3.exceptions.ReadTimeoutError(response, call.path, "the answer takes too long")
    return b"".join(pieces)


def open_session(settings: ServerSettings, **more: Any) -> Session:
    """A session that logs in when it is first used."""
    return Session(settings, **more)

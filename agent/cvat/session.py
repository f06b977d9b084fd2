"""A logged-in connection to one CVAT server: every call with a time-out, retries where they are safe, one error tree.

The transport is the SDK's (its credentials, organization header and TLS), but answers stay raw JSON, because its
generated models are slow, and retries are ours: the SDK's know neither 429 nor which call may be repeated.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar

from cvat_sdk.core.client import Client
from cvat_sdk.version import VERSION

from agent.cvat.calls import Call, Reply, Stream, answer, open_stream
from agent.cvat.failures import Failure
from agent.cvat.login import LOGIN_PATH, authorization, make_client, renewable, who
from agent.errors import RequestCancelled
from agent.settings.server import ServerSettings

__all__ = ["Reply", "Session", "Stream", "open_session"]

log = logging.getLogger(__name__)

T = TypeVar("T")

REPEATABLE = {"GET", "HEAD", "PUT", "DELETE"}
_SLICE = 0.2
"""Seconds after which a wait looks whether it is still wanted."""


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
        retries: int | None = None,
        timeout: float | None = None,
        stop: threading.Event | None = None,
    ) -> Reply:
        """The answer to one call. `body` is a JSON value, or JsonPieces.

        A call that may not be repeated (`repeatable`; POST and PATCH unless it is said) is sent again only where no
        connection came about: even behind a 429 a proxy may have passed it on. `retries` is for whoever has a rhythm
        of its own. `stop` ends this call's waiting and downloading by RequestCancelled. Raises ServerRefused, and
        ServerUnavailable whose `maybe_done` tells whether the server may have done it.
        """
        self._log_in(retries=retries)
        call = Call(method, path, timeout or self.settings.timeout, query, body, stop)
        safe = method in REPEATABLE if repeatable is None else repeatable
        return self._insist(call, self._once, safe=safe, renew=True, retries=retries)

    def stream(self, path: str, *, silence: float) -> Stream:
        """The answer to a GET that goes on and on, once it has begun; tried once. `silence` is how long it may pause.

        Raises ServerRefused and ServerUnavailable.
        """
        self._log_in(retries=0)
        call = Call("GET", path, silence)

        def begin(call: Call, what: str) -> Stream:
            return open_stream(self._client, call, what)

        return self._insist(call, begin, safe=True, renew=True, retries=0)

    def _insist(
        self, call: Call, once: Callable[[Call, str], T], *, safe: bool, renew: bool, retries: int | None = None
    ) -> T:
        attempt, maybe_done, what = 0, False, f"{call.method} {self.url}{call.path}"
        allowed = self.settings.retries if retries is None else retries
        while True:
            logins = self._logins
            try:
                return once(call, what)
            except Failure as failure:
                if failure.status == 401 and renew and self._log_in(beyond=logins, retries=retries):
                    renew = False
                    continue
                if failure.status == 401 or (failure.status == 400 and call.path == LOGIN_PATH):
                    what = f"{what} as {who(self.settings)}"
                maybe_done = maybe_done or failure.maybe_done
                again = failure.retry and (safe or not failure.maybe_done) and not self._stop.is_set()
                error = failure.error(what, attempt + 1, maybe_done=maybe_done)
                if not again or attempt >= allowed:
                    raise error from failure.__cause__
                wait = failure.wait(attempt, self._jitter())
                log.info("%s; trying again in %.1f s", error, wait)
            self._pause(wait, call.stop)
            attempt += 1

    def _once(self, call: Call, what: str) -> Reply:
        status, headers, content = answer(self._client, call, self._clock)
        if not 200 <= status < 300:
            raise Failure.of_status(status, headers, content)
        return Reply(status, headers, content, what)

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

    def _log_in(self, *, beyond: int = 0, retries: int | None = None) -> bool:
        """Logs in unless that was done more than `beyond` times; False where doing it again would change nothing."""
        if self._logins > beyond:
            return True
        with self._login_lock:
            if self._logins > beyond:
                return True
            if beyond and not renewable(self.settings):
                return False
            header = authorization(self.settings, partial(self._post_login, retries=retries))
            # What the SDK sends on its own (uploads) goes by the same credentials.
            self._client.api_client.default_headers.update(header)
            self._logins += 1
            return True

    def _post_login(self, path: str, body: Mapping[str, Any], *, retries: int | None) -> Any:
        # Without the old token: the server looks at that first, and refuses the login for it.
        call = Call("POST", path, self.settings.timeout, body=body, headers={"Authorization": None})
        return self._insist(call, self._once, safe=True, renew=False, retries=retries).json()


def open_session(settings: ServerSettings, **more: Any) -> Session:
    """A session that logs in when it is first used."""
    return Session(settings, **more)

"""A logged-in connection to one CVAT server: every call with a time-out, retries where they are safe, one error tree.

The transport is the SDK's (its credentials, organization header, TLS and proxies), but answers stay raw JSON, because
its generated models are slow, and retries are ours: the SDK's know neither 429 nor which call may be repeated.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import urllib3
from cvat_sdk.api_client.rest import RESTClientObject
from cvat_sdk.core.client import Client

from agent.config import ServerSettings
from agent.cvat.login import make_client, token_for
from agent.cvat.refusals import refusal
from agent.errors import ServerRefused, ServerUnavailable

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.3, 30.0
"""Seconds between two tries: doubled each time, with full jitter."""
LONGEST_RETRY_AFTER = 120.0
REPEATABLE = {"GET", "HEAD", "PUT", "DELETE"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with a status below 400."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


class Session:
    """Calls to one server as one user. Threads may share it."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        sleep: Callable[[float], None] | None = None,
        jitter: Callable[[], float] = random.random,
        stop: threading.Event | None = None,
    ) -> None:
        self.settings = settings
        self.client: Client = make_client(settings)
        self._configure()
        self._stop = stop or threading.Event()
        self._sleep = sleep or (lambda seconds: void(self._stop.wait(seconds)))
        self._jitter = jitter
        self._login_lock = threading.Lock()
        self._logins = 0

    def _configure(self) -> None:
        configuration = self.client.api_client.configuration
        configuration.retries = urllib3.Retry(0, redirect=3)
        configuration.connection_pool_maxsize = 16
        if self.settings.ca_file is not None:
            configuration.ssl_ca_cert = str(self.settings.ca_file)
        self.client.api_client.rest_client = RESTClientObject(configuration)

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return str(self.client.api_client.configuration.host).rstrip("/")

    @cached_property
    def user(self) -> str:
        """Who we are there."""
        return str(self.request("GET", "/api/users/self").json()["username"])

    @cached_property
    def server_version(self) -> str:
        return str(self.request("GET", "/api/server/about").json()["version"])

    def close(self) -> None:
        self.client.api_client.rest_client.pool_manager.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def log_in(self) -> None:
        """Makes sure that `client` has credentials, for those calls that only the SDK can make."""
        self._log_in(seen=0)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeatable: bool | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """The answer to one call.

        A call that may not be repeated (`repeatable`; POST and PATCH unless it is said) is sent again only where no
        connection came about: even behind a 429 a proxy may have passed it on. Raises ServerRefused and
        ServerUnavailable, whose `maybe_done` tells whether the server may have done it.
        """
        safe = method in REPEATABLE if repeatable is None else repeatable
        self._log_in(seen=0)
        attempt = 0
        while True:
            logins = self._logins
            try:
                return self._once(method, path, query, body, timeout)
            except _Failure as failure:
                if failure.status == 401 and self._log_in(seen=logins):
                    continue
                error = failure.error(f"{method} {self.url}{path}", attempt + 1)
                again = failure.retry and (safe or not failure.maybe_done) and not self._stop.is_set()
                if not again or attempt >= self.settings.retries:
                    raise error from failure.__cause__
                wait = failure.wait(attempt, self._jitter())
                log.info("%s; trying again in %.1f s", error, wait)
            self._sleep(wait)
            attempt += 1

    def _once(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any, timeout: float | None) -> Reply:
        seconds = timeout or self.settings.timeout
        try:
            _, response = self.client.api_client.call_api(
                path,
                method,
                query_params=[(name, str(value)) for name, value in (query or {}).items()],
                header_params={"Accept": "application/vnd.cvat+json, */*;q=0.5", **self._authorization()},
                body=body,
                _parse_response=False,
                _check_status=False,
                _request_timeout=(min(seconds, 20.0), seconds),
            )
            content = response.read(decode_content=True)
            if response.length_remaining:
                raise urllib3.exceptions.IncompleteRead(len(content), response.length_remaining)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Failure.of_transport(error) from error
        if response.status >= 400:
            raise _Failure.of_status(response.status, response.headers, content)
        return Reply(response.status, response.headers, content)

    def _authorization(self) -> dict[str, str]:
        return dict(self._header)

    _header: Mapping[str, str] = {}

    def _log_in(self, *, seen: int) -> bool:
        """Logs in unless somebody did since `seen`; False when that would not help a refused call."""
        with self._login_lock:
            if self._logins > seen:
                return True
            if self._logins and not self.settings.password:
                return False
            if self._logins >= 2 and seen:
                return False
            self._header = token_for(self.settings, self.client, self._plain)
            self._logins += 1
            return True

    def _plain(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a call without credentials, tried as often as any other."""
        for attempt in range(self.settings.retries + 1):
            try:
                return self._once("POST", path, None, body, None).json()
            except _Failure as failure:
                error = failure.error(f"POST {self.url}{path}", attempt + 1)
                if not failure.retry or attempt == self.settings.retries or self._stop.is_set():
                    raise error from failure.__cause__
                self._sleep(failure.wait(attempt, self._jitter()))
        raise AssertionError("the last attempt returns or raises")


def void(value: object) -> None:
    """Nothing, whatever the value."""


class _Failure(Exception):
    """One try that failed, before it is known whether there will be another."""

    def __init__(
        self,
        text: str,
        *,
        status: int | None,
        retry: bool,
        maybe_done: bool,
        may_go_on: bool = True,
        after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.status, self.retry, self.after = status, retry, after
        self.maybe_done, self.may_go_on = maybe_done, may_go_on

    @classmethod
    def of_transport(cls, error: Exception) -> _Failure:
        """A call that got no answer."""
        reason = getattr(error, "reason", None)
        inner = reason if isinstance(reason, Exception) else error
        never_sent = isinstance(inner, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
        certificate = isinstance(inner, urllib3.exceptions.SSLError)
        text = _transport_text(inner)
        return cls(text, status=None, retry=not certificate, maybe_done=not never_sent and not certificate)

    @classmethod
    def of_status(cls, status: int, headers: Mapping[str, str], content: bytes) -> _Failure:
        """A call that was answered by a status of 400 or more."""
        busy = status == 429
        # A proxy in front that gives up does not stop the server behind it.
        proxy = status in (502, 503, 504)
        return cls(
            refusal(status, headers.get("Content-Type", ""), content),
            status=status,
            retry=busy or status >= 500,
            maybe_done=busy or status >= 500,
            may_go_on=proxy,
            after=retry_after(headers.get("Retry-After")) if busy or status == 503 else None,
        )

    def wait(self, attempt: int, jitter: float) -> float:
        """Seconds until the next try."""
        if self.after is not None:
            return min(self.after, LONGEST_RETRY_AFTER) + jitter * FIRST_WAIT
        return min(FIRST_WAIT * 2.0**attempt, LONGEST_WAIT) * jitter

    def error(self, what: str, tries: int) -> ServerRefused | ServerUnavailable:
        if self.status is not None and not self.retry:
            return ServerRefused(f"{what}: {self}", status=self.status)
        times = f" ({tries} tries)" if tries > 1 else ""
        return ServerUnavailable(
            f"{what}: {self}{times}", maybe_done=self.maybe_done, may_go_on=self.may_go_on, retry_after=self.after
        )


def _transport_text(error: Exception) -> str:
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (urllib3.exceptions.NameResolutionError, "the host's name is unknown"),
        (urllib3.exceptions.NewConnectionError, "no connection: is the server running, are host and port right?"),
        (urllib3.exceptions.TimeoutError, "no answer in time"),
        (urllib3.exceptions.SSLError, "the TLS certificate is not accepted; see --ca-file and --insecure"),
        (urllib3.exceptions.IncompleteRead, "the answer was cut off"),
        (urllib3.exceptions.ProxyError, "the proxy did not let the call through"),
    )
    for kind, text in kinds:
        if isinstance(error, kind):
            return text
    return "the connection broke"


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def open_session(settings: ServerSettings, **more: Any) -> Session:
    """A session that logs in when it is first used."""
    return Session(settings, **more)

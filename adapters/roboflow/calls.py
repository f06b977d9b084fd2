"""HTTP to inference servers: a deadline on every try, tries again where that may help, turns under a rate limit.

inference-sdk sends without any time-out, tries again after one second whatever Retry-After says, and has no rate limit:
its requests go out through here instead (`client.py`).
"""

from __future__ import annotations

import email.utils
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from adapters.roboflow.refusals import CallFailed, Key, meaning, words_of

_PIECE = 64 * 1024
_LARGEST_ANSWER = 256 * 1024 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LONGEST_RETRY_AFTER = 120.0
_NOT_AGAIN = frozenset({501, 505, 507, 510, 511})
"""5xx that say what will not change: the server cannot do this, or not with this model."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often a server is asked."""

    timeout: float = 60.0
    """Seconds for one try, from the connection to the end of the answer."""
    retries: int = 4
    per_second: float = 0.0
    """Requests that may begin in a second; 0 is any number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, parsed; it stands in for the `requests.Response` that inference-sdk expects."""

    status: int
    headers: Mapping[str, str]
    body: Any
    content: bytes = b""

    def json(self) -> Any:
        return self.body


class _Broken(Exception):
    """A try without a whole answer."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A try that failed."""

    error: CallFailed
    again: bool
    """Whether another try may help."""
    retry_after: float = 0.0


class Calls:
    """Sends requests for one model, from several threads."""

    def __init__(
        self,
        owner: str,
        key: Key,
        limits: Limits,
        *,
        wait: Callable[[float], object] | None = None,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.owner, self.key = owner, key
        self._limits, self._now, self._chance = limits, now, chance
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._lock = threading.Lock()
        self._next_turn = 0.0
        self._failing = False
        self._http = httpx.Client(
            timeout=limits.timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            headers={"User-Agent": "cvat-sidecar", "Accept": "application/json"},
        )

    def close(self) -> None:
        """Ends the waiting of whoever waits for a turn, and the idle connections."""
        self._closed.set()
        self._http.close()

    def get(self, url: str, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON at an address of Roboflow's, the key in the header."""
        return self.send("GET", url, params=params).body

    def post(self, url: str, content: Mapping[str, Any]) -> Any:
        """The JSON that a server answers to JSON."""
        if self.key.in_body:
            content = {**content, "api_key": self.key.value}
        return self.send("POST", url, body=json.dumps(content).encode()).body

    def send(
        self, method: str, url: str, *, params: Mapping[str, Any] | None = None, body: bytes | None = None
    ) -> Answer:
        """The answer; CallFailed where there is none, or none that can be used.

        Transport errors, 429 and 5xx are tried again; once they have outlasted the retries, the next calls get one
        try each until one succeeds, so that a run does not wait for a dead server frame by frame.
        """
        tries, number = (1 if self._failing else self._limits.retries + 1), 1
        while not isinstance(found := self._outcome(method, url, params, body, number), Answer):
            if not found.again:
                raise found.error
            if number >= tries:
                # Waiting for a turn is what a limit asks for; it says nothing of the next call.
                self._failing = found.error.status != 429
                raise found.error
            self._pause(number, found.retry_after)
            number += 1
        self._failing = False
        return found

    def _outcome(
        self, method: str, url: str, params: Mapping[str, Any] | None, body: bytes | None, number: int
    ) -> Answer | _Trouble:
        """Of the try with this number: the answer of a server that said yes, or what is wrong."""
        host = _host(url)
        self._take_turn()
        try:
            answer = self._try(method, url, params, body)
        except _Broken as error:
            times = f"; tried {number} times" if number > 1 else ""
            text = self.key.clean(str(error))
            failed = CallFailed(f"{self.owner}: {host}: {text}{times}")
            return _Trouble(failed, again="CERTIFICATE_VERIFY_FAILED" not in text)
        status = answer.status
        if status < 300:
            return answer
        words = self.key.clean(words_of(answer.body))
        text = meaning(status, host, self.key, number) + (f": {words}" if words else "")
        rest = _retry_after(answer.headers)
        if rest > _LONGEST_RETRY_AFTER:
            text += f"; it asks to be left alone for {rest:.0f} s"
        again = status == 429 or (status >= 500 and status not in _NOT_AGAIN)
        failed = CallFailed(f"{self.owner}: {text}", status=status)
        return _Trouble(failed, again and rest <= _LONGEST_RETRY_AFTER, rest)

    def _take_turn(self) -> None:
        """Waits until the rate limit, or a server's Retry-After, lets the next request go."""
        with self._lock:
            now = self._now()
            turn = max(now, self._next_turn)
            if self._limits.per_second > 0:
                self._next_turn = turn + 1 / self._limits.per_second
        self._rest(turn - now)

    def _pause(self, number: int, retry_after: float) -> None:
        if retry_after > 0:
            with self._lock:  # for all threads: they share the server's patience
                self._next_turn = max(self._next_turn, self._now() + retry_after)
            return
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (number - 1))
        self._rest(pause * (0.5 + self._chance() / 2))

    def _rest(self, seconds: float) -> None:
        if seconds > 0:
            self._wait(seconds)
        if self._closed.is_set():
            raise CallFailed(f"{self.owner}: the model was closed")

    def _try(self, method: str, url: str, params: Mapping[str, Any] | None, body: bytes | None) -> Answer:
        """One try. Each silence is bound by the time-out, and the clock is looked at between the pieces."""
        deadline = self._now() + self._limits.timeout
        late = f"no whole answer within {self._limits.timeout:g} s (option timeout)"
        headers = {"Authorization": f"Bearer {self.key.value}"} if self.key.value and not self._hidden(body) else {}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        content = bytearray()
        try:
            pieces = None if body is None else self._pieces(body, deadline, late)
            with self._http.stream(method, url, params=params, headers=headers, content=pieces) as response:
                for piece in response.iter_bytes():  # as they come: a size would wait for so many
                    content += piece
                    if self._now() > deadline:
                        raise _Broken(late)
                    if len(content) > _LARGEST_ANSWER:
                        raise CallFailed(f"{self.owner}: {_host(url)}: answered with more than 256 MiB")
                return Answer(response.status_code, response.headers, self._parsed(response, bytes(content)))
        except httpx.TimeoutException as error:
            raise _Broken(late) from error
        except httpx.HTTPError as error:
            raise _Broken(_transport(error)) from error

    def _hidden(self, body: bytes | None) -> bool:
        """Whether the key travels in the body, and so in no header; what has no body is the platform's, or free."""
        return self.key.in_body and body is not None

    def _pieces(self, body: bytes, deadline: float, late: str) -> Iterator[bytes]:
        for start in range(0, len(body), _PIECE):
            if self._now() > deadline:
                raise _Broken(late)
            yield body[start : start + _PIECE]

    def _parsed(self, response: httpx.Response, content: bytes) -> Any:
        """The JSON; of an error that has none, its text where that is one."""
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
            text = content[:500].decode("utf-8", "replace")
            if response.status_code < 300:
                said = self.key.clean(text)[:60] or "nothing"
                where = _host(str(response.url))
                raise CallFailed(f"{self.owner}: {where}: answered with {kind}, not with JSON: {said!r}") from None
            return "" if "html" in kind else text


def _host(url: str) -> str:
    """The address without its path: what a person knows a server by."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _transport(error: httpx.HTTPError) -> str:
    what = "cannot be reached" if isinstance(error, httpx.ConnectError) else "the connection broke"
    return f"{what}: {error or type(error).__name__}"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to be left alone; 0 where it does not say, or not in a form that HTTP knows."""
    text = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(text)) if text.replace(".", "", 1).isdigit() else max(0.0, _until(text))
    except (TypeError, ValueError):
        return 0.0


def _until(date: str) -> float:
    moment = email.utils.parsedate_to_datetime(date)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()

"""One try that failed: what it means, whether another may follow, and after how long."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import urllib3.exceptions as transport

from agent.cvat.refusals import refusal
from agent.errors import ServerRefused, ServerUnavailable

FIRST_WAIT, LONGEST_WAIT = 0.3, 30.0
"""Seconds between two tries: doubled each time, with full jitter."""
LONGEST_RETRY_AFTER = 120.0
API_TYPE = "application/vnd.cvat+json"
"""What CVAT's API calls its answers; nobody else does."""

_TEXTS: tuple[tuple[type[Exception], str], ...] = (
    (transport.NameResolutionError, "the host's name is unknown"),
    (transport.NewConnectionError, "no connection: is the server running, are host and port right?"),
    (transport.TimeoutError, "no answer in time"),
    (transport.IncompleteRead, "the answer was cut off"),
    (transport.ProxyError, "the proxy did not let the call through"),
    (transport.SSLError, "the TLS connection broke"),
)


class Failure(Exception):
    """A try without a usable answer.

    `maybe_done`: the server may have done what was asked all the same; `may_go_on`: it may still be at it.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        retry: bool = False,
        maybe_done: bool = False,
        may_go_on: bool = False,
        after: float | None = None,
        by_api: bool = False,
    ) -> None:
        super().__init__(text)
        self.status, self.retry, self.after, self.by_api = status, retry, after, by_api
        self.maybe_done, self.may_go_on = maybe_done, may_go_on

    @classmethod
    def of_transport(cls, error: Exception) -> Failure:
        """A try that got no answer."""
        inner = _inmost(error)
        if isinstance(inner, transport.SSLError) and (text := _lasting(inner)):
            return cls(text)
        never_sent = isinstance(inner, transport.NewConnectionError | transport.ConnectTimeoutError)
        text = next((text for kind, text in _TEXTS if isinstance(inner, kind)), "the connection broke")
        return cls(text, retry=True, maybe_done=not never_sent, may_go_on=not never_sent)

    @classmethod
    def of_status(cls, status: int, headers: Mapping[str, str], content: bytes) -> Failure:
        """A try that was answered by a status outside 2xx."""
        if 300 <= status < 400:
            # Following it would take the credentials to another address, and turn a POST into a GET.
            return cls(
                f"status {status}: it redirects to {_shown(headers.get('Location'))}; name that address",
                status=status,
            )
        busy = status == 429
        return cls(
            refusal(status, headers.get("Content-Type", ""), content),
            status=status,
            retry=busy or status >= 500,
            # Even behind a 429 a proxy may have passed the call on.
            maybe_done=busy or status >= 500,
            # A proxy in front that gives up does not stop the server behind it.
            may_go_on=status in (502, 503, 504),
            after=retry_after(headers.get("Retry-After")) if busy or status == 503 else None,
            by_api=headers.get("Content-Type", "").startswith(API_TYPE),
        )

    def wait(self, attempt: int, jitter: float) -> float:
        """Seconds until the next try; `jitter` is a random number from 0 to 1."""
        if self.after is not None:
            return min(self.after, LONGEST_RETRY_AFTER) + jitter * FIRST_WAIT
        return min(FIRST_WAIT * 2.0 ** min(attempt, 30), LONGEST_WAIT) * jitter

    def error(self, what: str, tries: int, *, maybe_done: bool) -> ServerRefused | ServerUnavailable:
        """The error for whoever made the call."""
        if self.status is not None and not self.retry:
            return ServerRefused(f"{what}: {self}", status=self.status, by_api=self.by_api)
        times = f" ({tries} tries)" if tries > 1 else ""
        return ServerUnavailable(
            f"{what}: {self}{times}",
            maybe_done=maybe_done,
            may_go_on=self.may_go_on,
            retry_after=None if self.after is None else min(self.after, LONGEST_RETRY_AFTER),
            status=self.status,
        )


def _inmost(error: Exception) -> Exception:
    """What went wrong beneath urllib3's wrappers: retries that were exhausted, and the proxy's part."""
    while True:
        inner = getattr(error, "reason", None)
        if isinstance(error, transport.ProxyError):
            inner = error.original_error
        if not isinstance(inner, Exception) or inner is error:
            return error
        error = inner


def _lasting(error: Exception) -> str | None:
    """What to say of a TLS error that another try would only meet again."""
    said = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in said or "certificate" in said.lower():
        return "the TLS certificate is not accepted; see --ca-file and --insecure"
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER_FAILURE" in said or "HTTP_REQUEST" in said:
        return "the server does not speak TLS there; is it http:// rather than https://?"
    return None


def _shown(location: str | None) -> str:
    """A Location header without its query, which can carry secrets."""
    return (location or "nowhere").partition("?")[0][:200]


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except ValueError:
            return None
    return max(0.0, seconds) if seconds == seconds else None

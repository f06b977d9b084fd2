"""One call over the wire: what is sent, what comes back, and answers that go on for as long as somebody listens."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import urllib3
from cvat_sdk.core.client import Client

from agent.cvat.failures import Failure
from agent.errors import RequestCancelled, ServerRefused

LONGEST_CALL = 10
"""An answer that keeps trickling in is given up after this many time-outs."""
CONNECT_SECONDS = 20.0
_PIECE = 1 << 20


@runtime_checkable
class JsonPieces(Protocol):
    """JSON that is ready to be sent, piece by piece, as often as somebody iterates over it."""

    @property
    def length(self) -> int:
        """Bytes in all."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...


class JsonObject:
    """An object of JSON, some of whose members may be JsonPieces."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._parts: list[bytes | JsonPieces] = []
        for name, value in members.items():
            self._parts.append(f"{',' if self._parts else '{'}{json.dumps(name)}:".encode())
            pieces = isinstance(value, JsonPieces)
            self._parts.append(value if pieces else json.dumps(value, separators=(",", ":"), allow_nan=False).encode())
        self._parts.append(b"}" if self._parts else b"{}")

    @property
    def length(self) -> int:
        return sum(len(part) if isinstance(part, bytes) else part.length for part in self._parts)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from part


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


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked. `timeout` is how long the server may be silent."""

    method: str
    path: str
    timeout: float
    query: Mapping[str, Any] | None = None
    body: Any = None
    """A JSON value, or JsonPieces."""
    stop: threading.Event | None = None
    headers: Mapping[str, str | None] | None = None

    @property
    def encoding(self) -> str:
        # Chunks are compressed already, and what is squeezed comes late: a stream must not wait for it.
        return "identity" if self.path.endswith(("/data", "/watch")) else "gzip"


def answer(client: Client, call: Call, clock: Callable[[], float]) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body. Failure where there is no whole answer."""
    try:
        with _sent(client, call) as response:
            return response.status, response.headers, _read(response, call, clock)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Failure.of_transport(error) from error


class Stream:
    """An answer that comes bit by bit. One thread reads it, another one may end it."""

    def __init__(self, response: Any, what: str) -> None:
        self._response, self._what = response, what
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        """What has come, as it comes; ends with the answer, or when the stream is closed. Raises ServerUnavailable."""
        try:
            while piece := self._response.read1(_PIECE):
                yield piece
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not self._closed:
                raise Failure.of_transport(error).error(self._what, 1, maybe_done=False) from error
        finally:
            self._response.close()

    def close(self) -> None:
        """Ends the reading, also while the reader waits."""
        self._closed = True
        # What is over cannot be shut, and need not be.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()


def open_stream(client: Client, call: Call, what: str) -> Stream:
    """The answer to a call, once its status has come. Failure where it is none of 2xx."""
    try:
        response = _send(client, call)
        if 200 <= response.status < 300:
            return Stream(response, what)
        with _given_back(response):
            content = response.read(_PIECE)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Failure.of_transport(error) from error
    raise Failure.of_status(response.status, response.headers, content)


@contextlib.contextmanager
def _sent(client: Client, call: Call) -> Iterator[Any]:
    response = _send(client, call)
    with _given_back(response):
        yield response


@contextlib.contextmanager
def _given_back(response: Any) -> Iterator[None]:
    """Its connection goes back to the pool, or is closed if something is left in it."""
    try:
        yield
    finally:
        response.close()
        response.release_conn()


def _send(client: Client, call: Call) -> Any:
    headers = {
        "Accept": "application/vnd.cvat+json, */*;q=0.5",
        "Accept-Encoding": call.encoding,
        **(call.headers or {}),
    }
    timeout = (min(call.timeout, CONNECT_SECONDS), call.timeout)
    if isinstance(call.body, JsonPieces):
        return _send_pieces(client, call, call.body, headers, timeout)
    _, response = client.api_client.call_api(
        call.path,
        call.method,
        query_params=[(name, str(value)) for name, value in (call.query or {}).items()],
        header_params=headers,
        body=call.body,
        _parse_response=False,
        _check_status=False,
        _request_timeout=timeout,
    )
    return response


def _send_pieces(
    client: Client, call: Call, body: JsonPieces, headers: Mapping[str, str | None], timeout: tuple[float, float]
) -> Any:
    """As call_api does it, which would turn a body into JSON by itself, whole."""
    api = client.api_client
    sent = {
        **api.get_common_headers(),
        **headers,
        "Content-Type": "application/json",
        # With a length, proxies need not keep the whole body to find out.
        "Content-Length": str(body.length),
    }
    return api.rest_client.pool_manager.request(
        call.method,
        f"{api.configuration.host}{call.path}",
        body=iter(body),
        headers={name: value for name, value in sent.items() if value is not None},
        timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
        preload_content=False,
    )


def _read(response: Any, call: Call, clock: Callable[[], float]) -> bytes:
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

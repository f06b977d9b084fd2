"""Native functions and their queues, as CVAT Online and Enterprise serve them; the open-source server does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.cvat.calls import JsonObject
from agent.cvat.session import Session, Stream
from agent.errors import ServerError, ServerRefused, ServerUnavailable

Category = Literal["interactive", "batch"]
CATEGORIES: tuple[Category, ...] = ("interactive", "batch")
"""The most urgent first."""
ACQUIRE_SECONDS = 30.0
"""How long the server may be silent before it tells whether there is work."""
UPDATE_SECONDS = 15.0
"""How long it may be silent after a sign of life; the next one must not come too late."""
SILENCE_SECONDS = 120.0
"""A stream without so much as a comment for so long is taken for broken."""


def create_function(session: Session, body: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a function; answers with it and its id."""
    try:
        made: dict[str, Any] = session.request("POST", "/api/functions", body=dict(body)).json()
    except ServerRefused as error:
        if error.status == 404:
            raise ServerRefused(
                f"{session.url}: it has no native functions, which come with CVAT Online and Enterprise;"
                " the gateway serves every CVAT",
                status=404,
            ) from error
        raise
    return made


def get_function(session: Session, function: int) -> dict[str, Any] | None:
    """A function, None where there is none of that id."""
    try:
        found: dict[str, Any] = session.request("GET", f"/api/functions/{function}").json()
    except ServerRefused as error:
        if error.status != 404:
            raise
        _check_alive(session, error)
        return None
    return found


def delete_function(session: Session, function: int) -> bool:
    """Removes a function and what waits for it; False where there is none of that id."""
    try:
        session.request("DELETE", f"/api/functions/{function}")
    except ServerRefused as error:
        if error.status != 404:
            raise
        _check_alive(session, error)
        return False
    return True


@dataclass(frozen=True, slots=True)
class Assignment:
    """A request that was given to us."""

    id: str
    params: Any
    """As the server sent them; nobody has looked at them yet."""


@dataclass(frozen=True, slots=True)
class FunctionQueue:
    """The queue of a function, as one agent meets it.

    Refusals of what was asked raise ServerRefused; a 404 of a proxy whose server is away does not.
    """

    session: Session
    function: int
    agent: str
    """Names this process: 32 hexadecimal digits."""

    def acquire(self, category: Category) -> Assignment | None:
        """The next request of a category, None where none waits. Tried once."""
        sent = {"agent_id": self.agent, "request_category": category}
        timeout = min(ACQUIRE_SECONDS, self.session.settings.timeout)
        found = self._post("requests/acquire", sent, timeout=timeout)
        given = found.get("ar_assignment") if isinstance(found, dict) else None
        if given is None:
            return None
        if not isinstance(given, dict) or not isinstance(given.get("ar_id"), str):
            raise ServerUnavailable(f"function {self.function}: the server gave a request without an id")
        return Assignment(given["ar_id"], given.get("ar_params"))

    def update(self, request: str, progress: float) -> None:
        """Says that we are still at it, and how far (0..1). Tried once."""
        sent = {"agent_id": self.agent, "progress": round(progress, 4)}
        timeout = min(UPDATE_SECONDS, self.session.settings.timeout)
        self._post(f"requests/{request}/update", sent, timeout=timeout)

    def complete(self, request: str, result: Mapping[str, Any], timeout: float | None = None) -> None:
        """Hands in a result; its values are JSON or JsonPieces. Tried once."""
        self._post(f"requests/{request}/complete", JsonObject({"agent_id": self.agent, **result}), timeout=timeout)

    def fail(self, request: str, why: str) -> None:
        """Gives a request up for good; its users read why."""
        self._post(f"requests/{request}/fail", {"agent_id": self.agent, "exc_info": why}, retries=None)

    def watch(self) -> Stream:
        """The stream of events."""
        return self.session.stream(self._path("watch"), silence=SILENCE_SECONDS)

    def exists(self) -> bool:
        """Whether the function is still there."""
        return get_function(self.session, self.function) is not None

    def _path(self, rest: str) -> str:
        # As the official client writes it, with the colon encoded.
        return f"/api/functions/queues/function%3A{self.function}/{rest}"

    def _post(self, rest: str, body: Any, *, retries: int | None = 0, timeout: float | None = None) -> Any:
        try:
            path = self._path(rest)
            return self.session.request(
                "POST", path, body=body, repeatable=True, retries=retries, timeout=timeout
            ).json()
        except ServerRefused as error:
            if error.status == 404:
                _check_alive(self.session, error)
            raise


def _check_alive(session: Session, error: ServerRefused) -> None:
    """ServerUnavailable where it was not CVAT that said 404: proxies do so while the server behind them restarts."""
    if error.by_api:
        return
    try:
        session.request("GET", "/api/server/about", retries=0)
    except ServerError as away:
        raise ServerUnavailable(f"{error}; the server itself does not answer", maybe_done=True) from away

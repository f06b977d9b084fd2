"""A queue door that serves models to a sandbox, and what people do with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.activity import RequestRecord
from agent.doors import Shared
from agent.doors.queue import QueueDoor
from agent.functions.registration import Registrar
from agent.models.descriptions import Description
from agent.sandbox.queue import OVER, enqueue
from agent.settings.tables import ModelSettings, QueueSettings, ServiceSettings
from tests.support.doors import shared
from tests.support.models import loader
from tests.support.tasks import Client

if TYPE_CHECKING:
    import httpx

    from agent.sandbox import Sandbox
    from agent.sandbox.records import QueuedRequest

FAST = QueueSettings(poll_seconds=0.3, heartbeat_seconds=0.1)


class Serving:
    """Models served by a queue door, and a person who uses them (`client`)."""

    def __init__(self, sandbox: Sandbox, around: Shared, door: QueueDoor, client: Client) -> None:
        self.sandbox, self.shared, self.door, self.client = sandbox, around, door, client
        self.functions: dict[str, int] = {}

    def order(self, task: int, model: str | None = None, **more: Any) -> str:
        """Orders automatic annotation of a task; the request's id."""
        body = {"function": str(self._function(model)), "task": task, **more}
        made = self.client.post("/api/lambda/requests", json=body)
        assert made.status_code == 200, made.text
        request: str = made.json()["id"]
        return request

    def request(self, rq_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/api/lambda/requests/{rq_id}").json()
        return found

    def ended(self, rq_id: str, seconds: float = 30) -> dict[str, Any]:
        """The request once it has ended."""
        found: dict[str, Any] = self.client.until(
            f"/api/lambda/requests/{rq_id}", lambda got: got.json()["status"] in ("finished", "failed"), seconds
        )
        return found

    def call(self, model: str | None = None, **body: Any) -> httpx.Response:
        """A person's call, which waits for the answer."""
        return self.client.post(f"/api/lambda/functions/{self._function(model)}", json=body)

    def calling(self, model: str | None = None, **body: Any) -> Calling:
        """The same, in a thread."""
        return Calling(lambda: self.call(model, **body))

    def enqueue(self, params: Any, category: str = "interactive", model: str | None = None) -> QueuedRequest:
        """Puts something into the queue that no person could order."""
        state = self.sandbox.state
        function = state.functions.get(self._function(model))
        assert function is not None
        with state.store.change():
            return enqueue(state, function, category, params)

    def settled(self, queued: QueuedRequest, seconds: float = 30) -> tuple[str, str | None]:
        """Status and message of such a request, once it is over."""
        until(lambda: queued.status in OVER, seconds)
        return queued.status, queued.exc_info

    def finished(self, count: int = 1) -> list[RequestRecord]:
        """The requests that ended, the newest first, once there are so many: people are answered a moment before."""
        return list(until(lambda: found if len(found := self.shared.activity.finished()) >= count else None))

    def shapes(self, task: int) -> list[dict[str, Any]]:
        found = self.client.get(f"/api/tasks/{task}/annotations").json()["shapes"]
        return sorted(found, key=lambda shape: (shape["frame"], shape["points"]))

    def log(self, method: str | None = None, path: str = "") -> list[str]:
        return [f"{entry.method} {entry.path}" for entry in self.sandbox.requests.matching(method, path)]

    def _function(self, model: str | None) -> int:
        return self.functions[model or next(iter(self.functions))]


class Calling:
    """A call on its way."""

    def __init__(self, call: Callable[[], httpx.Response]) -> None:
        self._found: list[httpx.Response] = []
        self._thread = threading.Thread(target=lambda: self._found.append(call()))
        self._thread.start()

    def answer(self, seconds: float = 30) -> httpx.Response:
        self._thread.join(seconds)
        assert self._found, "no answer came"
        return self._found[0]


def until(done: Callable[[], Any], seconds: float = 20) -> Any:
    """What a condition gives, once it holds."""
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)
    return found


@contextmanager
def serving(
    sandbox: Sandbox,
    models: dict[str, Any] | Sequence[ModelSettings],
    *,
    settings: dict[str, dict[str, Any]] | None = None,
    queue: QueueSettings = FAST,
    service: ServiceSettings | None = None,
    folder: Path | None = None,
    register: bool = True,
    start: bool = True,
    watched: bool = True,
    **more: Any,
) -> Iterator[Serving]:
    """A queue door that serves these models: objects by name, or real ones as in service.toml. `settings` has more of
    ModelSettings, by name; `watched`: it begins once the event streams are there."""
    if isinstance(models, dict):
        rows = [ModelSettings(name, f"test:{name}", **(settings or {}).get(name, {})) for name in models]
        more["load"] = loader(models)
    else:
        rows = list(models)
    with ExitStack() as stack:
        around = stack.enter_context(
            shared(
                sandbox, rows, folder=folder, queue=queue,
                service=service or ServiceSettings(), **more,
            )
        )  # fmt: skip
        around.config = replace(around.config, service=replace(around.config.service, state_dir=around.state_dir))
        door = QueueDoor(around)
        client = stack.enter_context(Client(sandbox, "bot", "secret"))
        made = Serving(sandbox, around, door, client)
        if register:
            made.functions = {r.model: r.function for r in registrar(around).register() if r.function is not None}
        if start:
            door.start()
            stack.callback(door.close)
            if watched:
                until(lambda: door.health().ok and "no event stream" not in door.health().text)
        yield made


def registrar(around: Shared) -> Registrar:
    """What registers the functions of these models."""

    def describe(model: str) -> Description:
        with around.pool.use(model) as hosted:
            return Description.of(hosted.loaded)

    return Registrar(around.config, around.session, describe)

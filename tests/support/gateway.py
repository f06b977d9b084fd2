"""A gateway and a sandbox that calls it, for tests."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from agent.contract import Context, Detection, Frame, Rectangle
from agent.doors import Shared
from agent.doors.gateway import Gateway
from agent.models.loading import LoadedModel, ModelReference
from agent.sandbox import Sandbox
from agent.settings.tables import GatewaySettings, ModelSettings
from tests.support.doors import shared
from tests.support.material import BITS, BLOCK, number_of
from tests.support.models import Finder, loader


@dataclass
class Stage:
    """A sandbox whose dashboard is the gateway, and a client of the gateway itself."""

    sandbox: Sandbox
    shared: Shared
    gateway: Gateway
    http: httpx.Client

    def call(self, function: str, payload: Any, **headers: str) -> httpx.Response:
        """A call as CVAT makes it, in its `dashboard` mode; bytes are sent as they are."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        more = {"x-nuclio-function-name": function, "x-nuclio-path": "/", "Content-Type": "application/json", **headers}
        return self.http.post("/api/function_invocations", content=body, headers=more)


@contextmanager
def staged(
    models: dict[str, Any] | Sequence[ModelSettings],
    *,
    invoke: str = "dashboard",
    learn: bool = True,
    may_load: threading.Event | None = None,
    **settings: Any,
) -> Iterator[Stage]:
    """The gateway with these models (in-test ones by id, or settings of real ones), and a sandbox that calls it.

    `learn` loads the models first, as the service does; `may_load` holds the loading up while it is clear.
    """
    port = free_port()
    load: dict[str, Any] = {}
    if isinstance(models, dict):
        load["load"] = with_describers(models, may_load)
        models = [ModelSettings(id=name, model=f"test:{name}") for name in models]
    more = settings.pop("shared", {})
    table = GatewaySettings(port=port, **settings)
    with (
        Sandbox({"bot": "secret", "alice": "secret"}, nuclio=f"http://127.0.0.1:{port}", invoke=invoke) as sandbox,
        shared(sandbox, models, gateway=table, **load, **more) as parts,
        opened(parts) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as http,
    ):
        if learn:
            parts.pool.preload()
        yield Stage(sandbox, parts, gateway, http)


@contextmanager
def opened(parts: Shared) -> Iterator[Gateway]:
    """The gateway, open."""
    gateway = Gateway(parts)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.close()


def free_port(count: int = 1) -> int:
    """The first of some ports that nobody has."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            first = int(found.getsockname()[1])
        if count == 1 or (first + count < 60000 and all(map(_is_free, range(first, first + count)))):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def image_of(content: bytes) -> str:
    """A picture as it comes in a call."""
    return base64.b64encode(content).decode()


class Watched(Finder):
    """A Finder that also tells the numbers that the pictures of each batch carry: a call does not tell its frame."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"find": self._found, **more})
        self.batches: list[list[int]] = []

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        self.batches.append([number_of(frame.image) if _carries(frame) else -1 for frame in frames])
        return super().detect(frames, context)

    def _found(self, frame: Frame, context: Context) -> list[Detection]:
        return [self._thing(frame)] if _carries(frame) else []


def _carries(frame: Frame) -> bool:
    """Whether a picture is large enough for a number."""
    return frame.width >= BITS * BLOCK and frame.height >= BLOCK


class Describer:
    """A reidentifier that knows rectangles by the mean colour in them."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def describe(self, frame: Frame, rectangles: Sequence[Rectangle]) -> np.ndarray[Any, Any]:
        self.asked.append(len(rectangles))
        found = [_colour(frame, rectangle) for rectangle in rectangles]
        return np.array([row / np.linalg.norm(row) for row in found], np.float32)


def _colour(frame: Frame, box: Rectangle) -> np.ndarray[Any, Any]:
    part = frame.image[round(box.top) : round(box.bottom) or 1, round(box.left) : round(box.right) or 1]
    mean: np.ndarray[Any, Any] = part.reshape(-1, 3).mean(axis=0) - 100
    return mean


def with_describers(models: dict[str, Any], may_load: threading.Event | None = None) -> Callable[..., LoadedModel]:
    """`tests.support.models.loader`, for reidentifiers too."""
    load = loader(models)

    def chosen(reference: str, **more: Any) -> LoadedModel:
        name = reference.partition(":")[2]
        assert may_load is None or may_load.wait(60), "the test forgot to let it load"
        if hasattr(models[name], "describe"):
            return LoadedModel(ModelReference("test", name), models[name], "reid", version="1")
        return load(reference, **more)

    return chosen

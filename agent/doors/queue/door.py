"""The queue door: requests of CVAT Online's and Enterprise's agent queue, for all models that have a function."""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable

from agent.cvat.functions_api import FunctionQueue
from agent.cvat.single_frames import FrameCache
from agent.cvat.task_cache import TaskCache
from agent.doors import DoorHealth, Shared
from agent.doors.queue.held import Workplace
from agent.doors.queue.server import FunctionServer
from agent.errors import ConfigError
from agent.functions.bodies import KINDS, kind_of
from agent.functions.ids import FunctionIds

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that closing waits for threads."""
LOOK_SECONDS = 1.0
"""How often it is looked whether `functions register` or `delete` has changed something."""
MIB = 2**20


class QueueDoor:
    """Serves the functions that were registered for the models of service.toml."""

    name = "queue"

    def __init__(self, shared: Shared, *, jitter: Callable[[], float] = random.random) -> None:
        self._shared, self._jitter = shared, jitter
        self.agent = secrets.token_hex(16)
        """Names this process to the server."""
        self._closed, self._leaving = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._servers: dict[str, FunctionServer] = {}
        self._without: list[str] = []
        self._place = Workplace(
            shared, TaskCache(shared.session), FrameCache(shared.session, self._frame_bytes()), self._gives_up
        )

    def start(self) -> None:
        log.info("queue: agent %s", self.agent)
        stamp = self._ids().stamp()
        self.reload()
        threading.Thread(target=self._look, args=(stamp,), name="functions", daemon=True).start()

    def drain(self) -> None:
        self._leaving.set()
        for server in self._all():
            server.leave()

    def close(self) -> None:
        self._closed.set()
        self.drain()
        end = time.monotonic() + PATIENCE
        for server in self._all():
            server.close(max(0.0, end - time.monotonic()))

    def reload(self) -> None:
        self._place.frames.set_limit(self._frame_bytes())
        for server in self._follow():
            server.look_again()

    def _follow(self) -> list[FunctionServer]:
        """Serves what is to be served, and nothing else; those that stay."""
        wanted, without = self._wanted()
        with self._lock:
            if self._leaving.is_set():
                return []
            self._without = without
            # One that was gone may be there again: a user who was out of the organization, and is back.
            gone = [m for m, server in self._servers.items() if server.gone or wanted.get(m) != server.queue.function]
            leaving = [self._servers.pop(model) for model in gone]
            staying = list(self._servers.values())
            coming = [self._new(m, function) for m, function in wanted.items() if m not in self._servers]
            self._servers |= {server.model: server for server in coming}
        for server in leaving:
            if not server.gone:
                log.info("model %s: function %d is not served any more", server.model, server.queue.function)
            server.close(0)
        for server in coming:
            server.start()
        return staying

    def _look(self, stamp: object) -> None:
        """Follows `functions register` and `delete` while the door is open."""
        while not self._leaving.wait(LOOK_SECONDS):
            now = self._ids().stamp()
            if now == stamp:
                continue
            stamp = now
            log.info("queue: functions were registered or deleted, looking which are to be served")
            try:
                self._follow()
            except ConfigError as error:
                log.error("queue: everything stays as it is: %s", error)
            except Exception:  # the next change must be seen all the same
                log.exception("queue: functions could not be looked at")

    def health(self) -> DoorHealth:
        served = [server.health() for server in self._all()]
        parts = [one.text for one in served]
        if self._without:
            parts.append(f"without a function: {', '.join(self._without)} (`cvat-sidecar functions register`)")
        return DoorHealth(
            bool(served) and all(one.ok for one in served), "; ".join(parts) or "no model is for the queue"
        )

    # ---------------------------------------------------------------- inside

    def _wanted(self) -> tuple[dict[str, int], list[str]]:
        """Model id -> function id; and the models of the queue that have none, and could have one."""
        config = self._shared.config
        if config.queue is None:
            return {}, []
        ids = self._ids()
        found = [(model, ids.of(model)) for model in config.models if "queue" in model.doors]
        described = self._shared.pool.describe
        without = [model for model, function in found if function is None]
        registrable = [model.id for model in without if kind_of(model, described(model.id)) in KINDS]
        return {model.id: function for model, function in found if function is not None}, registrable

    def _ids(self) -> FunctionIds:
        return FunctionIds(self._shared.state_dir, self._shared.session)

    def _new(self, model: str, function: int) -> FunctionServer:
        queue = FunctionQueue(self._shared.session, function, self.agent)
        return FunctionServer(model, queue, self._place, jitter=self._jitter)

    def _all(self) -> list[FunctionServer]:
        with self._lock:
            return list(self._servers.values())

    def _frame_bytes(self) -> int:
        return int((self._shared.config.queue.frames_mb if self._shared.config.queue else 0.0) * MIB)

    def _gives_up(self) -> bool:
        return self._closed.is_set() or self._shared.stop.is_set()

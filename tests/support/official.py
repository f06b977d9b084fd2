"""The official client: functions that it makes, its agent that serves one of them, and our door that serves another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.doors.queue import QueueDoor
from agent.settings.tables import ModelSettings
from tests.support.doors import shared
from tests.support.queue import FAST, until
from tests.support.tasks import Client

if TYPE_CHECKING:
    from agent.sandbox import Sandbox


@contextmanager
def made_twice(sandbox: Sandbox) -> Iterator[Callable[..., tuple[int, int]]]:
    """`make(kind, *options)`: the ids of two functions that the official client made; its agent serves the first."""
    host, _, port = sandbox.url.rpartition(":")
    server = ("--server-host", host, "--server-port", port, "--auth", "bot:secret")
    environment = {**os.environ, "PASS": "secret"}
    running = []

    def make(kind: str, *options: Any) -> tuple[int, int]:
        command = [sys.executable, "-m", "cvat_cli", *server, "function"]
        words = [str(option) for option in options]
        ids = []
        for _ in range(2):
            create = [*command, "create-native", kind, *words]
            made = subprocess.run(create, capture_output=True, text=True, timeout=100, env=environment)
            assert made.returncode == 0, made.stderr
            ids.append(int(re.findall(r"\d+", made.stdout)[-1]))
        serve = [*command, "run-agent", str(ids[0]), *words]
        silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running.append(subprocess.Popen(serve, **silent, env=environment))
        return ids[0], ids[1]

    try:
        yield make
    finally:
        for process in running:
            process.kill()
            process.wait(timeout=20)


@contextmanager
def served(sandbox: Sandbox, model: ModelSettings, folder: Path) -> Iterator[Client]:
    """A person's client, while our door serves the model."""
    with Client(sandbox, "bot", "secret") as client, shared(sandbox, [model], folder=folder, queue=FAST) as around:
        door = QueueDoor(around)
        door.start()
        try:
            until(lambda: door.health().ok)
            yield client
        finally:
            door.close()


def caller(client: Client, function: int) -> Callable[..., Any]:
    """A person's call of a function, which waits for the answer."""

    def call(**body: Any) -> Any:
        reply = client.post(f"/api/lambda/functions/{function}", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    return call

"""The stage of the soak: a sandbox with faults, the service as a process that can be killed, and a look at its size."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from agent.sandbox import Sandbox
from agent.sandbox.faults import Fault
from agent.sandbox.queue import OVER
from agent.sandbox.records import QueuedRequest
from tests.support.gateway import free_port
from tests.support.queue import until

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("finder", "clicker", "follower")
PERSON, BOT, WATCHED = "alice", "bot", "watched"
FAULTY = 0.05
"""The share of the service's calls that go wrong."""
_OURS = r"^/api/(?!lambda/|tasks/\d+/annotations|functions/queues/[^/]+/watch)"
"""Paths that only the service asks for, without its event streams."""
_LEASE_SECONDS = 4.0
_SERVICE = """
[cvat]
host = "{host}"
user = "{bot}"
password_env = "BOT_PASSWORD"
[service]
port = {port}
state_dir = "state"
batch_lanes = 3
log_level = "warning"
[engine]
embeddings_mb = 1
[queue]
poll_seconds = 0.5
heartbeat_seconds = 1
frames_mb = 2
[gateway]
port = {gateway}
prefetch_mb = 2
[watch]
check_seconds = 1
[[rules]]
name = "{watched}"
model = "finder"
assignee = "{person}"
task_name = "{watched} *"
every_seconds = 1
state_when_started = "in progress"
state_when_done = "completed"
"""
_MODEL = '[[models]]\nid = "{0}"\nmodel = "soak:{0}"\ndevice = "cpu"\n'


@dataclass(frozen=True, slots=True)
class Held:
    """What the service held when it was killed."""

    request: QueuedRequest
    agent: str | None

    @property
    def taken_over(self) -> bool:
        return self.request.status == "completed" and self.request.agent_id != self.agent


@dataclass(frozen=True, slots=True)
class Size:
    """Of the service's process, at one moment."""

    resident: int
    files: int
    threads: int


class Service:
    """`cvat-sidecar serve`, which can be killed and started again."""

    def __init__(self, folder: Path, sandbox: Sandbox, gateway: int) -> None:
        self.port, self.sandbox = free_port(), sandbox
        self.ready = threading.Event()
        self.away: list[tuple[float, float]] = []
        """When it was not there: from a kill to the moment when it was ready again."""
        self.held: list[Held] = []
        self.log = folder / "service.log"
        self.file = folder / "service.toml"
        values = {
            "host": sandbox.url,
            "bot": BOT,
            "person": PERSON,
            "port": self.port,
            "gateway": gateway,
            "watched": WATCHED,
        }
        self.file.write_text(_SERVICE.format(**values) + "".join(map(_MODEL.format, MODELS)))
        self._env = {**os.environ, "BOT_PASSWORD": "secret", "PYTHONPATH": f"{_plugin(folder)}{os.pathsep}{ROOT}"}
        self._process: subprocess.Popen[bytes] | None = None

    def register(self) -> None:
        """Makes the native functions, for everybody."""
        command = [sys.executable, "-m", "agent.cli", "functions", "register", "--public", "--config", str(self.file)]
        done = subprocess.run(command, env=self._env, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts it; returns once it is ready."""
        command = [sys.executable, "-m", "agent.cli", "serve", "--config", str(self.file)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._env, cwd=ROOT, stdout=log, stderr=log)
        until(self._is_ready, 60)
        self.ready.set()

    def kill(self) -> None:
        """kill -9, and up again."""
        assert self._process is not None
        self.ready.clear()
        began = time.monotonic()
        with self.sandbox.state.store.lock:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            running = self.sandbox.state.queued.where(status="running")
            self.held += [Held(request, request.agent_id) for request in running]
        self.start()
        self.away.append((began, time.monotonic()))

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def running(self) -> list[str]:
        """What it says that it is doing."""
        found = httpx.get(f"http://127.0.0.1:{self.port}/api/status", timeout=20, trust_env=False).json()["running"]
        return [f"{request['door']} {request['kind']} {request['what']}" for request in found]

    def size(self) -> Size:
        assert self._process is not None
        place = Path(f"/proc/{self._process.pid}")
        pages = int((place / "statm").read_text().split()[1])
        threads, files = len(list((place / "task").iterdir())), len(list((place / "fd").iterdir()))
        return Size(pages * os.sysconf("SC_PAGE_SIZE"), files, threads)

    def was_away(self, began: float, ended: float) -> bool:
        return any(began < back and ended > gone for gone, back in self.away)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=20, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


class Sizes:
    """Looks at the service's size twice a second, until it is told to end."""

    def __init__(self, service: Service) -> None:
        self.seen: list[Size] = []
        self._service, self._end = service, threading.Event()
        self._thread = threading.Thread(target=self._run, name="sizes", daemon=True)

    def __enter__(self) -> Sizes:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.5):
            self.seen.append(self._service.size())

    def tenth(self, number: int) -> Size:
        """The medians of one tenth of the time; 1 is the second one, 9 the last."""
        part = self.seen[len(self.seen) * number // 10 : len(self.seen) * (number + 1) // 10]
        return Size(*(round(statistics.median(values)) for values in zip(*map(_values, part), strict=True)))


def _values(size: Size) -> Sequence[int]:
    return size.resident, size.files, size.threads


@contextmanager
def soaked(folder: Path) -> Iterator[tuple[Sandbox, Service]]:
    """A sandbox and a service, ready, with its functions registered."""
    gateway = free_port()
    users = {BOT: "secret", PERSON: "secret"}
    with Sandbox(users, nuclio=f"http://127.0.0.1:{gateway}", admins=[BOT]) as sandbox:
        sandbox.state.lease_seconds = _LEASE_SECONDS
        service = Service(folder, sandbox, gateway)
        service.register()
        service.start()
        try:
            yield sandbox, service
        finally:
            service.close()


def add_faults(sandbox: Sandbox) -> list[Fault]:
    """Lets one of twenty of the service's calls go wrong in one way or another, and its event streams break off."""
    kinds: list[dict[str, Any]] = [
        {"status": 500},
        {"status": 500, "when": "after"},
        {"status": 503},
        {"status": 429},
        {"cut": True},
        {"cut": True, "when": "after"},
        {"cut": True, "after_bytes": 1},
        {"delay": 0.5},
    ]
    share = FAULTY / len(kinds)
    calls = [sandbox.faults.add(path=_OURS, probability=share, seed=n, **kind) for n, kind in enumerate(kinds)]
    streams = [
        sandbox.faults.add(path="/watch$", probability=0.1, seed=10, status=503),
        sandbox.faults.add(path="/watch$", probability=0.6, seed=11, cut=True, after_bytes=600),
        sandbox.faults.add(path="/watch$", probability=0.9, seed=12, cut=True, after_bytes=6000),
    ]
    return calls + streams


def unfinished(sandbox: Sandbox) -> list[str]:
    """Requests that the server takes for running."""
    state = sandbox.state
    queued = [
        f"{row.category} request {row.ar_id}: {row.status}" for row in state.queued.all() if row.status not in OVER
    ]
    ordered = [f"{row.rq_id}: {row.status}" for row in state.lambda_requests.all() if row.ended is None]
    return queued + ordered


def _plugin(folder: Path) -> Path:
    """Where the models' adapter is announced, as that of any package would be."""
    info = folder / "plugin" / "soak-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: soak\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cvat_sidecar.adapters]\nsoak = tests.support.soak_models\n")
    return info.parent

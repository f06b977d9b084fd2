"""`cvat-sidecar serve` as a process of its own, as it would run beside a CVAT server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.gateway import free_port
from tests.support.service import Page

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """Of a process: ours, with the passwords that service.toml's of tests name."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "BOT_PASSWORD": "secret", **more}


def sidecar(*args: object, **more: str) -> subprocess.CompletedProcess[str]:
    """A command that ends."""
    command = [sys.executable, "-m", "agent.cli", *map(str, args)]
    return subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=100, check=False)


class Process:
    """A service that runs; `lines` are those of its log, as they come."""

    def __init__(self, file: Path, port: int, *flags: str, **more: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.page = Page(self.url)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", *flags, "serve", "--config", str(file)],
            env=environment(**more), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def records(self) -> list[dict[str, Any]]:
        """The log's lines as JSON."""
        return [json.loads(line) for line in self.lines]

    def until(self, done: Callable[[], Any], seconds: float = 60) -> Any:
        """What a condition gives, once it holds; an error of HTTP is as if it did not."""
        end = time.monotonic() + seconds
        while True:
            try:
                if found := done():
                    return found
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, f"the service has ended: {self.log}"
            assert time.monotonic() < end, f"it never came to be:\n{self.log}"
            time.sleep(0.02)

    def ready(self) -> None:
        self.until(lambda: self.page.get("/readyz").status_code == 200)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = 40) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code


@contextmanager
def serve(file: Path, *flags: str, **more: str) -> Iterator[Process]:
    """The service of a service.toml that has `port = 0`; that gets a port first."""
    text = file.read_text(encoding="utf-8")
    port = free_port()
    if "port = 0" in text:
        file.write_text(text.replace("port = 0", f"port = {port}", 1), encoding="utf-8")
    else:
        port = int(text.split("port = ", 1)[1].split()[0])
    running = Process(file, port, *flags, **more)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.ended()
        running.page.http.close()
        assert running.process.stdout is not None
        assert running.process.stderr is not None
        running.process.stdout.close()
        running.process.stderr.close()

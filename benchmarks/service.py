"""What the service costs beside its alternatives and beside its promises, in one run.

    python benchmarks/service.py --model local:model.onnx --pictures FOLDER [--only queue batches …]

Every figure comes from whole processes (the service, cvat-cli's agent, a CVAT stand-in) over real HTTP. What is
compared is measured in turns (A B A B …). The stand-in shares this machine's processors, which costs both the same.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from stage import HERE, PASSWORD, USER, Stage, show, stand_in

PARTS = ("queue", "batches", "acquire", "cancel", "interactive", "overhead", "prefetch")
HEARTBEAT = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an ONNX detector as local:PATH (for the part `queue`)")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder with pictures to make the material from")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    gateway = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        stand_in("--nuclio", f"http://127.0.0.1:{gateway}") as url,
    ):
        bench = Bench(Path(name), url, args, gateway)
        for part in args.only:
            getattr(bench, part)()


class Bench(Stage):
    """The parts. Each starts the service that it needs, and ends it."""

    def __init__(self, folder: Path, url: str, args: argparse.Namespace, gateway: int) -> None:
        super().__init__(folder, url, args.pictures)
        self.args, self.gateway, self.log = args, gateway, folder / "batches.log"
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        login = self.http.post("/api/auth/login", json={"username": USER, "password": PASSWORD})
        self.http.headers["Authorization"] = "Token " + login.json()["key"]

    # ------------------------------------------------------------------ parts

    def queue(self) -> None:
        """Frames/s of a batch request against cvat-cli's agent, with the same ONNX model on the same task."""
        if not self.args.model:
            raise SystemExit("--model is needed for the part `queue`")
        task = self.picture_task(self.args.frames, labels_of=self.args.model)
        self.against_cvat_cli(
            "queue: cvat-cli's agent / the service, a real ONNX model", task, self.args.model, {}, 1.5
        )

    def batches(self) -> None:
        """The same with a model that sleeps like a GPU and gains from batches."""
        task = self.picture_task(self.args.frames)
        gains = {"batch_size": 16, "batch_seconds": 0.04}
        title = "batches: cvat-cli's agent / the service, 20 ms a frame and 40 ms a batch of 16"
        self.against_cvat_cli(title, task, "sleep:0.02", gains, 5)

    def acquire(self) -> None:
        """From the creation of a request to its acquisition, through the event stream."""
        task = self.picture_task(1)
        with self.service([model("quick", "sleep:0")]) as functions:
            waits = [self.batch_request(functions["quick"], task)[0] * 1000 for _ in range(60)]
        show_time("acquire: creation to acquisition", waits, 100)

    def cancel(self) -> None:
        """How many batches begin after the service can have heard that a request was cancelled."""
        task, counts, rest = self.picture_task(self.args.frames), [], []
        options = {"batch_size": 4, "log": str(self.log)}
        with self.service([model("slow", "sleep:0.1", **options)]) as functions:
            for _ in range(self.args.turns):
                self.log.unlink(missing_ok=True)
                request = self.order(functions["slow"], task)
                wait_for(lambda: len(self.batch_log()) >= 3)
                cancelled = time.time()
                self.http.delete(f"/api/lambda/requests/{request}").raise_for_status()
                time.sleep(3)
                log = self.batch_log()
                counts.append(sum(began > cancelled + HEARTBEAT for began, _, _ in log))
                rest.append(max(ended for _, ended, _ in log) - cancelled)
        print(f"  the last batch (0.4 s each) ended {', '.join(f'{s:.2f}' for s in rest)} s after the cancellation")
        title = f"cancel: batches that begin later than one heartbeat ({HEARTBEAT} s) after the cancellation"
        show(title, [float(count) for count in counts], 1, at_most=True)

    def interactive(self) -> None:
        """How long a person waits for one frame while a long request runs on the same model."""
        task, batch = self.picture_task(self.args.frames), 0.32
        with self.service([model("busy", "sleep:0.02", batch_size=16)]) as functions:
            request = self.order(functions["busy"], task)
            self.until(request, "started")
            waits = []
            for number in range(12):
                began = time.perf_counter()
                body = {"task": int(task), "frame": number}
                self.http.post(f"/api/lambda/functions/{functions['busy']}", json=body).raise_for_status()
                waits.append((time.perf_counter() - began - batch) * 1000)
            running = self.http.get(f"/api/lambda/requests/{request}").json()["status"] == "started"
            self.http.delete(f"/api/lambda/requests/{request}")
        if not running:
            raise SystemExit("the long request ended before the interactive ones: take more --frames")
        show_time("interactive: answer during a batch request, beyond one batch", waits, 100, share=0.95)

    def overhead(self) -> None:
        """What a gateway call of a 1080p JPEG costs beyond decoding it and beyond the model."""
        import io

        from PIL import Image

        from agent.cvat.decode import decode_picture

        source = Image.open(self.pictures(1)[0]).convert("RGB").resize((1920, 1080))
        encoded = io.BytesIO()
        source.save(encoded, format="JPEG", quality=85)
        body = json.dumps({"image": base64.b64encode(encoded.getvalue()).decode()}).encode()
        with self.service([model("quick", "sleep:0")], gateway="prefetch = false"):
            beyond = []
            for turn in range(120):
                began = time.perf_counter()
                decode_picture(encoded.getvalue(), None)
                decoding = time.perf_counter() - began
                began = time.perf_counter()
                # CVAT opens a connection for each call; a new client would read certificates for each, too.
                reply = self.http.post(
                    f"http://127.0.0.1:{self.gateway}/api/function_invocations",
                    content=body,
                    headers={
                        "Connection": "close",
                        "Content-Type": "application/json",
                        "x-nuclio-function-name": "quick",
                        "x-nuclio-path": "/",
                    },
                )
                if turn >= 20:
                    beyond.append((time.perf_counter() - began - decoding) * 1000)
                reply.raise_for_status()
        size = len(encoded.getvalue()) / 1024
        show_time(f"overhead: a gateway call of a 1080p JPEG ({size:.0f} KiB), beyond decoding", beyond, 5, share=0.5)

    def prefetch(self) -> None:
        """CVAT's serial loop over a task, with and without reading ahead of it."""
        task = self.picture_task(self.args.frames)
        sleeper = model("gpu", "sleep:0.02", batch_size=16, batch_seconds=0.04)
        ratios = []
        for turn in range(self.args.turns + 1):
            seconds = []
            for ahead in ("false", "true"):
                self.clear(task)
                with self.service([sleeper], gateway=f"prefetch = {ahead}", queue=False):
                    seconds.append(self.batch_request("gpu", task)[1])
            if turn:  # the first turn warms the stand-in's caches
                a, b = (self.args.frames / s for s in seconds)
                print(f"  {a:.1f} frames/s without, {b:.1f} with")
                ratios.append(seconds[0] / seconds[1])
        show("prefetch: serial gateway calls without / with, 20 ms a frame, 40 ms a batch of 16", ratios, 3)

    # ------------------------------------------------------------------ steps

    def against_cvat_cli(self, title: str, task: str, reference: str, options: dict[str, Any], goal: float) -> None:
        parameters = ["--function-module", "adapters.as_function", "-p", f"model=str:{reference}"]
        parameters += [
            word for name, value in options.items() for word in ("-p", f"{name}={type(value).__name__}:{value}")
        ]
        ratios: list[float] = []
        with ExitStack() as stack:
            functions = stack.enter_context(self.service([model("ours", reference, **options)]))
            theirs = self.cvat_cli("create-native", f"theirs {reference}", *parameters).strip().splitlines()[-1]
            stack.enter_context(self.process(self.cvat_cli_command("run-agent", theirs, *parameters)))
            for turn in range(self.args.turns + 1):
                seconds = []
                for function in (theirs, functions["ours"]):
                    self.clear(task)
                    seconds.append(self.batch_request(function, task, threshold=0.3)[1])
                if turn:  # the first turn warms caches on both sides
                    a, b = (self.args.frames / s for s in seconds)
                    print(f"  {a:.1f} frames/s and {b:.1f} frames/s")
                    ratios.append(seconds[0] / seconds[1])
        show(title, ratios, goal)

    @contextmanager
    def service(self, models: list[str], *, gateway: str | None = None, queue: bool = True) -> Iterator[dict[str, str]]:
        """The service with these models; gives the functions' ids by the models'."""
        port, file = free_port(), self.folder / f"service-{free_port()}.toml"
        tables = [
            f'[cvat]\nhost = "{self.url}"\nuser = "{USER}"\npassword_env = "PASS"',
            f'[service]\nport = {port}\nstate_dir = "{file.stem}"\nlog_level = "warning"',
            *([f"[queue]\nheartbeat_seconds = {HEARTBEAT}"] if queue else []),
            *([f"[gateway]\nport = {self.gateway}\n{gateway}"] if gateway else []),
            *models,
        ]
        file.write_text("\n\n".join(tables))
        functions = self.registered(file) if queue else {}
        with self.process([sys.executable, "-m", "agent.cli", "serve", "--config", str(file)]):
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), seconds=60)
            yield functions

    def registered(self, file: Path) -> dict[str, str]:
        command = [sys.executable, "-m", "agent.cli", "functions"]
        for words in (["register"], ["list", "--json"]):
            done = subprocess.run(
                [*command, *words, "--config", str(file)], env=self.env, cwd=HERE.parent, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stderr)
        return {row["model"]: str(row["function"]) for row in json.loads(done.stdout)}

    def cvat_cli_command(self, *words: str) -> list[str]:
        return ["cvat-cli", *self.server, "function", *words]

    def cvat_cli(self, *words: str) -> str:
        command = self.cvat_cli_command(*words)
        return subprocess.run(command, env=self.env, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout

    @contextmanager
    def process(self, command: list[str]) -> Iterator[None]:
        log = self.folder / f"process-{free_port()}.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, env=self.env, cwd=HERE.parent, stdout=out, stderr=out)
            try:
                yield
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended by itself")
            except BaseException:
                print(log.read_text()[-3000:], file=sys.stderr)
                raise
            finally:
                process.terminate()
                process.wait(20)

    def order(self, function: str, task: str, **more: Any) -> str:
        body = {"function": function, "task": int(task), **more}
        reply = self.http.post("/api/lambda/requests", json=body)
        reply.raise_for_status()
        return str(reply.json()["id"])

    def batch_request(self, function: str, task: str, **more: Any) -> tuple[float, float]:
        """Seconds from the creation of a request to its acquisition, and to its end, as the server noted them."""
        done = self.until(self.order(function, task, **more), "finished")
        enqueued, started, ended = (datetime.fromisoformat(done[key]) for key in ("enqueued", "started", "ended"))
        return (started - enqueued).total_seconds(), (ended - enqueued).total_seconds()

    def until(self, request: str, status: str) -> dict[str, Any]:
        end = time.monotonic() + 600
        while (found := self.http.get(f"/api/lambda/requests/{request}").json())["status"] != status:
            if found["status"] == "failed" or time.monotonic() > end:
                raise SystemExit(f"request {request}: {found['status']}: {found['exc_info']}")
            time.sleep(0.05)
        return found

    def batch_log(self) -> list[tuple[float, float, int]]:
        """Beginning, end and frames of each call of the sleeping model."""
        rows = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [(float(began), float(ended), int(frames)) for began, ended, frames in rows]


def model(name: str, reference: str, **options: Any) -> str:
    rows = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    return f'[[models]]\nid = "{name}"\nmodel = "{reference}"\ndevice = "cpu"\n[models.options]\n{rows}'


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(done: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.05)


def show_time(title: str, milliseconds: list[float], goal: float, *, share: float = 0.95) -> None:
    """A percentile beside its goal."""
    ordered = sorted(milliseconds)
    found = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    verdict = f"goal <= {goal:g} ms: {'reached' if found <= goal else 'missed'}"
    middle = statistics.median(ordered)
    print(f"{title}: p{share * 100:.0f} {found:.1f} ms (median {middle:.1f}, {len(ordered)} times; {verdict})")


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()

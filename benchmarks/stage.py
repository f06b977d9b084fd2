"""What the benchmarks share: a CVAT stand-in in a process of its own, tasks made of pictures, whole processes timed."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
USER, PASSWORD = "bench", "bench-password"


@contextmanager
def stand_in(*options: str) -> Iterator[str]:
    """A sandbox in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "agent.cli", "sandbox", "--port", "0", "--user", f"{USER}:{PASSWORD}", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://[\d.]+:\d+", line):
                yield found[0]
                return
        raise SystemExit("the sandbox did not start")
    finally:
        process.terminate()
        process.wait()


class Stage:
    """Where a benchmark plays: a folder of its own, the stand-in's address, and tasks in it."""

    def __init__(self, folder: Path, url: str, sources: Path) -> None:
        self.folder, self.url, self.sources = folder, url, sources
        # The sleeping model comes in as anybody's adapter would: by a distribution with an entry point.
        plugin = folder / "plugin" / "sleeper-1.dist-info"
        plugin.mkdir(parents=True)
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeper\nVersion: 1\n")
        (plugin / "entry_points.txt").write_text("[cvat_sidecar.adapters]\nsleep = sleeper\n")
        path = os.pathsep.join([str(plugin.parent), str(HERE), str(HERE.parent)])
        ledger = str(folder / "ledger.sqlite3")
        self.env = {**os.environ, "PASS": PASSWORD, "CVAT_SIDECAR_LEDGER": ledger, "PYTHONPATH": path}
        self.server = ["--server-host", url, "--auth", USER]

    def sidecar(self, command: str) -> list[str]:
        return [sys.executable, "-m", "agent.cli", command, *self.server]

    def run(self, command: list[str]) -> tuple[float, int]:
        """(seconds, peak memory in KiB) of a whole process."""
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=self.env, cwd=HERE.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)}\n{said.decode()[-2000:]}")
        return time.perf_counter() - began, usage.ru_maxrss

    def client(self):
        from cvat_sdk.core.client import Client, Config

        client = Client(self.url, config=Config(status_check_period=0.2), check_server_version=False)
        client.login((USER, PASSWORD))
        return client

    def clear(self, task: str) -> None:
        with self.client() as client:
            client.tasks.retrieve(int(task)).remove_annotations()

    def picture_task(self, count: int, labels_of: str | None = None) -> str:
        names = ["thing"]
        if labels_of:
            from agent.models.loading import load_model

            names = [label.name for label in load_model(labels_of, device="cpu").labels]
        spec = {
            "name": f"{count} pictures",
            "labels": [{"name": name, "type": "rectangle"} for name in names],
        }
        with self.client() as client:
            return str(client.tasks.create_from_data(spec, self.pictures(count), data_params={"image_quality": 85}).id)

    def pictures(self, count: int) -> list[Path]:
        """Pictures of 1280x960, each of its own bytes."""
        from PIL import Image

        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        sources = sorted(p for p in self.sources.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        made = []
        for number in range(count):
            made.append(folder / f"{number:05}.jpg")
            if not made[-1].exists():
                picture = Image.open(sources[number % len(sources)]).convert("RGB").resize((1280, 960))
                picture.rotate(number // len(sources)).save(made[-1], quality=85)
        return made

    def video_task(self, frames: int) -> str:
        import av
        from PIL import Image

        path = self.folder / "clip.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
            for picture in self.pictures(frames):
                container.mux(stream.encode(av.VideoFrame.from_image(Image.open(picture).resize((1280, 720)))))
            container.mux(stream.encode())
        spec = {"name": "video", "labels": [{"name": "thing"}]}
        with self.client() as client:
            return str(client.tasks.create_from_data(spec, [path], data_params={"image_quality": 85}).id)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(title: str, ratios: list[float], goal: float, *, at_most: bool = False) -> None:
    middle = statistics.median(ratios)
    reached = middle <= goal if at_most else middle >= goal
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} turns"
    verdict = f"goal {'<=' if at_most else '>='} {goal}: {'reached' if reached else 'missed'}"
    print(f"{title}: {middle:.2f} ({spread}; {verdict})")

"""A plain HTTP client of a sandbox, and pictures and videos to make tasks of."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import av
import httpx
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from agent.sandbox import Sandbox


def pixels(size: tuple[int, int], seed: int = 0) -> np.ndarray[Any, Any]:
    """An RGB picture that is another one for each seed."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return np.stack([x % 256, y % 256, (x + y + 20 * seed) % 256], axis=-1).astype(np.uint8)


def drawn(kind: str = "JPEG", size: tuple[int, int] = (64, 48), seed: int = 0, mode: str = "RGB", **more: Any) -> bytes:
    """The bytes of a picture file."""
    out = io.BytesIO()
    Image.fromarray(pixels(size, seed)).convert(mode).save(out, format=kind, **more)
    return out.getvalue()


def filmed(path: Path, frames: int = 24, size: tuple[int, int] = (320, 240)) -> Path:
    """A video whose frame n is a grey of 10 n (modulo 250)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            grey = np.full((size[1], size[0], 3), 10 * number % 250, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


class Client:
    """A logged-in user."""

    def __init__(self, sandbox: Sandbox | str, user: str, password: str) -> None:
        url = sandbox if isinstance(sandbox, str) else sandbox.url
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        login = self.http.post("/api/auth/login", json={"username": user, "password": password})
        self.http.cookies.clear()
        self.http.headers["Authorization"] = "Token " + login.json()["key"]
        self.get, self.post, self.put = self.http.get, self.http.post, self.http.put
        self.patch, self.delete = self.http.patch, self.http.delete

    def until(self, path: str, done: Callable[[httpx.Response], bool], seconds: float = 30) -> Any:
        """Asks again until the answer is as wanted."""
        end = time.monotonic() + seconds
        while not done(answer := self.get(path)):
            assert time.monotonic() < end, f"{path} never became what it should: {answer.text[:300]}"
            time.sleep(0.01)
        return answer.json()

    def upload(self, task: int, files: list[tuple[str, bytes]], **data: Any) -> dict[str, Any]:
        """Gives a task its files; returns the ended request."""
        form = [(f"client_files[{at}]", file) for at, file in enumerate(files)]
        answer = self.post(f"/api/tasks/{task}/data", data={"image_quality": "70", **data}, files=form)
        assert answer.status_code == 202, answer.text
        ended: dict[str, Any] = self.until(
            f"/api/requests/{answer.json()['rq_id']}", lambda got: got.json()["status"] in ("finished", "failed")
        )
        return ended

    def task(
        self, files: list[tuple[str, bytes]], *, labels: Any = (), data: dict[str, Any] | None = None, **spec: Any
    ) -> int:
        """Makes a task; returns its id."""
        labels = {} if "project_id" in spec else {"labels": list(labels) or [{"name": "thing"}]}
        made = self.post("/api/tasks", json={"name": "task", **labels, **spec})
        assert made.status_code == 201, made.text
        task: int = made.json()["id"]
        ended = self.upload(task, files, **(data or {}))
        assert ended["status"] == "finished", ended["message"]
        return task

    def jobs(self, task: int) -> list[dict[str, Any]]:
        """The jobs of a task, oldest first."""
        found: list[dict[str, Any]] = self.get(
            "/api/jobs", params={"task_id": task, "sort": "id", "page_size": 1000}
        ).json()["results"]
        return found

    def labels(self, task: int) -> dict[str, int]:
        """Label ids by name, sublabels too."""
        found = self.get("/api/labels", params={"task_id": task, "page_size": 1000}).json()["results"]
        return {x["name"]: x["id"] for label in found for x in [label, *label["sublabels"]]}

    def lambda_request(self, order: dict[str, Any]) -> dict[str, Any]:
        """Orders automatic annotation and waits for its end."""
        made = self.post("/api/lambda/requests", json=order)
        assert made.status_code == 200, made.text
        ended: dict[str, Any] = self.until(
            f"/api/lambda/requests/{made.json()['id']}", lambda got: got.json()["status"] in ("finished", "failed")
        )
        return ended

    def __enter__(self) -> Client:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes its connections."""
        self.http.close()

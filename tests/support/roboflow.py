"""Roboflow on the loopback: an inference server and the platform, as they document themselves, with faults on demand.

Source of routes and answers: roboflow/inference 1.5.0 (http_api.py, entities/responses, error_handlers.py) and
docs.roboflow.com ("View a Version", "Get a Project and List Versions").
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from PIL import Image

from agent.models.loading import LoadedModel, load_model

KEY = "rf_secretKEY0123456789"
"""The API key that the server knows."""

UNAUTHORIZED = (
    "Unauthorized access to roboflow API - check API key and make sure the key is valid for workspace you use."
)
NOT_FOUND = (
    "Requested Roboflow resource not found. Make sure that workspace, project or model you referred in request exists."
)


@dataclass
class Asked:
    """A request that came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: Any = None
    """The JSON of the body, where it was JSON."""
    picture: np.ndarray | None = None
    """The picture in it, as RGB."""
    format: str = ""
    """JPEG or PNG."""


@dataclass
class Model:
    """A trained model; `answer(picture, asked)` gives the server's answer without `image` and `time`."""

    task: str
    answer: Callable[[np.ndarray, Asked], dict[str, Any]]
    classes: tuple[str, ...] = ()
    """What the platform tells."""
    skeletons: Any = None
    version_id: str | None = None


@dataclass
class Workflow:
    """A saved workflow; `run(picture, inputs)` gives its outputs."""

    run: Callable[[np.ndarray, dict[str, Any]], dict[str, Any]]
    inputs: dict[str, list[str]] = field(default_factory=lambda: {"image": ["image"]})
    outputs: dict[str, Any] | None = None
    """Kinds of outputs; None: the server is too old to describe workflows."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path has `where` in it."""

    status: int = 0
    content: Any = None
    """JSON, or text for what is none. Bytes are sent as the answer of a success."""
    headers: dict[str, str] = field(default_factory=dict)
    how: str = "answer"
    """answer; cut (in the middle of the body); hang (before the answer); drip (a byte now and then); refuse."""
    where: str = ""
    times: int = 1


@dataclass
class RoboflowServer:
    """Use as a context manager; models are by `project/version`, workflows by `workspace/id`."""

    models: dict[str, Model] = field(default_factory=dict)
    workflows: dict[str, Workflow] = field(default_factory=dict)
    workspace: str = "team"
    hosted: bool = False
    """Roboflow's own servers have neither a registry nor the routes of the newer dialect."""
    reads_header: bool = True
    """Servers older than 1.5.0 know the key in the query and in the body only."""
    free: bool = False
    """No key is needed."""
    has_platform: bool = True
    has_info: bool = True
    faults: deque[Fault] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> RoboflowServer:
        outer = self

        class Handler(_Handler):
            owner = outer

        self.loaded: dict[str, str] = {}
        self.together = self.most_together = 0
        self._lock = threading.Lock()
        self.let_go = threading.Event()
        """Ends the hanging of whoever hangs."""
        self.gate: threading.Barrier | None = None
        """Where predictions wait for each other."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.request_queue_size = 64
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """The server is down from now on."""
        self.let_go.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, status: int = 0, content: Any = None, **how: Any) -> None:
        """Puts a fault before the next requests."""
        self.faults.append(Fault(status, content, **how))

    def paths(self, method: str = "") -> list[str]:
        """The paths asked for, in order."""
        return [asked.path for asked in self.asked if method in ("", asked.method)]

    def predictions(self) -> list[Asked]:
        """The requests that brought a picture."""
        return [asked for asked in self.asked if asked.picture is not None]

    def next_fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.where in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def enter(self) -> None:
        with self._lock:
            self.together += 1
            self.most_together = max(self.together, self.most_together)
        if self.gate is not None:
            self.gate.wait(20)

    def leave(self) -> None:
        with self._lock:
            self.together -= 1


class _Handler(BaseHTTPRequestHandler):
    owner: RoboflowServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        asked = self._read()
        self.owner.asked.append(asked)
        fault = self.owner.next_fault(asked.path)
        if fault is not None and fault.how != "cut":
            self._fault(fault)
            return
        try:
            status, content = self._answer(asked)
        except KeyError as missing:
            status, content = 404, {"message": NOT_FOUND, "missing": str(missing)}
        self._send(status, content, cut=fault is not None)

    def _read(self) -> Asked:
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        asked = Asked(self.command, unquote(address.path), query, dict(self.headers.items()))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            asked.content = json.loads(body)
        except ValueError:
            asked.content = None
        if self.command == "POST" and asked.content is None:
            self._see(asked, body.decode())
        return asked

    @staticmethod
    def _see(asked: Asked, text: str) -> None:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
            asked.format = picture.format or ""
            asked.picture = np.asarray(picture.convert("RGB"))

    def _answer(self, asked: Asked) -> tuple[int, Any]:
        server, parts = self.owner, asked.path.strip("/").split("/")
        if asked.path == "/info":
            if not server.has_info:
                return 404, {"detail": "Not Found"}
            return 200, {"name": "Roboflow Inference Server", "version": "1.5.0", "uuid": "x"}
        if asked.path == "/model/registry":
            return (404, {"detail": "Not Found"}) if server.hosted else (200, self._registry())
        if not self._may(asked):
            return 401, {"message": UNAUTHORIZED}
        if asked.method == "GET":
            return self._platform(asked, parts) if server.has_platform else (503, {"message": "down"})
        if asked.path == "/model/add":
            server.loaded[asked.content["model_id"]] = server.models[asked.content["model_id"]].task
            return 200, self._registry()
        if parts[0] == "infer":
            return self._newer(asked, parts[1])
        if len(parts) >= 3 and parts[1] == "workflows":
            return self._workflow(asked, parts)
        name = "/".join(parts)
        server.loaded[name] = server.models[name].task
        return self._predict(name, asked)

    def _may(self, asked: Asked) -> bool:
        """Whether the right key came by a way that this server looks at."""
        in_body = asked.content.get("api_key") if isinstance(asked.content, dict) else None
        in_header = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        ways = [asked.query.get("api_key"), in_body]
        # The platform has always read headers.
        if self.owner.reads_header or asked.method == "GET":
            ways.append(in_header)
        return self.owner.free or KEY in ways

    def _registry(self) -> dict[str, Any]:
        models = [{"model_id": name, "task_type": task, "batch_size": None} for name, task in self.owner.loaded.items()]
        return {"models": models}

    def _platform(self, asked: Asked, parts: list[str]) -> tuple[int, Any]:
        if asked.path == "/":
            return 200, {"welcome": "Welcome to the Roboflow API.", "workspace": self.owner.workspace}
        if asked.path == "/models/v1/external/stat":
            return 200, {"modelMetadata": {"taskType": self.owner.models[asked.query["modelId"]].task}}
        workspace, project, version = parts
        if workspace != self.owner.workspace:
            return 404, {"error": {"message": "Unsupported get request. Workspace does not exist.", "status": 404}}
        model = self.owner.models[f"{project}/{version}"]
        stated: dict[str, Any] = {
            "id": model.version_id or f"{workspace}/{project}/{version}",
            "images": 240,
            "model": {"id": f"{project}/{version}", "map": "62.87"},
            "classes": [],
        }
        if model.skeletons is not None:
            stated["skeletons"] = model.skeletons
        about = {"id": f"{workspace}/{project}", "type": model.task, "classes": dict.fromkeys(model.classes, 7)}
        return 200, {"workspace": {"name": workspace}, "project": about, "version": stated}

    def _newer(self, asked: Asked, route: str) -> tuple[int, Any]:
        """The dialect of self-hosted servers: a route for each task, everything in JSON."""
        if self.owner.hosted:
            return 404, {"detail": "Not Found"}
        name, picture = asked.content["model_id"], asked.content["image"]
        routes = {"keypoint-detection": "keypoints_detection", "multi-label-classification": "classification"}
        task = self.owner.models[name].task
        if route != routes.get(task, task.replace("-", "_")):
            return 400, {"message": "Wrong route for the model."}
        self._see(asked, picture["value"])
        asked.query = {name: str(value) for name, value in asked.content.items() if name not in ("image", "api_key")}
        return self._predict(name, asked)

    def _predict(self, name: str, asked: Asked) -> tuple[int, Any]:
        picture = asked.picture
        assert picture is not None
        self.owner.enter()
        try:
            answer = self.owner.models[name].answer(picture, asked)
        finally:
            self.owner.leave()
        size = {"width": picture.shape[1], "height": picture.shape[0]}
        return 200, {"inference_id": "i", "time": 0.01, "image": size, **answer}

    def _workflow(self, asked: Asked, parts: list[str]) -> tuple[int, Any]:
        workflow = self.owner.workflows[f"{parts[0]}/{parts[2]}"]
        if parts[-1] == "describe_interface":
            if workflow.outputs is None:
                return 404, {"detail": "Not Found"}
            told = {"inputs": workflow.inputs, "outputs": workflow.outputs, "typing_hints": {}, "kinds_schemas": {}}
            return 200, told
        inputs = dict(asked.content["inputs"])
        name = next(name for name, value in inputs.items() if isinstance(value, dict) and value.get("type") == "base64")
        self._see(asked, inputs.pop(name)["value"])
        assert asked.picture is not None
        return 200, {"outputs": [workflow.run(asked.picture, inputs)], "profiler_trace": []}

    # --------------------------------------------------------------- sending

    def _fault(self, fault: Fault) -> None:
        if fault.how == "hang":
            self.owner.let_go.wait(30)
            self.close_connection = True
            return
        if fault.how == "refuse":
            self.close_connection = True
            self.connection.close()
            return
        if fault.how == "drip":
            self._drip()
            return
        self._send(fault.status, fault.content, headers=fault.headers)

    def _drip(self) -> None:
        """An answer that never comes to its end, although something always comes."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            for _ in range(600):
                self.wfile.write(b" ")
                self.wfile.flush()
                if self.owner.let_go.wait(0.05):
                    break
        except OSError:
            pass
        self.close_connection = True

    def _send(self, status: int, content: Any, *, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        kind, body = "application/json", b""
        if isinstance(content, str):
            kind, body = "text/html", content.encode()
        elif isinstance(content, bytes):
            body = content
        elif content is not None:
            body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)


def box(
    name: str, x: float, y: float, width: float, height: float, confidence: float = 0.9, **more: Any
) -> dict[str, Any]:
    """A prediction of a detector: centre and size."""
    found = {"x": x, "y": y, "width": width, "height": height, "confidence": confidence, "class": name}
    return {**found, "class_id": 0, "detection_id": "d", **more}


def png(grid: np.ndarray) -> str:
    """A map as servers send it: a PNG of one channel, in base64."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(grid, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def above(predictions: list[dict[str, Any]], asked: Asked) -> dict[str, Any]:
    """What a server answers of these: those with the confidence that was asked for, which it never takes below 0.01."""
    confidence = float(asked.query["confidence"])
    confidence = confidence / 100 if confidence >= 1 else max(confidence, 0.01)
    return {"predictions": [one for one in predictions if one["confidence"] >= confidence]}


@contextmanager
def loading(server: RoboflowServer, name: str = "team/shop/3") -> Iterator[Callable[..., LoadedModel]]:
    """Loads models of the server by `load(name, **options)`; they are closed at the end."""
    opened: list[LoadedModel] = []

    def load(name: str = name, **options: Any) -> LoadedModel:
        given = {"url": server.url, "platform_url": server.url, "retries": 0, **options}
        opened.append(load_model(f"roboflow:{name}", options=given))
        return opened[-1]

    yield load
    for model in opened:
        model.close()

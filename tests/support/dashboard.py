"""A Nuclio-like dashboard for tests: lists functions and answers their invocations.

    with Dashboard() as dashboard:
        Sandbox(nuclio=dashboard.url)

The detector needs `seconds` for a picture. `replies[name]` replaces what a function answers (a value, or bytes as they
are), `statuses[name]` its HTTP status; `calls` are the invocations that came, payload and headers.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from PIL import Image

SVG = (
    "<circle data-type='element node' data-element-id='1' data-node-id='1' data-label-name='head' cx='50' cy='10' "
    "r='1'></circle>"
)
COLOR = {"name": "color", "input_type": "select", "values": ["red", "blue"]}
LABELS = [
    {"name": "person", "type": "rectangle"},
    {"name": "car", "type": "rectangle", "attributes": [COLOR]},
    {"name": "cat", "type": "mask"},
    {"name": "scene", "type": "tag"},
    {
        "name": "pose",
        "type": "skeleton",
        "svg": SVG,
        "sublabels": [{"name": "head", "type": "points"}, {"name": "foot", "type": "points"}],
    },
]


def function(name: str, kind: str, port: int, **annotations: str) -> dict[str, Any]:
    """A function object as a dashboard tells it."""
    return {
        "metadata": {"name": name, "namespace": "nuclio", "annotations": {"type": kind, **annotations}},
        "spec": {"description": name.replace("-", " "), "handler": "main:handler"},
        "status": {"state": "ready", "httpPort": port},
    }


@dataclass(frozen=True)
class Invocation:
    """One invocation of a function."""

    name: str
    payload: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Dashboard:
    """The dashboard; in direct mode all its functions listen at its own port, and `direct` is the one that answers."""

    seconds: float = 0.01
    direct: str = "fake-detector"
    replies: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    calls: list[Invocation] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Opens the port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.dashboard = self  # type: ignore[attr-defined]
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        interactor = {"min_pos_points": "1", "min_neg_points": "0", "startswith_box": "true", "version": "2"}
        texts = {"startswith_box_optional": "true", "help_message": "help", "animated_gif": "https://example.com/y.gif"}
        made = (
            function("fake-detector", "detector", self.port, version="2", spec=json.dumps(LABELS)),
            function("fake-interactor", "interactor", self.port, **interactor, **texts),
            function("fake-tracker", "tracker", self.port, supported_shape_types="rectangle,mask"),
            function("fake-legacy-tracker", "tracker", self.port),
            function("fake-reid", "reid", self.port),
            function("fake-broken", "classifier", self.port),
        )
        self.functions = {one["metadata"]["name"]: one for one in made}

    def answer(self, name: str, payload: dict[str, Any]) -> Any:
        """What a function answers."""
        if name in self.replies:
            return self.replies[name]
        if name == "fake-detector":
            time.sleep(self.seconds)
            return detected(payload)
        if name == "fake-interactor":
            with Image.open(io.BytesIO(base64.b64decode(payload["image"]))) as image:
                return {"mask": [[0] * image.width for _ in range(image.height)]}
        if name == "fake-reid":
            return [at if at < len(payload["boxes1"]) else -1 for at in range(len(payload["boxes0"]))]
        states = payload["states"] or [{"n": 0, "shape": shape} for shape in payload["shapes"]]
        return {"shapes": [state["shape"] for state in states], "states": states}

    def __enter__(self) -> Dashboard:
        """Starts answering."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops."""
        self._server.shutdown()
        self._server.server_close()


def detected(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Boxes, a mask and a tag in the places of the recorded detector."""
    with Image.open(io.BytesIO(base64.b64decode(payload["image"]))) as image:
        w, h = image.size
    car = {"confidence": "0.91", "label": "car", "type": "rectangle", "points": [w * 0.1, h * 0.1, w * 0.5, h * 0.5]}
    person = {"label": "person", "type": "rectangle", "points": [w * 0.6, h * 0.2, w * 0.9, h * 0.8], "rotation": 12.5}
    cat = {
        "label": "cat",
        "type": "mask",
        "mask": [*[0] * 20, *[1] * 10, *[0] * 40, *[1] * 20, *[0] * 10, 20, 30, 29, 39],
    }
    return [
        {**car, "attributes": [{"name": "color", "value": "blue"}, {"name": "unknown", "value": "x"}]},
        person,
        cat,
        {"label": "scene", "type": "tag"},
    ]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        dashboard: Dashboard = self.server.dashboard  # type: ignore[attr-defined]
        name = self.path.removeprefix("/api/functions").strip("/")
        if not name:
            self._send(200, dashboard.functions)
        elif name in dashboard.functions:
            self._send(200, dashboard.functions[name])
        else:
            self._send(404, {"error": "function not found"})

    def do_POST(self) -> None:
        dashboard: Dashboard = self.server.dashboard  # type: ignore[attr-defined]
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.headers.get("x-nuclio-function-name", dashboard.direct)
        dashboard.calls.append(Invocation(name, payload, {k.lower(): v for k, v in self.headers.items()}))
        if name not in dashboard.functions:
            self._send(404, {"error": "function not found"})
            return
        status = dashboard.statuses.get(name, 200)
        self._send(status, dashboard.answer(name, payload) if status == 200 else {"error": "boom"})

    def _send(self, status: int, value: Any) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `calls` instead."""

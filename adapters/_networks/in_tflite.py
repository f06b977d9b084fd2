"""TensorFlow Lite files in LiteRT, where that is installed.

Quantised inputs are shown pixels (uint8, 0 to 255), which is what their quantisation is chosen for, or, where options
say what a pixel becomes, those numbers; quantised outputs are given as the numbers that they stand for.
"""

from __future__ import annotations

import ast
import importlib
import json
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.files import WeightsFile
from adapters._networks.options import Running
from adapters._networks.session import Port, as_metadata, short
from agent.contract import ConfigError, ModelLoadFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LABELS = ("labelmap.txt", "labels.txt")
_ULTRALYTICS = ("metadata.json", "temp_meta.txt")


class TfliteSession:
    """An interpreter; several threads take turns."""

    side_by_side = False
    on_processor = True

    def __init__(self, interpreter: Any, metadata: Mapping[str, str], cores: int) -> None:
        self._interpreter, self._lock = interpreter, threading.Lock()
        self._ins, self._outs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = [_port(one) for one in self._ins]
        self.outputs = [one["name"] for one in self._outs]
        self.metadata, self.runs_on = metadata, f"LiteRT, {cores} threads"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self._lock:
            for one in self._ins:
                self._interpreter.set_tensor(one["index"], _stored(feeds[one["name"]], one))
            self._interpreter.invoke()
            return {one["name"]: _real(self._interpreter.get_tensor(one["index"]), one) for one in self._outs}


def open_session(file: WeightsFile, owner: str, run: Running, *, threads: int) -> TfliteSession:
    """An interpreter on the processor."""
    try:
        litert: Any = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        need = "a TensorFlow Lite model needs the package ai-edge-litert: pip install ai-edge-litert"
        raise ModelLoadFailed(f"{owner}: {need} ({error})") from error
    if run.providers:
        raise ConfigError(f"{owner}: providers are for ONNX models, this is {file.detail}")
    if run.device not in ("auto", "cpu"):
        raise ConfigError(f"{owner}: device: got {run.device!r}, allowed for TensorFlow Lite: auto, cpu")
    try:
        interpreter = litert.Interpreter(model_path=str(file.path), num_threads=run.cores)
        interpreter.allocate_tensors()
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: LiteRT cannot load it: {short(error)}") from error
    return TfliteSession(interpreter, _metadata(file.path), run.cores)


def _port(detail: Mapping[str, Any]) -> Port:
    sides, bytes_ = tuple(int(side) for side in detail["shape"]), detail["dtype"] in (np.uint8, np.int8)
    dtype = "uint8" if bytes_ else np.dtype(detail["dtype"]).name
    return Port(detail["name"], sides, dtype, quantised=bytes_ and bool(detail["quantization"][0]))


def _stored(value: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    """Pixels, or the numbers that are meant, as the tensor has them."""
    kind = detail["dtype"]
    if kind not in (np.uint8, np.int8):
        return value
    if value.dtype.kind == "f":
        scale, zero = detail["quantization"]
        span = np.iinfo(kind)
        return np.asarray(np.clip(np.rint(value / scale) + zero, span.min, span.max), kind)
    return value if kind is np.uint8 else np.asarray(value.astype(np.int16) - 128, np.int8)


def _real(value: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    """A quantised tensor as the numbers that it stands for."""
    scale, zero = detail["quantization"]
    if not scale or value.dtype.kind not in "iu":
        return np.array(value)  # a copy: the interpreter writes over its own
    return np.asarray((value.astype(np.float32) - zero) * np.float32(scale))


def _metadata(path: Path) -> dict[str, str]:
    """What exporters append to the file as a zip archive: Ultralytics' facts, or a list of labels."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.rpartition("/")[2] in _LABELS:
                lines = archive.read(name).decode("utf-8", "replace").strip().splitlines()
                return {"labels": json.dumps([line.strip() for line in lines])}
            if name in _ULTRALYTICS:
                return _facts(archive.read(name).decode("utf-8", "replace"))
    return {}


def _facts(text: str) -> dict[str, str]:
    try:
        content = json.loads(text) if text.lstrip()[:2] == '{"' else ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError):
        return {}
    return as_metadata(content)

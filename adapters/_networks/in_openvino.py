"""OpenVINO's intermediate representation (.xml beside its .bin) in OpenVINO, where that is installed."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters._networks.files import WeightsFile
from adapters._networks.options import Running
from adapters._networks.session import Port, as_metadata, short
from agent.contract import ConfigError, ModelLoadFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEVICES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU"}
_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8", "i64": "int64", "i32": "int32"}


class OpenvinoSession:
    """A compiled model; several threads take turns."""

    side_by_side = False

    def __init__(self, compiled: Any, metadata: Mapping[str, str], version: str, device: str) -> None:
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()
        self.inputs = [_port(node) for node in compiled.inputs]
        self.outputs = [_name(node, f"output{number}") for number, node in enumerate(compiled.outputs)]
        self.metadata, self.on_processor = metadata, device == "CPU"
        self.runs_on = f"OpenVINO {version}, {device}"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self._lock:
            found = self._request.infer([feeds[port.name] for port in self.inputs], share_outputs=False)
            return {name: found[number] for number, name in enumerate(self.outputs)}


def open_session(file: WeightsFile, owner: str, run: Running, *, threads: int) -> OpenvinoSession:
    """A model compiled for a device: OpenVINO's own CPU, or Intel's GPU."""
    try:
        openvino: Any = importlib.import_module("openvino")
    except ImportError as error:
        need = "an OpenVINO model needs the package openvino: pip install openvino"
        raise ModelLoadFailed(f"{owner}: {need} ({error})") from error
    if run.providers:
        raise ConfigError(f"{owner}: providers are for ONNX models, this is {file.detail}")
    if (device := _DEVICES.get(run.device)) is None:
        raise ConfigError(f"{owner}: device: got {run.device!r}, allowed for OpenVINO: {', '.join(_DEVICES)}")
    try:
        core = openvino.Core()
        # Where a processor has it, OpenVINO computes with half the digits unless told.
        settings = {"INFERENCE_NUM_THREADS": run.cores, "INFERENCE_PRECISION_HINT": "f32"} if device == "CPU" else {}
        compiled = core.compile_model(core.read_model(str(file.path)), device, settings)
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: OpenVINO cannot load it: {short(error)}") from error
    return OpenvinoSession(compiled, _metadata(file.path), openvino.__version__.partition("-")[0], device)


def _port(node: Any) -> Port:
    shape = tuple(side.get_length() if side.is_static else None for side in node.partial_shape)
    kind = node.element_type.to_string()
    return Port(_name(node, "input"), shape, _DTYPES.get(kind, kind))


def _name(node: Any, otherwise: str) -> str:
    return str(node.any_name) if node.names else otherwise


def _metadata(path: Path) -> dict[str, str]:
    """What Ultralytics leaves beside the file."""
    beside = path.with_name("metadata.yaml")
    if not beside.is_file():
        return {}
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(beside.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return as_metadata(content)

"""ONNX files in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapters._networks.files import WeightsFile
from adapters._networks.options import Running
from adapters._networks.session import Port, short
from agent.contract import ConfigError, ModelLoadFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


class OnnxSession:
    """A graph in onnxruntime."""

    side_by_side = True

    def __init__(self, session: Any) -> None:
        self._session = session
        constants = {node.name for node in session.get_overridable_initializers()}
        self.inputs = [_port(node) for node in session.get_inputs() if node.name not in constants]
        self.outputs = [node.name for node in session.get_outputs()]
        self.metadata = dict(session.get_modelmeta().custom_metadata_map)
        self.runs_on = ", ".join(session.get_providers())
        self.on_processor = session.get_providers()[0] == "CPUExecutionProvider"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(feeds)), strict=True))


def open_session(file: WeightsFile, owner: str, run: Running, *, threads: int) -> OnnxSession:
    """A file in onnxruntime, on the device or by the providers that are asked for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about graphs, for those who make them
    options.intra_op_num_threads = threads
    # Idle threads that spin take the cores from those that decode the next frames: half the speed on two cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen = _providers(list(run.providers or ()), run.device, onnxruntime.get_available_providers(), owner)
    first = chosen[0][0] if isinstance(chosen[0], tuple) else chosen[0]
    if first.startswith(("CUDA", "Tensorrt")):
        _find_cuda(onnxruntime)
    try:
        session = onnxruntime.InferenceSession(str(file.path), options, providers=chosen)
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: onnxruntime cannot load it: {short(error)}") from error
    if first not in session.get_providers():
        got = ", ".join(session.get_providers())
        hint = "; are CUDA and cuDNN installed?" if first.startswith("CUDA") else ""
        said = f"{owner}: {first} could not be used, onnxruntime fell back to {got}{hint}"
        if run.device != "auto":
            raise ModelLoadFailed(f"{said} (device {run.device!r})")
        log.warning("%s", said)
    return OnnxSession(session)


def _find_cuda(onnxruntime: Any) -> None:
    """Loads CUDA's libraries from where pip puts them for PyTorch: onnxruntime does not look there by itself."""
    if (preload := getattr(onnxruntime, "preload_dlls", None)) is not None:  # since 1.21
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload()


def _port(node: Any) -> Port:
    dtype = _DTYPES.get(node.type, node.type.removeprefix("tensor(").removesuffix(")"))
    return Port(node.name, tuple(side if isinstance(side, int) and side > 0 else None for side in node.shape), dtype)


def _providers(wanted: list[str], device: str, available: Sequence[str], owner: str) -> list[Any]:
    if wanted:
        if unknown := [name for name in wanted if name not in available]:
            raise ConfigError(f"{owner}: providers: got {unknown[0]!r}, allowed here: {', '.join(available)}")
        return wanted
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise ConfigError(f"{owner}: device: got {device!r}, allowed: auto, cpu, cuda, cuda:N")
    if kind == "cpu" or (kind == "auto" and "CUDAExecutionProvider" not in available):
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        raise ModelLoadFailed(
            f"{owner}: device {device!r}: this onnxruntime has no CUDA; install onnxruntime-gpu, or use device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]

"""An ONNX graph in onnxruntime: its input, how it is run, and what it gives for a gray picture."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._onnx.options import Running
from adapters._onnx.signature import Signature
from agent.contract import BadPrediction, ConfigError, ModelLoadFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_USUAL_SIZE = 640


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that is ready to run on batches of pictures of one size."""

    session: Any
    image: str
    """The name of the input that takes pictures."""
    dtype: Any
    width: int
    height: int
    batch: int | None
    """The only batch size that the graph takes; None where it takes any."""
    channels_last: bool
    others: Mapping[str, str]
    """The further inputs, and what each of them wants."""
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]
    owner: str

    @property
    def on_processor(self) -> bool:
        """Whether it runs on the CPU."""
        return bool(self.session.get_providers()[0] == "CPUExecutionProvider")

    def blank(self, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """An input for `count` pictures, and a (count, 3, H, W) view of it to write them through."""
        count = self.batch or count
        if self.channels_last:
            blob = np.zeros((count, self.height, self.width, 3), self.dtype)
            return blob, blob.transpose(0, 3, 1, 2)
        blob = np.zeros((count, 3, self.height, self.width), self.dtype)
        return blob, blob

    def run(self, blob: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The outputs by name, with the batch axis."""
        feeds = {self.image: blob, **{name: self._extra(kind, len(blob)) for name, kind in self.others.items()}}
        try:
            return dict(zip(self.outputs, self.session.run(list(self.outputs), feeds), strict=True))
        except Exception as error:
            raise BadPrediction(f"{self.owner}: the graph failed: {short(error)}") from error

    def signature(self, classes: int | None) -> Signature:
        """What the graph gives for a gray picture."""
        blob, view = self.blank(1)
        view[:] = 128 if self.dtype is np.uint8 else 0.5
        try:
            outputs = self.run(blob)
        except BadPrediction as error:
            raise ModelLoadFailed(f"{error} (tried with a gray {self.width}x{self.height} picture)") from error
        return Signature(self.width, self.height, outputs, self.metadata, classes)

    def _extra(self, kind: str, count: int) -> NDArray[Any]:
        if kind == "size":  # boxes come back in pixels of the input, as from every other head
            return np.array([[self.width, self.height]] * count, np.int64)
        return np.ones((count, self.height, self.width), np.int64)


def open_graph(path: Path, owner: str, run: Running, *, threads: int) -> Graph:
    """The graph of a file; ModelLoadFailed where it cannot be run, ConfigError where options cannot be met."""
    session = open_session(path, owner, run, threads=threads)
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    image, others = _inputs(session, owner)
    if (dtype := _DTYPES.get(image.type)) is None:
        raise ModelLoadFailed(f"{owner}: its input is {image.type}, allowed: {', '.join(_DTYPES)}")
    shape = image.shape
    channels_last = shape[3] == 3 and shape[1] != 3
    sides = shape[1:3] if channels_last else shape[2:4]
    width, height = _size(sides, run.size, metadata, owner)
    return Graph(
        session=session,
        image=image.name,
        dtype=dtype,
        width=width,
        height=height,
        batch=shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None,
        channels_last=channels_last,
        others=others,
        outputs=tuple(output.name for output in session.get_outputs()),
        metadata=metadata,
        owner=owner,
    )


def open_session(path: Path, owner: str, run: Running, *, threads: int) -> Any:
    """A file in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about graphs, for those who make them
    options.intra_op_num_threads = threads
    # Idle threads that spin take the cores from those that decode the next frames: half the speed on two cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen = _providers(list(run.providers or ()), run.device, onnxruntime.get_available_providers(), owner)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=chosen)
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: onnxruntime cannot load it: {short(error)}") from error
    first = chosen[0][0] if isinstance(chosen[0], tuple) else chosen[0]
    if run.device != "auto" and first not in session.get_providers():
        got = ", ".join(session.get_providers())
        raise ModelLoadFailed(f"{owner}: device {run.device!r} could not be used, onnxruntime fell back to {got}")
    return session


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


def _inputs(session: Any, owner: str) -> tuple[Any, dict[str, str]]:
    """The picture input, and what the further inputs want."""
    initial = {node.name for node in session.get_overridable_initializers()}
    inputs = [node for node in session.get_inputs() if node.name not in initial]
    pictures = [node for node in inputs if len(node.shape) == 4 and 3 in (node.shape[1], node.shape[3])]
    listing = ", ".join(f"{node.name} {node.shape}" for node in inputs)
    if len(pictures) != 1:
        raise ModelLoadFailed(f"{owner}: got the inputs {listing}, allowed: one of (N, 3, H, W) or (N, H, W, 3)")
    others = {}
    for node in inputs:
        name = node.name.lower()
        if node is pictures[0]:
            continue
        if "size" in name and node.type == "tensor(int64)" and node.shape[-1] == 2:
            others[node.name] = "size"
        elif "mask" in name and node.type == "tensor(int64)" and len(node.shape) == 3:
            others[node.name] = "mask"
        else:
            raise ModelLoadFailed(f"{owner}: cannot tell what its input {node.name!r} wants; inputs: {listing}")
    return pictures[0], others


def _size(
    sides: Sequence[Any], wanted: tuple[int, int] | None, metadata: Mapping[str, str], owner: str
) -> tuple[int, int]:
    """(width, height) of the input: fixed by the graph, said in the options, left by the exporter, or 640."""
    fixed = [side if isinstance(side, int) and side > 0 else None for side in sides]
    height, width = fixed
    if wanted is not None:
        if (width or wanted[0], height or wanted[1]) != wanted:
            raise ConfigError(f"{owner}: input_size: got {list(wanted)}, the graph takes only [{width}, {height}]")
        return wanted
    try:
        left = ast.literal_eval(metadata.get("imgsz", "None")) or [_USUAL_SIZE] * 2
        usual = [left, left] if isinstance(left, int) else [int(side) for side in left]
    except (ValueError, SyntaxError, TypeError):
        usual = [_USUAL_SIZE] * 2
    return width or usual[-1], height or usual[0]


def short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

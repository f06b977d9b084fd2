"""A network in the runtime that its file is for: ONNX, TorchScript, torch.export, OpenVINO, TensorFlow Lite."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from adapters._networks.files import WeightsFile
from adapters._networks.options import Running

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Port:
    """An input of a network."""

    name: str
    shape: tuple[int | None, ...]
    """Sides that are not fixed are None."""
    dtype: str
    """As numpy names it: float32, float16, uint8, int64, …"""
    quantised: bool = False
    """Whether the bytes stand for other numbers, which `run` takes as well (float32)."""

    def __str__(self) -> str:
        return f"{self.name} {['?' if side is None else side for side in self.shape]}".replace("'", "")


class Session(Protocol):
    """A network that is ready to run."""

    inputs: Sequence[Port]
    outputs: Sequence[str]
    metadata: Mapping[str, str]
    """What the exporter left: names, task, stride, …"""
    runs_on: str
    on_processor: bool
    side_by_side: bool
    """Whether several threads may run it at once, and gain by it."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name; whatever the runtime raises."""
        ...


def open_session(file: WeightsFile, owner: str, run: Running, *, threads: int) -> Session:
    """The network of a file; ModelLoadFailed where it cannot be run, ConfigError where options cannot be met.

    `threads` is for one of several that run side by side; runtimes that run one by one take all of `run.cores`.
    """
    runtime = importlib.import_module(f"adapters._networks.in_{file.format}")
    session: Session = runtime.open_session(file, owner, run, threads=threads)
    return session


def as_metadata(content: Any) -> dict[str, str]:
    """What an exporter left, as text by name; nothing where it is no mapping."""
    if not isinstance(content, Mapping):
        return {}
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in content.items()}


def short(error: BaseException) -> str:
    """What a runtime says, in one line."""
    return " ".join(str(error).split())[:300]

"""TorchScript archives in PyTorch.

Such an archive is a program in a language of its own, which can compute and no more; its constants are not read by
Python's pickle. Shapes are not in it: Ultralytics' exports leave theirs, for others the option `input_size` says it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapters._networks.files import WeightsFile
from adapters._networks.options import Running
from adapters._networks.session import Port, as_metadata, short
from adapters._networks.tensors import TorchSession
from adapters._torch import choose_device, import_torch
from agent.contract import ConfigError, ModelLoadFailed

if TYPE_CHECKING:
    pass

_ULTRALYTICS = "config.txt"


def open_session(file: WeightsFile, owner: str, run: Running, *, threads: int) -> TorchSession:
    """A TorchScript archive on a device."""
    torch = import_torch()
    if run.providers:
        raise ConfigError(f"{owner}: providers are for ONNX models, this is {file.detail}")
    device = choose_device(run.device, owner)
    extra = {_ULTRALYTICS: ""}
    try:
        with warnings.catch_warnings():  # that it is deprecated is for those who make such files
            warnings.simplefilter("ignore", DeprecationWarning)
            program = torch.jit.load(str(file.path), map_location=device, _extra_files=extra)
            program.eval()
            arguments = [str(value.name) for value in program.forward.schema.arguments[1:]]
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: PyTorch {torch.__version__} cannot load it: {short(error)}") from error
    metadata = _metadata(extra[_ULTRALYTICS])
    if len(arguments) == 1:
        ports = [Port(arguments[0], (_batch(metadata), 3, None, None), _dtype(program))]
    else:
        ports = [Port(name, (), "float32") for name in arguments]
    return TorchSession(program, ports, metadata, device, run.cores)


def _dtype(program: Any) -> str:
    """The precision of the weights, which is the input's."""
    first = next(iter(program.parameters()), None)
    return "float16" if first is not None and str(first.dtype) == "torch.float16" else "float32"


def _metadata(text: str | bytes) -> dict[str, str]:
    """What Ultralytics leaves: a JSON object."""
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return {}
    return as_metadata(content)


def _batch(metadata: Mapping[str, str]) -> int | None:
    """The batch that it was traced with: a trace may hold that number somewhere inside."""
    text = metadata.get("batch", "")
    dynamic = "true" in metadata.get("dynamic", "").lower()
    return int(text) if text.isdigit() and int(text) > 0 and not dynamic else None

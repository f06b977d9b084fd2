"""Archives of torch.export (.pt2), loaded from a copy in which nothing can run but tensor operations.

torch.export.load unpickles example inputs and some constants, evaluates sizes as Python, compiles guards, and finds
operations by any name below `torch`. So what is loaded is a copy without examples and guards; an archive with pickled
weights, other constants than tensors, or operations that are not plain ones of ATen is refused.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from adapters._networks.files import WeightsFile
from adapters._networks.options import Running
from adapters._networks.session import Port, short
from adapters._networks.tensors import TorchSession
from adapters._torch import choose_device, import_torch
from agent.contract import ConfigError, ModelLoadFailed

_OPERATION = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|lt|le|gt|ge|eq|ne|getitem|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.(sym_\w+|_sym_\w+)"
)
_REFUSED = ("from_file",)
_SIZE = re.compile(
    r"(?:[\s\d()+\-*/%<>=!&|,~.]"
    r"|'[A-Za-z]\w*'"
    r"|\b(?:Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|FloatTrueDiv"
    r"|CeilToInt|FloorToInt|TruncToInt|Max|Min|Ge|Gt|Le|Lt|Eq|Ne|And|Or|Not|Identity|Where|ToFloat"
    r"|positive|nonnegative|integer|real|evaluate|precision|True|False|true|false|[suz]\d+)\b)*"
)
_MOST = 1 << 28
"""Bytes of text in an archive: a graph is some megabytes at most."""


def open_session(file: WeightsFile, owner: str, run: Running, *, threads: int) -> TorchSession:
    """An exported program on a device."""
    torch = import_torch()
    if run.providers:
        raise ConfigError(f"{owner}: providers are for ONNX models, this is {file.detail}")
    device = choose_device(run.device, owner)
    copy = _harmless(file, owner)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.export import load
            from torch.export.passes import move_to_device_pass

            program = load(copy)
            if device != "cpu":
                program = move_to_device_pass(program, device)
            ports = list(_ports(program))
            module = program.module()
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: PyTorch {torch.__version__} cannot load it: {short(error)}") from error
    return TorchSession(module, ports, {}, device, run.cores)


def _ports(program: Any) -> Iterator[Port]:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for name in program.graph_signature.user_inputs:
        value = nodes[name].meta["val"]
        shape = tuple(side if isinstance(side, int) else None for side in value.shape)
        yield Port(name, shape, str(value.dtype).removeprefix("torch."))


def _harmless(file: WeightsFile, owner: str) -> io.BytesIO:
    """The archive without what could run, or ModelLoadFailed that says what it is."""
    copy = io.BytesIO()
    with zipfile.ZipFile(file.path) as old, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            inner = entry.filename.partition("/")[2]
            if inner.startswith("data/aotinductor/") or inner.endswith((".so", ".pt2")):
                raise ModelLoadFailed(f"{owner}: it holds compiled code ({inner}), allowed: exported programs")
            if inner.startswith("data/sample_inputs/"):
                new.writestr(entry.filename, b"")
                continue
            content = old.read(entry)
            if inner.endswith(".json"):
                content = _checked(content, inner, owner)
            elif inner.endswith(".pt") or "opaque" in inner or "custom_obj" in inner:
                raise ModelLoadFailed(f"{owner}: it holds pickled objects ({inner}), allowed: plain tensors")
            new.writestr(entry.filename, content)
    copy.seek(0)
    return copy


def _checked(content: bytes, name: str, owner: str) -> bytes:
    """A part of the archive in JSON, its guards left out."""
    if len(content) > _MOST:
        raise ModelLoadFailed(f"{owner}: {name} has {len(content)} bytes, allowed: {_MOST}")
    try:
        part = json.loads(content)
    except ValueError as error:
        raise ModelLoadFailed(f"{owner}: {name} is damaged: {short(error)}") from error
    if isinstance(part, dict) and part.get("guards_code"):
        part["guards_code"] = []
    for key, value in _entries(part):
        if key == "use_pickle" and value:
            raise ModelLoadFailed(f"{owner}: {name} names pickled tensors, allowed: plain tensors")
        if key in ("target", "as_operator") and isinstance(value, str):
            plain = _OPERATION.fullmatch(value) and not any(word in value for word in _REFUSED)
            if "." in value and not plain:
                raise ModelLoadFailed(f"{owner}: it wants to run {value[:80]!r}, allowed: tensor operations of ATen")
        if key == "expr_str" and not (isinstance(value, str) and _SIZE.fullmatch(value)):
            raise ModelLoadFailed(f"{owner}: it has a size written as {str(value)[:80]!r}, allowed: plain arithmetic")
    return json.dumps(part).encode()


def _entries(part: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value in nested dictionaries and lists."""
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one

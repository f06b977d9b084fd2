"""What runs in a process of its own, because it may crash, hang, or take all memory: imports, and loading models.

A question comes as JSON on standard input, the answer goes as JSON to where standard output was: libraries that print
must not spoil it. Every function here answers one question.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def main() -> None:
    """Reads the question, answers it."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.read())
    with out:
        out.write(json.dumps(QUESTIONS[question["ask"]](*question["with"])))


def torch() -> dict[str, Any]:
    """What torch is, and what it sees; of torchvision, whether it goes with it."""
    told: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        library = importlib.import_module("torch")
        told |= {"version": str(library.__version__), "cuda": library.version.cuda}
        told["available"] = bool(library.cuda.is_available())
        if told["available"]:
            numbers = range(library.cuda.device_count())
            told["devices"] = [
                [library.cuda.get_device_name(n), *map(int, library.cuda.mem_get_info(n))] for n in numbers
            ]
    told["warnings"] = [str(one.message) for one in caught if "cuda" in str(one.message).lower()]
    if importlib.util.find_spec("torchvision") is not None:
        try:
            told["torchvision"] = str(importlib.import_module("torchvision").__version__)
        except Exception as error:
            told["torchvision_error"] = f"{type(error).__name__}: {error}"
    return told


def onnxruntime() -> dict[str, Any]:
    """What ONNX Runtime can use."""
    library = importlib.import_module("onnxruntime")
    return {"version": str(library.__version__), "providers": list(library.get_available_providers())}


def opencv() -> dict[str, Any]:
    """Whether cv2 is there, and whole."""
    library = importlib.import_module("cv2")
    return {"version": getattr(library, "__version__", None), "whole": hasattr(library, "imdecode")}


def adapters(models: Sequence[Sequence[Any]]) -> dict[str, str | None]:
    """Id -> what is wrong with a model's adapter or options, or with those of its parts, before anything is loaded."""
    ids = [id_ for id_, _, _ in models]
    return {id_: _adapter(reference, options, ids) for id_, reference, options in models}


def _adapter(reference: str, options: Mapping[str, Any], ids: Sequence[str]) -> str | None:
    from agent.compose.named import with_ids
    from agent.errors import ModelNotFound, SidecarError
    from agent.models.loading import adapter_of, parse_reference
    from agent.models.options import check_options
    from agent.settings.parts import SCHEMES, named_parts

    try:
        parsed = parse_reference(reference)
        composed = parsed.scheme in SCHEMES
        load = importlib.import_module(f"agent.compose.{parsed.scheme}").load if composed else adapter_of(parsed)
        own = {name: value for name, value in options.items() if name != "device"}
        check_options(load, own, reference, ("parts",) if composed else ())
    except ModelNotFound as error:
        return with_ids(error, reference, ids) if ":" not in reference else str(error)
    except SidecarError as error:
        return str(error)
    for name, of_part in named_parts(options) if composed else ():
        # Those that are models by themselves are looked at as such.
        if name not in ids and (problem := _adapter(name, of_part, ids)):
            return f"its part {name}: {problem}"
    return None


def load(file: str, model: str, device: str) -> dict[str, Any]:
    """A model of service.toml, loaded and run on a picture: what it is, and what it took."""
    from agent.compose.named import open_named
    from agent.doctor.trial import try_model
    from agent.errors import SidecarError
    from agent.models.descriptions import Description
    from agent.models.memory import resident_bytes
    from agent.settings.service import load_models

    before, began = resident_bytes(), time.monotonic()
    try:
        loaded = open_named(model, load_models(Path(file)), device=device)
        opened = time.monotonic()
        came = try_model(loaded)
    except SidecarError as error:
        return {"error": str(error)}
    memory = getattr(loaded.model, "memory_bytes", None) or max(0, resident_bytes() - before)
    seconds = [round(opened - began, 2), round(time.monotonic() - opened, 2)]
    told = {"came": came, "seconds": seconds, "memory": int(memory), "description": asdict(Description.of(loaded))}
    loaded.close()
    return told


QUESTIONS: dict[str, Callable[..., Any]] = {
    "torch": torch, "onnxruntime": onnxruntime, "opencv": opencv, "adapters": adapters, "load": load,
}  # fmt: skip

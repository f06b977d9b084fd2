"""Any existing CVAT auto-annotation function: `cvat:path/func.py`, `cvat:package.module`.

Loaded as cvat-cli loads it by --function-file and --function-module; the options of the model are the parameters of
its `create`, with the types that `-p NAME=TYPE:VALUE` gives them. Detection functions run; interaction and tracking
functions are told apart and refused.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from adapters._cvat.annotations import AnnotationReader
from adapters._cvat.labels import model_labels
from agent.contract import (
    BadPrediction,
    ConfigError,
    Context,
    Detection,
    Frame,
    ModelError,
    ModelLoadFailed,
    ModelNotFound,
)

_MODULE_NAME = "__cvat_function__"
"""The name under which cvat-cli runs a function's file."""


def load(name: str, /, *, device: str, **options: Any) -> FunctionDetector:
    """The detection function in a Python file or module; `device` goes to a `create` that takes one."""
    owner = f"cvat:{name}"
    module = _load_file(Path(name).expanduser(), owner) if _is_path(name) else _load_module(name, owner)
    function = _create(module, options, device, owner)
    spec = getattr(function, "spec", None)
    if spec is None:
        raise ModelLoadFailed(f"{owner}: has no 'spec' attribute, which every CVAT function has")
    from cvat_sdk import auto_annotation as cvataa

    if isinstance(spec, (cvataa.InteractionFunctionSpec, cvataa.TrackingFunctionSpec)):
        kind = "an interaction" if isinstance(spec, cvataa.InteractionFunctionSpec) else "a tracking"
        raise ModelLoadFailed(f"{owner}: got {kind} function, allowed so far: detection functions")
    if not isinstance(spec, cvataa.DetectionFunctionSpec):
        raise ModelLoadFailed(f"{owner}: spec: got {type(spec).__name__}, allowed: DetectionFunctionSpec")
    if not callable(getattr(function, "detect", None)):
        raise ModelLoadFailed(f"{owner}: has no detect(context, image)")
    return FunctionDetector(owner, function, _facts(name, module, options))


class FunctionDetector:
    """Asks a CVAT detection function frame by frame, and holds it to the SDK's rules."""

    batch_size = 1

    def __init__(self, owner: str, function: Any, facts: Mapping[str, str]) -> None:
        self.labels = model_labels(function.spec)
        self.facts = facts
        self._owner, self._function = owner, function
        self._reader = AnnotationReader(function.spec)

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return [self._detect_one(frame, context) for frame in frames]

    def _detect_one(self, frame: Frame, context: Context) -> list[Detection]:
        from PIL import Image

        try:
            found = self._function.detect(_function_context(frame, context), Image.fromarray(frame.image))
        except ModelError:
            raise
        except Exception as error:
            raise BadPrediction(f"{self._owner}: {_where(error)}") from error
        try:
            return self._reader.read(found, frame, no_masks=context.masks_as_polygons)
        except BadPrediction as error:
            raise BadPrediction(f"{self._owner}: {error}") from error.__cause__


def _function_context(frame: Frame, context: Context) -> Any:
    from cvat_sdk.auto_annotation import DetectionFunctionContext

    class FrameContext(DetectionFunctionContext):  # type: ignore[misc]
        frame_name = frame.name
        # None lets the function use a threshold of its own.
        conf_threshold = context.threshold or None
        conv_mask_to_poly = context.masks_as_polygons

    return FrameContext()


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or Path(name).is_file()


def _load_file(path: Path, owner: str) -> ModuleType:
    if not path.is_file():
        raise ModelNotFound(f"{owner}: there is no such file")
    spec = importlib.util.spec_from_file_location(_MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise ModelLoadFailed(f"{owner}: got a file that is not Python source, allowed: a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE_NAME] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: {_where(error)}") from error
    return module


def _load_module(name: str, owner: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ModelNotFound(f"{owner}: there is no module {error.name!r}; a file ends in .py") from error
        raise ModelLoadFailed(f"{owner}: {_where(error)}") from error
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: {_where(error)}") from error


def _create(module: Any, options: Mapping[str, Any], device: str, owner: str) -> Any:
    """What the module's `create` makes of the options, or the module itself."""
    create = getattr(module, "create", None)
    if create is None:
        if options:
            raise ConfigError(f"{owner}: unknown option {next(iter(options))!r}: the function takes no parameters")
        return module
    signature = inspect.signature(create)
    if device != "auto" and "device" in signature.parameters:
        options = {"device": device, **options}
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ConfigError(f"{owner}: options: {error}; allowed: create{signature}") from error
    try:
        return create(**options)
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: {_where(error)}") from error


def _facts(name: str, module: Any, options: Mapping[str, Any]) -> dict[str, str]:
    facts = {"source": name, "format": "CVAT auto-annotation function"}
    file = getattr(module, "__file__", None)
    if file and Path(file).is_file():
        digest = hashlib.sha256(Path(file).read_bytes() + repr(sorted(options.items())).encode())
        facts["version"] = f"sha256:{digest.hexdigest()[:16]}"
    return facts


def _where(error: BaseException) -> str:
    """The error with the line of the function that it comes from: this is other people's code."""
    frames = list(traceback.extract_tb(error.__traceback__))
    theirs = [f for f in frames if f.filename != __file__ and not re.search(r"site-packages|lib/python", f.filename)]
    frames = theirs or frames
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        place = f" ({Path(error.filename or '').name}, line {error.lineno})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"

"""Any existing CVAT auto-annotation function: `cvat:path/func.py`, `cvat:package.module`.

Loaded as cvat-cli loads it by --function-file and --function-module; the options of the model are the parameters of
its `create`, with the types that `-p NAME=TYPE:VALUE` gives them. The function's spec says whether it detects,
interacts or tracks.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from adapters._cvat.annotations import AnnotationReader
from adapters._cvat.calling import called, where
from adapters._cvat.interaction import FunctionInteractor
from adapters._cvat.labels import model_labels
from adapters._cvat.tracking import FunctionTracker
from agent.contract import (
    BadPrediction,
    ConfigError,
    Context,
    Detection,
    Frame,
    ModelLoadFailed,
    ModelNotFound,
)

_MODULE_NAME = "__cvat_function__"
"""The name under which cvat-cli runs a function's file; with something that tells several of them apart."""


def load(name: str, /, *, device: str, **options: Any) -> FunctionDetector | FunctionInteractor | FunctionTracker:
    """The function in a Python file or module; `device` goes to a `create` that takes one."""
    owner = f"cvat:{name}"
    module = _load_file(Path(name).expanduser(), owner) if _is_path(name) else _load_module(name, owner)
    function = _create(module, options, device, owner)
    spec = getattr(function, "spec", None)
    if spec is None:
        raise ModelLoadFailed(f"{owner}: has no 'spec' attribute, which every CVAT function has")
    from cvat_sdk import auto_annotation as cvataa

    facts = _facts(name, module, options)
    if isinstance(spec, cvataa.DetectionFunctionSpec):
        _check_methods(function, owner, "detect(context, image)")
        return FunctionDetector(owner, function, facts)
    if isinstance(spec, cvataa.InteractionFunctionSpec):
        _check_methods(function, owner, "detect(context, pp_image, prompts)")
        return FunctionInteractor(owner, function, facts)
    if isinstance(spec, cvataa.TrackingFunctionSpec):
        _check_methods(
            function, owner, "init_tracking_state(context, pp_image, shape)", "track(context, pp_image, state)"
        )
        return FunctionTracker(owner, function, facts)
    allowed = "DetectionFunctionSpec, InteractionFunctionSpec, TrackingFunctionSpec"
    raise ModelLoadFailed(f"{owner}: spec: got {type(spec).__name__}, allowed: {allowed}")


def _check_methods(function: Any, owner: str, *methods: str) -> None:
    for method in methods:
        if not callable(getattr(function, method.partition("(")[0], None)):
            raise ModelLoadFailed(f"{owner}: has no {method}")


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

        asked = _function_context(frame, context)
        found = called(self._owner, lambda: self._function.detect(asked, Image.fromarray(frame.image)))
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
    # By the place, so that what it pickles can be read again by the next process.
    name = f"{_MODULE_NAME}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelLoadFailed(f"{owner}: got a file that is not Python source, allowed: a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: {where(error)}") from error
    return module


def _load_module(name: str, owner: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ModelNotFound(f"{owner}: there is no module {error.name!r}; a file ends in .py") from error
        raise ModelLoadFailed(f"{owner}: {where(error)}") from error
    except Exception as error:
        raise ModelLoadFailed(f"{owner}: {where(error)}") from error


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
        raise ModelLoadFailed(f"{owner}: {where(error)}") from error


def _facts(name: str, module: Any, options: Mapping[str, Any]) -> dict[str, str]:
    facts = {"source": name, "format": "CVAT auto-annotation function"}
    file = getattr(module, "__file__", None)
    if file and Path(file).is_file():
        digest = hashlib.sha256(Path(file).read_bytes() + repr(sorted(options.items())).encode())
        facts["version"] = f"sha256:{digest.hexdigest()[:16]}"
    return facts

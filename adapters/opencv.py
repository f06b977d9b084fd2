"""What OpenCV brings along, mostly without weights: `opencv:face`, `opencv:mil`, `opencv:grabcut`, …"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from adapters._networks.nanotrack import NanoTracker
from adapters._networks.options import RUNNING, at_least, running, share
from adapters._opencv.faces import FaceDetector
from adapters._opencv.grabcut import GrabCut
from adapters._opencv.scissors import Scissors
from adapters._opencv.trackers import OpencvTracker
from agent.contract import ConfigError, Model, ModelNotFound


def load(
    name: str,
    *,
    device: str,
    eyes: bool | None = None,
    min_size: int | None = None,
    scale_step: float | None = None,
    neighbours: int | None = None,
    backbone: str | None = None,
    head: str | None = None,
    lost_below: float | None = None,
    rounds: int | None = None,
    providers: list[str] | None = None,
    threads: int | None = None,
) -> Model:
    """The model of that name; each has its own options (docs/models.md)."""
    given = {option: value for option, value in locals().items() if value is not None}
    del given["name"], given["device"]
    owner = f"opencv:{name}"
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1)
        hint = f"; did you mean opencv:{near[0]}?" if near else ""
        raise ModelNotFound(f"{owner}: unknown model, allowed: {', '.join(_MODELS)}{hint}")
    make, options = _MODELS[name]
    if strangers := [option for option in given if option not in options]:
        raise ConfigError(f"{owner}: unknown option {strangers[0]!r}, allowed: {', '.join(options) or 'none'}")
    return make(owner, device, given)


def _nanotrack(owner: str, device: str, given: Mapping[str, Any]) -> NanoTracker:
    if missing := [option for option in ("backbone", "head") if option not in given]:
        raise ConfigError(f"{owner}: option {missing[0]!r} is missing: NanoTrack is two ONNX files, backbone and head")
    share(owner, "lost_below", given.get("lost_below"))
    run = running(device, given, owner)
    return NanoTracker(given["backbone"], given["head"], run, lost_below=given.get("lost_below", 0.6))


def _tracker(owner: str, device: str, given: Mapping[str, Any]) -> OpencvTracker:
    return OpencvTracker(owner.partition(":")[2])


def _grabcut(owner: str, device: str, given: Mapping[str, Any]) -> GrabCut:
    at_least(owner, "rounds", given.get("rounds", 1), 1)
    return GrabCut(**given)


_Make = Callable[[str, str, Mapping[str, Any]], Model]

_MODELS: dict[str, tuple[_Make, tuple[str, ...]]] = {
    "face": (lambda owner, device, given: FaceDetector(**given), ("eyes", "min_size", "scale_step", "neighbours")),
    "grabcut": (_grabcut, ("rounds",)),
    "scissors": (lambda owner, device, given: Scissors(), ()),
    "mil": (_tracker, ()),
    "csrt": (_tracker, ()),
    "kcf": (_tracker, ()),
    "nanotrack": (_nanotrack, ("backbone", "head", "lost_below", *RUNNING[:2])),
}

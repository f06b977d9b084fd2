"""Models from files: `local:weights/yolo.onnx`.

Detectors are the usual kind: which family a file holds is told by its inputs, outputs and metadata
(`adapters/_networks/heads.py`); how it wants its pictures goes with the family. `decoder=` makes an interactor of two
files, `kind="reid"` a reidentifier. Options say otherwise where a network was trained otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from adapters._networks.detectors import ANSWERS, load_detector
from adapters._networks.interactor import load_interactor
from adapters._networks.options import PREPARATION, RUNNING, checked
from adapters._networks.pictures import Colour, Resize
from adapters._networks.poses import load_poses
from adapters._networks.reid import load_reid
from agent.contract import ConfigError, Model

Kind = Literal["detector", "interactor", "reid"]

_LOADERS: dict[str, Callable[[str, str, Mapping[str, Any]], Model]] = {
    "detector": load_detector,
    "interactor": load_interactor,
    "reid": load_reid,
    "pose": load_poses,
}
_OPTIONS = {
    "detector": ("head", "labels", "labels_file", "batch_size", "allow_pickle", *ANSWERS),
    "interactor": ("decoder",),
    "pose": ("head", "points", "point_threshold", "label", "around", "batch_size"),
    "reid": ("batch_size",),
}
_KIND_OF_HEAD = {"reid": "reid", "heatmaps": "pose", "movenet": "pose", "landmarks": "pose"}
"""Heads that make another kind of model than a detector of many things."""


def load(
    name: str,
    *,
    device: str,
    kind: Kind | None = None,
    head: str | None = None,
    decoder: str | None = None,
    labels: str | list[str] | None = None,
    labels_file: str | None = None,
    input_size: int | list[int] | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    smooth: bool | None = None,
    colour: Colour | None = None,
    scale: float | None = None,
    mean: float | list[float] | None = None,
    std: float | list[float] | None = None,
    pad: int | None = None,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    shape: Literal["rectangle", "mask", "skeleton"] | None = None,
    points: str | list[str] | None = None,
    point_threshold: float | None = None,
    label: str | None = None,
    around: float | None = None,
    split_regions: bool | None = None,
    smallest_region: int | None = None,
    top_k: int | None = None,
    multi_label: bool | None = None,
    batch_size: int | None = None,
    allow_pickle: bool | None = None,
    providers: list[str] | None = None,
    threads: int | None = None,
) -> Model:
    """The model in a file.

    `labels`: a list of class names, or a vocabulary such as "coco-80"; `labels_file`: a file with them.
    `input_size`: a side, or width and height, for graphs that take any. Pixels become (pixel * scale - mean) / std
    in the order of `colour`, with one mean for all channels or one for each. `crop`: how much of the shorter side a
    centre crop shows. `smooth`: make pictures smaller without aliasing.
    `shape`: what becomes of boxes that have a mask or points. `points`: their names.
    `split_regions`: a mask for each connected part of a class; `smallest_region`: in pixels. `top_k`: tags a frame;
    `allow_pickle`: open Ultralytics' .pt files, which can run anything, with their package, where it is installed.
    `multi_label`: any number of them, where classes do not exclude each other. `batch_size` is for graphs that take any
    (on a processor 1, which gains nothing from more, else 4). `threads` is how many processors may be used, 0 all.
    """
    given = {option: value for option, value in locals().items() if value is not None}
    owner, given = f"local:{name}", {key: given[key] for key in given if key not in ("name", "device")}
    chosen = _kind(given, owner)
    allowed = (*_OPTIONS[chosen], *PREPARATION, *RUNNING)
    if strangers := [option for option in given if option not in allowed]:
        raise ConfigError(f"{owner}: option {strangers[0]!r} is not for a model of kind {chosen}: {', '.join(allowed)}")
    return _LOADERS[chosen](name, device, checked(given, owner))


def _kind(given: dict[str, Any], owner: str) -> str:
    """The kind of model that the options ask for; takes away those that only say so."""
    kind = given.pop("kind", None)
    if (own := _KIND_OF_HEAD.get(given.get("head", ""))) is not None:
        if kind not in (None, "reid" if own == "reid" else "detector"):
            raise ConfigError(f"{owner}: got kind {kind!r} and head {given['head']!r}, allowed: one of them")
        if own == "reid":
            del given["head"]
        return own
    if kind is None:
        return "interactor" if "decoder" in given else "detector"
    if kind == "interactor" and "decoder" not in given:
        raise ConfigError(f"{owner}: option 'decoder' is missing: an interactor is two files, encoder and decoder")
    return str(kind)

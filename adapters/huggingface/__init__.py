"""Models from the Hugging Face Hub or a folder: `hf:facebook/detr-resnet-50`, `hf:./my-model`.

What a model is for is told by its config (`tasks.py`), and each task has a module of its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from adapters._torch import Precision
from adapters.huggingface.opening import Opened, open_source
from adapters.huggingface.segmentation import Segments
from adapters.huggingface.source import NeedsTimm, fetch
from adapters.huggingface.tasks import Task, choose
from agent.contract import ConfigError, Model, ModelNotFound

WITHOUT_TIMM = "no_timm"


def load(
    name: str,
    *,
    device: str,
    task: str | None = None,
    revision: str | None = None,
    token_env: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    precision: Precision = "auto",
    batch_size: int = 4,
    labels: str | list[str] | None = None,
    top_k: int | None = None,
    multi_label: bool | None = None,
    segments: Segments | None = None,
    split_regions: bool | None = None,
    smallest_region: int | None = None,
    phrases: dict[str, Any] | None = None,
    nms_iou: float | None = None,
    texts: bool | None = None,
    text_threshold: float | None = None,
    alternatives: int | None = None,
    memory_frames: int | None = None,
    label: str | None = None,
    attribute: str | None = None,
    boxes: Literal["frame"] | None = None,
    point_threshold: float | None = None,
    expert: int | None = None,
    max_length: int | None = None,
    max_side: int | None = None,
    reader: str | None = None,
) -> Model:
    """The model of a repository or a folder in transformers' form.

    `task`: what it is for, where its config does not say, or where it can do several things (`tasks.py`).
    `revision`: a branch, a tag or a commit; a commit makes runs repeatable. `token_env`: the NAME of an environment
    variable with an access token. `local_files_only`: what is cached will do, ask nobody. `trust_remote_code` and
    `allow_pickle` let the repository run code here. The other options belong to tasks: docs/models.md.
    """
    owner = f"hf:{name}"
    if batch_size < 1:
        raise ConfigError(f"{owner}: batch_size: got {batch_size}, allowed: 1 or more")
    given = {
        "labels": labels,
        "top_k": top_k,
        "multi_label": multi_label,
        "segments": segments,
        "split_regions": split_regions,
        "smallest_region": smallest_region,
        "phrases": phrases,
        "nms_iou": nms_iou,
        "texts": texts,
        "text_threshold": text_threshold,
        "alternatives": alternatives,
        "memory_frames": memory_frames,
        "label": label,
        "attribute": attribute,
        "boxes": boxes,
        "point_threshold": point_threshold,
        "expert": expert,
        "max_length": max_length,
        "max_side": max_side,
        "reader": reader,
    }
    wishes = {option: value for option, value in given.items() if value is not None}
    access: dict[str, Any] = {
        "token_env": token_env,
        "local_files_only": local_files_only,
        "allow_pickle": allow_pickle,
    }
    running: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}

    def model(wanted: str | None) -> Model:
        source = fetch(name, revision=wanted, with_code=trust_remote_code, **access)
        opened = open_source(source, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, **running)
        chosen = choose(opened.config, owner, task)
        build = _builder(chosen, wishes, owner)
        companions = _companions(wishes, owner, {**access, **running})
        return _owning(build(opened, **{**wishes, **companions}), opened, list(companions.values()))

    try:
        return model(revision)
    except NeedsTimm as error:
        if revision is not None or Path(name).expanduser().exists():
            raise
        try:
            # DETR's own repositories keep the same weights, for a backbone of transformers, on a branch of this name.
            return model(WITHOUT_TIMM)
        except ModelNotFound:
            raise error from None


def _builder(task: Task, wishes: Mapping[str, Any], owner: str) -> Callable[..., Model]:
    """What makes the task's model; ConfigError for an option that is another task's."""
    build: Callable[..., Model] = importlib.import_module(f"adapters.huggingface.{task.module}").build
    taken = {p.name for p in inspect.signature(build).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for option in wishes:
        if option not in taken:
            allowed = ", ".join(sorted(taken)) or "none of those that only some tasks have"
            raise ConfigError(f"{owner}: option {option!r} is not for the task {task.name}, allowed: {allowed}")
    return build


def _owning(model: Any, opened: Opened, companions: Sequence[Any]) -> Model:
    """The model with what ends it and its companions, and, on a GPU, with what they take there."""

    def close() -> None:
        for one in (opened, *companions):
            one.close()

    model.close = close
    if opened.device != "cpu":
        model.memory_bytes = sum(one.memory_bytes for one in (opened, *companions))
    return model  # type: ignore[no-any-return]


def _companions(wishes: Mapping[str, Any], owner: str, how: Mapping[str, Any]) -> dict[str, Any]:
    """The models that options name, loaded as this one is."""
    reference = wishes.get("reader")
    if reference is None:
        return {}
    scheme, colon, name = str(reference).partition(":")
    if colon and scheme != "hf":
        raise ConfigError(f"{owner}: reader: got {reference!r}, allowed: hf:OWNER/NAME, or a folder")
    return {"reader": load(name if colon else scheme, task="text-reading", **how)}

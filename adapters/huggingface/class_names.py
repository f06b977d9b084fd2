"""The names of a model's classes, and the labels that they make."""

from __future__ import annotations

import json
from collections.abc import Iterable

from adapters._names import Names, as_names, vocabulary
from adapters.huggingface.opening import Opened
from agent.contract import ConfigError, Label, ModelLoadFailed


def class_names(opened: Opened, labels: str | list[str] | None, count: int | None = None) -> tuple[Names, str]:
    """One name for each class index ("" where there is none), and where the names are from."""
    owner = opened.owner
    count = int(opened.config.num_labels) if count is None else count
    if labels is not None:
        names = vocabulary(labels, owner) if isinstance(labels, str) else as_names(labels, f"{owner}: labels")
        if len(names) != count:
            raise ConfigError(f"{owner}: labels: got {len(names)} names, the model has {count} classes")
        return names, "option labels"
    stored = json.loads((opened.source.folder / "config.json").read_text(encoding="utf-8"))
    names = as_names(opened.config.id2label, f"{owner}: id2label")
    if not any(names):
        raise ModelLoadFailed(f"{owner}: its config names no class; give names by the option labels")
    if not stored.get("id2label"):
        return names, "nowhere: its config has no id2label; give names by the option labels"
    return names, "its config"


def labels_of(names: Iterable[str], kind: str) -> list[Label]:
    """A label for each name. Some vocabularies use a name twice (ImageNet has two cranes): it is one label."""
    return [Label(name, kind) for name in dict.fromkeys(names) if name]


def name_at(names: Names, index: int) -> str:
    """The name of a class, "" for one that the model has no name for."""
    return names[index] if 0 <= index < len(names) else ""

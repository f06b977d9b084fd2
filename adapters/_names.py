"""Class names: from options, from files, from vocabularies that come with the program."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from agent.contract import ConfigError, ModelNotFound

Names = list[str]
"""One name for each class index; "" where an index is not used."""

_UNUSED = {"", "n/a", "__background__", "background", "???"}


def vocabulary(name: str, owner: str) -> Names:
    """The names of a vocabulary of `label_maps`; `coco80` is as good as `coco-80`."""
    files = {_plain(file.name): file for file in _vocabularies()}
    if (file := files.get(_plain(name) + "toml")) is None:
        texts = {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files.values()}
        known = ", ".join(sorted(known for known, text in texts.items() if tomllib.loads(text).get("names"))) or "none"
        raise ConfigError(f"{owner}: labels: unknown vocabulary {name!r}, allowed: a list of names, or {known}")
    names = tomllib.loads(file.read_text(encoding="utf-8")).get("names", [])
    return as_names(names, f"{owner}: vocabulary {name}")


def _vocabularies() -> list[Any]:
    return [file for file in resources.files("label_maps").iterdir() if file.name.endswith(".toml")]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def names_from_file(name: str, owner: str) -> Names:
    """The names in a text file (one a line), a JSON, YAML or TOML file with `names` or `id2label`."""
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ModelNotFound(f"{owner}: labels_file: there is no file {name}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{owner}: labels_file {name}: cannot be read as text: {error}") from error
    try:
        content = _parse(text, path.suffix.lower())
    except Exception as error:
        raise ConfigError(f"{owner}: labels_file {name}: cannot be read: {error}") from error
    if isinstance(content, Mapping):
        content = next((content[key] for key in ("names", "id2label", "labels") if key in content), content)
    return as_names(content, f"{owner}: labels_file {name}")


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix in (".yaml", ".yml"):
        import yaml  # type: ignore[import-untyped]

        return yaml.safe_load(text)
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def names_from_metadata(metadata: Mapping[str, str], owner: str) -> Names | None:
    """The names that exporters leave in a model file: Ultralytics' `names`, or JSON under the usual keys."""
    for key in ("names", "labels", "classes", "class_names", "id2label"):
        if text := metadata.get(key, "").strip():
            try:
                content = json.loads(text) if text[:1] in "[{" and '"' in text else ast.literal_eval(text)
            except (ValueError, SyntaxError, RecursionError):
                content = [part.strip() for part in re.split(r"[\n,;]", text)]
            return as_names(content, f"{owner}: metadata {key!r}")
    return None


def as_names(content: Any, owner: str) -> Names:
    """A list of names from a list or from {index: name}; ConfigError where it is neither."""
    if isinstance(content, Mapping):
        try:
            by_index = {int(index): name for index, name in content.items()}
        except (TypeError, ValueError):
            raise ConfigError(f"{owner}: got keys that are no class numbers, e.g. {next(iter(content))!r}") from None
        if not by_index or min(by_index) < 0 or max(by_index) > 100_000:
            raise ConfigError(f"{owner}: got class numbers {sorted(by_index)[:3]}…, allowed: from 0")
        content = [by_index.get(index, "") for index in range(max(by_index) + 1)]
    if isinstance(content, str) or not isinstance(content, Sequence) or not content:
        raise ConfigError(f"{owner}: got {content!r}, allowed: a list of names")
    names = ["" if name is None else str(name).strip() for name in content]
    return ["" if name.lower() in _UNUSED else name for name in names]

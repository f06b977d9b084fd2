"""Label maps and vocabularies: TOML files, found by name in `label_maps/` or by path; docs/label-maps.md tells."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.errors import ConfigError

_KEYS = ("description", "source", "names", "ids", "labels", "synonyms")
_ENTRY_KEYS = ("name", "attributes", "sublabels", "threshold")


@dataclass(frozen=True, slots=True)
class MapEntry:
    """Where one model label goes. `name` None drops it; `sublabels` None leaves them to their names."""

    name: str | None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Task attribute -> the value that it gets."""
    sublabels: Mapping[str, str | None] = field(default_factory=dict)
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A vocabulary (`names`), a map (`labels`), or both."""

    name: str
    description: str = ""
    names: tuple[str, ...] = ()
    labels: Mapping[str, MapEntry] = field(default_factory=lambda: MappingProxyType({}))
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Label -> other names for it."""


def known_label_maps() -> list[str]:
    """The names of the files in label_maps/."""
    return sorted(
        item.name.removesuffix(".toml") for item in files("label_maps").iterdir() if item.name.endswith(".toml")
    )


def load_label_map(name: str) -> LabelMap:
    """A label map by its name, or by the path of a TOML file. ConfigError where it is not there or not valid."""
    known = known_label_maps()
    if name in known:
        text, place = (files("label_maps") / f"{name}.toml").read_text(encoding="utf-8"), f"label map {name}"
    elif Path(name).suffix == ".toml" or "/" in name:
        try:
            text, place = Path(name).read_text(encoding="utf-8"), name
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"label map {name}: cannot be read: {error}") from error
    else:
        raise ConfigError(
            f"label map {name!r}: there is none of that name{_near(name, known)}; or a path that ends in .toml"
        )
    try:
        return _parse(Path(name).stem, tomllib.loads(text), place)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: it is not valid TOML: {error}") from error


def _parse(name: str, tables: Mapping[str, Any], place: str) -> LabelMap:
    _check_keys(tables, _KEYS, place)
    names = tables.get("names", [])
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        raise ConfigError(f"{place}: names: allowed: a list of strings")
    labels = {label: _entry(value, f"{place}: labels: {label}") for label, value in tables.get("labels", {}).items()}
    synonyms = {label: tuple(others) for label, others in tables.get("synonyms", {}).items()}
    return LabelMap(name, tables.get("description", ""), tuple(names), labels, synonyms)


def _entry(value: Any, place: str) -> MapEntry:
    if value is False:
        return MapEntry(None)
    if isinstance(value, str):
        return MapEntry(value)
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: got {value!r}, allowed: a task label, false (drop), or a table with {_ENTRY_KEYS}")
    _check_keys(value, _ENTRY_KEYS, place)
    if not isinstance(value.get("name"), str):
        raise ConfigError(f"{place}: name: got {value.get('name')!r}, allowed: a task label")
    threshold = value.get("threshold")
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
        raise ConfigError(f"{place}: threshold: got {threshold!r}, allowed: 0 to 1")
    attributes = {attribute: _text(fixed) for attribute, fixed in value.get("attributes", {}).items()}
    sublabels = {sub: target or None for sub, target in value.get("sublabels", {}).items()}
    return MapEntry(value["name"], attributes, sublabels, threshold)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_keys(table: Mapping[str, Any], allowed: Iterable[str], place: str) -> None:
    for key in table:
        if key not in allowed:
            raise ConfigError(f"{place}: unknown key {key!r}{_near(key, list(allowed))}")


def _near(name: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(allowed)}"

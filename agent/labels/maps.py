"""Label maps and vocabularies: TOML files, found by name in `label_maps/` or by path; docs/label-maps.md tells."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from agent.errors import ConfigError
from agent.labels.names import close_names, fold, meant

Value = TypeVar("Value")

_KEYS = ("description", "source", "names", "labels", "synonyms")
_ENTRY_KEYS = ("name", "attributes", "attribute_names", "sublabels", "threshold")
_SUBLABEL_KEYS = ("name", "attribute_names")


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SublabelEntry:
    """Where one point of a model's skeleton goes. `name` None drops it."""

    name: str | None
    attribute_names: Mapping[str, str] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class MapEntry:
    """Where one model label goes. `drop` says that it goes nowhere; `name` None leaves it to its own name."""

    name: str | None = None
    drop: bool = False
    attributes: Mapping[str, str] = field(default_factory=_nothing)
    """Task attribute -> the value that it always gets."""
    attribute_names: Mapping[str, str] = field(default_factory=_nothing)
    """Model attribute -> task attribute."""
    sublabels: Mapping[str, SublabelEntry] = field(default_factory=_nothing)
    """By the model's sublabel."""
    threshold: float | None = None
    only_listed_attributes: bool = False
    """Whether attributes that are not named here are dropped, as in CVAT's own mappings, or left to their names."""
    only_listed_sublabels: bool = False


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A vocabulary (`names`), a map (`labels`), or both."""

    name: str
    description: str = ""
    source: str = ""
    names: tuple[str, ...] = ()
    """By class index; "" where an index is not used."""
    labels: Mapping[str, MapEntry] = field(default_factory=_nothing)
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=_nothing)
    """Label -> other names for it and its like: for suggestions, never for matching."""
    is_file: bool = False
    """Whether it is somebody's own file, and none of `label_maps/`."""


def known_label_maps() -> list[str]:
    """The names of the files in label_maps/."""
    return sorted(
        item.name.removesuffix(".toml") for item in files("label_maps").iterdir() if item.name.endswith(".toml")
    )


def load_label_map(name: str) -> LabelMap:
    """A label map by its name (`coco80` is as good as `coco-80`), or by the path of a TOML file.

    ConfigError where it is not there, or not valid.
    """
    if name.endswith(".toml") or "/" in name:
        try:
            found = parse_label_map(Path(name).stem, Path(name).expanduser().read_text(encoding="utf-8"), name)
            return replace(found, is_file=True)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"label map {name}: cannot be read: {error}") from error
    known = {fold(file): file for file in known_label_maps()}
    if (file := known.get(fold(name))) is None:
        near = close_names(name, list(known.values()), 1)
        maps = [file for file in known.values() if _packaged(file).labels]
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(maps)}"
        raise ConfigError(f"label map {name!r}: no map of ours, nor the path of a .toml file; {hint}")
    return _packaged(file)


@lru_cache(maxsize=64)
def _packaged(name: str) -> LabelMap:
    text = (files("label_maps") / f"{name}.toml").read_text(encoding="utf-8")
    return parse_label_map(name, text, f"label map {name}")


def parse_label_map(name: str, text: str, place: str) -> LabelMap:
    """The label map that a TOML text says; ConfigError names what is wrong with it, and the place."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: not valid TOML: {error}") from error
    _check_keys(tables, _KEYS, place)
    return LabelMap(
        name=name,
        description=_string(tables.get("description", ""), f"{place}: description"),
        source=_string(tables.get("source", ""), f"{place}: source"),
        names=_strings(tables.get("names", []), f"{place}: names"),
        labels=_table(tables, "labels", place, _entry),
        synonyms=_table(tables, "synonyms", place, _strings),
    )


def _entry(value: Any, place: str) -> MapEntry:
    if value is False:
        return MapEntry(drop=True)
    if isinstance(value, str):
        return MapEntry(_name(value, place))
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: got {value!r}, allowed: a task label, false (drops it), or a table")
    _check_keys(value, _ENTRY_KEYS, place)
    threshold = value.get("threshold")
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and 0 <= threshold <= 1):
        raise ConfigError(f"{place}: threshold: got {threshold!r}, allowed: 0 to 1")
    return MapEntry(
        name=_name(value["name"], f"{place}: name") if "name" in value else None,
        attributes=_table(value, "attributes", place, _fixed),
        attribute_names=_table(value, "attribute_names", place, _name),
        sublabels=_table(value, "sublabels", place, _sublabel),
        threshold=None if threshold is None else float(threshold),
    )


def _sublabel(value: Any, place: str) -> SublabelEntry:
    if value is False:
        return SublabelEntry(None)
    if isinstance(value, dict):
        _check_keys(value, _SUBLABEL_KEYS, place)
        return SublabelEntry(_name(value.get("name"), f"{place}: name"), _table(value, "attribute_names", place, _name))
    return SublabelEntry(_name(value, place))


def _fixed(value: Any, place: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ConfigError(f"{place}: got {value!r}, allowed: a string, a number, true or false")
    return str(value)


def _name(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{place}: got {value!r}, allowed: a name")
    return value


def _string(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{place}: got {value!r}, allowed: a string")
    return value


def _strings(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{place}: got {str(value)[:60]}, allowed: a list of strings")
    return tuple(value)


def _table(tables: Mapping[str, Any], key: str, place: str, read: Callable[[Any, str], Value]) -> Mapping[str, Value]:
    table = tables.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{place}: {key}: got {table!r}, allowed: a table")
    return MappingProxyType({name: read(value, f"{place}: {key}: {name}") for name, value in table.items()})


def _check_keys(table: Mapping[str, Any], allowed: Iterable[str], place: str) -> None:
    for key in table:
        if key not in allowed:
            raise ConfigError(f"{place}: unknown key {key!r}{meant(key, list(allowed))}")

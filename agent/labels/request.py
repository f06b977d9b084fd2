"""A request's mapping of labels, in the form of `--map` or of CVAT's API, as entries of a label map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.domain import Label
from agent.errors import LabelMismatch
from agent.labels.maps import MapEntry, SublabelEntry
from agent.labels.names import NameIndex, meant


def request_entries(request: Mapping[str, Any], model_labels: Sequence[Label]) -> dict[str, MapEntry]:
    """By model label, what the request says of it; LabelMismatch where that names what the model does not have."""
    index, entries = NameIndex(model_labels), dict[str, MapEntry]()
    for name, wish in request.items():
        label, why = index.find(name)
        if label is None:
            hint = f" ({why})" if why.startswith("ambiguous") else meant(name, index.names)
            raise LabelMismatch(f"mapping {name!r}: the model has no such label{hint}")
        if label.name in entries:
            raise LabelMismatch(f"mapping {name!r}: the model's label {label.name!r} is mapped twice")
        entries[label.name] = _entry(wish, label, f"mapping {name!r}")
    return entries


def _entry(wish: Any, label: Label, place: str) -> MapEntry:
    if wish is None:
        return MapEntry(drop=True)
    if isinstance(wish, str):
        return MapEntry(wish)
    attributes = _table(wish, "attributes", place)
    sublabels = _table(wish, "sublabels", place)
    _check_known(attributes, [a.name for a in label.attributes], f"{place}: attributes")
    _check_known(sublabels, [sub.name for sub in label.sublabels], f"{place}: sublabels")
    return MapEntry(
        name=_name(wish.get("name"), place),
        attribute_names={own: _name(theirs, f"{place}: attributes") for own, theirs in attributes.items()},
        sublabels={own: _sublabel(theirs, f"{place}: sublabels: {own}") for own, theirs in sublabels.items()},
        only_listed_attributes="attributes" in wish,
        only_listed_sublabels="sublabels" in wish,
    )


def _sublabel(wish: Any, place: str) -> SublabelEntry:
    if isinstance(wish, str):
        return SublabelEntry(wish)
    attributes = _table(wish, "attributes", place)
    names = {own: _name(theirs, f"{place}: attributes") for own, theirs in attributes.items()}
    return SublabelEntry(_name(wish.get("name"), place), names)


def _table(wish: Any, key: str, place: str) -> Mapping[str, Any]:
    if not isinstance(wish, Mapping):
        raise LabelMismatch(
            f'{place}: got {wish!r}, allowed: a name, or {{"name": …, "attributes": …, "sublabels": …}}'
        )
    table = wish.get(key) or {}
    if not isinstance(table, Mapping):
        raise LabelMismatch(f"{place}: {key}: got {table!r}, allowed: an object of names")
    return table


def _name(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise LabelMismatch(f"{place}: got the name {value!r}, allowed: a name")
    return value


def _check_known(names: Iterable[str], known: Sequence[str], place: str) -> None:
    for name in names:
        if name not in known:
            raise LabelMismatch(f"{place}: the model has no {name!r}{meant(name, known)}")

"""How a model's labels are called in CVAT's menus: by their own names, or as its label map says.

CVAT matches a function's labels to the task's by equal names only, so that a map has to act before they are listed.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.domain import Attribute, Label
from agent.errors import ConfigError
from agent.labels.maps import LabelMap, MapEntry
from agent.labels.names import NameIndex

SCORE_VALUES = ("0", "100", "1")
"""Minimum, maximum and step of the attribute that carries the score: whole percents, as CVAT takes no fractions."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a model's label is called."""

    name: str
    type: str
    attributes: Mapping[str, str]
    """Model attribute -> listed attribute."""
    fixed: Mapping[str, str]
    """Listed attribute -> the value that it always gets."""
    sublabels: Mapping[str, tuple[str, Mapping[str, str]]]
    """Model sublabel -> its listed name, and its attributes as above."""


@dataclass(frozen=True, slots=True)
class Naming:
    """The labels that are listed, and how to get there from the model's."""

    labels: tuple[Label, ...]
    targets: Mapping[str, Target]
    """By the model's label; those without one are dropped."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By the model's label, where the label map says so."""
    score_attribute: str | None = None

    @classmethod
    def of(cls, labels: Sequence[Label], label_map: LabelMap | None, score_attribute: str | None) -> Naming:
        """ConfigError where the label map makes no sense for these labels."""
        entries = _entries(labels, label_map)
        targets: dict[str, Target] = {}
        listed: dict[str, Label] = {}
        for label in labels:
            entry = entries[label.name]
            if entry.drop:
                continue
            target = _target(label, entry)
            made = _listed(label, target)
            listed[target.name] = _merged(listed[target.name], made) if target.name in listed else made
            targets[label.name] = target
        if score_attribute:
            listed = {name: _with_score(label, score_attribute) for name, label in listed.items()}
        thresholds = {name: e.threshold for name, e in entries.items() if e.threshold is not None and name in targets}
        return cls(tuple(listed.values()), targets, thresholds, score_attribute or None)

    def spec(self) -> list[dict[str, Any]]:
        """The labels as a function object tells them."""
        return [_spec(label) for label in self.labels]


class _MapName:
    def __init__(self, name: str) -> None:
        self.name = name


def _entries(labels: Sequence[Label], label_map: LabelMap | None) -> dict[str, MapEntry]:
    if label_map is None:
        return {label.name: MapEntry() for label in labels}
    if not label_map.labels:
        raise ConfigError(f"label map {label_map.name}: it has no [labels] that say what becomes of its names")
    names = NameIndex([_MapName(name) for name in label_map.labels])
    found = {label.name: names.find(label.name)[0] for label in labels}
    return {name: label_map.labels[hit.name] if hit else MapEntry() for name, hit in found.items()}


def _target(label: Label, entry: MapEntry) -> Target:
    attributes = {a.name: entry.attribute_names.get(a.name, a.name) for a in label.attributes}
    sublabels: dict[str, tuple[str, Mapping[str, str]]] = {}
    for sub in label.sublabels:
        wish = entry.sublabels.get(sub.name)
        if wish is not None and wish.name is None:
            continue
        names = wish.attribute_names if wish is not None else {}
        own = {a.name: names.get(a.name, a.name) for a in sub.attributes}
        sublabels[sub.name] = (sub.name if wish is None or wish.name is None else wish.name, own)
    name = entry.name or label.name
    if label.type == "skeleton" and not sublabels:
        raise ConfigError(f"label {name!r}: it is a skeleton without points")
    return Target(name, label.type, attributes, entry.attributes, sublabels)


def _listed(label: Label, target: Target) -> Label:
    attributes = _renamed(label.attributes, target.attributes)
    attributes += [Attribute(name, "text") for name in target.fixed if name not in {a.name for a in attributes}]
    sublabels: dict[str, Label] = {}
    for sub in label.sublabels:
        if sub.name in target.sublabels:
            name, names = target.sublabels[sub.name]
            sublabels.setdefault(name, Label(name, "points", tuple(_renamed(sub.attributes, names))))
    return Label(target.name, label.type, tuple(attributes), tuple(sublabels.values()))


def _renamed(attributes: Sequence[Attribute], names: Mapping[str, str]) -> list[Attribute]:
    found: dict[str, Attribute] = {}
    for attribute in attributes:
        name = names[attribute.name]
        found.setdefault(name, replace(attribute, name=name))
    return list(found.values())


def _merged(one: Label, other: Label) -> Label:
    """Two labels of the model that are called the same."""
    if "skeleton" in (one.type, other.type) and one.type != other.type:
        raise ConfigError(f"label {one.name!r}: a {one.type} and a {other.type} cannot be called the same")
    attributes = {a.name: a for a in (*other.attributes, *one.attributes)}
    sublabels = {s.name: s for s in (*other.sublabels, *one.sublabels)}
    kind = one.type if one.type == other.type else "any"
    return Label(one.name, kind, tuple(attributes.values()), tuple(sublabels.values()))


def _with_score(label: Label, name: str) -> Label:
    if name in {attribute.name for attribute in label.attributes}:
        return label  # the model has one of its own
    return replace(label, attributes=(*label.attributes, Attribute(name, "number", SCORE_VALUES)))


def _spec(label: Label) -> dict[str, Any]:
    made: dict[str, Any] = {"name": label.name, "type": label.type, "attributes": _attributes(label.attributes)}
    if label.type == "skeleton":
        made["sublabels"] = [
            {"name": sub.name, "type": "points", "attributes": _attributes(sub.attributes)} for sub in label.sublabels
        ]
        made["svg"] = drawing([sub.name for sub in label.sublabels])
    return made


def _attributes(attributes: Sequence[Attribute]) -> list[dict[str, Any]]:
    return [{"name": a.name, "input_type": a.input_type, "values": list(a.values)} for a in attributes]


def drawing(names: Sequence[str]) -> str:
    """An SVG with a node for each point of a skeleton. CVAT wants one; the places in it mean nothing to annotations."""
    nodes = []
    for number, name in enumerate(names, 1):
        turn = 2 * math.pi * (number - 1) / len(names)
        x, y = 50 + 40 * math.sin(turn), 50 - 40 * math.cos(turn)
        nodes.append(
            f'<circle r="1.5" cx="{x:.2f}" cy="{y:.2f}" data-type="element node" data-element-id="{number}"'
            f' data-node-id="{number}" data-label-name="{html.escape(name, quote=True)}"></circle>'
        )
    return "".join(nodes)

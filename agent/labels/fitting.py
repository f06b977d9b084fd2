"""A model's label in the place of a task's: which attributes and points go with it, or why it cannot go there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from agent.domain import Attribute, Label, TaskAttribute, TaskLabel
from agent.labels.attribute_values import valid_value
from agent.labels.maps import MapEntry
from agent.labels.match import DroppedLabel, LabelTarget, SublabelTarget, compatible
from agent.labels.names import NameIndex, meant, some

Wish = TypeVar("Wish")


def fit(label: Label, target: TaskLabel, entry: MapEntry, how: str) -> LabelTarget | DroppedLabel:
    """The target with attributes and sublabels, or why the label cannot go there."""
    if not compatible(label.type, target.type):
        types = f"the model gives {label.name!r} as {label.type}, the task takes {target.name!r} as {target.type}"
        return DroppedLabel(label.name, types, types=(label.type, target.type))
    try:
        fixed = _fixed(target, entry.attributes)
        attributes, notes = _attributes(
            label.attributes, target.attributes, entry.attribute_names, entry.only_listed_attributes
        )
        sublabels, more = _sublabels(label, target, entry)
    except _NoPlace as problem:
        points = isinstance(problem, _NoCommonPoint)
        return DroppedLabel(label.name, f"{how}, {target.name!r}: {problem}", points=points)
    notes += more
    return LabelTarget(target, how, attributes, fixed, sublabels, entry.threshold, label.type, tuple(notes))


class _NoPlace(Exception):
    """Something that a map or a mapping names does not exist."""


class _NoCommonPoint(_NoPlace):
    """Two skeletons have no point in common."""


def _by_own_names(wishes: Mapping[str, Wish], own: Sequence[Attribute | Label]) -> dict[str, Wish]:
    """What a map or a mapping says of a label's attributes or points, by the model's spelling of their names."""
    index, found = NameIndex(own), dict[str, Wish]()
    for name, wish in wishes.items():
        if (thing := index.find(name)[0]) is None:
            continue
        if thing.name in found:
            raise _NoPlace(f"the model's {thing.name!r} is named twice")
        found[thing.name] = wish
    return found


def _fixed(target: TaskLabel, wishes: Mapping[str, str]) -> dict[int, str]:
    index, values = NameIndex(target.attributes), {}
    for name, value in wishes.items():
        attribute, _ = index.find(name)
        if attribute is None:
            raise _NoPlace(f"it has no attribute {name!r}{meant(name, index.names)}")
        valid, problem = valid_value(attribute, value)
        if valid is None:
            raise _NoPlace(f"attribute {attribute.name!r}: {problem}")
        values[attribute.id] = valid
    return values


def _attributes(
    own: Sequence[Attribute], theirs: Sequence[TaskAttribute], wishes: Mapping[str, str], only_listed: bool
) -> tuple[dict[str, TaskAttribute], list[str]]:
    """Model attribute -> task attribute, and notes about those without a place."""
    index, found, notes = NameIndex(theirs), dict[str, TaskAttribute](), []
    wishes = _by_own_names(wishes, own)
    for attribute in sorted(own, key=lambda one: one.name not in wishes):  # a name never takes what is asked for
        if only_listed and attribute.name not in wishes:
            continue
        wish = wishes.get(attribute.name, attribute.name)
        match, _ = index.find(wish)
        if match is not None and match not in found.values():
            found[attribute.name] = match
        elif attribute.name in wishes:
            why = "two attributes become" if match is not None else "it has no attribute"
            raise _NoPlace(f"{why} {wish!r}{'' if match is not None else meant(wish, index.names)}")
        else:
            notes.append(f"attribute {attribute.name} has no place")
    return found, notes


def _sublabels(label: Label, target: TaskLabel, entry: MapEntry) -> tuple[dict[str, SublabelTarget], list[str]]:
    """Model sublabel -> what it becomes, each task sublabel at most once, and notes."""
    index, found, lost = NameIndex(target.sublabels), dict[str, SublabelTarget](), []
    wishes = _by_own_names(entry.sublabels, label.sublabels)
    for sub in sorted(label.sublabels, key=lambda one: one.name not in wishes):
        wish = wishes.get(sub.name)
        if (wish is None and entry.only_listed_sublabels) or (wish is not None and wish.name is None):
            continue
        name = wish.name if wish is not None and wish.name is not None else sub.name
        match, _ = index.find(name)
        taken = match is not None and any(match == other.label for other in found.values())
        if match is None or taken:
            if wish is not None:
                why = f"two points become {name!r}" if taken else f"it has no point {name!r}{meant(name, index.names)}"
                raise _NoPlace(why)
            lost.append(sub.name)
            continue
        names = wish.attribute_names if wish is not None else {}
        attributes, _ = _attributes(sub.attributes, match.attributes, names, False)
        found[sub.name] = SublabelTarget(match, attributes)
    if target.type == "skeleton" and not found:
        own, theirs = (some([one.name for one in side], 5) or "none" for side in (label.sublabels, target.sublabels))
        raise _NoCommonPoint(f"none of the model's points ({own}) has a place among its own ({theirs})")
    return found, [f"no place for {', '.join(lost)}"] if lost else []

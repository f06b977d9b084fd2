"""The label match: which task label, attributes and sublabels each of a model's labels becomes.

Precedence for each model label: the request's mapping, the label map, the same name. Names are the same when they are
equal; else when they are equal without case, spaces, `-` and `_`; else when they differ by a plural only; the last two
only if there is one candidate. Labels of incompatible types do not match (CVAT's rule: the same type, one of them
"any", or mask and polygon).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.domain import Label, TaskAttribute, TaskLabel
from agent.errors import LabelMismatch
from agent.label_map import LabelMap, MapEntry, known_label_maps, load_label_map

Named = TypeVar("Named", TaskLabel, TaskAttribute)


@dataclass(frozen=True, slots=True)
class LabelTarget:
    """What a model label becomes."""

    label: TaskLabel
    how: str
    """Why: "same name", "label map coco-to-voc", "--map", …"""
    attributes: Mapping[str, TaskAttribute] = field(default_factory=dict)
    """Model attribute -> task attribute."""
    fixed: Mapping[int, str] = field(default_factory=dict)
    """Task attribute id -> the value that it always gets."""
    sublabels: Mapping[str, TaskLabel] = field(default_factory=dict)
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class DroppedLabel:
    """A model label that has no place in the task."""

    name: str
    reason: str
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The scores that are enough: the request's, else the label's in the map, else the model's."""

    request: float | None
    per_label: Mapping[str, float]
    default: float

    def of(self, label: str) -> float:
        """For a model label."""
        return self.request if self.request is not None else self.per_label.get(label, self.default)

    @property
    def lowest(self) -> float:
        """What a model need not go below."""
        return self.request if self.request is not None else min([self.default, *self.per_label.values()])


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """The finished mapping for one model and one task."""

    targets: Mapping[str, LabelTarget]
    dropped: tuple[DroppedLabel, ...]
    unused: tuple[TaskLabel, ...]
    """Task labels that no model label becomes."""

    def thresholds(self, request: float | None, default: float) -> Thresholds:
        per_label = {name: t.threshold for name, t in self.targets.items() if t.threshold is not None}
        return Thresholds(request, per_label, default)


def match_labels(
    model_labels: Sequence[Label],
    task_labels: Sequence[TaskLabel],
    *,
    request: Mapping[str, Any] | None = None,
    label_map: LabelMap | None = None,
) -> LabelMatch:
    """The match; LabelMismatch when an explicit mapping is impossible or when nothing matches at all.

    `request` maps model labels to a task label's name, to None (drop), or to CVAT's form
    {"name": …, "attributes": {model: task}, "sublabels": {model: {"name": …}}}.
    """
    _check_request(request or {}, model_labels, task_labels)
    targets, dropped = {}, []
    for label in model_labels:
        found = _match(label, task_labels, request or {}, label_map)
        if isinstance(found, LabelTarget):
            targets[label.name] = found
        else:
            dropped.append(found)
    if not targets:
        raise LabelMismatch(_nothing(model_labels, task_labels, dropped))
    used = {target.label.id for target in targets.values()}
    return LabelMatch(targets, tuple(dropped), tuple(label for label in task_labels if label.id not in used))


def _match(
    label: Label, task_labels: Sequence[TaskLabel], request: Mapping[str, Any], label_map: LabelMap | None
) -> LabelTarget | DroppedLabel:
    if label.name in request:
        return _requested(label, request[label.name], task_labels)
    entry = _entry_for(label.name, label_map) if label_map else None
    if entry is not None and label_map is not None:
        return _mapped(label, entry, task_labels, f"label map {label_map.name}")
    return _same_name(label, task_labels)


# ------------------------------------------------------------- three ways to match


def _requested(label: Label, wish: Any, task_labels: Sequence[TaskLabel]) -> LabelTarget | DroppedLabel:
    if wish is None:
        return DroppedLabel(label.name, "dropped by the request")
    wish = {"name": wish} if isinstance(wish, str) else wish
    target = next(task for task in task_labels if task.name == wish["name"])
    if not compatible(label.type, target.type):
        raise LabelMismatch(f"mapping {label.name!r} -> {target.name!r}: {_types(label, target)}")
    attributes = _attributes(label, target, wish.get("attributes"))
    wishes = wish.get("sublabels")
    wanted = {sub: w["name"] if isinstance(w, dict) else w for sub, w in wishes.items()} if wishes else None
    return LabelTarget(target, "mapping", attributes, {}, _sublabels(label, target, wanted))


def _mapped(label: Label, entry: MapEntry, task_labels: Sequence[TaskLabel], how: str) -> LabelTarget | DroppedLabel:
    if entry.name is None:
        return DroppedLabel(label.name, f"dropped by the {how}")
    target, why = find_name(entry.name, task_labels)
    if target is None:
        reason = f"the {how} says {entry.name!r}: {why}"
        return DroppedLabel(label.name, reason, _suggest(entry.name, task_labels))
    if not compatible(label.type, target.type):
        return DroppedLabel(label.name, _types(label, target))
    fixed = {}
    for name, value in entry.attributes.items():
        attribute, _ = find_name(name, target.attributes)
        if attribute is None:
            return DroppedLabel(label.name, f"the {how} sets {name!r}, which {target.name!r} does not have")
        valid, problem = valid_value(attribute, value)
        if valid is None:
            return DroppedLabel(label.name, f"the {how} sets {name!r}: {problem}")
        fixed[attribute.id] = valid
    sublabels = _sublabels(label, target, entry.sublabels or None)
    return LabelTarget(target, how, _attributes(label, target, None), fixed, sublabels, entry.threshold)


def _same_name(label: Label, task_labels: Sequence[TaskLabel]) -> LabelTarget | DroppedLabel:
    target, how = find_name(label.name, task_labels)
    if target is None:
        return DroppedLabel(label.name, how, _suggest(label.name, task_labels))
    if not compatible(label.type, target.type):
        return DroppedLabel(label.name, _types(label, target))
    return LabelTarget(target, how, _attributes(label, target, None), {}, _sublabels(label, target, None))


# ----------------------------------------------------------------------- names


def find_name(name: str, candidates: Sequence[Named]) -> tuple[Named | None, str]:
    """(the one candidate of that name, how) or (None, why not)."""
    ways: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("same name", str),
        ("same name but for case and separators", fold),
        ("same name but for the plural", lambda text: singular(fold(text))),
    )
    for how, form in ways:
        found = [candidate for candidate in candidates if form(candidate.name) == form(name)]
        if len(found) == 1:
            return found[0], how
        if found:
            return None, "ambiguous: " + " / ".join(candidate.name for candidate in found)
    return None, "no label of that name"


def fold(name: str) -> str:
    """A name without case, spaces, `-` and `_`."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def singular(name: str) -> str:
    """An English noun's singular, well enough to compare two names that were folded."""
    irregular = {"people": "person", "persons": "person", "men": "man", "women": "woman", "children": "child",
                 "mice": "mouse", "knives": "knife", "sheep": "sheep", "skis": "skis", "bus": "bus"}  # fmt: skip
    if name in irregular:
        return irregular[name]
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("uses", "us")):
        if name.endswith(ending) and len(name) > len(ending) + 1:
            return name[: -len(ending)] + instead
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us")) and len(name) > 3 else name


def _entry_for(name: str, label_map: LabelMap) -> MapEntry | None:
    if name in label_map.labels:
        return label_map.labels[name]
    folded = [entry for label, entry in label_map.labels.items() if fold(label) == fold(name)]
    return folded[0] if len(folded) == 1 else None


# ----------------------------------------------------- types, attributes, sublabels


def compatible(model_type: str, task_type: str) -> bool:
    """CVAT's rule: the same type, one side "any" (but not for skeletons), or mask and polygon."""
    if model_type == task_type:
        return True
    if "any" in (model_type, task_type):
        return "skeleton" not in (model_type, task_type)
    return {model_type, task_type} == {"mask", "polygon"}


def _types(label: Label, target: TaskLabel) -> str:
    return f"the model's {label.name!r} has type {label.type!r}, the task's {target.name!r} has type {target.type!r}"


def _attributes(label: Label, target: TaskLabel, wishes: Mapping[str, str] | None) -> dict[str, TaskAttribute]:
    found = {}
    for attribute in label.attributes:
        wish = attribute.name if wishes is None else wishes.get(attribute.name)
        if wish is None:
            continue
        match, _ = find_name(wish, target.attributes)
        if match is not None:
            found[attribute.name] = match
        elif wishes is not None:
            raise LabelMismatch(f"mapping of {label.name!r}: {target.name!r} has no attribute {wish!r}")
    return found


def _sublabels(label: Label, target: TaskLabel, wishes: Mapping[str, str | None] | None) -> dict[str, TaskLabel]:
    found = {}
    for sub in label.sublabels:
        wish = sub.name if wishes is None else wishes.get(sub.name)
        match = find_name(wish, target.sublabels)[0] if wish else None
        if match is not None:
            found[sub.name] = match
    return found


def valid_value(attribute: TaskAttribute, value: str) -> tuple[str | None, str]:
    """(the value as the task's attribute takes it, "") or (None, why not)."""
    kind, values = attribute.input_type, attribute.values
    if kind == "text":
        return value, ""
    if kind == "checkbox":
        folded = value.strip().lower()
        return (folded, "") if folded in ("true", "false") else (None, f"{value!r}, allowed: true or false")
    if kind in ("select", "radio"):
        found = [v for v in values if v == value] or [v for v in values if fold(v) == fold(value)]
        return (found[0], "") if len(found) == 1 else (None, f"{value!r}, allowed: {', '.join(values)}")
    try:
        number, (low, high, step) = float(value), (float(v) for v in values[:3])
    except ValueError:
        return None, f"{value!r}, allowed: a number"
    if not low <= number <= high or (step and abs((number - low) / step - round((number - low) / step)) > 1e-6):
        return None, f"{value!r}, allowed: {values[0]} to {values[1]} in steps of {values[2]}"
    return f"{number:g}", ""


# -------------------------------------------------------------- errors and advice


def _check_request(request: Mapping[str, Any], model_labels: Sequence[Label], task_labels: Sequence[TaskLabel]) -> None:
    names, tasks = [label.name for label in model_labels], [label.name for label in task_labels]
    for name, wish in request.items():
        if name not in names:
            raise LabelMismatch(f"mapping {name!r}: the model has no such label{_near(name, names)}")
        target = wish.get("name") if isinstance(wish, dict) else wish
        if wish is not None and target not in tasks:
            raise LabelMismatch(
                f"mapping {name!r} -> {target!r}: the task has no such label{_near(str(target), tasks)}"
            )


def _suggest(name: str, task_labels: Sequence[TaskLabel]) -> tuple[str, ...]:
    """Task labels that may be meant: by spelling, or because a vocabulary knows them as other names."""
    folded = {fold(label.name): label.name for label in task_labels}
    near = [folded[key] for key in difflib.get_close_matches(fold(name), folded, n=2, cutoff=0.7)]
    others = [folded[fold(other)] for other in synonyms_of(name) if fold(other) in folded]
    return tuple(dict.fromkeys([*others, *near]))


def synonyms_of(name: str) -> list[str]:
    """Other names that our vocabularies know for a label."""
    found = []
    for label_map in (load_label_map(known) for known in known_label_maps()):
        for label, others in label_map.synonyms.items():
            group = [label, *others]
            if fold(name) in map(fold, group):
                found += [other for other in group if fold(other) != fold(name)]
    return found


def _nothing(model_labels: Sequence[Label], task_labels: Sequence[TaskLabel], dropped: Sequence[DroppedLabel]) -> str:
    def some(names: list[str]) -> str:
        return ", ".join(names[:6]) + (f", … ({len(names)})" if len(names) > 6 else "")

    text = (
        f"labels: none of the model's ({some([label.name for label in model_labels])})"
        f" has a place in the task's ({some([label.name for label in task_labels]) or 'none'})"
    )
    if len(dropped) == 1:
        text += f": {dropped[0].reason}"
    if maps := _helpful_maps(model_labels, task_labels):
        return f"{text}; try --label-map {maps[0]}"
    pairs = [f'--map "{d.name}={d.suggestions[0]}"' for d in dropped if d.suggestions]
    return f"{text}; try {pairs[0]}" if pairs else f'{text}; say which is which by --map "model label=task label"'


def _helpful_maps(model_labels: Sequence[Label], task_labels: Sequence[TaskLabel]) -> list[str]:
    """Our label maps under which something would match."""
    names = []
    for label_map in (load_label_map(known) for known in known_label_maps()):
        entries = [entry for label in model_labels if (entry := _entry_for(label.name, label_map)) and entry.name]
        if any(find_name(entry.name or "", task_labels)[0] is not None for entry in entries):
            names.append(label_map.name)
    return names


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has: {', '.join(list(names)[:10])}"

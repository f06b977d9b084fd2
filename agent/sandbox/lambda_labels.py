"""Which label of a function becomes which label of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.sandbox.exchange import Refusal
from agent.sandbox.records import JSON, Label, Task
from agent.sandbox.state import State


@dataclass
class LabelMatch:
    """The task's label for a label of the function, its attributes by the function's names, its sublabels too."""

    label: Label
    attributes: dict[str, JSON] = field(default_factory=dict)
    sublabels: dict[str, LabelMatch] = field(default_factory=dict)

    def attribute_values(self, sent: list[JSON]) -> list[JSON]:
        """The attributes of a reply; unknown ones and values outside their list are dropped."""
        found = []
        for item in sent:
            spec = self.attributes.get(item["name"])
            if spec is not None and _fits(spec, item["value"]):
                found.append({"spec_id": spec["id"], "value": item["value"]})
        return found


def _fits(spec: JSON, value: Any) -> bool:
    match spec["input_type"]:
        case "select" | "radio":
            return value in spec["values"]
        case "checkbox":
            return value in ("true", "false")
        case "number":
            try:
                low, high, step = (int(number) for number in spec["values"])
                return low <= int(value) <= high and (int(value) - low) % step == 0
            except (ValueError, TypeError):
                return False
    return isinstance(value, str)


def _compatible(model: str, label: Label) -> bool:
    kinds = {model, label.type}
    return model == label.type or kinds == {"mask", "polygon"} or ("any" in kinds and "skeleton" not in kinds)


def match_labels(state: State, task: Task, model_labels: list[JSON], mapping: JSON | None) -> dict[str, LabelMatch]:
    """The matches by the function's label names: as asked for, or by equal names where nothing was."""
    task_labels = {label.name: label for label in state.labels_of(task)}
    if mapping is None:
        same = [label for label in model_labels if label["name"] in task_labels]
        kept = [label for label in same if _compatible(label["type"], task_labels[label["name"]])]
        return {label["name"]: _by_name(state, label, task_labels[label["name"]]) for label in kept}
    known = {label["name"]: label for label in model_labels}
    return {name: _by_wish(state, known, name, wish, task_labels) for name, wish in mapping.items()}


def _subs(state: State, label: Label) -> dict[str, Label]:
    return {sub.name: sub for sub in state.labels.where(parent_id=label.id)}


def _by_name(state: State, model: JSON, label: Label) -> LabelMatch:
    specs = {spec["name"]: spec for spec in label.attributes}
    attributes = {a["name"]: specs[a["name"]] for a in model.get("attributes", []) if a["name"] in specs}
    subs = _subs(state, label)
    inner = {s["name"]: _by_name(state, s, subs[s["name"]]) for s in model.get("sublabels", []) if s["name"] in subs}
    return LabelMatch(label, attributes, inner)


def _by_wish(state: State, known: dict[str, JSON], name: str, wish: JSON, task_labels: dict[str, Label]) -> LabelMatch:
    if name not in known:
        raise Refusal(400, f'Invalid mapping. Unknown model label "{name}"')
    if wish["name"] not in task_labels:
        raise Refusal(400, f'Invalid mapping. Unknown db label "{wish["name"]}"')
    model, label = known[name], task_labels[wish["name"]]
    if not _compatible(model["type"], label):
        text = f"Invalid mapping. Model label '{name}' and db label '{label.name}' are not compatible"
        raise Refusal(400, text)
    specs = {spec["name"]: spec for spec in label.attributes}
    attributes = {}
    for model_name, task_name in (wish.get("attributes") or {}).items():
        if model_name not in {a["name"] for a in model.get("attributes", [])} or task_name not in specs:
            raise Refusal(400, f'Invalid mapping. Unknown attribute "{model_name}" or "{task_name}"')
        attributes[model_name] = specs[task_name]
    model_subs, subs = {s["name"]: s for s in model.get("sublabels", [])}, _subs(state, label)
    if wish.get("sublabels") is None:
        inner = {n: _by_name(state, s, subs[n]) for n, s in model_subs.items() if n in subs}
    else:
        inner = {n: _by_wish(state, model_subs, n, w, subs) for n, w in wish["sublabels"].items()}
    return LabelMatch(label, attributes, inner)


def default_mapping(state: State, task: Task, model_labels: list[JSON]) -> JSON:
    """The mapping by equal names, in the form of a request."""
    return {name: _told(name_match) for name, name_match in match_labels(state, task, model_labels, None).items()}


def _told(match: LabelMatch) -> JSON:
    told: JSON = {
        "name": match.label.name,
        "attributes": {name: spec["name"] for name, spec in match.attributes.items()},
    }
    if match.label.type == "skeleton":
        told["sublabels"] = {name: _told(sub) for name, sub in match.sublabels.items()}
    return told

"""CVAT's shapes as what a step of a chain looks at, and what came of them as changes to their job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.annotations import OutputOptions, encode
from agent.contract import Attribute, Detection, Label, Rectangle
from agent.cvat.annotations_api import unchanged
from agent.domain import TaskAttribute, TaskLabel
from agent.errors import BadRequest, LabelMismatch
from agent.filters import stored_bounds
from agent.labels.attribute_values import valid_value
from agent.labels.matching import LabelMatch, compatible, find_match
from agent.labels.names import meant, some


def model_label(label: TaskLabel) -> Label:
    """A task's label as if it were a model's."""
    attributes = tuple(Attribute(a.name, a.input_type, a.values) for a in label.attributes)
    return Label(label.name, label.type, attributes, tuple(model_label(sub) for sub in label.sublabels))


@dataclass(slots=True)
class Changes:
    """What is to happen to a job."""

    updated: list[dict[str, Any]] = field(default_factory=list)
    """Shapes with the ids that they have."""
    replaced: list[tuple[int, list[dict[str, Any]]]] = field(default_factory=list)
    """Ids of shapes, and those that take their place."""
    tracks: list[dict[str, Any]] = field(default_factory=list)
    """Those that are updated, with the ids that they have."""
    left: Counter[str] = field(default_factory=Counter)
    """Shapes and tracks that stay as they were, by reason."""

    def __bool__(self) -> bool:
        return bool(self.updated or self.replaced or self.tracks)

    @property
    def created(self) -> list[dict[str, Any]]:
        return [shape for _, shapes in self.replaced for shape in shapes]

    def leave_out_changed(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Leaves what somebody has changed or removed in the job, since it was looked at, as it is."""
        count = self._count()
        shapes, tracks = (unchanged(before.get(kind, ()), now.get(kind, ())) for kind in ("shapes", "tracks"))
        self.updated = [shape for shape in self.updated if shape["id"] in shapes]
        self.replaced = [pair for pair in self.replaced if pair[0] in shapes]
        self.tracks = [track for track in self.tracks if track["id"] in tracks]
        if gone := count - self._count():
            self.left["somebody changed it meanwhile"] += gone

    def _count(self) -> int:
        return len(self.updated) + len(self.replaced) + len(self.tracks)


class ShapeBook:
    """The labels of a task, for going from its shapes to detections and back.

    `after` are the labels as the step leaves them; LabelMismatch where none of them has a place in the task. `into`
    is the label of what takes a shape's place, where that is another one.
    """

    def __init__(self, labels: Sequence[TaskLabel], after: Sequence[Label], replaces: bool, into: str = "") -> None:
        self._into = into
        self._names = {label.id: label for label in labels}
        self._ids = {label.name: label for label in labels}
        self._replaces = replaces
        self._match: LabelMatch | None = _places_of(after, labels) if replaces else None

    def detection(self, shape: Mapping[str, Any]) -> Detection | None:
        """A rectangle, or the upright one around another shape, under its label; None without a place or label here."""
        box, label = stored_bounds(shape), self._names.get(shape["label_id"])
        if box is None or label is None or box[2] <= box[0] or box[3] <= box[1]:
            return None
        turn = float(shape.get("rotation") or 0) if shape["type"] == "rectangle" else 0.0
        left, top, right, bottom = (float(side) for side in (shape["points"] if turn else box))
        return Detection(label.name, Rectangle(left, top, right, bottom, turn), shape.get("score"))

    def note(
        self, changes: Changes, shape: Mapping[str, Any], before: Detection, after: Detection, size: tuple[int, int]
    ) -> None:
        """Adds what has become of a shape, on a frame of `size`, to the changes of its job."""
        if after is before:
            changes.left["nothing was found"] += 1
            return
        if self._replaces and after.shape is not before.shape:
            self._replace(changes, shape, after, size)
            return
        label = self.label(after.label, shape["label_id"], shape["type"], changes)
        if label is None:
            return
        said = {name: self.value(label, name, value, changes) for name, value in after.attributes.items()}
        old = shape if label.id == shape["label_id"] else {**shape, "label_id": label.id, "attributes": []}
        new = with_values(old, {a.id: known for a in label.attributes if (known := said.get(a.name)) is not None})
        if new != shape:
            changes.updated.append(new)

    def label(self, name: str, now: int, kind: str, changes: Changes) -> TaskLabel | None:
        """The label that something of that kind, under the label with the id `now`, is to have; None where it may not.

        What keeps it from that is noted.
        """
        label = self._ids.get(name)
        if label is None:
            changes.left[f"the task has no label {name!r}"] += 1
        elif label.id == now:
            return label
        elif kind == "skeleton":
            changes.left["the points of a skeleton are its label's, which it keeps"] += 1
        elif not compatible(kind, label.type):
            changes.left[f"label {name!r} takes no {kind}"] += 1
        else:
            return label
        return None

    def value(self, label: TaskLabel, name: str, value: str, changes: Changes) -> str | None:
        """The value as the label's attribute of that name takes it; None, and noted why, where it does not."""
        attribute = attribute_of(label, name)
        if attribute is None:
            changes.left[f"label {label.name!r} has no attribute {name!r}"] += 1
            return None
        known, why = valid_value(attribute, value)
        if known is None:
            changes.left[f"{name}: {why}"] += 1
        return known

    def _replace(self, changes: Changes, shape: Mapping[str, Any], after: Detection, size: tuple[int, int]) -> None:
        assert self._match is not None
        after = replace(after, label=self._into or after.label)
        if after.label not in self._match.targets:
            kind = after.shape.type if after.shape is not None else "tag"
            changes.left[f"label {after.label!r} takes no {kind}"] += 1
            return
        made = encode([after], self._match, shape["frame"], size, OutputOptions())
        if not made.shapes:
            changes.left.update(made.left_out or {"no place in the task": 1})
            return
        kept = {key: shape[key] for key in ("occluded", "z_order", "group") if shape.get(key)}
        own = {} if any(item["label_id"] != shape["label_id"] for item in made.shapes) else shape.get("attributes", [])
        new = [{**item, **kept, "attributes": item["attributes"] or list(own)} for item in made.shapes]
        changes.replaced.append((shape["id"], new))


def _places_of(after: Sequence[Label], labels: Sequence[TaskLabel]) -> LabelMatch:
    match = find_match(after, labels)
    if not match.targets:
        raise LabelMismatch(f"no place for what the model makes: {'; '.join(one.reason for one in match.dropped[:3])}")
    return match


def with_values(item: Mapping[str, Any], values: Mapping[int, str]) -> dict[str, Any]:
    """A shape, track or keyframe with these values of its attributes, by their ids."""
    known = {a["spec_id"]: a["value"] for a in item.get("attributes", ())} | dict(values)
    return {**item, "attributes": [{"spec_id": spec, "value": value} for spec, value in known.items()]}


def attribute_of(label: TaskLabel, name: str) -> TaskAttribute | None:
    return next((attribute for attribute in label.attributes if attribute.name == name), None)


def check_attribute(labels: Sequence[TaskLabel], wanted: Sequence[str], name: str, place: str) -> None:
    """BadRequest where none of the labels that are looked at has the attribute."""
    looked_at = [label for label in labels if not wanted or label.name in wanted]
    if not any(attribute_of(label, name) for label in looked_at):
        names = ", ".join(sorted({a.name for label in looked_at for a in label.attributes})) or "none"
        raise BadRequest(f"{place}: its labels have no attribute {name!r}, allowed: {names}")


def check_values(labels: Sequence[TaskLabel], name: str, values: Sequence[str], place: str) -> None:
    """BadRequest where the attribute of none of the labels takes any of the values that the model may give."""
    taken = [found for label in labels if (found := attribute_of(label, name)) is not None]
    if taken and not any(valid_value(attribute, value)[0] is not None for attribute in taken for value in values):
        kind, allowed = taken[0].input_type, some(taken[0].values)
        raise BadRequest(f"{place}: attribute {name!r} ({kind}) takes none of {some(values)}, allowed: {allowed}")


def check_room(labels: Sequence[TaskLabel], kind: str, place: str) -> None:
    """BadRequest where none of the labels that are looked at can hold a shape of that kind."""
    if not any(compatible(kind, label.type) for label in labels):
        types = ", ".join(f"{label.name!r} takes {label.type}" for label in labels[:5])
        raise BadRequest(
            f"{place}: no place for what --gives {kind} makes: {types}, allowed: a label of the type {_takers(kind)};"
            " --into names another label of the task"
        )


def check_into(labels: Sequence[TaskLabel], name: str, kind: str, place: str) -> None:
    """LabelMismatch where the task has no label of that name, or one that cannot hold a shape of that kind."""
    label = next((label for label in labels if label.name == name), None)
    if label is None:
        raise LabelMismatch(f"{place}: --into: it has no label {name!r}{meant(name, [one.name for one in labels])}")
    if not compatible(kind, label.type):
        raise LabelMismatch(
            f"{place}: --into: {name!r} takes {label.type}, allowed: a label of the type {_takers(kind)}"
        )


def _takers(kind: str) -> str:
    """The types of labels that can hold a shape of that kind."""
    return kind if kind == "skeleton" else f"{kind}, polygon or any"

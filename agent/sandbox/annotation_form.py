"""The form of annotations: what a client may send, and the same with all fields in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from agent.sandbox.exchange import Refusal
from agent.sandbox.records import JSON, Label, Task
from agent.sandbox.state import State

SOURCES = ("auto", "semi-auto", "manual", "file", "consensus")
KINDS = ("tags", "shapes", "tracks")
_POINTS: dict[str, Callable[[int], bool]] = {
    "rectangle": lambda n: n == 4,
    "ellipse": lambda n: n == 4,
    "cuboid": lambda n: n == 16,
    "polygon": lambda n: n >= 6 and n % 2 == 0,
    "polyline": lambda n: n >= 4 and n % 2 == 0,
    "points": lambda n: n >= 2 and n % 2 == 0,
    "mask": lambda n: n >= 5,
    "skeleton": lambda n: n == 0,
}


class TaskLabels:
    """The labels of a task, by id, with the ids of their attributes."""

    def __init__(self, state: State, task: Task) -> None:
        where = {"project_id": task.project_id} if task.project_id is not None else {"task_id": task.id}
        self.by_id: dict[int, Label] = {label.id: label for label in state.labels.where(**where)}
        self._specs = {
            label.id: {a["id"]: bool(a["mutable"]) for a in label.attributes} for label in self.by_id.values()
        }

    def check(self, item: JSON) -> None:
        """Refuses labels and attributes that the task does not have, and a track's in the wrong place.

        What can change on the way stands at a track's keyframes, all else at the track.
        """
        label_id = item["label_id"]
        if label_id not in self.by_id:
            raise Refusal(400, [f"label_id `{label_id}` is invalid"])
        specs = self._specs[label_id]
        outer = [(a["spec_id"], (False,) if "shapes" in item else (False, True)) for a in item["attributes"]]
        inner = [(a["spec_id"], (True,)) for shape in item.get("shapes", []) for a in shape["attributes"]]
        for spec_id, allowed in [*outer, *inner]:
            if specs.get(spec_id) not in allowed:
                raise Refusal(400, [f"spec_id `{spec_id}` is invalid"])
        for element in item.get("elements", []):
            self.check(element)

    def defaults(self, label_id: int, mutable: bool | None = None) -> list[JSON]:
        """The default attribute values of a label; only the mutable ones, or the others, if told so."""
        label = self.by_id.get(label_id)
        found = [a for a in label.attributes if mutable in (None, a["mutable"])] if label else []
        return [{"spec_id": a["id"], "value": a["default_value"]} for a in found]


def checked(sent: JSON, labels: TaskLabels) -> dict[str, list[JSON]]:
    """Tags, shapes and tracks of a body with all their fields, or a refusal that names every wrong item."""
    forms: dict[str, Callable[[JSON, JSON], JSON]] = {"tags": _tag, "shapes": _shape, "tracks": _track}
    found: dict[str, list[JSON]] = {}
    problems: JSON = {}
    for kind in KINDS:
        items = sent.get(kind) or []
        if not isinstance(items, list):
            raise Refusal(400, {kind: [f'Expected a list of items but got type "{type(items).__name__}".']})
        wrong: list[JSON] = []
        found[kind] = []
        for item in items:
            bad: JSON = {}
            found[kind].append(forms[kind](item if isinstance(item, dict) else {}, bad))
            wrong.append(bad)
        if any(wrong):
            problems[kind] = wrong
    if problems:
        raise Refusal(400, problems)
    for kind in KINDS:
        for item in found[kind]:
            labels.check(item)
    return found


def _whole(item: JSON, name: str, bad: JSON, default: int | None = None, least: int | None = None) -> int:
    value = item.get(name, default)
    if value is None:
        bad[name] = ["This field is required." if name not in item else "This field may not be null."]
    elif isinstance(value, bool) or not isinstance(value, int):
        bad[name] = ["A valid integer is required."]
    elif least is not None and value < least:
        bad[name] = [f"Ensure this value is greater than or equal to {least}."]
    else:
        return value
    return 0


def _real(item: JSON, name: str, bad: JSON, default: float) -> float:
    value = item.get(name, default)
    if value is None:
        bad[name] = ["This field may not be null."]
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        bad[name] = ["A valid number is required."]
    else:
        return float(value)
    return 0.0


def _source(item: JSON, bad: JSON) -> str:
    source = item.get("source", "manual")
    if source not in SOURCES:
        bad["source"] = [f"must be one of {', '.join(map(repr, SOURCES))}, got {source!r}"]
    return str(source)


def _attributes(item: JSON, bad: JSON) -> list[JSON]:
    sent = item.get("attributes") or []
    if not isinstance(sent, list) or not all(isinstance(a, dict) and "spec_id" in a and "value" in a for a in sent):
        bad["attributes"] = ["A list of objects with spec_id and value is required."]
        return []
    return [{"spec_id": a["spec_id"], "value": str(a["value"])} for a in sent]


def _points(item: JSON, kind: str, bad: JSON) -> list[float]:
    points = item.get("points") or []
    if not isinstance(points, list):
        bad["points"] = [f'Expected a list of items but got type "{type(points).__name__}".']
        return []
    odd = {
        str(at): "[ErrorDetail(string='Value must be a float or an integer', code='invalid')]"
        for at, value in enumerate(points)
        if type(value) not in (int, float) or not math.isfinite(value)
    }
    if odd:
        bad["points"] = odd
    elif not bad and not _POINTS[kind](len(points)):
        # Only where all fields are right by themselves: the order in which CVAT's serializers check.
        bad["points"] = [f"invalid length for shape type '{kind}'"]
    return [] if odd else [float(value) for value in points]


def _type(item: JSON, bad: JSON) -> str:
    kind = item.get("type")
    if kind is None:
        bad["type"] = ["This field is required."]
    elif kind not in _POINTS:
        bad["type"] = [f'"{kind}" is not a valid choice.']
    return str(kind)


def _tag(item: JSON, bad: JSON) -> JSON:
    return {
        "id": item.get("id"),
        "label_id": _whole(item, "label_id", bad),
        "frame": _whole(item, "frame", bad, least=0),
        "group": _whole({"group": item.get("group") or 0}, "group", bad, least=0),
        "source": _source(item, bad),
        "attributes": _attributes(item, bad),
    }


def _look(item: JSON, bad: JSON) -> JSON:
    """What shapes and keyframes of tracks have in common."""
    kind = _type(item, bad)
    z_order, rotation = _whole(item, "z_order", bad, 0), _real(item, "rotation", bad, 0.0)
    return {
        "occluded": bool(item.get("occluded", False)),
        "outside": bool(item.get("outside", False)),
        "z_order": z_order,
        "rotation": rotation,
        "points": _points(item, kind, bad),
    }


def _shape(item: JSON, bad: JSON, *, inner: bool = False) -> JSON:
    tag = _tag(item, bad)
    attributes = tag.pop("attributes")
    score = _real(item, "score", bad, 1.0)
    if not 0 <= score <= 1:
        bad["score"] = ["The score must be in the [0, 1] range."]
    shape = {**tag, "type": item.get("type"), "score": score, **_look(item, bad), "attributes": attributes}
    if not inner:
        elements = [element for element in item.get("elements") or [] if isinstance(element, dict)]
        wrong: list[JSON] = [{} for _ in elements]
        shape["elements"] = [_shape(e, w, inner=True) for e, w in zip(elements, wrong, strict=True)]
        if any(wrong):
            bad["elements"] = wrong
    return shape


def _keyframe(item: JSON, bad: JSON) -> JSON:
    head = {"id": item.get("id"), "type": item.get("type"), "frame": _whole(item, "frame", bad, least=0)}
    return {**head, **_look(item, bad), "attributes": _attributes(item, bad)}


def _track(item: JSON, bad: JSON, *, inner: bool = False) -> JSON:
    track = _tag(item, bad)
    attributes = track.pop("attributes")
    sent: list[Any] = item.get("shapes") or []
    if not sent:
        bad["shapes"] = ["This field is required." if "shapes" not in item else "This list may not be empty."]
    wrong: list[JSON] = [{} for _ in sent]
    shapes = [_keyframe(s if isinstance(s, dict) else {}, w) for s, w in zip(sent, wrong, strict=True)]
    if any(wrong):
        bad["shapes"] = wrong
    track |= {"shapes": sorted(shapes, key=lambda s: s["frame"]), "attributes": attributes}
    if not inner:
        elements = [element for element in item.get("elements") or [] if isinstance(element, dict)]
        broken: list[JSON] = [{} for _ in elements]
        track["elements"] = [_track(e, w, inner=True) for e, w in zip(elements, broken, strict=True)]
        if any(broken):
            bad["elements"] = broken
    return track

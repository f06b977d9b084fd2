"""Labels with attributes and sublabels, of tasks and projects."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from starlette.responses import Response

from agent.sandbox.exchange import Call, Refusal, forbidden, missing, reply
from agent.sandbox.listing import listed
from agent.sandbox.permissions import in_scope, may_project, may_task, the_job, the_project, the_task
from agent.sandbox.records import JSON, Label, Project, Task
from agent.sandbox.state import State

TYPES = ("any", "rectangle", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton", "tag")
INPUTS = ("checkbox", "radio", "number", "text", "select")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def check_labels(sent: Any) -> list[JSON]:
    """The labels of a request, or a refusal in CVAT's form."""
    if not isinstance(sent, list) or not all(isinstance(label, dict) for label in sent):
        raise Refusal(400, {"labels": ['Expected a list of items but got type "' + type(sent).__name__ + '".']})
    problems = [_problems(label) for label in sent]
    if any(problems):
        raise Refusal(400, {"labels": problems})
    names = [label["name"] for label in sent if not label.get("deleted") and "name" in label]
    if len(set(names)) != len(names):
        raise Refusal(400, ["All label names must be unique"])
    return sent


def _problems(label: JSON) -> JSON:
    found: JSON = {}
    if not isinstance(label.get("name"), str) and "id" not in label:
        found["name"] = ["This field is required."]
    if label.get("type") not in (None, *TYPES):
        found["type"] = [f'"{label["type"]}" is not a valid choice.']
    if label.get("color") and not _COLOR.fullmatch(label["color"]):
        found["color"] = ["Enter a valid value."]
    bad = [a for a in label.get("attributes", []) if a.get("input_type", "text") not in INPUTS]
    if bad:
        found["attributes"] = [{"input_type": [f'"{a.get("input_type")}" is not a valid choice.']} for a in bad]
    inner = [_problems(sub) for sub in label.get("sublabels", [])]
    if any(inner):
        found["sublabels"] = inner
    return found


def add_labels(state: State, sent: list[JSON], owner: Task | Project) -> None:
    """Makes labels of a task or project."""
    where = {"task_id": owner.id} if isinstance(owner, Task) else {"project_id": owner.id}
    for label in sent:
        made = _add(state, label, where, None)
        subs = [_add(state, sub, where, made.id) for sub in label.get("sublabels") or []]
        if label.get("svg"):
            # Clients draw with names; the server answers with the ids of the sublabels.
            svg = label["svg"]
            for sub in subs:
                svg = re.sub(f"data-label-name=(['\"]){re.escape(sub.name)}\\1", f'data-label-id="{sub.id}"', svg)
            made.svg = svg
            state.labels.save(made)


def _add(state: State, label: JSON, where: dict[str, int], parent: int | None) -> Label:
    return state.labels.add(
        name=label["name"],
        type=label.get("type") or ("points" if parent else "any"),
        color=label.get("color") or "#" + hashlib.md5(label["name"].encode(), usedforsecurity=False).hexdigest()[:6],
        parent_id=parent,
        attributes=[_attribute(state, a) for a in label.get("attributes") or []],
        **where,
    )


def _attribute(state: State, sent: JSON) -> JSON:
    values = [str(value) for value in sent.get("values") or []]
    return {
        "id": state.store.next_id("attributes"),
        "name": str(sent.get("name", "")),
        "mutable": bool(sent.get("mutable", False)),
        "input_type": sent.get("input_type", "text"),
        "default_value": str(sent.get("default_value", values[0] if values else "")),
        "values": values,
    }


def change_labels(state: State, sent: list[JSON], owner: Task | Project) -> None:
    """Does what a PATCH says of labels: those with an id change or go, others are added."""
    for label in sent:
        known = state.labels.get(label.get("id"))
        if "id" not in label:
            add_labels(state, [label], owner)
        elif known is None or owner.id not in (known.task_id, known.project_id):
            raise missing("Label")
        elif label.get("deleted"):
            remove_label(state, known)
        else:
            _change(state, known, label)


def _change(state: State, label: Label, sent: JSON) -> None:
    label.name = sent.get("name", label.name)
    label.color = sent.get("color") or label.color
    label.type = sent.get("type", label.type)
    known = {attribute["id"]: attribute for attribute in label.attributes}
    for attribute in sent.get("attributes", []):
        if attribute.get("id") in known:
            known[attribute["id"]].update({k: v for k, v in attribute.items() if k in known[attribute["id"]]})
        else:
            label.attributes.append(_attribute(state, attribute))
    state.labels.save(label)


def remove_label(state: State, label: Label) -> None:
    """Removes a label, its sublabels and every annotation that has it."""
    for kind, table in state.annotations.tables.items():
        for row in table.all():
            if row.body["label_id"] == label.id:
                state.annotations.remove(row.job_id, kind, row.id)
    for sub in state.labels.where(parent_id=label.id):
        state.labels.remove(sub.id)
    state.labels.remove(label.id)


def _sub_view(label: Label) -> JSON:
    return {
        "id": label.id,
        "name": label.name,
        "color": label.color,
        "attributes": label.attributes,
        "type": label.type,
        "has_parent": True,
    }


def view(state: State, label: Label) -> JSON:
    """A label as the API tells it."""
    owner = {"task_id": label.task_id} if label.task_id is not None else {"project_id": label.project_id}
    subs = [_sub_view(sub) for sub in state.labels.where(parent_id=label.id)]
    shown = {**_sub_view(label), "sublabels": subs, **owner, "parent_id": label.parent_id}
    shown["has_parent"] = label.parent_id is not None
    return {**shown, "svg": label.svg} if label.type == "skeleton" else shown


_FIELDS = {
    "id": lambda label: label.id,
    "name": lambda label: label.name,
    "type": lambda label: label.type,
    "color": lambda label: label.color,
    "parent": lambda label: label.parent_id,
}


def list_labels(call: Call) -> Response:
    """GET /api/labels: of a task, a job or a project, or all that the caller may see."""
    state = call.state
    if call.query.get("job_id"):
        labels = state.labels_of(state.tasks.rows[the_job(call, _number(call, "job_id")).task_id])
    elif call.query.get("task_id"):
        labels = state.labels_of(the_task(call, _number(call, "task_id")))
    elif call.query.get("project_id"):
        labels = state.labels.where(project_id=the_project(call, _number(call, "project_id")).id, parent_id=None)
    else:
        labels = [label for label in state.labels.where(parent_id=None) if _visible(call, label)]
    return listed(call, labels, _FIELDS, lambda label: view(state, label), search=("name",), sort="id")


def _number(call: Call, name: str) -> int:
    if not call.query[name].isdigit():
        raise Refusal(400, {name: ["A valid integer is required."]})
    return int(call.query[name])


def _visible(call: Call, label: Label) -> bool:
    task = call.state.tasks.get(label.task_id)
    if task is not None:
        return in_scope(call, task.organization_id) and may_task(call, task)
    project = call.state.projects.get(label.project_id)
    return project is not None and in_scope(call, project.organization_id) and may_project(call, project)


def _own(call: Call) -> Label:
    label = call.state.labels.get(call.id())
    if label is None:
        raise missing("Label")
    if not _visible(call, label):
        raise forbidden()
    return label


def get_label(call: Call) -> Response:
    """GET /api/labels/{id}."""
    return reply(view(call.state, _own(call)))


def patch_label(call: Call) -> Response:
    """PATCH /api/labels/{id}."""
    label, sent = _own(call), call.object()
    problems = _problems({"name": label.name, **sent})
    if problems:
        raise Refusal(400, problems)
    with call.state.store.change():
        _change(call.state, label, sent)
    return reply(view(call.state, label))


def delete_label(call: Call) -> Response:
    """DELETE /api/labels/{id}."""
    label = _own(call)
    with call.state.store.change():
        remove_label(call.state, label)
    return Response(status_code=204)

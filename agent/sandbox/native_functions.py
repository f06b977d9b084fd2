"""Native functions: /api/functions, and how /api/lambda/functions shows them. Agents serve them, see queue.py."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from agent.sandbox.accounts import brief
from agent.sandbox.exchange import NOT_FOUND, Call, Refusal, forbidden, page, reply
from agent.sandbox.permissions import in_scope, is_admin, rank
from agent.sandbox.records import JSON, Function

KINDS = ("detector", "interactor", "tracker")
NOT_THERE = Refusal(404, {"detail": "Not found."})


def may_use(call: Call, function: Function) -> bool:
    """Whether the caller may call a function."""
    if is_admin(call) or function.owner_id == call.user.id or function.body.get("visibility") == "public":
        return True
    return rank(call, function.organization_id) >= 0


def _view(call: Call, function: Function) -> JSON:
    return {"id": function.id, "owner": brief(call, function.owner_id), **function.body}


def lambda_view(function: Function) -> JSON:
    """A native function as /api/lambda/functions tells of it."""
    body = function.body
    shown = {
        "id": function.id,
        "kind": body["kind"],
        "labels_v2": body.get("labels_v2", []),
        "description": "",
        "name": body["name"],
        "version": 2,
    }
    names = ("min_pos_points", "min_neg_points", "startswith_box", "startswith_box_optional", "supported_shape_types")
    shown |= {name: body[name] for name in names if name in body}
    return {**shown, "help_message": "", "animated_gif": ""} if body["kind"] == "interactor" else shown


def visible(call: Call) -> list[Function]:
    """The native functions that the caller may use."""
    functions = [function for function in call.state.functions.all() if may_use(call, function)]
    return [f for f in functions if in_scope(call, f.organization_id) or f.body.get("visibility") == "public"]


def native(call: Call, name: Any) -> Function | None:
    """The native function of an id, or None where that is the name of another kind of function."""
    function = call.state.functions.get(int(name)) if str(name).isdigit() else None
    return function if function is not None and may_use(call, function) else None


def _attribute(sent: JSON) -> JSON:
    return {name: sent.get(name, default) for name, default in (("name", ""), ("input_type", "text"), ("values", []))}


def _label(sent: JSON) -> JSON:
    if not isinstance(sent, dict) or not sent.get("name"):
        raise Refusal(400, {"labels_v2": [{"name": ["This field is required."]}]})
    attributes = [_attribute(a) for a in sent.get("attributes", [])]
    label: JSON = {"name": sent["name"], "attributes": attributes, "type": sent.get("type", "any")}
    if "sublabels" in sent:
        label["sublabels"] = [_label(sub) for sub in sent["sublabels"]]
    return label


def create_function(call: Call) -> Response:
    """POST /api/functions."""
    sent = call.object()
    kind, visibility = sent.get("kind"), sent.get("visibility", "private")
    wrong: JSON = {}
    if sent.get("provider") != "native":
        wrong["provider"] = [f'"{sent.get("provider")}" is not a valid choice.']
    if kind not in KINDS:
        wrong["kind"] = [f'"{kind}" is not a valid choice.']
    if not sent.get("name"):
        wrong["name"] = ["This field is required."]
    if visibility not in ("private", "public"):
        wrong["visibility"] = [f'"{visibility}" is not a valid choice.']
    if wrong:
        raise Refusal(400, wrong)
    if visibility == "public" and not is_admin(call):
        raise forbidden()
    if call.organization is not None and rank(call, call.organization.id) < 1 and not is_admin(call):
        raise forbidden()
    body: JSON = {"provider": "native", "name": str(sent["name"]), "visibility": visibility, "kind": kind}
    function = call.state.functions.add(
        owner_id=call.user.id,
        organization_id=call.organization.id if call.organization else None,
        body={**body, **_kind_fields(sent)},
    )
    return reply(_view(call, function), 201)


def _kind_fields(sent: JSON) -> JSON:
    match sent["kind"]:
        case "detector":
            return {"labels_v2": [_label(label) for label in sent.get("labels_v2") or []]}
        case "interactor":
            # The official agent reads them all, whatever was sent when the function was made.
            fields = {
                "min_pos_points": 0,
                "min_neg_points": -1,
                "startswith_box": False,
                "startswith_box_optional": False,
            }
            return {name: sent.get(name, default) for name, default in fields.items()}
    return {"supported_shape_types": sorted(sent.get("supported_shape_types") or [])}


def no_list(call: Call) -> Response:
    """GET /api/functions: there is no such route."""
    return page(NOT_FOUND, 404)


def the_function(call: Call, id_: int) -> Function:
    """The function with an id, if the caller may use it."""
    function = call.state.functions.get(id_)
    if function is None:
        raise NOT_THERE
    if not may_use(call, function):
        raise forbidden()
    return function


def get_function(call: Call) -> Response:
    """GET /api/functions/{id}."""
    return reply(_view(call, the_function(call, call.id())))

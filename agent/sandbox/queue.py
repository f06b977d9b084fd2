"""Native functions and their queue: what agents acquire, update, complete and fail.

A request belongs to the agent that acquired it: another agent's word on it is 403, one that is over 400, an unknown one
404. Who is silent for longer than `state.lease_seconds` loses it: it may be acquired again.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from agent.sandbox import labeled_data
from agent.sandbox.accounts import brief
from agent.sandbox.annotation_form import TaskLabels, checked
from agent.sandbox.exchange import NOT_FOUND, Call, Refusal, forbidden, page, reply
from agent.sandbox.lambda_labels import default_mapping, match_labels
from agent.sandbox.lambda_replies import as_answer, interaction, read_state, shift, sign_state
from agent.sandbox.permissions import in_scope, is_admin, rank
from agent.sandbox.records import JSON, Function, QueuedRequest, Task, now
from agent.sandbox.state import State

KINDS = ("detector", "interactor", "tracker")
CATEGORIES = ("interactive", "batch")
_OVER = ("completed", "failed")
_NOT_THERE = Refusal(404, {"detail": "Not found."})
_KEEP_ALIVE = 15.0
_KEEP_OVER = 500


def _may(call: Call, function: Function) -> bool:
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
    functions = [function for function in call.state.functions.all() if _may(call, function)]
    return [f for f in functions if in_scope(call, f.organization_id) or f.body.get("visibility") == "public"]


def native(call: Call, name: Any) -> Function | None:
    """The native function of an id, or None where that is the name of another kind of function."""
    function = call.state.functions.get(int(name)) if str(name).isdigit() else None
    return function if function is not None and _may(call, function) else None


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
            names = ("min_pos_points", "min_neg_points", "startswith_box", "startswith_box_optional")
            return {"startswith_box": False, **{name: sent[name] for name in names if name in sent}}
    return {"supported_shape_types": sorted(sent.get("supported_shape_types") or [])}


def no_list(call: Call) -> Response:
    """GET /api/functions: there is no such route."""
    return page(NOT_FOUND, 404)


def _the_function(call: Call, id_: int) -> Function:
    function = call.state.functions.get(id_)
    if function is None:
        raise _NOT_THERE
    if not _may(call, function):
        raise forbidden()
    return function


def get_function(call: Call) -> Response:
    """GET /api/functions/{id}."""
    return reply(_view(call, _the_function(call, call.id())))


def delete_function(call: Call) -> Response:
    """DELETE /api/functions/{id}: its requests go too, who waits for them is told that they failed."""
    function, state = _the_function(call, call.id()), call.state
    if function.owner_id != call.user.id and not is_admin(call) and rank(call, function.organization_id) < 2:
        raise forbidden()
    with state.store.change():
        for request in state.queued.where(function_id=function.id):
            _settle(state, request, "failed", "The function was deleted")
            state.queued.remove(request.id)
        state.functions.remove(function.id)
    state.ring()
    return Response(status_code=204)


def _the_queue(call: Call) -> Function:
    found = re.fullmatch(r"function:(\d+)", call.text("queue"))
    if found is None:
        raise _NOT_THERE
    function = _the_function(call, int(found[1]))
    # Serving a function is its owner's (or an organization's maintainer's) business, not every user's.
    if not (is_admin(call) or function.owner_id == call.user.id or rank(call, function.organization_id) >= 2):
        raise forbidden()
    return function


def enqueue(state: State, function: Function, category: str, params: JSON) -> QueuedRequest:
    """A new request in a function's queue; agents that watch it are told."""
    request = state.queued.add(ar_id=str(uuid.uuid4()), function_id=function.id, category=category, params=params)
    state.ring()
    return request


def _waiting(state: State, function_id: int, category: str) -> list[QueuedRequest]:
    lost = time.time() - state.lease_seconds
    return [
        request
        for request in state.queued.where(function_id=function_id, category=category)
        if request.status == "queued" or (request.status == "running" and request.beat < lost)
    ]


def acquire(call: Call) -> Response:
    """POST …/requests/acquire: the oldest waiting request of a category."""
    function, sent, state = _the_queue(call), call.object(), call.state
    agent, category = sent.get("agent_id"), sent.get("request_category")
    if not isinstance(agent, str) or not agent:
        raise Refusal(400, {"agent_id": ["This field is required."]})
    if category not in CATEGORIES:
        raise Refusal(400, {"request_category": [f'"{category}" is not a valid choice.']})
    with state.store.change():
        request = next(iter(_waiting(state, function.id, category)), None)
        if request is None:
            return reply({"ar_assignment": None})
        request.status, request.agent_id, request.beat = "running", agent, time.time()
        state.queued.save(request)
        _follow(state, request, status="started")
    return reply({"ar_assignment": {"ar_id": request.ar_id, "ar_params": request.params}})


def _held(call: Call) -> tuple[QueuedRequest, JSON]:
    """The request of the path, if this agent holds it."""
    function, sent = _the_queue(call), call.object()
    request = call.state.queued.first(function_id=function.id, ar_id=call.text("ar_id"))
    if request is None:
        raise _NOT_THERE
    if request.status != "running":
        raise Refusal(400, {"detail": f"The request is not running (status: {request.status})"})
    if request.agent_id != sent.get("agent_id"):
        raise forbidden("The request is assigned to another agent")
    return request, sent


def update(call: Call) -> Response:
    """POST …/update: progress, and a sign of life."""
    with call.state.store.change():
        request, sent = _held(call)
        progress = sent.get("progress", request.progress)
        if isinstance(progress, bool) or not isinstance(progress, (int, float)) or not 0 <= progress <= 1:
            raise Refusal(400, {"progress": ["Ensure this value is between 0 and 1."]})
        request.progress, request.beat = float(progress), time.time()
        call.state.queued.save(request)
        _follow(call.state, request, progress=int(progress * 100))
    return reply(None)


def complete(call: Call) -> Response:
    """POST …/complete: the result; a task's annotations are stored before the answer."""
    state = call.state
    with state.store.change():
        request, sent = _held(call)
        result = {name: value for name, value in sent.items() if name != "agent_id"}
        if request.params["type"] == "annotate_task":
            _annotate(state, request, result)
            result = {}
        request.result = result
        _settle(state, request, "completed", None)
    state.ring()
    return reply(None)


def _annotate(state: State, request: QueuedRequest, result: JSON) -> None:
    task = state.tasks.get(request.params["task"])
    if task is None:
        raise Refusal(400, {"detail": "The task was deleted"})
    found = _annotations(state, task, request.params, result)
    lambda_request = state.lambda_requests.first(queued_id=request.id)
    if lambda_request is not None and lambda_request.params.get("cleanup"):
        labeled_data.clear_task(state, task)
    labeled_data.add_to_task(state, task, found)


def _annotations(state: State, task: Task, params: JSON, result: JSON) -> dict[str, list[JSON]]:
    """A detector's result, checked, of source auto, moved to its place in the frame."""
    sent = result.get("annotations")
    if not isinstance(sent, dict):
        raise Refusal(400, {"annotations": ["This field is required."]})
    found = checked({**sent, "tracks": []}, TaskLabels(state, task))
    for item in [*found["tags"], *found["shapes"]]:
        item["source"] = "auto"
        for element in item.get("elements", []):
            element["source"] = "auto"
    if params.get("roi"):
        for shape in found["shapes"]:
            shift(shape, params["roi"][0], params["roi"][1])
    return found


def fail(call: Call) -> Response:
    """POST …/fail."""
    with call.state.store.change():
        request, sent = _held(call)
        _settle(call.state, request, "failed", str(sent.get("exc_info", "Unknown error")))
    call.state.ring()
    return reply(None)


def _settle(state: State, request: QueuedRequest, status: str, exc_info: str | None) -> None:
    if request.status in _OVER:
        return
    request.status, request.exc_info = status, exc_info
    over = {"status": "finished", "progress": 100} if status == "completed" else {"status": "failed"}
    state.queued.save(request)
    _follow(state, request, ended=now(), exc_info=exc_info, **over)
    past = [old for old in state.queued.where(function_id=request.function_id) if old.status in _OVER]
    for old in past[:-_KEEP_OVER]:
        state.queued.remove(old.id)


def _follow(state: State, request: QueuedRequest, **fields: Any) -> None:
    """Tells the automatic annotation request, which a person watches, what became of the agent's one."""
    lambda_request = state.lambda_requests.first(queued_id=request.id)
    if lambda_request is None:
        return
    if fields.get("status") == "started" and lambda_request.started is None:
        lambda_request.started = now()
    for name, value in fields.items():
        setattr(lambda_request, name, value)
    state.lambda_requests.save(lambda_request)


async def watch(call: Call) -> Response:
    """GET …/watch: server-sent events, one for each category in which a request waits or comes in."""
    function = await run_in_threadpool(_the_queue, call)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(call.state, function.id), headers=headers, media_type="text/event-stream")


async def _events(state: State, function_id: int) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    told: set[str] = set()
    quiet = time.monotonic()
    while not state.closing.is_set() and state.functions.get(function_id) is not None:
        heard = state.rings
        for category in CATEGORIES:
            waiting = {r.ar_id for r in _waiting(state, function_id, category)}
            if waiting - told:
                event = json.dumps({"request_category": category})
                yield f"event: newrequest\ndata: {event}\n\n"
                quiet = time.monotonic()
            told |= waiting
        if time.monotonic() - quiet > _KEEP_ALIVE:
            yield ": keep-alive\n\n"
            quiet = time.monotonic()
        await _rung(state, heard)


async def _rung(state: State, heard: int) -> None:
    """Waits a moment for the doorbell, without holding a thread: streams may be many."""
    for _ in range(40):
        if state.rings != heard or state.closing.is_set():
            return
        await asyncio.sleep(0.025)


def batch_params(state: State, function: Function, task: Task, sent: JSON) -> JSON:
    """The parameters of `annotate_task`."""
    if function.body["kind"] != "detector":
        raise Refusal(400, f"Function {function.id} is no detector")
    return {"type": "annotate_task", "task": task.id, **_detector_params(state, function, task, sent)}


def _detector_params(state: State, function: Function, task: Task, sent: JSON) -> JSON:
    labels = function.body["labels_v2"]
    mapping = sent.get("mapping")
    if mapping is None:
        mapping = default_mapping(state, task, labels)
    else:
        match_labels(state, task, labels, mapping)
    params: JSON = {"mapping": mapping, "threshold": sent.get("threshold")}
    params["conv_mask_to_poly"] = bool(sent.get("conv_mask_to_poly"))
    return {**params, **({"roi": sent["roi"]} if sent.get("roi") else {})}


def interact(call: Call, function: Function, task: Task, frame: int, sent: JSON, size: tuple[int, int]) -> Any:
    """The answer to a direct call of a native function: waits until an agent has given it."""
    state, salt = call.state, f"function:{function.id}"
    params: JSON = {"task": task.id, "frame": frame}
    match function.body["kind"]:
        case "detector":
            params |= {"type": "annotate_frame", **_detector_params(state, function, task, sent)}
            return as_answer(_annotations(state, task, params, _awaited(state, function, params)))
        case "interactor":
            params |= {"type": "interact"}
            params |= {name: sent.get(name) or [] for name in ("pos_points", "neg_points", "obj_bbox")}
            params |= {"roi": sent["roi"]} if sent.get("roi") else {}
            return interaction(_awaited(state, function, params), sent.get("roi"), size)
    if sent.get("states"):
        params |= {"type": "track", "states": [read_state(state, salt, signed) for signed in sent["states"]]}
    else:
        params |= {"type": "init_tracking", "shapes": sent.get("shapes") or []}
    result = _awaited(state, function, params)
    shapes = result.get("shapes", sent.get("shapes"))
    return {"shapes": shapes, "states": [sign_state(state, salt, value) for value in result["states"]]}


def _awaited(state: State, function: Function, params: JSON) -> JSON:
    request = enqueue(state, function, "interactive", params)
    end = time.monotonic() + state.interactive_timeout
    with state.doorbell:
        while request.status not in _OVER and not state.closing.is_set():
            if not state.doorbell.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                break
    with state.store.change():
        status, result, exc_info = request.status, request.result, request.exc_info
        if status in _OVER:
            request.result = None  # it was for this caller only
            state.queued.save(request)
        else:
            state.queued.remove(request.id)
    if status == "completed":
        return result or {}
    if status == "failed":
        raise Refusal(500, f"{exc_info}")
    raise Refusal(504, "No agent answered in time")

"""The queues of native functions: what agents acquire, update, complete and fail.

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
from agent.sandbox.exchange import Call, Refusal, forbidden, reply
from agent.sandbox.lambda_replies import agent_annotations
from agent.sandbox.native_functions import NOT_THERE, the_function
from agent.sandbox.permissions import is_admin, rank
from agent.sandbox.records import JSON, Function, QueuedRequest, now
from agent.sandbox.state import State

CATEGORIES = ("interactive", "batch")
OVER = ("completed", "failed")
_KEEP_ALIVE = 15.0
_KEEPOVER = 500


def delete_function(call: Call) -> Response:
    """DELETE /api/functions/{id}: its requests go too, who waits for them is told that they failed."""
    function, state = the_function(call, call.id()), call.state
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
        raise NOT_THERE
    function = the_function(call, int(found[1]))
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
        raise NOT_THERE
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
    found = agent_annotations(state, task, request.params, result)
    lambda_request = state.lambda_requests.first(queued_id=request.id)
    if lambda_request is not None and lambda_request.params.get("cleanup"):
        labeled_data.clear_task(state, task)
    labeled_data.add_to_task(state, task, found)


def fail(call: Call) -> Response:
    """POST …/fail."""
    with call.state.store.change():
        request, sent = _held(call)
        _settle(call.state, request, "failed", str(sent.get("exc_info", "Unknown error")))
    call.state.ring()
    return reply(None)


def _settle(state: State, request: QueuedRequest, status: str, exc_info: str | None) -> None:
    if request.status in OVER:
        return
    request.status, request.exc_info = status, exc_info
    over = {"status": "finished", "progress": 100} if status == "completed" else {"status": "failed"}
    state.queued.save(request)
    _follow(state, request, ended=now(), exc_info=exc_info, **over)
    past = [old for old in state.queued.where(function_id=request.function_id) if old.status in OVER]
    for old in past[:-_KEEPOVER]:
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

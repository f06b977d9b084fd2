"""Automatic annotation in the background: /api/lambda/requests.

A Nuclio function is called frame by frame by a worker, an agent's function through its queue. One request a
task; what a worker found is stored at every hundredth frame and at the end, and nothing is taken back when
it fails.
"""

from __future__ import annotations

import traceback

from starlette.responses import Response

from agent.sandbox import agent_calls, labeled_data, native_functions, nuclio, queue, reid
from agent.sandbox.annotation_form import KINDS, TaskLabels
from agent.sandbox.exchange import Call, Refusal, reply
from agent.sandbox.lambda_functions import ask_detector, data_of, place, view
from agent.sandbox.lambda_labels import match_labels
from agent.sandbox.lambda_replies import detections
from agent.sandbox.permissions import is_admin
from agent.sandbox.records import JSON, Data, Job, LambdaRequest, Task, now
from agent.sandbox.state import State

_RUNNING = ("queued", "started")


class Cancelled(Exception):
    """The request was deleted while its worker was at it."""


def _view(request: LambdaRequest) -> JSON:
    names = ("function", "status", "progress", "enqueued", "started", "ended", "exc_info")
    return {"id": request.rq_id, **{name: getattr(request, name) for name in names}}


def create_request(call: Call) -> Response:
    """POST /api/lambda/requests."""
    sent, state = call.object(), call.state
    name = sent.get("function")
    if name is None:
        raise Refusal(400, "`lambda` function was run with wrong arguments ('function')")
    native = native_functions.native(call, name)
    function = None if native else nuclio.function(state, str(name))
    task, job = place(call, sent, str(name))
    data_of(state, task)
    if native and job is not None:
        raise Refusal(400, "Native functions annotate whole tasks")
    params = agent_calls.batch_params(state, native, task, sent) if native else {}
    rq_id = f"action=autoannotate&target=task&target_id={task.id}"
    with state.store.change():
        old = state.lambda_requests.first(rq_id=rq_id)
        if old is not None and old.status in _RUNNING and not old.cancelled:
            raise Refusal(409, f"Only one running request is allowed for the same task #{task.id}")
        if old is not None:
            state.lambda_requests.remove(old.id)
        told = {"id": name, "task": task.id, "threshold": sent.get("threshold")}
        told |= {"job": job.id} if job else {}
        request = state.lambda_requests.add(
            rq_id=rq_id, task_id=task.id, owner_id=call.user.id, function=told, params=sent
        )
        if native:
            request.queued_id = queue.enqueue(state, native, "batch", params).id
            state.lambda_requests.save(request)
        shown = _view(request)
    if function is not None:
        state.submit("annotate", run, state, request, function)
    return reply(shown)


def _seen(call: Call) -> list[LambdaRequest]:
    own = [r for r in call.state.lambda_requests.all() if r.owner_id == call.user.id or is_admin(call)]
    return [request for request in own if not request.cancelled]


def list_requests(call: Call) -> Response:
    """GET /api/lambda/requests: failed ones are not listed."""
    with call.state.store.lock:
        return reply([_view(request) for request in reversed(_seen(call)) if request.status != "failed"])


def _the_request(call: Call) -> LambdaRequest:
    rq_id = call.text("rq_id")
    found = next((request for request in _seen(call) if request.rq_id == rq_id), None)
    if found is None:
        raise Refusal(404, f"{rq_id} lambda job is not found")
    return found


def get_request(call: Call) -> Response:
    """GET /api/lambda/requests/{rq_id}."""
    with call.state.store.lock:
        return reply(_view(_the_request(call)))


def delete_request(call: Call) -> Response:
    """DELETE /api/lambda/requests/{rq_id}: the worker stops after its frame, an agent is told at its next call."""
    request, state = _the_request(call), call.state
    with state.store.change():
        if request.status == "started" and request.queued_id is None:
            request.cancelled = True
            state.lambda_requests.save(request)
        else:
            state.lambda_requests.remove(request.id)
        if request.queued_id is not None:
            state.queued.remove(request.queued_id)
    return Response(status_code=204)


def run(state: State, request: LambdaRequest, function: JSON) -> None:
    """The worker's part: calls the function for every frame."""
    if state.lambda_requests.get(request.id) is None:
        return
    with state.store.change():
        request.status, request.started = "started", now()
        state.lambda_requests.save(request)
    exc_info = None
    try:
        task = state.tasks.rows[request.task_id]
        job = state.jobs.get(request.params.get("job"))
        _annotate(state, request, function, task, job)
    except Cancelled:
        pass  # sic: a cancelled request comes back as a finished one
    except Exception:
        exc_info = traceback.format_exc()
    if state.closing.is_set():
        return  # it did not end: after a restart it has failed
    with state.store.change():
        if state.lambda_requests.get(request.id) is None:
            return
        request.cancelled, request.exc_info = False, exc_info
        request.status, request.ended = "failed" if exc_info else "finished", now()
        state.lambda_requests.save(request)


def _annotate(state: State, request: LambdaRequest, function: JSON, task: Task, job: Job | None) -> None:
    shown = view(function)
    data = data_of(state, task)
    if shown["kind"] == "reid":
        reid.run(state, function, task, job, data, request.params, lambda done: _progress(state, request, done, data))
        return
    if shown["kind"] != "detector":
        raise ValueError(f"functions of kind {shown['kind']} do not annotate in the background")
    if request.params.get("cleanup"):
        _clean(state, task, job)
    _detect(state, request, function, task, job, data, shown["labels_v2"])


def _clean(state: State, task: Task, job: Job | None) -> None:
    if job is None:
        labeled_data.clear_task(state, task)
        return
    with state.store.change():
        state.annotations.clear(job.id)
        state.touch(job)


def _detect(
    state: State, request: LambdaRequest, function: JSON, task: Task, job: Job | None, data: Data, labels: list[JSON]
) -> None:
    params = request.params
    matches = match_labels(state, task, labels, params.get("mapping"))
    found: dict[str, list[JSON]] = {kind: [] for kind in KINDS}
    to_polygons, roi = bool(params.get("conv_mask_to_poly")), params.get("roi")
    deleted = set(data.deleted_frames)
    try:
        for frame in job.numbers if job else range(data.size):
            if frame in deleted:
                continue
            answer = ask_detector(state, function, data, frame, params)
            fresh = detections(answer, matches, TaskLabels(state, task), frame, to_polygons=to_polygons, roi=roi)
            for kind, items in fresh.items():
                found[kind] += items
            _progress(state, request, frame + 1, data)
            if frame and frame % state.annotation_batch == 0:
                found = _submitted(state, task, job, found)
    except Cancelled:
        # What was found until then is kept.
        _submitted(state, task, job, found)
        raise
    _submitted(state, task, job, found)


def _progress(state: State, request: LambdaRequest, done: int, data: Data) -> None:
    if request.cancelled or state.closing.is_set() or state.lambda_requests.get(request.id) is None:
        raise Cancelled
    with state.store.change():
        request.progress = int(done / data.size * 100)
        state.lambda_requests.save(request)


def _submitted(state: State, task: Task, job: Job | None, found: dict[str, list[JSON]]) -> dict[str, list[JSON]]:
    """Stores what was found; returns an empty collection."""
    if job is None:
        labeled_data.add_to_task(state, task, found)
    elif state.jobs.get(job.id) is not None:
        with state.store.change():
            for kind in KINDS:
                for item in found[kind]:
                    labeled_data.store(state, job, kind, item)
            state.touch(job)
    return {kind: [] for kind in KINDS}


def settle_interrupted(state: State) -> None:
    """After a restart: what a worker was at has failed; an agent's requests wait in their queue."""
    for request in state.lambda_requests.all():
        if request.status in _RUNNING and request.queued_id is None:
            request.status, request.ended = "failed", now()
            request.cancelled, request.exc_info = False, "Work-horse terminated unexpectedly"
            state.lambda_requests.save(request)

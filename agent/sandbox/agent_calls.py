"""Calls of native functions: what becomes of a person's call in the queue, and of the agent's answer to it."""

from __future__ import annotations

import time
from typing import Any

from agent.sandbox.exchange import Call, Refusal
from agent.sandbox.lambda_labels import default_mapping, match_labels
from agent.sandbox.lambda_replies import agent_annotations, as_answer, interaction, read_state, sign_state
from agent.sandbox.queue import OVER, enqueue
from agent.sandbox.records import JSON, Function, Task
from agent.sandbox.state import State


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
            return as_answer(agent_annotations(state, task, params, _awaited(state, function, params)))
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
        while request.status not in OVER and not state.closing.is_set():
            if not state.doorbell.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                break
    with state.store.change():
        status, result, exc_info = request.status, request.result, request.exc_info
        if status in OVER:
            request.result = None  # it was for this caller only
            state.queued.save(request)
        else:
            state.queued.remove(request.id)
    if status == "completed":
        return result or {}
    if status == "failed":
        raise Refusal(500, f"{exc_info}")
    raise Refusal(504, "No agent answered in time")

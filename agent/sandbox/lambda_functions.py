"""Functions as CVAT's API shows them, and direct calls for one frame: /api/lambda/functions."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image
from starlette.responses import Response

from agent.sandbox import agent_calls, frames, native_functions, nuclio
from agent.sandbox.annotation_form import TaskLabels
from agent.sandbox.exchange import Call, Refusal, missing, reply
from agent.sandbox.lambda_labels import match_labels
from agent.sandbox.lambda_replies import as_answer, detections, interaction, read_state, sign_state
from agent.sandbox.permissions import the_job, the_task
from agent.sandbox.records import JSON, Data, Job, Task
from agent.sandbox.state import State

KINDS = ("detector", "interactor", "tracker", "reid")


def view(function: JSON) -> JSON:
    """A function object of the dashboard as the API tells it; raises KeyError or ValueError on a broken one."""
    name, notes = function["metadata"]["name"], function["metadata"]["annotations"]
    kind = notes.get("type", "unknown")
    if kind not in KINDS:
        raise ValueError(f"unknown function kind {kind!r}")
    shown = {
        "id": name,
        "kind": kind,
        "labels_v2": [_label(label) for label in json.loads(notes.get("spec") or "[]")] if kind == "detector" else [],
        "description": function["spec"]["description"],
        "name": notes.get("name", name),
        "version": int(notes.get("version", 1)),
    }
    names = [label["name"] for label in shown["labels_v2"]]
    if len(set(names)) != len(names):
        raise ValueError("label names are not unique")
    function["status"]  # CVAT reads it, so a function without it is an error
    if kind == "interactor":
        shown |= {
            f"min_{sign}_points": int(notes.get(f"min_{sign}_points", 1 if sign == "pos" else -1))
            for sign in ("pos", "neg")
        }
        # Any text is true here, "false" too.
        shown |= {key: bool(notes.get(key, "")) for key in ("startswith_box", "startswith_box_optional")}
        shown |= {"help_message": notes.get("help_message", ""), "animated_gif": notes.get("animated_gif", "")}
    if kind == "tracker":
        shown["supported_shape_types"] = (notes.get("supported_shape_types") or "rectangle").split(",")
    return shown


def _label(label: JSON) -> JSON:
    attributes = [
        {"name": a["name"], "input_type": a.get("input_type", "text"), "values": a.get("values", [])}
        for a in label.get("attributes", [])
    ]
    shown = {"name": label["name"], "type": label.get("type", "any"), "attributes": attributes}
    if shown["type"] == "skeleton":
        shown |= {"sublabels": [_label(sub) for sub in label["sublabels"]], "svg": label["svg"]}
    return shown


def list_functions(call: Call) -> Response:
    """GET /api/lambda/functions: those of the dashboard, then the native ones; broken ones are left out."""
    shown = []
    for function in nuclio.functions(call.state):
        try:
            shown.append(view(function))
        except (KeyError, ValueError, TypeError):
            continue
    return reply(shown + [native_functions.lambda_view(function) for function in native_functions.visible(call)])


def get_function(call: Call) -> Response:
    """GET /api/lambda/functions/{name}."""
    native = native_functions.native(call, call.text("name"))
    return reply(
        native_functions.lambda_view(native) if native else view(nuclio.function(call.state, call.text("name")))
    )


def place(call: Call, sent: JSON, name: str) -> tuple[Task, Job | None]:
    """The task (and job) that a call is for, if the caller may use them; with a job, the job's rights are enough."""
    if sent.get("job") is not None:
        job = the_job(call, int(sent["job"]))
        if sent.get("task") not in (None, job.task_id):
            raise Refusal(400, f"Job {job.id} does not belong to task {sent['task']}")
        return call.state.tasks.rows[job.task_id], job
    if sent.get("task") is None:
        raise Refusal(400, f"`{name}` lambda function was run with wrong arguments ('task')")
    return the_task(call, int(sent["task"])), None


def data_of(state: State, task: Task) -> Data:
    """The task's data."""
    data = state.data.get(task.data_id)
    if data is None:
        raise missing("Data")
    return data


def _the_frame(sent: JSON, data: Data, job: Job | None, name: str) -> int:
    frame = sent.get("frame")
    if not isinstance(frame, int):
        raise Refusal(400, f"`{name}` lambda function was run with wrong arguments ('frame')")
    if job is not None and frame not in set(job.numbers):
        raise Refusal(400, "The frame is outside the job range")
    if not 0 <= frame < data.size:
        raise Refusal(400, [f"Invalid frame '{frame}'. The frame number should be in the [0, {data.size}] range"])
    return frame


def picture(state: State, data: Data, frame: int, roi: Any = None) -> str:
    """The frame in its original quality (or a part of it, in the same format), in base64."""
    _, content = frames.picture_of(state, data, frame, "original")
    if roi:
        with Image.open(io.BytesIO(content)) as image:
            left, top, right, bottom = (int(number) for number in roi)
            part = image.crop((left, top, right, bottom))
            out = io.BytesIO()
            part.save(out, format=image.format)
            content = out.getvalue()
    return base64.b64encode(content).decode("ascii")


def call_function(call: Call) -> Response:
    """POST /api/lambda/functions/{name}: one frame, nothing is stored."""
    name, sent, state = call.text("name"), call.object(), call.state
    native = native_functions.native(call, name)
    function = None if native else nuclio.function(state, name)
    shown = native_functions.lambda_view(native) if native else view(function or {})
    task, job = place(call, sent, name)
    data = data_of(state, task)
    frame = _the_frame(sent, data, job, name)
    if native:
        return reply(agent_calls.interact(call, native, task, frame, sent, _size(data, frame)))
    ask = {"detector": _detect, "interactor": _interact, "tracker": _track}.get(shown["kind"])
    if ask is None:
        raise Refusal(400, f"`{name}` lambda function has incorrect type: {shown['kind']}")
    return reply(ask(state, function or {}, shown, task, data, frame, sent))


def _size(data: Data, frame: int) -> tuple[int, int]:
    entry = data.frames[frame if data.kind == "images" else 0]
    return entry["width"], entry["height"]


def ask_detector(state: State, function: JSON, data: Data, frame: int, sent: JSON) -> Any:
    """A detector's reply for a frame."""
    payload: JSON = {"threshold": sent["threshold"]} if sent.get("threshold") else {}
    payload["image"] = picture(state, data, frame, sent.get("roi"))
    return nuclio.invoke(state, function, payload)


def _detect(state: State, function: JSON, shown: JSON, task: Task, data: Data, frame: int, sent: JSON) -> JSON:
    matches = match_labels(state, task, shown["labels_v2"], sent.get("mapping"))
    answer = ask_detector(state, function, data, frame, sent)
    to_polygons = bool(sent.get("conv_mask_to_poly"))
    labels = TaskLabels(state, task)
    found = detections(answer, matches, labels, frame, to_polygons=to_polygons, roi=sent.get("roi"))
    return as_answer(found)


def interaction_points(sent: JSON, name: str) -> JSON:
    """The points and the box of an interactor's call, moved into its region if it has one."""
    if "pos_points" not in sent or "neg_points" not in sent:
        absent = "pos_points" if "pos_points" not in sent else "neg_points"
        raise Refusal(400, f"`{name}` lambda function was run with wrong arguments ('{absent}')")
    left, top = (sent["roi"][0], sent["roi"][1]) if sent.get("roi") else (0, 0)
    moved = {}
    for key in ("pos_points", "neg_points", "obj_bbox"):
        points = sent.get(key) or []
        if not isinstance(points, list) or not all(map(_is_point, points)):
            raise Refusal(400, f"`{name}` lambda function was run with wrong arguments ('{key}')")
        moved[key] = [[point[0] - left, point[1] - top] for point in points]
    return {**moved, "obj_bbox": moved["obj_bbox"] or None}


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(number, int | float) for number in value)


def _interact(state: State, function: JSON, shown: JSON, task: Task, data: Data, frame: int, sent: JSON) -> Any:
    roi = sent.get("roi")
    payload = {"image": picture(state, data, frame, roi), **interaction_points(sent, shown["id"])}
    if "text_prompts" in sent:
        payload["text_prompts"] = sent["text_prompts"]
    return interaction(nuclio.invoke(state, function, payload), roi, _size(data, frame))


def _track(state: State, function: JSON, shown: JSON, task: Task, data: Data, frame: int, sent: JSON) -> JSON:
    legacy = "supported_shape_types" not in function["metadata"]["annotations"]
    shapes: list[Any] = [_supported(shape, shown) for shape in sent.get("shapes") or []]
    if legacy:
        shapes = [shape["points"] for shape in shapes]
    states = [read_state(state, shown["id"], signed) for signed in sent.get("states") or []]
    payload = {"image": picture(state, data, frame), "shapes": shapes or [None for _ in states], "states": states}
    answer = nuclio.invoke(state, function, payload)
    answer["states"] = [sign_state(state, shown["id"], value) for value in answer["states"]]
    if legacy:
        answer["shapes"] = [
            None if points is None else {"type": "rectangle", "points": points} for points in answer["shapes"]
        ]
    return dict(answer)


def _supported(shape: Any, shown: JSON) -> JSON:
    # Older clients send the points of a rectangle only.
    full: JSON = shape if isinstance(shape, dict) else {"type": "rectangle", "points": shape}
    if full.get("type") not in shown["supported_shape_types"]:
        raise Refusal(400, f"This function does not support shapes of type '{full.get('type')}'")
    return full

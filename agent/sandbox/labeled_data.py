"""Annotations. They belong to jobs; a task's are those of its annotation jobs, put together."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from starlette.responses import Response

from agent.sandbox import tracks
from agent.sandbox.annotation_form import KINDS, TaskLabels, checked
from agent.sandbox.exchange import Call, Refusal, reply
from agent.sandbox.permissions import the_job, the_task
from agent.sandbox.records import JSON, Job, Task
from agent.sandbox.state import State

Parts = dict[str, list[JSON]]
_SEQUENCES = {"tags": "tags", "shapes": "shapes", "tracks": "tracks"}


def _answer(parts: Parts) -> Response:
    return reply({"version": 0, **parts, "intervals": []})


def _numbered(state: State, kind: str, item: JSON, keep: bool) -> JSON:
    """The item with an id of its own (kept, if it is known already), and ids within."""
    made = dict(item)
    next_id = state.store.next_id
    if not keep or not isinstance(made["id"], int):
        made["id"] = next_id(kind)
    inner = "shapes" if kind == "shapes" else "tracks"
    if "elements" in made:
        made["elements"] = [_numbered(state, inner, element, keep) for element in made["elements"]]
    if kind == "tracks":
        made["shapes"] = [
            {**shape, "id": shape["id"] if keep and shape["id"] else next_id("track_shapes")}
            for shape in made["shapes"]
        ]
    return made


def store(state: State, job: Job, kind: str, item: JSON, *, keep: bool = False) -> JSON:
    """Keeps an item in a job; returns it with its ids."""
    made = _numbered(state, kind, item, keep)
    state.annotations.add(job.id, kind, made)
    return made


def sliced(found: Parts, job: Job) -> Parts:
    """What of a task's annotations falls into a job."""
    inside = range(job.start_frame, job.stop_frame + 1)
    parts = {kind: [item for item in found[kind] if item["frame"] in inside] for kind in ("tags", "shapes")}
    cuts = (tracks.cut(track, job.start_frame, job.stop_frame) for track in found["tracks"])
    return {**parts, "tracks": [track for track in cuts if track is not None]}


def _annotation_jobs(state: State, task: Task) -> list[Job]:
    return [job for job in state.jobs_of(task.id) if job.type == "annotation"]


def add_to_task(state: State, task: Task, found: Parts) -> Parts:
    """Keeps annotations of a task in the jobs that their frames belong to."""
    made = []
    with state.store.change():
        for job in _annotation_jobs(state, task):
            part = sliced(found, job)
            kept = {kind: [store(state, job, kind, item) for item in part[kind]] for kind in KINDS}
            made.append((job.start_frame, job.stop_frame, kept))
            if any(part.values()):
                state.touch(job)
        state.touch(task)
    return tracks.merge([(start, stop, copy.deepcopy(part)) for start, stop, part in made])


def clear_task(state: State, task: Task) -> None:
    """Removes all annotations of a task; those of the ground truth stay."""
    with state.store.change():
        for job in _annotation_jobs(state, task):
            state.annotations.clear(job.id)
            state.touch(job)


def _filled(sent: list[JSON], defaults: Iterable[JSON]) -> list[JSON]:
    known = {attribute["spec_id"] for attribute in sent}
    return [*sent, *(default for default in defaults if default["spec_id"] not in known)]


def _complete(labels: TaskLabels, kind: str, item: JSON) -> JSON:
    """An item as it is read: attributes that were not sent have their label's defaults."""
    full = dict(item)
    if "elements" in full:
        full["elements"] = [_complete(labels, kind, element) for element in full["elements"]]
    if kind != "tracks":
        full["attributes"] = _filled(full["attributes"], labels.defaults(full["label_id"]))
        return full
    full["attributes"] = _filled(full["attributes"], labels.defaults(full["label_id"], mutable=False))
    current = labels.defaults(full["label_id"], mutable=True)
    full["shapes"] = []
    for shape in item["shapes"]:
        # A mutable attribute keeps its value until a keyframe changes it.
        current = _filled(shape["attributes"], current)
        full["shapes"].append({**shape, "attributes": current})
    return full


def read_job(state: State, job: Job, labels: TaskLabels) -> Parts:
    """All annotations of a job, by frame."""
    with state.store.lock:
        found = {kind: [row.body for row in state.annotations.of(job.id, kind)] for kind in KINDS}
    parts = {kind: [_complete(labels, kind, item) for item in found[kind]] for kind in KINDS}
    return {kind: sorted(items, key=lambda item: item["frame"]) for kind, items in parts.items()}


def read_task(state: State, task: Task) -> Parts:
    """All annotations of a task."""
    labels = TaskLabels(state, task)
    parts = [(job.start_frame, job.stop_frame, read_job(state, job, labels)) for job in _annotation_jobs(state, task)]
    # Merging appends to the lists of keyframes: these are copies already, see _complete.
    return tracks.merge(parts)


def get_of_task(call: Call) -> Response:
    """GET /api/tasks/{id}/annotations."""
    return _answer(read_task(call.state, the_task(call)))


def get_of_job(call: Call) -> Response:
    """GET /api/jobs/{id}/annotations."""
    job = the_job(call)
    return _answer(read_job(call.state, job, _labels(call, job)))


def _labels(call: Call, job: Job) -> TaskLabels:
    return TaskLabels(call.state, call.state.tasks.rows[job.task_id])


def put_to_task(call: Call) -> Response:
    """PUT /api/tasks/{id}/annotations: replaces all."""
    task = _with_data(call, the_task(call))
    found = checked(call.object(), TaskLabels(call.state, task))
    with call.state.store.change():
        clear_task(call.state, task)
        return _answer(add_to_task(call.state, task, found))


def put_to_job(call: Call) -> Response:
    """PUT /api/jobs/{id}/annotations: replaces all."""
    job, state = the_job(call), call.state
    found = checked(call.object(), _labels(call, job))
    with state.store.change():
        state.annotations.clear(job.id)
        made = {kind: [store(state, job, kind, item) for item in found[kind]] for kind in KINDS}
        state.touch(job)
    return _answer(made)


def delete_of_task(call: Call) -> Response:
    """DELETE /api/tasks/{id}/annotations."""
    clear_task(call.state, the_task(call))
    return Response(status_code=204)


def delete_of_job(call: Call) -> Response:
    """DELETE /api/jobs/{id}/annotations."""
    job = the_job(call)
    with call.state.store.change():
        call.state.annotations.clear(job.id)
        call.state.touch(job)
    return Response(status_code=204)


def _with_data(call: Call, task: Task) -> Task:
    if task.data_id is None:
        raise Refusal(400, ["The task has no data"])
    return task


def _action(call: Call) -> str:
    action = call.query.get("action", "")
    if action not in ("create", "update", "delete"):
        raise Refusal(400, ["Please specify a correct 'action' for the request"])
    return action


def patch_task(call: Call) -> Response:
    """PATCH /api/tasks/{id}/annotations?action=create|update|delete."""
    action, task, state = _action(call), _with_data(call, the_task(call)), call.state
    found = checked(call.object(), TaskLabels(state, task))
    if action == "create":
        return _answer(add_to_task(state, task, found))
    jobs = _annotation_jobs(state, task)
    with state.store.change():
        gone = _removed(state, jobs, found)
        if action == "delete":
            return _answer(found)
        made = []
        for job in jobs:
            part = sliced(found, job)
            kept = {k: [store(state, job, k, item, keep=item["id"] in gone[k]) for item in part[k]] for k in KINDS}
            made.append((job.start_frame, job.stop_frame, kept))
            state.touch(job)
    return _answer(tracks.merge([(start, stop, copy.deepcopy(part)) for start, stop, part in made]))


def patch_job(call: Call) -> Response:
    """PATCH /api/jobs/{id}/annotations?action=create|update|delete."""
    action, job, state = _action(call), the_job(call), call.state
    found = checked(call.object(), _labels(call, job))
    with state.store.change():
        gone = _removed(state, [job], found) if action != "create" else {kind: set() for kind in KINDS}
        if action == "delete":
            made = found
        else:
            made = {k: [store(state, job, k, i, keep=i["id"] in gone[k]) for i in found[k]] for k in KINDS}
        state.touch(job)
    return _answer(made)


def _removed(state: State, jobs: list[Job], found: Parts) -> dict[str, set[int]]:
    """Removes the items with these ids from the jobs; returns the ids that were there."""
    gone: dict[str, set[int]] = {kind: set() for kind in KINDS}
    for kind in KINDS:
        for item in found[kind]:
            hits = [job for job in jobs if state.annotations.remove(job.id, kind, item["id"])]
            if hits:
                gone[kind].add(item["id"])
    return gone

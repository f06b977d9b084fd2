"""Jobs."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from agent.sandbox.accounts import brief
from agent.sandbox.exchange import Call, Refusal, forbidden, reply
from agent.sandbox.listing import listed, plain
from agent.sandbox.permissions import check_assignee, in_scope, may_job, may_task, the_job, the_task
from agent.sandbox.records import JSON, Job, now
from agent.sandbox.state import State
from agent.sandbox.tasks import remove_job
from agent.sandbox.validation import ground_truth_frames
from agent.sandbox.webhooks import announce, changed

STATES = ("new", "in progress", "rejected", "completed")
STAGES = ("annotation", "validation", "acceptance")


def view(call: Call, job: Job) -> JSON:
    """A job as the API tells it; a mere assignee is not told the task's name."""
    state = call.state
    task = state.tasks.rows[job.task_id]
    data = state.data.get(task.data_id)
    project = state.projects.get(task.project_id)
    return {
        "url": call.link(f"/api/jobs/{job.id}"),
        "id": job.id,
        "task_id": job.task_id,
        "task_name": task.name if may_task(call, task) else None,
        "project_id": task.project_id,
        "project_name": project.name if project else None,
        "assignee": brief(call, job.assignee_id),
        "guide_id": None,
        "dimension": task.dimension,
        "mode": task.mode,
        "media_type": task.media_type,
        "bug_tracker": project.bug_tracker if project else (task.bug_tracker or None),
        "status": job.status,
        "stage": job.stage,
        "state": job.state,
        "frame_count": len(job.numbers),
        "start_frame": job.start_frame,
        "stop_frame": job.stop_frame,
        "data_chunk_size": data.chunk_size if data else None,
        "data_compressed_chunk_type": data.compressed_chunk_type if data else None,
        "data_original_chunk_type": data.original_chunk_type if data else None,
        "created_date": job.created_date,
        "updated_date": job.updated_date,
        "issues": {
            "url": call.link(f"/api/issues?job_id={job.id}"),
            "count": len(state.issues.where(job_id=job.id)),
        },
        "labels": {"url": call.link(f"/api/labels?job_id={job.id}")},
        "type": job.type,
        "organization": task.organization_id,
        "target_storage": None,
        "source_storage": None,
        "assignee_updated_date": job.assignee_updated_date,
        "parent_job_id": None,
        "replicas_count": 0,
        "consensus_replicas": 0,
    }


def _fields(state: State) -> dict[str, Any]:
    def task_field(name: str) -> Any:
        return lambda job: getattr(state.tasks.rows[job.task_id], name)

    def project_name(job: Job) -> str | None:
        project = state.projects.get(state.tasks.rows[job.task_id].project_id)
        return project.name if project else None

    def assignee(job: Job) -> str | None:
        user = state.users.get(job.assignee_id)
        return user.username if user else None

    own = ("id", "task_id", "state", "stage", "type", "status", "updated_date", "created_date")
    return {
        **plain(*own, "start_frame", "stop_frame"),
        **{name: task_field(name) for name in ("project_id", "dimension", "mode", "media_type")},
        "task_name": task_field("name"),
        "project_name": project_name,
        "assignee": assignee,
        "parent_job_id": lambda job: None,
    }


def list_jobs(call: Call) -> Response:
    """GET /api/jobs: newest first."""
    state = call.state
    tasks = {task.id: task for task in state.tasks.all() if in_scope(call, task.organization_id)}
    wanted = call.query.get("task_id", "")
    found = state.jobs.where(task_id=int(wanted)) if wanted.isdigit() else state.jobs.all()
    seen = [job for job in found if job.task_id in tasks and may_job(call, job)]
    look_in = ("task_name", "project_name", "assignee", "state", "stage")
    return listed(call, seen, _fields(state), lambda job: view(call, job), search=look_in)


def get_job(call: Call) -> Response:
    """GET /api/jobs/{id}."""
    return reply(view(call, the_job(call)))


def create_job(call: Call) -> Response:
    """POST /api/jobs: a ground truth job, the only kind that can be made by hand."""
    sent, state = call.object(), call.state
    if sent.get("type") != "ground_truth":
        raise Refusal(400, {"type": ["This job type cannot be created through this endpoint"]})
    if not isinstance(sent.get("task_id"), int):
        raise Refusal(400, {"task_id": ["This field is required."]})
    task = the_task(call, sent["task_id"])
    data = state.data.get(task.data_id)
    if data is None:
        raise Refusal(400, ["This task has no data attached yet. Please set up task data and try again"])
    if task.mode == "interpolation" and data.original_chunk_type == "imageset":
        raise Refusal(400, ["Ground Truth jobs can't be added in this task"])
    if state.jobs.first(task_id=task.id, type="ground_truth"):
        raise Refusal(400, ["The task already has a Ground Truth job. Use it or remove it"])
    frames = ground_truth_frames(sent, list(range(data.size)))
    with state.store.change():
        job = state.jobs.add(
            task_id=task.id, type="ground_truth", start_frame=0, stop_frame=data.size - 1, frames=frames
        )
        data.validation = {"mode": "gt", "frames": frames, "disabled": []}
        task.validation_mode = "gt"
        state.data.save(data)
        state.touch(task)
    shown = view(call, job)
    announce(call, "create:job", task, {"job": shown})
    return reply(shown, 201, {"Location": shown["url"]})


def patch_job(call: Call) -> Response:
    """PATCH /api/jobs/{id}: the state is the assignee's to set, stage and assignee are the task staff's."""
    job, sent, state = the_job(call), call.object(), call.state
    task = state.tasks.rows[job.task_id]
    for name, choices in (("state", STATES), ("stage", STAGES)):
        if name in sent and sent[name] not in choices:
            raise Refusal(400, {name: [f'"{sent[name]}" is not a valid choice.']})
    if sent.keys() & {"stage", "assignee"} and not may_task(call, task):
        raise forbidden()
    if "assignee" in sent:
        check_assignee(call, sent["assignee"], task.organization_id)
    before = view(call, job)
    with state.store.change():
        if "stage" in sent and sent["stage"] != job.stage and "state" not in sent:
            job.state = "new"
        job.state, job.stage = sent.get("state", job.state), sent.get("stage", job.stage)
        if "assignee" in sent and sent["assignee"] != job.assignee_id:
            job.assignee_id, job.assignee_updated_date = sent["assignee"], now()
        state.touch(job, task)
    shown = view(call, job)
    announce(call, "update:job", task, {"job": shown, **changed(before, shown)})
    return reply(shown)


def delete_job(call: Call) -> Response:
    """DELETE /api/jobs/{id}: only a ground truth job can be deleted."""
    job, state = the_job(call), call.state
    task = state.tasks.rows[job.task_id]
    if not may_task(call, task):
        raise forbidden()
    if job.type != "ground_truth":
        raise Refusal(400, ["Only ground truth jobs can be removed"])
    if task.validation_mode == "gt_pool":
        raise Refusal(400, ['GT jobs cannot be removed when task validation mode is "gt_pool"'])
    shown = view(call, job)
    with state.store.change():
        remove_job(state, job.id)
        data = state.data.rows[task.data_id or 0]
        data.validation, task.validation_mode = None, None
        state.data.save(data)
        state.touch(task)
    announce(call, "delete:job", task, {"job": shown})
    return Response(status_code=204)

"""Tasks and their jobs' summary."""

from __future__ import annotations

import shutil
from typing import Any

from starlette.responses import Response

from agent.sandbox import labels
from agent.sandbox.accounts import brief
from agent.sandbox.exchange import Call, Refusal, forbidden, reply, whole
from agent.sandbox.listing import listed, plain
from agent.sandbox.permissions import check_assignee, in_scope, may_create, may_task, the_project, the_task
from agent.sandbox.records import JSON, Task, now
from agent.sandbox.state import State
from agent.sandbox.webhooks import announce, changed


def status(state: State, task: Task) -> str:
    """The least advanced status of its jobs."""
    found = {job.status for job in state.jobs.where(task_id=task.id, type="annotation")}
    return next(
        (word for word in ("annotation", "validation") if word in found),
        "completed" if found else "annotation",
    )


def view(call: Call, task: Task) -> JSON:
    """A task as the API tells it; sizes and the like are there once it has data."""
    state = call.state
    data = state.data.get(task.data_id)
    jobs = state.jobs.where(task_id=task.id)
    project = state.projects.get(task.project_id)
    media = {}
    if data is not None:
        media = {
            "data_chunk_size": data.chunk_size,
            "data_original_chunk_type": data.original_chunk_type,
            "data_compressed_chunk_type": data.compressed_chunk_type,
            "data_cloud_storage_id": None,
            "size": data.size,
            "image_quality": data.image_quality,
        }
    return {
        "url": call.link(f"/api/tasks/{task.id}"),
        "id": task.id,
        "name": task.name,
        "project_id": task.project_id,
        "project_name": project.name if project else None,
        "owner": brief(call, task.owner_id),
        "assignee": brief(call, task.assignee_id),
        "bug_tracker": task.bug_tracker,
        "created_date": task.created_date,
        "updated_date": task.updated_date,
        "overlap": task.overlap,
        "segment_size": task.segment_size,
        "status": status(state, task),
        "guide_id": None,
        "data": task.data_id,
        "dimension": task.dimension,
        "mode": task.mode,
        "media_type": task.media_type,
        "subset": task.subset,
        "organization_id": task.organization_id,
        "organization": task.organization_id,
        "target_storage": None,
        "source_storage": None,
        "jobs": {
            "count": len(jobs),
            "completed": sum(job.status == "completed" for job in jobs),
            "validation": sum(job.stage == "validation" for job in jobs),
            "url": call.link(f"/api/jobs?task_id={task.id}"),
        },
        "labels": {"url": call.link(f"/api/labels?task_id={task.id}")},
        "assignee_updated_date": task.assignee_updated_date,
        "validation_mode": task.validation_mode,
        "consensus_enabled": False,
        **media,
    }


def _fields(state: State) -> dict[str, Any]:
    def username(user_id: int | None) -> str | None:
        user = state.users.get(user_id)
        return user.username if user else None

    def project_name(task: Task) -> str | None:
        project = state.projects.get(task.project_id)
        return project.name if project else None

    own = ("id", "name", "project_id", "subset", "mode", "dimension", "media_type", "validation_mode")
    dates = ("updated_date", "created_date", "bug_tracker")
    return {
        **plain(*own, *dates),
        "project_name": project_name,
        "tracker_link": lambda task: task.bug_tracker,
        "owner": lambda task: username(task.owner_id),
        "assignee": lambda task: username(task.assignee_id),
        "status": lambda task: status(state, task),
    }


def list_tasks(call: Call) -> Response:
    """GET /api/tasks."""
    seen = [task for task in call.state.tasks.all() if in_scope(call, task.organization_id) and may_task(call, task)]
    look_in = ("project_name", "name", "owner", "status", "assignee", "subset", "mode", "dimension")
    return listed(call, seen, _fields(call.state), lambda task: view(call, task), search=look_in)


def create_task(call: Call) -> Response:
    """POST /api/tasks: without data yet."""
    sent, state = call.object(), call.state
    if not isinstance(sent.get("name"), str) or not sent["name"]:
        raise Refusal(400, {"name": ["This field is required."]})
    if not may_create(call):
        raise forbidden()
    project = the_project(call, sent["project_id"]) if sent.get("project_id") is not None else None
    if project is not None and sent.get("labels"):
        raise Refusal(400, ["Labels cannot be specified when project_id is specified"])
    wanted = labels.check_labels(sent.get("labels") or [])
    organization = project.organization_id if project else (call.organization.id if call.organization else None)
    check_assignee(call, sent.get("assignee_id"), organization)
    with state.store.change():
        task = state.tasks.add(
            name=sent["name"][:256],
            owner_id=call.user.id,
            project_id=project.id if project else None,
            assignee_id=sent.get("assignee_id"),
            organization_id=organization,
            bug_tracker=sent.get("bug_tracker") or "",
            subset=sent.get("subset") or "",
            segment_size=whole(sent, "segment_size", 0),
            overlap=None if sent.get("overlap") is None else whole(sent, "overlap", 0),
        )
        labels.add_labels(state, wanted, task)
        if project is not None:
            state.touch(project)
    shown = view(call, task)
    announce(call, "create:task", task, {"task": shown})
    return reply(shown, 201, {"Location": shown["url"]})


def get_task(call: Call) -> Response:
    """GET /api/tasks/{id}."""
    return reply(view(call, the_task(call)))


def patch_task(call: Call) -> Response:
    """PATCH /api/tasks/{id}."""
    task, sent, state = the_task(call), call.object(), call.state
    before = view(call, task)
    if "assignee_id" in sent:
        check_assignee(call, sent["assignee_id"], task.organization_id)
    wanted = labels.check_labels(sent["labels"]) if "labels" in sent else []
    if wanted and task.project_id is not None:
        raise Refusal(400, ["Labels must be changed in the project"])
    with state.store.change():
        for name in sent.keys() & {"name", "bug_tracker", "subset", "assignee_id"}:
            setattr(task, name, sent[name])
        if "assignee_id" in sent:
            task.assignee_updated_date = now()
        if sent.get("project_id") is not None and sent["project_id"] != task.project_id:
            _move(call, task, the_project(call, sent["project_id"]).id)
        labels.change_labels(state, wanted, task)
        state.touch(task)
    shown = view(call, task)
    announce(call, "update:task", task, {"task": shown, **changed(before, shown)})
    return reply(shown)


def _move(call: Call, task: Task, project_id: int) -> None:
    """Moves a task into a project; its labels become those of the same name there."""
    state = call.state
    by_name = {label.name: label.id for label in state.labels.where(project_id=project_id, parent_id=None)}
    old = state.labels.where(task_id=task.id, parent_id=None)
    absent = [label.name for label in old if label.name not in by_name]
    if absent:
        raise Refusal(400, [f"The project has no label {absent[0]}"])
    renamed = {label.id: by_name[label.name] for label in old}
    for job in state.jobs.where(task_id=task.id):
        for kind in state.annotations.tables:
            for row in state.annotations.of(job.id, kind):
                row.body["label_id"] = renamed.get(row.body["label_id"], row.body["label_id"])
                state.annotations.tables[kind].save(row)
    for label in state.labels.where(task_id=task.id):
        state.labels.remove(label.id)
    task.project_id = project_id


def remove_job(state: State, job_id: int) -> None:
    """Removes a job with its annotations and issues."""
    state.annotations.clear(job_id)
    for issue in state.issues.where(job_id=job_id):
        for comment in state.comments.where(issue_id=issue.id):
            state.comments.remove(comment.id)
        state.issues.remove(issue.id)
    state.jobs.remove(job_id)


def remove_task(state: State, task: Task) -> None:
    """Removes a task with everything that belongs to it."""
    for job in state.jobs.where(task_id=task.id):
        remove_job(state, job.id)
    for label in state.labels.where(task_id=task.id):
        state.labels.remove(label.id)
    for table in (state.requests, state.uploads, state.lambda_requests):
        for row in table.where(task_id=task.id):
            table.remove(row.id)
    for request in state.queued.all():
        if request.params.get("task") == task.id:
            state.queued.remove(request.id)  # its agent is told by a 404
    if task.data_id is not None:
        state.data.remove(task.data_id)
    state.tasks.remove(task.id)


def remove_files(state: State, task: Task) -> None:
    """Removes the media of a removed task; outside of the change, as it can take long."""
    folders = [state.incoming(task.id)]
    if task.data_id is not None:
        folders += [state.media(task.data_id), state.cache(task.data_id)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def delete_task(call: Call) -> Response:
    """DELETE /api/tasks/{id}."""
    task, state = the_task(call), call.state
    shown = view(call, task)
    with state.store.change():
        remove_task(state, task)
    remove_files(state, task)
    announce(call, "delete:task", task, {"task": shown})
    return Response(status_code=204)

"""Projects."""

from __future__ import annotations

from starlette.responses import Response

from agent.sandbox import labels
from agent.sandbox.accounts import brief
from agent.sandbox.exchange import Call, Refusal, forbidden, reply
from agent.sandbox.listing import listed
from agent.sandbox.permissions import check_assignee, in_scope, may_create, may_project, the_project
from agent.sandbox.records import JSON, Project, now
from agent.sandbox.tasks import remove_files, remove_task
from agent.sandbox.webhooks import announce, changed


def view(call: Call, project: Project) -> JSON:
    """A project as the API tells it."""
    state = call.state
    tasks = state.tasks.where(project_id=project.id)
    dimensions = [task.dimension for task in tasks if task.dimension]
    return {
        "url": call.link(f"/api/projects/{project.id}"),
        "id": project.id,
        "name": project.name,
        "owner": brief(call, project.owner_id),
        "assignee": brief(call, project.assignee_id),
        "guide_id": None,
        "bug_tracker": project.bug_tracker,
        "created_date": project.created_date,
        "updated_date": project.updated_date,
        "status": "annotation",
        "dimension": dimensions[0] if dimensions else None,
        "organization": project.organization_id,
        "organization_id": project.organization_id,
        "target_storage": None,
        "source_storage": None,
        "tasks": {"count": len(tasks), "url": call.link(f"/api/tasks?project_id={project.id}")},
        "labels": {"url": call.link(f"/api/labels?project_id={project.id}")},
        "assignee_updated_date": project.assignee_updated_date,
        "task_subsets": sorted({task.subset for task in tasks if task.subset}),
    }


def list_projects(call: Call) -> Response:
    """GET /api/projects."""
    users = call.state.users
    fields = {
        "id": lambda p: p.id,
        "name": lambda p: p.name,
        "owner": lambda p: users.rows[p.owner_id].username,
        "assignee": lambda p: getattr(users.get(p.assignee_id), "username", None),
        "status": lambda p: "annotation",
        "updated_date": lambda p: p.updated_date,
    }
    seen = [p for p in call.state.projects.all() if in_scope(call, p.organization_id) and may_project(call, p)]
    return listed(call, seen, fields, lambda p: view(call, p), search=("name", "owner", "assignee", "status"))


def create_project(call: Call) -> Response:
    """POST /api/projects."""
    sent, state = call.object(), call.state
    if not isinstance(sent.get("name"), str) or not sent["name"]:
        raise Refusal(400, {"name": ["This field is required."]})
    if not may_create(call):
        raise forbidden()
    wanted = labels.check_labels(sent.get("labels") or [])
    organization = call.organization.id if call.organization else None
    check_assignee(call, sent.get("assignee_id"), organization)
    with state.store.change():
        project = state.projects.add(
            name=sent["name"][:256],
            owner_id=call.user.id,
            assignee_id=sent.get("assignee_id"),
            organization_id=organization,
            bug_tracker=sent.get("bug_tracker") or "",
        )
        labels.add_labels(state, wanted, project)
    shown = view(call, project)
    announce(call, "create:project", project, {"project": shown})
    return reply(shown, 201, {"Location": shown["url"]})


def get_project(call: Call) -> Response:
    """GET /api/projects/{id}."""
    return reply(view(call, the_project(call)))


def patch_project(call: Call) -> Response:
    """PATCH /api/projects/{id}."""
    project, sent, state = the_project(call), call.object(), call.state
    before = view(call, project)
    if "assignee_id" in sent:
        check_assignee(call, sent["assignee_id"], project.organization_id)
    wanted = labels.check_labels(sent.get("labels") or [])
    with state.store.change():
        for name in sent.keys() & {"name", "bug_tracker", "assignee_id"}:
            setattr(project, name, sent[name])
        if "assignee_id" in sent:
            project.assignee_updated_date = now()
        labels.change_labels(state, wanted, project)
        state.touch(project)
    shown = view(call, project)
    announce(call, "update:project", project, {"project": shown, **changed(before, shown)})
    return reply(shown)


def delete_project(call: Call) -> Response:
    """DELETE /api/projects/{id}: with its tasks."""
    project, state = the_project(call), call.state
    shown = view(call, project)
    tasks = state.tasks.where(project_id=project.id)
    with state.store.change():
        for task in tasks:
            remove_task(state, task)
        for label in state.labels.where(project_id=project.id):
            state.labels.remove(label.id)
        for hook in state.webhooks.where(project_id=project.id):
            state.webhooks.remove(hook.id)
        state.projects.remove(project.id)
    for task in tasks:
        remove_files(state, task)
    announce(call, "delete:project", project, {"project": shown})
    return Response(status_code=204)

"""Who may do what, after CVAT's rules: staff of tasks and projects, organizations' maintainers, assignees."""

from __future__ import annotations

from agent.sandbox.exchange import Call, forbidden, missing
from agent.sandbox.records import Job, Project, Task, User

_RANK = {"worker": 0, "supervisor": 1, "maintainer": 2, "owner": 3}


def is_admin(call: Call) -> bool:
    """Whether the caller is an administrator of the server."""
    return call.user.is_superuser


def rank(call: Call, organization_id: int | None, user: User | None = None) -> int:
    """A user's (the caller's) standing in an organization; -1 outside it."""
    if organization_id is None:
        return -1
    user_id = (user or call.user).id
    member = call.state.memberships.first(organization_id=organization_id, user_id=user_id)
    return _RANK[member.role] if member else -1


def may_project(call: Call, project: Project) -> bool:
    """Whether the caller is staff of the project."""
    staff = call.user.id in (project.owner_id, project.assignee_id)
    inside = project.organization_id is None or rank(call, project.organization_id) >= 0
    return is_admin(call) or (staff and inside) or rank(call, project.organization_id) >= _RANK["maintainer"]


def may_task(call: Call, task: Task) -> bool:
    """Whether the caller is staff of the task or of its project. A mere assignee of a job is not."""
    staff = call.user.id in (task.owner_id, task.assignee_id)
    inside = task.organization_id is None or rank(call, task.organization_id) >= 0
    if is_admin(call) or (staff and inside) or rank(call, task.organization_id) >= _RANK["maintainer"]:
        return True
    project = call.state.projects.get(task.project_id)
    return project is not None and may_project(call, project)


def may_job(call: Call, job: Job) -> bool:
    """Whether the caller may see the job and annotate in it."""
    task = call.state.tasks.rows[job.task_id]
    inside = task.organization_id is None or rank(call, task.organization_id) >= 0
    return (job.assignee_id == call.user.id and inside) or may_task(call, task)


def the_project(call: Call, id_: int | None = None) -> Project:
    """The project of the path (or with an id), if the caller may use it."""
    project = call.state.projects.get(call.id() if id_ is None else id_)
    if project is None:
        raise missing("Project")
    if not may_project(call, project):
        raise forbidden()
    return project


def the_task(call: Call, id_: int | None = None) -> Task:
    """The task of the path (or with an id), if the caller may use it."""
    task = call.state.tasks.get(call.id() if id_ is None else id_)
    if task is None:
        raise missing("Task")
    if not may_task(call, task):
        raise forbidden()
    return task


def the_job(call: Call, id_: int | None = None) -> Job:
    """The job of the path (or with an id), if the caller may use it."""
    job = call.state.jobs.get(call.id() if id_ is None else id_)
    if job is None:
        raise missing("Job")
    if not may_job(call, job):
        raise forbidden()
    return job


def may_create(call: Call) -> bool:
    """Whether the caller may make tasks and projects where he is."""
    if call.organization is None or is_admin(call):
        return True
    return rank(call, call.organization.id) >= _RANK["supervisor"]


def in_scope(call: Call, organization_id: int | None) -> bool:
    """Whether an object is among what the caller asked for: an organization's, the personal ones, or all."""
    if call.organization is not None:
        return organization_id == call.organization.id
    return not call.personal or organization_id is None


def visible_users(call: Call) -> list[User]:
    """The users that the caller may know of: all for an administrator, else himself and fellow members."""
    if is_admin(call) and call.organization is None:
        return call.state.users.all()
    seen = {call.user.id}
    if call.organization is not None:
        seen |= {m.user_id for m in call.state.memberships.where(organization_id=call.organization.id)}
    return [user for user in call.state.users.all() if user.id in seen]


def check_assignee(call: Call, user_id: int | None, organization_id: int | None) -> None:
    """Refuses an assignee whom the caller may not see."""
    if user_id is None:
        return
    user = call.state.users.get(user_id)
    if user is None:
        raise missing("User")
    fellow = organization_id is not None and rank(call, organization_id, user) >= 0
    if not (is_admin(call) or user_id == call.user.id or fellow):
        raise forbidden()

"""Review issues and their comments."""

from __future__ import annotations

from starlette.responses import Response

from agent.sandbox.accounts import brief
from agent.sandbox.exchange import Call, Refusal, forbidden, missing, reply, whole
from agent.sandbox.listing import listed, plain
from agent.sandbox.permissions import may_job, may_task, the_job
from agent.sandbox.records import JSON, Comment, Issue, Task, now
from agent.sandbox.webhooks import announce, changed


def _view(call: Call, issue: Issue) -> JSON:
    comments = call.state.comments.where(issue_id=issue.id)
    names = ("id", "frame", "position", "created_date", "updated_date", "resolved")
    return {
        **{name: getattr(issue, name) for name in names},
        "job": issue.job_id,
        "owner": brief(call, issue.owner_id),
        "assignee": brief(call, issue.assignee_id),
        "comments": {"url": call.link(f"/api/comments?issue_id={issue.id}"), "count": len(comments)},
    }


def _comment_view(call: Call, comment: Comment) -> JSON:
    names = ("id", "message", "created_date", "updated_date")
    owner = brief(call, comment.owner_id)
    return {**{name: getattr(comment, name) for name in names}, "issue": comment.issue_id, "owner": owner}


def _place(call: Call, issue: Issue) -> Task:
    return call.state.tasks.rows[call.state.jobs.rows[issue.job_id].task_id]


def _the_issue(call: Call, id_: int | None = None) -> Issue:
    issue = call.state.issues.get(call.id() if id_ is None else id_)
    if issue is None:
        raise missing("Issue")
    if not may_job(call, call.state.jobs.rows[issue.job_id]):
        raise forbidden()
    return issue


def list_issues(call: Call) -> Response:
    """GET /api/issues."""
    jobs = call.state.jobs.rows
    seen = [issue for issue in call.state.issues.all() if may_job(call, jobs[issue.job_id])]
    names = ("id", "job_id", "frame", "resolved", "updated_date")
    fields = plain(*names)
    fields["task_id"] = lambda issue: jobs[issue.job_id].task_id
    fields["owner"] = lambda issue: call.state.users.rows[issue.owner_id].username
    return listed(call, seen, fields, lambda issue: _view(call, issue), search=("owner",))


def create_issue(call: Call) -> Response:
    """POST /api/issues: with its first comment."""
    sent, state = call.object(), call.state
    absent = [name for name in ("frame", "position", "job", "message") if sent.get(name) is None]
    if absent:
        raise Refusal(400, {name: ["This field is required."] for name in absent})
    job = the_job(call, sent["job"])
    with state.store.change():
        place = {
            "job_id": job.id,
            "frame": whole(sent, "frame", 0),
            "position": [float(n) for n in sent["position"]],
        }
        issue = state.issues.add(
            owner_id=call.user.id,
            assignee_id=sent.get("assignee"),
            resolved=bool(sent.get("resolved")),
            **place,
        )
        state.comments.add(issue_id=issue.id, owner_id=call.user.id, message=str(sent["message"]))
    shown = _view(call, issue)
    announce(call, "create:issue", _place(call, issue), {"issue": shown})
    return reply(shown, 201)


def get_issue(call: Call) -> Response:
    """GET /api/issues/{id}."""
    return reply(_view(call, _the_issue(call)))


def patch_issue(call: Call) -> Response:
    """PATCH /api/issues/{id}."""
    issue, sent = _the_issue(call), call.object()
    before = _view(call, issue)
    with call.state.store.change():
        issue.resolved = bool(sent.get("resolved", issue.resolved))
        issue.position = sent.get("position", issue.position)
        issue.assignee_id = sent.get("assignee", issue.assignee_id)
        issue.updated_date = now()
        call.state.issues.save(issue)
    shown = _view(call, issue)
    announce(call, "update:issue", _place(call, issue), {"issue": shown, **changed(before, shown)})
    return reply(shown)


def delete_issue(call: Call) -> Response:
    """DELETE /api/issues/{id}."""
    issue, state = _the_issue(call), call.state
    if issue.owner_id != call.user.id and not may_task(call, _place(call, issue)):
        raise forbidden()
    with state.store.change():
        for comment in state.comments.where(issue_id=issue.id):
            state.comments.remove(comment.id)
        state.issues.remove(issue.id)
    return Response(status_code=204)


def list_comments(call: Call) -> Response:
    """GET /api/comments."""
    state = call.state
    jobs, issues = state.jobs.rows, state.issues.rows
    seen = [c for c in state.comments.all() if may_job(call, jobs[issues[c.issue_id].job_id])]
    fields = {
        "id": lambda c: c.id,
        "issue_id": lambda c: c.issue_id,
        "job_id": lambda c: issues[c.issue_id].job_id,
        "owner": lambda c: state.users.rows[c.owner_id].username,
    }
    return listed(call, seen, fields, lambda c: _comment_view(call, c), search=("owner",))


def create_comment(call: Call) -> Response:
    """POST /api/comments."""
    sent = call.object()
    if not isinstance(sent.get("issue"), int) or not sent.get("message"):
        raise Refusal(400, {"issue": ["This field is required."], "message": ["This field is required."]})
    issue = _the_issue(call, sent["issue"])
    comment = call.state.comments.add(issue_id=issue.id, owner_id=call.user.id, message=str(sent["message"]))
    shown = _comment_view(call, comment)
    announce(call, "create:comment", _place(call, issue), {"comment": shown})
    return reply(shown, 201)


def _own_comment(call: Call) -> Comment:
    comment = call.state.comments.get(call.id())
    if comment is None:
        raise missing("Comment")
    issue = _the_issue(call, comment.issue_id)
    if comment.owner_id != call.user.id and not may_task(call, _place(call, issue)):
        raise forbidden()
    return comment


def get_comment(call: Call) -> Response:
    """GET /api/comments/{id}."""
    comment = call.state.comments.get(call.id())
    if comment is None:
        raise missing("Comment")
    _the_issue(call, comment.issue_id)
    return reply(_comment_view(call, comment))


def patch_comment(call: Call) -> Response:
    """PATCH /api/comments/{id}."""
    comment = _own_comment(call)
    with call.state.store.change():
        comment.message, comment.updated_date = str(call.object().get("message", comment.message)), now()
        call.state.comments.save(comment)
    return reply(_comment_view(call, comment))


def delete_comment(call: Call) -> Response:
    """DELETE /api/comments/{id}."""
    call.state.comments.remove(_own_comment(call).id)
    return Response(status_code=204)

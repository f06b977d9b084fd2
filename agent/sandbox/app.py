"""The application: which handler serves which route."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent.sandbox import (
    access_tokens,
    accounts,
    background,
    frames,
    issues,
    jobs,
    labeled_data,
    labels,
    lambda_functions,
    lambda_requests,
    native_functions,
    organizations,
    projects,
    queue,
    tasks,
    uploads,
    validation,
    webhooks,
)
from agent.sandbox.endpoints import AsyncHandler, Handler, streamed, threaded
from agent.sandbox.exchange import NOT_FOUND, Call, page, reply
from agent.sandbox.state import VERSION, State

_ABOUT = {
    "name": "Computer Vision Annotation Tool",
    "description": "A stand-in for CVAT, for demonstrations and tests.",
    "version": VERSION,
    "subtitle": "Sandbox",
}


def about(call: Call) -> Response:
    """GET /api/server/about: for anyone."""
    return reply({**_ABOUT, "logo_url": call.link("/static/logo.svg")})


def plugins(call: Call) -> Response:
    """GET /api/server/plugins."""
    return reply({"ANALYTICS": False, "MODELS": True})


ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/api/server/plugins", plugins),
    ("POST", "/api/auth/logout", accounts.log_out),
    ("GET", "/api/auth/access_tokens", access_tokens.list_access_tokens),
    ("POST", "/api/auth/access_tokens", access_tokens.create_access_token),
    ("GET", "/api/auth/access_tokens/self", access_tokens.this_access_token),
    ("GET", "/api/auth/access_tokens/{id:int}", access_tokens.get_access_token),
    ("PATCH", "/api/auth/access_tokens/{id:int}", access_tokens.patch_access_token),
    ("DELETE", "/api/auth/access_tokens/{id:int}", access_tokens.delete_access_token),
    ("GET", "/api/users/self", accounts.self_),
    ("GET", "/api/users", accounts.list_users),
    ("GET", "/api/users/{id:int}", accounts.get_user),
    ("GET", "/api/organizations", organizations.list_organizations),
    ("POST", "/api/organizations", organizations.create_organization),
    ("GET", "/api/organizations/{id:int}", organizations.get_organization),
    ("PATCH", "/api/organizations/{id:int}", organizations.patch_organization),
    ("DELETE", "/api/organizations/{id:int}", organizations.delete_organization),
    ("GET", "/api/invitations", organizations.list_invitations),
    ("POST", "/api/invitations", organizations.create_invitation),
    ("GET", "/api/memberships", organizations.list_memberships),
    ("PATCH", "/api/memberships/{id:int}", organizations.patch_membership),
    ("DELETE", "/api/memberships/{id:int}", organizations.delete_membership),
    ("GET", "/api/labels", labels.list_labels),
    ("GET", "/api/labels/{id:int}", labels.get_label),
    ("PATCH", "/api/labels/{id:int}", labels.patch_label),
    ("DELETE", "/api/labels/{id:int}", labels.delete_label),
    ("GET", "/api/projects", projects.list_projects),
    ("POST", "/api/projects", projects.create_project),
    ("GET", "/api/projects/{id:int}", projects.get_project),
    ("PATCH", "/api/projects/{id:int}", projects.patch_project),
    ("DELETE", "/api/projects/{id:int}", projects.delete_project),
    ("GET", "/api/tasks", tasks.list_tasks),
    ("POST", "/api/tasks", tasks.create_task),
    ("GET", "/api/tasks/{id:int}", tasks.get_task),
    ("PATCH", "/api/tasks/{id:int}", tasks.patch_task),
    ("DELETE", "/api/tasks/{id:int}", tasks.delete_task),
    ("GET", "/api/tasks/{id:int}/preview", frames.task_preview),
    ("GET", "/api/tasks/{id:int}/data/meta", frames.task_meta),
    ("PATCH", "/api/tasks/{id:int}/data/meta", frames.patch_task_meta),
    ("GET", "/api/tasks/{id:int}/data", frames.task_data),
    ("HEAD", "/api/tasks/{id:int}/data/{key}", uploads.head_upload),
    ("GET", "/api/tasks/{id:int}/validation_layout", validation.get_task_layout),
    ("PATCH", "/api/tasks/{id:int}/validation_layout", validation.patch_task_layout),
    ("GET", "/api/tasks/{id:int}/annotations", labeled_data.get_of_task),
    ("PUT", "/api/tasks/{id:int}/annotations", labeled_data.put_to_task),
    ("PATCH", "/api/tasks/{id:int}/annotations", labeled_data.patch_task),
    ("DELETE", "/api/tasks/{id:int}/annotations", labeled_data.delete_of_task),
    ("GET", "/api/jobs", jobs.list_jobs),
    ("POST", "/api/jobs", jobs.create_job),
    ("GET", "/api/jobs/{id:int}", jobs.get_job),
    ("PATCH", "/api/jobs/{id:int}", jobs.patch_job),
    ("DELETE", "/api/jobs/{id:int}", jobs.delete_job),
    ("GET", "/api/jobs/{id:int}/preview", frames.job_preview),
    ("GET", "/api/jobs/{id:int}/data/meta", frames.job_meta),
    ("PATCH", "/api/jobs/{id:int}/data/meta", frames.patch_job_meta),
    ("GET", "/api/jobs/{id:int}/data", frames.job_data),
    ("GET", "/api/jobs/{id:int}/validation_layout", validation.get_job_layout),
    ("GET", "/api/jobs/{id:int}/annotations", labeled_data.get_of_job),
    ("PUT", "/api/jobs/{id:int}/annotations", labeled_data.put_to_job),
    ("PATCH", "/api/jobs/{id:int}/annotations", labeled_data.patch_job),
    ("DELETE", "/api/jobs/{id:int}/annotations", labeled_data.delete_of_job),
    ("GET", "/api/requests", background.list_requests),
    ("GET", "/api/requests/{rq_id:path}", background.get_request),
    ("GET", "/api/lambda/functions", lambda_functions.list_functions),
    ("GET", "/api/lambda/functions/{name}", lambda_functions.get_function),
    ("POST", "/api/lambda/functions/{name}", lambda_functions.call_function),
    ("GET", "/api/lambda/requests", lambda_requests.list_requests),
    ("POST", "/api/lambda/requests", lambda_requests.create_request),
    ("GET", "/api/lambda/requests/{rq_id:path}", lambda_requests.get_request),
    ("DELETE", "/api/lambda/requests/{rq_id:path}", lambda_requests.delete_request),
    ("POST", "/api/functions", native_functions.create_function),
    ("GET", "/api/functions/{id:int}", native_functions.get_function),
    ("DELETE", "/api/functions/{id:int}", queue.delete_function),
    ("POST", "/api/functions/queues/{queue}/requests/acquire", queue.acquire),
    ("POST", "/api/functions/queues/{queue}/requests/{ar_id}/update", queue.update),
    ("POST", "/api/functions/queues/{queue}/requests/{ar_id}/complete", queue.complete),
    ("POST", "/api/functions/queues/{queue}/requests/{ar_id}/fail", queue.fail),
    ("GET", "/api/issues", issues.list_issues),
    ("POST", "/api/issues", issues.create_issue),
    ("GET", "/api/issues/{id:int}", issues.get_issue),
    ("PATCH", "/api/issues/{id:int}", issues.patch_issue),
    ("DELETE", "/api/issues/{id:int}", issues.delete_issue),
    ("GET", "/api/comments", issues.list_comments),
    ("POST", "/api/comments", issues.create_comment),
    ("GET", "/api/comments/{id:int}", issues.get_comment),
    ("PATCH", "/api/comments/{id:int}", issues.patch_comment),
    ("DELETE", "/api/comments/{id:int}", issues.delete_comment),
    ("GET", "/api/webhooks", webhooks.list_webhooks),
    ("POST", "/api/webhooks", webhooks.create_webhook),
    ("GET", "/api/webhooks/events", webhooks.list_events),
    ("GET", "/api/webhooks/{id:int}", webhooks.get_webhook),
    ("PATCH", "/api/webhooks/{id:int}", webhooks.patch_webhook),
    ("DELETE", "/api/webhooks/{id:int}", webhooks.delete_webhook),
    ("POST", "/api/webhooks/{id:int}/ping", webhooks.ping),
    ("GET", "/api/webhooks/{id:int}/deliveries", webhooks.list_deliveries),
    ("GET", "/api/webhooks/{id:int}/deliveries/{delivery_id:int}", webhooks.get_delivery),
    ("POST", "/api/webhooks/{id:int}/deliveries/{delivery_id:int}/redelivery", webhooks.redeliver),
]
STREAMED: list[tuple[str, str, AsyncHandler]] = [
    ("POST", "/api/tasks/{id:int}/data", uploads.post_data),
    ("PATCH", "/api/tasks/{id:int}/data/{key}", uploads.patch_upload),
    ("GET", "/api/functions/queues/{queue}/watch", queue.watch),
]
ANYONE: list[tuple[str, str, Handler]] = [
    ("GET", "/api/server/about", about),
    ("POST", "/api/auth/login", accounts.log_in),
    ("GET", "/api/functions", native_functions.no_list),
]
# The SDK sends these with a trailing slash; everywhere else that is another, unknown route.
_SLASHED = ("/data", "/annotations")


async def _unknown(request: Request, error: Exception) -> Response:
    return page(NOT_FOUND, 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    return reply({"detail": f'Method "{request.method}" not allowed.'}, 405)


def build(state: State) -> Starlette:
    """The application that serves a state."""
    routes: list[Route] = []
    for method, path, anyone in ANYONE:
        routes.append(Route(path, threaded(anyone, anyone=True), methods=[method]))
    for method, path, handler in ROUTES:
        places = [path, path + "/"] if path.endswith(_SLASHED) else [path]
        routes += [Route(place, threaded(handler), methods=[method]) for place in places]
    for method, path, stream in STREAMED:
        places = [path, path + "/"] if path.endswith(_SLASHED) else [path]
        routes += [Route(place, streamed(stream), methods=[method]) for place in places]
    app = Starlette(
        routes=routes,
        exception_handlers={404: _unknown, 405: _wrong_method},
        middleware=[Middleware(GZipMiddleware, minimum_size=1000, compresslevel=1)],
    )
    app.router.redirect_slashes = False
    app.state.sandbox = state
    return app

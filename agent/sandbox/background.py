"""Background requests: /api/requests."""

from __future__ import annotations

from starlette.responses import Response

from agent.sandbox.creation import request_view
from agent.sandbox.exchange import Call, page, reply
from agent.sandbox.listing import listed, plain
from agent.sandbox.permissions import is_admin
from agent.sandbox.records import Request


def _visible(call: Call, request: Request) -> bool:
    return request.owner_id == call.user.id or is_admin(call)


def list_requests(call: Call) -> Response:
    """GET /api/requests."""
    names = ("id", "task_id", "status", "created_date")
    fields = plain(*names)
    fields |= {"action": lambda _: "create", "target": lambda _: "task"}
    seen = [request for request in call.state.requests.all() if _visible(call, request)]
    return listed(call, seen, fields, lambda request: request_view(call.state, request))


def get_request(call: Call) -> Response:
    """GET /api/requests/{rq_id}; an unknown one is a bare sentence, as at CVAT."""
    request = call.state.requests.first(rq_id=call.text("rq_id"))
    if request is None or not _visible(call, request):
        return page("There is no request with specified id", 404)
    with call.state.store.lock:  # whoever is told of an end finds it on the disk
        return reply(request_view(call.state, request))

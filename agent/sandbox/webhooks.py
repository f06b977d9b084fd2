"""Webhooks: signed deliveries of what happens in a project or an organization."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from typing import Any

from starlette.responses import Response

from agent.sandbox.accounts import brief
from agent.sandbox.exchange import Call, Refusal, forbidden, missing, reply
from agent.sandbox.listing import listed, plain
from agent.sandbox.permissions import in_scope, is_admin, rank, the_project
from agent.sandbox.records import JSON, Delivery, Project, Task, Webhook, now
from agent.sandbox.state import State

_OBJECTS = ("task", "job", "issue", "comment")
_REQUESTS = (
    ("completed:request[export:dataset]", "Dataset export"),
    ("completed:request[export:annotations]", "Dataset export"),
    ("completed:request[export:backup]", "Backup export"),
    ("completed:request[create:task]", "Task data creation"),
    ("completed:request[merge:task]", "Consensus merge"),
    ("completed:request[merge:job]", "Consensus merge"),
    ("completed:request[calculate:quality]", "Quality report creation"),
)
_SHARED = [(f"{verb}:{name}", name.capitalize()) for name in _OBJECTS for verb in ("create", "update", "delete")]
EVENTS = {
    "project": [*_SHARED, *_REQUESTS, ("update:project", "Project"), ("delete:project", "Project")],
    "organization": [
        *_SHARED,
        *_REQUESTS,
        *((f"{verb}:project", "Project") for verb in ("create", "update", "delete")),
        *((f"{verb}:invitation", "Invitation") for verb in ("create", "delete")),
        *((f"{verb}:membership", "Membership") for verb in ("update", "delete")),
        ("update:organization", "Organization"),
    ],
}
_KEEP = 200


def changed(before: JSON, after: JSON) -> JSON:
    """What an update event tells besides the object: the old values, and both of what changed."""
    names = [name for name in after if after[name] != before.get(name)]
    return {
        "before_update": {name: before.get(name) for name in names},
        "changes": {name: {"from": before.get(name), "to": after[name]} for name in names},
    }


def announce(call: Call, event: str, place: Task | Project, payload: JSON) -> None:
    """Delivers an event, in the background, to the project's and organization's webhooks that ask for it."""
    state = call.state
    project_id = place.project_id if isinstance(place, Task) else place.id
    for hook in state.webhooks.all():
        ours = hook.project_id == project_id if hook.project_id else hook.organization_id == place.organization_id
        if ours and hook.is_active and event in hook.events and (hook.project_id or hook.organization_id):
            body = {"event": event, "webhook_id": hook.id, **payload, "sender": brief(call, call.user.id)}
            state.submit("webhooks", deliver, state, hook, event, body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **more: Any) -> None:
        """Deliveries go where they were told to, and nowhere else."""
        return


def deliver(state: State, hook: Webhook, event: str, body: JSON, redelivery: bool = False) -> Delivery:
    """Sends one delivery and keeps a record of it."""
    content = json.dumps(body).encode()
    headers = {"Content-Type": hook.content_type, "User-Agent": "CVAT/webhooks"}
    if hook.secret:
        headers["X-Signature-256"] = "sha256=" + hmac.new(hook.secret.encode(), content, hashlib.sha256).hexdigest()
    started = time.monotonic()
    status: int | None = None
    text = ""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        request = urllib.request.Request(hook.target_url, content, headers, method="POST")
        with opener.open(request, timeout=10) as answer:
            status, text = answer.status, answer.read(4096).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        status = error.code
        error.close()
    except (OSError, ValueError):
        status = 502
    with state.store.change():
        old = state.deliveries.where(webhook_id=hook.id)
        for delivery in old[: max(0, len(old) - _KEEP + 1)]:
            state.deliveries.remove(delivery.id)
        return state.deliveries.add(
            webhook_id=hook.id,
            event=event,
            request=body,
            status_code=status,
            redelivery=redelivery,
            request_duration=int((time.monotonic() - started) * 1000),
            changed_fields=",".join(body.get("changes", {})),
            response=text,
        )


def _view(call: Call, hook: Webhook) -> JSON:
    names = ("target_url", "description", "type", "content_type", "is_active", "enable_ssl")
    return {
        "id": hook.id,
        "url": call.link(f"/api/webhooks/{hook.id}"),
        **{name: getattr(hook, name) for name in names},
        "created_date": hook.created_date,
        "updated_date": hook.updated_date,
        "owner": brief(call, hook.owner_id),
        "project_id": hook.project_id,
        "organization": hook.organization_id,
        "events": hook.events,
    }


def _delivery_view(delivery: Delivery) -> JSON:
    return {**vars(delivery), "attempt": 1}


def _mine(call: Call, hook: Webhook) -> bool:
    return is_admin(call) or hook.owner_id == call.user.id or rank(call, hook.organization_id) >= 2


def _the_hook(call: Call) -> Webhook:
    hook = call.state.webhooks.get(call.id())
    if hook is None:
        raise missing("Webhook")
    if not _mine(call, hook):
        raise forbidden()
    return hook


def list_webhooks(call: Call) -> Response:
    """GET /api/webhooks."""
    names = ("id", "target_url", "type", "description", "project_id", "updated_date")
    fields = plain(*names)
    seen = [h for h in call.state.webhooks.all() if _mine(call, h) and in_scope(call, h.organization_id)]
    return listed(call, seen, fields, lambda hook: _view(call, hook), search=("target_url", "description"))


def _checked(sent: JSON, kind: str) -> JSON:
    known = {key for key, _ in EVENTS[kind]}
    url = sent.get("target_url", "http://x")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise Refusal(400, {"target_url": ["Enter a valid URL."]})
    if not set(sent.get("events", [])) <= known:
        raise Refusal(400, {"events": [f"Invalid events list for {kind} webhook"]})
    names = {"target_url", "events", "description", "content_type", "is_active", "enable_ssl", "secret"}
    return {name: sent[name] for name in sent.keys() & names}


def create_webhook(call: Call) -> Response:
    """POST /api/webhooks."""
    sent = call.object()
    kind = sent.get("type")
    if kind not in EVENTS or not sent.get("target_url") or not sent.get("events"):
        absent = [name for name in ("target_url", "type", "events") if not sent.get(name)]
        raise Refusal(400, {name: ["This field is required."] for name in absent} or {"type": ["Not a valid choice."]})
    organization = call.organization.id if call.organization else None
    if kind == "project":
        project = the_project(call, sent.get("project_id"))
        place = {"project_id": project.id, "organization_id": project.organization_id}
    elif organization is None or (rank(call, organization) < 2 and not is_admin(call)):
        raise forbidden()
    else:
        place = {"project_id": None, "organization_id": organization}
    hook = call.state.webhooks.add(owner_id=call.user.id, type=kind, **place, **_checked(sent, kind))
    return reply(_view(call, hook), 201, {"Location": call.link(f"/api/webhooks/{hook.id}")})


def get_webhook(call: Call) -> Response:
    """GET /api/webhooks/{id}."""
    return reply(_view(call, _the_hook(call)))


def patch_webhook(call: Call) -> Response:
    """PATCH /api/webhooks/{id}."""
    hook = _the_hook(call)
    with call.state.store.change():
        for name, value in _checked(call.object(), hook.type).items():
            setattr(hook, name, value)
        hook.updated_date = now()
        call.state.webhooks.save(hook)
    return reply(_view(call, hook))


def delete_webhook(call: Call) -> Response:
    """DELETE /api/webhooks/{id}."""
    hook = _the_hook(call)
    with call.state.store.change():
        for delivery in call.state.deliveries.where(webhook_id=hook.id):
            call.state.deliveries.remove(delivery.id)
        call.state.webhooks.remove(hook.id)
    return Response(status_code=204)


def list_events(call: Call) -> Response:
    """GET /api/webhooks/events."""
    kind = call.query.get("type", "")
    if kind not in ("", *EVENTS):
        raise Refusal(400, {"type": [f'"{kind}" is not a valid choice.']})
    found = EVENTS[kind] if kind else list(dict.fromkeys(EVENTS["project"] + EVENTS["organization"]))
    events = [{"key": key, "group": {"display_name": group}} for key, group in found]
    return reply({"webhook_type": kind or "all", "events": events})


def ping(call: Call) -> Response:
    """POST /api/webhooks/{id}/ping: delivers at once and tells how it went."""
    hook = _the_hook(call)
    body = {"event": "ping", "webhook": _view(call, hook), "sender": brief(call, call.user.id)}
    return reply(_delivery_view(deliver(call.state, hook, "ping", body)))


def list_deliveries(call: Call) -> Response:
    """GET /api/webhooks/{id}/deliveries: newest first."""
    found = call.state.deliveries.where(webhook_id=_the_hook(call).id)
    names = ("id", "event", "status_code", "redelivery", "updated_date")
    return listed(call, found, plain(*names), _delivery_view)


def get_delivery(call: Call) -> Response:
    """GET /api/webhooks/{id}/deliveries/{delivery_id}."""
    delivery = call.state.deliveries.get(call.id("delivery_id"))
    if delivery is None or delivery.webhook_id != _the_hook(call).id:
        raise missing("WebhookDelivery")
    return reply(_delivery_view(delivery))


def redeliver(call: Call) -> Response:
    """POST /api/webhooks/{id}/deliveries/{delivery_id}/redelivery."""
    hook, delivery = _the_hook(call), call.state.deliveries.get(call.id("delivery_id"))
    if delivery is None or delivery.webhook_id != hook.id:
        raise missing("WebhookDelivery")
    return reply(_delivery_view(deliver(call.state, hook, delivery.event, delivery.request, redelivery=True)))

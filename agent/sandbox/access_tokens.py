"""Personal access tokens."""

from __future__ import annotations

import hashlib
import secrets

from starlette.responses import Response

from agent.sandbox.accounts import brief
from agent.sandbox.exchange import Call, Refusal, missing, reply
from agent.sandbox.listing import listed
from agent.sandbox.records import JSON, AccessToken, now


def _token_view(call: Call, token: AccessToken) -> JSON:
    view = {k: v for k, v in vars(token).items() if k not in ("user_id", "digest")}
    return {**view, "owner": brief(call, token.user_id)}


def create_access_token(call: Call) -> Response:
    """POST /api/auth/access_tokens; the value is told only here."""
    sent = call.object()
    if not sent.get("name"):
        raise Refusal(400, {"name": ["This field is required."]})
    value = secrets.token_urlsafe(30)
    token = call.state.access_tokens.add(
        user_id=call.user.id,
        name=str(sent["name"]),
        digest=hashlib.sha256(value.encode()).hexdigest(),
        read_only=bool(sent.get("read_only")),
        expiry_date=sent.get("expiry_date"),
    )
    return reply({**_token_view(call, token), "value": value}, 201)


def list_access_tokens(call: Call) -> Response:
    """GET /api/auth/access_tokens."""
    tokens = call.state.access_tokens.where(user_id=call.user.id)
    return listed(call, tokens, {"id": lambda t: t.id, "name": lambda t: t.name}, lambda t: _token_view(call, t))


def _own_token(call: Call) -> AccessToken:
    token = call.state.access_tokens.get(call.id())
    if token is None or token.user_id != call.user.id:
        raise missing("AccessToken")
    return token


def get_access_token(call: Call) -> Response:
    """GET /api/auth/access_tokens/{id}."""
    return reply(_token_view(call, _own_token(call)))


def patch_access_token(call: Call) -> Response:
    """PATCH /api/auth/access_tokens/{id}."""
    token, sent = _own_token(call), call.object()
    with call.state.store.change():
        for name in sent.keys() & {"name", "read_only", "expiry_date"}:
            setattr(token, name, sent[name])
        token.updated_date = now()
        call.state.access_tokens.save(token)
    return reply(_token_view(call, token))


def delete_access_token(call: Call) -> Response:
    """DELETE /api/auth/access_tokens/{id}."""
    call.state.access_tokens.remove(_own_token(call).id)
    return Response(status_code=204)


def this_access_token(call: Call) -> Response:
    """GET /api/auth/access_tokens/self: the token that this call was made with."""
    token = call.state.access_tokens.get(getattr(call.request.state, "access_token", None))
    if token is None:
        raise missing("AccessToken")
    return reply(_token_view(call, token))

"""Users, logins and tokens: who is asking."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from starlette.responses import Response

from agent.sandbox.exchange import Call, Refusal, forbidden, missing, reply
from agent.sandbox.listing import listed, plain
from agent.sandbox.permissions import is_admin, visible_users
from agent.sandbox.records import JSON, User, now
from agent.sandbox.state import State

_SAFE = {"GET", "HEAD", "OPTIONS"}


def _hashed(password: str, salt: str) -> str:
    # Cheap for scrypt: the sandbox keeps nothing worth a long attack, and tests log in often.
    digest = hashlib.scrypt(password.encode(), salt=salt.encode(), n=2**12, r=8, p=1)
    return f"{salt}${digest.hex()}"


def password_fits(user: User, password: str) -> bool:
    """Whether this is the user's password."""
    return hmac.compare_digest(_hashed(password, user.password.partition("$")[0]), user.password)


def ensure_users(state: State, users: dict[str, str], admins: Iterable[str]) -> None:
    """Makes the users that are not there yet, with these passwords."""
    admins = set(admins)
    with state.store.change():
        for name, password in users.items():
            user = state.users.first(username=name)
            if user is None:
                user = state.users.add(username=name, password="", email=f"{name}@example.com")
            if not user.password or not password_fits(user, password):
                user.password = _hashed(password, secrets.token_hex(8))
            user.is_superuser = name in admins
            state.users.save(user)


def authenticate(call: Call) -> None:
    """Finds the caller and the organization; 401 unknown, 403 read-only token, 404 organization."""
    user = _caller(call)
    if user is None:
        header = {"WWW-Authenticate": "Token"}
        told = {"detail": "Authentication credentials were not provided."}
        raise Refusal(401, told, header)
    call.user = user
    call.request.scope.setdefault("state", {})["user"] = user.username
    if call.read_only and call.request.method not in _SAFE:
        raise forbidden()
    _find_organization(call)


def _caller(call: Call) -> User | None:
    scheme, _, value = call.request.headers.get("authorization", "").partition(" ")
    state = call.state
    if scheme == "Basic":
        try:
            name, _, password = base64.b64decode(value + "==").decode().partition(":")
        except ValueError:
            name = password = ""
        user = state.users.first(username=name)
        if user is None or not password_fits(user, password):
            raise Refusal(401, {"detail": "Invalid username/password."}, {"WWW-Authenticate": "Token"})
        return user
    if scheme == "Token":
        login = state.logins.first(kind="token", key=value)
        user = state.users.get(login.user_id) if login else None
    elif scheme == "Bearer":
        user = _bearer(call, value)
    else:
        return _session(call)
    if user is None:
        raise Refusal(401, {"detail": "Invalid token."}, {"WWW-Authenticate": "Token"})
    return user


def _bearer(call: Call, value: str) -> User | None:
    token = call.state.access_tokens.first(digest=hashlib.sha256(value.encode()).hexdigest())
    if token is None or (token.expiry_date and datetime.fromisoformat(token.expiry_date) < datetime.now(UTC)):
        return None
    call.read_only = token.read_only
    call.request.state.access_token = token.id
    token.last_used_date = now()  # not saved: losing it harms nobody, and every request would write
    return call.state.users.get(token.user_id)


def _session(call: Call) -> User | None:
    key = call.request.cookies.get("sessionid")
    login = call.state.logins.first(kind="session", key=key) if key else None
    if login is None:
        return None
    sent = call.request.headers.get("x-csrftoken", "")
    if call.request.method not in _SAFE and not hmac.compare_digest(sent.encode(), login.csrf.encode()):
        raise forbidden("CSRF Failed: CSRF token missing." if not sent else "CSRF Failed: CSRF token incorrect.")
    return call.state.users.get(login.user_id)


def _find_organization(call: Call) -> None:
    slug = call.request.headers.get("x-organization", call.query.get("org"))
    if slug is None and call.query.get("org_id", "").isdigit():
        call.organization = call.state.organizations.get(int(call.query["org_id"]))
        slug = call.organization.slug if call.organization else call.query["org_id"]
    elif slug:
        call.organization = call.state.organizations.first(slug=slug)
    if slug is None:
        return
    call.personal = not slug
    member = call.organization and call.state.memberships.first(
        organization_id=call.organization.id, user_id=call.user.id
    )
    if slug and (call.organization is None or not (member or is_admin(call))):
        raise Refusal(404, {"detail": f"{slug} organization does not exist."})


def log_in(call: Call) -> Response:
    """POST /api/auth/login."""
    sent = call.object()
    state = call.state
    user = state.users.first(username=str(sent.get("username", "")))
    if user is None and sent.get("email"):
        user = state.users.first(email=str(sent["email"]))
    if user is None or not password_fits(user, str(sent.get("password", ""))):
        raise Refusal(400, {"non_field_errors": ["Unable to log in with provided credentials."]})
    with state.store.change():
        user.last_login = now()
        state.users.save(user)
        token = state.logins.first(user_id=user.id, kind="token")
        if token is None:
            token = state.logins.add(user_id=user.id, kind="token", key=secrets.token_hex(20))
        old = state.logins.where(user_id=user.id, kind="session")
        for stale in old[:-100]:
            state.logins.remove(stale.id)
        csrf, key = secrets.token_hex(16), secrets.token_hex(16)
        state.logins.add(user_id=user.id, kind="session", key=key, csrf=csrf)
    response = reply({"key": token.key})
    response.set_cookie("csrftoken", csrf, max_age=31449600, samesite="lax")
    response.set_cookie("sessionid", key, max_age=1209600, httponly=True, samesite="lax")
    return response


def log_out(call: Call) -> Response:
    """POST /api/auth/logout: ends the session; the API key goes too, as CVAT does it."""
    key = call.request.cookies.get("sessionid", "")
    with call.state.store.change():
        for login in call.state.logins.where(user_id=call.user.id):
            if login.kind == "token" or login.key == key:
                call.state.logins.remove(login.id)
    response = reply({"detail": "Successfully logged out."})
    response.delete_cookie("sessionid")
    return response


def brief(call: Call, user_id: int | None) -> JSON | None:
    """A user as others see him."""
    user = call.state.users.get(user_id)
    if user is None:
        return None
    return {
        "url": call.link(f"/api/users/{user.id}"),
        "id": user.id,
        "username": user.username,
        "first_name": user.first_name,
        "last_name": user.last_name,
    }


def _full(call: Call, user: User) -> JSON:
    return {
        **(brief(call, user.id) or {}),
        "email": user.email,
        "groups": ["admin"] if user.is_superuser else ["user"],
        "is_staff": user.is_superuser,
        "is_superuser": user.is_superuser,
        "is_active": True,
        "last_login": user.last_login,
        "date_joined": user.date_joined,
        "has_analytics_access": user.is_superuser,
    }


def self_(call: Call) -> Response:
    """GET /api/users/self."""
    return reply(_full(call, call.user))


def list_users(call: Call) -> Response:
    """GET /api/users."""
    fields = plain("id", "username", "first_name", "last_name")
    users = visible_users(call)
    full = is_admin(call)
    return listed(call, users, fields, lambda u: _full(call, u) if full else brief(call, u.id), search=("username",))


def get_user(call: Call) -> Response:
    """GET /api/users/{id}."""
    user = call.state.users.get(call.id())
    if user is None:
        raise missing("User")
    if user not in visible_users(call):
        raise forbidden()
    own = user.id == call.user.id or is_admin(call)
    return reply(_full(call, user) if own else brief(call, user.id))

"""One call of the API: who asks, what was sent, and the answers in CVAT's forms."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from agent.sandbox.records import JSON, Organization, User
from agent.sandbox.state import State

CVAT_JSON = "application/vnd.cvat+json"
NOT_FOUND = """<!doctype html>
<html lang="en">
<head>
  <title>Not Found</title>
</head>
<body>
  <h1>Not Found</h1><p>The requested resource was not found on this server.</p>
</body>
</html>
"""
SERVER_ERROR = NOT_FOUND.replace("Not Found", "Server Error (500)").replace(
    "<p>The requested resource was not found on this server.</p>", "<p></p>"
)


class Refusal(Exception):
    """A 4xx answer; the payload is any JSON value, as CVAT has several shapes of errors."""

    def __init__(self, status: int, payload: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, payload)
        self.status = status
        self.payload = payload
        self.headers = headers or {}


def whole(sent: JSON, name: str, default: int, least: int = 0) -> int:
    """A whole number of a request (a text in forms); what is none, or too small, is refused."""
    value = sent.get(name)
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise Refusal(400, {name: ["A valid integer is required."]}) from error
    if number < least:
        raise Refusal(400, {name: [f"Ensure this value is greater than or equal to {least}."]})
    return number


def forbidden(text: str = "You do not have permission to perform this action.") -> Refusal:
    """A 403."""
    return Refusal(403, {"detail": text})


def missing(what: str) -> Refusal:
    """A 404 for a kind of object."""
    return Refusal(404, {"detail": f"No {what} matches the given query."})


def reply(payload: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(
        body, status, {"Allow": "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS", **(headers or {})}, CVAT_JSON
    )


def page(html: str, status: int) -> Response:
    """An HTML answer."""
    return Response(html, status, media_type="text/html; charset=utf-8")


class Call:
    """One call; `user` is there unless anyone may call, `organization` where the caller named one."""

    user: User
    organization: Organization | None = None

    def __init__(self, request: Request, state: State) -> None:
        self.request = request
        self.state = state
        self.query = request.query_params
        self.body = b""
        self.personal = False  # the caller asked for what belongs to no organization
        self.read_only = False

    def id(self, name: str = "id") -> int:
        """A number from the path."""
        return int(self.request.path_params[name])

    def text(self, name: str) -> str:
        """A text from the path."""
        return str(self.request.path_params[name])

    def json(self) -> Any:
        """The body's JSON value, {} if there is none; form fields become an object of texts."""
        kind = self.request.headers.get("content-type", "")
        if not self.body:
            return {}
        if kind.startswith("application/x-www-form-urlencoded"):
            return dict(parse_qsl(self.body.decode("utf-8", "replace")))
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Refusal(400, {"detail": f"JSON parse error - {error}"}) from error

    def object(self) -> JSON:
        """The body, which has to be a JSON object."""
        value = self.json()
        if not isinstance(value, dict):
            kind = type(value).__name__
            raise Refusal(400, {"non_field_errors": [f"Invalid data. Expected a dictionary, but got {kind}."]})
        return value

    def link(self, path: str) -> str:
        """An absolute address, as the caller knows this server."""
        return str(self.request.base_url).rstrip("/") + path

    @classmethod
    def behind(cls, state: State, user: User) -> Call:
        """A call that nobody made over HTTP: background work uses it to tell of objects as calls do."""
        host = state.url.partition("://")[2]
        scope = {
            "type": "http",
            "scheme": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "app": None,
        }
        headers = [(b"host", host.encode())]
        call = cls(Request({**scope, "headers": headers, "server": None, "root_path": ""}), state)
        call.user = user
        return call

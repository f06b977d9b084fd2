"""The client side of the Nuclio dialect: how CVAT lists and invokes functions of a Nuclio dashboard."""

from __future__ import annotations

import base64
import http
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from agent.sandbox.exchange import Refusal
from agent.sandbox.records import JSON
from agent.sandbox.state import VERSION, State


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _headers(state: State) -> dict[str, str]:
    return {
        "User-Agent": f"CVAT/{VERSION} python-requests/2.33.1",
        "Accept": "*/*",
        "x-nuclio-project-name": "cvat",
        "x-nuclio-function-namespace": "nuclio",
        "x-nuclio-invoke-via": "domain-name",
        "X-Nuclio-Invoke-Timeout": f"{state.nuclio_timeout:g}s",
    }


def _exchange(state: State, request: urllib.request.Request) -> Any:
    """The JSON answer; whatever goes wrong on the way has the status that CVAT's callers get to see."""
    url = request.full_url
    # Every call is a connection of its own, without proxies: functions are near.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=state.nuclio_timeout) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        blame = "Client" if error.code < 500 else "Server"
        phrase = http.HTTPStatus(error.code).phrase if error.code in http.HTTPStatus._value2member_map_ else ""
        raise Refusal(error.code, f"{error.code} {blame} Error: {phrase} for url: {url}") from error
    except TimeoutError as error:
        raise Refusal(504, f"HTTPConnectionPool: Read timed out. (read timeout={state.nuclio_timeout:g})") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise Refusal(504, f"Read timed out. (read timeout={state.nuclio_timeout:g})") from error
        raise Refusal(503, f"HTTPConnectionPool: Max retries exceeded with url: {url} ({reason})") from error
    return json.loads(content, parse_constant=_no_constant)


def _dashboard(state: State) -> str:
    if state.nuclio is None:
        raise Refusal(
            503, "HTTPConnectionPool(host='nuclio', port=8070): Max retries exceeded with url: /api/functions"
        )
    return state.nuclio


def _to_dashboard(
    state: State, path: str, headers: dict[str, str], body: bytes | None = None
) -> urllib.request.Request:
    """A request to the dashboard. A name and password in its address are sent as CVAT's client sends them."""
    parts = urllib.parse.urlsplit(_dashboard(state))
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers = {**headers, "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urllib.request.Request(f"{parts.geturl()}{path}", body, headers)


def functions(state: State) -> list[JSON]:
    """All function objects of the dashboard; none where there is no dashboard."""
    if state.nuclio is None:
        return []
    answer = _exchange(state, _to_dashboard(state, "/api/functions", _headers(state)))
    return list(answer.values())


def function(state: State, name: str) -> JSON:
    """One function object; an unknown one is a 404."""
    if state.nuclio is None:
        text = f"404 Client Error: Not Found for url: http://nuclio:8070/api/functions/{name}"
        raise Refusal(404, text)
    answer = _exchange(state, _to_dashboard(state, f"/api/functions/{name}", _headers(state)))
    return dict(answer)


def invoke(state: State, function: JSON, payload: JSON) -> Any:
    """What a function answers: through the dashboard, or at its own port (`direct`)."""
    body = json.dumps(payload).encode()
    headers = {**_headers(state), "Content-Type": "application/json"}
    if state.invoke == "direct":
        url = f"http://localhost:{function['status']['httpPort']}/"
        plain = {k: v for k, v in headers.items() if not k.lower().startswith("x-")}
        return _exchange(state, urllib.request.Request(url, body, plain))
    headers |= {"x-nuclio-function-name": str(function["metadata"]["name"]), "x-nuclio-path": "/"}
    return _exchange(state, _to_dashboard(state, "/api/function_invocations", headers, body))

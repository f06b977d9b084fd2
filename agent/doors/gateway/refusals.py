"""Errors as callers see them, one line of JSON.

CVAT passes on the status of an error and loses its text, so that the reason is in our log as well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agent.doors.gateway.call import reason_of, status_of
from agent.errors import BadPrediction, SidecarError

log = logging.getLogger(__name__)

NAME_HEADER = "x-nuclio-function-name"


def told(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(json.dumps(value).encode(), status, headers, "application/json")


def caller(request: Request) -> str:
    """Who calls, and for what, for the log."""
    name = request.headers.get(NAME_HEADER)
    who = request.client.host if request.client else "somebody"
    return f"{who}{f', for {name[:80]!r}' if name else ''}"


def refusal(request: Request, error: BaseException) -> Response:
    """An error as the caller sees it; the log has the reason."""
    status, text = status_of(error)
    foreign = not isinstance(error, SidecarError)
    # What failed in the model was logged there already, with its trace.
    level = logging.ERROR if foreign else logging.DEBUG if isinstance(error, BadPrediction) else logging.WARNING
    log.log(
        level, "gateway: %s from %s: %d: %s", request.method,
        caller(request), status, reason_of(error), exc_info=error if foreign else None,
    )  # fmt: skip
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return told({"message": text}, status, headers)


async def not_here(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    allowed = "GET /api/functions, GET /api/functions/NAME, POST /api/function_invocations, POST / at a function's port"
    text = f"{request.method} {request.scope['path'][:80]}: not here, allowed: {allowed}"
    log.warning("gateway: %s: %d: %s", caller(request), status, text)
    return told({"message": text}, status)


async def failed(request: Request, error: Exception) -> Response:
    """What nobody has thought of."""
    return refusal(request, error)

"""The HTTP side: routes and bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.doors.gateway.access import Access
from agent.doors.gateway.answering import Answering
from agent.doors.gateway.body import read_body
from agent.doors.gateway.budget import Budget
from agent.doors.gateway.call import MIB, Call, Refused
from agent.doors.gateway.listing import Menu
from agent.doors.gateway.refusals import NAME_HEADER, caller, failed, not_here, refusal, told
from agent.errors import ModelNotFound, SidecarError
from agent.lanes import Lane
from agent.settings.tables import GatewaySettings

log = logging.getLogger(__name__)

SERIAL_GAP = 10.0
"""Seconds after its last call for which a request of CVAT's counts as running."""
_GRACE = 1.0
"""Seconds that a call's thread gets to answer for itself when its time is over."""
BODY_SECONDS = 30.0
"""A body must have come by then: CVAT sends it at once."""


@dataclass(slots=True)
class Rules:
    """What holds for all calls; replaced when service.toml is read again."""

    settings: GatewaySettings
    access: Access
    lane: Lane
    """As many places as calls are answered at once."""
    direct: Mapping[int, str]
    """The model at each port of CVAT's `direct` mode."""
    open: bool = True


@dataclass(slots=True)
class App:
    """The ASGI application. `rules` gives the present ones."""

    menu: Menu
    answering: Answering
    rules: Callable[[], Rules]
    calls: set[Call] = field(default_factory=set)
    """Those that are being answered."""
    memory: Budget = field(default_factory=lambda: Budget(0))
    """Of all of them together."""
    last: dict[str, float] = field(default_factory=dict)
    """When a function was last called that CVAT calls frame by frame."""
    ended: bool = False
    """Whether nobody is answered any more, in the middle of a request or not."""

    def end(self) -> None:
        """Whoever waits, or comes, gets a 503."""
        self.ended = True
        for call in list(self.calls):
            call.give_up(_ends())

    def in_the_middle(self, function: str | None = None) -> bool:
        """Whether CVAT may be in the middle of a request, which is many calls, of this function or of any.

        A request that loses one call fails as a whole, and with it what it has not stored yet.
        """
        lasts = list(self.last.values()) if function is None else [self.last.get(function, -SERIAL_GAP)]
        return any(time.monotonic() - last < SERIAL_GAP for last in lasts)

    def _is_called_serially(self, model: str) -> bool:
        try:
            description = self.menu.shared.pool.describe(model)
        except ModelNotFound:
            return False
        return description is not None and description.kind in ("detector", "reid")

    def build(self) -> ASGIApp:
        routes = [
            Route("/api/functions", self._list),
            Route("/api/functions/{name}", self._look),
            Route("/api/function_invocations", self._invoke, methods=["POST"]),
            Route("/", self._invoke, methods=["POST"]),
        ]
        inner = Starlette(routes=routes, exception_handlers={HTTPException: not_here, Exception: failed})
        inner.router.redirect_slashes = False
        return _Gate(inner, self.rules)

    async def _list(self, request: Request) -> Response:
        return told(self.menu.functions())

    async def _look(self, request: Request) -> Response:
        try:
            return told(self.menu.function(request.path_params["name"]))
        except SidecarError as error:
            return refusal(request, error)

    async def _invoke(self, request: Request) -> Response:
        rules = self.rules()
        settings = rules.settings
        self.memory.limit = int(settings.memory_mb * MIB)
        with Call(settings.timeout, megapixels=settings.max_megapixels, memory=self.memory) as call:
            try:
                # Without a place: whoever sends slowly keeps nobody out.
                limit = min(call.left, BODY_SECONDS)
                body = await asyncio.wait_for(read_body(request, call, int(settings.max_body_mb * MIB)), limit)
                model = _model(request, rules)
                if self.ended or not (rules.open or self.in_the_middle(model)):
                    raise _ends()
                if self._is_called_serially(model):
                    self.last[model] = time.monotonic()
                return Response(await self._answer(model, body, call, rules), media_type="application/json")
            except TimeoutError:
                return self._turned_away(request, call, Refused(f"the body has not come within {limit:g} s", 408))
            except asyncio.CancelledError:  # the server ends, and has waited for long enough
                return refusal(request, _ends())
            except ClientDisconnect:
                log.info("gateway: %s hung up", caller(request))
                return Response(status_code=400)
            except Exception as error:
                return self._turned_away(request, call, error)

    def _turned_away(self, request: Request, call: Call, error: Exception) -> Response:
        if not call.counts:
            model = _named(request, self.rules()) or "nobody"
            self.answering.shared.activity.turned_away("gateway", model[:80], "a call", error)
        return refusal(request, error)

    async def _answer(self, model: str, body: bytes, call: Call, rules: Rules) -> bytes:
        """The reply, from a thread of its own; whoever is late is left to end by himself."""
        if (claim := rules.lane.claim()) is None:
            raise Refused(f"{rules.settings.concurrency} calls are being answered, try again", 429)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        def work() -> None:
            self.calls.add(call)
            if self.ended:  # it came while the others were given up
                call.give_up(_ends())
            outcome: bytes | BaseException
            try:
                with call:  # once more: the thread may outlast whoever waits for it
                    outcome = self.answering.answer(model, body, call)
            except BaseException as error:
                outcome = error
            # Whoever hears the answer finds the gateway done with it.
            self.calls.discard(call)
            _post(loop, answer, outcome)

        with claim:
            claim.run(work)
        try:
            return await asyncio.wait_for(answer, call.left + _GRACE)
        except TimeoutError:
            call.give_up(call.too_late())
            raise call.too_late() from None


class _Gate:
    """Lets in whoever may call, while there is somebody to answer."""

    def __init__(self, app: ASGIApp, rules: Callable[[], Rules]) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, rules = Request(scope, receive), self._rules()
        try:
            path = rules.access.admit(request.client.host if request.client else None, request.headers, scope["path"])
            if not rules.open and scope["method"] != "POST":
                raise _ends()
        except Refused as error:
            response = refusal(request, error)
            await response(scope, receive, send)
            return
        if path != scope["path"]:
            scope = {**scope, "path": path, "raw_path": path.encode(errors="replace")}
        await self._app(scope, receive, send)


def _ends() -> Refused:
    return Refused("the service ends", 503)


def _named(request: Request, rules: Rules) -> str | None:
    """The function that is called: CVAT names it, or calls at its port."""
    if name := request.headers.get(NAME_HEADER):
        return name
    _, port = request.scope.get("server") or (None, None)
    if request.scope["path"] == "/" and isinstance(port, int) and port in rules.direct:
        return rules.direct[port]
    return None


def _model(request: Request, rules: Rules) -> str:
    if (name := _named(request, rules)) is not None:
        return name
    raise Refused(f"function: got no name, allowed: the header {NAME_HEADER}, or a call at a function's own port")


def _post(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[bytes], outcome: bytes | BaseException) -> None:
    """Hands a thread's outcome to the event loop, if anybody still waits there."""

    def put() -> None:
        if answer.done():
            return
        if isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    try:
        loop.call_soon_threadsafe(put)
    except RuntimeError:
        log.debug("gateway: it has closed; an answer comes too late")

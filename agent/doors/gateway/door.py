"""The gateway as a door of the service: opening, closing, other settings, health."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from agent.doors import DoorHealth, Shared
from agent.doors.gateway.access import Access
from agent.doors.gateway.ahead import Ahead
from agent.doors.gateway.answering import Answering
from agent.doors.gateway.app import App, Rules
from agent.doors.gateway.listeners import Address, Listeners
from agent.doors.gateway.listing import Menu
from agent.doors.gateway.server import Server
from agent.errors import ConfigError
from agent.lanes import Lane
from agent.settings.gateway import LAST_PORT, check_gateway
from agent.settings.tables import Config, GatewaySettings

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that closing waits for the server."""


class Gateway:
    """Answers calls in Nuclio's dialect, from CVAT's own menus."""

    name = "gateway"

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._listeners: Listeners | None = None
        self._rules: Rules | None = None
        self._ports: Mapping[str, int] = {}
        self._assigned: dict[str, int] = {}
        """The port that a model has, or has had: CVAT goes on calling it for requests that run."""
        self._server: Server | None = None
        self.menu = Menu(shared, lambda: self._ports)
        self.ahead = Ahead(shared)
        self._app = App(self.menu, Answering(shared, self.menu, self.ahead), self._present_rules)

    # ------------------------------------------------------------------- door

    def start(self) -> None:
        """Listens. ConfigError for a port that is taken, or a secret that is not there."""
        self._open(self._shared.config)
        log.info("gateway: listens on %s", self.url)

    def drain(self) -> None:
        """New calls are answered by 503 from now on, but for those of requests that CVAT is in the middle of."""
        if self._rules is not None:
            self._rules.open = False

    @property
    def busy(self) -> bool:
        """Whether something is being answered, or is a part of a longer request that is not at its end."""
        return bool(self._app.calls) or self._app.in_the_middle()

    def close(self) -> None:
        """Ends the server; whoever still waits gets a 503."""
        self.drain()
        self._app.end()
        self.ahead.close()
        if self._server is not None:
            self._server.close(PATIENCE)
        self._server = self._listeners = None

    def reload(self) -> None:
        """Other settings. ConfigError where they cannot be; then the old ones stay."""
        self._open(self._shared.config)

    def health(self) -> DoorHealth:
        if self._server is None or not self._server.alive:
            return DoorHealth(False, "does not listen")
        listed, left_out = self.menu.functions(), self.menu.left_out()
        text = f"listens on {self.url}, {len(listed)} functions"
        if left_out:
            text += "; not listed: " + "; ".join(f"{model}: {why}" for model, why in left_out.items())
        return DoorHealth(bool(listed) or not left_out, text)

    # ---------------------------------------------------------------- details

    @property
    def calls(self) -> int:
        """How many are being answered."""
        return len(self._app.calls)

    @property
    def memory_held(self) -> int:
        """Bytes of the bodies and pictures of calls, besides what is read ahead."""
        return self._app.memory.used

    @property
    def url(self) -> str:
        """The dashboard's address, http://host:port."""
        settings = self._present_rules().settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        port = self._listeners.port((settings.host, settings.port)) if self._listeners else settings.port
        return f"http://{host}:{port}"

    def _present_rules(self) -> Rules:
        if self._rules is None:
            raise RuntimeError("the gateway was not started")
        return self._rules

    def _open(self, config: Config) -> None:
        settings = config.gateway
        if settings is None:
            raise ConfigError(f"{config.file}: gateway: got no such table, allowed: [gateway]")
        place = f"{config.file}: gateway"
        check_gateway(settings, config.service, config.models, place)
        access = Access.of(settings, place)
        direct = _direct_ports(config, settings, self._assigned)
        before = self._rules, self._ports
        lane = before[0].lane if before[0] is not None else None
        if lane is None or lane.places != settings.concurrency:
            lane = Lane("gateway", settings.concurrency)
        # A gateway that was drained stays so.
        self._rules = Rules(settings, access, lane, direct, open=before[0] is None or before[0].open)
        self._ports = {model: port for port, model in direct.items()}
        try:
            self._listen([(settings.host, port) for port in (settings.port, *direct)])
        except ConfigError:
            if before[0] is None:
                self.close()
            self._rules, self._ports = before
            raise
        self.ahead.reset()

    def _listen(self, addresses: list[Address]) -> None:
        if self._server is None or self._listeners is None:
            self._server = Server(self._app.build())
            self._listeners = Listeners(self._server.listen, self._server.forget)
        self._listeners.use(addresses)


def _direct_ports(config: Config, settings: GatewaySettings, assigned: dict[str, int]) -> dict[int, str]:
    """The model at each port, in the order of service.toml; `assigned` keeps to each the port that it had.

    A port is never given to another model: CVAT keeps a function's port for as long as a request runs.
    """
    first = settings.direct_ports
    if first is None:
        return {}
    if assigned and min(assigned.values()) != first:
        assigned.clear()
    for model_id in [model_id for model_id, port in assigned.items() if port == settings.port]:
        del assigned[model_id]  # the dashboard has moved there
    for model in config.models:
        if model.id not in assigned:
            port = max(assigned.values(), default=first - 1) + 1
            assigned[model.id] = port + (port == settings.port)
    if max(assigned.values(), default=0) > LAST_PORT:  # with those of models that are gone
        assigned.clear()
        assigned.update({model.id: port for port, model in enumerate(config.models, first)})
    return {assigned[model.id]: model.id for model in config.models if "gateway" in model.doors}

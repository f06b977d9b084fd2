"""The process behind `serve`: what doors share, the doors, the status page, and how they begin and end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.activity import Activity
from agent.cvat.login import has_login
from agent.cvat.session import open_session
from agent.doors import Door, Shared
from agent.doors.watch.rules import read_rules
from agent.errors import ConfigError, SidecarError
from agent.interaction import Embeddings
from agent.lanes import Lanes
from agent.ledger.ledger import Ledger, default_path
from agent.logs import Redactor, known_secrets
from agent.models.loading import LoadedModel, load_model
from agent.pool.pool import ModelPool
from agent.process.housekeeping import Housekeeping
from agent.process.open_doors import PATIENCE, MakeDoor, OpenDoors, wanted_doors
from agent.settings.changes import changes, in_effect
from agent.settings.mistakes import Mistakes
from agent.settings.service import ledger_beside, secret
from agent.settings.tables import Config
from agent.tracking import TrackStates
from agent.web.app import StatusApp
from agent.web.guard import Guard
from agent.web.metrics import Metrics, Now
from agent.web.readiness import health_of, obstacles
from agent.web.server import WebServer
from agent.web.status import View
from agent.web.undoing import Undoing

log = logging.getLogger(__name__)

MIB = 2**20


def check(config: Config) -> None:
    """What a service needs beyond tables that are right in themselves. ConfigError."""
    wanted = wanted_doors(config)
    with Mistakes() as mistakes:
        if not wanted:
            mistakes.add(f"{config.file}: got no door, allowed: one or more of [queue], [gateway] and [[rules]]")
        if not config.models:
            mistakes.add(f"{config.file}: models: got none, allowed: one or more tables [[models]]")
        if wanted not in ((), ("gateway",)) and not has_login(config.server):
            allowed = "token_env, token_file, user with password_env or password_file, profile, or $CVAT_ACCESS_TOKEN"
            mistakes.add(f"{config.file}: cvat: got nothing that says who we are, allowed: {allowed}")
        for key, variable in (
            ("service: secret_env", config.service.secret_env),
            ("watch: webhook_secret_env", config.watch.webhook_secret_env),
            ("gateway: secret_env", config.gateway.secret_env if config.gateway else None),
        ):
            with mistakes.kept():
                secret(variable, f"{config.file}: {key}")
        with mistakes.kept():
            read_rules(config)


class Service:
    """Everything that runs between `open` and `close`.

    `read` reads service.toml again, `on_reload` hears of it; `doors` and `load` stand in for the real ones in tests.
    ConfigError where it cannot be, before anything is sent to the server.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        *,
        redact: Redactor | None = None,
        on_reload: Callable[[Config], None] = lambda config: None,
        doors: Mapping[str, MakeDoor] | None = None,
        load: Callable[..., LoadedModel] = load_model,
    ) -> None:
        check(config)
        self._read, self._on_reload = read, on_reload
        self._redact = redact or Redactor(known_secrets(config))
        self._reloading = threading.Lock()
        self._web = WebServer(config.service.host, config.service.port)
        self._metrics = Metrics(lambda: self.shared.pool.ids())
        try:
            self.shared = _share(config, self._metrics, load)
        except BaseException:
            self._web.close()
            raise
        self.stopping = False
        self._refused: list[str] = []
        """What was wrong with service.toml when it was read last."""
        self._doors = OpenDoors(self.shared, doors)
        self._housekeeping = Housekeeping(self.shared, also=self._open_missing)
        self._view = View(self.shared, self.doors, self.obstacles, self.not_taken, self._redact, Undoing(self.shared))
        self._metrics.watch(Now(self.shared, self.doors, self.not_taken, self._view.began))
        self._guard = Guard(_password(config), config.service.allowed_hosts)

    # ---------------------------------------------------------------- looking

    @property
    def url(self) -> str:
        """Of the status page."""
        return self._web.url

    def doors(self) -> list[Door]:
        """Those that are open."""
        return self._doors.all()

    def obstacles(self) -> list[str]:
        """What keeps the service from its work; none means that it is ready."""
        shut = [name for name in wanted_doors(self.shared.config) if self._doors.get(name) is None]
        missing = [f"door {name}: it is shut; see the log" for name in shut]
        return missing + obstacles(self.shared.pool, self.doors(), stopping=self.stopping)

    def not_taken(self) -> list[str]:
        """Why what stands in service.toml is not what holds; it goes with the next reading that is taken."""
        return self._refused + self._doors.behind()

    def busy(self) -> bool:
        """Whether something is held that is to be finished."""
        held = bool(self.shared.activity.running()) or not self.shared.lanes.join(0)
        return held or any(getattr(door, "busy", False) for door in self._doors.all())

    # -------------------------------------------------------------- beginning

    def open(self) -> None:
        """Opens the doors, serves the status page and begins to load models. ConfigError, with nothing left open."""
        try:
            for name in wanted_doors(self.shared.config):
                self._doors.open(name, told=False)  # how all of them are comes with the address of the page
        except BaseException:
            self.close()
            raise
        self._web.start(StatusApp(self._view, self._metrics, self._guard, self._receiver))
        self._housekeeping.start()

    # ---------------------------------------------------------- reading again

    def reload(self) -> bool:
        """Reads service.toml again; where it is broken nothing changes, and the log says why. Whether it was taken."""
        with self._reloading:
            old = self.shared.config
            try:
                new, waiting = in_effect(old, self._read())
                check(new)
            except (SidecarError, OSError) as error:
                self._refused = [*error.mistakes] if isinstance(error, ConfigError) else [str(error)]
                for text in self._refused:
                    log.error("service.toml is not taken, everything stays as it is: %s", text)
                return False
            self._refused = []
            lines = changes(old, new)
            log.info("service.toml was read again: %s", f"{len(lines)} changes" if lines else "nothing new for now")
            for line in lines:
                log.info("changed: %s", line)
            for key in waiting:
                log.warning("changed, but needs a restart: %s", key)
            self._take(new)
            return True

    def _take(self, config: Config) -> None:
        self.shared.config = config
        self._redact.know(known_secrets(config))
        self._guard.password, self._guard.hosts = _password(config), config.service.allowed_hosts
        self._on_reload(config)
        self.shared.embeddings.resize(int(config.engine.embeddings_mb * MIB))
        self.shared.pool.replace(config.models, config.engine)
        self._doors.follow(config)
        self._housekeeping.look_again()

    # -------------------------------------------------------------------- end

    def _open_missing(self) -> None:
        if not self.stopping:
            self._doors.open_missing()
            for door in self._doors.all():
                health_of(door)  # a door that looks how it is tells the log what has changed: models listed at last

    def drain(self) -> None:
        """Takes nothing new from now on; what is held goes on."""
        self.stopping = True
        self._doors.drain()
        self.shared.lanes.close()

    def close(self) -> None:
        """Ends everything; what is still held is given up without a word, so that others may take it.

        Returns within some seconds, even where something does not come back.
        """
        self.stopping = True
        shared = self.shared
        shared.stop.set()
        shared.lanes.close()
        self._doors.close()
        shared.lanes.join(PATIENCE)
        self._housekeeping.close()
        self._web.close(PATIENCE)
        _within(2 * PATIENCE, "models", lambda: shared.pool.close(PATIENCE))
        _within(PATIENCE, "tracking states", shared.track_states.close)
        _within(PATIENCE, "connections", shared.session.close)
        _within(PATIENCE, "ledger", self._view.close)

    # ----------------------------------------------------------------- inside

    def _receiver(self) -> Any:
        """The watch door, where webhooks are to be received."""
        return self._doors.get("watch") if self.shared.config.watch.webhook_secret_env is not None else None


def _share(config: Config, metrics: Metrics, load: Callable[..., LoadedModel]) -> Shared:
    """What the doors share; nothing is sent to the server yet."""
    ledger, stop = _ledger(config), threading.Event()
    session = open_session(config.server, stop=stop)
    Ledger(ledger).close()  # a ledger that cannot be used is told now
    embeddings = Embeddings(int(config.engine.embeddings_mb * MIB))
    pool = ModelPool(
        config.models,
        config.engine,
        ledger.parent / "models",
        load=load,
        on_batch=metrics.on_batch,
        on_unload=embeddings.forget,
    )
    return Shared(
        config=config,
        session=session,
        pool=pool,
        lanes=Lanes(interactive=config.service.interactive_lanes, batch=config.service.batch_lanes),
        activity=Activity(metrics.on_end),
        embeddings=embeddings,
        track_states=TrackStates(ledger.parent / "tracks.sqlite3"),
        state_dir=ledger.parent,
        ledger=ledger,
        stop=stop,
    )


def _ledger(config: Config) -> Path:
    """Where runs are remembered; all other state lies beside it."""
    return default_path() if config.service.state_dir is None else ledger_beside(config.service.state_dir)


def _password(config: Config) -> str | None:
    return secret(config.service.secret_env, f"{config.file}: service: secret_env")


def _within(seconds: float, name: str, work: Callable[[], None]) -> None:
    """Closes something, and goes on without it where it takes too long."""

    def guarded() -> None:
        try:
            work()
        except Exception:
            log.exception("%s: not closed", name)

    thread = threading.Thread(target=guarded, name=f"close-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        log.warning("%s: not closed after %.0f s, left to themselves", name, seconds)

"""The doors that stand open: opened as service.toml names them, told of changes, drained and closed."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from agent.doors import Door, Shared
from agent.errors import SidecarError
from agent.settings.tables import Config
from agent.web.readiness import health_of

log = logging.getLogger(__name__)

DOORS = {
    "queue": "agent.doors.queue:QueueDoor",
    "gateway": "agent.doors.gateway:Gateway",
    "watch": "agent.doors.watch:Watch",
}
"""Imported when their table stands in service.toml."""
LOOK_SECONDS = 0.2
"""How often a door that is to close is looked at."""
PATIENCE = 2.0
"""Seconds that an end waits for what does not come back."""

MakeDoor = Callable[[Shared], Door]


def wanted_doors(config: Config) -> tuple[str, ...]:
    """The doors that service.toml opens."""
    # Whoever only listens comes first: a port that is taken is told before anything is asked of the server.
    asked = {"gateway": config.gateway is not None, "queue": config.queue is not None, "watch": bool(config.rules)}
    return tuple(name for name, is_asked in asked.items() if is_asked)


class OpenDoors:
    """The doors of one process, by name. `makers` stand in for the real ones in tests."""

    def __init__(self, shared: Shared, makers: Mapping[str, MakeDoor] | None = None) -> None:
        self._shared, self._makers = shared, makers
        self._doors: dict[str, Door] = {}
        self._end: str | None = None
        """What the doors were told last, `drain` or `close`: no other may open any more."""
        self._behind: dict[str, str] = {}
        """Why a door goes on with the settings that it had."""
        self._lock, self._opening = threading.Lock(), threading.Lock()

    def all(self) -> list[Door]:
        with self._lock:
            return list(self._doors.values())

    def get(self, name: str) -> Door | None:
        with self._lock:
            return self._doors.get(name)

    def open(self, name: str, *, told: bool = True) -> None:
        """Opens a door; ConfigError, and nothing left open, where that cannot be. `told`: in the log."""
        door = (self._makers[name] if self._makers is not None else _maker(name))(self._shared)
        try:
            door.start()
        except BaseException:
            with suppress(Exception):
                door.close()
            raise
        with self._lock:
            self._doors[name], end = door, self._end
        log.log(logging.INFO if told else logging.DEBUG, "door %s: open; %s", name, health_of(door).text)
        if end is not None:
            _try(door, end)  # the others were told so while this one opened

    def follow(self, config: Config) -> None:
        """Tells the doors that service.toml is another one; opens those that came, closes those that went."""
        wanted = wanted_doors(config)
        with self._lock:
            if self._end is not None:
                return
            going = [self._doors.pop(name) for name in list(self._doors) if name not in wanted]
            staying = dict(self._doors)
        for door in going:
            log.info("door %s: takes nothing new, and closes", door.name)
            threading.Thread(target=self._retire, args=(door,), name=f"retire-{door.name}", daemon=True).start()
        # A door that takes the settings is behind no more, and one that is gone was.
        self._behind = {name: why for name, door in staying.items() if (why := _try(door, "reload")) is not None}
        self.open_missing()

    def behind(self) -> list[str]:
        """The doors that could not take the settings that hold, a line each."""
        return [f"door {name}: it goes on as it was: {why}" for name, why in self._behind.items()]

    def open_missing(self) -> None:
        """Opens what service.toml names and is not open; what cannot be now, may be later: a port can come free."""
        with self._opening:  # one that two threads miss is opened once
            for name in wanted_doors(self._shared.config):
                if self._end is not None or self.get(name) is not None:
                    continue
                try:
                    self.open(name)
                except SidecarError as error:
                    log.error("door %s: it stays shut: %s", name, error)

    def drain(self) -> None:
        """Nothing new comes in; what is held goes on."""
        for door in self._told("drain"):
            _try(door, "drain")

    def close(self) -> None:
        """Closes all at once; a door that does not come back is left to itself."""
        closing = []
        for door in self._told("close"):
            thread = threading.Thread(target=_try, args=(door, "close"), name=f"close-{door.name}", daemon=True)
            thread.start()
            closing.append((door, thread))
        end = time.monotonic() + PATIENCE
        for door, thread in closing:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                log.warning("door %s: not closed after %.0f s, left to itself", door.name, PATIENCE)

    def _told(self, end: str) -> list[Door]:
        """The doors that are to hear it; those that open from now on hear it by themselves."""
        with self._lock:
            self._end = end
            return list(self._doors.values())

    def _retire(self, door: Door) -> None:
        """Closes a door that service.toml does not name any more, once what came in by it has ended."""
        _try(door, "drain")
        end = time.monotonic() + self._shared.config.service.grace_seconds
        while time.monotonic() < end and self._holds(door):
            if self._shared.stop.wait(LOOK_SECONDS):
                break
        _try(door, "close")

    def _holds(self, door: Door) -> bool:
        """Whether something that came in by the door has not ended."""
        at_work = any(record.door == door.name for record in self._shared.activity.running())
        return at_work or bool(getattr(door, "busy", False))


def _maker(name: str) -> MakeDoor:
    module, _, kind = DOORS[name].partition(":")
    made: MakeDoor = getattr(importlib.import_module(module), kind)
    return made


def _try(door: Door, what: str) -> str | None:
    """Why it could not be; one door that fails must not keep the others from hearing of it."""
    try:
        getattr(door, what)()
    except SidecarError as error:
        log.error("door %s: it cannot %s: %s", door.name, what, error)
        return str(error)
    except Exception:
        log.exception("door %s: it cannot %s", door.name, what)
        return "see the log"
    return None

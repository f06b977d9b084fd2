"""The ways in for requests. No door knows another; what they share, and what the service asks of each, is here."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.activity import Activity
from agent.cvat.session import Session
from agent.interaction import Embeddings
from agent.lanes import Lanes
from agent.pool.pool import ModelPool
from agent.settings.tables import Config
from agent.tracking import TrackStates


@dataclass(slots=True)
class Shared:
    """What all doors work with. `config` is replaced when service.toml is read again; the rest stays."""

    config: Config
    session: Session
    """One login for all doors; it logs in when it is first used."""
    pool: ModelPool
    lanes: Lanes
    activity: Activity
    embeddings: Embeddings
    track_states: TrackStates
    state_dir: Path
    """Whatever outlives the process, besides the ledger."""
    ledger: Path
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when everything is to end at once (the second signal, or the grace period is over)."""


@dataclass(frozen=True, slots=True)
class DoorHealth:
    """Whether a door can do its work now."""

    ok: bool
    text: str
    """One line for a person: `listens on 127.0.0.1:8070`, `cannot reach the server since …`."""


class Door(Protocol):
    """A way in. It may have `busy: bool`, where it holds something that the activity does not know."""

    name: str
    """queue, gateway or watch."""

    def start(self) -> None:
        """Opens the door and returns; ConfigError where that cannot be (a port that is taken)."""
        ...

    def drain(self) -> None:
        """Takes nothing new, and returns at once; what is held goes on."""
        ...

    def close(self) -> None:
        """Ends the door's own threads. Held requests are given up without a word: others may take them."""
        ...

    def reload(self) -> None:
        """`Shared.config` is another one now."""
        ...

    def health(self) -> DoorHealth: ...

"""A configured model as the pool keeps it: waiting, loading, or ready behind its host; and what makes it another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent.errors import SidecarError
from agent.models.descriptions import Description
from agent.models.host import Host
from agent.models.loading import LoadedModel
from agent.pool.loads import Load
from agent.settings.parts import parts_of
from agent.settings.tables import EngineSettings, ModelSettings

Status = Literal["unloaded", "loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A model that is ready, in the thread that runs it."""

    settings: ModelSettings
    loaded: LoadedModel
    host: Host
    load: int = 0
    """Tells one load of a model from another: what it gave (an embedding) is good for that load only."""

    @property
    def id(self) -> str:
        return self.settings.id


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """How a model stands, at one moment."""

    id: str
    reference: str
    title: str
    status: Status
    description: Description | None
    error: str | None
    users: int
    """Requests that use it now."""
    depth: int
    """Calls that wait for it."""
    memory: int
    """Bytes that it took when it was loaded, as far as that can be told."""
    idle: float
    """Seconds since it was last used; 0 while it is."""
    loads: int = 0
    """How often it was loaded."""
    load_seconds: float = 0.0
    """What that took."""


class Slot:
    """One configured model. The pool's lock guards it."""

    def __init__(self, settings: ModelSettings, description: Description | None, now: float) -> None:
        self.settings = settings
        self.description = description
        self.status: Status = "unloaded"
        self.hosted: HostedModel | None = None
        self.load: Load | None = None
        """That is under way."""
        self.users = 0
        self.memory = 0
        self.used = now
        self.loads = 0
        self.load_seconds = 0.0
        self._error: SidecarError | None = None
        self._failed_at = 0.0

    def open(self, hosted: HostedModel, description: Description, memory: int, now: float) -> None:
        self.hosted, self.description, self.memory = hosted, description, memory
        self.status, self._error, self.used = "ready", None, now
        self.loads += 1

    def fail(self, error: SidecarError, now: float) -> None:
        # Its traces would hold what was read until it failed, which may be gigabytes.
        error.__cause__ = error.__context__ = None
        self.status, self._error, self._failed_at = "failed", error.with_traceback(None), now

    def forgive(self) -> None:
        """Lets a model that could not be loaded be tried again at once."""
        if self.status == "failed":
            self.status, self._error = "unloaded", None

    def fresh_error(self, now: float, seconds: float) -> SidecarError | None:
        """Why it could not be loaded, if that is no longer ago than so many seconds."""
        if self._error is None or now - self._failed_at >= seconds:
            return None
        # Told again and again, it would carry the traces of all who heard it.
        return self._error.with_traceback(None)

    def record(self, now: float) -> ModelRecord:
        late = self.load.late(now) if self.load is not None else None
        error = late or self._error
        return ModelRecord(
            id=self.settings.id,
            reference=self.settings.model,
            title=self.settings.title,
            status="failed" if late else self.status,
            description=self.description,
            error=str(error) if error else None,
            users=self.users,
            depth=self.hosted.host.depth if self.hosted else 0,
            memory=self.memory if self.hosted else 0,
            idle=0.0 if self.users else now - self.used,
            loads=self.loads,
            load_seconds=self.load_seconds,
        )


def weights(id_: str, models: Mapping[str, ModelSettings], engine: EngineSettings) -> tuple[object, ...]:
    """What a loaded model depends on: where that is the same, so is the model. Models that are parts of it count."""
    settings = models[id_]
    own = (settings.model, settings.options, settings.device or engine.device, settings.batch_size)
    return (*own, *((part, weights(part, models, engine)) for part in parts_of(settings, models)))

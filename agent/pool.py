"""The models of one process: each loaded once, shared by all doors, unloaded when idle or when memory is short."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.descriptions import Description, Descriptions
from agent.errors import ModelError, ModelNotFound, SidecarError
from agent.host import Host
from agent.memory import resident_bytes
from agent.models import LoadedModel, load_model
from agent.service_config import EngineSettings, ModelSettings

log = logging.getLogger(__name__)

Status = Literal["unloaded", "loading", "ready", "failed"]
RETRY_SECONDS = 30.0
"""A model that could not be loaded is not tried again before that."""


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A model that is ready, in the thread that runs it."""

    settings: ModelSettings
    loaded: LoadedModel
    host: Host

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
    """Seconds since it was last used."""


class _Slot:
    """One configured model."""

    def __init__(self, settings: ModelSettings, description: Description | None, now: float) -> None:
        self.settings = settings
        self.description = description
        self.status: Status = "unloaded"
        self.error: SidecarError | None = None
        self.hosted: HostedModel | None = None
        self.users = 0
        self.memory = 0
        self.used = now
        self.failed_at = 0.0
        self.loading = threading.Lock()


class ModelPool:
    """Loads models at first use or before, one at a time, and lends them. Threads may share it."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        engine: EngineSettings,
        folder: Path,
        *,
        load: Callable[..., LoadedModel] = load_model,
        clock: Callable[[], float] = time.monotonic,
        on_batch: Callable[[str, int, float], None] = lambda model, frames, seconds: None,
    ) -> None:
        self._engine = engine
        self._descriptions = Descriptions(folder)
        self._load, self._clock, self._on_batch = load, clock, on_batch
        self._lock = threading.RLock()
        # Weights are read one model after the other: two at once take the memory of both, and longer.
        self._reading = threading.Lock()
        self._closed = False
        self._slots = {settings.id: self._slot(settings) for settings in models}

    # --------------------------------------------------------------- looking

    def ids(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._slots)

    def settings(self, model: str) -> ModelSettings:
        return self._of(model).settings

    def describe(self, model: str) -> Description | None:
        """What the model is, without loading it; None while nobody has ever loaded it here."""
        return self._of(model).description

    def records(self) -> list[ModelRecord]:
        with self._lock:
            return [self._record(slot) for slot in self._slots.values()]

    def record(self, model: str) -> ModelRecord:
        with self._lock:
            return self._record(self._of(model))

    # ---------------------------------------------------------------- lending

    @contextmanager
    def use(self, model: str) -> Iterator[HostedModel]:
        """The model, loaded if it is not; it stays while the block runs.

        ModelNotFound for an id that is not configured, ModelError for a model that cannot be loaded.
        """
        slot = self._of(model)
        with self._lock:
            slot.users += 1
        try:
            yield self._ready(slot)
        finally:
            with self._lock:
                slot.users -= 1
                slot.used = self._clock()
                gone = self._slots.get(model) is not slot
            if gone and not slot.users:
                self._unload(slot, "its settings have changed")

    def preload(self) -> None:
        """Loads what is to be ready from the start, and learns what the others are. Errors are logged and kept."""
        for model in self.ids():
            if self._closed:
                return
            try:
                slot = self._of(model)
                if slot.settings.load == "start" or slot.description is None:
                    with self.use(model):
                        pass
            except SidecarError as error:
                log.warning("model %s: %s", model, error)

    # ------------------------------------------------------------- unloading

    def sweep(self) -> None:
        """Unloads what has been idle for long enough, and what is too much for the memory budget."""
        now = self._clock()
        with self._lock:
            slots = list(self._slots.values())
        for slot in slots:
            minutes = self._engine.idle_minutes if slot.settings.idle_minutes is None else slot.settings.idle_minutes
            if minutes and now - slot.used >= minutes * 60:
                self._unload(slot, f"idle for {minutes:g} minutes")
        self._keep_budget(None)

    def replace(self, models: Sequence[ModelSettings], engine: EngineSettings) -> None:
        """Other settings: models that did not change stay loaded, others go when nobody uses them any more."""
        with self._lock:
            old, same_device = self._slots, engine.device == self._engine.device
            self._engine = engine
            kept = {
                settings.id: old[settings.id]
                for settings in models
                if settings.id in old and _same_weights(old[settings.id].settings, settings) and same_device
            }
            self._slots = {settings.id: kept.get(settings.id) or self._slot(settings) for settings in models}
            for settings in models:
                self._slots[settings.id].settings = settings
            gone = [slot for model, slot in old.items() if kept.get(model) is not slot]
        for slot in gone:
            self._unload(slot, "its settings have changed")

    def close(self, patience: float | None = None) -> None:
        """Ends all models after the batch that they work on, or after `patience` seconds."""
        with self._lock:
            self._closed = True
            slots = list(self._slots.values())
        for slot in slots:
            self._unload(slot, "the service ends", patience=patience, used=True)

    # ---------------------------------------------------------------- inside

    def _slot(self, settings: ModelSettings) -> _Slot:
        return _Slot(settings, self._descriptions.read(settings), self._clock())

    def _of(self, model: str) -> _Slot:
        with self._lock:
            if model not in self._slots:
                raise ModelNotFound(f"model {model!r}: got an unknown id, allowed: {', '.join(self._slots) or 'none'}")
            return self._slots[model]

    def _record(self, slot: _Slot) -> ModelRecord:
        return ModelRecord(
            id=slot.settings.id,
            reference=slot.settings.model,
            title=slot.settings.title,
            status=slot.status,
            description=slot.description,
            error=str(slot.error) if slot.error else None,
            users=slot.users,
            depth=slot.hosted.host.depth if slot.hosted else 0,
            memory=slot.memory if slot.hosted else 0,
            idle=self._clock() - slot.used,
        )

    def _ready(self, slot: _Slot) -> HostedModel:
        with slot.loading:
            if slot.hosted is not None:
                # Settings that do not need the weights to be read again may have changed.
                return HostedModel(slot.settings, slot.hosted.loaded, slot.hosted.host)
            if slot.error is not None and self._clock() - slot.failed_at < RETRY_SECONDS:
                raise slot.error
            if self._closed:
                raise ModelError(f"model {slot.settings.id}: the service ends")
            return self._open(slot)

    def _open(self, slot: _Slot) -> HostedModel:
        settings = slot.settings
        slot.status, began = "loading", self._clock()
        try:
            with self._reading:
                self._keep_budget(slot)
                before = resident_bytes()
                device = settings.device or self._engine.device
                loaded = self._load(settings.model, device=device, options=dict(settings.options))
                own = getattr(loaded.model, "memory_bytes", None)
                slot.memory = int(own) if own is not None else max(0, resident_bytes() - before)
        except SidecarError as error:
            slot.status, slot.error, slot.failed_at = "failed", error, self._clock()
            raise
        except BaseException:
            slot.status = "unloaded"
            raise
        host = Host(
            loaded.model,
            batch_size=settings.batch_size or loaded.batch_size,
            name=settings.id,
            on_batch=lambda frames, seconds: self._on_batch(settings.id, frames, seconds),
        )
        slot.description = Description.of(loaded)
        self._descriptions.write(settings, slot.description)
        slot.hosted = HostedModel(settings, loaded, host)
        slot.status, slot.error, slot.used = "ready", None, self._clock()
        log.info("model %s: loaded %s in %.1f s", settings.id, settings.model, self._clock() - began)
        self._keep_budget(slot)
        return slot.hosted

    def _keep_budget(self, wanted: _Slot | None) -> None:
        """Unloads what was unused for longest until the rest fits; what is in use, and `wanted`, stays."""
        if self._engine.memory_mb is None:
            return
        with self._lock:
            loaded = [slot for slot in self._slots.values() if slot.hosted is not None]
        for slot in sorted(loaded, key=lambda slot: slot.used):
            if sum(slot.memory for slot in loaded if slot.hosted is not None) <= self._engine.memory_mb * 2**20:
                return
            if slot is not wanted:
                self._unload(slot, "to make room")

    def _unload(self, slot: _Slot, why: str, *, patience: float | None = None, used: bool = False) -> None:
        with self._lock:
            if slot.hosted is None or (slot.users and not used):
                return
            hosted, slot.hosted, slot.status = slot.hosted, None, "unloaded"
        hosted.host.close(patience)
        hosted.loaded.close()
        log.info("model %s: unloaded, %s", slot.settings.id, why)


def _same_weights(one: ModelSettings, other: ModelSettings) -> bool:
    keys = ("model", "options", "device", "batch_size")
    return all(getattr(one, key) == getattr(other, key) for key in keys)

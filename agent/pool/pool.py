"""The models of one process: each loaded once, shared by all doors, unloaded when idle or when memory is short."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.errors import ModelError, ModelNotFound, SidecarError
from agent.models.descriptions import Description, Descriptions
from agent.models.loading import LoadedModel, load_model
from agent.models.memory import resident_bytes
from agent.pool.hosted import HostedModel, ModelRecord, Slot, Status, weights
from agent.pool.loads import Load, Turns
from agent.pool.reading import Reader, close_model, failure
from agent.settings.tables import EngineSettings, ModelSettings
from agent.waiting import await_result, begin_apart

__all__ = ["RETRY_SECONDS", "HostedModel", "ModelPool", "ModelRecord", "Status"]

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""A model that could not be loaded is not tried again before that."""
LOAD_SECONDS = 600.0
"""That reading weights may take, with what is fetched for it, before nobody waits for the model any more."""
UNLOAD_SECONDS = 60.0
"""That unloading waits for a model to come back from its batch; one that never does must not keep others waiting."""


class ModelPool:
    """Loads models at first use or before, one at a time, and lends them. Threads may share it.

    `on_batch(model, frames, seconds)` hears of each batch of a detector, `on_unload(model)` of each model that went.
    """

    def __init__(
        self,
        models: Sequence[ModelSettings],
        engine: EngineSettings,
        folder: Path,
        *,
        load: Callable[..., LoadedModel] = load_model,
        clock: Callable[[], float] = time.monotonic,
        load_seconds: float = LOAD_SECONDS,
        unload_seconds: float = UNLOAD_SECONDS,
        on_batch: Callable[[str, int, float], None] = lambda model, frames, seconds: None,
        on_unload: Callable[[str], None] = lambda model: None,
    ) -> None:
        self._engine, self._load_seconds, self._unload_seconds = engine, load_seconds, unload_seconds
        self._descriptions = Descriptions(folder)
        self._reader = Reader(load, ids=self.ids, lend=self.use, on_batch=on_batch)
        self._clock, self._on_unload = clock, on_unload
        self._lock = threading.RLock()
        # Weights are read one model after the other: two at once take the memory of both, and longer. A model that
        # is built of others has its parts read within its own turn.
        self._turns = Turns(load_seconds, clock)
        self._closed = False
        self._numbers = itertools.count(1)
        self._slots = {settings.id: self._slot(settings) for settings in models}
        self._leaving: set[Slot] = set()
        """Those that other settings have replaced, and that somebody still uses."""

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
            return [slot.record(self._clock()) for slot in self._slots.values()]

    def record(self, model: str) -> ModelRecord:
        with self._lock:
            return self._of(model).record(self._clock())

    # ---------------------------------------------------------------- lending

    @contextmanager
    def use(self, model: str, check: Callable[[], None] = lambda: None) -> Iterator[HostedModel]:
        """The model, loaded if it is not; it stays while the block runs.

        `check` is asked now and then while it is being loaded, and ends the waiting by what it raises. ModelNotFound
        for an id that is not configured, ModelError for a model that cannot be loaded.
        """
        with self._lock:
            slot = self._of(model)
            slot.users += 1
        try:
            yield self._ready(slot, check)
        finally:
            with self._lock:
                slot.users -= 1
                slot.used = self._clock()
            self._let_go(slot)

    def preload(self) -> bool:
        """Loads what is to be ready from the start, and learns what the others are; whether nothing is left to do.

        What fails is logged, and tried again by a later call, whenever it failed. What was unloaded since stays so.
        """
        done = True
        for model in self.ids():
            if self._closed:
                break
            try:
                done = self._preload(model) and done
            except SidecarError:
                done = False  # it is in the log, and in the model's record
        return done

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
            old, before, self._engine = self._slots, self._engine, engine
            was = {id_: slot.settings for id_, slot in old.items()}
            now = {settings.id: settings for settings in models}
            same = [id_ for id_ in now if id_ in was and weights(id_, was, before) == weights(id_, now, engine)]
            kept = {id_: old[id_] for id_ in same}
            self._slots = {settings.id: kept.get(settings.id) or self._slot(settings) for settings in models}
            for settings in models:
                self._slots[settings.id].settings = settings
                # Whatever was wrong may have been put right.
                self._slots[settings.id].forgive()
            gone = [slot for model, slot in old.items() if model not in kept]
            self._leaving.update(gone)
        for slot in gone:
            self._unload(slot, "its settings have changed, or are gone")

    def close(self, patience: float | None = None) -> None:
        """Ends all models after the batch that they work on, or after `patience` seconds."""
        with self._lock:
            self._closed = True
            slots = [*self._slots.values(), *self._leaving]
        for slot in slots:
            self._unload(slot, "the service ends", patience=patience, used=True)

    # ---------------------------------------------------------------- inside

    def _slot(self, settings: ModelSettings) -> Slot:
        return Slot(settings, self._descriptions.read(settings), self._clock())

    def _of(self, model: str) -> Slot:
        with self._lock:
            if model not in self._slots:
                raise ModelNotFound(f"model {model!r}: got an unknown id, allowed: {', '.join(self._slots) or 'none'}")
            return self._slots[model]

    def _preload(self, model: str) -> bool:
        slot = self._of(model)
        at_start = slot.settings.load == "start"
        # One that has failed when it was to come back is in no menu: nobody would use it, and so find out that it can.
        if slot.description is not None and (slot.loads or not at_start) and slot.status != "failed":
            return True
        if slot.fresh_error(self._clock(), RETRY_SECONDS):
            return False
        with self._lock:
            absent = [other for other in self._slots.values() if other.hosted is None]
        with self.use(model):
            pass
        if not at_start:
            # It, and what it is built of, was only looked at.
            for other in [slot, *absent]:
                if other.settings.load == "use":
                    self._unload(other, "until somebody uses it")
        return True

    def _ready(self, slot: Slot, check: Callable[[], None]) -> HostedModel:
        def look() -> None:
            check()
            if self._closed:
                raise _ends(slot)
            if (error := load.late(self._clock())) is not None:
                raise error

        while True:
            with self._lock:  # or else a load that ends between the two looks is followed by another one
                if (found := self._found(slot)) is not None:
                    return found
                load = self._load_of(slot)
            if self._turns.mine:
                self._read(slot, load)  # it is a part of what this thread is loading
            await_result(load.ended, look)
            if load.error is not None:
                raise load.error.with_traceback(None)

    def _load_of(self, slot: Slot) -> Load:
        """The load that is under way, or another one: in a thread of its own, because it may never come to an end."""
        with self._lock:
            if self._closed:
                raise _ends(slot)
            if slot.load is None:
                load = Load(slot.settings.id)
                if not self._turns.mine:
                    begin_apart(lambda: self._take_turn(slot, load), f"load-{slot.settings.id}")
                slot.load = load
            return slot.load

    def _take_turn(self, slot: Slot, load: Load) -> None:
        with self._turns.turn():
            self._read(slot, load)

    def _read(self, slot: Slot, load: Load) -> None:
        """Reads the weights, unless somebody has begun to; what comes of it is in the slot."""
        began = self._clock()
        with self._lock:
            if not load.begin(began, self._load_seconds):
                return
            slot.status = "loading"
        try:
            if self._closed:
                raise _ends(slot)
            self._open(slot)
            seconds = self._clock() - began
            slot.load_seconds += seconds
            log.info("model %s: loaded %s in %.1f s", slot.settings.id, slot.settings.model, seconds)
            self._keep_budget(slot)
        except BaseException as error:  # whoever waits has to be told, whatever it is
            told = error if isinstance(error, SidecarError) else failure(slot.settings, error)
            if not self._closed:
                log.warning("model %s: %s", slot.settings.id, told)
                log.debug("model %s: where it failed", slot.settings.id, exc_info=error)
            slot.fail(told, self._clock())
            load.error = told
        finally:
            with self._lock:
                slot.load = None
            load.ended.set_result(None)
            self._let_go(slot)

    def _let_go(self, slot: Slot) -> None:
        """Somebody needs it no longer: one that other settings have replaced goes with the last."""
        with self._lock:
            leaves = slot in self._leaving
        if leaves:
            self._unload(slot, "its settings have changed, or are gone")

    def _found(self, slot: Slot) -> HostedModel | None:
        """The model if it is loaded; an error if it could not be, of late."""
        with self._lock:
            if (hosted := slot.hosted) is not None:
                # Settings that do not need the weights to be read again may have changed.
                return HostedModel(slot.settings, hosted.loaded, hosted.host, hosted.load)
            error = slot.fresh_error(self._clock(), RETRY_SECONDS)
        if error is not None:
            raise error
        return None

    def _open(self, slot: Slot) -> None:
        """Reads the weights and puts them behind a host; whatever goes wrong, nothing is left open."""
        settings = slot.settings
        self._keep_budget(slot)
        before, held = resident_bytes(), self._held()

        def grown() -> int:
            # What its parts take is theirs.
            return resident_bytes() - before - max(0, self._held() - held)

        device = settings.device or self._engine.device
        loaded, host, description, memory = self._reader.read(settings, device, grown)
        self._descriptions.write(settings, description)
        hosted = HostedModel(settings, loaded, host, next(self._numbers))
        with self._lock:
            if not self._closed:
                slot.open(hosted, description, memory, self._clock())
                return
        host.close()
        close_model(settings, loaded)
        raise _ends(slot)

    def _held(self) -> int:
        """What all models took that are loaded now."""
        with self._lock:
            slots = (*self._slots.values(), *self._leaving)
            return sum(slot.memory for slot in slots if slot.hosted is not None)

    def _keep_budget(self, wanted: Slot | None) -> None:
        """Unloads what was unused for longest until the rest fits; what is in use, and `wanted`, stays."""
        if self._engine.memory_mb is None:
            return
        limit = self._engine.memory_mb * 2**20
        with self._lock:
            loaded = [slot for slot in (*self._slots.values(), *self._leaving) if slot.hosted is not None]
        # What a model took the last time, it will take again.
        coming = wanted.memory if wanted is not None and wanted not in loaded else 0
        for slot in sorted(loaded, key=lambda slot: slot.used):
            if coming + sum(slot.memory for slot in loaded if slot.hosted is not None) <= limit:
                return
            if slot is not wanted:
                self._unload(slot, "to make room")
        if wanted in loaded and wanted is not None and wanted.memory > limit:
            size = wanted.memory / 2**20
            log.warning(
                "model %s: it takes %.0f MiB, more than engine.memory_mb = %g: it stays only while it is used",
                wanted.settings.id, size, self._engine.memory_mb,
            )  # fmt: skip

    def _unload(self, slot: Slot, why: str, *, patience: float | None = None, used: bool = False) -> None:
        with self._lock:
            if (slot.users or slot.load is not None) and not used:
                return
            self._leaving.discard(slot)
            if (hosted := slot.hosted) is None:
                return
            slot.hosted, slot.status = None, "unloaded"
        if hosted.host.close(patience if used else self._unload_seconds):
            close_model(slot.settings, hosted.loaded)
        else:
            # It must not be taken apart under its batch.
            log.warning("model %s: it does not come back from its batch, and is left to itself", slot.settings.id)
            late = threading.Thread(target=_close_late, args=(hosted,), name=f"late-{slot.settings.id}", daemon=True)
            late.start()
        self._on_unload(slot.settings.id)
        log.info("model %s: unloaded, %s", slot.settings.id, why)


def _close_late(hosted: HostedModel) -> None:
    """Closes a model once it comes back from its batch, if ever."""
    hosted.host.close()
    close_model(hosted.settings, hosted.loaded)


def _ends(slot: Slot) -> ModelError:
    return ModelError(f"model {slot.settings.id}: the service ends")

"""Weights read from disk or from wherever they are, for one configured model, and given back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from agent.compose import open_model
from agent.errors import ConfigError, ModelLoadFailed, SidecarError
from agent.models.descriptions import Description
from agent.models.host import Host
from agent.models.loading import LoadedModel
from agent.pool.hosted import HostedModel
from agent.settings.parts import is_composition
from agent.settings.tables import ModelSettings

log = logging.getLogger(__name__)


class Reader:
    """Reads weights and puts the model behind its host.

    A model may be built of others: `lend(id)` gives those of `ids()`, shared with everybody who uses them; any other
    reference is read for it alone. `on_batch(model, frames, seconds)` hears of each batch of a detector.
    """

    def __init__(
        self,
        load: Callable[..., LoadedModel],
        *,
        ids: Callable[[], Sequence[str]],
        lend: Callable[[str], AbstractContextManager[HostedModel]],
        on_batch: Callable[[str, int, float], None],
    ) -> None:
        self._load, self._ids, self._lend, self._on_batch = load, ids, lend, on_batch

    def read(
        self, settings: ModelSettings, device: str, grown: Callable[[], int]
    ) -> tuple[LoadedModel, Host, Description, int]:
        """The model, its host, what it is, and how many bytes it takes: what it says, else what we have `grown` by.

        A SidecarError where it cannot be read; then nothing is left open.
        """
        loaded = self._weights(settings, device)
        try:
            memory = memory_of(loaded, grown())
            description = Description.of(loaded)
            host = Host(
                loaded.model,
                batch_size=settings.batch_size or loaded.batch_size,
                name=settings.id,
                on_batch=lambda frames, seconds: self._on_batch(settings.id, frames, seconds),
            )
        except Exception as error:
            close_model(settings, loaded)
            raise failure(settings, error) from error
        return loaded, host, description, memory

    def _weights(self, settings: ModelSettings, device: str) -> LoadedModel:
        options = dict(settings.options)
        try:
            if is_composition(settings):
                return open_model(settings.model, device=device, options=options, opener=self._part)
            return self._load(settings.model, device=device, options=options)
        except SidecarError:
            raise
        except (Exception, SystemExit) as error:  # foreign code may mean to end a program of its own
            raise failure(settings, error) from error

    @contextmanager
    def _part(self, name: str, device: str, options: Mapping[str, Any]) -> Iterator[tuple[LoadedModel, Host]]:
        if name in self._ids():
            if options:
                raise ConfigError(f"model {name!r}: its options belong into its own table, got them where it is a part")
            with self._lend(name) as hosted:
                yield hosted.loaded, hosted.host
            return
        loaded = open_model(name, device=device, options=options, opener=self._part)
        try:
            with Host(loaded.model, batch_size=loaded.batch_size, name=name) as host:
                yield loaded, host
        finally:
            loaded.close()


def memory_of(loaded: LoadedModel, grown: int) -> int:
    """Bytes that it takes: what it says of itself, else what the process has grown by."""
    own = getattr(loaded.model, "memory_bytes", None)
    return int(own) if own is not None else max(0, grown)


def close_model(settings: ModelSettings, loaded: LoadedModel) -> None:
    """Lets the model free what it holds; one that cannot do so is no reason to stop."""
    try:
        loaded.close()
    except Exception:
        log.warning("model %s: it could not be closed", settings.id, exc_info=True)


def failure(settings: ModelSettings, error: BaseException) -> ModelLoadFailed:
    """A foreign error as one of ours, in a line."""
    return ModelLoadFailed(f"{settings.model}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")

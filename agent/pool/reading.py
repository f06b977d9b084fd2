"""Weights read from disk or from wherever they are, for one configured model, and given back."""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.compose import open_model
from agent.compose.parts import Opener
from agent.errors import ModelLoadFailed, SidecarError
from agent.models.loading import LoadedModel
from agent.settings.parts import is_composition
from agent.settings.tables import ModelSettings

log = logging.getLogger(__name__)


def read_weights(
    settings: ModelSettings, device: str, *, load: Callable[..., LoadedModel], opener: Opener
) -> LoadedModel:
    """The model, loaded by its adapter, or built of parts that `opener` opens. A SidecarError where it cannot be."""
    options = dict(settings.options)
    try:
        if is_composition(settings):
            return open_model(settings.model, device=device, options=options, opener=opener)
        return load(settings.model, device=device, options=options)
    except SidecarError:
        raise
    except (Exception, SystemExit) as error:  # foreign code may mean to end a program of its own
        raise failure(settings, error) from error


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

"""Models that service.toml names, opened outside of the service: for commands, and as parts of other models."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agent.compose import open_model
from agent.compose.parts import Opener
from agent.errors import ConfigError, ModelNotFound
from agent.labels.names import meant
from agent.models.host import Host
from agent.models.loading import LoadedModel, parse_reference
from agent.settings.parts import is_composition
from agent.settings.tables import ModelSettings


def open_named(
    name: str,
    models: Sequence[ModelSettings] = (),
    *,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    inside: tuple[str, ...] = (),
) -> LoadedModel:
    """The model of an id of `[[models]]`, else of a reference. Options given here go over those of service.toml.

    ConfigError for a model that is a part of itself (`inside` are those around it); else raises as `open_model`.
    """
    known = {settings.id: settings for settings in models}
    if name in inside:
        raise ConfigError(f"model {name!r}: it is a part of itself: {' -> '.join([*inside, name])}")
    opener = opener_for(models, (*inside, name))
    _check_known(name, known)
    if (settings := known.get(name)) is None:
        return open_model(name, device=device, options=options, opener=opener)
    chosen = settings.device if device == "auto" and settings.device else device
    return open_model(settings.model, device=chosen, options={**settings.options, **(options or {})}, opener=opener)


def resolved(name: str, models: Sequence[ModelSettings], inside: tuple[str, ...] = ()) -> tuple[str, dict[str, Any]]:
    """The reference and the options of an id of `[[models]]`, ids within them replaced too: they stand by themselves.

    What is no id is a reference, without options. ConfigError for a model that is a part of itself.
    """
    settings = next((settings for settings in models if settings.id == name), None)
    _check_known(name, [settings.id for settings in models])
    if settings is None:
        return name, {}
    if name in inside:
        raise ConfigError(f"model {name!r}: it is a part of itself: {' -> '.join([*inside, name])}")
    options = dict(settings.options)
    if is_composition(settings):
        for key in ("of", "then"):
            if key in options:
                options[key] = _resolved_parts(options[key], models, (*inside, name))
    return settings.model, options


def _check_known(name: str, ids: Collection[str]) -> None:
    """ModelNotFound for what is neither an id nor has the form of a reference; it tells the ids that there are."""
    if name in ids or not ids:
        return
    try:
        parse_reference(name)
    except ModelNotFound as error:
        raise ModelNotFound(with_ids(error, name, ids)) from error


def with_ids(error: ModelNotFound, name: str, ids: Collection[str]) -> str:
    """The error for a name that has no scheme, and the ids that there are, unless it says already what was meant."""
    return str(error) if "did you mean" in str(error) else f"{error}{meant(name, list(ids))}"


def _resolved_parts(wish: Any, models: Sequence[ModelSettings], inside: tuple[str, ...]) -> Any:
    if isinstance(wish, list | tuple):
        return [_resolved_parts(part, models, inside) for part in wish]
    table: dict[str, Any] = (
        {"model": wish} if isinstance(wish, str) else dict(wish) if isinstance(wish, Mapping) else {}
    )
    if not isinstance(table.get("model"), str):
        return wish  # whoever opens it says what is wrong with it
    reference, options = resolved(table["model"], models, inside)
    return {**table, "model": reference, "options": {**options, **table.get("options", {})}}


def opener_for(models: Sequence[ModelSettings], inside: tuple[str, ...] = ()) -> Opener:
    """Opens parts of models, each for the one that asks."""

    @contextmanager
    def open_part(name: str, device: str, options: Mapping[str, Any]) -> Iterator[tuple[LoadedModel, Host]]:
        loaded = open_named(name, models, device=device, options=options, inside=inside)
        try:
            with Host(loaded.model, batch_size=loaded.batch_size, name=name) as host:
                yield loaded, host
        finally:
            loaded.close()

    return open_part

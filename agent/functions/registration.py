"""Making, listing and removing the native functions of configured models; doing it again changes nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agent.cvat.functions_api import create_function, delete_function, get_function
from agent.cvat.session import Session, open_session
from agent.errors import ConfigError, ModelError, ServerRefused
from agent.functions.bodies import KINDS, NotCompatible, check_compatible, function_body, kind_of
from agent.functions.ids import FunctionIds, Remember, state_folder
from agent.models.descriptions import Description, Descriptions
from agent.pool.pool import ModelPool
from agent.settings.server import ServerSettings
from agent.settings.tables import Config, ModelSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """How a model's function stands."""

    model: str
    function: int | None
    status: str
    """created, there, gone, deleted, none, refused, failed, left out (no such kind), left over (of no model now)."""
    text: str = ""
    """What else there is to say."""


class Registrar:
    """The functions of one configuration at its server."""

    def __init__(self, config: Config, session: Session, describe: Callable[[str], Description]) -> None:
        self._session, self._describe = session, describe
        self._models = [settings for settings in config.models if "queue" in settings.doors]
        self._ids = FunctionIds(state_folder(config), session)
        self._known = Descriptions(state_folder(config) / "models")

    def register(self, names: Sequence[str] = (), *, public: bool = False) -> Iterator[FunctionRecord]:
        """Makes a function for each model that has none.

        Failed are models that cannot be loaded, or whose function is there and does not fit; the others are made.
        """
        for settings in self._chosen(names):
            try:
                description = self._described(settings)
                if description.kind in KINDS:
                    yield self._registered(settings, description, public)
                else:
                    yield _left_out(settings, description.kind)
            except ModelError as error:
                yield FunctionRecord(settings.id, self._ids.of(settings), "failed", str(error))

    def _described(self, settings: ModelSettings) -> Description:
        """What the model is. ModelError where it cannot be loaded, be it for an option of its own."""
        try:
            return self._describe(settings.id)
        except ConfigError as error:
            raise ModelError(str(error)) from error

    def _registered(self, settings: ModelSettings, description: Description, public: bool) -> FunctionRecord:
        if (found := self._there(settings, description)) is not None:
            return found
        with self._ids.held() as remember:
            # Another process may have made it while we waited.
            return self._there(settings, description) or self._new(settings, description, public, remember)

    def _there(self, settings: ModelSettings, description: Description) -> FunctionRecord | None:
        """The function, if there is one. NotCompatible where it does not fit, or one is named that is gone."""
        known = self._ids.of(settings)
        found = get_function(self._session, known) if known is not None else None
        if found is not None and known is not None:
            try:
                check_compatible(found, description)
            except NotCompatible as error:
                again = (
                    "take function_id out of service.toml, and register again"
                    if settings.function_id is not None
                    else f"`cvat-sidecar functions delete {settings.id}`, and register again"
                )
                raise NotCompatible(f"{error}; {again}") from error
            return FunctionRecord(settings.id, known, "there", str(found.get("name", "")))
        if settings.function_id is not None:
            raise NotCompatible(
                f"function_id: got {settings.function_id}, there is no such function; take the key out to have one made"
            )
        return None

    def _new(
        self, settings: ModelSettings, description: Description, public: bool, remember: Remember
    ) -> FunctionRecord:
        known = self._ids.of(settings)
        made = self._made(function_body(settings, description, public=public))
        remember(settings.id, int(made["id"]))
        gone = f"it takes the place of function {known}, which was gone" if known is not None else ""
        return FunctionRecord(settings.id, int(made["id"]), "created", gone)

    def _made(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return create_function(self._session, body)
        except ServerRefused as error:
            organization = self._session.settings.organization
            if error.status != 403 or not organization or body["visibility"] == "public":
                raise
            text = f"this user may not make functions in the organization {organization!r}: supervisors and above may"
            raise ServerRefused(f"{self._session.url}: {text}", status=403, by_api=error.by_api) from error

    def listed(self) -> Iterator[FunctionRecord]:
        """How the functions stand; models are not loaded for it."""
        for settings in self._models:
            known = self._ids.of(settings)
            if known is None:
                kind = kind_of(settings, self._known.read(settings))
                yield FunctionRecord(settings.id, None, "none") if kind in KINDS else _left_out(settings, kind)
                continue
            try:
                found = get_function(self._session, known)
            except ServerRefused as error:
                yield FunctionRecord(settings.id, known, "refused", str(error))
                continue
            if found is None:
                yield FunctionRecord(settings.id, known, "gone", self._when_gone(settings))
            else:
                yield FunctionRecord(settings.id, known, "there", f"{found.get('kind')} {found.get('name')!r}")
        ours = {settings.id for settings in self._models}
        for name, function in self._ids.remembered().items():
            if name not in ours:
                again = f"`cvat-sidecar functions delete {name}` removes it"
                yield FunctionRecord(name, function, "left over", again)

    def _when_gone(self, settings: ModelSettings) -> str:
        if settings.function_id is not None:
            return "put function_id in service.toml right, or take it out"
        return f"`cvat-sidecar functions register {settings.id}` makes a new one"

    def delete(self, names: Sequence[str] = ()) -> Iterator[FunctionRecord]:
        """Removes the functions of these models (all that are remembered where none is named)."""
        remembered = self._ids.remembered()
        for name in names or sorted(remembered):
            if name not in remembered:
                # Of a function that service.toml names we do not know who made it.
                raise ConfigError(
                    f"model {name!r}: no function of it is remembered, allowed: {', '.join(remembered) or 'none'}"
                )
            with self._ids.held() as remember:
                # While we waited it may have been removed, and another made.
                function = self._ids.remembered().get(name, remembered[name])
                there = delete_function(self._session, function)
                remember(name, None)
            yield FunctionRecord(name, function, "deleted" if there else "gone")

    def _chosen(self, names: Sequence[str]) -> list[ModelSettings]:
        known = [settings.id for settings in self._models]
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"model {name!r}: allowed: a model of the queue's in service.toml: {', '.join(known) or 'none'}"
                )
        return [settings for settings in self._models if not names or settings.id in names]


def _left_out(settings: ModelSettings, kind: str) -> FunctionRecord:
    return FunctionRecord(settings.id, None, "left out", f"CVAT knows no native function of the kind {kind}")


@contextmanager
def open_registrar(config: Config, server: ServerSettings | None = None) -> Iterator[Registrar]:
    """A registrar that loads models when it has to describe one that it has never seen."""
    with open_session(server or config.server) as session:
        # A person waits for it, and has Ctrl-C.
        pool = ModelPool(config.models, config.engine, state_folder(config) / "models", load_seconds=math.inf)

        def describe(model: str) -> Description:
            known = pool.describe(model)
            if known is None:
                log.info("model %s: loading it, to see what it is", model)
                with pool.use(model) as hosted:
                    known = Description.of(hosted.loaded)
            return known

        try:
            yield Registrar(config, session, describe)
        finally:
            pool.close(2.0)

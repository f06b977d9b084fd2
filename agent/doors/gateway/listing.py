"""What CVAT's menus show: a function object for each model that can be used, and why others are not there.

Listing loads nothing and asks nobody: CVAT does it for every user who opens a menu.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.domain import Label
from agent.doors import Shared
from agent.doors.gateway.call import Refused
from agent.doors.gateway.naming import Naming
from agent.errors import ModelError, ModelNotFound, SidecarError
from agent.labels.maps import load_label_map
from agent.models.descriptions import Description
from agent.pool.pool import ModelRecord
from agent.settings.tables import ModelSettings

log = logging.getLogger(__name__)

Json = dict[str, Any]
VERSION = "2"
"""From 2 on, CVAT sends interactors their box by itself, and shows them to people at all (2.60 and later)."""
TAKEN = "pth-facebookresearch-sam-vit-h"
"""With this id CVAT's editor would run the decoder of Meta's SAM in the browser, on whatever we answer."""


class _NotYet(Refused):
    """A model that will be there soon."""


class _NotLoaded(ModelError):
    """A model that could not be loaded."""

    @property
    def public(self) -> str:
        # Why can name files of this machine; it is in the log, and on the status page.
        return "it could not be loaded"


@dataclass(slots=True)
class _Named:
    """A naming, and what it was made of."""

    settings: ModelSettings
    labels: Sequence[Label]
    score_attribute: str | None
    naming: Naming


@dataclass(slots=True)
class Menu:
    """The functions of this gateway. Threads may share it."""

    shared: Shared
    ports: Callable[[], Mapping[str, int]]
    """The port of each model, in CVAT's `direct` mode."""
    _namings: dict[str, _Named] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def functions(self) -> dict[str, Json]:
        """The function objects, by id."""
        found: dict[str, Json] = {}
        left_out: dict[str, SidecarError] = {}
        for settings in self._offered():
            try:
                found[settings.id] = self._function(settings)
            except SidecarError as error:
                left_out[settings.id] = error
        self._tell(found, left_out)
        return found

    def function(self, model: str) -> Json:
        """One function object. Refused (404) for one that is unknown, or not offered here, or cannot be used now."""
        try:
            return self._function(self.settings(model))
        except Refused:
            raise
        except SidecarError as error:
            raise Refused(f"function {model}: {error.public}", 404) from error

    def settings(self, model: str) -> ModelSettings:
        """The settings of a model that is offered. Refused (404) where it is none."""
        offered = {settings.id: settings for settings in self._offered()}
        if model not in offered:
            allowed = ", ".join(offered) or "none is configured"
            raise Refused(f"function {model[:80]!r}: got an unknown name, allowed: {allowed}", 404)
        return offered[model]

    def left_out(self) -> dict[str, str]:
        """Which models are not listed, and why."""
        reasons = {}
        for settings in self._offered():
            try:
                self._function(settings)
            except SidecarError as error:
                reasons[settings.id] = str(error)
        return reasons

    def naming(self, settings: ModelSettings, labels: Sequence[Label]) -> Naming:
        """How a model's labels are called. ConfigError where its label map makes no sense."""
        gateway = self.shared.config.gateway
        score = gateway.score_attribute if gateway else None
        # Made once for all who ask: calls are gathered into batches, and windows kept, by the very same naming.
        with self._lock:
            known = self._namings.get(settings.id)
            if known and known.settings is settings and known.labels is labels and known.score_attribute == score:
                return known.naming
            label_map = load_label_map(str(settings.label_map)) if settings.label_map else None
            naming = Naming.of(labels, label_map, score)
            self._namings[settings.id] = _Named(settings, labels, score, naming)
            return naming

    def _offered(self) -> list[ModelSettings]:
        found = []
        for model in self.shared.pool.ids():
            try:
                settings = self.shared.pool.settings(model)
            except ModelNotFound:  # the configuration was replaced just now
                continue
            if "gateway" in settings.doors:
                found.append(settings)
        return found

    def _function(self, settings: ModelSettings) -> Json:
        """A SidecarError says why there is none."""
        try:
            return self._made(settings)
        except SidecarError:
            raise
        except Exception as error:  # what one model says of itself must not cost the others their place
            raise ModelError(f"what it says of itself makes no sense: {type(error).__name__}: {error}") from error

    def _made(self, settings: ModelSettings) -> Json:
        record = self.shared.pool.record(settings.id)
        description = _usable(settings, record)
        annotations = {"name": settings.title, "type": description.kind, "version": VERSION}
        annotations |= self._annotations(settings, description)
        return {
            "metadata": {"name": settings.id, "namespace": "nuclio", "annotations": annotations},
            "spec": {"description": settings.description or settings.title},
            # Servers before 2.12 read the state.
            "status": {"state": "ready", "httpPort": self.ports().get(settings.id)},
        }

    def _annotations(self, settings: ModelSettings, description: Description) -> dict[str, str]:
        """What menus need to know of a kind; CVAT wants texts only, and takes "false" for true."""
        if description.kind == "detector":
            description.check_menus()
            naming = self.naming(settings, description.labels)
            return {"spec": json.dumps(naming.spec(), separators=(",", ":"))}
        if description.kind == "tracker":
            return {"supported_shape_types": ",".join(description.shape_types)}
        if description.kind != "interactor" or (needs := description.needs) is None:
            return {}
        told = {"min_pos_points": str(needs.positive)}
        if needs.negative is not None:
            told["min_neg_points"] = str(needs.negative)
        if needs.box == "required":
            told["startswith_box"] = "true"
        elif needs.box == "optional":
            told["startswith_box_optional"] = "true"
        if description.help_message:
            told["help_message"] = description.help_message
        return told

    def _tell(self, listed: Collection[str], left_out: Mapping[str, SidecarError]) -> None:
        """Each reason goes to the log once, and so does its end."""
        with self._lock:
            back = [model for model in self._told if model in listed]
            fresh = {model: why for model, why in left_out.items() if self._told.get(model) != str(why)}
            self._told = {model: str(why) for model, why in left_out.items()}
        for model in back:
            log.info("gateway: the model %s is listed now", model)
        for model, why in fresh.items():
            level = logging.DEBUG if isinstance(why, _NotYet) else logging.WARNING
            log.log(level, "gateway: the model %s is not listed: %s", model, why)


def _usable(settings: ModelSettings, record: ModelRecord) -> Description:
    """What the menus can show of a model; a SidecarError says why it is not there."""
    if settings.id == TAKEN:
        raise Refused(f"CVAT's editor treats the function id {TAKEN} as its own SAM; allowed: any other", 404)
    if record.status == "failed":
        raise _NotLoaded(f"it could not be loaded: {record.error}")
    if record.description is None:
        why = "it is still loading" if record.status == "loading" else "it has never been loaded here"
        raise _NotYet(f"{why}, so that its labels are not known yet", 404)
    return record.description

"""What can be said of a model without loading it: kept on disk, so that menus list it while it still loads."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.contract import Label, PromptNeeds
from agent.errors import ModelError
from agent.models.loading import LoadedModel, labels_told
from agent.settings.tables import ModelSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Description:
    """A model as menus show it."""

    kind: str
    labels: tuple[Label, ...] = ()
    version: str = "unknown"
    needs: PromptNeeds | None = None
    help_message: str = ""
    shape_types: tuple[str, ...] = ()
    """What a tracker can follow."""
    finds: str | None = None
    """What it gives for the labels of each task, beside those of its own."""

    def labels_for(self, names: Iterable[str]) -> tuple[Label, ...]:
        """Its labels for a task that has labels of these names."""
        return labels_told(self.labels, self.finds, names)

    def check_menus(self) -> None:
        """ModelError for a model that CVAT's menus, which list what can be found, cannot show."""
        if self.finds is not None:
            raise ModelError(
                'it finds the labels of each task (labels = "task"), which only rules and `annotate` tell it; with'
                " doors = [] it is for them alone"
            )

    @classmethod
    def of(cls, loaded: LoadedModel) -> Description:
        model = loaded.model
        return cls(
            kind=loaded.kind,
            labels=loaded.labels,
            version=loaded.version,
            needs=getattr(model, "needs", PromptNeeds()) if loaded.kind == "interactor" else None,
            help_message=str(getattr(model, "help_message", "")),
            shape_types=tuple(model.shape_types) if loaded.kind == "tracker" else (),
            finds=loaded.finds,
        )


class Descriptions:
    """A folder of descriptions, by what names a model: its reference, its options, and when its files were changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, settings: ModelSettings) -> Description | None:
        """What was written for this model, None where nothing (readable) was."""
        try:
            return TypeAdapter(Description).validate_json(self._file(settings).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("the description of the model %s cannot be read: %s", settings.id, error)
            return None

    def write(self, settings: ModelSettings, description: Description) -> None:
        """Keeps a description for the next start; a disk that does not take it costs no more than that."""
        file = self._file(settings)
        # Another model of the same reference may be written at the same time.
        new = file.with_name(f"{file.stem}.{secrets.token_hex(4)}.new")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(dataclasses.asdict(description)), encoding="utf-8")
            new.replace(file)
        except (OSError, TypeError, ValueError) as error:
            log.warning("the description of the model %s cannot be kept: %s", settings.id, error)
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)

    def _file(self, settings: ModelSettings) -> Path:
        key: Any = [settings.model, settings.options, sorted(_stamps(settings))]
        name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
        return self._folder / f"{name}.json"


def _stamps(settings: ModelSettings) -> Iterator[tuple[str, int, int]]:
    """Name, time of change and size of the files that the reference and the options name."""
    for text in (settings.model, *_texts(settings.options)):
        for name in {text, text.partition(":")[2]} - {""}:
            with contextlib.suppress(OSError, ValueError):
                place = Path(name).expanduser()
                for file in [*place.iterdir()] if place.is_dir() else [place]:
                    status = file.stat()
                    yield str(file), status.st_mtime_ns, status.st_size


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, however they are nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)

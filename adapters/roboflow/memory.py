"""What was learned of a model before, in a small file: a server that is down must not make its labels unknown."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from adapters.roboflow.forms import TASKS, Task

log = logging.getLogger(__name__)

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Learned:
    """What is remembered of a model."""

    task: Task | None
    classes: tuple[str, ...]
    keypoints: Mapping[str, tuple[str, ...]]
    """Class -> the names of its keypoints."""
    version: str | None
    examples: str = ""
    """Names the pictures that it was learned from."""


class Memory:
    """One model's file, in `$XDG_CACHE_HOME/cvat-sidecar/roboflow`. It is a convenience: nothing fails without it."""

    def __init__(self, *identity: str) -> None:
        """`identity`: what tells the model from all others, of all servers."""
        digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        self._file = cache / "cvat-sidecar" / "roboflow" / f"{digest}.json"
        self._name = identity[-1]

    def read(self) -> Learned | None:
        """What the file says; None where there is none, or none that can be read."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or content["name"] != self._name:
                return None
            return Learned(
                content["task"] if content["task"] in TASKS else None,
                tuple(map(str, content["classes"])),
                {str(name): tuple(map(str, points)) for name, points in content["keypoints"].items()},
                content["version"],
                str(content["examples"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.debug("%s: cannot be read: %s", self._file, error)
            return None

    def write(self, learned: Learned) -> None:
        """Remembers this in place of what was remembered."""
        content = {"format": _FORMAT, "name": self._name, **asdict(learned)}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False, encoding="utf-8") as file:
                json.dump(content, file)
            os.replace(file.name, self._file)
        except OSError as error:
            log.debug("%s: cannot be written: %s", self._file, error)

"""Which native function stands for which model: remembered in a file, because CVAT has no list of them."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.cvat.session import Session
from agent.errors import ConfigError
from agent.ledger.ledger import default_path
from agent.settings.tables import Config, ModelSettings

log = logging.getLogger(__name__)

Remember = Callable[[str, int | None], None]


def state_folder(config: Config) -> Path:
    """Where the service keeps what outlives it."""
    return config.service.state_dir or default_path().parent


class FunctionIds:
    """Which function stands for which model, remembered in a file: by server, organization, and the model's id."""

    def __init__(self, folder: Path, session: Session) -> None:
        self.file = folder / "functions.json"
        # None is a place of its own: everything that the user may see.
        organization = session.settings.organization
        self._scope = f"{session.url} {'*' if organization is None else organization}"

    def of(self, settings: ModelSettings) -> int | None:
        """The function's id, None where there is none yet. What service.toml says counts first."""
        if settings.function_id is not None:
            return settings.function_id
        return self.remembered().get(settings.id)

    def remembered(self) -> dict[str, int]:
        """Model id -> function id. ConfigError where the file is not ours."""
        found = self._read().get(self._scope, {})
        return {str(model): function for model, function in found.items() if isinstance(function, int)}

    def stamp(self) -> tuple[int, ...] | None:
        """Another one after each change of the file; None while there is none."""
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def held(self) -> Iterator[Remember]:
        """Keeps the file to ourselves, on this machine, while the block runs; waits for whoever has it.

        What it gives remembers a model's function; None forgets it. A process that is killed lets go of the file.
        ConfigError where the folder cannot be written to.
        """
        # The file is replaced by each change, so another one is locked; that stays, as somebody may be waiting for it.
        path = self.file.with_name(f"{self.file.name}.lock")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
        try:
            _wait_for(lock, path)
            yield self._remember
        finally:
            os.close(lock)

    def _remember(self, model: str, function: int | None) -> None:
        everything = self._read()
        mine = {**everything.get(self._scope, {}), model: function}
        everything[self._scope] = {name: number for name, number in sorted(mine.items()) if number is not None}
        new = self.file.with_suffix(f".{os.getpid()}.new")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(json.dumps(everything, indent=2, sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())  # nobody else knows which function stands for which model
            new.replace(self.file)
        finally:
            new.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.file}: cannot be read: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
            raise ConfigError(f"{self.file}: it is not what `cvat-sidecar functions register` wrote")
        return found


def _wait_for(lock: int, path: Path) -> None:
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: waiting for another process, which makes or removes functions", path)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be locked: {error.strerror or error}") from error

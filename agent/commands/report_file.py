"""--report: one JSON file of what the runs of a command have done."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.report import RunReport


class ReportFile:
    """The file of a command's first run; a later one of the same command is in it under a key of its own."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._told: dict[str, Any] = {}

    def check(self) -> None:
        """ConfigError where it cannot be written, before anything is done; its folder is made."""
        if self._path is None or self._told:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _check_file(self._path)
        except OSError as error:
            raise _unwritable("--report", self._path, error) from error

    def write(self, report: RunReport, key: str | None = None) -> bool:
        """Whether it could be written; where not, that is told. `key`: this run is not the command's first one."""
        if self._path is None:
            return True
        self._told |= report.as_json() if key is None else {key: report.as_json()}
        try:
            self._path.write_text(json.dumps(self._told, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            click.echo(f"Error: {_unwritable('--report', self._path, error)}; what it would say is above", err=True)
            return False
        return True


def tell(reports: Sequence[RunReport], file: ReportFile, key: str | None) -> None:
    """Prints the report, if it came to one, and writes it where asked."""
    for report in reports:
        for line in report.lines():
            click.echo(line)
        file.write(report, key)


def check_folder(folder: Path | None) -> None:
    """ConfigError where a preview's pictures could not be written; the folder is made."""
    import tempfile

    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable("--preview", folder, error) from error


def _check_file(path: Path) -> None:
    """OSError where a file cannot be written; nothing is left where there was none."""
    if path.exists():
        # Not by opening it: it may be a pipe, whose reader would see an end.
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
        return
    place = path.resolve()
    with place.open("x"):
        pass
    place.unlink()


def _unwritable(option: str, path: Path, error: OSError) -> Exception:
    from agent.errors import ConfigError

    return ConfigError(f"{option} {path}: cannot be written: {error.strerror or error}")

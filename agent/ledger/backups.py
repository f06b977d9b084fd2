"""What a job held before it was changed, kept in a file in the form that CVAT's API takes back."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Backup:
    """The annotations of a job as they were once."""

    server: str
    job: int
    annotations: Mapping[str, list[dict[str, Any]]]


def write_backup(ledger: Path, server: str, job: int, annotations: Mapping[str, Any]) -> Path:
    """The file, in the folder `backups` beside the ledger; ConfigError where it cannot be written."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = ledger.parent / "backups" / f"job-{job}-{stamp}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"server": server, "job": job, "annotations": annotations}), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the backup of job {job} cannot be written: {error}") from error
    return path


def kept_backups(ledger: Path, before: datetime, needed: Collection[Path]) -> list[Path]:
    """The backups beside the ledger that were written before a moment, but for those that are needed."""
    return [
        path
        for path in sorted((ledger.parent / "backups").glob("job-*.json"))
        if path.resolve() not in needed and path.exists() and path.stat().st_mtime < before.timestamp()
    ]


def read_backup(file: Path) -> Backup:
    """What `write_backup` has written; ConfigError where that is not what the file holds."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        server, job, annotations = said["server"], said["job"], said["annotations"]
        right = isinstance(server, str) and type(job) is int and isinstance(annotations, dict)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: it is no backup of ours") from error
    if not right:
        raise ConfigError(f"{file}: it is no backup of ours")
    return Backup(server, job, annotations)

"""What a job held before it was changed, kept in a file in the form that CVAT's API takes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import ConfigError


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

"""Taking a run back: exactly what it created, unless somebody has made it theirs by changing it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from agent.config import ServerSettings
from agent.cvat.annotations_api import delete, get_annotations
from agent.cvat.session import Session, open_session
from agent.cvat.uploads import JobUploads, untouched
from agent.errors import BadRequest, ConfigError, ServerRefused
from agent.ledger import KINDS, Ledger, Made


@dataclass(slots=True)
class UndoResult:
    """How many annotations of a run were removed, kept, or gone already."""

    run: str
    removed: int = 0
    changed: int = 0
    gone: int = 0
    jobs_gone: int = 0

    def lines(self) -> Iterator[str]:
        yield f"run {self.run}: {self.removed} annotations removed"
        if self.changed:
            yield f"{self.changed} kept, because somebody has changed them (--changed-too removes them)"
        if self.gone:
            yield f"{self.gone} were gone already"
        if self.jobs_gone:
            yield f"{self.jobs_gone} jobs no longer exist"


def undo_run(run: str, server: ServerSettings, ledger: Path | None, *, changed_too: bool = False) -> UndoResult:
    """Removes what the run created. A run that is still going must be stopped first."""
    with Ledger(ledger) as book, open_session(server) as session:
        record = book.run(run)
        if session.url != record.server:
            raise ConfigError(f"run {record.id}: it went to {record.server}, not to {session.url}")
        if record.status == "undone":
            raise BadRequest(f"run {record.id}: it is undone already")
        result = UndoResult(record.id)
        with book.hold(record.id):
            for job in {upload.job for upload in book.uploads(record.id) if upload.state == "sending" or upload.resent}:
                JobUploads(session, book, record.id, job, wait=time.sleep).adopt()
            for job, items in groupby(sorted(book.made(run=record.id), key=lambda m: m.job), key=lambda m: m.job):
                _undo_job(session, job, list(items), changed_too, result)
            book.end(record.id, "undone", {**record.report, "undone": result.removed})
        return result


def _undo_job(session: Session, job: int, made: list[Made], changed_too: bool, result: UndoResult) -> None:
    try:
        stored = get_annotations(session, job)
    except ServerRefused as error:
        if error.status != 404:
            raise
        result.jobs_gone += 1
        return
    remove, changed = untouched(made, stored)
    if changed_too:
        ids = {(item.kind, item.server_id) for item in made}
        there = {kind: [item for item in stored.get(kind, ()) if (kind, item["id"]) in ids] for kind in KINDS}
        remove, changed = _union(remove, there), 0
    count = sum(map(len, remove.values()))
    if count:
        delete(session, job, remove)
    result.removed += count
    result.changed += changed
    result.gone += len(made) - count - changed


def _union(
    one: dict[str, list[dict[str, Any]]], other: dict[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    return {kind: list({item["id"]: item for item in [*one[kind], *other[kind]]}.values()) for kind in KINDS}

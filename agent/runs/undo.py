"""Taking a run back: exactly what it created, unless somebody has made it theirs by changing it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.cvat.annotations_api import delete, get_annotations
from agent.cvat.jobs import says_gone
from agent.cvat.ours import untouched
from agent.cvat.session import Session, open_session
from agent.cvat.uploads import JobUploads
from agent.errors import BadRequest, ServerRefused
from agent.ledger.ledger import KINDS, Ledger
from agent.runs.advice import changed_values, ways_back
from agent.runs.surroundings import check_server
from agent.settings.server import ServerSettings


@dataclass(slots=True)
class UndoResult:
    """How many annotations of a run were removed, kept, or gone already."""

    run: str
    removed: int = 0
    changed: int = 0
    gone: int = 0
    jobs_gone: int = 0
    replaced: Mapping[str, int] = field(default_factory=dict)
    """How many later runs have replaced long since, by run."""

    def lines(self) -> Iterator[str]:
        yield f"run {self.run}: {self.removed} annotations removed"
        if self.changed:
            yield f"{self.changed} kept, because somebody has changed them (--changed-too removes them)"
        if self.gone:
            yield f"{self.gone} were gone already"
        for run, count in self.replaced.items():
            yield f"{count} were there no more: run {run} has replaced them"
        if self.jobs_gone:
            yield f"{self.jobs_gone} jobs no longer exist"


def undo_run(run: str, server: ServerSettings, ledger: Path | None, *, changed_too: bool = False) -> UndoResult:
    """Removes what the run created. A run that is still going must be stopped first."""
    with Ledger(ledger) as book, open_session(server.for_run_at(book.run(run).server)) as session:
        number = book.run(run).id
        with book.hold(number):
            record = book.run(number)
            check_server(session, record.server, f"run {record.id}: it went to")
            if changed_values(record):
                back = "; ".join(ways_back(book, record)) or "it has changed none"
                raise BadRequest(f"run {record.id}: it made nothing, it changed values of what was there; {back}")
            if record.status == "undone" and not changed_too:
                raise BadRequest(f"run {record.id}: it is undone already (--changed-too goes on to what was changed)")
            result = UndoResult(record.id, replaced=book.replaced_by(record.id))
            for job in book.jobs(record.id):
                _undo_job(session, book, record.id, job, changed_too, result)
            removed = record.report.get("undone", 0) + result.removed
            book.end(record.id, "undone", {**record.report, "undone": removed})
        return result


def _undo_job(session: Session, book: Ledger, run: str, job: int, changed_too: bool, result: UndoResult) -> None:
    try:
        JobUploads(session, book, run, job, wait=time.sleep).adopt()
        stored = get_annotations(session, job)
    except ServerRefused as error:
        if not says_gone(error):
            raise
        result.jobs_gone += 1
        return
    made = book.made(run=run, job=job)
    remove, changed = untouched(made, stored, book.known_ids(job, session.url))
    if changed_too:
        ids, changed = {(item.kind, item.server_id) for item in changed}, []
        for kind in KINDS:
            remove[kind] += [item for item in stored.get(kind, ()) if (kind, item["id"]) in ids]
    if count := sum(map(len, remove.values())):
        delete(session, job, remove)
    kept = {(item.kind, item.server_id) for item in changed}
    book.forget_made(run, job, {(item.kind, item.server_id) for item in made} - kept)
    result.removed += count
    result.changed += len(changed)
    result.gone += len(made) - count - len(changed)

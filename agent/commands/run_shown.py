"""One run of the ledger, for a person and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from agent.options import Options
from agent.report import RunReport
from agent.runs.advice import typed, ways_again, ways_back

if TYPE_CHECKING:
    from agent.ledger.ledger import Ledger
    from agent.ledger.records import RunRecord

_USUAL = {field.name: field.default for field in fields(Options)}


BROKEN_OFF = "broken off"
"""In place of running, where nobody on this machine works on it: it was killed."""


def status_of(book: Ledger, record: RunRecord) -> str:
    """How a run stands, in a word or two."""
    if record.status != "running" or book.held(record.id):
        return record.status
    status = book.run(record.id).status  # it may have ended since it was read, and said so before it let go
    return BROKEN_OFF if status == "running" else status


def everything_of(book: Ledger, record: RunRecord) -> dict[str, Any]:
    """All that is remembered, as plain values."""
    skipped = book.skipped(record.id)
    return {
        **{name: getattr(record, name) for name in record.__dataclass_fields__ if name != "frames"},
        "status": status_of(book, record),
        "frames": {f"job {job}": len(numbers) for job, numbers in record.frames.items()},
        "made": book.made_counts(record.id),
        "replaced_by": book.replaced_by(record.id),
        "skipped": {f"job {job}, frame {frame}": reason for (job, frame), reason in skipped.items()},
        "backups": [str(path) for path in book.backups(record.id)],
    }


def lines_of(book: Ledger, record: RunRecord, found: Mapping[str, Any], done: int) -> Iterator[str]:
    """What a person wants to know of it; `done` frames are dealt with."""
    yield f"run         {record.id}, {found['status']}"
    back = ways_back(book, record)
    if found["status"] == BROKEN_OFF:
        resume = f"{typed('resume', record.id, book.path)} goes on; {'; '.join(back)}"
        yield f"            nobody works on it: {resume if record.command == 'annotate' else ways_again(book, record)}"
    yield f"target      {record.target} at {record.server}, as {record.user}"
    yield f"model       {record.model} (version {record.model_version})"
    if asked := _asked(record.options):
        yield f"asked       {asked}"
    yield f"begun       {_moment(record.created)}, last changed {_moment(record.updated)}"
    there = ", ".join(f"{number} {kind}" for kind, number in found["made"].items() if number)
    if record.report:
        report = RunReport.of_json(record.report, "--json")
        report.notes = [note for note in report.notes if not note.startswith("backup ")]  # they come below
        yield from report.lines()
    else:
        # What it counts is written at its end.
        yield f"frames      {done} of {sum(found['frames'].values())}"
    yield f"still there {there or 'nothing'}, as far as we know"
    for by, number in found["replaced_by"].items():
        yield f"            {number} that were there run {by} has replaced"
    for path in found["backups"]:
        yield f"backup      {path}"
    if found["backups"]:
        yield from (f"            {way}" for way in back)


def _asked(options: Mapping[str, Any]) -> str:
    """What was wanted otherwise than usual. The model has a line of its own."""
    told = {name: value for name, value in options.items() if name != "model" and value != _USUAL.get(name)}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value not in (None, "", [], {}, ()))


def _moment(time: str) -> str:
    """To the second, in the time zone that the ledger has."""
    return f"{time[:10]} {time[11:19]} UTC"

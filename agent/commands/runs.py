"""cvat-sidecar runs: what was done, taken back, gone on with, or forgotten."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.commands.options import (
    check_config,
    ledger_option,
    ledger_options,
    ledger_path,
    server_options,
    server_settings,
)

if TYPE_CHECKING:
    from agent.ledger.records import RunRecord

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("runs")
def command() -> None:
    """List, show, undo, resume and prune runs; restore what a backup holds."""


@command.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@ledger_options
def list_(limit: int, **values: Any) -> None:
    """The runs that this machine remembers, the newest first; times are UTC."""
    from agent.commands.run_shown import status_of
    from agent.ledger.ledger import Ledger

    with Ledger(ledger_path(values)) as book:
        records = book.runs(limit)
        # Counted afresh: a run that was killed has left no report.
        done = [_done(record, len(book.finished_frames(record.id))) for record in records]
        statuses = [status_of(book, record) for record in records]
    if not records:
        click.echo(f"no runs in {book.path} (--ledger and --config name another ledger)")
    for record, finished, status in zip(records, done, statuses, strict=True):
        count = f"{finished}/{sum(map(len, record.frames.values()))} frames"
        by = f"  (rule {rule})" if (rule := record.options.get("rule")) else ""
        when, target = f"{record.created[:19]}Z", f"{record.target:<12}"
        click.echo(f"{record.id}  {when}  {status:<11}  {target}  {count:<18}  {record.model}{by}")


def _done(record: RunRecord, uploaded: int) -> int:
    """How many frames a run has dealt with; what changes shapes, or links them, does not upload by the frame."""
    whole = record.command != "annotate" and record.report.get("status") == "done"
    return sum(map(len, record.frames.values())) if whole else uploaded


@command.command("show")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with everything that is remembered.")
@ledger_options
def show(run: str, as_json: bool, **values: Any) -> None:
    """One run: what was asked, what came of it, and what of it nothing has replaced or undone since."""
    from agent.commands.run_shown import everything_of, lines_of
    from agent.ledger.ledger import Ledger

    with Ledger(ledger_path(values)) as book:
        record = book.run(run)
        found = everything_of(book, record)
        done = _done(record, len(book.finished_frames(record.id)))
        lines = [json.dumps(found, indent=2)] if as_json else lines_of(book, record, found, done)
        for line in lines:
            click.echo(line)


@command.command("undo")
@click.argument("run")
@click.option("--changed-too", is_flag=True, help="Also remove what somebody has changed since.")
@ledger_option
@server_options
def undo(run: str, changed_too: bool, **values: Any) -> None:
    """Remove what a run created, and nothing else.

    Annotations that somebody has changed since are kept, unless you say --changed-too.
    """
    from agent.runs.undo import undo_run

    check_config(values, models=False)
    ledger = ledger_path(values)
    result = undo_run(run, server_settings(values), ledger, changed_too=changed_too)
    for line in result.lines():
        click.echo(line)


@command.command("resume")
@click.argument("run")
@click.option("--preview", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="As for annotate.")
@click.option("--report", type=_FILE, metavar="FILE.json", help="Write the report as JSON.")
@click.option("--leave-skipped", is_flag=True, help="Do not try frames again that failed or could not be read.")
@ledger_option
@server_options
def resume(run: str, preview: Path | None, report: Path | None, leave_skipped: bool, **values: Any) -> int:
    """Go on with a run that was interrupted, failed, or killed, or that skipped frames; nothing is lost or doubled.

    Skipped frames are tried again, too.
    """
    from agent.commands.report_file import ReportFile
    from agent.commands.running import resume_run

    check_config(values, models=False)
    ledger = ledger_path(values)
    server = server_settings(values)
    file = ReportFile(report)
    return resume_run(server, run, preview=preview, report=file, ledger=ledger, leave_skipped=leave_skipped)


@command.command("restore")
@click.argument("backup", metavar="RUN|FILE")
@click.option(
    "--values", "old_values", is_flag=True, help="Give shapes and tracks their old labels and attributes again, too."
)
@ledger_option
@server_options
def restore(backup: str, old_values: bool, **values: Any) -> None:
    """Bring back what a RUN's backups, or a backup FILE, hold and their jobs do not any more.

    Backups are kept by `--replace all`, `track` and `enrich`. Nothing is removed: undo the run that took it away for
    that.
    """
    from agent.runs.restore import backups_of, restore_backup

    check_config(values, models=False)
    ledger = ledger_path(values)
    server = server_settings(values)
    files, later = backups_of(backup, ledger)
    for file in files:
        for line in restore_backup(file, server, values=old_values).lines():
            click.echo(line)
    for file in later:
        click.echo(f"{file} is of a job whose earlier backup this run has too, and was left")


class _Age(click.ParamType[timedelta]):
    """A span of time: `30d`."""

    name = "age"
    units = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if (found := re.fullmatch(r"(\d{1,4})([hdw])", str(value).strip())) is None:
            self.fail(f"got {value!r}, allowed: a number of hours, days or weeks, as 12h, 30d or 8w", param, ctx)
        return int(found[1]) * self.units[found[2]]


@command.command("prune")
@click.option("--older-than", type=_Age(), required=True, metavar="AGE", help="For example 30d; also 12h or 8w.")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@ledger_options
def prune_(older_than: timedelta, dry_run: bool, **values: Any) -> None:
    """Forget runs that ended longer ago than AGE, and remove their backups.

    Their annotations stay in CVAT, but can no longer be undone or replaced as ours. Runs that can be gone on with stay,
    and rules still know which jobs they have annotated.
    """
    from agent.runs.pruning import prune

    for line in prune(ledger_path(values), older_than, dry_run=dry_run).lines():
        click.echo(line)

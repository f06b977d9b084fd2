"""cvat-sidecar runs: what was done, taken back, or gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from agent.commands.options import server_options, server_settings

_LEDGER = click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where runs are remembered.",
)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("runs")
def command() -> None:
    """List, show, undo and resume runs; restore what a backup holds."""


@command.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@_LEDGER
def list_(limit: int, ledger: Path | None) -> None:
    """The runs that this machine remembers, the newest first."""
    from agent.ledger import Ledger

    with Ledger(ledger) as book:
        records = book.runs(limit)
        # Counted afresh: a run that was killed has left no report.
        done = [len(book.finished_frames(record.id)) for record in records]
    if not records:
        click.echo("no runs yet")
    for record, finished in zip(records, done, strict=True):
        count = f"{finished}/{sum(map(len, record.frames.values()))} frames"
        by = f"  (rule {rule})" if (rule := record.options.get("rule")) else ""
        when, target = record.created[:19], f"{record.target:<12}"
        click.echo(f"{record.id}  {when}  {record.status:<11}  {target}  {count:<18}  {record.model}{by}")


@command.command("show")
@click.argument("run")
@_LEDGER
def show(run: str, ledger: Path | None) -> None:
    """One run as JSON: what was asked, what came of it, and what of it nothing has replaced or undone since."""
    from agent.ledger import Ledger

    with Ledger(ledger) as book:
        record = book.run(run)
        made = book.made_counts(record.id)
        skipped = book.skipped(record.id)
    values = {
        **{name: getattr(record, name) for name in record.__dataclass_fields__ if name != "frames"},
        "frames": {f"job {job}": len(numbers) for job, numbers in record.frames.items()},
        "made": made,
        "skipped": {f"job {job}, frame {frame}": reason for (job, frame), reason in skipped.items()},
    }
    click.echo(json.dumps(values, indent=2))


@command.command("undo")
@click.argument("run")
@click.option("--changed-too", is_flag=True, help="Also remove what somebody has changed since.")
@_LEDGER
@server_options
def undo(run: str, changed_too: bool, ledger: Path | None, **values: Any) -> None:
    """Remove what a run created, and nothing else.

    Annotations that somebody has changed since are kept, unless you say --changed-too.
    """
    from agent.undo import undo_run

    result = undo_run(run, server_settings(values), ledger, changed_too=changed_too)
    for line in result.lines():
        click.echo(line)


@command.command("resume")
@click.argument("run")
@click.option("--preview", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="As for annotate.")
@click.option("--report", type=_FILE, metavar="FILE.json", help="Write the report as JSON.")
@click.option("--retry-skipped", is_flag=True, help="Try skipped frames again, also of a run that is done.")
@_LEDGER
@server_options
def resume(
    run: str, preview: Path | None, report: Path | None, retry_skipped: bool, ledger: Path | None, **values: Any
) -> int:
    """Go on with a run that was interrupted, failed, or killed; nothing is lost or doubled."""
    from agent.commands.running import resume_run

    server = server_settings(values)
    return resume_run(server, run, preview=preview, report=report, ledger=ledger, retry_skipped=retry_skipped)


@command.command("restore")
@click.argument("backup", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--values", "old_values", is_flag=True, help="Give shapes their old labels and attributes again, too.")
@server_options
def restore(backup: Path, old_values: bool, **values: Any) -> None:
    """Bring back what a BACKUP file holds and its job does not any more.

    Such a file is kept by `--replace all`, `track` and `enrich`. Nothing is removed: undo the run that took it away for
    that.
    """
    from agent.restore import restore_backup

    for line in restore_backup(backup, server_settings(values), values=old_values).lines():
        click.echo(line)

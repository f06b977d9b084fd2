"""A run as a person at a terminal sees it: the plan, the progress, Ctrl-C, the table, the files."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands.report_file import ReportFile, check_folder, tell
from agent.ledger.ledger import Ledger
from agent.runs.advice import typed, ways_again, ways_back

if TYPE_CHECKING:
    from agent.options import Options, Target
    from agent.plan import Plan
    from agent.report import RunReport
    from agent.runs.running import Surroundings
    from agent.settings.server import ServerSettings

log = logging.getLogger(__name__)

PLAIN_LINE_SECONDS = 10.0
STOPPING = b"\nstopping after the batch at hand; press Ctrl-C again to stop at once\n"
SKIPPED = 1
"""Exit code of a run that is done but for some frames."""
INTERRUPTED = 130
UNWRITTEN = 2
"""Of one whose report could not be written in the end."""


def run_annotation(
    server: ServerSettings,
    target: Target,
    options: Options,
    *,
    dry_run: bool = False,
    preview: Path | None = None,
    report: ReportFile | None = None,
    ledger: Path | None = None,
    kept: bool = True,
) -> int:
    """Annotates, shows how it goes, and returns the exit code. `kept`: the ledger outlives this process."""
    from agent.errors import NothingToDo
    from agent.runs.running import start

    def work(around: Surroundings) -> RunReport:
        return start(target, options, around, dry_run=dry_run)

    report = report or ReportFile(None)
    try:
        return watch_run(server, work, preview, report, ledger, kept)
    except NothingToDo as nothing:
        return nothing_to_do(f"nothing     {nothing}", report)


def nothing_to_do(line: str, report: ReportFile, key: str | None = None) -> int:
    """Says so, in the report file too, and returns the exit code."""
    from agent.report import RunReport

    click.echo(line)
    return 0 if report.write(RunReport(notes=[line]), key) else UNWRITTEN


def resume_run(
    server: ServerSettings,
    run: str,
    *,
    preview: Path | None,
    report: ReportFile,
    ledger: Path | None,
    leave_skipped: bool = False,
) -> int:
    """Goes on with a run, shows how it goes, and returns the exit code."""
    from agent.runs.running import resume

    def work(around: Surroundings) -> RunReport:
        return resume(run, around, leave_skipped=leave_skipped)

    return watch_run(server, work, preview, report, ledger)


def watch_run(
    server: ServerSettings,
    work: Callable[[Surroundings], RunReport],
    preview: Path | None,
    report_file: ReportFile,
    ledger: Path | None,
    kept: bool = True,
    resumable: bool = True,
    key: str | None = None,
) -> int:
    """Does the work with a progress display around it; the report is printed, and written where asked.

    So is that of a run that breaks off, as far as it came. `resumable`: such a run can be gone on with. `key`: where
    the report file has this run, if it is not the first one of its command.
    """
    from agent.errors import RequestCancelled
    from agent.models.memory import give_large_blocks_back
    from agent.runs.running import Surroundings

    give_large_blocks_back()
    report_file.check()
    check_folder(preview)
    progress = Progress()
    reports: list[RunReport] = []
    with _stop_on_signal() as stop:
        around = Surroundings(
            server=server, ledger=ledger, preview=preview, stop=stop,
            progress=progress.update, started=progress.begin, ended=reports.append,
        )  # fmt: skip
        try:
            report = work(around)
        except (RequestCancelled, KeyboardInterrupt):
            progress.end()
            tell(reports, report_file, key)
            click.echo(f"interrupted{_how_to_go_on(progress.run, reports, ledger, resumable)}", err=True)
            return INTERRUPTED
        except Exception:
            progress.end()
            tell(reports, report_file, key)
            if progress.run:
                how = _how_to_go_on(progress.run, reports, ledger, resumable)
                click.echo(f"the run did not end well{how}", err=True)
            raise
    progress.end()
    for line in report.lines():
        click.echo(line)
    if report.run and kept:
        _tell_ways(report, ledger, resumable)
    if not report_file.write(report, key):
        return UNWRITTEN
    return SKIPPED if report.skipped else 0


def _tell_ways(report: RunReport, ledger: Path | None, resumable: bool) -> None:
    """Prints what can be done about a run that has come to its end."""
    assert report.run is not None
    with Ledger(ledger) as book:
        ways = "; ".join(ways_back(book, book.run(report.run))) or "it has changed nothing"
    click.echo(f"run         {report.run} ({ways})")
    if report.skipped and resumable:
        click.echo(f"            {typed('resume', report.run, ledger)} tries the skipped frames again")


def _how_to_go_on(run: str | None, reports: Sequence[RunReport], ledger: Path | None, resumable: bool) -> str:
    """Which command goes on with a run that broke off; it tries skipped frames again, too."""
    if not run:
        return ""
    if not resumable:
        with Ledger(ledger) as book:
            return f"; {ways_again(book, book.run(run))}"
    command = typed("resume", run, ledger)
    skipped, left = (len(reports[0].skipped), reports[0].total - reports[0].done) if reports else (0, 1)
    if not skipped:
        return f"; go on with {command}"
    if left:
        again = f"tries the {skipped} skipped frames again too (--leave-skipped goes on without them)"
        return f"; go on with {command}, which {again}"
    return f"; once the reason is gone, {command} tries the {skipped} skipped frames again"


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """The first SIGINT or SIGTERM asks to stop after the batch at hand, the second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        # Not by print: the signal may have come in the middle of one, which cannot be entered twice.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, STOPPING)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A bar with frames/s and the remaining time on a terminal, a plain line now and then elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, live: bool | None = None) -> None:
        self.run: str | None = None
        self._clock = clock
        self._began = self._last = 0.0
        self._first: int | None = None
        self._live = sys.stderr.isatty() if live is None else live
        self._open = False

    def begin(self, run: str | None, plans: Sequence[Plan]) -> None:
        """Says what is about to happen."""
        self.run = run
        self._began = self._last = self._clock()
        for plan in plans:
            click.echo(plan.headline(), err=True)
            for line in plan.warnings:
                click.echo(f"  {line}", err=True)
            for line in plan.match.lines(most=len(plan.model.labels)):
                log.info("task %d: %s", plan.work.task_id, line)

    def update(self, done: int, total: int) -> None:
        now = self._clock()
        if self._first is None:
            # What a resumed run did earlier says nothing about the speed of this one.
            self._first, self._began = done, now
        if self._live:
            if now - self._last >= 0.1 or done == total:
                self._last = now
                self._open = True
                click.echo(f"\r{self._line(done, total, now)}\x1b[K", nl=False, err=True)
        elif now - self._last >= PLAIN_LINE_SECONDS:
            self._last = now
            click.echo(self._line(done, total, now), err=True)

    def end(self) -> None:
        if self._open:
            self._open = False
            click.echo(err=True)

    def _line(self, done: int, total: int, now: float) -> str:
        elapsed = max(now - self._began, 1e-6)
        speed = (done - (self._first or 0)) / elapsed
        rest = f"{_clock_time((total - done) / speed)} left" if speed > 0 else "…"
        text = f"{done}/{total} frames, {speed:.1f} frames/s, {rest}"
        if not self._live:
            return text
        filled = 30 * done // max(total, 1)
        return f"[{'#' * filled}{'-' * (30 - filled)}] {text}"


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

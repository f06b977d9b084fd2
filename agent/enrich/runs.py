"""A run of `enrich` from beginning to end: shapes read, looked at on their frames, changed in their jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from agent.compose.parts import Opener, Parts
from agent.cvat.annotations_api import get_annotations, update
from agent.cvat.session import Session
from agent.cvat.uploads import JobUploads
from agent.cvat.work import find_work
from agent.enrich.looks import EnrichOptions, JobShapes, Looked, Ready, look, prepare, read_job
from agent.enrich.shapes import Changes, check_attribute
from agent.errors import BadRequest
from agent.ledger.backups import write_backup
from agent.ledger.ledger import Ledger
from agent.models.host import Host
from agent.models.loading import LoadedModel
from agent.options import Target
from agent.report import RunReport
from agent.runs.surroundings import Surroundings

MODEL = "enrich"
"""What the ledger calls the model of such a run, before the name of the real one."""
PER_UPDATE = 500


def enrich_target(
    target: Target, options: EnrichOptions, around: Surroundings, *, device: str, params: Mapping[str, Any],
    opener: Opener, dry_run: bool = False,
) -> RunReport:  # fmt: skip
    """Looks again at the shapes of a task, a job or a project; BadRequest where there are none."""
    with ExitStack() as stack:
        session = stack.enter_context(around.open())
        ledger = stack.enter_context(Ledger(around.ledger))
        parts = Parts(MODEL, device, _once(opener, stack))
        stack.callback(parts.close)
        report = RunReport(looked="looked at", made="changed", dry=dry_run)
        work = find_work(session, target)
        jobs = {part.task_id: [read_job(session, ledger, part, job, options) for job in part.jobs] for part in work}
        report.total = sum(len(job.shapes) for found in jobs.values() for job in found)
        tracks = sum(len(job.stored.get("tracks", ())) for found in jobs.values() for job in found)
        what = "1 track is" if tracks == 1 else f"{tracks} tracks are"
        unseen = f"{what} not looked at: enrich rectangles first, and link them then" if tracks else ""
        if not report.total:
            more = " that this program made and nobody changed (--of auto or all: more)" if options.of == "own" else ""
            raise BadRequest(f"{target}: it holds no shapes to look at{more}{unseen and '; '}{unseen}")
        if unseen:
            report.notes.append(f"note        {unseen}")
        for part in work:
            if wanted := options.attribute or ("text" if options.gives == "text" else ""):
                check_attribute(part.labels, options.labels, wanted, f"task {part.task_id}")
        # What cannot be done is told before a run of it is remembered.
        ready = [prepare(part, jobs[part.task_id], options, parts, params) for part in work]
        if not dry_run:
            report.run = ledger.begin(
                server=session.url, user=session.user, target=str(target), model=f"{MODEL} {options.model}",
                model_version=options.gives, options=asdict(options),
                frames={job.work.id: sorted(job.shapes) for found in jobs.values() for job in found if job.shapes},
            )  # fmt: skip
            stack.enter_context(ledger.hold(report.run))
        around.started(report.run, ())
        with around.concluding(report, ledger):
            for one in ready:
                _change(session, ledger, one, look(session, one, options, around, report), around, report)
        return report


def _once(opener: Opener, stack: ExitStack) -> Opener:
    """Opens the same model once, however many tasks a project has; it stays open as long as the stack."""
    known: dict[str, tuple[LoadedModel, Host]] = {}

    @contextmanager
    def open_part(name: str, device: str, options: Mapping[str, Any]) -> Iterator[tuple[LoadedModel, Host]]:
        key = repr((name, device, sorted(options.items())))
        if key not in known:
            known[key] = stack.enter_context(opener(name, device, options))
        yield known[key]

    return open_part


def _change(
    session: Session, ledger: Ledger, ready: Ready, looked: list[Looked], around: Surroundings, report: RunReport
) -> None:
    names = {label.id: label.name for label in ready.work.labels}
    by_job: dict[int, tuple[JobShapes, Changes]] = {}
    for job, shape, before, after, size in looked:
        changes = by_job.setdefault(job.work.id, (job, Changes()))[1]
        ready.book.note(changes, shape, before, after, size)
    for number, (job, changes) in by_job.items():
        stored = get_annotations(session, number)
        changes.leave_out_changed(job.stored["shapes"], stored["shapes"])
        report.annotations.update(names[item["label_id"]] for item in (*changes.updated, *changes.created))
        report.refused.update(changes.left)
        if report.run is None or not changes:
            report.removed += len(changes.replaced)
            continue
        backup = write_backup(ledger.path, session.url, number, stored)
        ledger.note_backup(report.run, backup)
        report.notes.append(f"backup      job {number}: {backup}")
        for start in range(0, len(changes.updated), PER_UPDATE):
            update(session, number, {"shapes": changes.updated[start : start + PER_UPDATE]})
        if changes.replaced:
            _recreate(session, ledger, report, number, changes, around)


def _recreate(
    session: Session, ledger: Ledger, report: RunReport, job: int, changes: Changes, around: Surroundings
) -> None:
    assert report.run is not None
    uploads = JobUploads(session, ledger, report.run, job, wait=around.wait)
    frames = sorted({shape["frame"] for shape in changes.created})
    payload: dict[str, list[dict[str, Any]]] = {"tags": [], "shapes": changes.created, "tracks": []}
    uploads.add(frames, payload, [("shapes", number) for number, _ in changes.replaced])
    uploads.settle()
    report.removed += uploads.removed

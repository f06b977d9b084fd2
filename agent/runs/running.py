"""Runs from beginning to end: work found, model loaded, plan made, ledger opened, the flow driven, the report kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace

from agent.cvat.session import Session
from agent.cvat.uploads import JobUploads
from agent.cvat.work import TaskWork, find_work
from agent.errors import BadRequest, ModelError, RequestCancelled
from agent.ledger.ledger import Ledger, RunRecord
from agent.options import Options, Target
from agent.plan import Place, Plan, check_options, frames_by_job, make_plans
from agent.report import RunReport
from agent.runs.advice import ways_again
from agent.runs.flow import drive
from agent.runs.surroundings import ReadyModel, Surroundings, check_server
from agent.sink import DrySink, UploadSink

__all__ = ["Surroundings", "resume", "start"]

TASK_LABELS = "task"
"""In place of a list of labels: those of the task that is annotated."""


def start(target: Target, options: Options, around: Surroundings, *, dry_run: bool = False) -> RunReport:
    """Annotates the target; what was done until an error or Ctrl-C stays, and the ledger knows it."""
    check_options(options)
    with ExitStack() as stack:
        session = stack.enter_context(around.open())
        ledger = stack.enter_context(Ledger(around.ledger))
        work = _work(session, target, options)
        options = _told(options, work)
        model = stack.enter_context(around.detector(options))
        plans = make_plans(session, work, options, model.loaded, ledger, dry_run=dry_run)
        _stop_here(around)
        if dry_run:
            return _tried(plans, session, model, options, around)
        run = ledger.begin(
            server=session.url,
            user=session.user,
            target=str(target),
            model=options.model,
            model_version=model.loaded.version,
            options=options.as_json(),
            frames=frames_by_job(place for plan in plans for place in plan.places),
        )
        stack.enter_context(ledger.hold(run))
        return _recorded(run, plans, session, ledger, model, options, around)


def resume(run: str, around: Surroundings, *, leave_skipped: bool = False) -> RunReport:
    """Goes on with a run that was interrupted, failed, or killed, or that is done but for some frames.

    Frames for which there was nothing are tried again, unless they are to be left (`leave_skipped`).
    """
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(around.ledger))
        # Held before it is looked at: what another process is about to finish must not be planned again.
        stack.enter_context(ledger.hold(number := ledger.run(run).id))
        record = ledger.run(number)
        _check_resumable(ledger, record, set() if leave_skipped else ledger.skipped(record.id))
        options = Options.from_json(record.options)
        session = stack.enter_context(around.open(record.server))
        check_server(session, record.server, f"run {record.id}: it went to")
        work = _work(session, Target.parse(record.target), options)
        model = stack.enter_context(around.detector(options))
        if model.loaded.version != record.model_version:
            raise ModelError(
                f"run {record.id}: it began with version {record.model_version} of {options.model}, which is now"
                f" {model.loaded.version}; start a new run (with --replace own it takes the place of this one)"
            )
        _stop_here(around)
        if not leave_skipped:
            ledger.reopen(record.id)
        plans = make_plans(session, work, options, model.loaded, ledger, record.id)
        ledger.goes_on(record.id)
        return _recorded(record.id, plans, session, ledger, model, options, around)


def _check_resumable(ledger: Ledger, record: RunRecord, again: Collection[Place]) -> None:
    """BadRequest where there is nothing to go on with; `again` are the skipped frames that are to be tried again."""
    if record.command != "annotate":
        raise BadRequest(
            f"run {record.id}: `{record.command}` looks at everything at once and cannot go on in the middle;"
            f" {ways_again(ledger, record)}"
        )
    if record.status == "undone" or (record.status == "done" and not again):
        raise BadRequest(
            f"run {record.id}: it is {record.status}, allowed: running, interrupted or failed, or done with frames left"
        )


def _stop_here(around: Surroundings) -> None:
    """Ctrl-C may have come long before the first batch, while a model was loaded."""
    if around.stop.is_set():
        raise RequestCancelled("interrupted before the first frame")


def _work(session: Session, target: Target, options: Options) -> list[TaskWork]:
    return find_work(session, target, ground_truth=options.ground_truth, honeypots=options.honeypots)


def _told(options: Options, work: Sequence[TaskWork]) -> Options:
    """The model's option `labels = "task"` as the names of the labels that there are: for open vocabularies."""
    if options.params.get("labels") != TASK_LABELS:
        return options
    names = list(dict.fromkeys(label.name for part in work for label in part.labels))
    return replace(options, params={**options.params, "labels": names})


def _tried(
    plans: Sequence[Plan], session: Session, model: ReadyModel, options: Options, around: Surroundings
) -> RunReport:
    """A dry run: everything but the uploads."""
    around.started(None, plans)
    report = _new_report(plans)
    report.dry = True
    with around.concluding(report):
        drive(plans, session, model, options, around, report, lambda plan: DrySink(removes=plan.replaced))
    if options.replace != "none" and not report.removed:
        report.notes.append("replaced    nothing: there is nothing that --replace would remove")
    return report


def _recorded(
    run: str,
    plans: Sequence[Plan],
    session: Session,
    ledger: Ledger,
    model: ReadyModel,
    options: Options,
    around: Surroundings,
) -> RunReport:
    """Drives the plans under a run of the ledger, which we hold, and keeps how it ended."""
    report = _new_report(plans)
    _count_earlier(report, run, plans, ledger)

    def uploads_to(job: int) -> JobUploads:
        keep = options.replace in ("own", "rule")
        return JobUploads(session, ledger, run, job, wait=around.wait, before=around.before_upload, keep_changed=keep)

    def skipped(job: int, frame: int, reason: str) -> None:
        ledger.skip(run, job, frame, reason)

    def sink(plan: Plan) -> UploadSink:
        for job in sorted({job.id for job in plan.work.jobs} & set(ledger.jobs(run))):
            uploads = uploads_to(job)
            uploads.recover()
            uploads.settle()
            report.removed += uploads.removed
        return UploadSink(uploads_to, skipped, removes=plan.replaced)

    for backup in (backup for plan in plans for backup in plan.backups):
        ledger.note_backup(run, backup)
    around.started(run, plans)
    with around.concluding(report, ledger):
        drive(plans, session, model, options, around, report, sink)
    return report


def _new_report(plans: Sequence[Plan]) -> RunReport:
    report = RunReport(total=sum(len(plan.wanted) + plan.earlier for plan in plans))
    for plan in plans:
        report.dropped_why.update({dropped.name: dropped.reason for dropped in plan.match.dropped})
    return report


def _count_earlier(report: RunReport, run: str, plans: Sequence[Plan], ledger: Ledger) -> None:
    """Counts what the run had done before it was interrupted."""
    report.run = run
    names = {label.id: label.name for plan in plans for label in plan.work.labels}
    tasks = {job.id: plan.work.task_id for plan in plans for job in plan.work.jobs}
    for (job, frame), reason in ledger.skipped(run).items():
        if job in tasks:
            report.skip(tasks[job], job, frame, reason)
    report.done = sum(plan.earlier for plan in plans)  # the skipped ones are among them
    for job in tasks.keys() & set(ledger.jobs(run)):
        for label, count in ledger.label_counts(run, job).items():
            report.annotations[names.get(label, "?")] += count
    if report.done:
        report.notes.append(
            "note        left out, dropped and replaced, and the time, are counted since the run was resumed;"
            " what was before that is not known"
        )

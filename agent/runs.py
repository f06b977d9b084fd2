"""Runs from beginning to end: work found, model loaded, plan made, ledger opened, the flow driven, the report kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.annotate import annotate
from agent.config import ServerSettings
from agent.cvat.frames import ChunkFrames
from agent.cvat.session import Session, open_session
from agent.cvat.uploads import JobUploads
from agent.cvat.work import TaskWork, find_work
from agent.errors import BadPrediction, BadRequest, ConfigError, ModelError, RequestCancelled
from agent.host import Host
from agent.lease import LocalLease
from agent.ledger import Ledger
from agent.models import LoadedModel, load_model
from agent.options import Options, Target
from agent.plan import Plan, check_options, frames_by_job, make_plans
from agent.preview import Preview
from agent.report import RunReport
from agent.sink import DrySink, Sink, UploadSink

PATIENCE = 2.0
"""Seconds that an end at once waits for threads."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs besides its options: the server, the ledger, and where a person watches it."""

    server: ServerSettings
    ledger: Path | None = None
    preview: Path | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[int, int], None] = lambda done, total: None
    started: Callable[[str | None, Sequence[Plan]], None] = lambda run, plans: None


def start(target: Target, options: Options, around: Surroundings, *, dry_run: bool = False) -> RunReport:
    """Annotates the target; what was done until an error or Ctrl-C stays, and the ledger knows it."""
    check_options(options)
    with ExitStack() as stack:
        session = stack.enter_context(open_session(around.server))
        ledger = stack.enter_context(Ledger(around.ledger))
        work = _work(session, target, options)
        loaded = stack.enter_context(closing(_detector(options)))
        plans = make_plans(session, work, options, loaded, ledger, dry_run=dry_run)
        _stop_here(around)
        if dry_run:
            around.started(None, plans)
            return _drive(plans, session, options, around, _new_report(plans), lambda plan: DrySink())
        run = ledger.begin(
            server=session.url,
            user=session.user,
            target=str(target),
            model=options.model,
            model_version=loaded.version,
            options=options.as_json(),
            frames=frames_by_job(place for plan in plans for place in plan.places),
        )
        stack.enter_context(ledger.hold(run))
        return _recorded(run, plans, session, ledger, options, around)


def resume(run: str, around: Surroundings) -> RunReport:
    """Goes on with a run that was interrupted, failed, or whose process was killed."""
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(around.ledger))
        # Held before it is looked at: what another process is about to finish must not be planned again.
        stack.enter_context(ledger.hold(number := ledger.run(run).id))
        record = ledger.run(number)
        if record.status in ("done", "undone"):
            raise BadRequest(f"run {record.id}: it is {record.status}, allowed: running, interrupted or failed")
        options = Options.from_json(record.options)
        session = stack.enter_context(open_session(around.server.for_run_at(record.server)))
        if session.url != record.server:
            raise ConfigError(f"run {record.id}: it went to {record.server}, not to {session.url}")
        work = _work(session, Target.parse(record.target), options)
        loaded = stack.enter_context(closing(_detector(options)))
        if loaded.version != record.model_version:
            raise ModelError(
                f"run {record.id}: it began with version {record.model_version} of {options.model}, which is now"
                f" {loaded.version}; start a new run (with --replace own it takes the place of this one)"
            )
        plans = make_plans(session, work, options, loaded, ledger, record.id)
        _stop_here(around)
        return _recorded(record.id, plans, session, ledger, options, around)


def _stop_here(around: Surroundings) -> None:
    """Ctrl-C may have come long before the first batch, while a model was loaded."""
    if around.stop.is_set():
        raise RequestCancelled("interrupted before the first frame")


def _work(session: Session, target: Target, options: Options) -> list[TaskWork]:
    return find_work(session, target, ground_truth=options.ground_truth, honeypots=options.honeypots)


def _detector(options: Options) -> LoadedModel:
    loaded = load_model(options.model, device=options.device, options=options.params)
    if loaded.kind != "detector":
        raise ModelError(f"{options.model}: it is a model of the kind {loaded.kind}, allowed here: detector")
    return loaded


def _recorded(
    run: str, plans: Sequence[Plan], session: Session, ledger: Ledger, options: Options, around: Surroundings
) -> RunReport:
    """Drives the plans under a run of the ledger, which we hold, and keeps how it ended."""
    report = _new_report(plans)
    _count_earlier(report, run, plans, ledger)

    def wait(seconds: float) -> None:
        # Whoever waits no longer must not send again either: a resumed run looks what arrived, and takes its time.
        if around.stop.wait(seconds):
            raise RequestCancelled("interrupted while the server did not answer")

    def uploads_to(job: int) -> JobUploads:
        return JobUploads(session, ledger, run, job, wait=wait, keep_changed=options.replace == "own")

    def skipped(job: int, frame: int, reason: str) -> None:
        ledger.skip(run, job, frame, reason)

    def sink(plan: Plan) -> UploadSink:
        for job in sorted({job.id for job in plan.work.jobs} & set(ledger.jobs(run))):
            uploads = uploads_to(job)
            uploads.recover()
            uploads.settle()
            report.removed += uploads.removed
        return UploadSink(uploads_to, skipped, removes=plan.replaced)

    around.started(run, plans)
    status = "failed"
    try:
        _drive(plans, session, options, around, report, sink)
        status = "done"
    except (RequestCancelled, KeyboardInterrupt):
        status = "interrupted"
        raise
    finally:
        ledger.end(run, status, report.as_json())
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


@contextmanager
def _sending(sink: Sink) -> Iterator[None]:
    """Ends the sink where the flow breaks off: what was finished is still sent, unless it is the sending that fails."""
    try:
        try:
            yield
        except (RequestCancelled, ModelError):
            sink.close()
            raise
    except KeyboardInterrupt:
        # At once is what was asked for; what is on its way is looked for when the run is resumed.
        sink.abandon(PATIENCE)
        raise
    except BaseException:
        sink.abandon()
        raise


def _drive(
    plans: Sequence[Plan],
    session: Session,
    options: Options,
    around: Surroundings,
    report: RunReport,
    sink_for: Callable[[Plan], Sink],
) -> RunReport:
    """Runs the flow for each plan."""
    lease = LocalLease(around.stop, around.progress)
    preview = Preview(around.preview) if around.preview else None
    model = plans[0].model
    with ExitStack() as stack, report.stage("whole run"):
        host = stack.enter_context(Host(model.model, batch_size=options.batch_size or model.batch_size))
        for plan in plans:
            sink = sink_for(plan)
            uploading, removed = report.seconds["upload"], report.removed
            try:
                with ChunkFrames(session, quality=options.quality) as source, _sending(sink):
                    annotate(plan, source.read(plan.wanted), host, sink, lease, report, preview)
            finally:
                report.note_stage("model", host.busy_seconds)
                report.note_stage("upload", uploading + sink.busy_seconds)
                report.removed = removed + sink.removed
    if preview is not None:
        preview.close()
    if report.total and len(report.skipped) == report.total:
        raise BadPrediction(
            f"none of the {report.total} frames could be annotated; the last one: {list(report.skipped.values())[-1]}"
        )
    return report

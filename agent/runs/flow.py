"""The flow of a run, plan by plan, and what is left in order when it breaks off: sink, preview, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

from agent.annotate import annotate
from agent.cvat.frames import ChunkFrames
from agent.cvat.session import Session
from agent.errors import BadPrediction, ModelError, RequestCancelled
from agent.options import Options
from agent.plan import Plan
from agent.preview import Preview
from agent.report import RunReport
from agent.runs.surroundings import ReadyModel, Surroundings
from agent.sink import Sink

PATIENCE = 0.3
"""Seconds that an end at once waits for threads."""


def drive(
    plans: Sequence[Plan],
    session: Session,
    model: ReadyModel,
    options: Options,
    around: Surroundings,
    report: RunReport,
    sink_for: Callable[[Plan], Sink],
) -> RunReport:
    """Runs the flow for each plan."""
    lease, host = around.the_lease(), model.host
    # Where others use the model too, what it did for them meanwhile is counted with ours.
    busy_before = host.busy_seconds
    with _previewed(around, report) as preview, report.stage("whole run"):
        for plan in plans:
            sink = sink_for(plan)
            uploading, removed = report.seconds["upload"], report.removed
            try:
                with (
                    ChunkFrames(session, quality=options.quality, wanted=lease.wanted) as source,
                    _sending(sink, around.may_finish),
                    _kept(),
                ):
                    annotate(plan, source.read(plan.wanted), host, sink, lease, report, preview)
            finally:
                report.note_stage("model", host.busy_seconds - busy_before)
                report.note_stage("upload", uploading + sink.busy_seconds)
                report.removed = removed + sink.removed
    if report.total and len(report.skipped) == report.total:
        raise BadPrediction(
            f"none of the {report.total} frames could be annotated; the last one: {list(report.skipped.values())[-1]}"
        )
    return report


@contextmanager
def _sending(sink: Sink, may_finish: Callable[[], bool]) -> Iterator[None]:
    """Ends the sink where the flow breaks off: what was finished is still sent, unless it is the sending that fails."""
    try:
        try:
            yield
        except (RequestCancelled, ModelError):
            if not may_finish():
                raise
            sink.close()
            raise
    except KeyboardInterrupt:
        # At once is what was asked for; what is on its way is looked for when the run is resumed.
        sink.abandon(PATIENCE)
        raise
    except BaseException:
        sink.abandon()
        raise


@contextmanager
def _previewed(around: Surroundings, report: RunReport) -> Iterator[Preview | None]:
    """The preview, if one is wanted; its contact sheet has what there is when the run ends, well or not."""
    preview = Preview(around.preview) if around.preview else None
    try:
        yield preview
    except KeyboardInterrupt:
        raise
    except BaseException:
        if preview is not None:
            preview.close()
        raise
    if preview is not None and (sheet := preview.close()) is not None:
        report.notes.append(f"preview     {sheet}")


@contextmanager
def _kept() -> Iterator[None]:
    """A model that is taken away, because the service ends, is no failure of the run."""
    try:
        yield
    except CancelledError as error:
        raise RequestCancelled("the model was ended") from error

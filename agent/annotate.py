"""The one flow behind every door: frames through the model, held to its contract, filtered, encoded, handed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Protocol

from agent.annotations import as_drawn, encode
from agent.contract import Context, Detection, Frame
from agent.cvat.chunks import BadFrame
from agent.errors import BadPrediction, RequestCancelled
from agent.filters import filter_detections, leave_out_overlapping
from agent.lease import Lease
from agent.models.host import Prediction
from agent.plan import Place, Plan
from agent.predict import check_predictions
from agent.preview import Preview
from agent.report import RunReport
from agent.shapes.geometry import shift
from agent.sink import Sink


class Predictor(Protocol):
    """A model behind its queue: a Host, or one that waits for it in another way."""

    batch_size: int

    def stream(
        self, batches: Iterable[list[Frame]], context: Context, *, wanted: Callable[[], bool]
    ) -> Iterator[tuple[list[Frame], list[Prediction]]]:
        """Batches and their predictions, in order. CancelledError where one is not `wanted` any more."""
        ...


def annotate(
    plan: Plan,
    frames: Iterable[Frame | BadFrame],
    host: Predictor,
    sink: Sink,
    lease: Lease,
    report: RunReport,
    preview: Preview | None = None,
) -> None:
    """Annotates the plan's frames, given in the plan's order, with the host's model.

    A frame that cannot be read, or on which the model fails, is skipped and reported; too many of them end the run
    with BadPrediction. RequestCancelled leaves through here when the lease ends; what was handed to the sink stays.
    """
    flow, names = _Flow(plan, sink, report), plan.label_names
    for batch, predictions in _predicted(flow.batches(frames, host.batch_size), host, plan.context, lease, report):
        for part, found in zip(batch, check_predictions(predictions, batch, plan.model.labels), strict=True):
            place, frame = flow.in_hand.popleft()
            if isinstance(found, BadPrediction):
                flow.skip(place, str(found))
                continue
            with report.stage("encode"):
                kept = flow.keep(found, part, place)
                made = encode(kept, plan.match, frame.index, (frame.width, frame.height), plan.output)
                sink.add(*place, made)
            report.refused.update(made.left_out)
            report.count(names[item["label_id"]] for item in (*made.tags, *made.shapes))
            if preview is not None:
                drawn = as_drawn(kept, plan.match, (frame.width, frame.height), plan.output)
                preview.add(plan.work.task_id, frame, drawn, plan.region)
        lease.check_in(report.done, report.total)
    sink.close()


def _predicted(
    batches: Iterable[list[Frame]], host: Predictor, context: Context, lease: Lease, report: RunReport
) -> Iterator[tuple[list[Frame], list[Prediction]]]:
    """Batches and their predictions; no batch begins that is not wanted any more."""
    try:
        yield from host.stream(batches, context, wanted=lease.wanted)
    except (CancelledError, RequestCancelled):
        lease.check_in(report.done, report.total)  # it knows why nobody wants it
        raise


class _Flow:
    """What the loop above remembers between frames, and its smaller steps."""

    def __init__(self, plan: Plan, sink: Sink, report: RunReport) -> None:
        self._plan, self._sink, self._report = plan, sink, report
        self.in_hand: deque[tuple[Place, Frame]] = deque()
        """The whole frames that the model is working on, and where their annotations go."""

    def batches(self, frames: Iterable[Frame | BadFrame], size: int) -> Iterator[list[Frame]]:
        """What the model is to see of the readable frames, `size` at a time."""
        batch: list[Frame] = []
        for place, frame in zip(self._plan.places, self._timed(frames), strict=True):
            if isinstance(frame, BadFrame):
                self.skip(place, frame.reason)
                continue
            part = self._plan.view(frame)
            if isinstance(part, BadFrame):
                self.skip(place, part.reason)
                continue
            self.in_hand.append((place, frame))
            batch.append(part)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _timed(self, frames: Iterable[Frame | BadFrame]) -> Iterator[Frame | BadFrame]:
        source = iter(frames)
        while True:
            with self._report.stage("waiting for frames"):
                frame = next(source, None)
            if frame is None:
                return
            yield frame

    def keep(self, found: list[Detection], part: Frame, place: Place) -> list[Detection]:
        """What of a frame's detections becomes annotations, in coordinates of the whole frame."""
        plan, report = self._plan, self._report
        wanted = [detection for detection in found if detection.label in plan.match.targets]
        report.dropped.update(detection.label for detection in found if detection.label not in plan.match.targets)
        kept, refused = filter_detections(wanted, part.width, part.height, plan.filters)
        report.refused.update(refused)
        if plan.region is not None:
            dx, dy = plan.region.left, plan.region.top
            kept = [replace(d, shape=shift(d.shape, dx, dy)) if d.shape is not None else d for d in kept]
        if plan.skip_overlapping is not None:
            ids = {name: target.label.id for name, target in plan.match.targets.items()}
            kept, left_out = leave_out_overlapping(kept, ids, plan.existing.get(place, ()), plan.skip_overlapping)
            if left_out:
                report.refused["over an existing shape"] += left_out
        return kept

    def skip(self, place: Place, reason: str) -> None:
        job, frame = place
        self._sink.skip(job, frame, reason)
        self._report.skip(self._plan.work.task_id, job, frame, reason)
        if len(self._report.skipped) > self._plan.max_bad_frames:
            raise BadPrediction(
                f"{len(self._report.skipped)} frames failed, more than {self._plan.bad_frames_option}"
                f" {self._plan.max_bad_frames}; the last one: frame {frame}: {reason}"
            )

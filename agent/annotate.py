"""The one flow behind every door: frames through the model, held to its contract, filtered, encoded, handed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from agent.annotations import encode
from agent.contract import Detection, Frame
from agent.cvat.frames import BadFrame
from agent.errors import BadPrediction
from agent.filters import filter_detections
from agent.host import Host
from agent.lease import Lease
from agent.plan import Place, Plan
from agent.predict import check_predictions
from agent.preview import Preview
from agent.report import RunReport
from agent.sink import Sink


def annotate(
    plan: Plan,
    frames: Iterable[Frame | BadFrame],
    host: Host,
    sink: Sink,
    lease: Lease,
    report: RunReport,
    preview: Preview | None = None,
) -> None:
    """Annotates the plan's frames, given in the plan's order, with the host's model.

    A frame that cannot be read, or on which the model fails, is skipped and reported; too many of them end the run
    with BadPrediction. RequestCancelled leaves through here when the lease ends; what was handed to the sink stays.
    """
    flow = _Flow(plan, sink, report)
    for batch, predictions in host.stream(flow.batches(frames, host.batch_size), plan.context):
        for frame, found in zip(batch, check_predictions(predictions, batch, plan.model.labels), strict=True):
            place = flow.places.popleft()
            if isinstance(found, BadPrediction):
                flow.skip(place, str(found))
                continue
            with report.stage("encode"):
                kept = flow.keep(frame, found, place)
                sink.add(*place, encode(kept, plan.match, frame.index, plan.output))
            report.count(plan.match.targets[detection.label].label.name for detection in kept)
            if preview is not None:
                preview.add(plan.work, frame, kept)
        lease.check_in(report.done, report.total)
    sink.close()


class _Flow:
    """What the loop above needs to remember between frames."""

    def __init__(self, plan: Plan, sink: Sink, report: RunReport) -> None:
        self._plan, self._sink, self._report = plan, sink, report
        self.places: deque[Place] = deque()
        """Where the frames go that the model has in hand."""

    def batches(self, frames: Iterable[Frame | BadFrame], size: int) -> Iterator[list[Frame]]:
        """Readable frames, cropped to the region, `size` at a time."""
        batch: list[Frame] = []
        for place, frame in zip(self._plan.places, self._timed(frames), strict=True):
            seen = self._plan.view(frame) if isinstance(frame, Frame) else frame
            if isinstance(seen, BadFrame):
                self.skip(place, seen.reason)
                continue
            self.places.append(place)
            batch.append(seen)
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

    def keep(self, frame: Frame, found: list[Detection], place: Place) -> list[Detection]:
        """What of a frame's detections becomes annotations, in coordinates of the whole frame."""
        plan, report = self._plan, self._report
        wanted = [detection for detection in found if detection.label in plan.match.targets]
        report.dropped.update(detection.label for detection in found if detection.label not in plan.match.targets)
        kept, refused = filter_detections(wanted, frame.width, frame.height, plan.filters)
        report.refused.update(refused)
        return kept

    def skip(self, place: Place, reason: str) -> None:
        job, frame = place
        self._sink.skip(job, frame, reason)
        self._report.skip(f"task {self._plan.work.task_id}, frame {frame}", reason)
        if len(self._report.skipped) > self._plan.max_bad_frames:
            raise BadPrediction(
                f"{len(self._report.skipped)} frames failed, more than --max-bad-frames"
                f" {self._plan.max_bad_frames}; the last one: frame {frame}: {reason}"
            )

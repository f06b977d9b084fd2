"""Detectors: one picture in, a list of items out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.activity import Request
from agent.contract import Context, Detection, Frame
from agent.doors.gateway.call import Call
from agent.doors.gateway.naming import Naming
from agent.doors.gateway.payload import Payload
from agent.doors.gateway.replies import write_reply
from agent.errors import BadPrediction
from agent.filters import Filters, filter_detections
from agent.labels.matching import Thresholds
from agent.models.host import Prediction
from agent.models.line import INTERACTIVE
from agent.pool.pool import HostedModel
from agent.predict import check_predictions


@dataclass(frozen=True, slots=True)
class Detecting:
    """What the reply for a picture depends on, besides the picture."""

    hosted: HostedModel
    naming: Naming
    threshold: float | None
    """The call's own."""

    def is_like(self, other: Detecting) -> bool:
        """Whether the replies of both are the same for the same picture."""
        one, two = self.hosted, other.hosted
        same_model = one.id == two.id and one.load == two.load and one.settings is two.settings
        return same_model and self.naming is other.naming and self.threshold == other.threshold

    @property
    def thresholds(self) -> Thresholds:
        own, loaded = self.hosted.settings.threshold, self.hosted.loaded
        return Thresholds(self.threshold, self.naming.thresholds, loaded.default_threshold if own is None else own)

    @property
    def context(self) -> Context:
        """Equal for equal thresholds, so that the host puts calls together."""
        names = frozenset(self.naming.targets)
        everything = len(names) == len(self.hosted.loaded.labels)
        return Context(self.thresholds.lowest, None if everything else names)

    def kept(self, prediction: Prediction, frame: Frame) -> list[Detection]:
        """What of the model's answer is told. BadPrediction where it failed, or answered outside its contract."""
        (checked,) = check_predictions([prediction], [frame], self.hosted.loaded.labels)
        if isinstance(checked, BadPrediction):
            raise checked
        kept, _ = filter_detections(checked, frame.width, frame.height, Filters(self.thresholds))
        return kept

    def written(self, kept: Sequence[Detection], size: tuple[int, int], digest: str) -> bytes:
        """The reply for a picture of `size` (width, height)."""
        return write_reply(kept, self.naming, size, digest)


def asked_threshold(payload: Payload) -> float | None:
    """The call's threshold; CVAT leaves zero out."""
    return payload.number("threshold", 0, 1)


def detect(detecting: Detecting, frame: Frame, digest: str, call: Call, request: Request) -> bytes:
    """The reply of the model for a picture, right away; calls that come together go to the model together."""
    answer = detecting.hosted.host.submit([frame], detecting.context, INTERACTIVE)
    (prediction,) = call.wait(answer, request)
    return detecting.written(detecting.kept(prediction, frame), (frame.width, frame.height), digest)

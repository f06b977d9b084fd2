"""A model or a workflow behind a server as a detector: several pictures in flight, each answer read on its own."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from adapters.roboflow.answers import Reading, read
from adapters.roboflow.calls import Calls
from adapters.roboflow.pictures import Picture, Upload
from agent.contract import BadPrediction, Context, Detection, Frame, Label, ModelError

LOWEST, HIGHEST = 0.01, 0.99
"""Confidences that servers understand: they raise lower ones to 0.01, and take 1 for one percent."""
_THRESHOLDS = {"classification": 0.0, "semantic-segmentation": 0.0, "multi-label-classification": 0.5}
"""The best of classes that exclude each other is an answer even where it is unsure; for the rest, Roboflow's own."""
Found = list[Detection] | BadPrediction


class Predictor(Protocol):
    """A model or a workflow at a server."""

    def predict(self, picture: Picture, threshold: float) -> Mapping[str, Any]:
        """The answer, in the form of an inference server."""
        ...


class RemoteDetector:
    """Asks a server for the predictions of each frame."""

    def __init__(
        self,
        predictor: Predictor,
        calls: Sequence[Calls],
        reading: Reading,
        upload: Upload,
        *,
        in_flight: int,
        facts: Mapping[str, str],
    ) -> None:
        """`calls` are closed with the model."""
        self._predictor, self._calls, self._reading, self._upload = predictor, calls, reading, upload
        self._in_flight = in_flight
        self.labels: Sequence[Label] = list(reading.labels.values())
        # A batch ends with its slowest picture: two rounds of them leave fewer turns unused.
        self.batch_size = 2 * in_flight
        self.default_threshold = _THRESHOLDS.get(reading.task or "", 0.4)
        self.facts = dict(facts)

    def detect(self, frames: Sequence[Frame], context: Context) -> list[Found]:
        """The detections of each frame; of several frames, those that failed have the error in their place.

        A frame alone raises its error. Answers may cost money: the others must not be asked for again.
        """
        if len(frames) == 1:
            return [self._find(frames[0], context)]
        found: list[Found] = [BadPrediction("the model was closed")] * len(frames)
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(len(frames)):
            waiting.put(place)
        crashes: list[BaseException] = []

        def work() -> None:
            while not crashes:
                try:
                    place = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    found[place] = self._find(frames[place], context)
                except ModelError as error:
                    found[place] = error if isinstance(error, BadPrediction) else _bad(error)
                except BaseException as error:
                    crashes.append(error)

        # Daemons: a server that does not answer must not keep the program from ending.
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(work,), name="roboflow", daemon=True)
            for _ in range(min(self._in_flight, len(frames)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if crashes:
            raise crashes[0]
        return found

    def close(self) -> None:
        """Ends what waits for a server's turn; what is on its way ends with its time-out."""
        for calls in self._calls:
            calls.close()

    def _find(self, frame: Frame, context: Context) -> list[Detection]:
        picture = self._upload(frame)
        try:
            answer = self._predictor.predict(picture, min(HIGHEST, max(LOWEST, context.threshold)))
            return read(answer, frame, (picture.width, picture.height), self._reading, context)
        except BadPrediction as error:
            owner = f"{self._calls[0].owner}: "
            raise BadPrediction(owner + str(error).removeprefix(owner)) from error
        except ModelError as error:
            raise _bad(error) from error


def _bad(error: ModelError) -> BadPrediction:
    bad = BadPrediction(str(error))
    bad.__cause__ = error
    return bad

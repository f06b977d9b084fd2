"""A loaded model behind a queue: one thread runs it, the most urgent batch first."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.contract import Context, Detection, Detector, Frame
from agent.errors import BadPrediction, ModelError

log = logging.getLogger(__name__)

Prediction: TypeAlias = Sequence[Detection] | BadPrediction
"""What a model said of one frame, or why it said nothing."""

PATIENCE = 2.0
"""Seconds that an end at once waits for the model."""
INTERACTIVE, BATCH = 0, 1
"""Priorities: an interactive request goes before the next batch of a long one."""


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    number: int
    work: Callable[[], list[Prediction]] | None = field(compare=False)
    answer: Future[list[Prediction]] = field(compare=False)


class Host:
    """Runs a detector in a thread of its own, so that frames come and results go while it works."""

    def __init__(self, model: Detector, *, batch_size: int = 1, name: str = "model") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, allowed: 1 or more")
        self.batch_size = batch_size
        self.busy_seconds = 0.0
        self._model = model
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"host-{name}", daemon=True)
        self._thread.start()

    def submit(self, frames: Sequence[Frame], context: Context, priority: int = BATCH) -> Future[list[Prediction]]:
        """The predictions for a batch, one for each frame, once its turn has come; a closed host cancels it."""
        return self._put(priority, lambda: self._predict(frames, context))

    def stream(
        self, batches: Iterable[list[Frame]], context: Context, ahead: int = 2
    ) -> Iterator[tuple[list[Frame], list[Prediction]]]:
        """Batches and their predictions, in order; the next batches are fetched while the model works."""
        running: deque[tuple[list[Frame], Future[list[Prediction]]]] = deque()
        try:
            for batch in batches:
                running.append((batch, self.submit(batch, context)))
                # Give back what is finished, and never hold more than `ahead` batches of frames.
                while running and (len(running) >= ahead or running[0][1].done()):
                    frames, answer = running.popleft()
                    yield frames, answer.result()
            while running:
                frames, answer = running.popleft()
                yield frames, answer.result()
        finally:
            for _, answer in running:
                answer.cancel()

    def close(self, patience: float | None = None) -> None:
        """Ends the thread after the batch it works on; batches still waiting are cancelled.

        Returns after `patience` seconds at the latest.
        """
        self._put(-1, None)
        self._thread.join(patience)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        # A second Ctrl-C does not wait for a batch that takes minutes.
        self.close(PATIENCE if kind is KeyboardInterrupt else None)

    def _put(self, priority: int, work: Callable[[], list[Prediction]] | None) -> Future[list[Prediction]]:
        answer: Future[list[Prediction]] = Future()
        with self._closing:
            if self._closed:
                answer.cancel()  # nobody would ever come to it
            else:
                self._jobs.put(_Job(priority, next(self._numbers), work, answer))
                self._closed = work is None
        return answer

    def _run(self) -> None:
        while (job := self._jobs.get()).work is not None:
            if not job.answer.set_running_or_notify_cancel():
                continue
            began = time.perf_counter()
            try:
                job.answer.set_result(job.work())
            except BaseException as error:  # the thread must live on; whoever waits gets the error
                job.answer.set_exception(error)
            self.busy_seconds += time.perf_counter() - began
        while not self._jobs.empty():
            self._jobs.get_nowait().answer.cancel()

    def _predict(self, frames: Sequence[Frame], context: Context) -> list[Prediction]:
        try:
            return _lists(self._model.detect(frames, context), len(frames))
        except Exception as error:
            if len(frames) == 1:
                return [_failure(frames[0], error)]
            log.warning("a batch of %d frames failed, trying them one by one", len(frames), exc_info=True)
        # One bad frame must not cost the others.
        return [self._predict([frame], context)[0] for frame in frames]


def _lists(answer: Sequence[Sequence[Detection]], count: int) -> list[Prediction]:
    found = list(answer)
    if len(found) != count:
        raise BadPrediction(f"the model gave {len(found)} lists of detections for {count} frames")
    return list(found)


def _failure(frame: Frame, error: Exception) -> BadPrediction:
    log.warning("the model failed on frame %d (%s)", frame.index, frame.name, exc_info=error)
    if isinstance(error, ModelError):
        return BadPrediction(str(error))
    bad = BadPrediction(f"the model failed: {type(error).__name__}: {str(error)[:200]}")
    bad.__cause__ = error
    return bad

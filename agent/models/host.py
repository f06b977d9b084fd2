"""A loaded model behind a queue: one thread runs it, the most urgent first, calls of many gathered into batches."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeAlias, TypeVar

from agent.contract import Context, Detection, Frame
from agent.errors import BadPrediction, ModelError
from agent.models.line import BATCH, INTERACTIVE, Asked, Line, always
from agent.waiting import await_result

log = logging.getLogger(__name__)

Prediction: TypeAlias = Sequence[Detection] | BadPrediction
"""What a model said of one frame, or why it said nothing."""

PATIENCE = 0.3
"""Seconds that an end at once waits for the model."""
BATCH_PATIENCE = 30.0
"""Seconds that nobody waits longer for a batch which is not wanted any more: the model may never come back from it."""
LOOK_SECONDS = 0.5
"""How often whoever waits for a batch looks whether it is still wanted."""
T = TypeVar("T")


_PRIORITY: contextvars.ContextVar[int] = contextvars.ContextVar("priority", default=INTERACTIVE)


def current_priority() -> int:
    """The priority of the work that a model is doing in this thread: what it asks of other models is as urgent."""
    return _PRIORITY.get()


class Host:
    """Runs a model in a thread of its own, so that frames come and results go while it works.

    `on_batch(frames, seconds)` hears of each batch of a detector, after it.
    """

    def __init__(
        self,
        model: Any,
        *,
        batch_size: int = 1,
        name: str = "model",
        on_batch: Callable[[int, float], None] = lambda frames, seconds: None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, allowed: 1 or more")
        self.batch_size = batch_size
        self.busy_seconds = 0.0
        self._model = model
        self._on_batch = on_batch
        self._line = Line()
        self._thread = threading.Thread(target=self._run, name=f"host-{name}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the model is left alone now: a host that was closed may still be in a batch."""
        return not self._thread.is_alive()

    @property
    def depth(self) -> int:
        """How many calls wait for the model."""
        return len(self._line)

    def submit(
        self, frames: Sequence[Frame], context: Context, priority: int = BATCH, wanted: Callable[[], bool] = always
    ) -> Future[list[Prediction]]:
        """The predictions for a batch, one for each frame, once its turn has come; a closed host cancels it.

        Calls that wait with the same context and priority are put together, up to `batch_size` frames. Where `wanted`,
        which is asked in the model's thread before the batch and has to answer at once, says no, it is cancelled too.
        """
        return self._put(Asked(priority, frames=frames, context=context, wanted=wanted))

    def call(self, work: Callable[[], T], priority: int = INTERACTIVE) -> Future[T]:
        """What `work` gives, in the model's thread: for what is not detection. A closed host cancels it."""
        return self._put(Asked(priority, work=work))

    def stream(
        self, batches: Iterable[list[Frame]], context: Context, *, wanted: Callable[[], bool] = always, ahead: int = 2
    ) -> Iterator[tuple[list[Frame], list[Prediction]]]:
        """Batches and their predictions, in order; the next batches are fetched while the model works.

        CancelledError where a batch is not `wanted` any more when its turn comes, or does not end soon after that; and
        when the host is closed.
        """
        running: deque[tuple[list[Frame], Future[list[Prediction]]]] = deque()
        try:
            for batch in batches:
                running.append((batch, self.submit(batch, context, wanted=wanted)))
                # Give back what is finished, and never hold more than `ahead` batches of frames.
                while running and (len(running) >= ahead or running[0][1].done()):
                    frames, answer = running.popleft()
                    yield frames, _result(answer, wanted)
            while running:
                frames, answer = running.popleft()
                yield frames, _result(answer, wanted)
        finally:
            for _, answer in running:
                answer.cancel()

    def close(self, patience: float | None = None) -> bool:
        """Ends the thread after the batch it works on; batches still waiting are cancelled.

        Returns after `patience` seconds at the latest; whether the thread has ended.
        """
        self._line.close()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        # A second Ctrl-C does not wait for a batch that takes minutes.
        self.close(PATIENCE if kind is KeyboardInterrupt else None)

    def _put(self, asked: Asked) -> Future[Any]:
        self._line.put(asked)
        return asked.answer

    # ----------------------------------------------------------- in the thread

    def _run(self) -> None:
        while calls := self._line.take(self.batch_size):
            if not (calls := [asked for asked in calls if asked.begins()]):
                continue
            began = time.perf_counter()
            calls[0].caller.run(self._answer, calls)
            self.busy_seconds += time.perf_counter() - began
            del calls  # while we wait for the next one, its pictures would stay in memory

    def _answer(self, calls: list[Asked]) -> None:
        _PRIORITY.set(calls[0].priority)  # within the caller's context, which is a copy
        try:
            if (work := calls[0].work) is not None:
                calls[0].answer.set_result(work())
                return
            found = self._detect([frame for asked in calls for frame in asked.frames], calls[0].context or Context())
            for asked in calls:
                asked.answer.set_result(found[: len(asked.frames)])
                found = found[len(asked.frames) :]
        except BaseException as error:  # the thread must live on; whoever waits gets the error
            # An adapter that ends "the program" has failed; who waits must not be ended by it.
            told = BadPrediction(_failed(error)) if isinstance(error, SystemExit) else error
            for asked in calls:
                if not asked.answer.done():
                    asked.answer.set_exception(told)

    def _detect(self, frames: Sequence[Frame], context: Context) -> list[Prediction]:
        began = time.perf_counter()
        found = self._predict(frames, context)
        self._on_batch(len(frames), time.perf_counter() - began)
        return found

    def _predict(self, frames: Sequence[Frame], context: Context) -> list[Prediction]:
        try:
            return _lists(self._model.detect(frames, context), len(frames))
        except (Exception, SystemExit) as error:
            if len(frames) == 1:
                return [_failure(frames[0], error)]
            log.warning("a batch of %d frames failed, trying them one by one", len(frames), exc_info=True)
        # One bad frame must not cost the others.
        return [self._predict([frame], context)[0] for frame in frames]


def _result(answer: Future[T], wanted: Callable[[], bool]) -> T:
    """What the model answers; CancelledError where that takes too long after nobody wants it any more."""
    end: float | None = None

    def check() -> None:
        nonlocal end
        if end is None and not wanted():
            end = time.monotonic() + BATCH_PATIENCE
        if end is not None and time.monotonic() >= end:
            log.warning("the model does not come back from its batch; nobody waits for it any more")
            raise CancelledError

    return await_result(answer, check, LOOK_SECONDS)


def _lists(answer: Sequence[Sequence[Detection]], count: int) -> list[Prediction]:
    found = list(answer)
    if len(found) != count:
        raise BadPrediction(f"the model gave {len(found)} lists of detections for {count} frames")
    return list(found)


def _failure(frame: Frame, error: BaseException) -> BadPrediction:
    log.warning("the model failed on frame %d (%s)", frame.index, frame.name, exc_info=error)
    if isinstance(error, ModelError):
        return BadPrediction(str(error))
    bad = BadPrediction(_failed(error))
    bad.__cause__ = error
    return bad


def _failed(error: BaseException) -> str:
    return f"the model failed: {type(error).__name__}: {str(error)[:200]}"

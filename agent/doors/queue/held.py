"""One request from its acquisition to its end: answered, handed in, failed with a reason, or given up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.activity import Request
from agent.cvat.functions_api import Assignment, Category, FunctionQueue
from agent.cvat.single_frames import FrameCache
from agent.cvat.task_cache import TaskCache
from agent.doors import Shared
from agent.doors.queue.detection import annotate_frame, annotate_task
from agent.doors.queue.parameters import (
    REQUEST_TYPES,
    AnnotateFrame,
    AnnotateTask,
    InitTracking,
    Interact,
    Track,
    read_parameters,
    subject,
)
from agent.doors.queue.promise import Promise
from agent.doors.queue.prompting import begin, interact_with, track
from agent.doors.queue.reach import Reach
from agent.doors.queue.result import ResultSink
from agent.errors import BadRequest, RequestCancelled, ServerError, ServerRefused, ServerUnavailable, public_message
from agent.lease import NOT_ABOUT_US, HeldLease
from agent.pool.pool import HostedModel
from agent.settings.tables import QueueSettings

log = logging.getLogger(__name__)

HAND_IN_SECONDS = 900.0
"""How long we go on trying to hand a result in: hours of work may be in it."""
LONGEST_PAUSE = 30.0
BYTES_PER_SECOND = 100_000
"""What a slow server stores of a result in a second."""
OPERATOR = "cancelled by the operator"
OVER = (400, 403, 404, 409, 410)
"""Refusals that a request gets which is not ours any more."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all requests of a door work with."""

    shared: Shared
    tasks: TaskCache
    frames: FrameCache
    closed: Callable[[], bool]
    """Whether held requests are to be given up without a word."""
    reach: Reach = field(default_factory=Reach)

    @property
    def settings(self) -> QueueSettings:
        return self.shared.config.queue or QueueSettings()


@dataclass(frozen=True, slots=True)
class Held:
    """A request that this agent holds."""

    assignment: Assignment
    category: Category
    queue: FunctionQueue
    model: str
    promise: Promise
    place: Workplace

    def work(self) -> None:
        """Answers the request; whatever goes wrong is told to whom it concerns, and ends here."""
        raw = self.assignment.params
        asked = raw.get("type") if isinstance(raw, Mapping) else None
        name = asked if isinstance(asked, str) and asked in REQUEST_TYPES else "unknown"
        try:
            with self.place.shared.activity.begin("queue", name, self.model, subject(raw)) as request:
                log.info("acquired request %s of function %d", self.assignment.id, self.queue.function)
                self._settle(request)
        except Exception:
            # The activity has told it already, with all that belongs to it.
            log.debug("request %s ended", self.assignment.id, exc_info=True)

    def _settle(self, request: Request) -> None:
        lease = HeldLease(
            lambda share: self.queue.update(self.assignment.id, share),
            every=self.place.settings.heartbeat_seconds,
            progress=request.progress,
            checks=(request.check, self._check_open),
        )
        with lease:
            try:
                with ExitStack() as stack:
                    result = self._answer(request, lease, stack)
                    lease.check()
                    self._hand_in(result, lease)
            except RequestCancelled:
                if request.cancelled.is_set() and not lease.lost:
                    self._fail(OPERATOR)
                raise
            except Exception as error:
                if not self._fail(public_message(error)):
                    raise RequestCancelled("the server does not want it any more") from error
                raise

    def _check_open(self) -> None:
        if self.place.closed():
            raise RequestCancelled("the service ends; another agent may take it")

    # ------------------------------------------------------------- the answer

    def _answer(self, request: Request, lease: HeldLease, stack: ExitStack) -> Mapping[str, Any]:
        place, wanted = self.place, read_parameters(self.assignment.params, self.promise.kind)
        shared, tasks, frames = place.shared, place.tasks, place.frames
        lend = partial(self._lend, lease)
        match wanted:
            case AnnotateTask():
                sink = stack.enter_context(ResultSink())
                most = place.settings.max_bad_frames
                report = annotate_task(wanted, lend, shared.session, tasks, lease, sink, most)
                request.spent(report.seconds)
                for where, why in report.skipped.items():
                    log.warning("%s: skipped: %s", where, why)
                return {"annotations": sink}
            case AnnotateFrame():
                return {"annotations": annotate_frame(wanted, lend, tasks, frames, lease)}
            case Interact():
                return interact_with(wanted, lend, tasks, frames, shared.embeddings, lease)
            case InitTracking():
                return begin(wanted, lend, tasks, frames, shared.track_states, lease)
            case Track():
                return track(wanted, lend, tasks, frames, shared.track_states, lease)

    @contextmanager
    def _lend(self, lease: HeldLease) -> Iterator[HostedModel]:
        with self.place.shared.pool.use(self.model, lease.check) as hosted:
            self.promise.check(hosted.loaded)
            yield hosted

    # ------------------------------------------------------------ handing in

    def _hand_in(self, result: Mapping[str, Any], lease: HeldLease) -> None:
        """Tells the result until the server has it; RequestCancelled where it does not want it any more."""
        size = sum(value.length for value in result.values() if isinstance(value, ResultSink))
        timeout = self.queue.session.settings.timeout + size / BYTES_PER_SECOND
        end, tries, arrived = time.monotonic() + HAND_IN_SECONDS, 0, False
        while True:
            try:
                return self.queue.complete(self.assignment.id, result, timeout)
            except ServerRefused as error:
                if arrived and error.status in OVER:
                    log.info("request %s: an earlier try had arrived", self.assignment.id)
                    return None
                raise self._refused(error) from error
            except ServerUnavailable as error:
                arrived, tries = arrived or error.maybe_done, tries + 1
                if time.monotonic() >= end:
                    raise
                # A server that may still be storing a large result must not be given another one to store.
                least = 10.0 if error.may_go_on and size > 1 << 20 else 0.3
                wait = error.retry_after or min(least * 2.0 ** min(tries - 1, 10), LONGEST_PAUSE)
                log.info("%s; handing it in again in %.1f s", error, wait)
            try:
                lease.pause(wait)
            except RequestCancelled:
                if not (arrived and lease.lost):
                    raise
                log.info("request %s: it seems that an earlier try had arrived", self.assignment.id)
                return None

    def _refused(self, error: ServerRefused) -> Exception:
        """What a refusal of a result means."""
        raw = self.assignment.params
        if isinstance(raw, Mapping) and isinstance(task := raw.get("task"), int):
            self.place.tasks.forget(task)
        if error.status in NOT_ABOUT_US:
            return error
        if error.status in (403, 404):
            return RequestCancelled("the server does not want it any more")
        if error.status == 413:
            return BadRequest("the result is too large for the server, or for a proxy before it")
        # It is over, or it names labels that are gone: the server says 400 to both, and to a `fail` only in one case.
        return BadRequest("the server did not take the result; has the task or its labels been changed meanwhile?")

    def _fail(self, why: str) -> bool:
        """Gives the request up for good; False where it is not ours any more."""
        try:
            self.queue.fail(self.assignment.id, why)
        except ServerRefused as error:
            log.info("request %s: it cannot be failed: %s", self.assignment.id, error)
            return error.status not in OVER
        except ServerError as error:
            log.warning("request %s: it could not be failed, and goes to another agent: %s", self.assignment.id, error)
        return True

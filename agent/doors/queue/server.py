"""One function served: its queue is watched and asked, requests are acquired where a lane has room for them."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.cvat.functions_api import Category, FunctionQueue, get_function
from agent.doors import DoorHealth
from agent.doors.queue.bell import Bell
from agent.doors.queue.held import Held, Workplace
from agent.doors.queue.promise import Promise
from agent.doors.queue.watcher import Watcher
from agent.errors import RequestCancelled, ServerError, ServerRefused, ServerUnavailable, SidecarError
from agent.models.descriptions import Description

log = logging.getLogger(__name__)

RARELY = 10
"""With an event stream we ask so many times as rarely."""
LANE_SECONDS = 0.2
"""How often we look whether a lane has room again, while something waits for it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds between two tries while the server cannot be reached."""


class FunctionGone(Exception):
    """The function was deleted on the server."""


@dataclass(frozen=True, slots=True)
class _State:
    """How the serving goes."""

    ok: bool
    text: str


class FunctionServer:
    """Serves one function with one model, until it is told to leave or the function is gone."""

    def __init__(
        self, model: str, queue: FunctionQueue, place: Workplace, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self.model, self.queue = model, queue
        self.gone = False
        """Whether the function was not there any more: then this has ended."""
        self._place, self._jitter = place, jitter
        self._bell = Bell()
        self._watcher = Watcher(queue, self._bell, self._poll_seconds, jitter=jitter)
        self._promise: Promise | None = None
        """Once the model is known to fit the function."""
        self._failures = 0
        self._told = ""
        """What was wrong the last time."""
        self._state = _State(False, "waiting for the server")
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ask-{queue.function}", daemon=True)

    def start(self) -> None:
        self._watcher.start()
        self._thread.start()

    def leave(self) -> None:
        """Acquires nothing more. What is held goes on."""
        self._leaving.set()
        self._place.reach.forget(self.queue.function)
        self._bell.ring()

    def look_again(self) -> None:
        """The model may have changed: holds it to what the function promises before anything is acquired."""
        self._promise = None
        self._bell.ring()

    def close(self, patience: float) -> None:
        """Ends the threads; those that hang in a silent connection are left to themselves after `patience` seconds."""
        self.leave()
        end = time.monotonic() + patience
        self._watcher.close(patience)
        if self._thread.is_alive():
            self._thread.join(max(0.0, end - time.monotonic()))

    def health(self) -> DoorHealth:
        """Whether the function is served."""
        state = self._state
        text = state.text
        if state.ok:
            every = self._poll_seconds()
            text = "watched" if self._watcher.connected else f"asked every {every:g} s, there is no event stream"
        if self._leaving.is_set() and state.ok:
            text = "nothing new is taken"
        return DoorHealth(state.ok, f"{self.model} (function {self.queue.function}): {text}")

    # ----------------------------------------------------------- in the thread

    def _run(self) -> None:
        while not self._leaving.is_set():
            heard = self._bell.rings
            try:
                blocked = self._round()
                self._failures, self._told = 0, ""
            except FunctionGone:
                self._state = _State(False, "the function was deleted on the server; register the model again")
                log.error("model %s: function %d was deleted on the server", self.model, self.queue.function)
                self.gone = True
                self._leaving.set()
                self._place.reach.forget(self.queue.function)
                self._watcher.close(0)
                return
            except SidecarError as error:
                if not self._leaving.is_set():
                    self._recover(error)
                continue
            except Exception:  # the thread must live on
                log.exception("function %d: asking for work broke off", self.queue.function)
                self._leaving.wait(FIRST_PAUSE)
                continue
            if blocked:
                self._bell.wait(heard, LANE_SECONDS)
            elif not self._bell.wait(heard, self._interval()):
                self._bell.ring()

    def _round(self) -> bool:
        """Takes what there is, the most urgent first. True where something may wait, and no lane has room for it."""
        promise = self._prepare()
        lanes = {"interactive": self._place.shared.lanes.interactive, "batch": self._place.shared.lanes.batch}
        while not self._leaving.is_set():
            pending = self._bell.pending()
            found = ((category, lanes[category].claim()) for category in pending)
            category, claim = next(((c, claim) for c, claim in found if claim is not None), (None, None))
            if category is None or claim is None:
                return bool(pending)
            with claim:
                held = self._acquire(category, promise)
                if held is not None:
                    claim.run(held.work)
        return False

    def _acquire(self, category: Category, promise: Promise) -> Held | None:
        self._bell.answer(category)
        try:
            assignment = self.queue.acquire(category)
        except BaseException:
            self._bell.ring(category)
            raise
        self._state = _State(True, "served")
        self._place.reach.answered(self.queue.function)
        if assignment is None:
            return None
        # There may be more of it.
        self._bell.ring(category)
        return Held(assignment, category, self.queue, self.model, promise, self._place)

    def _prepare(self) -> Promise:
        """What the model is held to. ModelError where it cannot be had or does not do what the function promises."""
        record = self._place.shared.pool.record(self.model)
        known = self._promise
        # The model may be another one since: by a new service.toml, or by a new file that was loaded.
        if known is not None and record.status != "failed" and record.description == known.description:
            return known
        function = get_function(self.queue.session, self.queue.function)
        self._place.reach.answered(self.queue.function)
        if function is None:
            raise FunctionGone
        description = record.description
        at_start = self._place.shared.pool.settings(self.model).load == "start"
        if description is None or record.status == "failed" or (at_start and not record.loads):
            # Nothing is acquired for a model that cannot be loaded: another agent may have it. Nor before one that is
            # to be ready from the start: its weights may have to come from afar.
            with self._place.shared.pool.use(self.model, self._check) as hosted:
                description = Description.of(hosted.loaded)
        promise = self._promise = Promise.of(self.model, function, description)
        log.info("model %s serves function %d (%s)", self.model, self.queue.function, function.get("name"))
        return promise

    def _check(self) -> None:
        if self._leaving.is_set():
            raise RequestCancelled("the function is not served any more")

    def _recover(self, error: SidecarError) -> None:
        """Waits for as long as an error is worth. FunctionGone cannot be recovered from, and does not come here."""
        self._failures += 1
        pause = min(FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16), LONGEST_PAUSE)
        if isinstance(error, ServerUnavailable):
            self._place.reach.failed(self.queue.function, error)
            self._state = _State(False, self._place.reach.trouble)
            pause = pause * (0.5 + self._jitter() / 2)
            if error.retry_after is not None:
                # At 0 seconds, which some proxies say, we would ask without end.
                pause = max(pause, error.retry_after + FIRST_PAUSE * self._jitter())
        elif isinstance(error, ServerError):
            self._state = _State(False, _refusal(error))
            pause = max(pause, self._poll_seconds())
        else:
            self._promise = None
            self._state = _State(False, f"cannot be served: {error}")
            pause = max(pause, self._poll_seconds())
        if isinstance(error, ServerRefused) and error.status == 404:
            # The next round looks whether the function is still there; at first, at once.
            self._promise, pause = None, 0.0 if self._failures == 1 else pause
        # That the server is away was told for all functions at once; what is as wrong as before was told, too.
        known = isinstance(error, ServerUnavailable) or str(error) == self._told
        level, self._told = logging.DEBUG if known else logging.WARNING, str(error)
        log.log(level, "function %d: %s; trying again in %.1f s", self.queue.function, error, pause)
        self._leaving.wait(pause)

    # ------------------------------------------------------------------ rhythm

    def _poll_seconds(self) -> float:
        return self._place.settings.poll_seconds

    def _interval(self) -> float:
        every = self._poll_seconds() * (RARELY if self._watcher.connected else 1)
        return every * (0.85 + 0.3 * self._jitter())


def _refusal(error: ServerError) -> str:
    status = error.status if isinstance(error, ServerRefused) else None
    if status == 401:
        return "the server does not accept the token or password any more"
    if status == 403:
        return "the server does not let this user serve it"
    return f"the server refuses: {error}"

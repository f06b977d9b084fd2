"""Runs that are taken back from the status page: one thread each, and what came of it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass

from agent.activity import one_line
from agent.doors import Shared
from agent.errors import BadRequest, SidecarError
from agent.ledger.ledger import Ledger
from agent.runs.undo import undo_run

log = logging.getLogger(__name__)

DOOR, KIND = "page", "undo"
"""How such a request shows among those of the doors."""
REMEMBERED = 50


@dataclass(frozen=True, slots=True)
class UndoState:
    """How far the undoing of a run is."""

    run: str
    running: bool = True
    lines: tuple[str, ...] = ()
    error: str | None = None


class Undoing:
    """Takes runs back, and remembers what came of the last ones."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._states: OrderedDict[str, UndoState] = OrderedDict()
        self._lock = threading.Lock()

    def state(self, run: str) -> UndoState | None:
        with self._lock:
            return self._states.get(run)

    def states(self) -> list[UndoState]:
        """The last ones, the newest first."""
        with self._lock:
            return list(reversed(self._states.values()))

    def start(self, run: str, *, changed_too: bool = False) -> None:
        """Begins to take the run back; BadRequest for one that is not there, or is being taken back already."""
        with Ledger(self._shared.ledger) as book:
            record = book.run(run)
        with self._lock:
            if (known := self._states.get(record.id)) is not None and known.running:
                raise BadRequest(f"run {record.id}: it is being undone already")
            self._keep(UndoState(record.id))
        about = f"run {record.id} of {record.target}"
        work = threading.Thread(
            target=self._work, args=(record.id, record.model, about, changed_too), name=f"undo-{record.id}", daemon=True
        )
        work.start()

    def _work(self, run: str, model: str, about: str, changed_too: bool) -> None:
        state = UndoState(run, running=False)
        try:
            with self._shared.activity.begin(DOOR, KIND, model, about) as request:
                request.belongs_to(run)
                server = self._shared.config.server
                result = undo_run(run, server, self._shared.ledger, changed_too=changed_too)
                state = UndoState(run, running=False, lines=tuple(result.lines()))
        except SidecarError as error:
            state = UndoState(run, running=False, error=str(error))
        except Exception as error:  # it is in the log by now
            state = UndoState(run, running=False, error=one_line(error))
        finally:
            with self._lock:
                self._keep(state)

    def _keep(self, state: UndoState) -> None:
        self._states[state.run] = state
        self._states.move_to_end(state.run)
        while len(self._states) > REMEMBERED:
            self._states.popitem(last=False)

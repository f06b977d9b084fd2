"""What there is to tell about the service, as plain values: /api/status, and what the page is made of."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.activity import RequestRecord
from agent.doors import Door, Shared
from agent.errors import SidecarError
from agent.ledger.ledger import Ledger
from agent.ledger.records import RunRecord
from agent.logs import Redactor
from agent.pool.pool import ModelRecord
from agent.web.metrics import own_version
from agent.web.readiness import health_of
from agent.web.undoing import KIND, Undoing

RUNS = 20
"""The last ones, on the page."""


@dataclass(slots=True)
class View:
    """What the status page looks at."""

    shared: Shared
    doors: Callable[[], Sequence[Door]]
    obstacles: Callable[[], list[str]]
    not_taken: Callable[[], list[str]]
    """Why service.toml, as it stands, does not hold."""
    redact: Redactor
    undoing: Undoing
    began: float = field(default_factory=time.time)
    _book: Ledger | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def book(self) -> Ledger:
        """The ledger, opened once: the page asks often."""
        with self._lock:
            if self._book is None:
                self._book = Ledger(self.shared.ledger)
            return self._book

    def close(self) -> None:
        with self._lock:
            if self._book is not None:
                self._book.close()
                self._book = None


def status(view: View) -> dict[str, Any]:
    """Everything, as JSON has it."""
    obstacles, shared = view.obstacles(), view.shared
    lanes = (shared.lanes.interactive, shared.lanes.batch)
    found = {
        "version": own_version(),
        "server": shared.session.url,
        "seconds_up": round(time.time() - view.began),
        "ready": not obstacles,
        "obstacles": obstacles,
        "not_taken": view.not_taken(),
        "doors": [{"name": door.name, **dataclasses.asdict(health_of(door))} for door in view.doors()],
        "lanes": [{"name": lane.name, "places": lane.places, "taken": lane.taken} for lane in lanes],
        "embeddings": {"bytes": shared.embeddings.bytes, "limit": shared.embeddings.limit},
        "memory_budget": shared.config.engine.memory_mb and int(shared.config.engine.memory_mb * 2**20),
        "models": [_model(view, record) for record in shared.pool.records()],
        "running": [_request(record) for record in shared.activity.running()],
        "finished": [_request(record) for record in shared.activity.finished()],
        "errors": [_request(record) for record in shared.activity.errors()],
        **_runs(view),
    }
    cleaned: dict[str, Any] = _clean(found, view.redact)
    return cleaned


def _model(view: View, record: ModelRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in ModelRecord.__dataclass_fields__ if name != "description"}
    described = record.description
    values |= {"kind": described.kind, "labels": len(described.labels)} if described else {"kind": None, "labels": None}
    try:
        values["load"] = view.shared.pool.settings(record.id).load
    except SidecarError:  # gone meanwhile
        values["load"] = None
    return {**values, "idle": round(record.idle), "load_seconds": round(record.load_seconds, 1)}


def _request(record: RequestRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in RequestRecord.__dataclass_fields__ if name != "stages"}
    # What has begun to be taken back is taken back as a whole.
    return {**values, "seconds": round(record.seconds, 1), "can_be_cancelled": record.kind != KIND}


def _runs(view: View) -> dict[str, Any]:
    undoing = {state.run: dataclasses.asdict(state) for state in view.undoing.states()}
    try:
        records = view.book.runs(RUNS, frames=False)
    except SidecarError as error:
        return {"runs": [], "runs_error": str(error), "undoing": undoing}
    return {"runs": [run_values(view, record) for record in records], "runs_error": None, "undoing": undoing}


def run_values(view: View, record: RunRecord) -> dict[str, Any]:
    """A run as the page shows it."""
    values = {
        name: getattr(record, name) for name in RunRecord.__dataclass_fields__ if name not in ("frames", "report")
    }
    frames = record.report.get("frames", {})
    ended = {
        "frames": {"total": frames.get("total"), "done": frames.get("done"), "skipped": len(frames.get("skipped", ()))},
        "annotations": sum(record.report.get("annotations", {}).values()),
        "undone": record.report.get("undone"),
    }
    return {**values, **ended, **(_so_far(view, record.id) if record.status == "running" else {})}


def _so_far(view: View, run: str) -> dict[str, Any]:
    """The figures of a run that has no report yet, or only an older one: another process may be at it, too."""
    request = next((one for one in view.shared.activity.running() if one.run == run and one.total), None)
    if request is not None:
        total, done = request.total, request.done
    else:
        total = sum(map(len, view.book.run(run).frames.values()))
        done = len(view.book.finished_frames(run))
    return {
        "frames": {"total": total, "done": done, "skipped": len(view.book.skipped(run))},
        "annotations": sum(view.book.made_counts(run).values()),
    }


def _clean(value: Any, redact: Redactor) -> Any:
    """Without secrets, wherever a server, a model or a person may have put one."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _clean(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, redact) for item in value]
    return value

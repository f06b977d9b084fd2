"""A watch door at a sandbox, a model that waits to be let go, and what came of it."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.activity import RequestRecord
from agent.contract import Context, Detection, Frame, Label, Rectangle
from agent.cvat.annotations_api import get_annotations
from agent.doors import Shared
from agent.doors.watch import Watch
from agent.errors import ModelLoadFailed
from agent.ledger.ledger import Ledger, RunRecord
from agent.ledger.rules import RuleJob, RuleMemory
from agent.models.loading import LoadedModel, ModelReference
from agent.settings.tables import ModelSettings, RuleSettings, WatchSettings
from tests.support.doors import shared

if TYPE_CHECKING:
    from agent.cvat.session import Session
    from agent.sandbox import Sandbox

PATIENCE = 20.0
"""Seconds after which a test has waited long enough."""
BOX = (1.0, 2.0, 90.0, 80.0)


class Finder:
    """Finds one thing a frame. While `gate` is shut, a batch waits; `seen` are the frames' numbers, in order."""

    labels = (Label("thing", "rectangle"),)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.seen: list[int] = []
        self.batches = threading.Semaphore(0)
        """Counts the batches that were begun."""
        self.begun: list[float] = []
        """When, on the monotonic clock."""
        self.seconds = 0.0
        """How long a batch takes."""
        self.fails = False

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        self.begun.append(time.monotonic())
        self.batches.release()
        time.sleep(self.seconds)
        assert self.gate.wait(PATIENCE), "nobody let the model go"
        if self.fails:
            raise RuntimeError("out of order, see /etc/secret")
        self.seen += [frame.index for frame in frames]
        return [[Detection("thing", Rectangle(*BOX), score=0.9)] for _ in frames]

    def await_batch(self) -> None:
        assert self.batches.acquire(timeout=PATIENCE), "the model was never asked"


class Models:
    """Loads one Finder as every model; its `version` can change, and it can be `broken`."""

    def __init__(self) -> None:
        self.finder = Finder()
        self.version = "1"
        self.broken = False

    def __call__(self, reference: str, *, device: str, options: dict[str, Any]) -> LoadedModel:
        if self.broken:
            raise ModelLoadFailed(f"{reference}: its weights are torn")
        scheme, _, name = reference.partition(":")
        kind = "interactor" if name == "clicks" else "detector"
        return LoadedModel(
            ModelReference(scheme, name), self.finder, kind, labels=self.finder.labels, version=self.version
        )


class Watching:
    """An open watch door."""

    def __init__(self, door: Watch, around: Shared, models: Models) -> None:
        self.door, self.shared, self.models = door, around, models
        self.finder = models.finder
        self._ended = threading.Condition()
        self._records: list[RequestRecord] = []
        around.activity.on_end = self._on_end

    def _on_end(self, record: RequestRecord) -> None:
        with self._ended:
            self._records.append(record)
            self._ended.notify_all()

    def ended(self, count: int) -> list[RequestRecord]:
        """The first requests, once so many have ended."""
        with self._ended:
            assert self._ended.wait_for(lambda: len(self._records) >= count, PATIENCE), self.door.health().text
            return list(self._records)

    def look(self) -> None:
        """Lets all rules look, and waits until nothing more comes of it."""
        self.look_without_end()
        self.settle()

    def look_without_end(self) -> None:
        """Lets all rules look; what comes of it goes on."""
        for looker in self.door._all():
            looker.look()

    def settle(self) -> None:
        """Waits until every rule has looked and nothing is at work."""
        until(lambda: self._is_still() and not time.sleep(0.05) and self._is_still())

    def settle_looks(self) -> None:
        """Waits until every rule has looked; what is at work goes on."""
        until(lambda: self._have_looked() and not time.sleep(0.05) and self._have_looked())

    def _have_looked(self) -> bool:
        woken = [job for job in self.door._scheduler.get_jobs() if not job.id.startswith(("look: ", "try again: "))]
        return not woken and all(looker.looks and not looker._looking for looker in self.door._all())

    def _is_still(self) -> bool:
        return self._have_looked() and not self.shared.lanes.batch.taken

    @property
    def count(self) -> int:
        """How many requests have ended."""
        return len(self._records)

    def runs(self) -> list[RunRecord]:
        with Ledger(self.shared.ledger) as ledger:
            return ledger.runs()

    def memory(self, rule: str = "things") -> dict[int, RuleJob]:
        """What is remembered, by job."""
        with RuleMemory(self.shared.ledger, self.shared.session.url) as memory:
            jobs = [job for name, job in memory.untouched(math.inf, (rule, -1), 10**6) if name == rule]
            return {job: row for job in jobs for row in memory.of_job(rule, job).values()}

    def remembered(self, job: int, status: str, rule: str = "things") -> RuleJob:
        """The memory of a job, once it says this."""
        return until(lambda: next((r for j, r in self.memory(rule).items() if j == job and r.status == status), None))


class Clock:
    """Both clocks of a door, which can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return datetime.now().astimezone() + timedelta(seconds=self.ahead)

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    @property
    def timing(self) -> dict[str, Any]:
        return {"now": self.now, "clock": self}


def until(found: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What is found, once it is true."""
    end = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return what


def rule(name: str = "things", **more: Any) -> RuleSettings:
    """A rule that looks once, when it is woken, and after an hour."""
    return RuleSettings(name=name, model=more.pop("model", "finder"), **{"every_seconds": 3600.0, **more})


@contextmanager
def watching(
    sandbox: Sandbox | str,
    *rules: RuleSettings,
    models: Models | None = None,
    folder: Path | None = None,
    timing: Mapping[str, Any] | None = None,
    settle: float = 0.3,
    watch: WatchSettings | None = None,
    settings: Sequence[ModelSettings] = (ModelSettings("finder", "fake:finder"),),
    **more: Any,
) -> Iterator[Watching]:
    """A watch door with these rules that has been started; it is closed at the end."""
    models = models or Models()
    watch = watch or WatchSettings(check_seconds=0.05)
    with shared(sandbox, settings, folder=folder, load=models, rules=rules, watch=watch, **more) as around:
        door = Watch(around, settle=settle, debounce=0.02, jitter=lambda: 0.5, **(timing or {}))
        open_door = Watching(door, around, models)
        door.start()
        try:
            yield open_door
        finally:
            models.finder.gate.set()
            door.close()


def boxes(session: Session, *jobs: int) -> Counter[int]:
    """How many shapes there are by frame."""
    return Counter(shape["frame"] for job in jobs for shape in get_annotations(session, job)["shapes"])

"""The load of the soak: people who order, click, follow and cancel, and who hold every answer to what it has to be."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx

from agent.sandbox import Sandbox
from agent.sandbox.records import LambdaRequest
from tests.support.queue import until
from tests.support.soak import PERSON, WATCHED, Service
from tests.support.soak_models import LABEL, SLOW, boxes, moved, square
from tests.support.soak_tasks import LABELS, Material, Shapes, differences, same
from tests.support.tasks import Client

PATIENCE = 75.0
"""Nobody waits longer; who has no answer by then calls it a hang."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended."""

    kind: str
    outcome: str
    """completed, failed, cancelled, or refused: failed as it had to."""
    began: float
    ended: float
    reason: str = ""


@dataclass(slots=True)
class Tally:
    """How all requests ended. Threads share it."""

    endings: list[Ending] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers that were not what they had to be, and requests that never ended."""

    def note(self, kind: str, outcome: str, began: float, reason: str = "") -> None:
        self.endings.append(Ending(kind, outcome, began, time.monotonic(), reason))

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter((ending.kind, ending.outcome) for ending in self.endings)

    def failed(self) -> list[Ending]:
        return [ending for ending in self.endings if ending.outcome == "failed"]


class Person(threading.Thread):
    """Works through the plan, one script after the other."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(name=f"person-{number}", daemon=True)
        self._load, self._tally = load, load.tally
        self._client = load.client
        self._rng = random.Random(number)

    def run(self) -> None:
        while (script := self._load.next_script()) is not None:
            name, self._rng = script
            try:
                getattr(self, name)(self._rng.choices(("queue", "gateway"), (2, 1))[0])
            except Exception as error:
                self._tally.wrong.append(f"{name}: {type(error).__name__}: {str(error)[:600]}")

    # ---------------------------------------------------------------- scripts

    def frame(self, door: str) -> None:
        """One frame, annotated while she waits."""
        task, frame = self._place()
        label = self._rng.choice(LABELS)
        answer = self._ask("annotate_frame", door, "finder", task, frame, mapping={LABEL: {"name": label}})
        if answer is not None:
            expected = Shapes((frame, label, box) for box in boxes(task.numbers[frame]))
            same(task.read(answer["shapes"]), expected, f"{door}: frame {frame} of task {task.id}")

    def click(self, door: str) -> None:
        """A click on something."""
        task, frame = self._place()
        point = self._rng.randrange(20, 200), self._rng.randrange(20, 44)
        answer = self._ask("interact", door, "clicker", task, frame, pos_points=[list(point)], neg_points=[])
        if answer is not None:
            left, top, side = square(task.numbers[frame], point)
            # CVAT's run lengths: no zeros, then ones; and the box, its last row and column included.
            mask = [0, side * side, left, top, left + side - 1, top + side - 1]
            found = [(shape["type"], shape["points"]) for shape in answer["shapes"]]
            assert found == [("mask", mask)], f"{door}: a click on {task.numbers[frame]}: {answer}, expected {mask}"

    def follow(self, door: str) -> None:
        """A shape or two followed over some frames."""
        task, frame = self._place()
        began = task.numbers[frame]
        drawn = [(10.0 + 30 * n, 5.0, 25.0 + 30 * n, 20.0) for n in range(self._rng.randint(1, 2))]
        sent = [{"type": "rectangle", "points": list(box)} for box in drawn]
        answer = self._ask("init_tracking", door, "follower", task, frame, shapes=sent)
        for _ in range(self._rng.randint(1, 4)):
            if answer is None:
                return
            states, frame = answer["states"], (frame + 1) % task.frames
            answer = self._ask("track", door, "follower", task, frame, states=states)
            if answer is not None:
                found = [(shape["type"], tuple(shape["points"])) for shape in answer["shapes"]]
                expected = [("rectangle", moved(box, began, task.numbers[frame])) for box in drawn]
                assert found == expected, f"{door}: {found}, expected {expected}"

    def mistake(self, door: str) -> None:
        """A click nowhere, which cannot be answered."""
        task, frame = self._place()
        said = "prompts: got none" if door == "queue" else "400"
        self._ask("mistake", door, "clicker", task, frame, refused=said, pos_points=[], neg_points=[])

    def whole_task(self, door: str) -> None:
        """A whole task, and what is in it afterwards."""
        task = self._load.free.get(timeout=PATIENCE)
        try:
            self._whole_task(task, door)
        finally:
            self._load.free.put(task)

    # ---------------------------------------------------------------- details

    def _place(self) -> tuple[Material, int]:
        task = self._rng.choice(self._load.shared)
        return task, self._rng.randrange(task.frames)

    def _ask(
        self, kind: str, door: str, model: str, task: Material, frame: int, *, refused: str = "", **more: Any
    ) -> dict[str, Any] | None:
        """The answer to a call, None where it failed. `refused` is in the reason where there must be none."""
        began, kind = time.monotonic(), f"{door} {kind}"
        path = f"/api/lambda/functions/{self._load.function(door, model)}"
        answer = self._client.post(path, json={"task": task.id, "frame": frame, **more})
        if answer.status_code == 200:
            assert not refused, f"{kind}: got an answer: {answer.text[:200]}"
            self._tally.note(kind, "completed", began)
            found: dict[str, Any] = answer.json()
            return found
        reason = f"{answer.status_code} {answer.text[:300]}"
        self._tally.note(kind, "refused" if refused and refused in reason else "failed", began, reason)
        self._catch_breath(door)
        return None

    def _whole_task(self, task: Material, door: str) -> None:
        label = LABELS[next(task.turns) % 2]
        began, kind = time.monotonic(), f"{door} annotate_task"
        function = self._load.function(door, "finder")
        order = {"function": function, "task": task.id, "mapping": {LABEL: {"name": label}}, "cleanup": True}
        made = self._client.post("/api/lambda/requests", json=order)
        if made.status_code != 200:
            self._tally.note(kind, "failed", began, f"{made.status_code} {made.text[:300]}")
            return self._catch_breath(door)
        path = f"/api/lambda/requests/{made.json()['id']}"
        if self._rng.random() < 0.12:
            self._cancel(path, task)
            self._tally.note(kind, "cancelled", began)
            found, whole = task.stored(), task.expected(label)
            # All or nothing; of CVAT's own worker also what it had found until then, but everything once.
            right = found in (task.content, whole) or (door == "gateway" and found <= whole)
            assert right, f"{kind} of task {task.id}, cancelled: {differences(found, whole)}"
            task.content = found
            return None
        self._wait(task, lambda row: row.ended is not None)
        ended = self._client.get(path).json()
        self._tally.note(kind, _outcome(ended), began, str(ended["exc_info"] or "")[-300:])
        found = task.stored()
        if ended["status"] == "finished":
            same(found, task.expected(label), f"{kind} of task {task.id}")
        else:
            assert found in (task.content, Shapes()), f"{kind} of task {task.id} left {found} behind"
            self._catch_breath(door)
        task.content = found
        return None

    def _cancel(self, path: str, task: Material) -> None:
        """Cancels a request somewhere between its order and its end; returns when nobody works at it any more."""
        progress = self._rng.choice((None, 0, 40))
        if progress is not None:
            self._wait(task, lambda row: row.status == "started" and (row.progress or 0) >= progress)
        assert self._client.delete(path).status_code == 204
        self._wait(task, lambda row: row.ended is not None)

    def _wait(self, task: Material, done: Callable[[LambdaRequest], bool]) -> None:
        """Waits for something about a task's request, or for its end."""
        rows = self._load.sandbox.state.lambda_requests
        until(lambda: (row := rows.first(task_id=task.id)) is None or row.ended or done(row), PATIENCE)

    def _catch_breath(self, door: str) -> None:
        """Whoever finds the gateway away does not try again before it is there."""
        if door == "gateway":
            self._load.service.ready.wait(PATIENCE)


def _outcome(ended: dict[str, Any]) -> str:
    return "completed" if ended["status"] == "finished" else "failed"


SCRIPTS = {"frame": 35, "click": 25, "follow": 12, "mistake": 1, "whole_task": 9}
"""How often people do what, in relation to each other."""


class Load:
    """People at work with a service, until so many requests have ended."""

    def __init__(self, sandbox: Sandbox, service: Service, folder: Path, *, requests: int, watched: int) -> None:
        self.sandbox, self.service, self.requests = sandbox, service, requests
        self.tally = Tally()
        self.client = Client(sandbox, PERSON, "secret")
        self.client.http.timeout = httpx.Timeout(PATIENCE)
        self._rng, self._lock = random.Random(requests), threading.Lock()
        firsts = count(0, 20)

        def make(frames: int, name: str, *, video: bool = False, slow: bool = False) -> Material:
            first = next(firsts) + slow * SLOW.start
            return Material(self.client, folder, first, frames, name, video=video)

        self.shared = [make(8, "shared") for _ in range(10)] + [make(12, "shared", video=True)]
        self.alone = [make(frames, "alone") for frames in range(4, 10)]
        self.alone += [make(10, "alone", video=True), make(12, "alone", slow=True)]
        self.watched = [make(4 * min(4, watched - n), f"{WATCHED} {n}") for n in range(0, watched, 4)]
        self.jobs = [job["id"] for task in self.watched for job in self.client.jobs(task.id)]
        self.free: SimpleQueue[Material] = SimpleQueue()
        for task in self.alone:
            self.free.put(task)
        natives = self.client.get("/api/lambda/functions").json()
        self._functions = {row["name"]: str(row["id"]) for row in natives if isinstance(row["id"], int)}

    def function(self, door: str, model: str) -> str:
        """A model as the menus know it: a number for a native function, a name for one of the gateway's."""
        return self._functions[model] if door == "queue" else model

    def next_script(self) -> tuple[str, random.Random] | None:
        """What is to be done next, the same from run to run; None at the end."""
        with self._lock:
            if self.done >= self.requests:
                return None
            (name,) = self._rng.choices(list(SCRIPTS), list(SCRIPTS.values()))
            return name, random.Random(self._rng.random())

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return len(self.tally.endings)

    @contextmanager
    def at_work(self, people: int) -> Iterator[None]:
        """Lets them work while the block runs, and to their end."""
        threads = [*(Person(self, number) for number in range(people)), Assigning(self)]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.http.close()

    def check_stored(self) -> None:
        """Everything is in its place, once, and nothing came later."""
        for task in self.alone:
            same(task.stored(), task.content, f"task {task.id}, at the end")
        for task in self.watched:
            same(task.stored(), task.expected(LABEL), f"watched task {task.id}, at the end")
        for task in self.shared:
            same(task.stored(), Shapes(), f"shared task {task.id}, at the end")


class Assigning(threading.Thread):
    """Takes jobs into work, spread over the whole load, and waits until the rule has done them."""

    def __init__(self, load: Load) -> None:
        super().__init__(name="assigning", daemon=True)
        self._load = load

    def run(self) -> None:
        waiting: dict[int, float] = {}
        load, person = self._load, self._load.sandbox.state.users.where(username=PERSON)[0].id
        for number, job in enumerate(load.jobs):
            due = load.requests * number // len(load.jobs)
            until(lambda due=due: load.done >= due or self._look(waiting), 3600)
            until(lambda job=job: self._assign(job, person))
            waiting[job] = time.monotonic()
        try:
            until(lambda: not waiting or self._look(waiting), PATIENCE)
        except AssertionError:
            load.tally.wrong.append(f"jobs that no rule has done: {list(waiting)}")

    def _assign(self, job: int, person: int) -> bool:
        # The sandbox cannot tell this call from the service's.
        try:
            return self._load.client.patch(f"/api/jobs/{job}", json={"assignee": person}).status_code == 200
        except httpx.TransportError:
            return False

    def _look(self, waiting: dict[int, float]) -> None:
        jobs = self._load.sandbox.state.jobs.rows
        for job in [job for job in waiting if jobs[job].state == "completed"]:
            self._load.tally.note("watch rule", "completed", waiting.pop(job))

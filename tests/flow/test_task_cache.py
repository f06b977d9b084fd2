"""What is remembered of tasks and frames, for how long, and what makes it look again."""

import threading
from dataclasses import replace

import pytest

from agent.cvat.single_frames import FrameCache
from agent.cvat.task_cache import TaskCache
from agent.cvat.work import find_work
from agent.errors import BadRequest, LabelMismatch, ServerUnavailable
from agent.options import Target
from tests.support.material import make_image_task, make_video_task, number_of
from tests.support.tasks import Client


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def task(session):
    return make_image_task(session, count=6, segment_size=3)


def asked(sandbox):
    found = [f"{entry.method} {entry.path}" for entry in sandbox.requests]
    sandbox.requests.clear()
    return found


def test_a_task_is_looked_at_once_in_a_while(sandbox, session, task, clock):
    tasks = TaskCache(session, keep=60, clock=clock)
    sandbox.requests.clear()
    assert tasks.use(task, lambda known: known.job_of(4)).start == 3
    assert asked(sandbox) == ["GET /api/jobs", "GET /api/jobs/2/data/meta"]
    assert tasks.use(task, lambda known: known.job_of(5)).start == 3
    assert asked(sandbox) == []
    assert [label.name for label in tasks.use(task, lambda known: known.labels)] == ["thing"]
    assert tasks.use(task, lambda known: known.labels)
    assert asked(sandbox) == ["GET /api/labels"]
    clock.now = 60
    tasks.use(task, lambda known: known.job_of(4))
    assert asked(sandbox) == ["GET /api/jobs", "GET /api/jobs/2/data/meta"]


@pytest.mark.parametrize("error", [BadRequest("no such frame"), LabelMismatch("no such label")])
def test_what_does_not_fit_is_looked_at_again_once(sandbox, session, task, clock, error):
    tasks, tries = TaskCache(session, clock=clock), []

    def work(known):
        tries.append(known)
        raise error

    with pytest.raises(type(error)):
        tasks.use(task, work)
    assert len(tries) == 1, "it had just been looked at"
    tasks.use(task, lambda known: known.job_of(0))
    clock.now = 1
    with pytest.raises(type(error)):
        tasks.use(task, work)
    assert len(tries) == 3
    assert tries[1] is not tries[2]


def test_what_somebody_else_has_fetched(sandbox, session, task, clock):
    """A frame that is not in it is looked for as ever."""
    (work,) = find_work(session, Target("task", task))
    first = replace(work, jobs=work.jobs[:1])
    tasks = TaskCache(session, clock=clock)
    tasks.learn(first)
    sandbox.requests.clear()
    assert tasks.use(task, lambda known: (known.job_of(1).id, known.labels)) == (1, work.labels)
    assert asked(sandbox) == []
    assert tasks.use(task, lambda known: known.job_of(5)).id == 2
    assert asked(sandbox) == ["GET /api/jobs", "GET /api/jobs/2/data/meta"]


def test_frames_that_are_deleted_meanwhile(sandbox, session, task, clock):
    tasks = TaskCache(session, clock=clock)
    tasks.use(task, lambda known: known.job_of(1))
    with Client(sandbox, "bot", "secret") as client:
        client.patch(f"/api/tasks/{task}/data/meta", json={"deleted_frames": [1]})
    clock.now = 61
    with pytest.raises(BadRequest, match=f"task {task}: frame 1: it was deleted"):
        tasks.use(task, lambda known: known.job_of(1))


def test_tasks_that_have_nothing_to_look_at(sandbox, session, task):
    with Client(sandbox, "bot", "secret") as client:
        empty = client.post("/api/tasks", json={"name": "empty", "labels": [{"name": "a"}]}).json()["id"]
    for nothing in (99, empty):
        with pytest.raises(BadRequest, match=f"task {nothing}: it does not exist, or the user of this agent may not"):
            TaskCache(session).use(nothing, lambda known: known.job_of(0))
    with sandbox.state.store.change():
        row = sandbox.state.tasks.rows[task]
        row.dimension = "3d"
        sandbox.state.tasks.save(row)
    with pytest.raises(BadRequest, match=f"task {task}: it holds 3D data, allowed: pictures and video"):
        TaskCache(session).use(task, lambda known: known.job_of(0))


def test_a_frame_that_comes_by_itself(sandbox, session, clock):
    task = make_video_task(session, frames=6, segment_size=6)
    tasks, frames = TaskCache(session), FrameCache(session, 1 << 24, clock=clock, keep=100)
    job = tasks.use(task, lambda known: known.job_of(3))
    sandbox.requests.clear()
    first = frames.get(job, 3)
    assert number_of(first.frame.image) == 3
    assert frames.get(job, 3) is first
    assert frames.get(job, 4).digest != first.digest
    assert asked(sandbox) == ["GET /api/jobs/1/data"] * 2
    clock.now = 100
    assert frames.get(job, 3).digest == first.digest
    assert len(asked(sandbox)) == 1


def test_threads_that_want_the_same_frame_wait_for_one_download(sandbox, session, task):
    tasks, frames = TaskCache(session), FrameCache(session, 1 << 24)
    job = tasks.use(task, lambda known: known.job_of(1))
    sandbox.requests.clear()
    sandbox.faults.add(path="/data$", delay=0.2)
    found = []
    threads = [threading.Thread(target=lambda: found.append(frames.get(job, 1))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(asked(sandbox)) == 1
    assert len({id(frame) for frame in found}) == 1


def test_frames_give_way_to_later_ones(session, task):
    size = 320 * 240 * 3
    tasks, frames = TaskCache(session), FrameCache(session, 2 * size)
    for number in range(6):
        job = tasks.use(task, lambda known, number=number: known.job_of(number))
        frames.get(job, number)
        assert frames.bytes == min(number + 1, 2) * size
    frames.set_limit(size)
    assert frames.bytes == size
    frames.set_limit(0)
    assert frames.bytes == 0
    assert number_of(frames.get(job, 5).frame.image) == 5
    assert frames.bytes == 0


def test_a_frame_that_could_not_be_had_is_tried_again(sandbox, session, task):
    tasks, frames = TaskCache(session), FrameCache(session, 1 << 24)
    job = tasks.use(task, lambda known: known.job_of(1))
    fault = sandbox.faults.add(path="/data$", cut=True, count=3)
    with pytest.raises(ServerUnavailable):
        frames.get(job, 1)
    assert fault.struck == 3
    assert number_of(frames.get(job, 1).frame.image) == 1

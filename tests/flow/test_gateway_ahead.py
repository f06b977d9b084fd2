"""Reading ahead of CVAT's serial loop: the same annotations, in batches."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from PIL import Image

from agent.contract import Detection, Label, Mask, Rectangle
from agent.doors.gateway.serial import SEARCHED, loop_of
from agent.settings.server import ServerSettings
from tests.support.gateway import Watched, image_of, staged
from tests.support.material import number_of, numbered, picture_bytes, write_video
from tests.support.tasks import Client

COUNT = 40


def until(done, why, seconds=20):
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, why
        time.sleep(0.01)
    return found


def pictures(numbers, **more):
    return [(f"{place:03}.jpg", picture_bytes(number, **more)) for place, number in enumerate(numbers)]


def video(tmp_path, frames):
    path = write_video(tmp_path / "clip.mp4", frames)
    return [("clip.mp4", path.read_bytes())]


def shapes_of(client, task):
    found = client.get(f"/api/tasks/{task}/annotations").json()["shapes"]
    told = [(s["frame"], s["type"], s["points"], s["group"], [a["value"] for a in s["attributes"]]) for s in found]
    return sorted(told, key=str)


@contextmanager
def placed(finder, *, prefetch=True, **more):
    with staged({"finder": finder}, prefetch=prefetch, **more) as stage, Client(stage.sandbox, "bot", "secret") as user:
        yield stage, user


def annotated(stage, client, task, finder, *, held=True, **order):
    """The ended request. The first call is held in the model until the frames after it wait for it there."""
    finder.batches.clear()
    finder.began.clear()
    if held:
        finder.gate.clear()
    made = client.post("/api/lambda/requests", json={"function": "finder", "task": task, **order})
    assert made.status_code == 200, made.text
    if held:
        until(finder.began.is_set, "the first call never came")
        until(lambda: stage.shared.pool.record("finder").depth >= 2, "nothing was read ahead")
        finder.gate.set()
    path = f"/api/lambda/requests/{made.json()['id']}"
    return client.until(path, lambda answer: answer.json()["status"] in ("finished", "failed"))


def nothing_is_left(stage):
    until(lambda: not stage.gateway.ahead.readings, "a reading goes on")
    assert stage.gateway.ahead.held == 0
    names = ("gateway-", "download-", "decode-")
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith(names)], "a thread goes on")


def both_ways(make_task, finder=None, **order):
    """(without reading ahead, with it, the model's batches with it): what the annotations are."""
    finder, found = finder or Watched(batch_size=8), []
    with placed(finder, prefetch=False) as (stage, client):
        task, more = make_task(client)
        for prefetch in (False, True):
            settings = replace(stage.shared.config.gateway, prefetch=prefetch)
            stage.shared.config = replace(stage.shared.config, gateway=settings)
            stage.gateway.reload()
            ended = annotated(stage, client, task, finder, held=prefetch, cleanup=True, **more, **order)
            assert ended["status"] == "finished", ended
            found.append(shapes_of(client, task))
        nothing_is_left(stage)
        assert set(outcomes(stage)) == {("done", None)}
    return *found, finder.batches


def in_batches(calls, frames):
    """Whether the model saw the frames of a request by the batch; how they fall depends on who is faster."""
    return max(map(len, calls)) == 8 and len(calls) <= frames // 2


def test_the_same_annotations_in_batches():
    without, ahead, calls = both_ways(lambda client: (client.task(pictures(range(COUNT))), {}))
    assert ahead == without
    assert len(without) == COUNT
    assert sorted(number for batch in calls for number in batch) == list(range(COUNT)), "each frame once"
    assert in_batches(calls, COUNT)


def test_frames_of_a_video_are_known_by_their_pixels(tmp_path):
    def grouped(frame, context):
        left = number_of(frame.image)
        return [Detection("thing", Rectangle(left, top, left + 30, 50), 0.9, group=5) for top in (10, 20)]

    def make(client):
        return client.task(video(tmp_path, 24)), {}

    without, ahead, calls = both_ways(make, Watched(batch_size=8, find=grouped))
    assert ahead == without
    assert len({group for _, _, _, group, _ in without}) == 24
    assert in_batches(calls, 24)
    assert sorted(number for batch in calls for number in batch) == list(range(24))


def rotated(number):
    """A picture that is stored lying on its side; CVAT turns it and writes it anew."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(numbered(number)).rotate(90, expand=True).save(out, format="JPEG", quality=95, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["rotated", "png", "twice the same"])
def test_pictures_of_other_kinds(kind):
    files = {
        "rotated": [(f"{n:03}.jpg", rotated(n)) for n in range(20)],
        "png": [(f"{n:03}.png", picture_bytes(n, "PNG")) for n in range(20)],
        "twice the same": pictures([n // 2 for n in range(20)]),
    }[kind]
    without, ahead, calls = both_ways(lambda client: (client.task(files), {}))
    assert ahead == without
    assert len(without) == 20
    assert in_batches(calls, 20)


@pytest.mark.parametrize("which", [0, 1])
def test_a_request_for_one_job_and_deleted_frames(which):
    """The server does not tell that it is for a job: it ends at the end of one, and was not cancelled there."""

    def make(client):
        task = client.task(pictures(range(30)), segment_size=15)
        job = client.jobs(task)[which]["id"]
        patched = client.patch(f"/api/tasks/{task}/data/meta", json={"deleted_frames": [17, 29]})
        assert patched.status_code == 200
        return task, {"job": job}

    without, ahead, calls = both_ways(make)
    assert ahead == without
    if which == 1:
        assert sorted(number for batch in calls for number in batch) == [n for n in range(15, 30) if n not in (17, 29)]
        assert in_batches(calls, 13)


def test_thresholds_masks_and_scores_are_the_calls():
    labels = [Label("thing", "any")]

    def find(frame, context):
        bitmap = frame.image[20:40, 20:60, 0] > 30
        left = number_of(frame.image)
        return [
            Detection("thing", Mask(bitmap, 20, 20), 0.8),
            Detection("thing", Rectangle(left, 1, left + 9, 9), 0.31),
            Detection("thing", Rectangle(left, 1, left + 9, 9), 0.29),
        ]

    spec = {"name": "score", "input_type": "number", "values": ["0", "100", "1"], "mutable": False}

    def make(client):
        return client.task(pictures(range(20)), labels=[{"name": "thing", "attributes": [spec]}]), {}

    without, ahead, _ = both_ways(make, Watched(batch_size=8, labels=labels, find=find), threshold=0.3)
    assert ahead == without
    assert {values[0] for *_, values in ahead} == {"80", "31"}


def test_a_person_with_another_threshold_gets_no_answer_that_was_read_ahead():
    """Of the same picture, by the same function, while a request without one runs; the model's scores are 0.9."""
    finder = Watched(batch_size=8)
    with placed(finder) as (stage, client), ThreadPoolExecutor(1) as threads:
        task = client.task(pictures(range(COUNT)))
        finder.gate.clear()
        made = client.post("/api/lambda/requests", json={"function": "finder", "task": task})
        until(finder.began.is_set, "the first call never came")
        until(lambda: stage.shared.pool.record("finder").depth >= 2, "nothing was read ahead")
        hers = threads.submit(stage.call, "finder", {"image": image_of(picture_bytes(3)), "threshold": 0.95})
        until(lambda: stage.gateway.calls == 2, "her call never came")
        finder.gate.set()
        assert hers.result(20).json() == []
        ended = client.until(f"/api/lambda/requests/{made.json()['id']}", lambda got: got.json()["status"] != "started")
        assert (ended["status"], len(shapes_of(client, task))) == ("finished", COUNT)


def test_a_region_is_not_read_ahead_for_long():
    finder = Watched(batch_size=4, seconds=0.005)
    with placed(finder) as (stage, client):
        stage.gateway.ahead.look_seconds = 0.02
        task = client.task(pictures(range(COUNT)))
        ended = annotated(stage, client, task, finder, held=False, roi=[0, 0, 200, 200])
        assert ended["status"] == "finished", ended
        assert len(shapes_of(client, task)) == COUNT
        assert [len(batch) for batch in finder.batches] == [1] * COUNT
        nothing_is_left(stage)
        looked = stage.sandbox.requests.matching("GET", "/api/jobs/", 200)
        assert 0 < len([entry for entry in looked if entry.path.endswith("/data/meta")]) < 10, "rarer and rarer"


def outcomes(stage):
    records = [r for r in stage.shared.activity.finished() if r.kind == "annotate_task"]
    return [(record.outcome, record.error) for record in records]


@pytest.mark.parametrize("seconds", [0.05, 2])
def test_a_cancelled_request_is_read_no_further(seconds):
    """Whether we look while it is gone, or after it came back as a finished one, as CVAT has it."""
    finder = Watched(batch_size=2)
    with placed(finder) as (stage, client):
        stage.gateway.ahead.check_seconds = seconds
        task = client.task(pictures(range(200)))
        finder.gate.clear()
        made = client.post("/api/lambda/requests", json={"function": "finder", "task": task}).json()
        until(finder.began.is_set, "the first call never came")
        until(lambda: stage.shared.pool.record("finder").depth, "nothing was read ahead")
        assert client.delete(f"/api/lambda/requests/{made['id']}").status_code == 204
        finder.gate.set()
        nothing_is_left(stage)
        assert sum(map(len, finder.batches)) < 100, "it stays near the calls"
        assert outcomes(stage) == [("cancelled", "cancelled in CVAT")]
        assert len(stage.sandbox.requests.matching("DELETE", "/api/lambda/requests")) == 1, "that of the person"
        # Somebody clicks on another task in the meantime: an ordinary call.
        assert stage.call("finder", {"image": image_of(picture_bytes(7))}).json()[0]["points"][0] == 7


def test_batches_of_a_cancelled_request_that_wait_for_the_model_are_not_begun():
    finder = Watched(batch_size=2)
    with placed(finder) as (stage, client):
        stage.gateway.ahead.check_seconds = 0.05
        task = client.task(pictures(range(40)))
        finder.gate.clear()
        made = client.post("/api/lambda/requests", json={"function": "finder", "task": task}).json()
        until(finder.began.is_set, "the first call never came")
        until(lambda: stage.shared.pool.record("finder").depth >= 2, "nothing was read ahead")
        assert client.delete(f"/api/lambda/requests/{made['id']}").status_code == 204
        nothing_is_left(stage)
        finder.gate.set()
        assert stage.call("finder", {"image": image_of(picture_bytes(7))}).json()[0]["points"][0] == 7
        assert len(finder.batches) == 2, "the call that was in the model, and this one"


def test_cancelled_on_the_page_it_is_cancelled_in_cvat():
    finder = Watched(batch_size=2)
    with placed(finder) as (stage, client):
        task = client.task(pictures(range(200)))
        finder.gate.clear()
        client.post("/api/lambda/requests", json={"function": "finder", "task": task})

        def reading():
            return [r for r in stage.shared.activity.running() if r.kind == "annotate_task"]

        until(reading, "nothing was read ahead")
        assert stage.shared.activity.cancel(reading()[0].id)
        finder.gate.set()
        until(lambda: stage.sandbox.requests.matching("DELETE", "/api/lambda/requests"), "CVAT never heard of it")
        until(lambda: not reading(), "it never ended")
        assert [r.outcome for r in stage.shared.activity.finished() if r.kind == "annotate_task"] == ["cancelled"]
        assert sum(map(len, finder.batches)) < 100


def test_without_a_login_nobody_is_asked():
    finder = Watched(seconds=0.005)
    with placed(finder, shared={"server": ServerSettings()}) as (stage, client):
        task = client.task(pictures(range(10)))
        stage.sandbox.requests.clear()
        assert annotated(stage, client, task, finder, held=False)["status"] == "finished"
        assert [len(batch) for batch in finder.batches] == [1] * 10
        listed = stage.sandbox.requests.matching("GET", "/api/lambda/requests")
        assert not [entry for entry in listed if entry.path == "/api/lambda/requests"]


def test_a_frame_that_the_model_fails_on_fails_as_without():
    def find(frame, context):
        if number_of(frame.image) == 9:
            raise ValueError("nine")
        return [Detection("thing", Rectangle(1, 2, 3, 4), 0.5)]

    finder = Watched(batch_size=8, find=find)
    with placed(finder) as (stage, client):
        task = client.task(pictures(range(20)))
        ended = annotated(stage, client, task, finder)
        assert ended["status"] == "failed"
        assert "500 Server Error" in ended["exc_info"]
        stage.gateway.ahead.close()
        nothing_is_left(stage)


def test_a_slow_server_delays_no_call():
    finder = Watched()
    with placed(finder) as (stage, client):
        task = client.task(pictures(range(12)))
        stage.sandbox.faults.add(path="/api/jobs", delay=3.0, count=None)
        assert annotated(stage, client, task, finder, held=False)["status"] == "finished"
        assert [len(batch) for batch in finder.batches] == [1] * 12


def test_other_settings_end_what_was_read_ahead():
    finder = Watched(batch_size=4)
    with placed(finder) as (stage, client):
        task = client.task(pictures(range(60)))
        finder.gate.clear()
        client.post("/api/lambda/requests", json={"function": "finder", "task": task}).raise_for_status()
        until(lambda: stage.shared.pool.record("finder").depth, "nothing was read ahead")
        config = stage.shared.config
        stage.shared.config = replace(config, gateway=replace(config.gateway, prefetch=False))
        stage.gateway.reload()
        finder.gate.set()
        path = f"/api/lambda/requests/action=autoannotate&target=task&target_id={task}"
        ended = client.until(path, lambda answer: answer.json()["status"] in ("finished", "failed"))
        assert ended["status"] == "finished", ended
        assert len(shapes_of(client, task)) == 60
        assert not stage.gateway.ahead.readings


def test_a_request_for_one_job_of_a_server_that_does_not_tell_the_job(session, sandbox):
    """Its progress counts in the task: as far as it is told, the job is found."""
    with Client(sandbox, "bot", "secret") as client:
        task = client.task(pictures(range(300), size=(200, 32)), segment_size=100)
    row = {"id": "x", "function": {"id": "finder", "task": task}, "progress": None}
    begun = loop_of(session, row)
    assert (len(begun.wanted), begun.begin, begun.end) == (300, 0, 3 + 2 * SEARCHED)
    for frame in (200, 201, 250, 299):
        loop = loop_of(session, {**row, "progress": int((frame + 1) / 300 * 100)})
        # The next call is for the frame after it; by the time that the progress was told, some more may have come.
        assert loop.begin <= frame + 1 - 10 < frame + 1 <= loop.end


def test_a_call_in_the_middle_of_a_long_request_is_found():
    """As after a restart of the service."""

    def find(frame, context):
        time.sleep(0.02)
        return [Detection("thing", Rectangle(1, 2, 3, 4), 0.5)]

    finder = Watched(batch_size=8, find=find)
    with placed(finder, prefetch=False) as (stage, client):
        task = client.task(pictures(range(260), size=(320, 32)))
        client.post("/api/lambda/requests", json={"function": "finder", "task": task}).raise_for_status()
        path = f"/api/lambda/requests/action=autoannotate&target=task&target_id={task}"
        client.until(path, lambda answer: (answer.json()["progress"] or 0) >= 40)
        config = stage.shared.config
        stage.shared.config = replace(config, gateway=replace(config.gateway, prefetch=True))
        # The calls go on meanwhile: the picture of the first look may lie behind by the time that it is searched for.
        stage.gateway.ahead.look_seconds = 0.1
        stage.gateway.reload()
        until(lambda: stage.gateway.ahead.held, "nothing was read ahead")
        client.until(path, lambda answer: answer.json()["status"] == "finished")
        assert len(shapes_of(client, task)) == 260
        assert max(map(len, finder.batches)) > 4


def test_memory_is_bounded_and_given_back():
    held = []

    def find(frame, context):
        held.append(stage.gateway.ahead.held)
        return [Detection("thing", Rectangle(1, 2, 3, 4), 0.5)]

    finder = Watched(batch_size=8, find=find)
    with placed(finder, prefetch_mb=1.5) as (stage, client):
        task = client.task(pictures(range(60)))
        assert annotated(stage, client, task, finder)["status"] == "finished"
        assert len(shapes_of(client, task)) == 60
        nothing_is_left(stage)
    assert 4 * 320 * 240 * 3 <= max(held) <= 1.5 * 2**20 + 60 * 1000, "frames, and a few small answers"
    assert 1 < max(map(len, finder.batches)) <= 6, "no more of these pictures fit"


def test_two_requests_of_the_same_function_at_the_same_time():
    """Their calls come between each other; each finds its own."""
    finder = Watched(batch_size=8)
    with placed(finder) as (stage, client):
        stage.gateway.ahead.look_seconds = 0.02
        tasks = [client.task(pictures(range(start, start + 40))) for start in (0, 100)]
        finder.gate.clear()
        paths = []
        for task in tasks:
            made = client.post("/api/lambda/requests", json={"function": "finder", "task": task})
            paths.append(f"/api/lambda/requests/{made.json()['id']}")
        until(finder.began.is_set, "the first call never came")
        finder.gate.set()
        for path in paths:
            ended = client.until(path, lambda answer: answer.json()["status"] in ("finished", "failed"))
            assert ended["status"] == "finished", ended
        for task, start in zip(tasks, (0, 100), strict=True):
            lefts = sorted((frame, points[0]) for frame, _, points, *_ in shapes_of(client, task))
            assert lefts == [(frame, start + frame) for frame in range(40)]
        nothing_is_left(stage)

"""Ground truth jobs and honeypots."""

import json

import pytest

from tests.support.tasks import Client, drawn


@pytest.fixture
def client(sandbox):
    with Client(sandbox, "bot", "secret") as client:
        yield client


FILES = [(f"{n:02}.png", drawn("PNG", seed=n)) for n in range(12)]


def original(client, task, number):
    query = {"type": "frame", "number": number, "quality": "original"}
    return client.get(f"/api/tasks/{task}/data", params=query).content


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ({"frame_selection_method": "manual", "frames": [1, 4, 7]}, 3),
        ({"frame_selection_method": "random_uniform", "frame_count": 5, "random_seed": 3}, 5),
        ({"frame_selection_method": "random_uniform", "frame_share": 0.3}, 3),
    ],
)
def test_a_ground_truth_job_is_added(client, method, count):
    task = client.task(FILES, segment_size=6, data={"chunk_size": "2", "start_frame": "1"})
    made = client.post("/api/jobs", json={"type": "ground_truth", "task_id": task, **method})
    assert made.status_code == 201, made.text
    job = made.json()
    assert (job["type"], job["frame_count"], job["start_frame"], job["stop_frame"]) == ("ground_truth", count, 0, 10)
    assert client.get(f"/api/tasks/{task}").json()["validation_mode"] == "gt"
    meta = client.get(f"/api/jobs/{job['id']}/data/meta").json()
    assert (meta["size"], len(meta["frames"])) == (count, count)
    numbers = [number - 1 for number in meta["included_frames"]]  # they count in the source, which starts at 1
    if "frames" in method:
        assert numbers == method["frames"]
    layout = client.get(f"/api/tasks/{task}/validation_layout").json()
    assert (layout["mode"], layout["validation_frames"], layout["honeypot_count"]) == ("gt", numbers, 0)
    place = f"/api/jobs/{job['id']}/data"
    outside = next(number for number in range(11) if number not in numbers)
    assert client.get(place, params={"type": "frame", "number": outside}).status_code == 400
    assert client.get(place, params={"type": "frame", "number": numbers[-1]}).status_code == 200
    last = (count - 1) // 2
    assert client.get(place, params={"type": "chunk", "index": last}).status_code == 200
    assert client.get(place, params={"type": "chunk", "index": last + 1}).status_code == 400


def test_ground_truth_is_apart_from_the_tasks_annotations(client):
    task = client.task(FILES, segment_size=6)
    job = client.post(
        "/api/jobs", json={"type": "ground_truth", "task_id": task, "frame_selection_method": "manual", "frames": [2]}
    ).json()
    box = {"type": "rectangle", "frame": 2, "label_id": client.labels(task)["thing"], "points": [1, 2, 3, 4]}
    client.patch(f"/api/jobs/{job['id']}/annotations", params={"action": "create"}, json={"shapes": [box]})
    assert client.get(f"/api/tasks/{task}/annotations").json()["shapes"] == []
    client.put(f"/api/tasks/{task}/annotations", json={"shapes": [box, box]})
    assert len(client.get(f"/api/jobs/{job['id']}/annotations").json()["shapes"]) == 1
    twice = client.post(
        "/api/jobs", json={"type": "ground_truth", "task_id": task, "frame_selection_method": "manual", "frames": [1]}
    )
    assert twice.status_code == 400
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert client.get(f"/api/tasks/{task}").json()["validation_mode"] is None
    assert client.delete(f"/api/jobs/{client.jobs(task)[0]['id']}").status_code == 400


def test_ground_truth_from_the_start(client):
    params = {"mode": "gt", "frame_selection_method": "manual", "frames": ["03.png", "05.png"]}
    task = client.task(FILES, segment_size=6, data={"validation_params": json.dumps(params)})
    jobs = client.jobs(task)
    assert [job["type"] for job in jobs] == ["annotation", "annotation", "ground_truth"]
    assert client.get(f"/api/jobs/{jobs[2]['id']}/data/meta").json()["included_frames"] == [3, 5]


def test_random_ground_truth_of_each_job(client):
    params = {"mode": "gt", "frame_selection_method": "random_per_job", "frames_per_job_count": 2, "random_seed": 1}
    task = client.task(FILES, segment_size=4, data={"validation_params": json.dumps(params)})
    frames = client.get(f"/api/tasks/{task}/validation_layout").json()["validation_frames"]
    assert [sum(first <= frame < first + 4 for frame in frames) for first in (0, 4, 8)] == [2, 2, 2]


@pytest.fixture
def pool(client):
    params = {
        "mode": "gt_pool",
        "frame_selection_method": "manual",
        "frames": ["00.png", "06.png", "11.png"],
        "frames_per_job_count": 2,
        "random_seed": 5,
    }
    data = {"validation_params": json.dumps(params), "sorting_method": "random", "chunk_size": "4"}
    return client.task(FILES, segment_size=4, data=data)


def test_honeypots_are_copies_of_the_pool_within_the_jobs(client, pool):
    task = client.get(f"/api/tasks/{pool}").json()
    assert (task["size"], task["validation_mode"]) == (9 + 3 * 2 + 3, "gt_pool")
    *jobs, truth = client.jobs(pool)
    assert [(job["start_frame"], job["stop_frame"]) for job in jobs] == [(0, 5), (6, 11), (12, 14)]
    layout = client.get(f"/api/tasks/{pool}/validation_layout").json()
    assert layout["validation_frames"] == [15, 16, 17]
    assert client.get(f"/api/jobs/{truth['id']}/data/meta").json()["included_frames"] == [15, 16, 17]
    assert layout["honeypot_count"] == len(layout["honeypot_frames"]) == 6
    meta = client.get(f"/api/tasks/{pool}/data/meta").json()["frames"]
    for honeypot, real in zip(layout["honeypot_frames"], layout["honeypot_real_frames"], strict=True):
        assert original(client, pool, honeypot) == original(client, pool, real)
        assert meta[honeypot] == meta[real]
    for job in jobs:
        inside = client.get(f"/api/jobs/{job['id']}/validation_layout").json()
        assert inside["honeypot_count"] == 2
        assert all(job["start_frame"] <= frame <= job["stop_frame"] for frame in inside["honeypot_frames"])
    names = {meta[n]["name"] for n in range(15) if n not in layout["honeypot_frames"]}
    assert names == {name for name, _ in FILES} - {"00.png", "06.png", "11.png"}


def test_honeypots_can_be_swapped_and_frames_disabled(client, pool):
    path = f"/api/tasks/{pool}/validation_layout"
    layout = client.get(path).json()
    chunk = {"type": "chunk", "number": 0, "quality": "original"}
    before = client.get(f"/api/tasks/{pool}/data", params=chunk).content
    swapped = [15 + (real - 14) % 3 for real in layout["honeypot_real_frames"]]
    sent = {"frame_selection_method": "manual", "honeypot_real_frames": swapped, "disabled_frames": [16]}
    changed = client.patch(path, json=sent).json()
    assert (changed["honeypot_real_frames"], changed["disabled_frames"]) == (swapped, [16])
    for honeypot, real in zip(layout["honeypot_frames"], swapped, strict=True):
        assert original(client, pool, honeypot) == original(client, pool, real)
    assert client.get(f"/api/tasks/{pool}/data", params=chunk).content != before
    assert client.patch(path, json={"disabled_frames": [1]}).status_code == 400


def test_a_pool_needs_pictures_in_random_order(client):
    params = {
        "mode": "gt_pool",
        "frame_selection_method": "random_uniform",
        "frame_count": 2,
        "frames_per_job_count": 1,
    }
    task = client.post("/api/tasks", json={"name": "x", "labels": []}).json()["id"]
    ended = client.upload(task, FILES, validation_params=json.dumps(params))
    assert ended["status"] == "failed"
    assert "gt_pool" in ended["message"]

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.activity import Activity
from agent.doors import DoorHealth
from agent.errors import BadRequest
from agent.settings.tables import ModelSettings
from agent.web.metrics import Metrics, Now
from tests.support.doors import shared as make_shared
from tests.unit.test_pool import Loader


@pytest.fixture
def metrics():
    return Metrics(lambda: ("yolo", "sam"))


def values(metrics):
    """(name, labels) -> value of every sample, read as Prometheus reads it."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name.removeprefix("cvat_sidecar_"), *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def request(**more):
    return sorted({"door": "queue", "kind": "annotate_task", "model": "yolo", **more}.items())


def test_requests_are_counted_by_how_they_end(metrics):
    activity = Activity(on_end=metrics.on_end)
    for _ in range(2):
        with activity.begin("queue", "annotate_task", "yolo", "task 4") as opened:
            opened.spent({"encode": 0.25, "model": 99.0, "whole run": 99.0})
    with pytest.raises(BadRequest), activity.begin("queue", "annotate_task", "yolo", "task 4"):
        raise BadRequest("no such label")
    found = values(metrics)
    assert found["requests_total", *request(outcome="done")] == 2
    assert found["requests_total", *request(outcome="failed")] == 1
    assert found["request_seconds_count", *request()] == 3
    assert found["request_seconds_sum", *request()] >= 0
    assert found["stage_seconds_total", ("model", "yolo"), ("stage", "encode")] == 0.5
    assert ("stage_seconds_total", ("model", "yolo"), ("stage", "model")) not in found, "batches tell that"


def test_batches_are_counted(metrics):
    metrics.on_batch("yolo", 4, 0.5)
    metrics.on_batch("yolo", 1, 0.25)
    found = values(metrics)
    assert found["frames_total", ("model", "yolo")] == 5
    assert found["batch_size_count", ("model", "yolo")] == 2
    assert found["batch_size_bucket", ("le", "1.0"), ("model", "yolo")] == 1
    assert found["stage_seconds_total", ("model", "yolo"), ("stage", "model")] == 0.75


def test_names_that_callers_make_up_do_not_become_series(metrics):
    activity = Activity(on_end=metrics.on_end)
    for number in range(50):
        with activity.begin("gateway", "detect", f"made-up-{number}", "a frame"):
            pass
    labels = sorted({"door": "gateway", "kind": "detect", "model": "other", "outcome": "done"}.items())
    assert values(metrics)["requests_total", *labels] == 50
    assert "made-up" not in metrics.text().decode()


def test_what_is_now_is_read_when_somebody_asks(metrics, tmp_path):
    load = Loader()
    load.memory["x:yolo"] = 1000
    models = [ModelSettings("yolo", "x:yolo"), ModelSettings("sam", "x:sam")]
    with make_shared("http://cvat.test", models, folder=tmp_path, load=load) as shared:
        doors = [SimpleNamespace(name="queue", health=lambda: DoorHealth(False, "cannot reach the server"))]
        metrics.watch(Now(shared, lambda: doors, list, 1234.0))
        with shared.pool.use("yolo"), shared.lanes.batch.claim(), shared.activity.begin("queue", "x", "yolo", "task 1"):
            shared.embeddings.get(("sam", 1), lambda: bytes(100))
            found = values(metrics)
        assert found["model_state", ("model", "yolo"), ("state", "ready")] == 1
        assert found["model_state", ("model", "yolo"), ("state", "unloaded")] == 0
        assert found["model_state", ("model", "sam"), ("state", "unloaded")] == 1
        assert found["model_memory_bytes", ("model", "yolo")] == 1000
        assert found["model_users", ("model", "yolo")] == 1
        assert found["model_loads_total", ("model", "yolo")] == 1
        assert found["model_load_seconds_total", ("model", "sam")] == 0
        assert found["queue_depth", ("model", "yolo")] == 0
        assert found["lane_taken", ("lane", "batch")] == 1
        assert found["lane_places", ("lane", "interactive")] == 8
        assert found["requests_running",] == 1
        assert found["embeddings_bytes",] >= 100
        assert found["embeddings_limit_bytes",] == 512 * 2**20
        assert found["door_healthy", ("door", "queue")] == 0
        assert found["resident_bytes",] > 10**6
        assert found["start_time_seconds",] == 1234
        found = values(metrics)
        assert (found["requests_running",], found["lane_taken", ("lane", "batch")]) == (0, 0)


def test_every_metric_is_documented_and_no_other(metrics, tmp_path):
    with make_shared("http://cvat.test", [ModelSettings("yolo", "x:yolo")], folder=tmp_path, load=Loader()) as shared:
        metrics.watch(Now(shared, list, list, 0.0))
        families = text_string_to_metric_families(metrics.text().decode())
        there = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    page = (Path(__file__).resolve().parents[2] / "docs" / "service.md").read_text()
    told = set(re.findall(r"`(cvat_sidecar_\w+)`", page))
    assert told == there


def test_nothing_but_our_own(metrics, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "secret-word-1")
    text = metrics.text().decode()
    assert all(line.startswith(("#", "cvat_sidecar_")) for line in text.splitlines())
    assert os.environ["CVAT_ACCESS_TOKEN"] not in text
    assert 'cvat_sidecar_build_info{version="' in text

"""Replies of functions: the sandbox does with each of them what a real CVAT server did."""

import json
from pathlib import Path

import pytest

from agent.sandbox import Sandbox
from tests.support.dashboard import Dashboard
from tests.support.tasks import Client, drawn

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "contract" / "nuclio"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="needs the contract kit in shared/ beside the project")
TABLE = json.loads((RECORDED / "accepted-and-refused.json").read_text()) if RECORDED.is_dir() else {"rows": []}
FUNCTIONS = {
    "detector": "fake-detector",
    "interactor": "fake-interactor",
    "tracker": "fake-tracker",
    "legacy tracker": "fake-legacy-tracker",
    "reid": "fake-reid",
}


class Place:
    """A sandbox with the task of the recordings: three pictures of 48x32."""

    def __init__(self, client, dashboard):
        labels = [
            {"name": "person", "type": "rectangle"},
            {
                "name": "car",
                "type": "any",
                "attributes": [
                    {
                        "name": "color",
                        "input_type": "select",
                        "values": ["red", "blue"],
                        "default_value": "red",
                        "mutable": False,
                    }
                ],
            },
            {"name": "cat", "type": "mask"},
            {"name": "scene", "type": "tag"},
            {
                "name": "pose",
                "type": "skeleton",
                "svg": "",
                "sublabels": [{"name": "head", "type": "points"}, {"name": "foot", "type": "points"}],
            },
        ]
        files = [(f"{n}.png", drawn("PNG", (48, 32), n)) for n in range(3)]
        self.client, self.dashboard = client, dashboard
        self.task = client.task(files, labels=labels)
        found = client.get("/api/labels", params={"task_id": self.task}).json()["results"]
        ids = {x["name"]: x["id"] for label in found for x in [label, *label["sublabels"]]}
        self.ids = {TABLE["label_ids"][name]: ids[name] for name in ids}
        self.specs = {TABLE["attribute_ids"]["color"]: found[1]["attributes"][0]["id"]}
        self.person = ids["person"]

    def ours(self, value, key=""):
        """A recorded value with the ids of this task."""
        if isinstance(value, dict):
            return {k: self.ours(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.ours(v, key) for v in value]
        return {"label_id": self.ids, "spec_id": self.specs}.get(key, {}).get(value, value)


@pytest.fixture(scope="module")
def place():
    with (
        Dashboard(seconds=0) as dashboard,
        Sandbox({"bot": "secret"}, nuclio=dashboard.url) as sandbox,
        Client(sandbox, "bot", "secret") as client,
    ):
        yield Place(client, dashboard)


def signed_out(value):
    """States without time and signature."""
    if isinstance(value, dict) and "states" in value:
        shown = [s.rsplit(":", 2)[0] + ":{time}:{signature}" for s in value["states"]]
        return {**value, "states": shown}
    return value


@pytest.mark.parametrize(
    "row",
    [row for row in TABLE["rows"] if row["kind"] != "reid"],
    ids=lambda row: f"{row['kind']}: {row['case']}",
)
def test_direct_call(place, row):
    name = FUNCTIONS[row["kind"]]
    reply = row["reply_text"].encode() if "reply_text" in row else row["reply"]
    place.dashboard.replies = {name: reply}
    body = {"task": place.task, "frame": 0, **row["call"]}
    answer = place.client.post(f"/api/lambda/functions/{name}", json=body)
    if row["cvat"] in ("400", "500"):
        assert answer.status_code == int(row["cvat"]), answer.text
        if row["cvat"] == "400":
            assert answer.json() == row["answer"]
        else:
            assert "html" in answer.headers["content-type"]
        return
    assert answer.status_code == 200, answer.text
    got, wanted = answer.json(), row["answer"]
    if row["kind"] == "detector":
        got = {kind: got[kind] for kind in ("tags", "shapes")}
        wanted = place.ours(wanted)
    if isinstance(wanted, dict) and isinstance(wanted.get("mask"), str):
        assert [len(r) for r in got["mask"]] == [48] * 32
        return
    assert signed_out(got) == wanted


@pytest.mark.parametrize("row", [row for row in TABLE["rows"] if row["kind"] == "reid"], ids=lambda row: row["case"])
def test_reid(place, row):
    client, path = place.client, f"/api/tasks/{place.task}/annotations"
    boxes = [
        {"type": "rectangle", "label_id": place.person, "frame": frame, "points": [x + frame, 10, x + 10 + frame, 20]}
        for frame in range(3)
        for x in (5, 25)
    ]
    client.put(path, json={"shapes": boxes})
    place.dashboard.replies = {"fake-reid": row["reply"]}
    order = {"function": "fake-reid", "task": place.task, "threshold": 0.5, "max_distance": 50, "cleanup": False}
    ended = client.lambda_request(order)
    after = client.get(path).json()
    tracks = [{"frame": t["frame"], "keyframes": [s["frame"] for s in t["shapes"]]} for t in after["tracks"]]
    wanted = row["answer"]["annotations_after"]
    assert ended["status"] == ("finished" if row["cvat"] == "accepted" else "failed")
    if row["answer"]["exc_info"]:
        assert row["answer"]["exc_info"].partition(":")[0] in ended["exc_info"]
    assert {"shapes": len(after["shapes"]), "tracks": tracks} == wanted


def test_what_a_detector_is_sent(place):
    place.dashboard.replies, place.dashboard.calls = {}, []
    place.client.post("/api/lambda/functions/fake-detector", json={"task": place.task, "frame": 0, "threshold": 0.5})
    (call,) = place.dashboard.calls
    recorded = json.loads((RECORDED / "detector-invoke-dashboard.json").read_text())
    (asked,) = [x["request"] for x in recorded["exchanges"] if x["request"]["method"] == "POST"]
    assert set(call.payload) == set(asked["body"])
    wanted = {k.lower() for k in asked["headers"]} - {"accept-encoding", "connection"}
    assert wanted <= set(call.headers)
    assert call.headers["x-nuclio-function-name"] == "fake-detector"


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 502])
def test_error_of_a_function_keeps_its_status(place, status):
    place.dashboard.statuses = {"fake-detector": status}
    answer = place.client.post("/api/lambda/functions/fake-detector", json={"task": place.task, "frame": 0})
    place.dashboard.statuses = {}
    assert answer.status_code == status
    assert answer.json().startswith(f"{status} {'Client' if status < 500 else 'Server'} Error")


def test_a_function_of_unknown_kind_is_left_out_of_the_list_and_an_error_by_itself(place):
    listed = [function["id"] for function in place.client.get("/api/lambda/functions").json()]
    assert "fake-broken" not in listed
    assert place.client.get("/api/lambda/functions/fake-broken").status_code == 500


def test_a_dead_dashboard_is_503():
    with Sandbox({"bot": "secret"}, nuclio="http://127.0.0.1:9") as sandbox, Client(sandbox, "bot", "secret") as client:
        assert client.get("/api/lambda/functions").status_code == 503


def test_direct_mode_calls_the_function_at_its_own_port():
    with (
        Dashboard(seconds=0) as dashboard,
        Sandbox({"bot": "secret"}, nuclio=dashboard.url, invoke="direct") as sandbox,
        Client(sandbox, "bot", "secret") as client,
    ):
        task = client.task([("0.png", drawn("PNG", (200, 150)))], labels=[{"name": "car"}])
        answer = client.post("/api/lambda/functions/fake-detector", json={"task": task, "frame": 0})
        assert [shape["type"] for shape in answer.json()["shapes"]] == ["rectangle"]
        (call,) = dashboard.calls
        assert not [name for name in call.headers if name.startswith("x-")]


def test_a_cancelled_request_comes_back_as_finished_with_what_it_had_found(place):
    client, dashboard = place.client, place.dashboard
    task = client.task([(f"{n:02}.png", drawn("PNG", (200, 150), n)) for n in range(20)], labels=[{"name": "car"}])
    dashboard.replies, dashboard.seconds, dashboard.calls = {}, 0.05, []
    made = client.post("/api/lambda/requests", json={"function": "fake-detector", "task": task}).json()
    path = f"/api/lambda/requests/{made['id']}"
    client.until(path, lambda answer: (answer.json()["progress"] or 0) > 10)
    assert client.delete(path).status_code == 204
    found = client.until(path, lambda answer: answer.status_code == 200)
    dashboard.seconds = 0
    assert found["status"] == "finished"
    assert 0 < found["progress"] < 100
    assert 0 < len(client.get(f"/api/tasks/{task}/annotations").json()["shapes"]) < 20


def test_a_failing_function_fails_the_request_and_cleanup_has_been_done(place):
    client, path = place.client, f"/api/tasks/{place.task}/annotations"
    box = {"type": "rectangle", "label_id": place.person, "frame": 0, "points": [1, 2, 3, 4]}
    client.put(path, json={"shapes": [box]})
    place.dashboard.statuses = {"fake-detector": 500}
    ended = client.lambda_request({"function": "fake-detector", "task": place.task, "cleanup": True})
    place.dashboard.statuses = {}
    assert ended["status"] == "failed"
    assert client.get(path).json()["shapes"] == []
    assert ended["id"] not in [r["id"] for r in client.get("/api/lambda/requests").json()]

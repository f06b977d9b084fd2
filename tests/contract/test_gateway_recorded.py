"""The very requests that a real CVAT 2.73 sent, and replies of the forms that it accepted."""

import json
import math
from pathlib import Path

import httpx
import numpy as np
import pytest

from agent.contract import (
    Attribute,
    Detection,
    Ellipse,
    Keypoint,
    Label,
    Mask,
    Polygon,
    PromptNeeds,
    Rectangle,
    Skeleton,
)
from agent.sandbox.lambda_functions import view
from tests.support.gateway import Describer, Watched, free_port, staged
from tests.support.models import Clicker, Follower

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "contract" / "nuclio"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="needs the contract kit in shared/ beside the project")

COLOUR = Attribute("color", "select", ("red", "blue"))
LABELS = [
    Label("person", "rectangle"),
    Label("car", "rectangle", (COLOUR,)),
    Label("cat", "mask"),
    Label("scene", "tag"),
    Label("pose", "skeleton", sublabels=(Label("head", "points"), Label("foot", "points"))),
]
NUMBERS = {"rectangle": {4}, "ellipse": {4}, "cuboid": {16}, "polygon": range(6, 10**6), "polyline": range(4, 10**6)}


def find(frame, context):
    """What the recorded function found, as far as our contract lets a model say it."""
    bitmap = np.array([[0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]], bool)
    return [
        Detection("car", Rectangle(5.5, 4.0, 30.0, 20.5), 0.91, {"color": "blue"}),
        Detection("person", Rectangle(30, 6, 44, 28, 12.5), 0.55),
        Detection("cat", Mask(bitmap, 10, 8), 0.77),
        Detection("cat", Polygon((1, 1, 12, 3, 6, 14)), 0.6),
        Detection("scene", None, 0.99),
        Detection("pose", Skeleton((Keypoint("head", 20, 5),)), 0.5, group=7),
    ]


class Reader(Clicker):
    needs = PromptNeeds(positive=1, negative=0, box="optional", texts=True)
    help_message = "help"


@pytest.fixture(scope="module")
def stage():
    models = {
        "fake-detector": Watched(labels=LABELS, find=find),
        "fake-interactor": Reader(),
        "fake-tracker": Follower(("rectangle", "mask")),
        "fake-legacy-tracker": Follower(),
        "fake-reid": Describer(),
    }
    with staged(models, direct_ports=free_port(len(models)), score_attribute="") as found:
        yield found


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def replayed(stage, exchange, function, body=None):
    """Our answer to a recorded request; what stood for a host in it is ours."""
    request = exchange["request"]
    headers = {k: v for k, v in request["headers"].items() if k not in ("Host", "Content-Length")}
    content = None if request["body"] is None else json.dumps(body or request["body"]).encode()
    base = httpx.URL(stage.gateway.url)
    if request["path"] == "/":
        base = base.copy_with(port=stage.http.get(f"/api/functions/{function}").json()["status"]["httpPort"])
    return stage.http.request(request["method"], base.join(request["path"]), headers=headers, content=content)


def invocations(name):
    """(exchange, the function that it calls) of a recording."""
    found = recorded(name)
    function = found["exchanges"][0]["request"]["path"].rpartition("/")[2]
    return [(x, function) for x in found["exchanges"] if x["request"]["method"] == "POST"]


def test_listing(stage):
    (exchange,) = recorded("list-functions")["exchanges"]
    answer = replayed(stage, exchange, "")
    assert answer.headers["content-type"] == "application/json"
    theirs = {row["id"]: row for row in recorded("list-functions")["cvat_answer"]["json"]}
    shown = {name: view(function) for name, function in answer.json().items()}
    assert {name: row["kind"] for name, row in shown.items()} == {n: row["kind"] for n, row in theirs.items()}
    for name, row in shown.items():
        assert row.keys() == theirs[name].keys(), name
        annotations = answer.json()[name]["metadata"]["annotations"]
        assert all(isinstance(value, str) for value in annotations.values())
    interactor = {**shown["fake-interactor"], "name": "", "description": "", "animated_gif": "", "startswith_box": True}
    assert interactor == {**theirs["fake-interactor"], "name": "", "description": "", "animated_gif": ""}


def test_one_function(stage):
    (exchange,) = recorded("get-function")["exchanges"]
    shown = view(replayed(stage, exchange, "").json())
    theirs = recorded("get-function")["cvat_answer"]["json"]
    plain = [{k: v for k, v in label.items() if k != "svg"} for label in shown["labels_v2"]]
    assert plain == [{k: v for k, v in label.items() if k != "svg"} for label in theirs["labels_v2"]]
    assert shown["version"] == theirs["version"]


def test_an_unknown_function(stage):
    (exchange,) = recorded("get-function-unknown")["exchanges"]
    answer = replayed(stage, exchange, "")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


@pytest.mark.parametrize(
    "name", ["detector-invoke", "detector-invoke-dashboard", "detector-invoke-png-mapping", "detector-invoke-roi"]
)
def test_detectors(stage, name):
    ((exchange, function),) = invocations(name)
    answer = replayed(stage, exchange, function)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    items = answer.json()
    theirs = {item["label"]: item for item in recorded("detector-invoke")["exchanges"][1]["reply"]["body"]}
    if name != "detector-invoke-roi":  # there the model's shapes are clipped to the smaller picture
        assert [item["label"] for item in items] == ["car", "person", "cat", "cat", "scene", "pose"]
        assert items[0]["attributes"] == [{"name": "color", "value": "blue"}]
        assert items[1]["rotation"] == theirs["person"]["rotation"]
        assert items[2]["mask"] == theirs["cat"]["mask"]
    for item in items:
        check_item(item)


def check_item(item):
    """The form of the table of 90 replies that were tried on a real server."""
    assert {"label", "type"} <= item.keys() <= {
        "label", "type", "points", "mask", "rotation", "attributes", "group_id", "elements", "confidence",
    }  # fmt: skip
    assert item["label"] in {label.name for label in LABELS}
    points = item.get("points", [])
    assert all(isinstance(number, int | float) and math.isfinite(number) for number in points)
    if item["type"] in NUMBERS:
        assert len(points) in NUMBERS[item["type"]]
    if item["type"] == "mask":
        *bits, left, top, right, bottom = item["mask"]
        assert len(bits) == (right - left + 1) * (bottom - top + 1)
        assert set(bits) <= {0, 1}
        assert len(points) >= 6
        assert len(points) % 2 == 0
    if item["type"] == "skeleton":
        assert all(element["type"] == "points" and len(element["points"]) == 2 for element in item["elements"])
    for attribute in item.get("attributes", []):
        assert isinstance(attribute["name"], str)
        assert isinstance(attribute["value"], str)
    assert isinstance(item.get("group_id", 0), int)


@pytest.mark.parametrize("name", ["interactor-invoke", "interactor-invoke-text"])
def test_interactors(stage, name):
    ((exchange, function),) = invocations(name)
    answer = replayed(stage, exchange, function)
    assert answer.status_code == 200, answer.text
    (shape,) = answer.json()["shapes"]
    *runs, left, top, right, bottom = shape["points"]
    assert shape["type"] == "mask"
    assert sum(runs) == (right - left + 1) * (bottom - top + 1)
    assert shape["attributes"] == [{"spec_id": 0, "value": "0.93"}]


@pytest.mark.parametrize("name", ["tracker", "tracker-legacy"])
def test_trackers(stage, name):
    ((init, function),) = invocations(f"{name}-init")
    ((following, _),) = invocations(f"{name}-continue")
    begun = replayed(stage, init, function)
    assert begun.status_code == 200, begun.text
    assert begun.json().keys() == init["reply"]["body"].keys()
    assert begun.json()["shapes"] == init["reply"]["body"]["shapes"]
    # The states are the function's own; those of another one are refused.
    assert replayed(stage, following, function).status_code == 400
    body = {**following["request"]["body"], "states": begun.json()["states"]}
    answer = replayed(stage, following, function, body)
    assert answer.status_code == 200, answer.text
    assert form(answer.json()["shapes"]) == form(following["reply"]["body"]["shapes"])
    assert len(answer.json()["states"]) == len(following["reply"]["body"]["states"])


def form(value):
    """Types, and the lengths of lists."""
    if isinstance(value, dict):
        return {key: form(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [form(inner) for inner in value]
    return "number" if isinstance(value, int | float) else value


def test_reidentifiers(stage):
    for exchange, function in invocations("reid-invoke"):
        answer = replayed(stage, exchange, function)
        assert answer.status_code == 200, answer.text
        body, found = exchange["request"]["body"], answer.json()
        assert len(found) == len(body["boxes0"])
        matched = [place for place in found if place != -1]
        assert len(set(matched)) == len(matched)
        assert all(0 <= place < len(body["boxes1"]) for place in matched)


def test_a_shape_of_each_kind_is_of_an_accepted_form():
    shapes = [
        Rectangle(1, 2, 30, 20),
        Ellipse(20, 15, 10, 10, 10),
        Polygon((1, 1, 5, 5, 9, 1)),
        Mask(np.ones((3, 3), bool), 1, 1),
        Skeleton((Keypoint("head", 1, 2), Keypoint("foot", 3, 4, outside=True))),
    ]
    labels = [Label("car"), LABELS[4]]

    def give(frame, context):
        return [Detection("pose" if s.type == "skeleton" else "car", s, 0.5, group=1) for s in shapes]

    with staged({"fake-detector": Watched(labels=labels, find=give)}) as stage:
        ((exchange, function),) = invocations("detector-invoke-dashboard")
        items = replayed(stage, exchange, function).json()
    assert [item["type"] for item in items] == [shape.type for shape in shapes]
    assert len({item["group_id"] for item in items}) == 1
    for item in items:
        check_item(item)

"""CVAT's own menus against the gateway: listing, and calls of each kind, through the sandbox's lambda API."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from agent.contract import (
    Attribute,
    Cuboid,
    Detection,
    Ellipse,
    Keypoint,
    Label,
    Mask,
    Points,
    Polygon,
    Polyline,
    PromptNeeds,
    Rectangle,
    Skeleton,
)
from agent.settings.tables import ModelSettings
from tests.support.doors import shared
from tests.support.gateway import Describer, free_port, image_of, opened, staged
from tests.support.material import picture_bytes
from tests.support.models import Clicker, Finder, Follower, loader
from tests.support.tasks import Client, drawn

SIZE = (320, 240)
HEAD, FOOT = Label("head", "points"), Label("foot", "points", (Attribute("side", "select", ("left", "right")),))
LABELS = (
    Label("any"),
    Label("colourful", "rectangle", (Attribute("colour", "select", ("red", "blue")),)),
    Label("pose", "skeleton", sublabels=(HEAD, FOOT)),
    Label("scene", "tag"),
    Label("outline", "polygon"),
    Label("area", "mask"),
)
BITMAP = np.ones((10, 20), bool)
BITMAP[:3, :4] = False


def files(count, size=SIZE):
    return [(f"{number:03}.jpg", picture_bytes(number, size=size)) for number in range(count)]


def task_labels(**more):
    """The function's labels, as a task has them; each with an attribute for the score."""
    score = {"name": "score", "input_type": "number", "values": ["0", "100", "1"], "mutable": False}
    colour = {"name": "colour", "input_type": "select", "values": ["red", "blue"], "mutable": False}
    side = {"name": "side", "input_type": "select", "values": ["left", "right"], "mutable": False}
    sublabels = [{"name": "head", "type": "points"}, {"name": "foot", "type": "points", "attributes": [side]}]
    found = [
        {"name": "any", "type": "any", "attributes": [score]},
        {"name": "colourful", "type": "rectangle", "attributes": [colour, score]},
        {"name": "pose", "type": "skeleton", "svg": "", "sublabels": sublabels, "attributes": [score]},
        {"name": "scene", "type": "tag"},
        {"name": "outline", "type": "polygon"},
        {"name": "area", "type": "mask"},
    ]
    return [{**label, **more} for label in found]


def everything(frame, context):
    """A detection of each kind."""
    box = Rectangle(10, 20, 50.123, 60)
    points = [Keypoint("head", 30, 30), Keypoint("foot", 35, 80, attributes={"side": "left"})]
    return [
        Detection("any", box, 0.876),
        Detection("any", replace(box, rotation=372.5), 0.5),
        Detection("any", Ellipse(100, 80, 20, 10, 30), 0.5),
        Detection("any", Polygon((5, 5, 60, 5, 60, 60)), 0.5, group=3),
        Detection("any", Polyline((5, 5, 60, 5)), 0.5, group=3),
        Detection("any", Points((5, 6, 7, 8)), 0.5),
        Detection("any", Cuboid(tuple(float(number) for number in range(20, 36))), 0.5),
        Detection("any", Mask(BITMAP, 40, 50), 0.5),
        Detection("any", None, 0.25),
        Detection("colourful", box, 1.0, {"colour": "blue"}),
        Detection("pose", Skeleton(tuple(points)), 0.3),
        Detection("scene", None),
        Detection("outline", Mask(BITMAP, 40, 50)),
        Detection("area", Polygon((40, 50, 60, 50, 60, 60, 40, 60))),
    ]


@pytest.fixture(scope="module")
def stage():
    models = {
        "finder": Finder(),
        "everything": Finder(labels=LABELS, find=everything),
        "clicker": Clicker(),
        "follower": Follower(("rectangle", "mask")),
        "describer": Describer(),
    }
    with staged(models) as found:
        yield found


@pytest.fixture(scope="module")
def client(stage):
    with Client(stage.sandbox, "bot", "secret") as found:
        yield found


def call(client, function, **body):
    answer = client.post(f"/api/lambda/functions/{function}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_type(found):
    return {shape["type"]: shape for shape in found}


def test_functions_are_listed_as_cvat_shows_them(client):
    listed = {row["id"]: row for row in client.get("/api/lambda/functions").json()}
    assert {name: (row["kind"], row["version"]) for name, row in listed.items()} == {
        "finder": ("detector", 2),
        "everything": ("detector", 2),
        "clicker": ("interactor", 2),
        "follower": ("tracker", 2),
        "describer": ("reid", 2),
    }
    assert client.get("/api/lambda/functions/finder").json() == listed["finder"]
    score = {"name": "score", "input_type": "number", "values": ["0", "100", "1"]}
    assert listed["finder"]["labels_v2"] == [{"name": "thing", "type": "rectangle", "attributes": [score]}]
    pose = {label["name"]: label for label in listed["everything"]["labels_v2"]}["pose"]
    assert [sub["name"] for sub in pose["sublabels"]] == ["head", "foot"]
    assert pose["svg"].count("data-label-name") == 2
    clicker = listed["clicker"]
    assert (clicker["min_pos_points"], clicker["min_neg_points"]) == (0, 0)
    assert (clicker["startswith_box"], clicker["startswith_box_optional"]) == (False, True)
    assert listed["follower"]["supported_shape_types"] == ["rectangle", "mask"]


def test_a_skeletons_drawing_makes_a_label_of_a_task(client):
    pose = client.get("/api/lambda/functions/everything").json()["labels_v2"][2]
    labels = [{"name": "p", "type": "skeleton", "svg": pose["svg"], "sublabels": pose["sublabels"]}]
    task = client.task(files(1), labels=labels)
    (label,) = client.get("/api/labels", params={"task_id": task}).json()["results"]
    assert all(f'data-label-id="{sub["id"]}"' in label["svg"] for sub in label["sublabels"])


def test_an_unknown_function(client):
    assert client.get("/api/lambda/functions/nobody").status_code == 404


def test_a_task_is_annotated_in_the_background(client):
    task = client.task(files(5))
    ended = client.lambda_request({"function": "finder", "task": task})
    assert ended["status"] == "finished", ended
    shapes = client.get(f"/api/tasks/{task}/annotations").json()["shapes"]
    assert sorted((shape["frame"], shape["points"]) for shape in shapes) == [
        (number, [number, 20.0, number + 30, 50.0]) for number in range(5)
    ]


def test_a_part_of_a_frame(client):
    task = client.task(files(1))
    (shape,) = call(client, "finder", task=task, frame=0, roi=[100, 50, 300, 200])["shapes"]
    assert shape["points"][1::2] == [70, 100]


def test_shapes_of_all_kinds_arrive(client):
    task = client.task(files(1), labels=task_labels())
    ids = client.labels(task)
    found = call(client, "everything", task=task, frame=0)
    shapes = [shape for shape in found["shapes"] if shape["label_id"] == ids["any"]]
    one = by_type(shapes)
    rectangles = [shape for shape in shapes if shape["type"] == "rectangle"]
    assert [(shape["points"], shape["rotation"]) for shape in rectangles] == [
        ([10, 20, 50.12, 60], 0),
        ([10, 20, 50.12, 60], 12.5),
    ]
    assert (one["ellipse"]["points"], one["ellipse"]["rotation"]) == ([100, 80, 120, 70], 30)
    assert one["polyline"]["points"] == [5, 5, 60, 5]
    assert one["points"]["points"] == [5, 6, 7, 8]
    assert one["cuboid"]["points"] == list(range(20, 36))
    assert one["polygon"]["group"] == one["polyline"]["group"] != 0
    assert one["points"]["group"] == 0
    assert one["mask"]["points"] == [4, 16, 4, 16, 4, 156, 40, 50, 59, 59]
    rest = {shape["label_id"]: shape for shape in found["shapes"] if shape["label_id"] != ids["any"]}
    head, foot = rest[ids["pose"]]["elements"]
    assert (head["points"], foot["points"], foot["label_id"]) == ([30, 30], [35, 80], ids["foot"])
    assert [value["value"] for value in foot["attributes"]] == ["left"]
    assert (rest[ids["outline"]]["type"], rest[ids["area"]]["type"]) == ("polygon", "mask")
    assert [tag["label_id"] for tag in found["tags"]] == [ids["any"], ids["scene"]]


def test_masks_as_polygons_where_the_person_wants_them(client):
    task = client.task(files(1), labels=task_labels())
    found = call(client, "everything", task=task, frame=0, conv_mask_to_poly=True)
    ids = client.labels(task)
    polygons = [s for s in found["shapes"] if s["type"] == "polygon" and s["label_id"] == ids["any"]]
    assert "mask" not in {shape["type"] for shape in found["shapes"] if shape["label_id"] == ids["any"]}
    assert len(polygons) == 2
    assert min(polygons[1]["points"][0::2]) == 40


def test_the_score_comes_as_an_attribute_where_the_task_has_one(client):
    scored, plain = (
        client.task(files(1), labels=task_labels()),
        client.task(files(1), labels=task_labels(attributes=[])),
    )
    specs = {
        (label["name"], spec["name"]): spec["id"]
        for label in client.get("/api/labels", params={"task_id": scored}).json()["results"]
        for spec in label["attributes"]
    }
    shapes = call(client, "everything", task=scored, frame=0)["shapes"]
    assert shapes[0]["attributes"] == [{"spec_id": specs["any", "score"], "value": "88"}]
    colourful = next(shape for shape in shapes if len(shape["attributes"]) == 2)
    assert {a["spec_id"]: a["value"] for a in colourful["attributes"]} == {
        specs["colourful", "colour"]: "blue",
        specs["colourful", "score"]: "100",
    }
    without = call(client, "everything", task=plain, frame=0)["shapes"]
    assert len(without) == len(shapes)
    assert not any(shape["attributes"] for shape in without)


def test_thresholds_the_calls_then_the_models(client, stage):
    task = client.task(files(1), labels=task_labels())
    count = len(call(client, "everything", task=task, frame=0)["shapes"])
    assert len(call(client, "everything", task=task, frame=0, threshold=0.8)["shapes"]) == count - 8
    model = ModelSettings("strict", "test:m", threshold=0.99)
    load = loader({"m": Finder(labels=LABELS, find=everything)})
    with shared(stage.sandbox, [model], load=load, gateway=stage.shared.config.gateway) as parts:
        parts = replace(parts, config=replace(parts.config, gateway=replace(parts.config.gateway, port=free_port())))
        with opened(parts) as gateway:
            body = {"image": image_of(picture_bytes(0))}
            headers = {"x-nuclio-function-name": "strict"}
            asked = [
                stage.http.post(f"{gateway.url}/api/function_invocations", json={**body, **more}, headers=headers)
                for more in ({}, {"threshold": 0.8})
            ]
    assert [sum(1 for item in answer.json() if "confidence" in item) for answer in asked] == [1, 2]


def test_what_cvat_would_refuse_never_leaves(stage):
    nan, far = float("nan"), 1e9
    shapes = [
        Rectangle(nan, 0, 5, 5),
        Rectangle(5, 5, 5, 9),
        Rectangle(400, 300, 500, 400),
        Rectangle(-far, -far, far, far),
        Polygon((nan, 1, 2, 3, 4, 5)),
        Mask(np.zeros((4, 4), bool)),
        Mask(np.ones((50, 50), bool), 300, 220),
        Skeleton((Keypoint("head", -5, -5), Keypoint("foot", 1000, 1000))),
    ]
    labels = [Label("any"), LABELS[2]]

    def find(frame, context):
        return [Detection("pose" if s.type == "skeleton" else "any", s, 0.5) for s in shapes]

    with staged({"odd": Finder(labels=labels, find=find)}) as other:
        answer = other.call("odd", {"image": image_of(picture_bytes(0))})
    assert answer.status_code == 200
    assert "NaN" not in answer.text
    whole, mask = answer.json()
    assert whole["points"] == [0, 0, 320, 240]
    assert mask["mask"] == [*[1] * (20 * 20), 300, 220, 319, 239]


@pytest.mark.parametrize("wrong", [{"pos_points": "abc"}, {"neg_points": [[1]]}, {"obj_bbox": [["1", 2], [3, 4]]}])
def test_points_that_are_none_are_the_callers_mistake(client, wrong):
    asked = {"task": client.task(files(1)), "frame": 0, "pos_points": [[1, 2]], "neg_points": [], **wrong}
    answer = client.post("/api/lambda/functions/clicker", json=asked)
    assert (answer.status_code, next(iter(wrong)) in answer.text) == (400, True)
    assert "Traceback" not in answer.text


def test_an_interactor_answers_clicks_and_boxes_with_masks(client):
    task = client.task(files(2))
    job = client.jobs(task)[0]["id"]
    asked = {"job": job, "frame": 1, "neg_points": []}
    (shape,) = call(client, "clicker", **asked, pos_points=[[100.5, 60.2]])["shapes"]
    # 100.5 is rounded to the even 100; a square of 10 pixels around it.
    assert shape == {
        "type": "mask",
        "points": [0, 100, 95, 55, 104, 64],
        "attributes": [{"spec_id": 0, "value": "0.93"}],
    }
    (boxed,) = call(client, "clicker", **asked, pos_points=[], obj_bbox=[[40, 50], [20, 10]])["shapes"]
    assert boxed["points"] == [0, 800, 20, 10, 39, 49]
    (moved,) = call(client, "clicker", **asked, pos_points=[[100, 60]], roi=[50, 50, 200, 200])["shapes"]
    assert moved["points"][-4:] == [95, 55, 104, 64]


def test_a_picture_is_embedded_once_for_all_clicks():
    clicker = Clicker()
    with staged({"clicker": clicker}) as other, Client(other.sandbox, "bot", "secret") as person:
        task = person.task([("one.jpg", picture_bytes(77)), ("two.jpg", picture_bytes(78))])
        for frame in (0, 0, 1, 0):
            call(person, "clicker", task=task, frame=frame, pos_points=[[50, 50]], neg_points=[[1, 1]])
    assert len(clicker.embedded) == 2
    assert clicker.prompts[0].negative == ((1.0, 1.0),)


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        (PromptNeeds(1, None, "no"), {"min_pos_points": 1, "min_neg_points": -1, "startswith_box": False}),
        (PromptNeeds(0, 0, "required"), {"startswith_box": True, "startswith_box_optional": False}),
        (
            PromptNeeds(0, 2, "optional"),
            {"min_neg_points": 2, "startswith_box": False, "startswith_box_optional": True},
        ),
    ],
)
def test_what_has_to_be_marked_is_told(needs, told):
    with staged({"clicker": Clicker(needs)}) as stage, Client(stage.sandbox, "bot", "secret") as client:
        shown = client.get("/api/lambda/functions/clicker").json()
    assert told.items() <= shown.items()


def test_a_tracker_follows_shapes_and_loses_them(client):
    task = client.task(files(4))
    job = client.jobs(task)[0]["id"]
    shapes = [{"type": "rectangle", "points": [10, 10, 30, 25]}, {"type": "rectangle", "points": [59, 2, 80, 8]}]
    begun = call(client, "follower", job=job, frame=0, shapes=shapes)
    assert begun["shapes"] == shapes
    followed = call(client, "follower", job=job, frame=1, states=begun["states"])
    assert [shape["points"] for shape in followed["shapes"]] == [[11, 11, 31, 26], [60, 3, 81, 9]]
    further = call(client, "follower", job=job, frame=2, states=followed["states"])
    assert further["shapes"] == [{"type": "rectangle", "points": [12, 12, 32, 27]}, None]
    # Part of the states, in another order: each is good by itself.
    last = call(client, "follower", job=job, frame=3, states=further["states"][:1])
    assert last["shapes"][0]["points"] == [13, 13, 33, 28]


def test_a_tracker_of_an_old_server(stage):
    image = image_of(picture_bytes(0))
    begun = stage.call("follower", {"image": image, "shapes": [[10, 10, 30, 25]], "states": []}).json()
    assert begun["shapes"] == [[10, 10, 30, 25]]
    followed = stage.call("follower", {"image": image, "shapes": [None], "states": begun["states"]}).json()
    assert followed["shapes"] == [[11, 11, 31, 26]]


def test_a_track_goes_on_after_a_restart(tmp_path):
    image = image_of(picture_bytes(0))
    shapes = [{"type": "rectangle", "points": [10, 10, 30, 25]}]
    with staged({"follower": Follower()}, shared={"folder": tmp_path}) as stage:
        begun = stage.call("follower", {"image": image, "shapes": shapes, "states": []}).json()
    with staged({"follower": Follower()}, shared={"folder": tmp_path}) as stage:
        followed = stage.call("follower", {"image": image, "shapes": [None], "states": begun["states"]})
        assert followed.json()["shapes"] == [{"type": "rectangle", "points": [11, 11, 31, 26]}]
        other = {"image": image_of(drawn("PNG", (100, 100))), "shapes": [None], "states": begun["states"]}
        refused = stage.call("follower", other)
        assert (refused.status_code, "tracker state" in refused.json()["message"]) == (400, True)


def test_rectangles_become_tracks(client):
    """Two squares of their own colour that pass each other: by place they would be exchanged."""
    pictures, boxes = [], []
    for frame in range(4):
        image = np.full((100, 200, 3), 100, np.uint8)
        places = [(20 + 40 * frame, 20, (250, 0, 0)), (140 - 40 * frame, 50, (0, 0, 250))]
        for x, y, colour in places:
            image[y : y + 20, x : x + 20] = colour
        pictures.append((f"{frame}.png", png(image)))
        boxes += [(frame, [x, y, x + 20, y + 20]) for x, y, _ in places]
    task = client.task(pictures)
    path = f"/api/tasks/{task}/annotations"
    label = client.labels(task)["thing"]
    shapes = [{"type": "rectangle", "label_id": label, "frame": frame, "points": points} for frame, points in boxes]
    assert client.put(path, json={"shapes": shapes}).status_code == 200
    ended = client.lambda_request({"function": "describer", "task": task, "threshold": 0.2, "max_distance": 60})
    assert ended["status"] == "finished", ended
    after = client.get(path).json()
    assert after["shapes"] == []
    lefts = [[shape["points"][0] for shape in track["shapes"] if not shape["outside"]] for track in after["tracks"]]
    assert sorted(lefts) == [[20, 60, 100, 140], [140, 100, 60, 20]]


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG")
    return out.getvalue()


def test_direct_mode_calls_each_model_at_its_own_port():
    first = free_port(3)
    models = {"one": Finder(), "two": Clicker()}
    with (
        staged(models, invoke="direct", direct_ports=first) as stage,
        Client(stage.sandbox, "bot", "secret") as client,
    ):
        functions = stage.http.get("/api/functions").json()
        assert [row["status"]["httpPort"] for row in functions.values()] == [first, first + 1]
        task = client.task(files(1))
        (shape,) = call(client, "one", task=task, frame=0)["shapes"]
        assert shape["points"] == [0, 20, 30, 50]
        assert call(client, "two", task=task, frame=0, pos_points=[[9, 9]], neg_points=[])["shapes"]
        assert stage.http.post("/", content=json.dumps({})).status_code == 400


def test_a_step_of_a_tracker_that_is_asked_again_is_taken_once():
    """The answer was lost on its way to CVAT, or to the browser."""
    follower, pictures = Follower(), [image_of(picture_bytes(number)) for number in range(3)]
    box = [{"type": "rectangle", "points": [10, 20, 30, 40]}]
    with staged({"follower": follower}) as stage:
        begun = stage.call("follower", {"image": pictures[0], "shapes": box, "states": []}).json()
        step = {"image": pictures[1], "shapes": [None], "states": begun["states"]}
        answers = [stage.call("follower", step) for _ in range(3)]
        assert {answer.content for answer in answers} == {answers[0].content}
        assert answers[0].json()["shapes"] == [{"type": "rectangle", "points": [11, 21, 31, 41]}]
        after = stage.call("follower", {**step, "image": pictures[2], "states": answers[0].json()["states"]}).json()
        assert after["shapes"] == [{"type": "rectangle", "points": [12, 22, 32, 42]}]
        assert len(follower.frames) == 3


def test_a_models_label_map_names_its_labels(tmp_path):
    good, bad = tmp_path / "map.toml", tmp_path / "bad.toml"
    good.write_text('[labels]\nany = "object"\ncolourful = false\n')
    bad.write_text("[labels]\nany = 5\n")
    models = [ModelSettings("good", "test:m", label_map=good), ModelSettings("bad", "test:m", label_map=bad)]
    finder = Finder(labels=LABELS, find=everything)
    with staged({"m": finder}) as stage, Client(stage.sandbox, "bot", "secret") as client:
        stage.shared.pool.replace(models, stage.shared.config.engine)
        stage.shared.pool.preload()
        (listed,) = client.get("/api/lambda/functions").json()
        assert [label["name"] for label in listed["labels_v2"]] == ["object", "pose", "scene", "outline", "area"]
        assert "not listed: bad: " in stage.gateway.health().text
        task = client.task(files(1), labels=[{"name": "object"}, {"name": "colourful"}])
        found = call(client, "good", task=task, frame=0)
        assert {shape["label_id"] for shape in found["shapes"]} == {client.labels(task)["object"]}
        refused = client.post("/api/lambda/functions/bad", json={"task": task, "frame": 0})
        assert refused.status_code == 404

"""Detectors behind the agent queue: whole tasks and single frames, from a person's order to CVAT's annotations."""

from dataclasses import replace

import numpy as np
import pytest

from agent.contract import Attribute, Detection, Keypoint, Label, Mask, Rectangle, Skeleton
from agent.settings.server import ServerSettings
from tests.support.material import make_image_task, make_video_task, picture_bytes
from tests.support.models import Finder
from tests.support.queue import FAST, serving
from tests.support.tasks import Client

THING = [{"name": "thing"}]


def left_edges(shapes):
    return [(shape["frame"], round(shape["points"][0])) for shape in shapes]


def params(task, kind="annotate_frame", **more):
    found = {"type": kind, "task": task, "mapping": {"thing": {"name": "thing"}}, "threshold": None}
    found |= {"conv_mask_to_poly": False, **({"frame": 0} if kind == "annotate_frame" else {})}
    return {**found, **more}


@pytest.mark.parametrize("make", ["pictures", "video"])
def test_a_task_is_annotated(sandbox, session, make):
    if make == "pictures":
        task = make_image_task(session, count=10, segment_size=4, labels=THING)
    else:
        task = make_video_task(session, frames=10, segment_size=6, overlap=2, labels=THING)
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        ended = served.ended(served.order(task))
        assert (ended["status"], ended["progress"], ended["exc_info"]) == ("finished", 100, None)
        shapes = served.shapes(task)
        assert left_edges(shapes) == [(n, n) for n in range(10)]
        assert {(s["source"], s["score"], s["type"]) for s in shapes} == {("auto", 0.9, "rectangle")}
        assert sorted(n for call in finder.calls for n in call) == list(range(10))
        (record,) = served.finished()
        assert (record.door, record.kind, record.model) == ("queue", "annotate_task", "finder")
        assert (record.what, record.outcome, record.done, record.total) == (f"task {task}", "done", 10, 10)
        assert record.stages["encode"] > 0


@pytest.mark.parametrize("make", [make_image_task, make_video_task], ids=["pictures", "video"])
def test_a_frame_is_annotated(sandbox, session, make):
    count = {"count": 5} if make is make_image_task else {"frames": 5}
    task = make(session, **count, segment_size=3, overlap=0, labels=THING)
    with serving(sandbox, {"finder": Finder()}) as served:
        answer = served.call(task=task, frame=4).json()
        assert left_edges(answer["shapes"]) == [(4, 4)]
        assert served.shapes(task) == []
        record = served.finished()[0]
        assert (record.kind, record.what) == ("annotate_frame", f"task {task} frame 4")


def test_frames_that_were_deleted_are_left_out(sandbox, session):
    task = make_image_task(session, count=6, labels=THING)
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        served.client.patch(f"/api/tasks/{task}/data/meta", json={"deleted_frames": [1, 4]})
        assert served.ended(served.order(task))["status"] == "finished"
        assert [shape["frame"] for shape in served.shapes(task)] == [0, 2, 3, 5]
        queued = served.enqueue(params(task, frame=4))
        assert served.settled(queued) == ("failed", f"task {task}: frame 4: it was deleted")


@pytest.mark.parametrize("kind", ["annotate_task", "annotate_frame"])
def test_a_region_is_cut_out_and_the_server_moves_the_answer(sandbox, session, kind):
    """The finder reads the number in the top rows, so the region begins at the left edge and ends below them."""
    task = make_image_task(session, count=2, labels=THING)
    sizes = []

    def find(frame, context):
        sizes.append((frame.width, frame.height))
        # It sticks out of the region, where it is cut.
        return [Detection("thing", Rectangle(100, 10, 400, 30), 0.5)]

    with serving(sandbox, {"finder": Finder(find=find)}) as served:
        roi = [0, 16, 200, 100]
        if kind == "annotate_frame":
            (shape,) = served.call(task=task, frame=1, roi=roi).json()["shapes"]
        else:
            served.ended(served.order(task, roi=roi))
            _, shape = served.shapes(task)
        assert shape["points"] == [100, 26, 200, 46]
        assert set(sizes) == {(200, 84)}


def test_masks_in_a_region(sandbox, session):
    task = make_image_task(session, count=1, labels=[{"name": "thing", "type": "mask"}])
    mask = Mask(np.ones((4, 6), bool), 10, 20)
    finder = Finder(labels=[Label("thing", "mask")], find=lambda frame, context: [Detection("thing", mask)])
    with serving(sandbox, {"finder": finder}) as served:
        (shape,) = served.call(task=task, frame=0, roi=[30, 16, 200, 100]).json()["shapes"]
        assert shape["points"] == [0, 24, 40, 36, 45, 39]


def test_a_region_outside_of_the_picture(sandbox, session):
    task = make_image_task(session, count=2, labels=THING)
    with serving(sandbox, {"finder": Finder()}) as served:
        one = served.enqueue(params(task, roi=[1000, 1000, 1100, 1100]))
        whole = served.enqueue(params(task, "annotate_task", roi=[1000, 1000, 1100, 1100]), "batch")
        assert served.settled(one) == ("failed", "frame 0: the region lies outside the picture of 320x240")
        assert served.settled(whole) == (
            "failed",
            "none of the 2 frames could be annotated; the last one: the region lies outside the picture of 320x240",
        )


RICH = [
    {"name": "vehicle", "type": "rectangle", "attributes": [
        {"name": "paint", "mutable": False, "input_type": "select", "values": ["red", "blue"], "default_value": "red"},
        {"name": "doors", "mutable": False, "input_type": "number", "values": ["0", "10", "2"], "default_value": "0"},
    ]},
    {"name": "human", "type": "skeleton", "attributes": [], "sublabels": [
        {"name": name, "type": "points", "attributes": [
            {"name": "hat", "mutable": False, "input_type": "checkbox", "values": [], "default_value": "false"}
        ]} for name in ("top", "bottom", "middle")
    ], "svg": "".join(
        f'<circle data-type="element node" data-element-id="{n}" data-node-id="{n}" data-label-name="{name}"></circle>'
        for n, name in enumerate(("top", "bottom", "middle"), 1)
    )},
]  # fmt: skip
OURS = [
    Label("car", "rectangle", (Attribute("colour", "select", ("red", "blue")), Attribute("doors", "number"))),
    Label("van", "rectangle", (Attribute("colour", "text"),)),
    Label("person", "skeleton", (), (Label("head", "points", (Attribute("cap", "text"),)), Label("foot", "points"))),
]


def test_mappings_with_attributes_and_points(sandbox, session):
    task = make_image_task(session, count=1, labels=RICH)

    def find(frame, context):
        assert context.labels == {"car", "person"}
        skeleton = Skeleton((Keypoint("head", 50, 60, attributes={"cap": "true"}), Keypoint("foot", 70, 90)))
        return [
            Detection("car", Rectangle(1, 2, 30, 40), 0.8, {"colour": "blue", "doors": "4"}),
            Detection("car", Rectangle(5, 2, 30, 40), 0.8, {"colour": "green", "doors": "3"}),
            Detection("van", Rectangle(1, 2, 30, 40), 0.8),
            Detection("person", skeleton, 0.7),
        ]

    mapping = {
        "car": {"name": "vehicle", "attributes": {"colour": "paint", "doors": "doors"}},
        "person": {"name": "human", "sublabels": {"head": {"name": "top", "attributes": {"cap": "hat"}}}},
    }
    with serving(sandbox, {"finder": Finder(labels=OURS, find=find)}) as served:
        ids = served.client.labels(task)
        assert served.settled(served.enqueue(params(task, "annotate_task", mapping=mapping), "batch"))[0] == "completed"
        human, blue, other = sorted(served.shapes(task), key=lambda s: (s["type"] != "skeleton", s["points"]))
        assert {blue["label_id"], other["label_id"]} == {ids["vehicle"]}
        assert [a["value"] for a in blue["attributes"]] == ["blue", "4"]
        # Values that the attribute does not allow are left to its default.
        assert [a["value"] for a in other["attributes"]] == ["red", "0"]
        assert human["label_id"] == ids["human"]
        elements = {e["label_id"]: e for e in human["elements"]}
        assert len(human["elements"]) == 3
        assert elements.keys() == {ids["top"], ids["middle"], ids["bottom"]}
        assert [elements[ids[name]]["outside"] for name in ("top", "middle", "bottom")] == [False, True, True]
        assert elements[ids["top"]]["points"] == [50, 60]
        assert elements[ids["top"]]["attributes"][0]["value"] == "true"


@pytest.mark.parametrize(("polygons", "kind"), [(True, "polygon"), (False, "mask")])
def test_masks_become_polygons_when_asked_for(sandbox, session, polygons, kind):
    task = make_image_task(session, count=1, labels=THING)
    mask = Mask(np.ones((20, 20), bool), 10, 20)
    finder = Finder(labels=[Label("thing", "mask")], find=lambda frame, context: [Detection("thing", mask, 0.9)])
    with serving(sandbox, {"finder": finder}) as served:
        (shape,) = served.call(task=task, frame=0, conv_mask_to_poly=polygons).json()["shapes"]
        assert shape["type"] == kind
        assert finder.contexts[-1].masks_as_polygons == polygons


@pytest.mark.parametrize(
    ("asked", "model", "kept"),
    [(None, None, [0.2, 0.6]), (None, 0.5, [0.6]), (0.1, 0.5, [0.2, 0.6]), (0.0, 0.5, [0.2, 0.6])],
)
def test_thresholds(sandbox, session, asked, model, kept):
    task = make_image_task(session, count=1, labels=THING)
    finder = Finder(find=lambda frame, context: [Detection("thing", Rectangle(s, 2, 30, 40), s) for s in (0.2, 0.6)])
    with serving(sandbox, {"finder": finder}, settings={"finder": {"threshold": model}}) as served:
        assert served.settled(served.enqueue(params(task, "annotate_task", threshold=asked), "batch"))[0] == "completed"
        assert [shape["score"] for shape in served.shapes(task)] == kept
        assert finder.contexts[-1].threshold == (asked if asked is not None else model or 0.0)


def test_thresholds_of_a_label_map(sandbox, session, tmp_path):
    """They hold for what the mapping sends where; the request's own goes before."""
    task = make_image_task(session, count=1, labels=THING)
    file = tmp_path / "map.toml"
    file.write_text("[labels]\nthing = {threshold = 0.5}\n")
    finder = Finder(find=lambda frame, context: [Detection("thing", Rectangle(s, 2, 30, 40), s) for s in (0.2, 0.6)])
    with serving(sandbox, {"finder": finder}, settings={"finder": {"label_map": file}}) as served:
        for asked, kept in ((None, 1), (0.1, 2)):
            assert len(served.call(task=task, frame=0, threshold=asked).json()["shapes"]) == kept
        file.unlink()
        queued = served.enqueue(params(task))
        assert served.settled(queued)[0] in ("completed", "failed")
        assert str(tmp_path) not in (queued.exc_info or "")


WRONG = {
    "nothing": (None, "the request's parameters: got None, allowed: an object"),
    "a list": ([1], "the request's parameters: got [1], allowed: an object"),
    "no type": ({"task": 1}, "type: got None, allowed for a detector: annotate_task, annotate_frame"),
    "nonsense": ({"type": "nonsense"}, "type: got 'nonsense', allowed for a detector: annotate_task, annotate_frame"),
    "another kind": ({"type": "track"}, "type: got 'track', allowed for a detector: annotate_task, annotate_frame"),
    "an odd type": ({"type": ["a"]}, "type: got ['a'], allowed for a detector: annotate_task, annotate_frame"),
    "no task": ({"type": "annotate_task"}, "task: got None, allowed: a number from 1"),
    "task 0": (params(0), "task: got 0, allowed: a number from 1"),
    "frame -1": (params(1, frame=-1), "frame: got -1, allowed: a number from 0"),
    "frame true": (params(1, frame=True), "frame: got True, allowed: a number from 0"),
    "threshold": (params(1, threshold=1.5), "threshold: got 1.5, allowed: 0 to 1, or null"),
    "threshold text": (params(1, threshold="0.5"), "threshold: got '0.5', allowed: 0 to 1, or null"),
    "threshold of 400 digits": (params(1, threshold=10**400), f"threshold: got 1{'0' * 78}…, allowed: 0 to 1, or null"),
    "mapping": (params(1, mapping=["thing"]), "mapping: got ['thing'], allowed: an object of labels"),
    "polygons": (params(1, conv_mask_to_poly="yes"), "conv_mask_to_poly: got 'yes', allowed: true or false"),
    "roi": (
        params(1, roi=[5, 5, 1, 9]),
        "roi: got [5, 5, 1, 9], allowed: [left, top, right, bottom] with left < right and top < bottom",
    ),
    "no such task": (params(99999), "task 99999: it does not exist, or the user of this agent may not see it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_fails_with_a_reason_and_the_door_lives_on(sandbox, case):
    raw, message = WRONG[case]
    with serving(sandbox, {"finder": Finder()}) as served:
        for category in ("interactive", "batch"):
            assert served.settled(served.enqueue(raw, category)) == ("failed", message)
        assert served.door.health().ok


def test_people_read_nothing_of_our_account_and_the_log_tells_it(sandbox, session, caplog):
    with Client(sandbox, "alice", "secret") as alice:
        hers = alice.task([("a.jpg", picture_bytes(0))])
    empty = session.request("POST", "/api/tasks", body={"name": "empty", "labels": THING}).json()["id"]
    server = ServerSettings(user="bot", password="secret", organization="")
    with serving(sandbox, {"finder": Finder()}, server=server) as served:
        for task, message in (
            (hers, "it does not exist, or the user of this agent may not see it"),
            (empty, "it has no data yet"),
        ):
            queued = served.enqueue(params(task, "annotate_task"), "batch")
            assert served.settled(queued) == ("failed", f"task {task}: {message}")
    assert f"task {hers}: bot has no job in it, in the personal workspace" in caplog.text


def test_what_makes_no_sense_for_the_task(sandbox, session):
    task = make_image_task(session, count=2, labels=THING)
    with serving(sandbox, {"finder": Finder()}) as served:
        for raw, message in (
            (params(task, frame=9), f"task {task}: frame 9: the task has no such frame"),
            (params(task, mapping={"zebra": {"name": "thing"}}), "mapping 'zebra': the model has no such label"),
            (params(task, mapping={"thing": {"name": "zoo"}}), "mapping 'thing' -> 'zoo': the task has no such label"),
            (params(task, mapping={"thing": 7}), "mapping 'thing': got 7, allowed: a name"),
            (params(task, mapping={"thing": {}}), "mapping 'thing': got the name None, allowed: a name"),
            (params(task, mapping={}), "mapping: it is empty"),
        ):  # fmt: skip
            for kind, category in (("annotate_frame", "interactive"), ("annotate_task", "batch")):
                if "frame 9" in message and category == "batch":
                    continue
                status, said = served.settled(served.enqueue({**raw, "type": kind}, category))
                assert status == "failed"
                assert said.startswith(message)
        assert left_edges(served.call(task=task, frame=1).json()["shapes"]) == [(1, 1)]


def test_one_bad_frame_costs_itself_only(sandbox, session):
    task = make_image_task(session, count=6, labels=THING)

    def find(frame, context):
        if frame.index in (2, 3):
            raise RuntimeError(f"/home/me/secret.bin: not this one ({frame.name})")
        return [Detection("thing", Rectangle(frame.index, 2, 30, 40), 0.5)]

    with serving(sandbox, {"finder": Finder(find=find, batch_size=3)}) as served:
        assert served.ended(served.order(task))["status"] == "finished"
        assert [shape["frame"] for shape in served.shapes(task)] == [0, 1, 4, 5]
        queued = served.enqueue(params(task, frame=2))
        assert served.settled(queued) == ("failed", "The model failed on this request")


@pytest.mark.parametrize("allowed", [2, 50])
def test_too_many_bad_frames_fail_the_request(sandbox, session, allowed):
    """More than are allowed, or all of them."""
    task = make_image_task(session, count=6, labels=THING)

    def find(frame, context):
        raise RuntimeError("/home/me/secret.bin: none of them")

    queue = replace(FAST, max_bad_frames=allowed)
    with serving(sandbox, {"finder": Finder(find=find)}, queue=queue) as served:
        ended = served.ended(served.order(task))
        assert (ended["status"], ended["exc_info"]) == ("failed", "The model failed on this request")
        assert served.shapes(task) == []


def test_damaged_pictures_are_skipped(sandbox, session):
    task = make_image_task(session, count=5, labels=THING)
    (victim,) = (sandbox.state.root / "data").rglob("0003.jpg")
    victim.write_bytes(victim.read_bytes()[:300])
    server = ServerSettings(user="bot", password="secret", retries=1)
    with serving(sandbox, {"finder": Finder()}, server=server) as served:
        assert served.ended(served.order(task))["status"] == "finished"
        assert [shape["frame"] for shape in served.shapes(task)] == [0, 1, 2, 4]
        status, said = served.settled(served.enqueue(params(task, frame=3)))
        assert status == "failed"
        assert said.startswith("frame 3: cannot be decoded")

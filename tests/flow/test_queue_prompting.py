"""Interactors and trackers behind the agent queue: what people click, and what stays in memory between two clicks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cvat_sdk.masks import decode_mask

from agent.contract import Detection, Mask, Points, Polygon, PromptNeeds, Rectangle
from tests.support.material import make_image_task, make_video_task
from tests.support.models import Clicker, Finder, Follower
from tests.support.queue import FAST, serving

FRAME_DOWNLOADS, META = r"/api/jobs/\d+/data$", r"/api/(jobs|labels|tasks)\b"


@pytest.fixture
def task(session):
    return make_image_task(session, count=6, segment_size=3)


def square(x, y):
    """The mask that the clicker gives to a click, as the SDK decodes it."""
    expected = np.zeros((240, 320), bool)
    expected[y - 5 : y + 5, x - 5 : x + 5] = True
    return expected


def drawn(shape):
    return decode_mask(shape["points"], image_width=320, image_height=240)


def test_a_click_gives_a_mask_with_its_score(sandbox, task):
    clicker = Clicker()
    with serving(sandbox, {"clicker": clicker}) as served:
        answer = served.call(task=task, frame=4, pos_points=[[50, 60]], neg_points=[[1, 2.5]], obj_bbox=[])
        (shape,) = answer.json()["shapes"]
        assert (shape["type"], shape["attributes"]) == ("mask", [{"spec_id": 0, "value": "0.93"}])
        np.testing.assert_array_equal(drawn(shape), square(50, 60))
        (prompts,) = clicker.prompts
        assert (prompts.positive, prompts.negative, prompts.box) == (((50, 60),), ((1, 2.5),), None)
        assert clicker.embedded == [(320, 240)]
        (record,) = served.finished()
        assert (record.kind, record.what, record.outcome) == ("interact", f"task {task} frame 4", "done")


def test_a_box_in_whichever_order_it_was_drawn(sandbox, task):
    clicker = Clicker()
    with serving(sandbox, {"clicker": clicker}) as served:
        for corners in ([[10, 20], [30, 40]], [[30, 40], [10, 20]], [[10, 40], [30, 20]]):
            (shape,) = served.call(task=task, frame=0, obj_bbox=corners).json()["shapes"]
            assert shape["points"] == [0, 400, 10, 20, 29, 39]
        assert {prompts.box for prompts in clicker.prompts} == {Rectangle(10, 20, 30, 40)}


def test_a_region(sandbox, task):
    """The server sends marks in the region's coordinates, and moves the answer back."""
    clicker = Clicker()
    with serving(sandbox, {"clicker": clicker}) as served:
        call = {"task": task, "frame": 0, "pos_points": [[50, 60]]}
        (shape,) = served.call(**call, roi=[100, 20, 220, 180]).json()["shapes"]
        np.testing.assert_array_equal(drawn(shape), square(150, 80))
        # The same frame with another region is another picture; with the same one it is not.
        served.call(**call, roi=[100, 20, 200, 180])
        served.call(**call, roi=[100, 20, 220, 180])
        served.call(**call)
        assert clicker.embedded == [(120, 160), (100, 160), (320, 240)]
        # A pixel of which a region holds a part belongs to it.
        served.call(**call, roi=[100.6, 20.6, 199.2, 179.2])
        assert clicker.embedded[3:] == [(100, 160)]
        status, said = served.settled(
            served.enqueue({"type": "interact", **call, "neg_points": [], "obj_bbox": [], "roi": [400, 0, 500, 9]})
        )
        assert (status, said) == ("failed", "frame 0: the region lies outside the picture of 320x240")


def test_what_is_remembered_between_clicks(sandbox, task):
    """A second click on a frame downloads nothing, one on another frame of the job downloads that frame only."""
    clicker = Clicker()
    with serving(sandbox, {"clicker": clicker}) as served:

        def click(frame):
            sandbox.requests.clear()
            served.call(task=task, frame=frame, pos_points=[[50, 60]])
            return served.log("GET", META)

        first = click(0)
        assert first.count("GET /api/jobs/1/data") == 1
        assert click(0) == []
        assert click(1) == ["GET /api/jobs/1/data"]
        # Another job of the same task: that job's frames have to be looked up.
        assert sorted(click(5)) == ["GET /api/jobs/2/data", "GET /api/jobs/2/data/meta"]
        assert click(1) == []
        assert len(clicker.embedded) == 3


def test_frames_are_kept_up_to_a_limit(sandbox, task):
    size = 320 * 240 * 3 / 2**20
    clicker = Clicker()
    with serving(sandbox, {"clicker": clicker}, queue=replace(FAST, frames_mb=2.5 * size)) as served:
        served.shared.embeddings.resize(0)
        for frame in (0, 1, 0, 2, 0, 1):
            served.call(task=task, frame=frame, pos_points=[[50, 60]])
        # 1 was the one that nobody had asked for for longest when 2 came.
        fetched = [entry.query for entry in sandbox.requests.matching("GET", FRAME_DOWNLOADS)]
        assert ["number=" in query and query.split("number=")[1][0] for query in fetched] == ["0", "1", "2", "1"]


def test_other_shapes_of_interactors(sandbox, task):
    class Odd(Clicker):
        def segment(self, embedding, prompts):
            triangle = Polygon((10, 10, 40, 10, 10, 40))
            nothing = Mask(np.zeros((3, 3), bool), 1, 1)
            over = Mask(np.ones((20, 20), bool), 310, 230)
            return [
                Detection("a", triangle, 0.5), Detection("a", nothing), Detection("a", None),
                Detection("a", over), Detection("a", Points((5, 6))),
            ]  # fmt: skip

    with serving(sandbox, {"odd": Odd()}) as served:
        first, second, third = served.call(task=task, frame=0, pos_points=[[50, 60]]).json()["shapes"]
        assert 350 < drawn(first).sum() < 550
        assert first["attributes"] == [{"spec_id": 0, "value": "0.5"}]
        assert (second["points"], second["attributes"]) == ([0, 100, 310, 230, 319, 239], [])
        assert (third["type"], third["points"]) == ("points", [5, 6])


NEEDS = PromptNeeds(positive=2, negative=None, box="required")
MARKS = {
    "too few points": ({"pos_points": [[1, 2]], "obj_bbox": [[1, 2], [3, 4]]}, "pos_points: got 1 points"),
    "negative points": (
        {"pos_points": [[1, 2]] * 2, "neg_points": [[1, 2]], "obj_bbox": [[1, 2], [3, 4]]},
        "neg_points: got 1 points, allowed: none",
    ),
    "no box": ({"pos_points": [[1, 2]] * 2}, "obj_bbox: got none, allowed: a box"),
    "half a box": ({"pos_points": [], "obj_bbox": [[1, 2]]}, "obj_bbox: got 1 points, allowed: none, or two corners"),
    "a flat box": ({"pos_points": [], "obj_bbox": [[1, 2], [1, 9]]}, "obj_bbox: got [[1.0, 2.0], [1.0, 9.0]]"),
    "no points": ({"pos_points": "many"}, "pos_points: got 'many', allowed: a list of [x, y]"),
    "odd points": ({"pos_points": [[1, 2, 3]]}, "pos_points: got [[1, 2, 3]], allowed: a list of [x, y]"),
    "texts": ({"pos_points": [["1", "2"]]}, "pos_points: got [['1', '2']], allowed: a list of [x, y]"),
}


@pytest.mark.parametrize("case", MARKS)
def test_marks_that_the_interactor_cannot_use(sandbox, task, case):
    marks, message = MARKS[case]
    with serving(sandbox, {"clicker": Clicker(NEEDS)}) as served:
        status, said = served.settled(served.enqueue({"type": "interact", "task": task, "frame": 0, **marks}))
        assert status == "failed"
        assert said.startswith(message)
        box = {"pos_points": [[1, 2]] * 2, "obj_bbox": [[1, 2], [3, 4]]}
        assert served.call(task=task, frame=0, **box).status_code == 200


def test_no_marks_at_all(sandbox, task):
    with serving(sandbox, {"clicker": Clicker()}) as served:
        for marks in ({}, {"pos_points": [], "neg_points": [[1, 2]], "obj_bbox": []}):
            status, said = served.settled(served.enqueue({"type": "interact", "task": task, "frame": 0, **marks}))
            assert (status, said) == ("failed", "prompts: got none, allowed: at least a positive point or a box")


def test_an_interactor_that_fails(sandbox, task):
    class Broken(Clicker):
        def embed(self, frame):
            raise MemoryError("/srv/weights: too much")

    with serving(sandbox, {"broken": Broken()}) as served:
        queued = served.enqueue({"type": "interact", "task": task, "frame": 0, "pos_points": [[1, 2]]})
        assert served.settled(queued) == ("failed", "The model failed on this request")


def test_two_models_side_by_side(sandbox, session):
    task = make_image_task(session, count=2)
    with serving(sandbox, {"finder": Finder(), "clicker": Clicker(), "follower": Follower()}) as served:
        assert len(served.functions) == 3
        assert served.call("clicker", task=task, frame=0, pos_points=[[50, 60]]).status_code == 200
        assert served.ended(served.order(task, "finder"))["status"] == "finished"
        shape = {"type": "rectangle", "points": [10, 20, 30, 40]}
        assert served.call("follower", task=task, frame=0, shapes=[shape]).status_code == 200


# ---------------------------------------------------------------------- trackers


def start(served, task, *shapes, frame=0):
    body = [{"type": "rectangle", "points": list(points)} for points in shapes]
    return served.call(task=task, frame=frame, shapes=body).json()["states"]


@pytest.fixture
def video(session):
    return make_video_task(session, frames=8, segment_size=8)


def test_shapes_are_followed_until_they_are_lost(sandbox, video):
    with serving(sandbox, {"follower": Follower()}) as served:
        states = start(served, video, (10, 20, 30, 40), (59, 0, 70, 10))
        for frame in (1, 2, 3):
            answer = served.call(task=video, frame=frame, states=states).json()
            first, second = answer["shapes"]
            assert first == {"type": "rectangle", "points": [10 + frame, 20 + frame, 30 + frame, 40 + frame]}
            assert (second is None) == (frame > 1)
            # The server signs them anew each time; what is in them is the same.
            assert [value.split(":")[0] for value in answer["states"]] == [value.split(":")[0] for value in states]
            states = answer["states"]
        assert [r.kind for r in reversed(served.finished(4))] == ["init_tracking"] + ["track"] * 3


def test_one_of_several_is_followed(sandbox, video):
    with serving(sandbox, {"follower": Follower()}) as served:
        one, two = start(served, video, (10, 20, 30, 40), (40, 0, 60, 10))
        (other,) = start(served, video, (1, 1, 5, 5), frame=1)
        answer = served.call(task=video, frame=2, states=[two, other]).json()
        assert [shape["points"] for shape in answer["shapes"]] == [[41, 1, 61, 11], [2, 2, 6, 6]]
        answer = served.call(task=video, frame=3, states=[one]).json()
        assert [shape["points"] for shape in answer["shapes"]] == [[11, 21, 31, 41]]


def test_states_survive_a_restart(sandbox, video, tmp_path):
    with serving(sandbox, {"follower": Follower()}, folder=tmp_path) as served:
        states = start(served, video, (10, 20, 30, 40))
        function = served.functions["follower"]
    with serving(sandbox, {"follower": Follower()}, folder=tmp_path) as served:
        assert served.functions == {"follower": function}
        answer = served.call(task=video, frame=1, states=states).json()
        assert [shape["points"] for shape in answer["shapes"]] == [[11, 21, 31, 41]]


def test_states_are_good_for_their_task_and_size_only(sandbox, session, video):
    other = make_video_task(session, frames=4, segment_size=4)
    mixed = make_image_task(session, count=1, size=(64, 48))
    with serving(sandbox, {"follower": Follower()}) as served:
        (state,) = start(served, video, (10, 20, 30, 40))
        name = json.loads(state.split(":")[0])
        assert len(name) >= 20
        for task, states, message in (
            (other, [name], "tracker state: it belongs to another task, picture size or model"),
            (mixed, [name], "tracker state: it belongs to another task, picture size or model"),
            (video, ["unknown"], "tracker state: it is unknown or has expired; begin the track again"),
        ):
            queued = served.enqueue({"type": "track", "task": task, "frame": 0, "states": states})
            assert served.settled(queued) == ("failed", message)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"type": "init_tracking", "shapes": None}, "shapes: got None, allowed: a list of shapes"),
        ({"type": "init_tracking", "shapes": [{"type": "blob"}]}, "shape: got the type 'blob'"),
        ({"type": "init_tracking", "shapes": [{"type": "rectangle", "points": [1]}]}, "rectangle: got 1 numbers"),
        (
            {"type": "init_tracking", "shapes": [{"type": "rectangle", "points": [10**400]}]},
            "rectangle: points: got list",
        ),
        (
            {"type": "init_tracking", "shapes": [{"type": "points", "points": [1, 2]}]},
            "follower: it cannot follow a points, allowed: rectangle",
        ),
        ({"type": "track", "states": "abc"}, "states: got 'abc', allowed: a list of names"),
        ({"type": "track", "states": [1]}, "states: got [1], allowed: a list of names"),
        ({"type": "annotate_frame"}, "type: got 'annotate_frame', allowed for a tracker: init_tracking, track"),
    ],
)
def test_what_a_tracker_cannot_do(sandbox, video, raw, message):
    with serving(sandbox, {"follower": Follower()}) as served:
        status, said = served.settled(served.enqueue({"task": video, "frame": 0, **raw}))
        assert status == "failed"
        assert said.startswith(message)

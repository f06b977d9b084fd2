import pytest

from agent.domain import TaskAttribute, TaskLabel
from agent.tracks.encode import encode_track
from agent.tracks.gather import Stored
from agent.tracks.keyframes import Keyframe, box_at, thin
from agent.tracks.link import Sighting

LABEL = TaskLabel(
    7,
    "car",
    "rectangle",
    (TaskAttribute(1, "color", "text", ()), TaskAttribute(2, "parked", "checkbox", (), mutable=True)),
)


def track(count, begin=0, items=()):
    return [
        Sighting(begin + k, (2.0 * k, 0.0, 2.0 * k + 40, 30.0), item=items[k] if items else None) for k in range(count)
    ]


def frames(part):
    return [(shape["frame"], shape["outside"], shape["points"][0]) for shape in part["shapes"]]


def test_within_one_job():
    part = encode_track(thin(track(20, begin=5)), LABEL, 0, 99)
    assert (part["frame"], part["label_id"], part["source"], part["group"]) == (5, 7, "auto", 0)
    assert frames(part) == [(5, False, 0.0), (24, False, 38.0), (25, True, 38.0)]
    assert part["shapes"][0]["type"] == "rectangle"


def test_the_part_of_each_job_tells_where_the_track_is_at_its_borders():
    keyframes = thin(track(60))
    first, second, third = (encode_track(keyframes, LABEL, start, start + 19) for start in (0, 20, 40))
    assert frames(first) == [(0, False, 0.0), (19, False, 38.0)]
    assert frames(second) == [(20, False, 40.0), (39, False, 78.0)]
    assert frames(third) == [(40, False, 80.0), (59, False, 118.0)]
    for part, start in ((first, 0), (second, 20), (third, 40)):
        again = [Keyframe(s["frame"], tuple(s["points"]), s["outside"]) for s in part["shapes"]]
        for frame in range(start, start + 20):
            assert box_at(again, frame) == pytest.approx(box_at(keyframes, frame), abs=0.01)


def test_a_job_that_the_track_does_not_touch_has_no_part():
    keyframes = thin(track(10, begin=30))
    assert encode_track(keyframes, LABEL, 0, 29) is None
    assert encode_track(keyframes, LABEL, 40, 60) is None  # nothing but the word that it is gone
    assert encode_track(keyframes, LABEL, 35, 37)["shapes"][0]["frame"] == 35


def test_a_track_that_is_outside_at_a_border_is_not_drawn_there():
    keyframes = thin([*track(10), *track(10, begin=70)])
    assert frames(encode_track(keyframes, LABEL, 0, 39))[-1] == (10, True, 18.0)
    assert frames(encode_track(keyframes, LABEL, 40, 99))[0] == (70, False, 0.0)


def test_attributes_that_cannot_change_are_voted_on_and_others_are_told_at_each_keyframe():
    items = [
        [{"spec_id": 1, "value": "blue" if k == 3 else "red"}, {"spec_id": 2, "value": str(k > 4).lower()}]
        for k in range(9)
    ]
    bent = [
        Sighting(k, (float(10 * k % 50), 0.0, 60.0 + 10 * k % 50, 30.0), item=Stored(7, {"attributes": items[k]}, ()))
        for k in range(9)
    ]
    keyframes = thin(bent)
    part = encode_track(keyframes, LABEL, 0, 9)
    assert part["attributes"] == [{"spec_id": 1, "value": "red"}]
    by_frame = {shape["frame"]: shape["attributes"] for shape in part["shapes"]}
    assert by_frame[0] == [{"spec_id": 2, "value": "false"}]
    assert by_frame[8] == [{"spec_id": 2, "value": "true"}]


def test_coordinates_are_hundredths():
    part = encode_track(thin([Sighting(0, (1.23456, 2.0, 30.98765, 40.0))]), LABEL, 0, 5)
    assert part["shapes"][0]["points"] == [1.23, 2.0, 30.99, 40.0]

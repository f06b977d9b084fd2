"""Tracks are cut at the jobs' borders and put together again."""

import copy

import pytest

from agent.sandbox.tracks import cut, interpolated, merge, shapes_alike


def keyframe(frame, points, *, outside=False, kind="rectangle", rotation=0.0, id=None):
    looks = {"occluded": False, "outside": outside, "z_order": 0, "rotation": rotation}
    return {"id": id, "type": kind, "frame": frame, **looks, "points": points, "attributes": []}


def box(x):
    return [x, 0, x + 20, 20]


def track(*shapes, label=1):
    return {"id": 1, "label_id": label, "frame": shapes[0]["frame"], "group": 0, "shapes": [*shapes], "elements": []}


def frames(part):
    return [(shape["frame"], shape["points"][0], shape["outside"]) for shape in part["shapes"]]


MOVING = track(keyframe(0, box(0)), keyframe(10, box(100)), keyframe(15, box(100), outside=True))


@pytest.mark.parametrize(
    ("start", "stop", "wanted"),
    [
        (0, 20, [(0, 0, False), (10, 100, False), (15, 100, True)]),
        (0, 4, [(0, 0, False), (4, 40, False)]),
        (5, 9, [(5, 50, False), (9, 90, False)]),
        (8, 12, [(8, 80, False), (10, 100, False)]),
        (12, 20, [(12, 100, False), (15, 100, True)]),
        (15, 20, None),
        (16, 20, None),
    ],
)
def test_cut(start, stop, wanted):
    part = cut(MOVING, start, stop)
    assert (None if part is None else frames(part)) == wanted
    if part:
        assert part["frame"] == part["shapes"][0]["frame"]


def test_a_track_that_goes_on_is_in_every_later_part():
    part = cut(track(keyframe(3, box(0))), 10, 20)
    assert frames(part) == [(10, 0, False)]


def test_a_track_before_its_beginning_is_nowhere():
    assert cut(track(keyframe(30, box(0))), 0, 20) is None


def test_cutting_changes_nothing():
    before = copy.deepcopy(MOVING)
    cut(MOVING, 3, 7)
    assert before == MOVING


def test_rotation_takes_the_shorter_way():
    turning = track(keyframe(0, box(0), rotation=350.0), keyframe(4, box(0), rotation=10.0))
    assert [interpolated(turning, n)["rotation"] for n in (1, 2, 3)] == [355.0, 0.0, 5.0]


@pytest.mark.parametrize("kind", ["mask", "points"])
def test_what_cannot_be_interpolated_stays(kind):
    points = [0, 4, 0, 0, 1, 1] if kind == "mask" else [0, 0, 5, 5]
    still = track(keyframe(0, points, kind=kind), keyframe(4, [p + 4 for p in points], kind=kind))
    assert interpolated(still, 2)["points"] == points


def cut_and_merged(one, jobs):
    parts = []
    for start, stop in jobs:
        part = cut(one, start, stop)
        parts.append((start, stop, {"tags": [], "shapes": [], "tracks": [part] if part else []}))
    return merge(parts)["tracks"]


def test_overlapping_jobs_give_one_track_again():
    (merged,) = cut_and_merged(MOVING, [(0, 6), (4, 10), (8, 14), (12, 18)])
    for frame in range(15):
        assert interpolated(merged, frame)["points"] == pytest.approx(interpolated(MOVING, frame)["points"])
    assert merged["shapes"][-1]["outside"]
    assert merged["shapes"][-1]["frame"] == 15


def test_jobs_side_by_side_give_parts_that_end():
    merged = cut_and_merged(MOVING, [(0, 4), (5, 9), (10, 19)])
    assert [frames(part)[-1] for part in merged] == [(5, 40, True), (10, 90, True), (15, 100, True)]
    assert merged[0]["shapes"][-1]["id"] == merged[0]["shapes"][-2]["id"]


def test_different_tracks_in_an_overlap_stay_apart():
    left = {"tags": [], "shapes": [], "tracks": [track(keyframe(0, box(0)))]}
    right = {"tags": [], "shapes": [], "tracks": [track(keyframe(5, box(500)))]}
    assert len(merge([(0, 9, left), (5, 14, right)])["tracks"]) == 2


def shape(frame, x, label=1, kind="rectangle"):
    return {"frame": frame, "label_id": label, "type": kind, "points": box(x), "rotation": 0.0, "elements": []}


def test_shapes_in_an_overlap_are_found_once():
    def job(*shapes):
        return {"tags": [{"frame": 5, "label_id": 1}], "shapes": list(shapes), "tracks": []}

    merged = merge(
        [
            (0, 9, job(shape(5, 0), shape(5, 100), shape(6, 0))),
            (5, 14, job(shape(5, 2), shape(5, 300), shape(6, 0, label=2), shape(12, 0))),
        ]
    )
    found = [(one["frame"], one["points"][0], one["label_id"]) for one in merged["shapes"]]
    assert found == [(5, 0, 1), (5, 100, 1), (6, 0, 1), (5, 300, 1), (6, 0, 2), (12, 0, 1)]
    assert len(merged["tags"]) == 1


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (shape(0, 0), shape(0, 0), 1.0),
        (shape(0, 0), shape(0, 10), 1 / 3),
        (shape(0, 0), shape(0, 40), 0.0),
        (shape(0, 0), shape(0, 0, label=2), 0.0),
        (shape(0, 0, kind="ellipse"), shape(0, 0, kind="ellipse"), 1.0),
        (shape(0, 0, kind="ellipse"), shape(0, 1, kind="ellipse"), 0.0),
    ],
)
def test_likeness(one, other, wanted):
    assert shapes_alike(one, other) == pytest.approx(wanted)

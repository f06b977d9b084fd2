import pytest

from agent.existing import occupied_frames, shapes_by_frame


def key(frame, points, outside=False):
    return {"frame": frame, "type": "rectangle", "points": points, "outside": outside}


TRACK = {
    "label_id": 3,
    "frame": 2,
    "shapes": [key(2, [0, 0, 10, 10]), key(6, [40, 0, 50, 10]), key(8, [0] * 4, True)],
}


def test_tags_shapes_and_visible_tracks_occupy_frames():
    found = occupied_frames({"tags": [{"frame": 0}], "shapes": [{"frame": 11}], "tracks": [TRACK]}, stop=20)
    assert found == {0, 11, 2, 3, 4, 5, 6, 7}


def test_a_track_without_an_end_goes_on_to_the_end_of_the_job():
    track = {"label_id": 3, "frame": 4, "shapes": [key(4, [0, 0, 1, 1])]}
    assert occupied_frames({"tracks": [track]}, stop=7) == {4, 5, 6, 7}


def test_a_repeated_closing_keyframe_counts_once():
    track = {
        "label_id": 3,
        "frame": 4,
        "shapes": [key(4, [0, 0, 1, 1]), key(7, [0, 0, 1, 1]), key(7, [0, 0, 1, 1], True)],
    }
    assert occupied_frames({"tracks": [track]}, stop=9) == {4, 5, 6}


def test_shapes_of_tracks_lie_between_their_keyframes():
    found = shapes_by_frame({"shapes": [{"frame": 3, "points": [1]}], "tracks": [TRACK]}, stop=20)
    assert [s["points"] for s in found[3]] == [[1], pytest.approx([10, 0, 20, 10])]
    assert found[3][1]["label_id"] == 3
    assert found[7][0]["points"] == pytest.approx([20, 0, 25, 5])
    assert 8 not in found

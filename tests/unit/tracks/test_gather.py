import pytest

from agent.contract import Rectangle
from agent.tracks.gather import gather

_ids = iter(range(1, 10**6))


def shape(frame, left, label=1, **more):
    points = [left, 0.0, left + 40.0, 30.0]
    return {"id": next(_ids), "type": "rectangle", "frame": frame, "label_id": label, "points": points, **more}


def test_rectangles_by_label_and_frame():
    found = gather([(1, [shape(3, 10, score=0.5), shape(1, 20), shape(1, 90, label=2)])])
    assert [(s.item.label, s.frame, s.box[0], s.score) for s in found.sightings] == [
        (1, 1, 20, 1.0), (1, 3, 10, 0.5), (2, 1, 90, 1.0),
    ]  # fmt: skip


def test_labels_that_are_not_wanted_and_shapes_that_cannot_be_linked():
    ellipse = {**shape(1, 0), "type": "ellipse"}
    found = gather([(1, [shape(1, 0), shape(1, 0, label=2), ellipse])], [1])
    assert [s.item.label for s in found.sightings] == [1]
    assert found.left == 1


def test_a_turned_rectangle_is_seen_by_what_is_upright_around_it():
    (found,) = gather([(1, [shape(1, 0, rotation=90.0)]), (2, [shape(1, 0, rotation=90.0)])]).sightings
    assert found.box == pytest.approx((5, -5, 35, 35))
    assert found.turned == Rectangle(0, 0, 40, 30, 90)
    assert len(gather([(1, [shape(1, 0, rotation=45.0)]), (2, [shape(1, 0, rotation=135.0)])]).sightings) == 2


def test_the_same_thing_in_two_jobs_that_share_a_frame_is_one_sighting():
    one, other, own = shape(20, 10), shape(20, 10.4), shape(20, 200)
    (first, second) = sorted(gather([(1, [one]), (2, [other, own])]).sightings, key=lambda s: s.box)
    assert first.item.places == ((1, one["id"]), (2, other["id"]))
    assert second.item.places == ((2, own["id"]),)


def test_two_equal_rectangles_in_one_job_are_two():
    found = gather([(1, [shape(5, 10), shape(5, 10)]), (2, [shape(5, 10), shape(5, 10)])])
    assert sorted(len(s.item.places) for s in found.sightings) == [2, 2]

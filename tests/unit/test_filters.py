"""Thresholds, clipping, refusals with their reasons, and what lies over existing shapes."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract import Detection, Ellipse, Keypoint, Mask, Points, Polygon, Polyline, Rectangle, Skeleton
from agent.filters import Filters, filter_detections, leave_out_overlapping, stored_bounds
from agent.labels.match import Thresholds

WIDTH, HEIGHT = 100, 80
NAN = float("nan")


def filters(request=None, per_label=None, default=0.0, **more):
    return Filters(Thresholds(request, per_label or {}, default), **more)


def keep(*shapes, **more):
    """(shapes kept, refusals)."""
    found, refused = filter_detections([Detection("a", shape) for shape in shapes], WIDTH, HEIGHT, filters(**more))
    return [detection.shape for detection in found], dict(refused)


class TestThresholds:
    def test_each_label_has_its_own(self):
        box = Rectangle(0, 0, 9, 9)
        found = [Detection(label, box, score) for label in "ab" for score in (0.2, 0.5, 0.8)]
        kept, refused = filter_detections(found, WIDTH, HEIGHT, filters(None, {"a": 0.6}, 0.5))
        assert [(d.label, d.score) for d in kept] == [("a", 0.8), ("b", 0.5), ("b", 0.8)]
        assert refused == {"below the threshold": 3}
        kept, _ = filter_detections(found, WIDTH, HEIGHT, filters(0.3, {"a": 0.6}, 0.5))
        assert len(kept) == 4

    def test_without_a_score_nothing_is_known_against_it(self):
        kept, refused = filter_detections(
            [Detection("a", None), Detection("a", Rectangle(0, 0, 9, 9))], 10, 10, filters(0.9)
        )
        assert len(kept) == 2
        assert not refused


class TestRefusals:
    @pytest.mark.parametrize(
        "shape",
        [
            Rectangle(NAN, 0, 5, 5), Rectangle(0, 0, float("inf"), 5), Rectangle(0, 0, 5, 5, NAN),
            Ellipse(NAN, 1, 1, 1), Points((1.0, NAN)), Polygon((0, 0, 5, 0, NAN, 5)),
            Skeleton((Keypoint("x", NAN, 1),)),
        ],
        ids=str,
    )  # fmt: skip
    def test_not_finite(self, shape):
        assert keep(shape) == ([], {"not finite": 1})

    @pytest.mark.parametrize(
        "shape",
        [
            Rectangle(5, 5, 5, 9), Rectangle(9, 5, 5, 9), Rectangle(9, 9, 5, 5), Ellipse(5, 5, 0, 3),
            Ellipse(5, 5, -1, -1), Polygon((1, 1, 2, 2, 3, 3)), Mask(np.zeros((3, 3), bool)),
        ],
        ids=str,
    )  # fmt: skip
    def test_without_area(self, shape):
        assert keep(shape, min_area=0) == ([], {"without area": 1})

    @pytest.mark.parametrize(
        "shape",
        [
            Rectangle(-9, 5, 0, 9), Rectangle(100, 0, 110, 9), Ellipse(-1, 5, 9, 9), Points((-1.0, 5.0)),
            Polygon((-5, 0, -1, 0, -1, 9)), Polyline((-5, 0, -1, 90)), Mask(np.ones((3, 3), bool), 100, 0),
            Skeleton((Keypoint("x", 200, 1), Keypoint("y", 5, 5, outside=True))),
        ],
        ids=str,
    )  # fmt: skip
    def test_outside(self, shape):
        assert keep(shape) == ([], {"outside the frame": 1})

    def test_a_skeleton_whose_points_are_all_unsure_is_not_outside_of_the_frame(self):
        unsure = Skeleton(tuple(Keypoint(name, 10, 10, outside=True) for name in "ab"))
        assert keep(unsure) == ([], {"skeleton without a visible point": 1})
        assert keep(Skeleton((Keypoint("a", -5, 10),))) == ([], {"outside the frame": 1})

    def test_small_after_clipping(self):
        shapes = [Rectangle(-5, 0, 0.5, 1), Rectangle(0, 0, 3, 3), Rectangle(0, 0, 3, 3.5)]
        assert keep(*shapes, min_area=10) == ([shapes[2]], {"smaller than --min-area": 2})
        assert keep(Points((1.0, 1.0)), Polyline((1, 1, 2, 2)), min_area=50)[1] == {}
        assert keep(Rectangle(-5, 0, 0.5, 1), min_area=0)[1] == {}

    def test_masks_by_their_pixels(self):
        bitmap = np.zeros((HEIGHT, WIDTH), bool)
        bitmap[10:12, 10:13] = True
        ((mask,), refused) = keep(Mask(bitmap), min_area=6)
        assert not refused
        assert (mask.left, mask.top, mask.bitmap.shape) == (10, 10, (2, 3))
        assert keep(Mask(bitmap), min_area=7)[1] == {"smaller than --min-area": 1}


def test_what_fits_is_kept_as_it_is():
    found = [Detection("a", Rectangle(0, 0, WIDTH, HEIGHT), 0.5), Detection("a", None, 0.1)]
    kept, refused = filter_detections(found, WIDTH, HEIGHT, filters())
    assert all(one is other for one, other in zip(kept, found, strict=True))
    assert not refused


def test_everything_else_of_a_clipped_detection_stays():
    detection = Detection("a", Rectangle(-5, 0, 50, 50), 0.5, {"x": "y"}, 7, 8, True, 3)
    ((kept,), _) = filter_detections([detection], WIDTH, HEIGHT, filters())
    assert kept == Detection("a", Rectangle(0, 0, 50, 50), 0.5, {"x": "y"}, 7, 8, True, 3)


def test_parts_of_one_detection_are_a_group_that_no_other_has():
    comb = Polygon((5, 10, 5, -5, 25, -5, 25, 10, 20, 10, 20, -2, 10, -2, 10, 10))
    found = [
        Detection("a", comb),
        Detection("a", Rectangle(0, 0, 5, 5), group=1),
        Detection("b", comb),
        Detection("c", comb, group=1),
    ]
    kept, _ = filter_detections(found, WIDTH, HEIGHT, filters())
    assert [(detection.label, detection.group) for detection in kept] == [
        ("a", 2), ("a", 2), ("a", 1), ("b", 3), ("b", 3), ("c", 1), ("c", 1),
    ]  # fmt: skip


def test_the_best_of_a_frame_in_their_order():
    scores = [0.3, 0.9, None, 0.5, 0.9]
    found = [Detection("a", Rectangle(0, 0, 9, 9), score) for score in scores]
    kept, refused = filter_detections(found, WIDTH, HEIGHT, filters(max_per_frame=3))
    assert [detection.score for detection in kept] == [0.9, None, 0.9]
    assert refused == {"more than --max-per-frame": 2}


@given(
    st.lists(
        st.tuples(st.floats(), st.floats(), st.floats(), st.floats(), st.floats(0, 1), st.floats(-400, 400)), max_size=8
    )
)
def test_every_detection_is_kept_or_counted_and_upright_ones_lie_inside(values):
    found = [Detection("a", Rectangle(*box, rotation=turn if turn > 0 else 0), score) for *box, score, turn in values]
    kept, refused = filter_detections(found, WIDTH, HEIGHT, filters(0.3))
    assert len(kept) + refused.total() == len(found)
    for detection in kept:
        box = detection.shape
        assert detection.score >= 0.3
        if not box.rotation:
            assert 0 <= box.left < box.right <= WIDTH
            assert 0 <= box.top < box.bottom <= HEIGHT


LABEL_IDS = {"a": 1, "also a": 1, "b": 2}


class TestOverlapping:
    def leave(self, *shapes, existing, limit, label="a"):
        found = [Detection(label, shape) for shape in shapes]
        kept, count = leave_out_overlapping(found, LABEL_IDS, existing, limit)
        assert len(kept) + count == len(found)
        return [detection.shape for detection in kept]

    def stored(self, kind, points, label=1, **more):
        return {"type": kind, "points": points, "label_id": label, **more}

    def test_of_the_same_task_label_only(self):
        box, far = Rectangle(0, 0, 10, 10), Rectangle(50, 50, 60, 60)
        existing = [self.stored("rectangle", [0, 0, 10, 10])]
        assert self.leave(box, far, existing=existing, limit=0.9) == [far]
        assert self.leave(box, existing=existing, limit=0.9, label="also a") == []
        assert self.leave(box, existing=existing, limit=0.9, label="b") == [box]
        assert self.leave(box, existing=[], limit=0.0) == [box]

    def test_from_the_limit_on(self):
        existing = [self.stored("rectangle", [0, 0, 10, 10])]
        half = Rectangle(0, 0, 10, 5)
        assert self.leave(half, existing=existing, limit=0.5) == []
        assert self.leave(half, existing=existing, limit=0.51) == [half]

    def test_a_limit_of_nothing_means_any_overlap(self):
        existing = [self.stored("rectangle", [0, 0, 10, 10])]
        beside, over = Rectangle(10, 0, 20, 10), Rectangle(9, 9, 20, 20)
        assert self.leave(beside, over, existing=existing, limit=0) == [beside]

    def test_tags_are_no_shapes(self):
        assert self.leave(None, existing=[self.stored("rectangle", [0, 0, 10, 10])], limit=0) == [None]

    @pytest.mark.parametrize(
        ("item", "box"),
        [
            ({"type": "rectangle", "points": [1, 2, 3, 4]}, (1, 2, 3, 4)),
            ({"type": "rectangle", "points": [0, 0, 10, 4], "rotation": 90}, (3, -3, 7, 7)),
            ({"type": "mask", "points": [0, 6, 5, 6, 7, 7]}, (5, 6, 8, 8)),
            ({"type": "ellipse", "points": [10, 10, 15, 7]}, (5, 7, 15, 13)),
            ({"type": "polygon", "points": [1, 2, 5, 2, 3, 9]}, (1, 2, 5, 9)),
            ({"type": "skeleton", "points": [], "elements": [
                {"points": [1, 2]}, {"points": [5, 3], "outside": False}, {"points": [90, 90], "outside": True},
            ]}, (1, 2, 5, 3)),
            ({"type": "skeleton", "points": []}, None),
            ({"type": "rectangle", "points": [1, 2, 3, 4], "outside": True}, None),
        ],
    )  # fmt: skip
    def test_bounds_of_what_the_server_stores(self, item, box):
        found = stored_bounds(item)
        assert found is None if box is None else tuple(found) == pytest.approx(box)


def test_a_busy_frame_takes_little_time():
    rng = np.random.default_rng(0)
    corner = rng.uniform(-20, 1900, (300, 2))
    found = [
        Detection(f"l{n % 80}", Rectangle(x, y / 2, x + 50, y / 2 + 60), float(s))
        for n, ((x, y), s) in enumerate(zip(corner.tolist(), rng.random(300), strict=True))
    ]
    best = min(_seconds(lambda: filter_detections(found, 1920, 1080, filters(0.1))) for _ in range(5))
    assert best < 0.01, "about 0.6 ms where nothing else runs"


def _seconds(step):
    began = time.process_time()
    step()
    return time.process_time() - began

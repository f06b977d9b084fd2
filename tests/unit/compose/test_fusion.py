import numpy as np
import pytest

from agent.compose.fusion import fuse, overlaps
from agent.compose.merging import merge
from agent.contract import Detection, Mask, Points, Rectangle


def box(left, top, right, bottom, score, label="car"):
    return Detection(label, Rectangle(left, top, right, bottom), score)


def disc(x, y, radius, score, size=64):
    ys, xs = np.mgrid[0:size, 0:size]
    return Detection("cell", Mask((xs - x) ** 2 + (ys - y) ** 2 <= radius**2), score)


def test_what_all_models_see_is_their_weighted_mean():
    (found,) = fuse([[box(0, 0, 100, 100, 0.9)], [box(10, 0, 110, 100, 0.3)]], "wbf", 0.55)
    assert (found.shape.left, found.shape.right) == pytest.approx((2.5, 102.5))  # by scores 3 : 1
    assert found.score == pytest.approx(0.6)


def test_what_one_of_two_sees_counts_half():
    (found,) = fuse([[box(0, 0, 100, 100, 0.8)], []], "wbf", 0.55)
    assert found.score == pytest.approx(0.4)


def test_weights_say_whom_to_believe():
    groups = [[box(0, 0, 100, 100, 0.8)], [box(10, 0, 110, 100, 0.8)]]
    (found,) = fuse(groups, "wbf", 0.55, [3, 1])
    assert found.shape.left == pytest.approx(2.5)
    (alone,) = fuse([[box(0, 0, 100, 100, 0.8)], []], "wbf", 0.55, [3, 1])
    assert alone.score == pytest.approx(0.6)


@pytest.mark.parametrize("method", ["wbf", "nms", "soft-nms"])
def test_labels_and_distant_things_never_touch_each_other(method):
    groups = [[box(0, 0, 50, 50, 0.9), box(300, 0, 350, 50, 0.5)], [box(0, 0, 50, 50, 0.7, "bus")]]
    assert sorted((d.label, d.shape.left) for d in fuse(groups, method, 0.5)) == [("bus", 0), ("car", 0), ("car", 300)]


def test_nms_keeps_the_best_of_each_heap():
    groups = [[box(0, 0, 100, 100, 0.6)], [box(5, 0, 105, 100, 0.9), box(60, 0, 160, 100, 0.5)]]
    assert [(d.shape.left, d.score) for d in fuse(groups, "nms", 0.5)] == [(5, 0.9), (60, 0.5)]


def test_soft_nms_lowers_what_overlaps_and_drops_what_is_the_same():
    groups = [[box(0, 0, 100, 100, 0.9)], [box(25, 0, 125, 100, 0.8), box(0, 0, 100, 101, 0.7)]]
    first, second = fuse(groups, "soft-nms", 0.5)
    assert (first.shape.left, first.score) == (0, 0.9)
    assert second.shape.left == 25
    assert second.score == pytest.approx(0.8 * np.exp(-(0.6**2) / 0.5))


def test_masks_are_voted_on_pixel_by_pixel():
    groups = [[disc(30, 30, 10, 0.9)], [disc(32, 30, 10, 0.9)], [disc(30, 31, 10, 0.9)]]
    (found,) = fuse(groups, "wbf", 0.5)
    whole = np.zeros((64, 64), bool)
    rows, columns = found.shape.bitmap.shape
    whole[found.shape.top : found.shape.top + rows, found.shape.left : found.shape.left + columns] = found.shape.bitmap
    votes = sum(group[0].shape.bitmap.astype(int) for group in groups)
    assert (whole == (votes >= 2)).all()
    assert found.score == pytest.approx(0.9)


def test_masks_of_the_same_box_but_other_pixels_are_two_things():
    one = Detection("cell", Mask(np.triu(np.ones((40, 40), bool), 5)), 0.9)
    other = Detection("cell", Mask(np.tril(np.ones((40, 40), bool), -5)), 0.8)
    assert overlaps([one.shape, other.shape])[0, 1] == 0
    assert len(fuse([[one], [other]], "wbf", 0.5)) == 2


def test_tags_count_once_and_points_are_chosen_among():
    tags = [[Detection("night", None, 0.4)], [Detection("night", None, 0.7)]]
    assert [(d.label, d.score) for d in fuse(tags, "wbf", 0.5)] == [("night", 0.7)]
    points = [[Detection("p", Points((0, 0, 10, 10)), 0.9)], [Detection("p", Points((0, 0, 10, 11)), 0.4)]]
    (found,) = fuse(points, "wbf", 0.5)
    assert found.shape.points == (0, 0, 10, 10)


def test_nothing_gives_nothing():
    assert fuse([[], []], "wbf", 0.5) == []


class TestMerge:
    def test_pieces_on_both_sides_of_a_border_become_the_whole(self):
        pieces = [box(500, 10, 640, 90, 0.6), box(512, 10, 700, 90, 0.8)]
        (found,) = merge(pieces, [True, True])
        assert (found.shape.left, found.shape.right, found.score) == (500, 700, 0.8)

    def test_a_whole_thing_swallows_its_pieces_and_does_not_grow(self):
        pieces = [box(500, 10, 640, 90, 0.9), box(500, 10, 700, 90, 0.5)]
        (found,) = merge(pieces, [True, False])
        assert (found.shape.right, found.score) == (700, 0.5)

    def test_neighbours_stay_two(self):
        assert len(merge([box(0, 0, 50, 50, 0.9), box(45, 0, 95, 50, 0.9)], [True, True])) == 2

    def test_masks_are_united(self):
        one, other = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
        one[5:15, 0:30], other[5:15, 10:40] = True, True
        found = merge(
            [Detection("cell", Mask(one, 100, 50), 0.8), Detection("cell", Mask(other, 100, 50), 0.7)], [True, True]
        )
        assert [d.shape.bitmap.sum() for d in found] == [400]

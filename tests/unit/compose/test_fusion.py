import numpy as np
import pytest

from agent.compose.fusion import fuse
from agent.compose.merging import Piece, merge
from agent.contract import Detection, Mask, Points, Rectangle
from agent.shapes.overlap import overlaps


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


def turned(x, y, degrees, score, length=100, width=20):
    shape = Rectangle(x - length / 2, y - width / 2, x + length / 2, y + width / 2, degrees)
    return Detection("ship", shape, score)


@pytest.mark.parametrize("method", ["wbf", "nms", "soft-nms"])
def test_ships_side_by_side_are_two_however_their_upright_boxes_overlap(method):
    one, other = turned(100, 100, 45, 0.9), turned(100 - 22 * 0.7071, 100 + 22 * 0.7071, 45, 0.8)
    found = fuse([[one], [other]], method, 0.5, known=[{"ship"}, ()])
    assert [d.shape for d in found] == [one.shape, other.shape]


def test_turned_rectangles_overlap_by_what_they_share():
    assert overlaps([turned(0, 0, 30, 1).shape, turned(0, 0, 30, 1).shape])[0, 1] == pytest.approx(1)
    # Half of it, shifted along its length.
    along = 50 * np.cos(np.pi / 6), 50 * np.sin(np.pi / 6)
    assert overlaps([turned(0, 0, 30, 1).shape, turned(*along, 30, 1).shape])[0, 1] == pytest.approx(1 / 3)
    # A cross: 20 x 20 of 100 x 20 and 20 x 100.
    assert overlaps([turned(0, 0, 10, 1).shape, turned(0, 0, 100, 1).shape])[0, 1] == pytest.approx(400 / 3600)
    assert overlaps([turned(0, 0, 45, 1).shape, Rectangle(40, -40, 60, -20)])[0, 1] == 0


def test_who_has_no_word_for_a_thing_is_not_asked_whether_it_agrees():
    groups = [[box(0, 0, 100, 100, 0.8)], []]
    (found,) = fuse(groups, "wbf", 0.55, known=[{"car"}, {"forklift"}])
    assert found.score == pytest.approx(0.8)
    (found,) = fuse(groups, "wbf", 0.55, known=[{"car"}, {"car", "forklift"}])
    assert found.score == pytest.approx(0.4)


def test_weights_of_soft_nms_are_no_part_of_the_score():
    groups = [[box(0, 0, 100, 100, 0.4)], [box(25, 0, 125, 100, 0.9)]]
    first, second = fuse(groups, "soft-nms", 0.5, [3, 1])
    assert (second.shape.left, second.score) == (0, 0.4)  # it was believed first
    assert first.shape.left == 25
    assert first.score == pytest.approx(0.9 * np.exp(-(0.6**2) / 0.5))


def test_what_belongs_together_in_one_group_does_not_belong_to_another_groups():
    def grouped(left, label, group):
        return Detection(label, Rectangle(left, 0, left + 10, 10), 0.9, group=group)

    found = fuse(
        [[grouped(0, "car", 1), grouped(20, "plate", 1)], [grouped(100, "car", 1), grouped(120, "plate", 1)]],
        "nms",
        0.5,
    )
    groups = {d.shape.left: d.group for d in found}
    assert groups[0] == groups[20] != groups[100] == groups[120]


LEFT, RIGHT, WHOLE = (0, 0, 640, 100), (512, 0, 1152, 100), (0, 0, 1152, 100)


def cut(detection, view):
    return Piece(detection, view, cut=True)


class TestMerge:
    def test_pieces_on_both_sides_of_a_border_become_the_whole(self):
        pieces = [cut(box(500, 10, 640, 90, 0.6), LEFT), cut(box(512, 10, 700, 90, 0.8), RIGHT)]
        (found,) = merge(pieces, 0.5)
        assert (found.shape.left, found.shape.right, found.score) == (500, 700, 0.8)

    def test_a_long_thing_is_put_together_however_little_of_it_both_views_see(self):
        pieces = [cut(box(20, 10, 640, 90, 0.6), LEFT), cut(box(512, 10, 1100, 90, 0.8), RIGHT)]
        (found,) = merge(pieces, 0.5)
        assert (found.shape.left, found.shape.right) == (20, 1100)

    def test_a_whole_thing_swallows_its_pieces_and_does_not_grow(self):
        pieces = [cut(box(500, 10, 640, 90, 0.9), LEFT), Piece(box(500, 10, 700, 90, 0.5), WHOLE)]
        (found,) = merge(pieces, 0.5)
        assert (found.shape.right, found.score) == (700, 0.5)

    def test_neighbours_stay_two(self):
        pieces = [cut(box(500, 0, 560, 50, 0.9), LEFT), cut(box(555, 0, 640, 50, 0.9), RIGHT)]
        assert len(merge(pieces, 0.5)) == 2

    def test_a_small_thing_before_a_large_one_is_not_swallowed(self):
        pieces = [Piece(box(100, 0, 600, 90, 0.9), WHOLE), Piece(box(530, 20, 580, 60, 0.8), RIGHT)]
        assert len(merge(pieces, 0.5)) == 2

    def test_what_one_view_tells_apart_stays_apart(self):
        pieces = [Piece(box(100, 0, 200, 90, 0.9), LEFT), Piece(box(110, 0, 210, 90, 0.8), LEFT)]
        assert len(merge(pieces, 0.5)) == 2

    def test_masks_are_united(self):
        one, other = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
        one[5:15, 0:30], other[5:15, 10:40] = True, True
        found = merge(
            [
                cut(Detection("cell", Mask(one, 100, 50), 0.8), (0, 0, 130, 200)),
                cut(Detection("cell", Mask(other, 100, 50), 0.7), (110, 0, 240, 200)),
            ],
            0.5,
        )
        assert [d.shape.bitmap.sum() for d in found] == [400]

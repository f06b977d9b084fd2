"""From maps with planted regions to masks, outlines, lines of text and words."""

import numpy as np
import pytest

from adapters._crops import crop
from adapters._masks import connected_parts
from adapters._torch import import_torch
from adapters.huggingface.masks import filled, mask_of, polygon_of, rectangle_of
from adapters.huggingface.queries import Queries
from adapters.huggingface.recognition import ctc_line
from adapters.huggingface.semantic import Regions
from adapters.huggingface.text_detection import _lines
from agent.contract import Context, Frame, Mask, Polygon, Rectangle
from agent.errors import ConfigError

torch = import_torch()

EMPTY = Frame(0, "empty", np.zeros((80, 120, 3), np.uint8))


def box(height, width, left, top, right, bottom):
    bitmap = np.zeros((height, width), bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


def whole(mask, height, width):
    bitmap = np.zeros((height, width), bool)
    rows, columns = mask.bitmap.shape
    bitmap[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.bitmap
    return bitmap


def test_a_mask_is_no_larger_than_its_pixels():
    mask = mask_of(box(60, 90, 10, 20, 40, 50))
    assert (mask.left, mask.top, mask.bitmap.shape) == (10, 20, (30, 30))
    assert mask.bitmap.base is None, "a view would keep the frame's bitmap in memory"
    assert mask_of(np.zeros((5, 5), bool)) is None


def test_parts_come_by_size_and_specks_do_not():
    bitmap = box(60, 90, 10, 20, 40, 50) | box(60, 90, 60, 5, 80, 15) | box(60, 90, 0, 0, 2, 2)
    mask = mask_of(bitmap)
    found = list(connected_parts(mask, smallest=5))
    assert [int(one.bitmap.sum()) for one in found] == [900, 200]
    assert (found[1].left, found[1].top) == (60, 5)
    assert len(list(connected_parts(mask))) == 3


def test_a_rectangle_and_an_outline_go_around_the_largest_part():
    mask = mask_of(box(60, 90, 10, 20, 40, 50) | box(60, 90, 80, 0, 90, 5))
    assert rectangle_of(mask) == Rectangle(10.0, 20.0, 40.0, 50.0)
    outline = polygon_of(mask)
    corners = set(zip(outline.points[0::2], outline.points[1::2], strict=True))
    assert corners == {(10.0, 20.0), (40.0, 20.0), (40.0, 50.0), (10.0, 50.0)}


def test_an_outline_of_one_pixel_is_a_polygon():
    assert len(polygon_of(mask_of(box(9, 9, 4, 4, 5, 5))).points) >= 6


def test_polygons_are_filled_to_their_edges():
    np.testing.assert_array_equal(
        filled(Polygon((10, 20, 40, 20, 40, 50, 10, 50)), 60, 90), box(60, 90, 10, 20, 40, 50)
    )
    half = filled(Polygon((0, 0, 10, 0, 0, 10)), 10, 10)
    assert half.sum() in (45, 55)
    assert filled(Polygon((-20, -20, 500, -20, 500, 500, -20, 500)), 7, 9).all()
    mask = mask_of(box(60, 90, 10, 20, 40, 50))
    np.testing.assert_array_equal(filled(polygon_of(mask), 60, 90), filled(mask, 60, 90))


def test_a_mask_that_hangs_over_the_edge_is_filled_as_far_as_the_frame_goes():
    mask = Mask(np.ones((30, 30), bool), -10, 45)
    np.testing.assert_array_equal(filled(mask, 60, 90), box(60, 90, 0, 45, 20, 60))
    assert not filled(Mask(np.ones((3, 3), bool), 500, 500), 60, 90).any()


# ------------------------------------------------------------------------------------------------- queries


def planted(*regions, height=20, width=30, classes=3):
    """Queries that are sure of (class, score, left, top, right, bottom), and one that sees nothing."""
    logits = torch.zeros(len(regions) + 1, classes + 1)
    masks = torch.full((len(regions) + 1, height, width), -8.0)
    for number, (index, score, *edges) in enumerate(regions):
        others = torch.full((classes + 1,), (1 - score) / classes)
        others[index] = score
        logits[number] = others.log()
        masks[number][torch.from_numpy(box(height, width, *edges))] = 8.0
    logits[-1, -1] = 9.0
    return Queries.of(logits, masks, classes)


def test_instances_may_overlap_and_count_their_mask():
    queries = planted((0, 0.9, 2, 2, 12, 12), (1, 0.6, 8, 8, 20, 18), (2, 0.3, 0, 0, 3, 3))
    found = list(queries.instances(40, 60, 0.5))
    assert [one[0] for one in found] == [0, 1]
    assert found[0][1] == pytest.approx(0.9, abs=0.05)
    assert found[0][2].left in (3, 4)
    overlap = whole(found[0][2], 40, 60) & whole(found[1][2], 40, 60)
    assert overlap.sum() > 40


def test_panoptic_regions_share_nothing_and_leave_out_what_others_cover():
    queries = planted((0, 0.9, 2, 2, 12, 12), (1, 0.6, 11, 2, 25, 12), (2, 0.5, 3, 3, 11, 11))
    found = list(queries.panoptic(20, 30, 0.4))
    assert [one[0] for one in found] == [0, 1], "the third lies under the first"
    both = whole(found[0][2], 20, 30) & whole(found[1][2], 20, 30)
    assert not both.any()
    assert whole(found[0][2], 20, 30).sum() == 100


def test_a_query_of_a_model_without_a_class_for_nothing():
    logits = torch.tensor([[3.0, -3.0]])
    queries = Queries.of(logits, torch.full((1, 4, 4), 5.0), classes=2)
    ((index, score, _),) = queries.instances(8, 8, 0.5)
    assert index == 0
    assert score == pytest.approx(torch.tensor(3.0).sigmoid().item(), abs=0.01)


def test_padding_is_left_out():
    queries = Queries(torch.tensor([[0.9]]), torch.full((1, 10, 10), -5.0), torch.tensor([False]), (0.5, 1.0))
    queries.masks[0, 5:] = 5.0  # only the padding
    queries.masks[0, 0] = 5.0
    ((_, _, mask),) = queries.instances(50, 100, 0.1)
    assert mask.top + mask.bitmap.shape[0] < 20


# ------------------------------------------------------------------------------------------------- classes


def maps(*classes, height=8, width=12):
    """(C, h, w) logits; the last class is that of everything else."""
    found = torch.zeros(len(classes) + 1, height, width)
    for number, edges in enumerate(classes):
        found[number][torch.from_numpy(box(height, width, *edges))] = 6.0
    found[-1] = 1.0
    return found


def test_regions_of_classes_split_and_whole():
    two = maps((0, 0, 3, 3), (9, 5, 12, 8))
    two[0][5:8, 0:2] = 6.0
    frame = Frame(0, "f", np.zeros((8, 12, 3), np.uint8))
    names = ["road", "car", ""]
    together = Regions(names)(two, two.softmax(0), frame, Context())
    assert {one.label: int(one.shape.bitmap.sum()) for one in together} == {"road": 15, "car": 9}
    apart = Regions(names, split=True, smallest=7)(two, two.softmax(0), frame, Context())
    assert sorted((one.label, int(one.shape.bitmap.sum())) for one in apart) == [("car", 9), ("road", 9)]
    assert all(0.9 < one.score <= 1 for one in apart)
    assert Regions(names)(two, two.softmax(0), frame, Context(labels=frozenset({"car"})))[0].label == "car"
    assert Regions(names)(two, two.softmax(0), frame, Context(threshold=0.9999)) == []
    with pytest.raises(ConfigError, match="smallest_region: got 0"):
        Regions.by_options(names, False, 0, "hf:x")


# ------------------------------------------------------------------------------------------------- text


def test_lines_of_text_are_found_turned_as_they_are():
    import cv2

    chances = np.zeros((160, 240), np.float32)
    cv2.fillPoly(chances, [cv2.boxPoints(((120, 80), (100, 16), 20)).astype(np.int32)], 0.9)
    chances[140:150, 20:80] = 0.8
    chances[5, 5] = 1.0
    found = sorted(_lines(chances, EMPTY, 0.6), key=lambda line: line[0].top)
    assert len(found) == 2
    turned, score = found[0]
    assert turned.rotation == pytest.approx(20, abs=1)
    assert score == pytest.approx(0.9, abs=0.08)
    assert ((turned.left + turned.right) / 2, (turned.top + turned.bottom) / 2) == pytest.approx((60, 40), abs=1)
    assert 50 < turned.right - turned.left < 66, "a line is found shrunk, and given its size again"
    level = found[1][0]
    assert level.rotation == 0
    assert level.left < 10 < 40 < level.right
    assert level.bottom <= EMPTY.height
    assert len(_lines(chances, EMPTY, 0.82)) == 1


def test_words_are_read_as_ctc_has_them():
    characters = ["blank", "a", "b", " "]
    chances = np.full((8, 4), 0.02, np.float32)
    for column, index in enumerate([1, 1, 0, 1, 2, 2, 3, 0]):
        chances[column, index] = 0.9
    assert ctc_line(chances, characters) == ("aab", pytest.approx(0.9))
    assert ctc_line(np.eye(4, dtype=np.float32)[[0, 0]], characters) == ("", 0.0)


def test_a_crop_is_turned_back():
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:60, 20:80] = 50
    image[40:60, 20:30] = 250
    upright = crop(image, Rectangle(20, 40, 80, 60))
    np.testing.assert_array_equal(upright, image[40:60, 20:80])
    # The same line turned by a quarter, clockwise: its bright end is on top.
    turned = np.rot90(image, -1).copy()
    back = crop(turned, Rectangle(20, 40, 80, 60, 90))
    assert back.shape == (20, 60, 3)
    assert back[:, 2:8].mean() > 240
    assert back[:, 15:55].mean() == pytest.approx(50, abs=2)
    assert crop(turned, Rectangle(-50, -50, -40, -45, 5)).max() == 0
    assert crop(turned, Rectangle(5, 5, 5, 5)).shape == (1, 1, 3)
    # A full turn, in four: each pixel comes from where it was.
    for rotation in (0.0, 360.0):
        np.testing.assert_array_equal(crop(image, Rectangle(20, 40, 81, 60, rotation)), image[40:60, 20:81])

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.compose.mirroring import mirrored, scaled
from agent.compose.tiles import tiles_of
from agent.contract import Cuboid, Detection, Ellipse, Keypoint, Mask, Polygon, Rectangle, Skeleton
from agent.shapes.geometry import bounds

MASK = np.zeros((6, 9), bool)
MASK[1:4, 2:5] = True
SHAPES = [
    Rectangle(10, 20, 30, 40, 15),
    Ellipse(30, 30, 10, 5, 40),
    Polygon((1, 2, 20, 3, 15, 30)),
    Mask(MASK, 7, 3),
    Cuboid((10, 10, 10, 40, 30, 12, 30, 38, 50, 8, 50, 36, 70, 9, 70, 37)),
    Skeleton((Keypoint("left eye", 10, 10), Keypoint("right eye", 20, 10), Keypoint("nose", 15, 15))),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.type)
def test_twice_in_the_mirror_is_as_before(shape):
    there = mirrored(Detection("x", shape), 100, {})
    back = mirrored(there, 100, {})
    assert bounds(back.shape) == pytest.approx(bounds(shape))
    left, top, right, bottom = bounds(shape)
    assert bounds(there.shape) == pytest.approx((100 - right, top, 100 - left, bottom))
    if isinstance(shape, Mask):
        assert (back.shape.bitmap == shape.bitmap).all()
    elif not isinstance(shape, Skeleton):
        assert back.shape == shape


def test_left_is_right_in_the_mirror():
    found = mirrored(Detection("face", SHAPES[-1]), 100, {})
    assert {e.label: e.x for e in found.shape.elements} == {"right eye": 90, "left eye": 80, "nose": 85}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left_wrist", "right_wrist"),
        ("Left Eye", "Right Eye"),
        ("l_hip", "r_hip"),
        ("ankle-R", "ankle-L"),
        ("nose", "nose"),
    ],
)
def test_a_point_whose_other_side_is_not_seen_changes_its_side_too(name, other):
    seen = Detection("person", Skeleton((Keypoint(name, 10, 10),)))
    (point,) = mirrored(seen, 100, {"person": (name, other)}).shape.elements
    assert (point.label, point.x) == (other, 90)


def test_a_left_hand_is_a_right_hand_where_there_are_both():
    labels = {"left hand": (), "right hand": (), "bright light": (), "left turn": ()}
    there = [mirrored(Detection(name, shape), 100, labels).label for name in labels for shape in (None, SHAPES[0])]
    assert there == ["right hand"] * 2 + ["left hand"] * 2 + ["bright light"] * 2 + ["left turn"] * 2


def test_a_cuboids_left_edge_comes_first():
    points = mirrored(Detection("x", SHAPES[4]), 100, {}).shape.points
    assert points[:4] == (70, 12, 70, 38)
    assert points[4:8] == (90, 10, 90, 40)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.type)
def test_half_the_size_and_back(shape):
    small = scaled(Detection("x", shape), 0.5, 0.5, (50, 50))
    assert bounds(scaled(small, 2, 2, (100, 100)).shape) == pytest.approx(bounds(shape), abs=2.01)


def test_a_mask_grows_pixel_by_pixel():
    found = scaled(Detection("x", Mask(MASK, 0, 0)), 2, 2, (18, 12)).shape
    assert (found.bitmap == np.kron(MASK, np.ones((2, 2), bool))).all()


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(32, 1000), st.floats(0, 0.85))
def test_tiles_cover_the_picture_and_overlap(width, height, size, overlap):
    tiles = tiles_of(width, height, size, overlap)
    for low, high, length in (("left", "right", width), ("top", "bottom", height)):
        spans = sorted({(getattr(tile, low), getattr(tile, high)) for tile in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(high - low <= size for low, high in spans)
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= int(overlap * size) - 1

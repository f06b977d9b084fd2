"""Preparation of pictures: values, placement, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters._networks.pictures import Recipe, place, placement

RGB = np.array([10, 100, 200], np.uint8)


def prepared(image, recipe, size=(64, 64), dtype=np.float32):
    target = np.zeros((3, *size), dtype)
    return target, place(image, recipe, target)


def plain(height, width):
    return np.broadcast_to(RGB, (height, width, 3)).copy()


def test_values_and_bars_of_a_letterbox():
    target, placement = prepared(plain(32, 64), Recipe(pad=114), (64, 64))
    assert (placement.scale_x, placement.scale_y, placement.left, placement.top) == (1, 1, 0, 16)
    np.testing.assert_allclose(target[:, 32, 32], RGB / 255, rtol=1e-6)
    np.testing.assert_allclose(target[:, [0, 15, 48, 63], 5], 114 / 255, rtol=1e-6)
    np.testing.assert_allclose(target[:, 16, 0], RGB / 255, rtol=1e-6)


def test_top_left_bgr_and_normalisation():
    recipe = Recipe("letterbox-top-left", "bgr", 1.0, (1.0, 2.0, 3.0), (2.0, 4.0, 8.0), pad=0)
    target, placement = prepared(plain(32, 64), recipe)
    assert placement.top == 0
    np.testing.assert_allclose(target[:, 3, 3], (RGB[::-1] - [1, 2, 3]) / [2, 4, 8], rtol=1e-6)
    np.testing.assert_allclose(target[:, 40, 3], -np.array([1, 2, 3]) / [2, 4, 8], rtol=1e-6)


def test_bytes_stay_bytes_and_halves_are_close():
    target, _ = prepared(plain(64, 64), Recipe(scale=1.0), dtype=np.uint8)
    assert target[:, 9, 9].tolist() == RGB.tolist()
    half, _ = prepared(plain(64, 64), Recipe(), dtype=np.float16)
    np.testing.assert_allclose(half[:, 9, 9], RGB / 255, rtol=1e-2)


@pytest.mark.parametrize("resize", ["letterbox", "letterbox-top-left", "stretch"])
@given(width=st.integers(1, 900), height=st.integers(1, 900))
def test_a_box_goes_there_and_back(resize, width, height):
    target = np.zeros((3, 48, 80), np.float32)
    placement = place(np.zeros((height, width, 3), np.uint8), Recipe(resize=resize), target)
    box = np.array([[0.2 * width, 0.3 * height, 0.7 * width, 0.9 * height], [0, 0, width, height]], np.float32)
    scale = np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
    inside = box * scale + np.array([placement.left, placement.top] * 2, np.float32)
    assert inside.min() >= -1e-3
    assert (inside[:, [0, 2]] <= 80 + 1e-3).all()
    assert (inside[:, [1, 3]] <= 48 + 1e-3).all()
    np.testing.assert_allclose(placement.to_frame(inside, width, height), box, atol=max(width, height) * 1e-4)
    assert np.isfinite(target).all()


@pytest.mark.parametrize("resize", ["letterbox", "letterbox-top-left"])
def test_the_longer_side_fills_the_input(resize):
    """Of 23 * (416 / 23) a computer makes 415.99…: no pixel may be lost to that."""
    for side in (416, 640, 1024):
        for width in range(1, 3000, 7):
            where = placement(width, max(1, width // 2), side, side, Recipe(resize=resize))
            assert where.scale_x * width == pytest.approx(side, abs=1e-6)

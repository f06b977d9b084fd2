"""Shapes as a type and flat points, there and back."""

import numpy as np
import pytest
from cvat_sdk.masks import decode_mask, encode_mask
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.contract import Cuboid, Ellipse, Keypoint, Mask, Points, Polygon, Polyline, Rectangle, Skeleton
from agent.errors import BadRequest
from agent.flat_shapes import MASK_PIXELS, read_shape, write_shape

SHAPES = {
    "rectangle": ([1.0, 2.0, 30.0, 40.5], Rectangle(1, 2, 30, 40.5)),
    "ellipse": ([40.0, 30.0, 50.0, 10.0], Ellipse(40, 30, 10, 20)),
    "polygon": ([1.0, 2.0, 3.0, 4.0, 5.0, 0.0], Polygon((1, 2, 3, 4, 5, 0))),
    "polyline": ([1.0, 2.0, 3.0, 4.0], Polyline((1, 2, 3, 4))),
    "points": ([1.0, 2.0], Points((1, 2))),
    "cuboid": ([float(n) for n in range(16)], Cuboid(tuple(float(n) for n in range(16)))),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_there_and_back(kind):
    points, shape = SHAPES[kind]
    assert read_shape({"type": kind, "points": points, "attributes": []}) == shape
    assert write_shape(shape) == {"type": kind, "points": points}


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any))
def test_masks_as_the_sdk_writes_them(bitmap):
    frame = np.pad(bitmap, ((2, 3), (4, 5)))
    height, width = frame.shape
    points = encode_mask(frame)
    mask = read_shape({"type": "mask", "points": points})
    drawn = np.zeros_like(frame)
    drawn[mask.top : mask.top + mask.bitmap.shape[0], mask.left : mask.left + mask.bitmap.shape[1]] = mask.bitmap
    np.testing.assert_array_equal(drawn, frame)
    np.testing.assert_array_equal(
        decode_mask(write_shape(mask)["points"], image_width=width, image_height=height), frame
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "got the type None"),
        ({}, "got the type None"),
        ({"type": "skeleton", "points": []}, "got the type 'skeleton'"),
        ({"type": "blob", "points": [1, 2]}, "got the type 'blob', allowed: rectangle"),
        ({"type": "rectangle"}, "points: got NoneType"),
        ({"type": "rectangle", "points": "1234"}, "points: got str"),
        ({"type": "rectangle", "points": [1, 2, 3, "4"]}, "a list of numbers"),
        ({"type": "rectangle", "points": [1, 2, 3, True]}, "a list of numbers"),
        ({"type": "rectangle", "points": [1, 2, 3, float("nan")]}, "a list of numbers"),
        ({"type": "rectangle", "points": [1, 2, 3]}, "rectangle: got 3 numbers, allowed: 4"),
        ({"type": "polygon", "points": [1, 2, 3, 4]}, "polygon: got 4 numbers"),
        ({"type": "mask", "points": [1, 2, 3]}, "mask: allowed: lengths of runs"),
        ({"type": "mask", "points": [0, 4, 0, 0, 1.5, 1]}, "in whole numbers"),
        ({"type": "mask", "points": [0, 5, 0, 0, 1, 1]}, "runs of 5 pixels for a box of 2x2"),
        ({"type": "mask", "points": [0, 0, 5, 5, 1, 1]}, "for a box of -3x-3"),
        ({"type": "mask", "points": [0, MASK_PIXELS + 1, 0, 0, MASK_PIXELS, 0]}, "runs of"),
    ],
)
def test_what_is_no_shape(raw, message):
    with pytest.raises(BadRequest, match=message):
        read_shape(raw)


def test_what_has_no_points():
    with pytest.raises(ValueError, match="empty"):
        write_shape(Mask(np.zeros((2, 2), bool)))
    with pytest.raises(ValueError, match="skeleton"):
        write_shape(Skeleton((Keypoint("a", 1, 2),)))

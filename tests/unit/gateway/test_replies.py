"""A detector's reply as text."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract import Detection, Label, Mask, Polygon, Rectangle
from agent.doors.gateway.naming import Naming
from agent.doors.gateway.replies import write_reply

ANY = Naming.of([Label("thing")], None, None)


def reply(*detections, naming=ANY, digest="ab" * 32):
    return json.loads(write_reply(detections, naming, (200, 100), digest))


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    seed=st.integers(0, 99),
    left=st.integers(0, 100),
    top=st.integers(0, 50),
)
def test_masks_as_zeros_and_ones_of_their_box(rows, columns, seed, left, top):
    bitmap = np.random.default_rng(seed).random((rows, columns)) < 0.6
    items = reply(Detection("thing", Mask(bitmap, left, top), 0.5))
    if not bitmap.any():
        assert items == []
        return
    *bits, x0, y0, x1, y1 = items[0]["mask"]
    whole = np.zeros((200, 200), bool)
    whole[y0 : y1 + 1, x0 : x1 + 1] = np.array(bits).reshape(y1 - y0 + 1, x1 - x0 + 1)
    expected = np.zeros((200, 200), bool)
    expected[top : top + rows, left : left + columns] = bitmap
    assert (whole == expected).all()
    xs, ys = items[0]["points"][0::2], items[0]["points"][1::2]
    assert len(xs) >= 3
    assert x0 <= min(xs) <= max(xs) <= x1 + 1
    assert y0 <= min(ys) <= max(ys) <= y1 + 1


def test_a_mask_in_pieces_under_a_label_for_polygons_is_a_group_of_polygons():
    bitmap = np.zeros((40, 40), bool)
    bitmap[:10, :10] = bitmap[20:, 20:] = True
    naming = Naming.of([Label("thing", "polygon")], None, None)
    one, other = reply(Detection("thing", Mask(bitmap, 5, 5)), naming=naming)
    assert one["type"] == other["type"] == "polygon"
    assert one["group_id"] == other["group_id"]


def test_a_polygon_under_a_label_for_masks_is_a_mask():
    naming = Naming.of([Label("thing", "mask")], None, None)
    (item,) = reply(Detection("thing", Polygon((10, 10, 20, 10, 20, 20, 10, 20))), naming=naming)
    assert item["mask"] == [*[1] * 100, 10, 10, 19, 19]


def test_groups_are_the_pictures_own():
    box = Rectangle(1, 2, 3, 4)
    found = [Detection("thing", box, group=group) for group in (7, 7, 9, None)]
    here = [item.get("group_id") for item in reply(*found)]
    there = [item.get("group_id") for item in reply(*found, digest="cd" * 32)]
    assert here[0] == here[1] != here[2]
    assert here[3] is None
    assert not set(here[:3]) & set(there[:3])
    assert here == [item.get("group_id") for item in reply(*found)]
    assert all(0 < group < 2**31 for group in here[:3])


@pytest.mark.parametrize("digest", ["0" * 64, "f" * 64])
def test_groups_are_numbers_that_a_database_takes(digest):
    found = [Detection("thing", Rectangle(1, 2, 3, 4), group=group) for group in range(900)]
    groups = [item["group_id"] for item in reply(*found, digest=digest)]
    assert len(set(groups)) == 900
    assert min(groups) > 0
    assert max(groups) < 2**31


def test_what_has_no_score_has_no_score_attribute():
    naming = Naming.of([Label("thing")], None, "score")
    with_score, without = reply(
        Detection("thing", Rectangle(1, 2, 3, 4), 0.004), Detection("thing", Rectangle(1, 2, 3, 4)), naming=naming
    )
    assert with_score["attributes"] == [{"name": "score", "value": "0"}]
    assert "attributes" not in without
    assert "confidence" not in without

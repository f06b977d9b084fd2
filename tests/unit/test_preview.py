"""Pictures that a person judges a run by: drawn where the shapes are, readable, and bounded in number."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from agent import preview
from agent.contract import (
    Cuboid,
    Detection,
    Ellipse,
    Frame,
    Keypoint,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Skeleton,
)
from agent.domain import Roi
from agent.preview import CELL, ContactSheet, Preview, colour_of, draw

GREY = 128


def frame(width=320, height=240, index=0, name="folder/a b.jpg"):
    return Frame(index, name, np.full((height, width, 3), GREY, np.uint8))


def changed(picture):
    """(H, W): where the picture is no longer grey."""
    return (np.asarray(picture) != GREY).any(axis=2)


def near(picture, x, y, colour, reach=3):
    part = np.asarray(picture)[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].reshape(-1, 3)
    return bool((np.abs(part.astype(int) - colour).max(axis=1) < 8).any())


@pytest.mark.parametrize(
    ("shape", "on_it"),
    [
        (Rectangle(100, 80, 200, 160), [(100, 120), (200, 120), (150, 80), (150, 160)]),
        (Rectangle(100, 100, 200, 140, 90), [(130, 120), (170, 120)]),
        (Ellipse(160, 120, 50, 30), [(210, 120), (110, 120), (160, 150)]),
        (Polygon((100, 80, 200, 80, 150, 180)), [(100, 80), (200, 80), (150, 180)]),
        (Polyline((100, 80, 200, 180)), [(150, 130)]),
        (Points((100.0, 80.0, 200.0, 180.0)), [(100, 80), (200, 180)]),
        (Cuboid((50, 60, 50, 160, 150, 60, 150, 160, 200, 40, 200, 140, 100, 40, 100, 140)), [(50, 110), (200, 90)]),
        (Skeleton((Keypoint("a", 100, 80), Keypoint("b", 200, 180))), [(100, 80), (200, 180)]),
    ],
    ids=lambda value: getattr(value, "type", ""),
)  # fmt: skip
def test_lines_lie_where_the_shape_is(shape, on_it):
    picture = draw(frame(), [Detection("car", shape, 0.5)])
    for x, y in on_it:
        assert near(picture, x, y, colour_of("car")), (x, y)
    assert not changed(picture)[200:, :].any(), "nothing elsewhere"


def test_masks_and_polygons_are_translucent():
    mask = Mask(np.ones((50, 60), bool), 100, 80)
    for shape in (mask, Polygon((100, 80, 160, 80, 160, 130, 100, 130))):
        inside = np.asarray(draw(frame(), [Detection("car", shape)]))[105, 130].astype(int)
        assert (inside != GREY).any()
        assert (np.abs(inside - colour_of("car")) > 8).any()


def test_hidden_points_are_not_drawn():
    skeleton = Skeleton((Keypoint("a", 100, 80), Keypoint("b", 200, 180, outside=True)))
    assert not near(draw(frame(), [Detection("car", skeleton)]), 200, 180, colour_of("car"))


def test_what_the_model_did_not_see_is_dark():
    shown = np.asarray(draw(frame(), [], Roi(100, 80, 200, 160)))
    assert (shown[120, 150] == GREY).all()
    assert (shown[20, 20] == GREY // 2).all()
    assert near(Image.fromarray(shown), 100, 120, (255, 255, 255), reach=0), "a line around it"
    assert (np.asarray(draw(frame(), [], Roi(100, 80, 9999, 9999)))[230, 310] == GREY).all()


def test_captions_stay_in_the_picture():
    corners = [Rectangle(0, 0, 9, 9), Rectangle(310, 230, 319, 239), Rectangle(-50, -50, 400, 400)]
    for shape in corners:
        picture = draw(frame(), [Detection("a label\nof some length", shape, 0.123)])
        colour = colour_of("a label\nof some length")
        filled = (np.abs(np.asarray(picture).astype(int) - colour).max(axis=2) < 8).sum()
        assert filled > 600, "the whole plate behind the text"


def test_tags_are_written_below_each_other():
    one = changed(draw(frame(), [Detection("day", None)]))
    two = changed(draw(frame(), [Detection("day", None), Detection("rain", None, 0.5)]))
    assert two.sum() > one.sum()
    assert np.flatnonzero(two.any(axis=1)).max() > np.flatnonzero(one.any(axis=1)).max()


def test_a_line_can_be_told_from_a_background_of_its_colour():
    colour = colour_of("car")
    same = Frame(0, "a", np.full((240, 320, 3), colour, np.uint8))
    picture = np.asarray(draw(same, [Detection("car", Rectangle(100, 80, 200, 160))]))
    assert (picture[120, 95:106] != colour).any()


def test_colours_are_stable_and_differ():
    assert colour_of("car") == colour_of("car") == (64, 73, 255)
    assert len({colour_of(f"label {number}") for number in range(40)}) > 30


def test_shapes_beyond_the_picture_do_no_harm():
    shapes = [
        Mask(np.ones((9, 9), bool), -5, -5), Mask(np.ones((9, 9), bool), 400, 400), Polygon((-9, -9, 999, -9, 5, 999)),
        Rectangle(-99, -99, -50, -50, 30), Ellipse(0, 0, 900, 900),
    ]  # fmt: skip
    given = frame()
    before = given.image.copy()
    draw(given, [Detection("x", shape) for shape in shapes])
    assert (given.image == before).all()


def test_hundreds_of_masks_cost_their_own_boxes_only():
    masks = [Detection("x", Mask(np.ones((20, 20), bool), 5 * n % 1900, 3 * n % 1000)) for n in range(300)]
    picture = draw(Frame(0, "a", np.full((1080, 1920, 3), GREY, np.uint8)), masks)
    assert changed(picture).any()


class TestContactSheet:
    def test_the_pictures_kept_are_spread_over_all(self, tmp_path, monkeypatch):
        kept = []
        monkeypatch.setattr(preview, "_cell", lambda picture, caption: kept.append(caption) or Image.new("RGB", (9, 9)))
        sheet = ContactSheet(limit=8)
        picture = Image.new("RGB", (40, 30))
        for number in range(1000):
            sheet.add(picture, str(number))
        assert 4 <= len(sheet) <= 8
        assert len(kept) < 60, "most are not even made small"

    @pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (8, 4, 2)])
    def test_a_grid(self, tmp_path, count, columns, rows):
        sheet = ContactSheet(limit=8)
        for number in range(count):
            sheet.add(Image.new("RGB", (640, 480), "red"), f"frame {number}")
        with Image.open(sheet.save(tmp_path / "sheet.jpg")) as picture:
            assert picture.width == columns * (CELL[0] + 6) + 6
            assert picture.height == rows * (CELL[1] + 26) + 6
            assert picture.getpixel((6 + 160, 6 + 120))[0] > 200

    def test_memory_does_not_grow(self):
        sheet = ContactSheet(limit=4)
        picture = Image.new("RGB", (64, 48))
        for number in range(8):
            sheet.add(picture, str(number))
        tracemalloc.start()
        try:
            for number in range(200):
                sheet.add(picture, str(number))
            assert tracemalloc.get_traced_memory()[0] < 3_000_000
        finally:
            tracemalloc.stop()

    def test_a_sheet_of_one_cannot_be_spread(self):
        with pytest.raises(ValueError, match="limit of 1"):
            ContactSheet(limit=1)


class TestPreview:
    def test_a_file_a_frame_and_a_sheet(self, tmp_path):
        folder = tmp_path / "deep" / "out"
        made = Preview(folder)
        for index in range(3):
            made.add(7, frame(index=index, name="../x/ä b?.png"), [Detection("car", Rectangle(1, 2, 30, 40))])
        assert made.close() == folder / "contact-sheet.jpg"
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["contact-sheet.jpg", *(f"task-7-00000{n}-ä_b_.jpg" for n in range(3))]

    def test_no_frames_no_sheet(self, tmp_path):
        assert Preview(tmp_path).close() is None
        assert not list(tmp_path.iterdir())

    def test_long_runs_write_a_bounded_number(self, tmp_path, monkeypatch):
        monkeypatch.setattr(preview, "PICTURES", 3)
        made = Preview(tmp_path)
        for index in range(6):
            made.add(1, frame(32, 24, index), [])
        assert len(list(tmp_path.glob("task-*"))) == 3

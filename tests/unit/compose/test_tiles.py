"""Tiles and flips of a detector that sees what is there: things of one colour, as far as it is shown them."""

import numpy as np
import pytest

from agent.compose.named import open_named
from agent.contract import Context, Frame
from agent.shapes.geometry import bounds

SEER = """
import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask

KIND = "rectangle"
spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("thing", 0, type=KIND)])

def detect(context, image):
    pixels = np.where(np.asarray(image.convert("RGB")) > 127, 255, 0).astype(np.uint8)  # sharp again, once made smaller
    for colour in np.unique(pixels.reshape(-1, 3), axis=0):
        if colour.any():
            seen = (pixels == colour).all(axis=2)
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            yield cvataa.rectangle(0, box) if KIND == "rectangle" else cvataa.mask(0, encode_mask(seen))
"""
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


@pytest.fixture
def composed(tmp_path):
    opened = []

    def opening(scheme, kind="rectangle", **options):
        (tmp_path / "seer.py").write_text(SEER.replace('KIND = "rectangle"', f'KIND = "{kind}"'))
        opened.append(open_named(scheme, device="cpu", options={"of": f"cvat:{tmp_path}/seer.py", **options}))
        return opened[-1].model

    yield opening
    for one in opened:
        one.close()


def picture(width, height, *things):
    """A picture on which each thing, a box, has a colour of its own."""
    image = np.zeros((height, width, 3), np.uint8)
    for colour, (left, top, right, bottom) in zip(COLOURS, things, strict=False):
        image[top:bottom, left:right] = colour
    return Frame(0, "picture.png", image)


def found(model, frame):
    (own,) = model.detect([frame], Context(0.1))
    return sorted(bounds(d.shape) for d in own)


@pytest.mark.parametrize("kind", ["rectangle", "mask"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "things",
    [
        [(70, 20, 300, 60)],  # over four tiles
        [(10, 10, 310, 190)],  # over all of them
        [(0, 0, 30, 30), (290, 170, 320, 200)],  # in the corners of the picture
        [(85, 40, 105, 60), (200, 75, 215, 110)],  # where tiles meet
        [(10, 10, 310, 60), (10, 61, 310, 120)],  # side by side
    ],
    ids=["long", "large", "corners", "borders", "neighbours"],
)
def test_each_thing_is_found_once_and_whole(composed, kind, whole, things):
    model = composed("tiles:", kind, size=100, overlap=0.2, whole=whole)
    assert found(model, picture(320, 200, *things)) == sorted(things)


@pytest.mark.parametrize("size", [(60, 40), (100, 100), (101, 100), (1, 300), (300, 1)])
def test_pictures_smaller_than_a_tile_and_slender_ones(composed, size):
    thing = (0, 0, max(1, size[0] - 5), max(1, size[1] - 5))
    assert found(composed("tiles:", size=100), picture(*size, thing)) == [thing]


@pytest.mark.parametrize("kind", ["rectangle", "mask"])
@pytest.mark.parametrize("method", ["wbf", "nms"])
@pytest.mark.parametrize("scales", [[], [2.0], [0.5, 1.5], [0.25, 3.0]], ids=str)
def test_views_in_the_mirror_and_in_other_sizes_agree_where_each_thing_is(composed, kind, method, scales):
    things = [(0, 0, 40, 32), (100, 60, 160, 100), (148, 0, 160, 12)]
    model = composed("flips:", kind, method=method, scales=scales)
    answers = found(model, picture(161, 101, *things))
    assert len(answers) == 3
    for one, other in zip(answers, sorted(things), strict=True):
        assert one == pytest.approx(other, abs=1.0)

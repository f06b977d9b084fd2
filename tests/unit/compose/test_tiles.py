"""Tiles of a detector that sees what is there: things of one colour, as far as they are in the picture it is shown."""

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
    pixels = np.asarray(image.convert("RGB"))
    for colour in np.unique(pixels.reshape(-1, 3), axis=0):
        if colour.any():
            seen = (pixels == colour).all(axis=2)
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            yield cvataa.rectangle(0, box) if KIND == "rectangle" else cvataa.mask(0, encode_mask(seen))
"""
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


@pytest.fixture
def tiles(tmp_path):
    opened = []

    def opening(kind="rectangle", **options):
        (tmp_path / "seer.py").write_text(SEER.replace('KIND = "rectangle"', f'KIND = "{kind}"'))
        opened.append(open_named("tiles:", device="cpu", options={"of": f"cvat:{tmp_path}/seer.py", **options}))
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
def test_each_thing_is_found_once_and_whole(tiles, kind, whole, things):
    model = tiles(kind, size=100, overlap=0.2, whole=whole)
    assert found(model, picture(320, 200, *things)) == sorted(things)


@pytest.mark.parametrize("size", [(60, 40), (100, 100), (101, 100), (1, 300), (300, 1)])
def test_pictures_smaller_than_a_tile_and_slender_ones(tiles, size):
    thing = (0, 0, max(1, size[0] - 5), max(1, size[1] - 5))
    assert found(tiles(size=100), picture(*size, thing)) == [thing]

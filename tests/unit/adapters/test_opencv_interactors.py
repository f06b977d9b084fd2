"""Interactors without weights: GrabCut and intelligent scissors, on pictures with known answers and on real ones."""

import numpy as np
import pytest
from PIL import Image

from agent.contract import Frame, PromptNeeds, Prompts, Rectangle
from agent.errors import ConfigError, ModelNotFound
from agent.models.loading import load_model
from agent.shapes.outlines import polygon_to_mask
from tests.support.coco import load_ground_truth

HEIGHT, WIDTH = 240, 320


def discs(*centres, radius=50, noise=12, scale=1):
    """(frame, bitmap) of reddish discs on a greenish ground, both noisy."""
    rng = np.random.default_rng(3)
    down, across = np.mgrid[0 : HEIGHT * scale, 0 : WIDTH * scale] + 0.5
    inside = np.zeros((HEIGHT * scale, WIDTH * scale), bool)
    for x, y in centres:
        inside |= (across - x * scale) ** 2 + (down - y * scale) ** 2 <= (radius * scale) ** 2
    image = np.where(inside[:, :, None], (190, 60, 70), (60, 140, 80)) + rng.normal(0, noise, (*inside.shape, 3))
    return Frame(0, "discs", np.clip(image, 0, 255).astype(np.uint8)), inside


def whole(found, shape):
    """The mask or polygon that was found as a bitmap of the frame."""
    bitmap = np.zeros(shape, bool)
    for one in found:
        mask = one.shape if one.shape.type == "mask" else polygon_to_mask(one.shape.points, shape[1], shape[0])
        rows, columns = mask.bitmap.shape
        bitmap[mask.top : mask.top + rows, mask.left : mask.left + columns] |= mask.bitmap
    return bitmap


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def segment(model, frame, **prompts):
    return model.segment(model.embed(frame), Prompts(**prompts))


# ------------------------------------------------------------------------------------------------ GrabCut


@pytest.fixture(scope="module")
def grabcut():
    return load_model("opencv:grabcut").model


def test_grabcut_says_that_it_needs_a_box(grabcut):
    assert grabcut.needs == PromptNeeds(positive=0, negative=0, box="required")
    frame, _ = discs((160, 120))
    assert segment(grabcut, frame, positive=((160, 120),)) == []


@pytest.mark.parametrize("scale", [1, 4])
def test_grabcut_finds_what_differs_from_what_is_around_the_box(grabcut, scale):
    frame, truth = discs((160, 120), scale=scale)
    box = Rectangle(100 * scale, 60 * scale, 220 * scale, 180 * scale)
    (found,) = segment(grabcut, frame, box=box)
    assert overlap(whole([found], truth.shape), truth) > 0.98
    assert found.score is None
    (again,) = segment(grabcut, frame, box=box)
    np.testing.assert_array_equal(again.shape.bitmap, found.shape.bitmap)


def test_points_say_what_belongs_to_it(grabcut):
    """A reddish disc and a bluish one in the same box."""
    frame, left = discs((110, 120), radius=40)
    _, right = discs((225, 120), radius=40)
    image = frame.image.copy()
    image[right] = image[right] // 4 + np.uint8([20, 30, 180])
    frame, both = Frame(0, "two", image), left | right
    box = Rectangle(60, 70, 275, 170)
    assert overlap(whole(segment(grabcut, frame, box=box), both.shape), both) > 0.95
    without = whole(segment(grabcut, frame, box=box, negative=((225, 120),)), both.shape)
    assert without[116:124, 221:229].mean() < 0.05, "what was clicked away is gone"
    assert (without & left).sum() > 0.95 * left.sum(), "and nothing else"
    # A click outside of the box adds to it.
    low = Rectangle(60, 70, 160, 110)
    assert not whole(segment(grabcut, frame, box=low), both.shape)[112:].any()
    added = whole(segment(grabcut, frame, box=low, positive=((110, 113),)), both.shape)
    assert added[113, 110]


@pytest.mark.parametrize(
    "box",
    [(0, 0, WIDTH, HEIGHT), (-50, -50, 5000, 5000), (0, 0, WIDTH, 100), (159, 119, 160, 120), (100, 60, 100, 60)],
    ids=["the frame", "beyond the frame", "the upper part", "a pixel", "nothing"],
)
def test_boxes_of_every_size_are_answered(grabcut, box):
    frame, truth = discs((160, 120))
    found = segment(grabcut, frame, box=Rectangle(*box))
    if box[2] >= WIDTH and box[3] >= HEIGHT:
        assert overlap(whole(found, truth.shape), truth) > 0.9
    for one in found:
        rows, columns = one.shape.bitmap.shape
        assert 0 <= one.shape.left <= WIDTH - columns
        assert 0 <= one.shape.top <= HEIGHT - rows


def test_a_picture_of_one_colour_is_answered(grabcut):
    frame = Frame(0, "flat", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    segment(grabcut, frame, box=Rectangle(10, 10, 50, 50))
    segment(grabcut, frame, box=Rectangle(10, 10, 50, 50), positive=((20, 20),), negative=((30, 30),))


def test_on_photographs_it_is_better_than_the_box(grabcut, assets):
    truth = load_ground_truth(assets / "media" / "coco_val")
    ours, bare = [], []
    for name in truth.names[::8]:
        frame = Frame(0, name, np.asarray(Image.open(truth.path(name)).convert("RGB")))
        for (_, _, (left, top, right, bottom)), real in truth.masks(name)[:4]:
            if real.sum() < 4000:
                continue
            found = segment(grabcut, frame, box=Rectangle(left, top, right, bottom))
            ours.append(overlap(whole(found, real.shape), real))
            box = np.zeros_like(real)
            box[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
            bare.append(overlap(box, real))
    assert len(ours) >= 12
    assert np.mean(ours) > np.mean(bare) + 0.05
    assert min(ours) > 0.1, "none collapses"


# ------------------------------------------------------------------------------------------------ scissors


@pytest.fixture(scope="module")
def scissors():
    return load_model("opencv:scissors").model


def around(count, x=160, y=120, radius=50, scale=1):
    angles = np.arange(count) * 2 * np.pi / count + 0.3
    return tuple(((x + radius * np.cos(a)) * scale, (y + radius * np.sin(a)) * scale) for a in angles)


def test_scissors_say_what_they_need(scissors):
    assert scissors.needs == PromptNeeds(positive=3, negative=None, box="no")
    frame, _ = discs((160, 120))
    assert segment(scissors, frame, positive=around(4)[:2]) == []
    assert segment(scissors, frame, positive=(around(4)[0],) * 5) == []


@pytest.mark.parametrize("count", [3, 4, 7])
@pytest.mark.parametrize("scale", [1, 5])
def test_the_outline_follows_the_edge_between_clicks(scissors, count, scale):
    frame, truth = discs((160, 120), scale=scale)
    clicks = around(count, scale=scale)
    (found,) = segment(scissors, frame, positive=clicks)
    assert found.shape.type == "polygon"
    assert overlap(whole([found], truth.shape), truth) > 0.96
    corners = list(zip(found.shape.points[0::2], found.shape.points[1::2], strict=True))
    for click in clicks:
        assert min(np.hypot(x - click[0], y - click[1]) for x, y in corners) < 0.01, "what was clicked stays"
    assert len(corners) < 40 * scale


def test_clicks_in_either_direction_give_the_same_area(scissors):
    frame, truth = discs((160, 120))
    one, other = (whole(segment(scissors, frame, positive=p), truth.shape) for p in (around(5), around(5)[::-1]))
    assert overlap(one, other) > 0.97


def test_objects_at_the_edge_and_clicks_outside(scissors):
    frame, truth = discs((0, 120))
    found = segment(scissors, frame, positive=((-3, 70), (49, 120), (-20, 171)))
    assert overlap(whole(found, truth.shape), truth) > 0.9
    tiny = Frame(0, "tiny", np.zeros((2, 9, 3), np.uint8))
    segment(scissors, tiny, positive=((0, 0), (9, 0), (9, 2)))


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (1, 300_000)], ids=str)
def test_strips_of_a_pixel_are_answered(grabcut, scissors, size):
    height, width = size
    strip = Frame(0, "strip", np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))
    segment(scissors, strip, positive=((0, 0), (width, 0), (width / 2, height / 2)))
    for found in segment(grabcut, strip, box=Rectangle(0, 0, width, height), positive=((0, 0),)):
        assert found.shape.bitmap.shape[0] <= height
        assert found.shape.bitmap.shape[1] <= width


def test_options_of_the_models_are_told_apart():
    with pytest.raises(ConfigError, match="opencv:scissors: unknown option 'rounds', allowed: none"):
        load_model("opencv:scissors", options={"rounds": 3})
    with pytest.raises(ConfigError, match="opencv:grabcut: unknown option 'eyes', allowed: rounds"):
        load_model("opencv:grabcut", options={"eyes": True})
    with pytest.raises(ConfigError, match="rounds: got 0, allowed: 1 or more"):
        load_model("opencv:grabcut", options={"rounds": 0})
    with pytest.raises(ModelNotFound, match="did you mean opencv:grabcut"):
        load_model("opencv:grapcut")

import numpy as np
import pytest

from agent.contract import Context, Detector, Frame, Interactor, Prompts
from agent.errors import ConfigError
from agent.models.equalized import Equalized, equalize
from agent.models.loading import load_model


def dark(seed=0):
    """A flat, dark picture with some structure."""
    random = np.random.default_rng(seed)
    grey = 30 + 20 * random.random((64, 96)) * (np.arange(96) > 48)
    return Frame(3, "dark.png", np.repeat(grey[..., None], 3, 2).astype(np.uint8))


@pytest.mark.parametrize("method", ["global", "clahe"])
def test_a_flat_picture_gets_contrast_and_stays_grey(method):
    before = dark()
    after = equalize(before, method)
    assert (after.index, after.name, after.image.shape) == (3, "dark.png", before.image.shape)
    assert after.image.std() > 1.5 * before.image.std()
    assert np.abs(np.diff(after.image.astype(int), axis=2)).max() <= 2


def test_local_contrast_is_where_the_picture_is_uneven():
    ramp = np.tile(np.linspace(0, 200, 256), (256, 1))
    ramp[::8] += 6  # faint lines on a strong slope
    frame = Frame(0, "ramp", np.repeat(ramp[..., None], 3, 2).astype(np.uint8))

    def lines(found):
        return np.abs(np.diff(found.image[..., 0].astype(int), axis=0)).mean()

    assert lines(equalize(frame, "clahe")) > 1.3 * lines(frame)


class Model:
    labels = ("a",)

    def __init__(self):
        self.seen = []

    def detect(self, frames, context):
        self.seen += [frame.image.std() for frame in frames]
        return [[] for _ in frames]


class Clicks:
    def embed(self, frame):
        return frame.image.std()

    def segment(self, embedding, prompts):
        return [embedding]


def test_a_model_sees_equalised_frames_and_stays_of_its_kind():
    model = Model()
    wrapped = Equalized(model, "global")
    assert isinstance(wrapped, Detector)
    assert not isinstance(wrapped, Interactor)
    assert wrapped.detect([dark(), dark(1)], Context()) == [[], []]
    assert min(model.seen) > 1.5 * dark().image.std()
    clicks = Equalized(Clicks(), "clahe")
    assert isinstance(clicks, Interactor)
    (contrast,) = clicks.segment(clicks.embed(dark()), Prompts())
    assert contrast > 1.5 * dark().image.std()


def test_it_is_an_option_of_every_model_and_part_of_its_version():
    plain, loaded = load_model("opencv:face"), load_model("opencv:face", options={"equalize": "clahe"})
    assert loaded.version == f"{plain.version} equalize=clahe"
    assert loaded.facts["equalize"] == "clahe"
    assert load_model("opencv:face", options={"equalize": "no"}).version == plain.version
    with pytest.raises(ConfigError, match="option 'equalize': got 'yes', allowed: global, clahe"):
        load_model("opencv:face", options={"equalize": "yes"})

"""The detector that needs no download, on pictures that come with packages and with the assets."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from agent.contract import Context, Frame
from agent.errors import ConfigError, ModelNotFound
from agent.models.loading import load_model


def portrait():
    spec = find_spec("matplotlib")
    if spec is None:
        pytest.skip("needs matplotlib's sample portrait")
    return Image.open(Path(spec.origin).parent / "mpl-data/sample_data/grace_hopper.jpg").convert("RGB")


def found_in(picture, threshold=0.5, **options):
    loaded = load_model("opencv:face", options=options)
    frame = Frame(0, "p", np.asarray(picture))
    return loaded.model.detect([frame], Context(threshold=threshold))[0]


def inside(box, place):
    return place[0] <= (box.left + box.right) / 2 <= place[2] and place[1] <= (box.top + box.bottom) / 2 <= place[3]


@pytest.mark.parametrize(
    "change",
    [lambda p: p, ImageOps.mirror, lambda p: p.resize((256, 300)), ImageOps.autocontrast],
    ids=["as it is", "mirrored", "small", "autocontrast"],
)
def test_the_portrait_has_a_face_with_two_eyes(change):
    picture = change(portrait())
    found = found_in(picture)
    assert [d.label for d in found] == ["face", "eye", "eye"]
    face = found[0].shape
    assert inside(face, (0.4 * picture.width, 0.25 * picture.height, 0.65 * picture.width, 0.5 * picture.height))
    assert 0.3 * picture.width < face.right - face.left < 0.6 * picture.width
    assert all(face.left <= d.shape.left and d.shape.right <= face.right for d in found[1:])
    assert all(0.5 <= d.score <= 1 for d in found)


def test_faces_of_a_group_and_none_elsewhere(assets):
    folder = assets / "media" / "misc"
    group = [d for d in found_in(Image.open(folder / "face.jpg").convert("RGB")) if d.label == "face"]
    assert len(group) == 4
    for other in ("parrot.jpg", "hot_dog.jpg", "ocr_ch_en_num.jpg", "cat_720p.jpg"):
        assert found_in(Image.open(folder / other).convert("RGB")) == []


def test_options():
    assert [label.name for label in load_model("opencv:face", options={"eyes": False}).labels] == ["face"]
    assert [d.label for d in found_in(portrait(), eyes=False)] == ["face"]
    assert found_in(portrait(), min_size=400) == []
    with pytest.raises(ConfigError, match=r"scale_step: got 1.0"):
        load_model("opencv:face", options={"scale_step": 1})
    with pytest.raises(ModelNotFound, match="unknown model, allowed: face, grabcut"):
        load_model("opencv:nose")


def test_the_score_rises_with_the_votes():
    from adapters._opencv.faces import FACE

    scores = [FACE.score(votes) for votes in (-1e9, 50, 54, 55, 56, 60, 1e9)]
    assert scores == sorted(scores)
    assert scores[3] == 0.5
    assert 0 <= scores[0] < scores[-1] <= 1

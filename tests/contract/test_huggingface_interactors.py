"""The contract of an interactor, held against every SAM that `hf:` knows, with small models of random weights."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from adapters._torch import import_torch
from agent.contract import Prompts, Rectangle
from agent.errors import BadPrediction, ConfigError, ModelLoadFailed
from agent.models.loading import load_model
from tests.support import hub_models
from tests.support.hub_models import not_a_number, pictures

torch = import_torch()

MODELS = {
    "sam": ("sam", {}),
    "sam-hq": ("sam", {"version": "SamHQ"}),
    "sam2": ("sam2", {}),
    "edgetam": ("sam2", {"kind": "EdgeTamVideo"}),
    "sam3": ("sam3", {}),
}
CLICK = Prompts(positive=((30.0, 40.0),))
BOX = Prompts(box=Rectangle(10.0, 10.0, 80.0, 60.0))
PROMPTS = {
    "a click": CLICK,
    "clicks": Prompts(positive=((30.0, 40.0), (80.0, 20.0)), negative=((5.0, 5.0),)),
    "a box": BOX,
    "a box and a click": Prompts(positive=((30.0, 40.0),), box=BOX.box),
}


@pytest.fixture(scope="module", params=[pytest.param(name, id=name) for name in MODELS])
def folder(request, tmp_path_factory):
    make, arguments = MODELS[request.param]
    place = tmp_path_factory.mktemp("models") / "model"
    place.mkdir()
    getattr(hub_models, make)(place, **arguments)
    return place


def load(folder, **options):
    return load_model(f"hf:{folder}", device="cpu", options=options)


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder)


@pytest.fixture(scope="module")
def frame():
    return pictures((72, 108))[0]


def arrays(value):
    if isinstance(value, dict):
        return [one for part in value.values() for one in arrays(part)]
    return [one for part in value for one in arrays(part)] if isinstance(value, list | tuple) else [value]


def test_it_says_what_it_is(loaded):
    assert loaded.kind == "interactor"
    assert loaded.facts["task"] == "interaction"
    assert loaded.facts["architecture"].endswith("Model")
    assert (loaded.model.needs.positive, loaded.model.needs.box, loaded.model.needs.texts) == (0, "optional", False)
    assert loaded.model.help_message


def test_what_is_kept_of_a_frame_is_arrays_with_a_size(loaded, frame):
    kept = arrays(loaded.model.embed(frame))
    assert all(isinstance(one.nbytes, int) for one in kept)
    assert sum(one.nbytes for one in kept) > 0


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_a_mask_for_what_is_marked(loaded, frame, prompts):
    (found,) = loaded.model.segment(loaded.model.embed(frame), prompts)
    assert found.shape.type == "mask"
    assert 0 <= found.score <= 1
    height, width = found.shape.bitmap.shape
    assert 0 <= found.shape.left < found.shape.left + width <= frame.width
    assert 0 <= found.shape.top < found.shape.top + height <= frame.height


def test_an_embedding_serves_many_clicks(loaded, frame):
    embedding = loaded.model.embed(frame)
    first = loaded.model.segment(embedding, CLICK)
    other = loaded.model.segment(embedding, BOX)
    again = loaded.model.segment(embedding, CLICK)
    np.testing.assert_array_equal(first[0].shape.bitmap, again[0].shape.bitmap)
    assert (other[0].score, other[0].shape.bitmap.sum()) != (first[0].score, first[0].shape.bitmap.sum())
    assert loaded.model.segment(embedding, Prompts()) == []
    assert loaded.model.segment(embedding, Prompts(texts=("cat",))) == [], "it understands no words"


def test_alternatives_come_best_first(folder, frame):
    several = load(folder, alternatives=3).model
    found = several.segment(several.embed(frame), CLICK)
    assert len(found) == 3
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    one = load(folder).model
    assert one.segment(one.embed(frame), CLICK)[0].score == found[0].score


def test_half_precision(folder, frame):
    half = load(folder, precision="bfloat16").model
    (found,) = half.segment(half.embed(frame), BOX)
    assert 0 <= found.score <= 1


def test_frames_of_any_size(loaded):
    for frame in pictures((1, 1), (3, 40), (200, 30)):
        for found in loaded.model.segment(loaded.model.embed(frame), Prompts(positive=((0.5, 0.5),))):
            assert found.shape.bitmap.any()


def test_answers_that_are_no_numbers(folder, frame, tmp_path):
    broken = load(not_a_number(folder, tmp_path)).model
    with pytest.raises(BadPrediction, match="the model answered NaN"):
        broken.segment(broken.embed(frame), CLICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alternatives": 4}, "alternatives: got 4, allowed: 1 to 3"),
        ({"text_threshold": 2.0}, "text_threshold: got 2.0"),
        ({"labels": ["cat"]}, "option 'labels' is not for the task interaction"),
        ({"task": "interactoin"}, "task: got 'interactoin', allowed: detection, "),
    ],
)
def test_wrong_options(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        load(folder, **options)


# ------------------------------------------------------------------------------------------------- words


@pytest.fixture(scope="module")
def sam3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam3")
    hub_models.sam3(folder)
    return folder


@pytest.fixture(scope="module")
def words(sam3):
    return load(sam3, texts=True, text_threshold=0.01).model


def test_words_find_every_instance(words, frame):
    assert words.needs.texts
    embedding = words.embed(frame)
    found = words.segment(embedding, Prompts(texts=("cat", "dog")))
    assert {one.label for one in found} == {"cat", "dog"}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len(words.segment(embedding, CLICK)) == 1, "and clicks go on as before"


def test_a_picture_is_looked_at_once_for_clicks_and_for_words(sam3, words, frame):
    """The part that both need is run once, kept once in memory, and gives what each gives by itself."""
    seen = []
    backbone = words._concepts.model.vision_encoder.backbone
    assert words._model.vision_encoder.backbone is backbone
    blocks = backbone.layers[0].register_forward_hook(lambda *given: seen.append(1))
    try:
        embedding = words.embed(frame)
        again = words.embed(frame)
    finally:
        blocks.remove()
    assert len(seen) == 2
    clicks, alone = load(sam3).model, load(sam3, task="zero-shot-segmentation", labels=["cat"]).model
    for one, other in zip(arrays(embedding["maps"]), arrays(clicks.embed(frame)["maps"]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for one, other in zip(embedding["concepts"], alone._concepts.look([frame]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for one, other in zip(arrays(embedding), arrays(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_weights_go_with_the_model(sam3):
    """At once, not when the garbage collector comes by: they are gigabytes."""
    model = load(sam3, texts=True).model
    weights = weakref.ref(model._concepts.model.vision_encoder.backbone)
    gc.disable()
    try:
        model.embed(pictures((72, 108))[0])
        del model
        assert weights() is None
    finally:
        gc.enable()


def test_points_choose_among_what_words_found(words, frame):
    embedding = words.embed(frame)
    everything = words.segment(embedding, Prompts(texts=("cat",)))
    rows, columns = np.nonzero(everything[0].shape.bitmap)
    point = (columns[0] + everything[0].shape.left + 0.5, rows[0] + everything[0].shape.top + 0.5)
    chosen = words.segment(embedding, Prompts(texts=("cat",), positive=(point,)))
    refused = words.segment(embedding, Prompts(texts=("cat",), negative=(point,)))
    assert everything[0].score in [one.score for one in chosen]
    assert len(chosen) + len(refused) == len(everything)


def test_a_box_keeps_what_lies_in_it(words, frame):
    embedding = words.embed(frame)
    everything = words.segment(embedding, Prompts(texts=("cat",)))
    whole = Rectangle(0.0, 0.0, float(frame.width), float(frame.height))
    assert len(words.segment(embedding, Prompts(texts=("cat",), box=whole))) == len(everything)
    left = Rectangle(0.0, 0.0, frame.width / 2, float(frame.height))
    for one in words.segment(embedding, Prompts(texts=("cat",), box=left)):
        inside = one.shape.bitmap[:, : max(0, frame.width // 2 - one.shape.left)].sum()
        assert 2 * inside >= one.shape.bitmap.sum()
    assert words.segment(embedding, Prompts(texts=("cat",), box=Rectangle(0.0, 0.0, 1.0, 1.0))) == []


def test_words_need_a_model_that_understands_them(tmp_path):
    hub_models.sam2(tmp_path)
    with pytest.raises(ConfigError, match="texts: sam2_video understands no words, allowed: with facebook/sam3"):
        load(tmp_path, texts=True)


def test_a_model_that_cannot_be_clicked(tmp_path):
    hub_models.yolos(tmp_path)
    with pytest.raises(ModelLoadFailed, match="task tracking: got yolos, allowed: sam2_video"):
        load(tmp_path, task="tracking")
    with pytest.raises(ModelLoadFailed, match="task interaction: got yolos, allowed: sam, "):
        load(tmp_path, task="interaction")

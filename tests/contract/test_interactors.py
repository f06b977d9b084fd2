"""The contract of an interactor (`agent/contract.py`), held against every adapter that gives one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent.contract import Detection, Frame, Mask, Polygon, PromptNeeds, Prompts, Rectangle
from agent.errors import ConfigError, ModelLoadFailed, ModelNotFound
from agent.interaction import size_of
from agent.models.loading import load_model
from tests.support.coco import load_ground_truth
from tests.support.contract_models import CLICKER, Built, Shop, function, hub, programs, samexporter
from tests.support.onnx_graphs import bare_encoder, constant_graph, cropping_decoder, sam_pair


@dataclass(frozen=True)
class Case:
    """An interactor: options that are files in the assets, other options; or a function that builds it."""

    reference: str = ""
    files: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    build: Callable[[Shop], Built] | None = None


MODELS = {
    "two graphs": Case("local:promptseg_encoder_384.onnx", {"decoder": "promptseg_decoder.onnx"}),
    "samexporter": Case(build=samexporter),
    "torchscript": Case(build=lambda shop: programs(shop, "torchscript")),
    "torch.export": Case(build=lambda shop: programs(shop, "pt2")),
    "hf sam": Case(build=lambda shop: hub(shop, "sam")),
    "hf sam-hq": Case(build=lambda shop: hub(shop, "sam", {"version": "SamHQ"})),
    "hf sam2": Case(build=lambda shop: hub(shop, "sam2")),
    "hf edgetam": Case(build=lambda shop: hub(shop, "sam2", {"kind": "EdgeTamVideo"})),
    "hf sam3": Case(build=lambda shop: hub(shop, "sam3")),
    "hf sam3, words": Case(build=lambda shop: hub(shop, "sam3", texts=True)),
    "grabcut": Case("opencv:grabcut"),
    "grabcut, equalised": Case("opencv:grabcut", options={"equalize": "global"}),
    "scissors": Case("opencv:scissors"),
    "cvat": Case(build=lambda shop: function(shop, "clicker", CLICKER)),
}


def open_case(case, assets, folder=None):
    if case.build is not None:
        reference, options = case.build(Shop(folder, assets))
        return load_model(reference, device="cpu", options=options)
    scheme, _, name = case.reference.partition(":")
    weights = assets / "weights"
    reference = f"{scheme}:{weights / name}" if scheme == "local" else case.reference
    files = {key: str(weights / name) for key, name in case.files.items()}
    return load_model(reference, device="cpu", options={**files, **case.options})


@pytest.fixture(scope="module", params=[pytest.param(name, id=name) for name in MODELS])
def loaded(request, assets, tmp_path_factory):
    model = open_case(MODELS[request.param], assets, tmp_path_factory.mktemp("models"))
    yield model
    model.close()


@pytest.fixture(scope="module")
def parrot(assets):
    return Frame(
        0, "parrot", np.asarray(Image.open(assets / "media/misc/parrot.jpg").convert("RGB").resize((320, 240)))
    )


def some_prompts(needs, width, height):
    """What a person has to give at least, around the middle."""
    around = [(0.35, 0.3), (0.65, 0.3), (0.7, 0.7), (0.4, 0.75), (0.3, 0.5)]
    count = max(needs.positive, 0 if needs.box != "no" else 1)
    box = None if needs.box == "no" else Rectangle(0.25 * width, 0.2 * height, 0.8 * width, 0.8 * height)
    return Prompts(positive=tuple((x * width, y * height) for x, y in around[:count]), box=box)


def area(shape):
    if isinstance(shape, Mask):
        return int(shape.bitmap.sum())
    x, y = np.array(shape.points[0::2]), np.array(shape.points[1::2])
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_it_says_what_it_needs(loaded):
    assert loaded.kind == "interactor"
    assert isinstance(loaded.model.needs, PromptNeeds)
    assert isinstance(getattr(loaded.model, "help_message", ""), str)
    assert loaded.version != "unknown"


def test_an_answer_lies_in_the_frame_and_is_the_same_again(loaded, parrot):
    embedding = loaded.model.embed(parrot)
    prompts = some_prompts(loaded.model.needs, parrot.width, parrot.height)
    first = loaded.model.segment(embedding, prompts)
    assert first, "the prompts mark something"
    for one in first:
        assert isinstance(one, Detection)
        assert isinstance(one.shape, Mask | Polygon)
        assert one.score is None or 0 <= one.score <= 1
        if isinstance(one.shape, Mask):
            rows, columns = one.shape.bitmap.shape
            assert one.shape.bitmap.any()
            assert 0 <= one.shape.left <= parrot.width - columns
            assert 0 <= one.shape.top <= parrot.height - rows
        else:
            assert min(one.shape.points) >= 0
            assert max(one.shape.points[0::2]) <= parrot.width
            assert max(one.shape.points[1::2]) <= parrot.height
    # Other prompts in between must not be remembered.
    loaded.model.segment(embedding, some_prompts(loaded.model.needs, 100, 90))
    again = loaded.model.segment(embedding, prompts)
    assert [area(one.shape) for one in again] == [area(one.shape) for one in first]


def test_an_embedding_has_a_size_that_can_be_told(loaded, parrot):
    assert size_of(loaded.model.embed(parrot)) > 0


def test_tiny_frames_do_not_crash(loaded):
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (2, 40), (40, 2), (19, 23)):
        frame = Frame(0, "tiny", rng.integers(0, 255, (height, width, 3), np.uint8))
        loaded.model.segment(loaded.model.embed(frame), some_prompts(loaded.model.needs, width, height))


def test_prompts_outside_of_the_frame_do_not_crash(loaded, parrot):
    embedding = loaded.model.embed(parrot)
    far = some_prompts(loaded.model.needs, 10 * parrot.width, 10 * parrot.height)
    loaded.model.segment(embedding, far)
    loaded.model.segment(embedding, Prompts(positive=((-5.0, -5.0),) * 4, box=Rectangle(-50, -50, 5000, 5000)))


# ------------------------------------------------------------------------------------------------ accuracy


def test_boxes_give_masks_as_good_as_the_weights_are(assets):
    """409 masks of coco_val: mean IoU 0.63 from a box with these weights, where the bare box has 0.58."""
    truth = load_ground_truth(assets / "media" / "coco_val")
    model = open_case(MODELS["two graphs"], assets).model
    ours, bare = [], []
    for name in truth.names[::5]:
        embedding = model.embed(Frame(0, name, np.asarray(Image.open(truth.path(name)).convert("RGB"))))
        for (_, _, (left, top, right, bottom)), real in truth.masks(name):
            if real.sum() < 1024:
                continue
            found = model.segment(embedding, Prompts(box=Rectangle(left, top, right, bottom)))
            ours.append(overlap(full(found, real.shape), real))
            whole = np.zeros_like(real)
            whole[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
            bare.append(overlap(whole, real))
    assert len(ours) > 60
    assert np.mean(ours) == pytest.approx(0.63, abs=0.02)
    assert np.mean(ours) > np.mean(bare) + 0.03


def full(found, shape):
    bitmap = np.zeros(shape, bool)
    for one in found[:1]:
        mask = one.shape
        rows, columns = mask.bitmap.shape
        bitmap[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.bitmap
    return bitmap


def overlap(one, other):
    return (one & other).sum() / max(1, (one | other).sum())


# ------------------------------------------------------------------------------------------------ SAM's exports

FRAME = Frame(0, "wide", np.zeros((64, 128, 3), np.uint8))
"""In an input of 64 x 64 at half its size, at the top."""


def sam(folder, **options):
    encoder, decoder = sam_pair(folder, **options)
    return load_model(f"local:{encoder}", device="cpu", options={"decoder": str(decoder)}).model


def bounds(found):
    (one,) = found
    rows, columns = one.shape.bitmap.shape
    return one.shape.left, one.shape.top, one.shape.left + columns, one.shape.top + rows


@pytest.mark.parametrize("low_resolution", [False, True])
def test_sams_points_come_out_where_they_went_in(tmp_path, low_resolution):
    model = sam(tmp_path, low_resolution=low_resolution)
    assert model.needs == PromptNeeds(positive=0, negative=0, box="optional")
    embedding = model.embed(FRAME)
    # One click may mean a part or the whole: the best of the masks after the first, here radius 8 * 2 frame pixels.
    found = model.segment(embedding, Prompts(positive=((60.0, 32.0),)))
    assert found[0].score == pytest.approx(0.9)
    np.testing.assert_allclose(bounds(found), (44, 16, 76, 48), atol=1)
    assert found[0].shape.bitmap.sum() == pytest.approx(np.pi * 16**2, rel=0.12 if low_resolution else 0.03)
    # A box and more clicks say what is meant: the first mask, radius 4 * 2 around the first point.
    found = model.segment(embedding, Prompts(positive=((60.0, 32.0),), negative=((5.0, 5.0),)))
    assert found[0].score == pytest.approx(0.2)
    np.testing.assert_allclose(bounds(found), (52, 24, 68, 40), atol=2 if low_resolution else 1)
    found = model.segment(embedding, Prompts(box=Rectangle(60, 32, 100, 60)))
    np.testing.assert_allclose(bounds(found), (52, 24, 68, 40), atol=2 if low_resolution else 1)
    assert model.segment(embedding, Prompts()) == []
    assert model.segment(embedding, Prompts(negative=((5.0, 5.0),))) == []


def test_sams_preparation_is_known(tmp_path):
    loaded = load_model(
        f"local:{sam_pair(tmp_path)[0]}", device="cpu", options={"decoder": str(tmp_path / "decoder.onnx")}
    )
    assert loaded.facts["preparation"].startswith("letterbox-top-left on the mean, rgb")
    embedding = loaded.model.embed(Frame(0, "black", np.zeros((64, 128, 3), np.uint8)))
    features = embedding["image_embeddings"][0]
    np.testing.assert_allclose(features[:, 8:], 0, atol=1e-6)
    black = np.float32([-2.1179, -2.0357, -1.8044])
    np.testing.assert_allclose(features[:, :8].transpose(1, 2, 0), np.broadcast_to(black, (8, 16, 3)), atol=1e-3)


@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize("size", [(64, 128), (128, 64), (50, 31), (16, 10)])
def test_encoders_that_take_a_bare_picture_get_it_without_bars(tmp_path, kind, size):
    """What samexporter writes with --use-preprocess: (height, width, 3), normalised and filled up by the graph."""
    _, decoder = sam_pair(tmp_path, low_resolution=True)
    encoder = bare_encoder(tmp_path / "bare.onnx", kind)
    loaded = load_model(f"local:{encoder}", options={"decoder": str(decoder), "input_size": 64})
    assert loaded.facts["preparation"].endswith("rgb, x*1")
    high, wide = size
    orange = Frame(0, "orange", np.full((high, wide, 3), (255, 102, 0), np.uint8))
    embedding = loaded.model.embed(orange)
    (features,) = embedding["image_embeddings"]
    ratio = 64 / max(size)
    filled = features[0] > 0.99
    assert abs(filled.sum() - high * wide * ratio**2 / 16) <= 16, "the picture fills its part of the input"
    np.testing.assert_allclose(features[:, 0, 0], (1, 0.4, 0), atol=1e-6)
    middle = (wide / 2, high / 2)
    (found,) = loaded.model.segment(embedding, Prompts(positive=(middle,)))
    left, top, right, bottom = bounds([found])
    np.testing.assert_allclose(((left + right) / 2, (top + bottom) / 2), middle, atol=1 + 2 / ratio)


def test_the_side_of_an_encoder_that_takes_any_is_sams(tmp_path):
    _, decoder = sam_pair(tmp_path, low_resolution=True)
    loaded = load_model(f"local:{bare_encoder(tmp_path / 'bare.onnx')}", options={"decoder": str(decoder)})
    assert loaded.facts["input size"] == "1024x1024"


def test_the_decoder_of_cvats_editor(tmp_path):
    encoder, _ = sam_pair(tmp_path)
    decoder = cropping_decoder(tmp_path / "cvat.onnx")
    model = load_model(f"local:{encoder}", options={"decoder": str(decoder)}).model
    (found,) = model.segment(model.embed(FRAME), Prompts(positive=((60.0, 32.0),)))
    assert found.score is None, "where the object begins is no opinion of it"
    np.testing.assert_allclose(bounds([found]), (44, 16, 76, 48), atol=1)


def test_labels_of_points_are_sams():
    from adapters._networks.pictures import Placement
    from adapters._networks.prompts import recognise
    from adapters._networks.session import Port

    inputs = [
        Port("image_embeddings", (1, 256, 64, 64), "float32"),
        Port("point_coords", (1, None, 2), "float32"),
        Port("point_labels", (1, None), "float32"),
        Port("mask_input", (1, 1, 256, 256), "float32"),
        Port("has_mask_input", (1,), "float32"),
        Port("orig_im_size", (2,), "float32"),
    ]
    style = recognise(inputs)
    prompts = Prompts(positive=((10, 20),), negative=((30, 40),), box=Rectangle(2, 4, 6, 8))
    feeds = style.feeds(prompts, Placement(0.5, 0.5, 0, 0), (1024, 1024), (640, 480))
    assert feeds["point_labels"].tolist() == [[1, 0, 2, 3]]
    assert feeds["point_coords"].tolist() == [[[5, 10], [15, 20], [1, 2], [3, 4]]]
    assert feeds["orig_im_size"].tolist() == [480, 640]
    assert feeds["mask_input"].shape == (1, 1, 256, 256)
    assert feeds["has_mask_input"].tolist() == [0]
    without = style.feeds(Prompts(positive=((10, 20),)), Placement(1, 1, 0, 0), (1024, 1024), (640, 480))
    assert without["point_labels"].tolist() == [[1, -1]]
    # The form of Hugging Face's optimum: an axis more, and no way in for a box.
    other = recognise(
        [Port("input_points", (None, None, None, 2), "float32"), Port("input_labels", (None, None, None), "float32")]
    )
    assert other.feeds(prompts, Placement(1, 1, 0, 0), (1024, 1024), (640, 480))["input_points"].shape == (1, 1, 3, 2)
    assert other.needs.box == "no"
    assert recognise([Port("image", (1, 3, 8, 8), "float32")]) is None


# ------------------------------------------------------------------------------------------------ what can be wrong


def test_files_that_do_not_belong_together_are_told(tmp_path, assets):
    weights = assets / "weights"
    encoder, decoder = sam_pair(tmp_path)
    with pytest.raises(ModelLoadFailed, match=r"decoder.onnx: the graph failed.*tried with a gray picture|not a pair"):
        load_model(f"local:{weights / 'promptseg_encoder_384.onnx'}", options={"decoder": str(decoder)})
    with pytest.raises(ModelLoadFailed, match=r"got the inputs images .*allowed for a decoder: point_coords"):
        load_model(f"local:{encoder}", options={"decoder": str(weights / "yolox_nano_416.onnx")})
    with pytest.raises(ModelNotFound, match="there is no such file"):
        load_model(f"local:{encoder}", options={"decoder": str(tmp_path / "nothing.onnx")})
    with pytest.raises(ModelLoadFailed, match=r"cannot tell what its input .point_coords. wants"):
        load_model(f"local:{decoder}", options={"decoder": str(decoder)})
    two = constant_graph(tmp_path / "two.onnx", {"a": np.zeros((4, 8, 8)), "b": np.zeros((4, 8, 8))})
    with pytest.raises(ModelLoadFailed, match="wants 'image_embeddings', the encoder gives a, b: not a pair"):
        load_model(f"local:{two}", options={"decoder": str(decoder)})


def test_options_of_other_kinds_are_told(tmp_path):
    encoder, decoder = sam_pair(tmp_path)
    with pytest.raises(ConfigError, match="option 'nms_iou' is not for a model of kind interactor: decoder, resize"):
        load_model(f"local:{encoder}", options={"decoder": str(decoder), "nms_iou": 0.5})
    with pytest.raises(ConfigError, match="option 'decoder' is missing"):
        load_model(f"local:{encoder}", options={"kind": "interactor"})
    with pytest.raises(ConfigError, match="option 'decoder' is not for a model of kind detector"):
        load_model(f"local:{encoder}", options={"kind": "detector", "decoder": str(decoder)})


def test_numbers_that_are_none_are_a_bad_prediction(tmp_path):
    encoder, decoder = sam_pair(tmp_path, iou=(0.1, float("nan"), 0.1, 0.1))
    with pytest.raises(ModelLoadFailed, match="NaN"):
        load_model(f"local:{encoder}", options={"decoder": str(decoder)})

"""What is done by hand gives what transformers' own processors and sessions give, where those can run here."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from adapters._torch import import_torch
from adapters.huggingface.pictures import Preparation, picture
from agent.contract import Context, Frame, Mask, Prompts, Rectangle
from agent.models.loading import load_model
from tests.support import hub_models
from tests.support.hub_models import CLASSES, pictures

torch = import_torch()
transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    return place


@pytest.fixture
def frame():
    """Of the shape that the models get, so that nothing is padded."""
    return pictures((64, 96))[0]


def load(folder, **options):
    return load_model(f"hf:{folder}", device="cpu", options=options).model


def theirs(folder, model, processor=None):
    """transformers' model and image processor."""
    made = getattr(transformers, model).from_pretrained(folder).eval()
    return made, processor and getattr(transformers, processor).from_pretrained(folder)


def bitmap(shape, frame):
    whole = np.zeros((frame.height, frame.width), bool)
    if shape is not None:
        height, width = shape.bitmap.shape
        whole[shape.top : shape.top + height, shape.left : shape.left + width] = shape.bitmap
    return whole


def alike(one, other):
    """The share of pixels in which two bitmaps agree."""
    return float((one == other).mean())


def test_pictures_are_prepared_as_pil_does_it(frame):
    size = {"height": 48, "width": 40}
    own = transformers.SegformerImageProcessorPil(size=size)
    expected = own(images=[picture(frame)], return_tensors="pt")["pixel_values"]
    given = Preparation.read({**own.to_dict(), "size": size}, "hf:x")([frame])
    assert given.shape == expected.shape
    assert float((given - expected).abs().max()) < 0.02, "two steps of 255, where rounding differs"


@pytest.mark.parametrize("version", ["Sam", "SamHQ"])
def test_sam(folder, version):
    hub_models.sam(folder, version=version)
    (frame,) = pictures((50, 90))
    model, processor = theirs(folder, f"{version}Model")[0], transformers.SamImageProcessorPil.from_pretrained(folder)
    inputs = processor(images=[picture(frame)], return_tensors="pt")
    height, width = inputs["reshaped_input_sizes"][0].tolist()
    x, y = 30.0 * width / 90, 20.0 * height / 50
    with torch.inference_mode():
        outputs = model(
            inputs["pixel_values"],
            input_points=torch.tensor([[[[x, y]]]]),
            input_labels=torch.tensor([[[1]]]),
        )
    (masks,) = processor.post_process_masks(
        outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    best = int(outputs.iou_scores[0, 0].argmax())
    ours = load(folder)
    (found,) = ours.segment(ours.embed(frame), Prompts(positive=((30.0, 20.0),)))
    assert found.score == pytest.approx(min(1.0, max(0.0, float(outputs.iou_scores[0, 0, best]))), abs=0.02)
    assert alike(bitmap(found.shape, frame), masks[0, best].numpy()) > 0.97


@pytest.mark.parametrize(
    ("make", "arguments", "kind"),
    [
        ("sam2", {}, "Sam2Video"),
        ("sam2", {"kind": "EdgeTamVideo"}, "EdgeTamVideo"),
        ("sam3", {}, "Sam3TrackerVideo"),
    ],
)
def test_tracking_step_by_step_is_tracking_in_one_session(folder, make, arguments, kind):
    getattr(hub_models, make)(folder, **arguments)
    (first,) = pictures((64, 96))
    frames = [Frame(i, str(i), np.roll(first.image, -2 * i, axis=1)) for i in range(12)]
    start = Mask(np.ones((30, 40), bool), 20, 10)
    ours = load(folder, task="tracking")
    model = getattr(transformers, f"{kind}Model").from_pretrained(
        folder, config=transformers.AutoConfig.from_pretrained(folder)
    )
    session = ours._session_class(video_height=64, video_width=96, dtype=torch.float32)
    index = session.obj_id_to_idx(1)
    side = ours._prepare.width
    shown = torch.nn.functional.interpolate(
        torch.from_numpy(bitmap(start, first))[None, None].float(), size=(side, side), mode="bilinear", antialias=True
    )
    session.add_mask_inputs(index, 0, (shown >= 0.5).float())
    session.obj_with_new_inputs = [1]
    states = ours.begin(frames[0], [start])
    agreement = []
    for number, frame in enumerate(frames):
        expected = model.eval()(inference_session=session, frame=ours._prepare([frame]), frame_idx=number)
        if number == 0:
            continue
        ((state, shape),) = ours.follow(frame, states)
        states = [state]
        logits = torch.nn.functional.interpolate(expected.pred_masks, size=(64, 96), mode="bilinear")[0, 0]
        agreement.append(alike(bitmap(shape, frame), (logits > 0).numpy()))
    assert min(agreement) > 0.98, agreement


@pytest.mark.parametrize(
    ("make", "model", "processor"),
    [
        ("mask2former", "Mask2FormerForUniversalSegmentation", "Mask2FormerImageProcessorPil"),
        ("maskformer", "MaskFormerForInstanceSegmentation", "MaskFormerImageProcessorPil"),
    ],
)
def test_instances(folder, frame, make, model, processor):
    getattr(hub_models, make)(folder)
    network, prepare = theirs(folder, model, processor)
    with torch.inference_mode():
        outputs = network(**prepare(images=[picture(frame)], return_tensors="pt"))
    scores, classes = outputs.class_queries_logits.softmax(-1)[0, :, :-1].max(-1)
    (found,) = load(folder, segments="instance").detect([frame], Context())
    maps = torch.nn.functional.interpolate(outputs.masks_queries_logits, size=(64, 96), mode="bilinear")[0]
    assert len(found) == len([one for one in maps if (one > 0).any()])
    for one in found:
        mine = bitmap(one.shape, frame)
        place = max(range(len(maps)), key=lambda number: alike(mine, (maps[number] > 0).numpy()))
        assert alike(mine, (maps[place] > 0).numpy()) > 0.99
        assert one.label == CLASSES[int(classes[place])]
        inside = float(maps[place][maps[place] > 0].sigmoid().mean())
        assert one.score == pytest.approx(float(scores[place]) * inside, abs=0.01)


@pytest.mark.parametrize("size", [(50, 90), (90, 50)])
def test_padding_is_no_part_of_the_frame(folder, size):
    hub_models.eomt(folder)
    (frame,) = pictures(size)
    network, prepare = theirs(folder, "EomtForUniversalSegmentation", "EomtImageProcessorPil")
    with torch.inference_mode():
        outputs = network(**prepare(images=[picture(frame)], return_tensors="pt"))
    maps = torch.nn.functional.interpolate(outputs.masks_queries_logits, size=(64, 64), mode="bilinear")
    (expected,) = prepare.unpad_image(maps, [size], prepare.size)
    (found,) = load(folder, segments="instance").detect([frame], Context())
    assert len(found) > 2
    for one in found:
        assert max(alike(bitmap(one.shape, frame), (other > 0).numpy()) for other in expected) > 0.95


@pytest.mark.parametrize("make", ["segformer", "upernet"])
def test_classes_of_pixels(folder, make):
    getattr(hub_models, make)(folder)
    (frame,) = pictures((50, 90))
    kind = {"segformer": "SegformerForSemanticSegmentation", "upernet": "UperNetForSemanticSegmentation"}[make]
    network, prepare = theirs(folder, kind, "SegformerImageProcessorPil")
    with torch.inference_mode():
        outputs = network(**prepare(images=[picture(frame)], return_tensors="pt"))
    (expected,) = prepare.post_process_semantic_segmentation(outputs, target_sizes=[(50, 90)])
    (found,) = load(folder).detect([frame], Context())
    mine = np.full((50, 90), -1)
    for one in found:
        mine[bitmap(one.shape, frame)] = CLASSES.index(one.label)
    np.testing.assert_array_equal(mine, expected.numpy())


@pytest.mark.parametrize("size", [(50, 130), (130, 50), (64, 64)])
def test_tiles(folder, size):
    hub_models.eomt(folder, tiles=True)
    (frame,) = pictures(size)
    network, prepare = theirs(folder, "EomtForUniversalSegmentation", "EomtImageProcessorPil")
    inputs = prepare(images=[picture(frame)], return_tensors="pt")
    with torch.inference_mode():
        outputs = network(**inputs)
    (expected,) = prepare.post_process_semantic_segmentation(outputs, target_sizes=[size])
    (found,) = load(folder).detect([frame], Context())
    mine = np.full(size, -1)
    for one in found:
        mine[bitmap(one.shape, frame)] = CLASSES.index(one.label)
    assert alike(mine, expected.numpy()) > 0.97


@pytest.mark.parametrize("version", ["OwlViT", "Owlv2"])
def test_owl(folder, version):
    hub_models.owl(folder, version=version)
    (frame,) = pictures((50, 90))
    network, prepare = theirs(folder, f"{version}ForObjectDetection", f"{version}ImageProcessorPil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(["cat", "red car"], padding="max_length", max_length=16, return_tensors="pt")
    with torch.inference_mode():
        outputs = network(pixel_values=prepare(images=[picture(frame)], return_tensors="pt")["pixel_values"], **tokens)
    (expected,) = prepare.post_process_object_detection(outputs, threshold=0.01, target_sizes=torch.tensor([[50, 90]]))
    (found,) = load(folder, labels=["cat", "red car"], nms_iou=1.0).detect([frame], Context())
    assert len(found) > 3
    for one in found:
        box = np.array([one.shape.left, one.shape.top, one.shape.right, one.shape.bottom])
        place = int((expected["scores"] - one.score).abs().argmin())
        assert one.score == pytest.approx(float(expected["scores"][place]), abs=1e-4)
        np.testing.assert_allclose(expected["boxes"][place].numpy().clip(0, [90, 50, 90, 50]), box, atol=0.01)
        assert ["cat", "red car"][int(expected["labels"][place])] == one.label


def test_grounding_dino_however_many_texts_the_phrases_need(folder):
    """Sixteen tokens hold some of the phrases; a phrase's score does not depend on where in the texts it stands."""
    hub_models.grounding_dino(folder)
    (frame,) = pictures((128, 192))
    network, prepare = theirs(folder, "GroundingDinoForObjectDetection", "GroundingDinoImageProcessorPil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("cat. red car.", return_tensors="pt", return_token_type_ids=True)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = network(**prepare(images=[picture(frame)], return_tensors="pt"), **tokens)
    (found,) = load(folder, labels=["cat", "red car"], nms_iou=1.0).detect([frame], Context())
    chances = outputs.logits.sigmoid()[0]
    cat, car = chances[:, 1], chances[:, 3:5].amax(-1)
    expected = sorted(torch.maximum(cat, car).tolist(), reverse=True)
    np.testing.assert_allclose([one.score for one in found], [score for score in expected if score >= 0.01], atol=1e-4)
    for one in found:
        place = int((torch.maximum(cat, car) - one.score).abs().argmin())
        assert one.label == ("cat" if cat[place] >= car[place] else "red car")
    many = ["cat", "red car", "dog", "red dog", "red cat", "car", "red red car"]
    model = load(folder, labels=many, nms_iou=1.0)
    (texts,) = model.detect([frame], Context())
    assert len({one.label for one in texts}) > 1
    asked = [list(part) for part in model._questions._fitting(many)]
    assert len(asked) > 1
    assert sum(len(part) for part in asked) == len(many)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_tags(folder, frame, problem):
    hub_models.vit(folder, problem_type=problem)
    network, prepare = theirs(folder, "ViTForImageClassification", "ViTImageProcessorPil")
    with torch.inference_mode():
        logits = network(**prepare(images=[picture(frame)], return_tensors="pt")).logits[0]
    scores = logits.sigmoid() if problem.startswith("multi") else logits.softmax(-1)
    (found,) = load(folder, top_k=3).detect([frame], Context())
    given = {one.label: one.score for one in found}
    assert given == pytest.approx({name: float(score) for name, score in zip(CLASSES, scores, strict=True)}, abs=1e-5)


def test_a_pose_moves_with_its_person(folder):
    """The points of a person who stands elsewhere in a larger picture are the same, shifted."""
    hub_models.vitpose(folder)
    (person,) = pictures((64, 48))
    canvas = np.zeros((200, 300, 3), np.uint8)
    canvas[40:104, 100:148] = person.image
    model = load(folder, point_threshold=0.0)
    elsewhere = Frame(0, "elsewhere", np.roll(canvas, (50, 80), axis=(0, 1)))
    (here,) = model.estimate(Frame(0, "here", canvas), [Rectangle(100.0, 40.0, 148.0, 104.0)])
    both = model.estimate(elsewhere, [Rectangle(180.0, 90.0, 228.0, 154.0)] * 5)
    assert len(both) == 5
    for one, other in zip(here.elements, both[4].elements, strict=True):
        assert one.label == other.label
        assert (other.x, other.y) == pytest.approx((one.x + 80, one.y + 50), abs=0.1)
    assert [one.label for one in here.elements][:3] == ["nose", "left_eye", "right_eye"]

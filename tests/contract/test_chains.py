"""Chains of real detectors and of transformers' own models, small and untrained, loaded from service.toml as people do.

What the second model makes of a rectangle must be what it makes of it alone: nothing is lost on the way.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from adapters._torch import import_torch
from agent.compose.named import open_named
from agent.contract import Context, Frame, Mask, Prompts, Skeleton
from agent.models.loading import load_model
from agent.predict import check_predictions
from agent.settings.service import load_models
from agent.shapes.geometry import bounds
from tests.support import hub_models
from tests.support.coco import load_ground_truth

torch = import_torch()

DETECTORS = {"yolov5n": "local:{weights}/yolov5n_640.onnx", "deimv2": "hf:{weights}/deimv2_atto_coco_hf"}
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def people(assets):
    truth = load_ground_truth(assets / "media" / "coco_pose", "person_keypoints_val.json")
    return [
        Frame(number, name, np.asarray(Image.open(truth.path(name)).convert("RGB")))
        for number, name in enumerate(truth.names[:6])
    ]


def made(folder, kind, **arguments):
    place = folder / kind
    place.mkdir()
    getattr(hub_models, kind)(place, **arguments)
    return f"hf:{place}"


def written(value):
    """A value as TOML has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {written(one)}" for name, one in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture
def chained(assets, tmp_path):
    """`chained(detector, step)` opens a chain that stands in a service.toml: (its first model by itself, the whole)."""
    opened = []

    def make(detector, **step):
        reference = DETECTORS[detector].format(weights=assets / "weights")
        wishes = "\n".join(f"{key} = {written(value)}" for key, value in step.items())
        (tmp_path / "service.toml").write_text(
            f"[[models]]\nid = 'first'\nmodel = '{reference}'\n"
            "[[models]]\nid = 'whole'\nmodel = 'chain:'\n[models.options]\nof = 'first'\n"
            f"[[models.options.then]]\n{wishes}\n"
        )
        models = load_models(tmp_path / "service.toml")
        opened.extend(open_named(name, models, device="cpu") for name in ("first", "whole"))
        return opened[-2:]

    yield make
    for one in opened:
        one.close()


def asked(loaded, frames):
    found = loaded.model.detect(frames, Context(THRESHOLD))
    checked = check_predictions(found, frames, loaded.labels)
    assert all(isinstance(one, list) for one in checked), checked
    return checked


def label(loaded, name="person"):
    return next(label for label in loaded.labels if label.name == name)


def persons(found):
    return [one for one in found if one.label == "person"]


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("experts", [1, 2])
def test_a_detectors_persons_become_vitposes_skeletons(tmp_path, chained, people, detector, experts):
    options = {"point_threshold": 0.0} | ({"expert": 1} if experts > 1 else {})
    reference = made(tmp_path, "vitpose", experts=experts)
    first, whole = chained(detector, model=reference, gives="skeleton", labels=["person"], options=options)
    pose = load_model(reference, device="cpu", options=options).model
    assert label(whole).type == "skeleton"
    assert [sub.name for sub in label(whole).sublabels][:3] == ["nose", "left_eye", "right_eye"]
    assert len(label(whole).sublabels) == 17
    seen = 0
    for frame, before, after in zip(people, asked(first, people), asked(whole, people), strict=True):
        assert [one for one in after if one.label != "person"] == [one for one in before if one.label != "person"]
        boxes = [one.shape for one in persons(before)]
        assert [one.score for one in persons(after)] == [one.score for one in persons(before)]
        for box, one, expected in zip(boxes, persons(after), pose.estimate(frame, boxes), strict=True):
            assert isinstance(one.shape, Skeleton)
            assert [p.label for p in one.shape.elements] == [p.label for p in expected.elements]
            np.testing.assert_allclose(points(one.shape), points(expected), atol=0.01)
            # ViTPose looks at a window in the shape of its input, a quarter larger than the person; what it takes for
            # the summit of a heat map of random weights may lie beyond.
            wide, high = box.right - box.left, box.bottom - box.top
            reach = 0.8 * max(wide, high * 3 / 4) + 2, 0.8 * max(high, wide * 4 / 3) + 2
            middle = (box.left + box.right) / 2, (box.top + box.bottom) / 2
            assert (np.abs(points(one.shape) - middle) <= reach).mean() > 0.5
            seen += 1
    assert seen >= 8


def points(skeleton):
    return np.array([(point.x, point.y) for point in skeleton.elements])


def test_a_real_pose_on_real_detections(assets, chained):
    """Nothing was trained to fit the other: of the persons that are seen, most points lie where people marked them."""
    truth = load_ground_truth(assets / "media" / "coco_pose", "person_keypoints_val.json")
    content = json.loads((assets / "media" / "coco_pose" / "person_keypoints_val.json").read_text())
    marked = {one["id"]: np.array(one["keypoints"]).reshape(-1, 3) for one in content["annotations"]}
    model = f"local:{assets}/weights/ultralight_simplepose_256x192.onnx"
    step = {"options": {"head": "heatmaps", "point_threshold": 0.0}, "labels": ["person"]}
    _, whole = chained("yolov5n", model=model, gives="skeleton", **step)
    right, people = [], 0
    for number, name in enumerate(truth.names):
        frame = Frame(number, name, np.asarray(Image.open(truth.path(name)).convert("RGB")))
        found = [points(one.shape) for one in persons(asked(whole, [frame])[0])]
        for person, (left, top, right_edge, bottom) in truth.people(name):
            real = marked[person]
            seen, size = real[:, 2] > 0, max(right_edge - left, bottom - top)
            if found and seen.any():
                away = [np.linalg.norm(one[seen] - real[seen, :2], axis=1) for one in found]
                best = min(away, key=np.mean)
                if np.mean(best) < size / 2:  # somebody else, or nobody, was seen there
                    people += 1
                    right += (best < 0.1 * size).tolist()
    assert people >= 25
    assert np.mean(right) > 0.7


def test_sam_makes_masks_of_what_was_found(tmp_path, chained, people):
    reference = made(tmp_path, "sam2")
    first, whole = chained("yolov5n", model=reference, gives="mask", labels=["person"])
    sam = load_model(reference, device="cpu").model
    assert label(whole).type == "mask"
    seen = 0
    for frame, before, after in zip(people, asked(first, people), asked(whole, people), strict=True):
        embedding = sam.embed(frame)
        expected = [sam.segment(embedding, Prompts(box=one.shape)) for one in persons(before)]
        masks = [one.shape for one in persons(after)]
        # What SAM has no mask for is left out, and does not cost the others of the frame.
        assert len(masks) == sum(bool(answer) for answer in expected)
        for mask, answer in zip(masks, filter(None, expected), strict=True):
            assert isinstance(mask, Mask)
            assert bounds(mask) == bounds(answer[0].shape)
            seen += 1
    assert seen >= 5


def test_a_classifier_of_transformers_gives_the_attribute(tmp_path, chained, people):
    reference = made(tmp_path, "vit")
    step = {"attribute": "mood", "labels": ["person"], "margin": 0.1}
    first, whole = chained("deimv2", model=reference, gives="attribute", **step)
    assert [(one.name, one.values) for one in label(whole).attributes] == [("mood", hub_models.CLASSES)]
    vit, seen = load_model(reference, device="cpu").model, 0
    for frame, before, after in zip(people, asked(first, people), asked(whole, people), strict=True):
        for one, other in zip(persons(before), persons(after), strict=True):
            left, top, right, bottom = bounds(one.shape)
            wide, high = 0.1 * (right - left), 0.1 * (bottom - top)
            part = frame.image[
                int(max(0, top - high)) : int(np.ceil(min(frame.height, bottom + high))),
                int(max(0, left - wide)) : int(np.ceil(min(frame.width, right + wide))),
            ]
            (expected,) = vit.detect([Frame(0, "part", np.ascontiguousarray(part))], Context())[0]
            assert (other.shape, dict(other.attributes)) == (one.shape, {"mood": expected.label})
            seen += 1
    assert seen >= 8


def test_a_reader_of_transformers_gives_the_text(tmp_path, chained, people):
    reference = made(tmp_path, "trocr")
    _, whole = chained("yolov5n", model=reference, gives="text", labels=["person"], options={"max_length": 6})
    assert [(one.name, one.input_type) for one in label(whole).attributes] == [("text", "text")]
    reader = load_model(reference, device="cpu", options={"max_length": 6}).model
    (found,) = asked(whole, people[:1])
    read = reader.read(people[0], [one.shape for one in persons(found)])
    assert [one.attributes["text"] for one in persons(found)] == read


def test_a_detector_within_a_detectors_crops(tmp_path, chained, people):
    reference = made(tmp_path, "yolos")
    step = {"labels": ["person"], "threshold": 0.2}
    first, whole = chained("yolov5n", model=reference, gives="detections", **step)
    assert {"cat", "dog", "car"} <= {one.name for one in whole.labels}
    for before, after in zip(asked(first, people), asked(whole, people), strict=True):
        assert after[: len(before)] == before
        around = [bounds(one.shape) for one in persons(before)]
        for one in after[len(before) :]:
            left, top, right, bottom = bounds(one.shape)
            assert any(
                box[0] - 1.5 <= left and box[1] - 1.5 <= top and right <= box[2] + 1.5 and bottom <= box[3] + 1.5
                for box in around
            ), "what is found in a crop lies within it"


TWO = """
import cvat_sdk.auto_annotation as cvataa
spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("person", 1, type="rectangle")])

def detect(context, image):
    return [cvataa.rectangle(1, box) for box in ([1, 1, 2, 2], [40, 20, 90, 50])]
"""
FILLER = """
import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask
spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_bounding_boxes=1)

def detect(context, image, prompts):
    (left, top), (right, bottom) = prompts.bounding_box
    mask = np.zeros((image.height, image.width), bool)
    mask[int(top):int(bottom), int(left):int(right)] = True
    wide = right - left > 2
    return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask))] if wide else []
"""


def test_what_gets_no_mask_is_left_out_and_the_rest_stays(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    (tmp_path / "filler.py").write_text(FILLER)
    options = {"of": f"cvat:{tmp_path}/two.py", "then": [{"model": f"cvat:{tmp_path}/filler.py", "gives": "mask"}]}
    whole = open_named("chain:", device="cpu", options=options)
    try:
        (found,) = asked(whole, [Frame(0, "f", np.zeros((64, 128, 3), np.uint8))])
    finally:
        whole.close()
    assert [bounds(one.shape) for one in found] == [(40, 20, 90, 50)]

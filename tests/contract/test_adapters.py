"""The contract of a detector (`agent/contract.py`), held against every adapter, on real pictures.

A new adapter joins by one line in MODELS. Real weights where there are some, else what the library itself builds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent.compose.named import open_named
from agent.contract import Context, Detection, Frame, Skeleton
from agent.models.loading import LoadedModel
from agent.shapes.geometry import area, bounds
from tests.support.contract_models import (
    Built,
    Shop,
    caffe,
    composition,
    end2end,
    exported,
    function,
    hub,
    labelled,
    landmarks,
    nanodet,
    openvino,
    retinaface,
    roboflow,
    scrfd,
    tensorflow,
    tflite,
    torchscript,
    workflow,
)

FUNCTION = """
import cvat_sdk.auto_annotation as cvataa
spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("bright", 7, type="rectangle")])

def detect(context, image):
    \"\"\"A box around the pixels that are brighter than the mean, as far as that has an area.\"\"\"
    gray = image.convert("L")
    mean = gray.resize((1, 1)).getpixel((0, 0))
    box = gray.point(lambda value: 255 * (value > mean)).getbbox()
    return [cvataa.rectangle(7, list(box), score=0.6)] if box else []
"""


@dataclass(frozen=True)
class Case:
    """A model to hold against the contract: a reference (`weights` lie in the assets), or a function that builds it."""

    reference: str = ""
    weights: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    build: Callable[[Shop], Built] | None = None
    same_boxes: bool = True
    """Whether the same thing has the same box whatever the threshold and the neighbours; not where several sightings
    of a thing are made one, and whatever of them is above the threshold counts."""


def built(make: Callable[..., Built], *given: Any, same_boxes: bool = True, **options: Any) -> Case:
    return Case(build=lambda shop: make(shop, *given, **options), same_boxes=same_boxes)


SMALL = "local:{weights}/FastestDet_352.onnx"
SURE = {"model": SMALL, "threshold": 0.4}
"""So that there are some things to look at again, and not hundreds."""
LABELLER = {"model": "local:{weights}/squeezenet_v1.1_227.onnx", "options": {"labels": "imagenet-1k"}}
POSES = {"model": "local:{weights}/ultralight_simplepose_256x192.onnx", "options": {"head": "heatmaps"}}
MASKS = {
    "model": "local:{weights}/promptseg_encoder_384.onnx",
    "options": {"decoder": "{weights}/promptseg_decoder.onnx"},
}


MODELS = {
    "yolov5": Case("local", "yolov5n_640.onnx"),
    "yolov8": Case("local", "yolov8n_int8.onnx"),
    "masks": Case("local", "yolov8n-seg_int8.onnx"),
    "boxes of masks": Case("local", "yolov8n-seg_int8.onnx", {"shape": "rectangle"}),
    "yolox": Case("local", "yolox_nano_416.onnx"),
    "detr": Case("local", "deimv2_atto_coco_320.onnx"),
    "fastestdet": Case("local", "FastestDet_352.onnx"),
    "ssd": Case("local", "ultraface_RFB-320.onnx"),
    "skeletons": Case("local", "yunet_n_640_640.onnx"),
    "any batch": Case(
        "local", "yunet_n_dynamic.onnx", {"input_size": [320, 256], "batch_size": 3, "shape": "rectangle"}
    ),
    "tags": Case(
        "local",
        "squeezenet_v1.1_227.onnx",
        {"labels": "imagenet-1k", "colour": "bgr", "scale": 1, "mean": [104, 117, 123], "std": [1], "top_k": 5},
    ),
    "regions": Case("local", "espnetv2_s2.0_voc_384.onnx", {"labels": "pascal-voc-segmentation"}),
    "heat maps": Case("local", "ultralight_simplepose_256x192.onnx", {"head": "heatmaps"}),
    "end2end": built(end2end),
    "labelled": built(labelled),
    "nanodet": built(nanodet),
    "scrfd": built(scrfd),
    "retinaface": built(retinaface),
    "tensorflow": built(tensorflow),
    "caffe": built(caffe),
    "torchscript": built(torchscript),
    "torch.export": built(exported),
    "openvino": built(openvino),
    "tflite, tags": built(tflite, "mobilenet_v2_1.0_224_quant.tflite", head="classifier"),
    "tflite, regions": built(tflite, "deeplabv3_mnv2_pascal_quant.tflite", labels="pascal-voc-segmentation"),
    "tflite, pose": built(tflite, "movenet_single_pose_lightning_ptq.tflite", head="movenet"),
    "landmarks": built(landmarks),
    "equalised": Case("local", "FastestDet_352.onnx", {"equalize": "clahe"}),
    "hf detection": Case("hf", "deimv2_atto_coco_hf"),
    "hf segmentation": built(hub, "mask2former", segments="instance"),
    "hf semantic-segmentation": built(hub, "segformer"),
    "hf classification": built(hub, "vit", top_k=3),
    "hf zero-shot-detection": built(hub, "owl", labels=["cat", "red car"]),
    "hf zero-shot-segmentation": built(hub, "sam3", {"kind": "Sam3"}, labels=["cat"]),
    "hf pose": built(hub, "vitpose"),
    "hf text-detection": built(hub, "pp_ocr_detector", max_side=64),
    "hf text-reading": built(hub, "pp_ocr_reader"),
    "roboflow object-detection": built(roboflow, "object-detection"),
    "roboflow instance-segmentation": built(roboflow, "instance-segmentation"),
    "roboflow keypoint-detection": built(roboflow, "keypoint-detection"),
    "roboflow classification": built(roboflow, "single-label-classification"),
    "roboflow multi-label-classification": built(roboflow, "multi-label-classification"),
    "roboflow semantic-segmentation": built(roboflow, "semantic-segmentation"),
    "roboflow workflow": built(workflow),
    "ensemble": built(composition, "ensemble", of=[SMALL, "local:{weights}/yolox_nano_416.onnx"], same_boxes=False),
    "tiles": built(composition, "tiles", of=SMALL, size=320, same_boxes=False),
    "flips": built(composition, "flips", of=SMALL, same_boxes=False),
    "chain, attribute": built(
        composition, "chain", of=SURE, then=[{**LABELLER, "gives": "attribute", "attribute": "looks"}]
    ),
    "chain, label": built(composition, "chain", of=SURE, then=[{**LABELLER, "gives": "label", "labels": ["cat"]}]),
    "chain, skeleton": built(
        composition, "chain", of=SURE, then=[{**POSES, "gives": "skeleton", "labels": ["person"]}]
    ),
    "chain, mask": built(composition, "chain", of=SURE, then=[{**MASKS, "gives": "mask", "labels": ["person"]}]),
    "chain, text": built(composition, "chain", of=SURE, then=[{"model": "{reader}", "gives": "text"}]),
    "chain, detections": built(
        composition, "chain", of=SURE, then=[{"model": "opencv:face", "gives": "detections"}], same_boxes=False
    ),
    "opencv": Case("opencv:face"),
    "cvat": built(function, "bright", FUNCTION),
}
SIZES = ((480, 640), (640, 480), (333, 501), (480, 640))
"""(height, width); the first and the last may share a batch."""
TINY = ((1, 1), (1, 3), (3, 3), (2, 40), (40, 2), (19, 23))
LOW = 0.05


@pytest.fixture(scope="module")
def shop(assets, tmp_path_factory) -> Iterator[Shop]:
    place = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("ROBOFLOW_API_KEY", "rf_secretKEY0123456789")
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        yield Shop(place, assets, stack)


@pytest.fixture(scope="module", params=[pytest.param(name, id=name) for name in MODELS])
def case(request) -> Case:
    return MODELS[request.param]


@pytest.fixture(scope="module")
def loaded(case, shop) -> Iterator[LoadedModel]:
    if case.build is not None:
        reference, options = case.build(shop)
    else:
        reference = f"{case.reference}:{shop.weights(case.weights)}" if case.weights else case.reference
        options = case.options
    model = open_named(reference, device="cpu", options=options)
    yield model
    model.close()


@pytest.fixture(scope="module")
def frames(assets) -> list[Frame]:
    pictures = [*sorted((assets / "media" / "coco_val").rglob("*.jpg"))[:3], assets / "media" / "misc" / "face.jpg"]
    return [picture(number, path, size) for number, (path, size) in enumerate(zip(pictures, SIZES, strict=True))]


@pytest.fixture(scope="module")
def answers(loaded, frames) -> list[list[Detection]]:
    """What the model says of all frames at once."""
    return [list(found) for found in loaded.model.detect(frames, Context(threshold=LOW))]


def picture(number: int, path: Path, size: tuple[int, int]) -> Frame:
    image = Image.open(path).convert("RGB").resize((size[1], size[0]))
    return Frame(number, path.name, np.asarray(image))


def same(one: Detection, other: Detection, within: float) -> bool:
    """Whether two detections are the same box, up to `within` pixels and 0.01 of score."""
    pairs = zip(corners(one), corners(other), strict=True)
    return (
        one.label == other.label
        and abs((one.score or 0) - (other.score or 0)) < 0.01
        and all(abs(a - b) <= within for a, b in pairs)
    )


def corners(found: Detection) -> tuple[float, float, float, float]:
    """left, top, right, bottom; a tag is about the whole frame, wherever that ends."""
    return (0.0, 0.0, 1.0, 1.0) if found.shape is None else bounds(found.shape)


def known(found: Sequence[Detection]) -> list[Any]:
    """Detections as values that can be compared: masks are not."""
    return [(one.label, one.score, corners(one), one.shape and area(one.shape)) for one in found]


def clear(found: list[Detection]) -> list[Detection]:
    """Those far enough above the threshold that rounding cannot lose them."""
    return [one for one in found if one.score is None or one.score > LOW + 0.02]


def test_labels_are_there_and_unique(loaded):
    names = [label.name for label in loaded.labels]
    assert names
    assert len(set(names)) == len(names)
    assert all(names)


def test_it_says_what_it_is(loaded):
    assert loaded.kind == "detector"
    assert loaded.version != "unknown"
    assert 0 <= loaded.default_threshold <= 1
    assert loaded.batch_size >= 1
    assert all(isinstance(value, str) for value in loaded.facts.values())


def test_no_frames_no_lists(loaded):
    assert list(loaded.model.detect([], Context())) == []


def test_one_list_for_each_frame_of_any_size(answers, frames):
    assert len(answers) == len(frames)
    assert any(answers), "pictures with things, persons and faces in them"


def test_labels_scores_and_places_are_right(loaded, answers, frames):
    names = {label.name for label in loaded.labels}
    for frame, found in zip(frames, answers, strict=True):
        for one in found:
            assert one.label in names
            assert one.score is None or (LOW <= one.score <= 1 and type(one.score) is float)
            left, top, right, bottom = corners(one)
            assert all(isinstance(value, float | int) and math.isfinite(value) for value in (left, top, right, bottom))
            assert 0 <= left <= right <= frame.width
            assert 0 <= top <= bottom <= frame.height
            # Points may lie on a line.
            assert isinstance(one.shape, Skeleton) or (left < right and top < bottom)


def test_shapes_are_what_the_labels_say(loaded, answers):
    types = {label.name: label.type for label in loaded.labels}
    points = {label.name: {sub.name for sub in label.sublabels} for label in loaded.labels}
    for one in (one for found in answers for one in found):
        assert types[one.label] in ("any", "tag" if one.shape is None else one.shape.type)
        if isinstance(one.shape, Skeleton):
            assert {element.label for element in one.shape.elements} <= points[one.label]


def test_shapes_are_in_pixels_of_the_frame(answers, frames):
    if all(one.shape is None for found in answers for one in found):
        return
    widest = max(corners(one)[2] / frame.width for frame, found in zip(frames, answers, strict=True) for one in found)
    assert 0.5 < widest <= 1, "neither fractions of the frame nor pixels of the network's input"


def test_the_same_frame_gives_the_same(loaded, answers, frames):
    again = [list(found) for found in loaded.model.detect(frames, Context(threshold=LOW))]
    assert [known(found) for found in again] == [known(found) for found in answers]


def test_neighbours_in_a_batch_do_not_matter(loaded, answers, frames):
    for frame, together in zip(frames, answers, strict=True):
        (alone,) = loaded.model.detect([frame], Context(threshold=LOW))
        for one in clear(together):
            assert any(same(one, other, within=1.5) for other in alone), f"{frame.name}: {one} in a batch only"
        for one in clear(list(alone)):
            assert any(same(one, other, within=1.5) for other in together), f"{frame.name}: {one} alone only"


def test_a_threshold_only_removes(case, loaded, answers, frames):
    for threshold in (0.3, 0.7, 1.0):
        found = loaded.model.detect(frames, Context(threshold=threshold))
        for some, everything in zip(found, answers, strict=True):
            given = [one for one in some if one.score is None or one.score >= threshold]
            if case.same_boxes:
                kept = [one for one in everything if one.score is None or one.score >= threshold]
                assert known(given) == known(kept)
            else:
                assert len(given) <= len(everything)
                assert {one.label for one in given} <= {one.label for one in everything}


def test_tiny_frames_do_not_crash(loaded):
    rng = np.random.default_rng(0)
    tiny = [Frame(i, f"{h}x{w}", rng.integers(0, 255, (h, w, 3), np.uint8)) for i, (h, w) in enumerate(TINY)]
    found = loaded.model.detect(tiny, Context(threshold=0.01))
    assert len(found) == len(TINY)
    for frame, some in zip(tiny, found, strict=True):
        assert all(0 <= corners(one)[0] <= corners(one)[2] <= frame.width for one in some)


def test_arrays_that_are_views_will_do(loaded, frames, answers):
    frame = frames[0]
    image = np.asfortranarray(frame.image)
    image.flags.writeable = False
    (found,) = loaded.model.detect([Frame(0, frame.name, image)], Context(threshold=LOW))
    assert len(clear(list(found))) == len(clear(answers[0]))
    np.testing.assert_array_equal(image, frame.image)

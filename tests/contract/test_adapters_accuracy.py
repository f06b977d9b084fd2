"""What reaches a detection is as good as the weights are: COCO mAP of whole adapters against measured figures.

The figures are those of the weights with their authors' preparation and decoding, on the 80 pictures of
media/coco_val (one a category: not comparable with the figure for all 5,000 of val2017).
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from agent.contract import Context, Frame
from agent.models import load_model
from tests.support.coco import accuracy, load_ground_truth

FIGURES = {
    "local:yolov5n_640.onnx": (0.310, 0.471),
    "local:yolox_nano_416.onnx": (0.302, 0.466),
    "local:deimv2_atto_coco_320.onnx": (0.280, 0.422),
    "local:FastestDet_352.onnx": (0.189, 0.342),
    "hf:deimv2_atto_coco_hf": (0.212, 0.374),
}
SLOW = {
    "local:yolov8n_int8.onnx": (0.298, 0.427),
    "local:yolov8n-seg_int8.onnx": (0.298, 0.412),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("reference", FIGURES)
def test_the_accuracy_of_the_weights_comes_through(assets, reference):
    measured = measure(assets, reference)
    expected, at_half = FIGURES[reference]
    assert measured.map == pytest.approx(expected, abs=0.01)
    assert measured.ap50 == pytest.approx(at_half, abs=0.02)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("reference", SLOW)
def test_the_accuracy_of_slow_weights_comes_through(assets, reference):
    measured = measure(assets, reference)
    expected, at_half = SLOW[reference]
    assert measured.map == pytest.approx(expected, abs=0.015)
    assert measured.ap50 == pytest.approx(at_half, abs=0.025)


def measure(assets, reference):
    scheme, _, name = reference.partition(":")
    truth = load_ground_truth(assets / "media" / "coco_val")
    model = load_model(f"{scheme}:{assets / 'weights' / name}", device="cpu").model
    boxes = {}
    for number, picture in enumerate(truth.names):
        frame = Frame(number, picture, np.asarray(Image.open(truth.path(picture)).convert("RGB")))
        (found,) = model.detect([frame], Context())
        boxes[picture] = [
            (one.label, one.score, (one.shape.left, one.shape.top, one.shape.right, one.shape.bottom)) for one in found
        ]
    return accuracy(truth, boxes)


def test_the_measure_itself(assets):
    truth = load_ground_truth(assets / "media" / "coco_val")
    right = {name: truth.boxes(name) for name in truth.names}
    assert accuracy(truth, right).map > 0.99
    moved = {name: [shifted_right(box, 0.3) for box in boxes] for name, boxes in right.items()}
    worse = accuracy(truth, moved)
    assert worse.ap50 > 0.9
    assert worse.map < 0.25
    assert accuracy(truth, {name: [] for name in truth.names}).map == 0
    some = truth.names[:20]
    assert accuracy(truth, {name: right[name] for name in some}).pictures == 20


def shifted_right(box, share):
    """The box moved by a share of its width: 0.3 leaves an IoU of 0.7 / 1.3 = 0.54."""
    label, score, (left, top, right, bottom) = box
    move = share * (right - left)
    return label, score, (left + move, top, right + move, bottom)

"""What reaches a detection is as good as the weights are: COCO mAP of whole adapters against measured figures.

The figures are those of the weights with their authors' preparation and decoding, on the 80 pictures of
media/coco_val (one a category: not comparable with the figure for all 5,000 of val2017).
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from agent.contract import Context, Frame, Rectangle
from agent.models.loading import load_model
from agent.shapes.geometry import bounds
from tests.support.coco import accuracy, load_ground_truth, mask_accuracy, pose_accuracy

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
VOC = {
    "airplane": "aeroplane", "motorcycle": "motorbike", "dining table": "diningtable", "potted plant": "pottedplant",
    "couch": "sofa", "tv": "tvmonitor",
}  # fmt: skip
"""COCO's names of VOC's classes, where they differ."""


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
    assert measured.map == pytest.approx(expected, abs=0.01)
    assert measured.ap50 == pytest.approx(at_half, abs=0.02)


def measure(assets, reference):
    scheme, _, name = reference.partition(":")
    truth = load_ground_truth(assets / "media" / "coco_val")
    options = {"shape": "rectangle"} if "-seg" in name else {}
    model = load_model(f"{scheme}:{assets / 'weights' / name}", device="cpu", options=options).model
    boxes = {}
    for picture in truth.names:
        (found,) = model.detect([opened(truth, picture)], Context())
        boxes[picture] = [(one.label, one.score, bounds(one.shape)) for one in found]
    return accuracy(truth, boxes)


def opened(truth, picture):
    return Frame(0, picture, np.asarray(Image.open(truth.path(picture)).convert("RGB")))


def bitmap(mask, frame):
    whole = np.zeros((frame.height, frame.width), bool)
    rows, columns = mask.bitmap.shape
    whole[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.bitmap
    return whole


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_accuracy_of_masks_comes_through(assets):
    truth = load_ground_truth(assets / "media" / "coco_val")
    model = load_model(f"local:{assets / 'weights' / 'yolov8n-seg_int8.onnx'}", device="cpu").model
    masks = {}
    for picture in truth.names:
        frame = opened(truth, picture)
        (found,) = model.detect([frame], Context())
        masks[picture] = [(one.label, one.score, bitmap(one.shape, frame)) for one in found]
    measured = mask_accuracy(truth, masks)
    assert measured.map == pytest.approx(0.229, abs=0.01)
    assert measured.ap50 == pytest.approx(0.389, abs=0.02)


def test_masks_lie_on_what_they_are_masks_of(assets):
    """A dozen pictures of the above: masks of sure things overlap with what is drawn, by half and more."""
    truth = load_ground_truth(assets / "media" / "coco_val")
    model = load_model(f"local:{assets / 'weights' / 'yolov8n-seg_int8.onnx'}", device="cpu").model
    best = []
    for picture in truth.names[:12]:
        frame = opened(truth, picture)
        real = [(box[0], drawn) for box, drawn in truth.masks(picture)]
        (found,) = model.detect([frame], Context(threshold=0.6))
        for one in found:
            mask = bitmap(one.shape, frame)
            overlaps = [(mask & drawn).sum() / (mask | drawn).sum() for label, drawn in real if label == one.label]
            best.append(max(overlaps, default=0.0))
    assert len(best) >= 10
    assert np.median(best) > 0.7
    assert np.mean(np.array(best) > 0.5) > 0.85


def test_the_accuracy_of_regions_comes_through(assets):
    """Intersection over union of VOC's classes over all pictures; few pictures a class, so only some are telling."""
    truth = load_ground_truth(assets / "media" / "coco_val")
    options = {"labels": "pascal-voc-segmentation"}
    path = assets / "weights" / "espnetv2_s2.0_voc_384.onnx"
    model = load_model(f"local:{path}", device="cpu", options=options).model
    names = [label.name for label in model.labels]
    shared, either = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    frames = [opened(truth, picture) for picture in truth.names]
    for frame, regions in zip(frames, model.detect(frames, Context()), strict=True):
        picture = frame.name
        real, nothing = {}, np.zeros((frame.height, frame.width), bool)
        for box, drawn in truth.masks(picture):
            name = VOC.get(box[0], box[0])
            real[name] = real.get(name, nothing) | drawn
        ours = {one.label: bitmap(one.shape, frame) for one in regions}
        for name in names:
            if name in real or name in ours:
                one, other = real.get(name, nothing), ours.get(name, nothing)
                shared[name] += int((one & other).sum())
                either[name] += int((one | other).sum())
    measured = {name: shared[name] / max(1, either[name]) for name in names}
    for name, expected in {"person": 0.73, "bus": 0.87, "aeroplane": 0.79, "car": 0.73}.items():
        assert measured[name] == pytest.approx(expected, abs=0.01), name
    assert np.mean(list(measured.values())) == pytest.approx(0.34, abs=0.01)


def test_tags_of_photographs(assets):
    """The figures of the weights' conversion for three pictures, by the preparation of SqueezeNet's authors."""
    options = {"head": "classifier", "colour": "bgr", "scale": 1, "mean": [104, 117, 123], "std": [1], "smooth": False}
    path = assets / "weights" / "squeezenet_v1.1_227.onnx"
    model = load_model(f"local:{path}", device="cpu", options={**options, "resize": "stretch"}).model
    for picture, label, score in (
        ("parrot", "macaw", 0.99),
        ("hot_dog", "hotdog", 0.62),
        ("cat_720p", "Egyptian cat", 0.35),
    ):
        image = Image.open(assets / "media" / "misc" / f"{picture}.jpg").convert("RGB")
        (found,) = model.detect([Frame(0, picture, np.asarray(image))], Context())
        assert [one.label for one in found] == [label]
        assert found[0].score == pytest.approx(score, abs=0.04)


def test_landmarks_of_faces(assets):
    """Eyes above the nose above the mouth, right of the person left in the picture, all in the face's rectangle."""
    path = assets / "weights" / "yunet_n_640_640.onnx"
    points, boxes = (load_model(f"local:{path}", device="cpu", options=o).model for o in ({}, {"shape": "rectangle"}))
    for picture, count in (("face.jpg", 4), ("grace_hopper.png", 1)):
        image = Image.open(assets / "media" / "misc" / picture).convert("RGB")
        frame = Frame(0, picture, np.asarray(image))
        (faces,), (rectangles,) = (model.detect([frame], Context(threshold=0.6)) for model in (points, boxes))
        assert len(faces) == len(rectangles) == count
        for face, box in zip(faces, rectangles, strict=True):
            right, left, nose, right_corner, left_corner = face.shape.elements
            assert right.x < left.x
            assert right_corner.x < left_corner.x
            assert max(right.y, left.y) < nose.y < min(right_corner.y, left_corner.y)
            assert all(box.shape.left < p.x < box.shape.right for p in face.shape.elements)
            assert all(box.shape.top < p.y < box.shape.bottom for p in face.shape.elements)


def test_the_accuracy_of_poses_comes_through(assets):
    """44 persons of media/coco_pose by their true boxes: OKS AP 0.445 and 0.753 at half, or better."""
    path = assets / "weights" / "ultralight_simplepose_256x192.onnx"
    model = load_model(f"local:{path}", device="cpu", options={"head": "heatmaps", "point_threshold": 0}).model
    truth = load_ground_truth(assets / "media" / "coco_pose", "person_keypoints_val.json")
    poses = {}
    for picture in truth.names:
        people = truth.people(picture)
        boxes = [Rectangle(*corners) for _, corners in people]
        skeletons = model.estimate(opened(truth, picture), boxes)
        poses[picture] = [
            (number, [(point.x, point.y) for point in skeleton.elements])
            for (number, _), skeleton in zip(people, skeletons, strict=True)
        ]
    assert sum(map(len, poses.values())) == 44
    measured = pose_accuracy(truth, poses)
    assert measured.map > 0.445
    assert measured.ap50 > 0.753


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

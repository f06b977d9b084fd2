"""Each family of detectors is told by its graph, and its boxes come out where they belong.

The graphs are 64x64 with known answers; the frames are 128x64, so that a letterbox has bars above and below and a
plain resize has two scales.
"""

import numpy as np
import onnx
import pytest

from agent.contract import Context, Frame
from agent.errors import BadPrediction, ConfigError, ModelLoadFailed
from agent.models.loading import load_model
from tests.support.onnx_graphs import constant_graph, picky_graph

CELLS = 64 + 16 + 4
"""Cells of a 64x64 picture at strides 8, 16, 32."""
NAMES = ["cat", "dog", "owl"]
FRAME = Frame(0, "wide", np.zeros((64, 128, 3), np.uint8))
META = {"names": str(dict(enumerate(NAMES)))}


def logit(p):
    return np.log(p / (1 - p))


def table(rows, count=CELLS, depth=8, fill=0.0):
    """(count, depth) with the given rows in the first places."""
    made = np.full((count, depth), fill, np.float32)
    for place, row in enumerate(rows):
        made[place, : len(row)] = row
    return made


def boxes_of(loaded, frame=FRAME, threshold=0.1):
    (found,) = loaded.model.detect([frame], Context(threshold=threshold))
    return [
        (
            d.label,
            round(d.score, 3),
            tuple(round(v, 1) for v in (d.shape.left, d.shape.top, d.shape.right, d.shape.bottom)),
        )
        for d in found
    ]


def load(path, **options):
    return load_model(f"local:{path}", device="cpu", options=options)


# A box of 16x16 input pixels around (32, 32) of a 64x64 input, in a frame of 128x64.
LETTERBOXED = (48.0, 16.0, 80.0, 48.0)  # scale 0.5, bars of 16 above and below
STRETCHED = (48.0, 24.0, 80.0, 40.0)  # scales 0.5 and 1
TOP_LEFT = (48.0, 48.0, 80.0, 64.0)  # scale 0.5, no bar above: cut at the frame's bottom


def test_yolov5_multiplies_objectness_and_class(tmp_path):
    rows = [[32, 32, 16, 16, 0.9, 0.1, 0.8, 0.0], [32, 32, 16, 16, 0.05, 0.0, 1.0, 0.0]]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output0": table(rows, 3 * CELLS)}, metadata=META))
    assert loaded.facts["head"] == "yolov5"
    assert boxes_of(loaded) == [("dog", 0.72, LETTERBOXED)]


@pytest.mark.parametrize("transposed", [False, True])
def test_yolov8_both_ways_round(tmp_path, transposed):
    output = table([[32, 32, 16, 16, 0.1, 0.2, 0.7]], depth=7)
    output = output if transposed else output.T
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output0": output}, metadata=META))
    assert loaded.facts["head"] == "yolov8"
    assert boxes_of(loaded) == [("owl", 0.7, LETTERBOXED)]


def load_shapes(path, outputs, metadata=META, **options):
    loaded = load(constant_graph(path / "m.onnx", outputs, metadata=metadata), **options)
    (found,) = loaded.model.detect([FRAME], Context(threshold=0.1))
    return loaded, found


@pytest.mark.parametrize("family", ["yolov8", "yolov5", "end2end"])
def test_masks_are_mixed_of_prototypes(tmp_path, family):
    """Prototype 3 is positive in the left half of the input, the coefficient of it 5: the left half of the box."""
    prototypes = np.zeros((32, 16, 16), np.float32)
    prototypes[3] = np.where(np.arange(16) < 8, 1, -1)
    coefficients = [0, 0, 0, 5, *[0] * 28]
    tables = {
        "yolov8": table([[32, 32, 16, 16, 0.1, 0.2, 0.7, *coefficients]], depth=7 + 32).T,
        "yolov5": table([[32, 32, 16, 16, 1, 0.1, 0.2, 0.7, *coefficients]], 3 * CELLS, 8 + 32),
        "end2end": table([[24, 24, 40, 40, 0.7, 2, *coefficients]], 9, 6 + 32),
    }
    loaded, found = load_shapes(tmp_path, {"output0": tables[family], "output1": prototypes})
    assert [(label.name, label.type) for label in loaded.labels] == [(name, "mask") for name in NAMES]
    ((label, score, mask),) = [(one.label, one.score, one.shape) for one in found]
    assert (label, score) == ("owl", pytest.approx(0.7))
    # The box is 48, 16 to 80, 48 of the frame, the middle of the input lies at 64.
    assert (mask.left, mask.top, mask.bitmap.shape) == (48, 16, (32, 16))
    assert mask.bitmap.all()
    boxes = load(tmp_path / "m.onnx", shape="rectangle")
    assert {label.type for label in boxes.labels} == {"rectangle"}
    assert boxes_of(boxes) == [("owl", 0.7, LETTERBOXED)]
    with pytest.raises(ConfigError, match=r"shape: got .skeleton., allowed for its .* head: mask, rectangle"):
        load(tmp_path / "m.onnx", shape="skeleton")


def test_a_mask_that_is_empty_is_left_out(tmp_path):
    output = table([[32, 32, 16, 16, 0.1, 0.2, 0.7, *[1.0] * 32]], depth=7 + 32).T
    _, found = load_shapes(tmp_path, {"output0": output, "output1": np.full((32, 16, 16), -1, np.float32)})
    assert found == []


POSE = {"names": "{0: 'person'}", "task": "pose", "kpt_shape": "[2, 3]"}
TWO_POINTS = [30, 32, 0.9, 40, 36, 0.2]


@pytest.mark.parametrize("family", ["yolov8", "end2end"])
def test_poses_are_skeletons(tmp_path, family):
    tables = {
        "yolov8": table([[32, 32, 16, 16, 0.8, *TWO_POINTS]], depth=11).T,
        "end2end": table([[24, 24, 40, 40, 0.8, 0, *TWO_POINTS]], 9, 12),
    }
    loaded, (one,) = load_shapes(tmp_path, {"output0": tables[family]}, POSE)
    (label,) = loaded.labels
    assert (label.name, label.type, [sub.name for sub in label.sublabels]) == ("person", "skeleton", ["1", "2"])
    assert (one.label, one.score) == ("person", pytest.approx(0.8))
    first, second = one.shape.elements
    # x / 0.5 and (y - 16) / 0.5: the frame fills the width of the input, with bars of 16 above and below.
    assert (first.label, first.x, first.y, first.outside) == ("1", 60, 32, False)
    assert (second.label, second.x, second.y, second.outside) == ("2", 80, 40, True)
    named = load(tmp_path / "m.onnx", points=["head", "tail"], point_threshold=0.1)
    assert [sub.name for sub in named.labels[0].sublabels] == ["head", "tail"]
    ((one,),) = named.model.detect([FRAME], Context(threshold=0.1))
    assert not any(element.outside for element in one.shape.elements)
    assert boxes_of(load(tmp_path / "m.onnx", shape="rectangle")) == [("person", 0.8, LETTERBOXED)]
    with pytest.raises(ConfigError, match=r"points: got 3 names, its .* head has 2 points"):
        load(tmp_path / "m.onnx", points=["a", "b", "c"])
    with pytest.raises(ConfigError, match=r"point_threshold: got 3.0, allowed: 0 to 1"):
        load(tmp_path / "m.onnx", point_threshold=3)


def test_points_without_scores_are_certain_and_seventeen_are_cocos(tmp_path):
    places = [value for number in range(17) for value in (20 + number, 30)]
    output = table([[32, 32, 16, 16, 0.8, *places]], depth=5 + 34).T
    loaded, (one,) = load_shapes(tmp_path, {"output0": output}, {**POSE, "kpt_shape": "[17, 2]"})
    assert [sub.name for sub in loaded.labels[0].sublabels][:2] == ["nose", "left_eye"]
    assert not any(element.outside for element in one.shape.elements)
    assert one.shape.elements[16].x == 72
    by_option = constant_graph(tmp_path / "n.onnx", {"o": table([], depth=5 + 51).T}, metadata={"names": "['p']"})
    assert load(by_option, head="yolov8-pose").facts["head"] == "yolov8-pose"


def test_a_pose_whose_points_are_all_unsure_is_left_out(tmp_path):
    output = table([[32, 32, 16, 16, 0.8, 1, 1, 0.1, 2, 2, 0.1]], depth=11).T
    assert load_shapes(tmp_path, {"output0": output}, POSE)[1] == []


OBB = {**META, "task": "obb"}


@pytest.mark.parametrize("family", ["yolov8", "end2end"])
def test_turned_boxes_are_turned_rectangles(tmp_path, family):
    turn = np.pi / 6
    tables = {
        "yolov8": table([[32, 32, 20, 8, 0.1, 0.9, 0, turn]], depth=8).T,
        "end2end": table([[32, 32, 20, 8, 0.9, 1, turn]], 9, 7),
    }
    loaded, (one,) = load_shapes(tmp_path, {"output0": tables[family]}, OBB)
    assert loaded.labels[1].type == "rectangle"
    box = one.shape
    assert one.label == "dog"
    np.testing.assert_allclose(
        (box.left, box.top, box.right, box.bottom, box.rotation), (44, 24, 84, 40, 30), atol=1e-4
    )


def test_suppression_of_turned_boxes_looks_at_the_turn(tmp_path):
    """Two long boxes with the same middle: along each other one goes, across each other both stay."""
    rows = [[32, 32, 40, 4, 0.9, 0, 0, 0.0], [32, 32, 40, 4, 0.8, 0, 0, np.pi / 2], [33, 32, 40, 4, 0.7, 0, 0, 0.02]]
    _, found = load_shapes(tmp_path, {"output0": table(rows, depth=8).T}, OBB)
    assert [round(one.score, 2) for one in found] == [0.9, 0.8]
    assert [round(one.shape.rotation) for one in found] == [0, 90]


def test_a_stretched_frame_keeps_turned_boxes_in_place(tmp_path):
    output = table([[32, 32, 20, 8, 0.9, 0, 0, np.pi / 2]], depth=8).T
    _, (one,) = load_shapes(tmp_path, {"output0": output}, OBB, resize="stretch")
    box = one.shape
    # The long side stands upright: 20 high where nothing is stretched, 8 wide where it is by two.
    np.testing.assert_allclose((box.right - box.left, box.bottom - box.top, box.rotation), (20, 16, 90), atol=1e-4)
    assert ((box.left + box.right) / 2, (box.top + box.bottom) / 2) == (64, 32)


def test_heads_that_say_more_are_held_to_it(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"o": table([], depth=8).T}, metadata=META)
    assert load(path, head="yolov8-obb").facts["head"] == "yolov8-obb"
    with pytest.raises(ModelLoadFailed, match="this is no yolov8-seg head: the graph gives"):
        load(path, head="yolov8-seg")


def test_suppression_is_within_a_class(tmp_path):
    rows = [[32, 32, 16, 16, 0.9, 0, 0], [33, 32, 16, 16, 0.8, 0, 0], [32, 32, 16, 16, 0, 0.7, 0]]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output0": table(rows, depth=7).T}, metadata=META))
    assert [(label, score) for label, score, _ in boxes_of(loaded)] == [("cat", 0.9), ("dog", 0.7)]
    loose = load(tmp_path / "m.onnx", nms_iou=0.95)
    assert len(boxes_of(loose)) == 3
    assert len(boxes_of(load(tmp_path / "m.onnx", nms_iou=0.95, max_detections=2))) == 2


@pytest.mark.parametrize(
    ("output", "meta"),
    [
        (np.array([[24, 24, 40, 40, 0.8, 1], [0, 0, 9, 9, 0.01, 0]], np.float32), META),
        (table([[24, 24, 40, 40, 0.8, 1]], 300, 6), META),
    ],
    ids=["two rows", "300 rows"],
)
def test_end2end_is_taken_as_it_is(tmp_path, output, meta):
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output0": output}, metadata=meta))
    assert loaded.facts["head"] == "end2end"
    assert boxes_of(loaded) == [("dog", 0.8, LETTERBOXED)]


@pytest.mark.parametrize("batch", [1, "batch"])
def test_end2end_of_yolov7_numbers_its_pictures(tmp_path, batch):
    output = np.array([[0, 24, 24, 40, 40, 2, 0.8]], np.float32)
    path = constant_graph(tmp_path / "m.onnx", {"output": output}, metadata=META, batched=False, batch=batch)
    assert boxes_of(load(path)) == [("owl", 0.8, LETTERBOXED)]


def test_yolox_decodes_raw_grids(tmp_path):
    # Cell (row 4, column 4) of the 8x8 grid: (0 + 4) * 8 = 32, exp(log 2) * 8 = 16.
    output = table([], depth=8)
    output[4 * 8 + 4] = [0, 0, np.log(2), np.log(2), 0.9, 0, 0, 0.5]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output": output}, metadata=META))
    assert loaded.facts["head"] == "yolox"
    assert boxes_of(loaded) == [("owl", 0.45, TOP_LEFT)]


def test_yolox_decoded_in_the_graph(tmp_path):
    rng = np.random.default_rng(0)
    output = np.concatenate([rng.uniform(10, 60, (CELLS, 4)), np.zeros((CELLS, 4))], axis=1).astype(np.float32)
    output[7] = [32, 32, 16, 16, 0.9, 0, 0, 0.5]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output": output}, metadata=META))
    assert loaded.facts["head"] == "yolox (decoded in the graph)"
    assert boxes_of(loaded) == [("owl", 0.45, TOP_LEFT)]
    output[:, 4] = 1
    yolov6 = load(constant_graph(tmp_path / "m.onnx", {"output": output}, metadata=META))
    assert boxes_of(yolov6) == [("owl", 0.5, LETTERBOXED)]


@pytest.mark.parametrize("names", [("logits", "pred_boxes"), ("scores", "boxes")])
def test_detr_with_a_sigmoid_for_each_class(tmp_path, names):
    values = table([[0.01, 0.6, 0.02], [0.01, 0.02, 0.01]], 20, 3, fill=0.01)
    values = logit(values) if names[0] == "logits" else values
    boxes = table([[0.5, 0.5, 0.25, 0.25]], 20, 4, fill=0.4)
    path = constant_graph(tmp_path / "m.onnx", {names[0]: values, names[1]: boxes}, metadata=META)
    loaded = load(path)
    assert loaded.facts["head"] == "detr"
    assert boxes_of(loaded) == [("dog", 0.6, STRETCHED)]


def test_detr_with_a_softmax_and_no_object(tmp_path):
    logits = table([[0, 5, 0, 1]], 20, 4)
    logits[1:, 3] = 9
    boxes = table([[0.5, 0.5, 0.25, 0.25]], 20, 4, fill=0.4)
    path = constant_graph(
        tmp_path / "m.onnx",
        {"logits": logits, "pred_boxes": boxes},
        metadata=META,
        more_inputs={"pixel_mask": (7, [1, 64, 64])},
    )
    loaded = load(path)
    ((label, score, box),) = boxes_of(loaded)
    assert (label, box) == ("dog", STRETCHED)
    assert score == pytest.approx(np.exp(5) / (np.exp(5) + 2 + np.exp(1)), abs=1e-3)
    assert "0.485" in loaded.facts["preparation"]


@pytest.mark.parametrize("flat", [False, True], ids=["rows a picture", "torchvision"])
def test_labelled_boxes_scores_and_numbers(tmp_path, flat):
    outputs = {
        "labels": np.array([1, 0], np.int64),
        "boxes": np.array([[24, 24, 40, 40], [0, 0, 64, 64]], np.float32),
        "scores": np.array([0.9, 0.02], np.float32),
    }
    path = constant_graph(
        tmp_path / "m.onnx",
        outputs,
        metadata=META,
        batched=not flat,
        more_inputs={} if flat else {"orig_target_sizes": (7, [1, 2])},
    )
    loaded = load(path)
    assert loaded.facts["head"] == "labelled"
    assert boxes_of(loaded) == [("dog", 0.9, STRETCHED)]


@pytest.mark.parametrize("padded", [False, True], ids=["torchvision", "padded with zeros"])
@pytest.mark.parametrize("scale", [64, 1], ids=["pixels", "shares"])
def test_labelled_boxes_where_a_gray_picture_has_none(tmp_path, padded, scale):
    """Graphs that suppress give no box for it, or rows of zeros: in what boxes are written, another picture tells."""
    boxes = np.array([[24, 24, 40, 40], [0, 32, 32, 64]], np.float32) / 64 * scale
    path = picky_graph(tmp_path / "m.onnx", boxes, np.array([1, 0]), np.array([0.9, 0.4], np.float32), padded)
    loaded = load(path, labels=NAMES)
    assert loaded.facts["head"] == "labelled"
    assert boxes_of(loaded) == []
    white = Frame(0, "white", np.full((64, 128, 3), 255, np.uint8))
    assert boxes_of(loaded, white) == [("dog", 0.9, STRETCHED), ("cat", 0.4, (0.0, 32.0, 64.0, 64.0))]


def detections(count=3):
    """What TensorFlow's Object Detection API gives: shares, y first."""
    boxes, classes, scores = np.zeros((count, 4)), np.ones(count), np.zeros(count)
    boxes[0], classes[0], scores[0] = (0.25, 0.375, 0.75, 0.625), 2, 0.9
    boxes[1], classes[1], scores[1] = (0, 0, 1, 1), 3, 0.02
    return np.float32(boxes), np.float32(classes), np.float32(scores)


TALL = ("dog", 0.9, (48.0, 16.0, 80.0, 48.0))
"""In a frame of 128 x 64 whose input is stretched: x from 0.375 to 0.625, y from 0.25 to 0.75."""


@pytest.mark.parametrize("names", [NAMES, ["background", *NAMES]], ids=["from one", "background first"])
def test_tensorflows_detections(tmp_path, names):
    boxes, classes, scores = detections()
    outputs = {
        "detection_anchor_indices": np.zeros(3, np.float32), "detection_boxes": boxes, "detection_classes": classes,
        "detection_multiclass_scores": np.zeros((3, 4), np.float32), "detection_scores": scores,
        "num_detections": np.float32(2).reshape(()), "raw_detection_boxes": np.zeros((50, 4), np.float32),
        "raw_detection_scores": np.zeros((50, 4), np.float32),
    }  # fmt: skip
    path = constant_graph(tmp_path / "m.onnx", outputs, channels_last=True, dtype=onnx.TensorProto.UINT8)
    loaded = load(path, labels=names)
    assert loaded.facts["head"] == "tensorflow (TensorFlow's Object Detection API)"
    assert [label.name for label in loaded.labels] == NAMES
    assert boxes_of(loaded) == [TALL]


@pytest.mark.parametrize("order", [("a", "b", "c", "d"), ("c", "a", "d", "b"), ("d", "c", "b", "a")])
def test_detections_of_tensorflow_lite_have_no_names(tmp_path, order):
    """Their order is another in each release; classes count from 0."""
    boxes, classes, scores = detections()
    values = dict(zip("abcd", (boxes, classes - 1, scores, np.float32(2)), strict=True))
    outputs = {f"StatefulPartitionedCall:{number}": values[letter] for number, letter in enumerate(order)}
    path = constant_graph(tmp_path / "m.onnx", outputs, channels_last=True)
    loaded = load(path, labels=NAMES)
    assert loaded.facts["head"] == "tensorflow (TFLite_Detection_PostProcess)"
    assert boxes_of(loaded) == [TALL]
    # Their lists of names begin with one that is none.
    assert boxes_of(load(path, labels=["???", *NAMES])) == [TALL]
    assert loaded.facts["preparation"] == "stretch, rgb, (x*1 - 127.5) / 127.5"


@pytest.mark.parametrize("names", [NAMES, ["", *NAMES]])
def test_rows_of_caffes_ssd(tmp_path, names):
    rows = np.zeros((1, 5, 7), np.float32)
    rows[0, 0] = (0, 2, 0.9, 0.375, 0.25, 0.625, 0.75)
    rows[0, 1] = (0, 1, 0.01, 0, 0, 1, 1)
    rows[0, 2] = (-1, 0, 0, 0, 0, 0, 0)
    rows[0, 3] = (0, 1, 0.9, 0, 0, 1, 1)  # what comes after the end is none
    loaded = load(constant_graph(tmp_path / "m.onnx", {"out": rows}), labels=names)
    assert loaded.facts["head"] == "caffe"
    assert boxes_of(loaded) == [TALL]


def test_ssd_with_its_background_first(tmp_path):
    scores = table([[0.1, 0.0, 0.9, 0.0]], 1200, 4)
    scores[1:, 0] = 1
    boxes = table([[0.375, 0.375, 0.625, 0.625]], 1200, 4)
    boxes[1:] = [0.1, 0.1, 0.2, 0.3]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"scores": scores, "boxes": boxes}, metadata=META))
    assert loaded.facts["head"] == "ssd"
    assert boxes_of(loaded) == [("dog", 0.9, STRETCHED)]


def test_nanodet_reads_distances_off_distributions(tmp_path):
    output = np.zeros((CELLS, 3 + 32), np.float32)
    sides = np.full((4, 8), -50.0)
    sides[:, 1] = 50  # one stride to each side
    output[4 * 8 + 4] = [0.1, 0.8, 0.1, *sides.ravel()]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output": output}, metadata=META))
    assert loaded.facts["head"] == "nanodet"
    assert boxes_of(loaded) == [("dog", 0.8, STRETCHED)]


def test_fastestdet_mixes_objectness_and_class(tmp_path):
    output = np.zeros((5 + 3, 4, 4), np.float32)
    output[5] = 1
    output[:, 2, 2] = [0.9, 0, 0, logit(0.25), logit(0.25), 0.1, 0.9, 0.0]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"out": output}, metadata=META))
    assert loaded.facts["head"] == "fastestdet"
    assert boxes_of(loaded) == [("dog", round(0.9**0.6 * 0.9**0.4, 3), STRETCHED)]


def test_frames_in_a_batch_keep_their_own_scales(tmp_path):
    path = constant_graph(
        tmp_path / "m.onnx", {"o": table([[32, 32, 16, 16, 0.9, 0, 0]], depth=7).T}, metadata=META, batch="n"
    )
    loaded = load(path, batch_size=3)
    shapes = [(64, 128), (128, 64), (64, 64), (1, 1), (640, 640)]
    frames = [Frame(i, str(i), np.zeros((*shape, 3), np.uint8)) for i, shape in enumerate(shapes)]
    together = loaded.model.detect(frames, Context(threshold=0.1))
    alone = [loaded.model.detect([frame], Context(threshold=0.1))[0] for frame in frames]
    assert together == alone
    assert [boxes_of(loaded, frame)[0][2] for frame in frames[:3]] == [
        LETTERBOXED,
        (16.0, 48.0, 48.0, 80.0),
        (24.0, 24.0, 40.0, 40.0),
    ]


def test_a_fixed_batch_is_filled_up(tmp_path):
    path = constant_graph(
        tmp_path / "m.onnx", {"o": table([[32, 32, 16, 16, 0.9, 0, 0]], depth=7).T}, metadata=META, batch=4
    )
    loaded = load(path)
    assert loaded.batch_size % 4 == 0
    assert len(loaded.model.detect([FRAME] * 6, Context())) == 6


@pytest.mark.parametrize("dtype", [1, 10, 2], ids=["float32", "float16", "uint8"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_inputs_of_every_form(tmp_path, dtype, channels_last):
    path = constant_graph(
        tmp_path / "m.onnx",
        {"o": table([[32, 32, 16, 16, 0.9, 0, 0]], depth=7).T},
        metadata=META,
        dtype=dtype,
        channels_last=channels_last,
    )
    assert boxes_of(load(path)) == [("cat", 0.9, LETTERBOXED)]


def test_a_dynamic_size_is_the_exporters_or_the_options(tmp_path):
    given = {"o": table([[32, 32, 16, 16, 0.9, 0, 0]], depth=7).T}
    path = constant_graph(tmp_path / "m.onnx", given, size=("h", "w"), metadata={**META, "imgsz": "[64, 64]"})
    assert load(path).facts["input size"] == "64x64"
    plain = constant_graph(tmp_path / "n.onnx", given, size=("h", "w"), metadata=META)
    assert load(plain, input_size=64).facts["input size"] == "64x64"
    with pytest.raises(ModelLoadFailed, match=r"unknown kind of head: for a 640x640 picture"):
        load(plain)


def test_a_class_beyond_the_names_is_a_bad_prediction(tmp_path):
    output = np.array([[24, 24, 40, 40, 0.8, 7]], np.float32)
    loaded = load(constant_graph(tmp_path / "m.onnx", {"o": output}, metadata=META))
    with pytest.raises(BadPrediction, match="class 7, there are 3 class names"):
        boxes_of(loaded)


def test_numbers_that_are_none_are_left_out(tmp_path):
    rows = [[np.nan, 32, 16, 16, 0.9, 0, 0], [np.inf, 32, 16, 16, 0.8, 0, 0], [32, 32, 16, 16, 0.7, 0, 0]]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"o": table(rows, depth=7).T}, metadata=META))
    assert boxes_of(loaded) == [("cat", 0.7, LETTERBOXED)]


def test_only_asked_labels_come_back(tmp_path):
    rows = [[32, 32, 16, 16, 0.9, 0, 0], [12, 32, 16, 16, 0, 0.8, 0]]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"o": table(rows, depth=7).T}, metadata=META))
    (found,) = loaded.model.detect([FRAME], Context(labels=frozenset({"dog"})))
    assert [d.label for d in found] == ["dog"]


def test_a_head_that_is_named_is_held_to_the_graph(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"o": table([], depth=7).T}, metadata=META)
    assert load(path, head="yolov8").facts["head"] == "yolov8"
    with pytest.raises(ModelLoadFailed, match=r"no yolox head: the graph gives o \[1, 7, 84\]"):
        load(path, head="yolox")
    with pytest.raises(ConfigError, match="head: got 'yolo9000', allowed: auto, "):
        load(path, head="yolo9000")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"prob": np.zeros(1000, np.float32)}, r"like a classifier .* or an embedding \(option kind=reid\)"),
        ({"logits": np.zeros((21, 64, 64), np.float32)}, "like a map of classes"),
        ({"embedding": np.zeros((64, 16, 16), np.float32)}, r"like the encoder of an interactor \(option decoder"),
        ({"output": np.zeros((96, 4, 4), np.float32)}, "like features: the encoder .* NanoTrack's backbone"),
        ({"o": np.zeros((CELLS, 9), np.float32)}, "option 'labels'"),
    ],
)
def test_what_could_be_several_things_is_not_guessed(tmp_path, outputs, message):
    with pytest.raises(ModelLoadFailed, match=message):
        load(constant_graph(tmp_path / "m.onnx", outputs))


def test_numbers_that_are_nearly_all_none_are_a_bad_prediction(tmp_path):
    """A network that has come apart must not look like frames with nothing in them."""
    loaded = load(constant_graph(tmp_path / "m.onnx", {"o": table([], depth=7, fill=np.nan).T}, metadata=META))
    with pytest.raises(BadPrediction, match=r"100% of the output 'o' are no numbers \(NaN or infinite\)"):
        boxes_of(loaded)


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        ({"o": table([], depth=7).T}, {"top_k": 2}, "option 'top_k' is not for its yolov8 head, allowed: nms_iou, max"),
        ({"o": table([], depth=7).T}, {"points": ["a"]}, "option 'points' is not for its yolov8 head"),
        ({"o": np.zeros(3, np.float32)}, {"nms_iou": 0.3}, "option 'nms_iou' is not for its classifier head"),
        ({"o": np.zeros((3, 64, 64), np.float32)}, {"shape": "mask"}, "option 'shape' is not for its semantic head"),
    ],
)
def test_options_of_other_heads_are_told(tmp_path, outputs, options, message):
    with pytest.raises(ConfigError, match=message):
        load(constant_graph(tmp_path / "m.onnx", outputs, metadata=META), **options)


def test_boxes_as_shares_of_the_input(tmp_path):
    """TensorFlow's exports of the YOLO families; pixels are told from shares by the gray picture's boxes."""
    rows = [[0.5, 0.5, 0.25, 0.25, 0.1, 0.2, 0.7]]
    loaded = load(constant_graph(tmp_path / "m.onnx", {"output0": table(rows, depth=7).T}, metadata=META))
    assert boxes_of(loaded) == [("owl", 0.7, LETTERBOXED)]
    pose = table([[0.5, 0.5, 0.25, 0.25, 0.8, 0.5, 0.5, 0.9, 0.25, 0.25, 0.9]], depth=11).T
    _, (one,) = load_shapes(tmp_path, {"output0": pose}, POSE)
    assert [(point.x, point.y) for point in one.shape.elements] == [(64, 32), (32, 0)]
    chosen = table([[0.375, 0.375, 0.625, 0.625, 0.8, 1]], 9, 6)
    assert boxes_of(load(constant_graph(tmp_path / "e.onnx", {"o": chosen}, metadata=META))) == [
        ("dog", 0.8, LETTERBOXED)
    ]


def test_inputs_of_bytes_get_pixels_as_they_are(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"o": table([], depth=7).T}, metadata=META, dtype=2)
    assert load(path).facts["preparation"] == "letterbox on 114, rgb, x*1"
    assert load(path, scale=0.5).facts["preparation"] == "letterbox on 114, rgb, x*0.5"

"""Face detectors are told by their graphs, and their boxes and landmarks come out where they belong.

The frames are twice as wide as high: in a square input they fill the upper half, at half their size.
"""

import numpy as np
import pytest

from agent.contract import Context, Frame
from agent.errors import ModelLoadFailed
from agent.models.loading import load_model
from tests.support.face_graphs import ONE, retinaface_outputs, scrfd_outputs
from tests.support.onnx_graphs import constant_graph

LANDMARKS = ["right_eye", "left_eye", "nose", "right_mouth_corner", "left_mouth_corner"]
FRAME = Frame(0, "wide", np.zeros((64, 128, 3), np.uint8))


def load(path, **options):
    return load_model(f"local:{path}", device="cpu", options=options)


def faces(loaded, frames=(FRAME,), threshold=0.1):
    """By frame, scores and points of what is found."""
    return [
        [(round(one.score, 3), [(p.label, round(p.x, 2), round(p.y, 2)) for p in one.shape.elements]) for one in found]
        for found in loaded.model.detect(list(frames), Context(threshold=threshold))
    ]


def boxes(loaded, threshold=0.1):
    (found,) = loaded.model.detect([FRAME], Context(threshold=threshold))
    return [(round(one.score, 3), (one.shape.left, one.shape.top, one.shape.right, one.shape.bottom)) for one in found]


def named(*points):
    return [(name, float(x), float(y)) for name, (x, y) in zip(LANDMARKS, points, strict=True)]


POINTS = named((48, 32), (64, 32), (56, 40), (48, 48), (64, 48))


@pytest.mark.parametrize("names", ["{part}_{stride}", "{number}"], ids=["named", "by number"])
@pytest.mark.parametrize("batched", [True, False], ids=["a batch", "no batch axis"])
def test_scrfd(tmp_path, names, batched):
    outputs = scrfd_outputs(64, (8, 16, 32), 2, ONE, names=names)
    loaded = load(constant_graph(tmp_path / "m.onnx", outputs, batched=batched, batch="n" if batched else 1))
    assert loaded.facts["head"].startswith("scrfd")
    assert [label.name for label in loaded.labels] == ["face"]
    assert [label.name for label in loaded.labels[0].sublabels] == LANDMARKS
    assert faces(loaded, [FRAME, FRAME]) == [[(0.9, POINTS)]] * 2
    assert faces(loaded, threshold=0.95) == [[]]
    assert "on 0, rgb, (x*1 - 127.5) / 128" in loaded.facts["preparation"]


def test_scrfd_as_rectangles(tmp_path):
    graph = constant_graph(tmp_path / "m.onnx", scrfd_outputs(64, (8, 16, 32), 2, ONE))
    assert boxes(load(graph, shape="rectangle")) == [(0.9, (32, 16, 72, 48))]
    plain = load(constant_graph(tmp_path / "plain.onnx", scrfd_outputs(64, (8, 16, 32), 2, ONE, points=False)))
    assert plain.labels[0].type == "rectangle"
    assert boxes(plain) == [(0.9, (32, 16, 72, 48))]


def test_scrfd_of_five_strides(tmp_path):
    strides, found = (8, 16, 32, 64, 128), {(128, 0, 1, 0): (0.8, [0.5, -0.25, 0.25, 0.5], np.zeros((5, 2)))}
    loaded = load(
        constant_graph(tmp_path / "m.onnx", scrfd_outputs(256, strides, 1, found), size=(256, 256)), shape="rectangle"
    )
    # The cell begins at (128, 0) of the input, and the frame is half as large as that.
    assert boxes(loaded) == [(0.8, (32, 16, 80, 32))]


def test_scrfd_suppresses_what_two_anchors_say_of_a_face(tmp_path):
    (value,) = ONE.values()
    twice = {**ONE, (16, 1, 2, 0): (0.7, *value[1:])}
    loaded = load(constant_graph(tmp_path / "m.onnx", scrfd_outputs(64, (8, 16, 32), 2, twice)))
    assert faces(loaded) == [[(0.9, POINTS)]]


@pytest.mark.parametrize("logits", [True, False])
def test_retinaface(tmp_path, logits):
    graph = constant_graph(tmp_path / "m.onnx", retinaface_outputs(logits=logits), batch="n")
    loaded = load(graph)
    assert loaded.facts["head"].startswith("retinaface")
    assert faces(loaded) == [[(0.9, named((64, 48), (80, 48), (72, 56), (64, 64), (80, 64)))]]
    ((score, box),) = boxes(load(graph, shape="rectangle"))
    assert score == 0.9
    wide = 128 * np.exp(-1.6)
    middle_x, middle_y = 40 - 0.8, 24 + 0.4
    expected = (middle_x - wide / 2, middle_y - wide / 4, middle_x + wide / 2, middle_y + wide / 4)
    np.testing.assert_allclose(box, [2 * value for value in expected], rtol=1e-5)
    assert "on the mean, bgr, (x*1 - [104 117 123])" in loaded.facts["preparation"]


def test_what_has_other_sizes_is_none_of_them(tmp_path):
    outputs = retinaface_outputs(logits=False)
    outputs["landms"] = np.zeros((168, 8))
    with pytest.raises(ModelLoadFailed, match="this is no retinaface head"):
        load(constant_graph(tmp_path / "m.onnx", outputs), head="retinaface")
    missing = scrfd_outputs(64, (8, 16, 32), 2, ONE)
    del missing["kps_16"]
    with pytest.raises(ModelLoadFailed, match="this is no scrfd head"):
        load(constant_graph(tmp_path / "n.onnx", missing), head="scrfd")

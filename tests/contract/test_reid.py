"""The contract of a reidentifier (`agent/contract.py`), held against every adapter that gives one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from agent.contract import Frame, Rectangle
from agent.errors import BadPrediction, ConfigError, ModelLoadFailed
from agent.models.loading import load_model
from tests.support.contract_models import Shop, looks, openvino_looks
from tests.support.onnx_graphs import constant_graph

OSNET = "osnet_x0_25_msmt17.onnx"
MODELS = {
    "osnet": lambda shop: (f"local:{shop.weights(OSNET)}", {"kind": "reid"}),
    "osnet, by head, batches of 3": lambda shop: (f"local:{shop.weights(OSNET)}", {"head": "reid", "batch_size": 3}),
    "osnet, equalised": lambda shop: (f"local:{shop.weights(OSNET)}", {"kind": "reid", "equalize": "clahe"}),
    "osnet, openvino": openvino_looks,
    "torchscript": looks,
}
SIMPLE = ("torchscript",)
"""Tells colours, and no more."""


@pytest.fixture(scope="module", params=[pytest.param(name, id=name) for name in MODELS])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(name, assets, tmp_path_factory):
    reference, options = MODELS[name](Shop(tmp_path_factory.mktemp("models"), assets))
    return load_model(reference, device="cpu", options=options)


@pytest.fixture(scope="module")
def street(assets):
    """[(frame, {person: rectangle})] of a street: people at least 60 pixels high and well in sight."""
    folder = assets / "media/mot/MOT17-mini/MOT17-04-FRCNN"
    rows = np.loadtxt(folder / "gt/gt.txt", delimiter=",")
    frames = []
    for number in sorted(set(rows[:, 0].astype(int))):
        picture = np.asarray(Image.open(next(folder.rglob(f"{number:06d}.jpg"))).convert("RGB"))
        people = {
            int(row[1]): Rectangle(row[2], row[3], row[2] + row[4], row[3] + row[5])
            for row in rows
            if row[0] == number and row[7] == 1 and row[8] > 0.8 and row[5] > 60
        }
        frames.append((Frame(number, str(number), picture), people))
    return frames


def test_descriptors_are_of_unit_length(name, loaded, street):
    frame, people = street[0]
    rows = loaded.model.describe(frame, list(people.values()))
    assert loaded.kind == "reid"
    assert rows.shape == (len(people), 6 if name in SIMPLE else 512)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    alone = np.concatenate([loaded.model.describe(frame, [one]) for one in people.values()])
    np.testing.assert_allclose(rows, alone, atol=2e-3)


def test_no_rectangles_no_rows(loaded, street):
    rows = loaded.model.describe(street[0][0], [])
    assert (rows.ndim, len(rows), rows.dtype) == (2, 0, np.float32)


def test_odd_rectangles_do_not_crash(loaded, street):
    frame = street[0][0]
    odd = [
        Rectangle(5, 5, 5, 5),
        Rectangle(-50, -50, 20, 20),
        Rectangle(9000, 9000, 9010, 9010),
        Rectangle(20, 20, 10, 10),
    ]
    rows = loaded.model.describe(frame, odd)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_the_same_person_is_nearest(name, loaded, street):
    if name in SIMPLE:
        pytest.skip("it tells colours, not persons")
    (first, before), (second, after) = street[0], street[-1]
    both = [person for person in before if person in after]
    assert len(both) >= 10
    one = loaded.model.describe(first, [before[person] for person in both])
    other = loaded.model.describe(second, [after[person] for person in both])
    near = one @ other.T
    same, different = np.diag(near), near[~np.eye(len(both), dtype=bool)]
    assert same.mean() > different.mean() + 0.3
    assert (near.argmax(axis=1) == np.arange(len(both))).mean() > 0.9


def test_a_turned_rectangle_is_seen_upright(name, loaded, street):
    if "equalised" in name:
        pytest.skip("what a picture becomes depends on all of it")
    frame, people = street[0]
    person = max(people.values(), key=lambda box: box.bottom - box.top)
    left, top, right, bottom = (round(edge) for edge in (person.left, person.top, person.right, person.bottom))
    crop = frame.image[max(0, top) : bottom, max(0, left) : right]
    side = max(crop.shape) + 40
    canvas = np.zeros((side, side, 3), np.uint8)
    # The person lies on its side, head to the right: turned clockwise by 90 degrees.
    lying = np.rot90(crop, -1)
    y, x = (side - lying.shape[0]) // 2, (side - lying.shape[1]) // 2
    canvas[y : y + lying.shape[0], x : x + lying.shape[1]] = lying
    cx, cy, (h, w) = x + lying.shape[1] / 2, y + lying.shape[0] / 2, crop.shape[:2]
    turned = Rectangle(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, rotation=90)
    upright = loaded.model.describe(frame, [person])[0]
    assert upright @ loaded.model.describe(Frame(0, "c", canvas), [turned])[0] > 0.95
    straight = Rectangle(turned.left, turned.top, turned.right, turned.bottom)
    assert upright @ loaded.model.describe(Frame(0, "c", canvas), [straight])[0] < 0.95
    if name not in SIMPLE:
        assert upright @ loaded.model.describe(Frame(0, "c", canvas), [straight])[0] < 0.9


def graph(folder, row):
    return constant_graph(folder / "m.onnx", {"o": np.asarray(row, np.float32)}, size=(16, 8), batch="n")


def test_what_is_no_descriptor_is_told(tmp_path, assets):
    with pytest.raises(ModelLoadFailed, match=r"got the outputs output \[1, 3549, 85\], allowed for kind reid"):
        load_model(f"local:{assets / 'weights/yolox_nano_416.onnx'}", options={"kind": "reid"})
    with pytest.raises(ConfigError, match="option 'labels' is not for a model of kind reid"):
        load_model(f"local:{graph(tmp_path, [1, 2])}", options={"kind": "reid", "labels": ["a"]})
    with pytest.raises(ConfigError, match="batch_size: got 0, allowed: 1 or more"):
        load_model(f"local:{graph(tmp_path, [1, 2])}", options={"kind": "reid", "batch_size": 0})


@pytest.mark.parametrize("row", [[0, 0, 0], [np.nan, 1, 1], [np.inf, 1, 1]])
def test_noughts_and_numbers_that_are_none_are_a_bad_prediction(tmp_path, row):
    model = load_model(f"local:{graph(tmp_path, row)}", options={"kind": "reid"}).model
    with pytest.raises(BadPrediction, match="the descriptor of rectangle 0 is NaN, infinite or all 0"):
        model.describe(Frame(0, "f", np.zeros((9, 9, 3), np.uint8)), [Rectangle(0, 0, 5, 5)])


def test_the_length_is_made_one(tmp_path):
    model = load_model(f"local:{graph(tmp_path, [3, 4])}", options={"kind": "reid"}).model
    rows = model.describe(Frame(0, "f", np.zeros((9, 9, 3), np.uint8)), [Rectangle(0, 0, 5, 5)] * 40)
    np.testing.assert_allclose(rows, [[0.6, 0.8]] * 40, atol=1e-6)

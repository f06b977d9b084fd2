"""Options of `local:` models: class names from many places, preparation, and clear errors."""

import json

import numpy as np
import pytest

from adapters._torch import import_torch
from agent.contract import Context, Frame
from agent.errors import ConfigError, ModelLoadFailed, ModelNotFound
from agent.models.loading import load_model
from tests.support.onnx_graphs import constant_graph

CELLS = 84


def graph(tmp_path, classes=3, metadata=None):
    output = np.zeros((4 + classes, CELLS), np.float32)
    output[:, 0] = [32, 32, 16, 16, 0.9, *[0.1] * (classes - 1)]
    return constant_graph(tmp_path / "m.onnx", {"o": output}, metadata=metadata)


def names(loaded):
    return [label.name for label in loaded.labels]


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "{0: 'cat', 1: 'dog', 2: 'great owl'}"},
        {"names": '{"0": "cat", "1": "dog", "2": "great owl"}'},
        {"names": "['cat', 'dog', 'great owl']"},
        {"classes": "cat,dog,great owl"},
        {"labels": "cat\ndog\ngreat owl"},
    ],
)
def test_names_from_metadata(tmp_path, metadata):
    loaded = load_model(f"local:{graph(tmp_path, metadata=metadata)}", device="cpu")
    assert names(loaded) == ["cat", "dog", "great owl"]
    assert loaded.facts["labels from"] == "the file's metadata"
    assert all(label.type == "rectangle" for label in loaded.labels)


FILES = {
    "names.txt": "cat\ndog\nowl\n",
    "coco.names": "\ufeffcat\r\ndog\r\nowl\r\n\r\n",
    "names.json": json.dumps(["cat", "dog", "owl"]),
    "config.json": json.dumps({"id2label": {"0": "cat", "2": "owl", "1": "dog"}}),
    "data.yaml": "path: x\nnames:\n  0: cat\n  1: dog\n  2: owl\n",
    "list.yml": "names: [cat, dog, owl]\n",
    "names.toml": 'names = ["cat", "dog", "owl"]\n',
}


@pytest.mark.parametrize("file", FILES)
def test_names_from_a_file(tmp_path, file):
    (tmp_path / file).write_text(FILES[file], encoding="utf-8")
    options = {"labels_file": str(tmp_path / file)}
    assert names(load_model(f"local:{graph(tmp_path)}", device="cpu", options=options)) == ["cat", "dog", "owl"]


def test_names_by_option_win_and_unused_ones_are_left_out(tmp_path):
    path = graph(tmp_path, metadata={"names": "['x', 'y', 'z']"})
    loaded = load_model(f"local:{path}", device="cpu", options={"labels": ["N/A", "dog", "owl"]})
    assert names(loaded) == ["dog", "owl"]
    (found,) = loaded.model.detect([Frame(0, "f", np.zeros((64, 64, 3), np.uint8))], Context())
    assert found == [], "the best class has no name"
    background = load_model(f"local:{path}", device="cpu", options={"labels": ["background", "cat", "dog", "owl"]})
    assert names(background) == ["cat", "dog", "owl"]


def test_no_names_is_an_error_that_says_how(tmp_path):
    with pytest.raises(ModelLoadFailed, match=r"tells 3 classes apart.*labels_file"):
        load_model(f"local:{graph(tmp_path)}", device="cpu")


def test_eighty_classes_without_names_are_cocos(tmp_path):
    loaded = load_model(f"local:{graph(tmp_path, 80)}", device="cpu")
    assert names(loaded)[:2] == ["person", "bicycle"]
    assert len(loaded.labels) == 80
    assert "assumed" in loaded.facts["labels from"]
    by_name = load_model(f"local:{graph(tmp_path, 80)}", device="cpu", options={"labels": "coco80"})
    assert by_name.labels == loaded.labels


@pytest.mark.parametrize("classes", [21, 1000, 1001])
def test_detectors_are_not_taken_for_what_maps_and_classifiers_are_trained_on(tmp_path, classes):
    """A detector of one's own with 21 classes would speak of aeroplanes."""
    with pytest.raises(ModelLoadFailed, match=f"tells {classes} classes apart"):
        load_model(f"local:{graph(tmp_path, classes)}", device="cpu")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["a", "b"]}, ConfigError, "option labels: got 2 names, its yolov8 head has 3 classes"),
        ({"labels": "klingon"}, ConfigError, "unknown vocabulary 'klingon'"),
        ({"labels": ["a", "b", "c"], "labels_file": "x"}, ConfigError, "allowed: one of them"),
        ({"labels_file": "nowhere.txt"}, ModelNotFound, "there is no file nowhere.txt"),
        ({"labels": ["a", "a", "b"]}, ModelLoadFailed, "labels: 'a' more than once"),
        ({"nms_iou": 2}, ConfigError, "nms_iou: got 2.0, allowed: 0 to 1"),
        ({"batch_size": 0}, ConfigError, "batch_size: got 0, allowed: 1 or more"),
        ({"input_size": [64]}, ConfigError, "input_size"),
        ({"input_size": 128}, ConfigError, r"input_size: got \[128, 128\], the graph takes only \[64, 64\]"),
        ({"resize": "crop"}, ConfigError, "option 'resize': got 'crop', allowed: 'letterbox' | "),
        ({"colour": 3}, ConfigError, "option 'colour'"),
        ({"mean": [1, 2]}, ConfigError, "mean: got"),
        ({"mean": "x"}, ConfigError, "option 'mean': got 'x', allowed: a number or a list of numbers"),
        ({"std": [0]}, ConfigError, "std: got .*, allowed: .*, none of them 0"),
        ({"std": 0}, ConfigError, "std: got"),
        ({"providers": ["AbacusExecutionProvider"]}, ConfigError, "providers: got 'AbacusExecutionProvider'"),
        ({"nms_iuo": 0.5}, ConfigError, "unknown option 'nms_iuo', allowed: .*; did you mean 'nms_iou'"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        load_model(f"local:{graph(tmp_path)}", device="cpu", options=options)


def test_devices(tmp_path):
    path = graph(tmp_path, metadata={"names": "['x', 'y', 'z']"})
    assert "CPU" in load_model(f"local:{path}", options={"threads": 1}).facts["runs on"]
    with pytest.raises(ConfigError, match="device: got 'tpu', allowed: auto, cpu"):
        load_model(f"local:{path}", device="tpu")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ModelLoadFailed, match="no CUDA"):
            load_model(f"local:{path}", device="cuda")


def test_a_gpu_that_cannot_be_used_is_told(tmp_path, caplog):
    """onnxruntime-gpu falls back to the processor without an error where CUDA's libraries, or the GPU, are missing."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or import_torch().cuda.is_available():
        pytest.skip("needs onnxruntime-gpu, and no GPU")
    path = graph(tmp_path, metadata={"names": "['x', 'y', 'z']"})
    with pytest.raises(ModelLoadFailed, match="CUDAExecutionProvider could not be used, onnxruntime fell back to CPU"):
        load_model(f"local:{path}", device="cuda")
    assert "CPU" in load_model(f"local:{path}").facts["runs on"]
    assert "CUDAExecutionProvider could not be used" in caplog.text


def test_preparation_follows_the_options(tmp_path):
    path = graph(tmp_path, metadata={"names": "['x', 'y', 'z']", "license": "MIT"})
    options = {"resize": "stretch", "colour": "bgr", "scale": 1, "mean": [10, 20, 30], "std": [2]}
    loaded = load_model(f"local:{path}", device="cpu", options=options)
    assert loaded.facts["preparation"] == "stretch, bgr, (x*1 - [10 20 30]) / 2"
    assert loaded.facts["licence"] == "MIT"
    loaded = load_model(f"local:{path}", device="cpu", options={"mean": 3, "std": 2.5})
    assert loaded.facts["preparation"].endswith("(x*0.00392157 - 3) / 2.5")

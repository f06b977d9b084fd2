from pathlib import Path

import pytest

from agent.settings.paths import beside
from agent.settings.service import load_config, load_models


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").mkdir()
    for name in ("a.onnx", "decoder.onnx", "names.txt"):
        (tmp_path / "weights" / name).write_bytes(b"x")
    return tmp_path


def test_what_lies_beside_service_toml_is_named_by_its_whole_path(folder):
    assert beside("local:weights/a.onnx", {}, folder) == (f"local:{folder}/weights/a.onnx", {})
    assert beside("hf:./weights", {}, folder)[0] == f"hf:{folder}/weights"
    options = {"decoder": "weights/decoder.onnx", "labels_file": "weights/names.txt", "head": "yolov8", "iou": 0.5}
    whole = {"decoder": f"{folder}/weights/decoder.onnx", "labels_file": f"{folder}/weights/names.txt"}
    assert beside("local:weights/a.onnx", options, folder)[1] == {**options, **whole}


@pytest.mark.parametrize(
    "reference",
    ["local:weights/missing.onnx", "local:/abs/a.onnx", "hf:org/name", "roboflow:weights/a.onnx", "faces", "local:"],
)
def test_what_does_not_stays_as_it_is(folder, reference):
    assert beside(reference, {}, folder) == (reference, {})


def test_parts_of_models_too(folder):
    part = {"model": "local:weights/a.onnx", "options": {"labels_file": "weights/names.txt"}, "weight": 2}
    _, options = beside("ensemble:", {"of": ["local:weights/a.onnx", "faces", part], "iou": 0.5}, folder)
    whole = f"local:{folder}/weights/a.onnx"
    named = {"labels_file": f"{folder}/weights/names.txt"}
    assert options == {"of": [whole, "faces", {"model": whole, "options": named, "weight": 2}], "iou": 0.5}


def test_wherever_the_program_was_started(folder, monkeypatch):
    file = folder / "service.toml"
    file.write_text('[gateway]\n[[models]]\nid = "a"\nmodel = "local:weights/a.onnx"\n')
    monkeypatch.chdir(Path("/"))
    assert load_config(file).models[0].model == f"local:{folder}/weights/a.onnx"
    assert load_models(file)[0].model == f"local:{folder}/weights/a.onnx"

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
    [
        "local:/abs/a.onnx", "local:~/a.onnx", "hf:org/name", "hf:name", "hf:~/folder", "cvat:package.module",
        "roboflow:weights/a.onnx", "faces", "local:",
    ],
)  # fmt: skip
def test_what_is_no_relative_path_stays_as_it_is(folder, reference):
    assert beside(reference, {}, folder) == (reference, {})


@pytest.mark.parametrize(
    ("reference", "whole"),
    [
        ("local:late.onnx", "local:{}/late.onnx"),
        ("local:w/late.onnx", "local:{}/w/late.onnx"),
        ("hf:./w/deim", "hf:{}/w/deim"),
        ("hf:../w", "hf:{}/../w"),
        ("hf:w/of/folders", "hf:{}/w/of/folders"),
        ("cvat:late.py", "cvat:{}/late.py"),
        ("cvat:w/late", "cvat:{}/w/late"),
    ],
)
def test_a_path_leads_to_the_same_place_whether_something_is_there_or_not(folder, reference, whole):
    place = whole.format(folder)
    assert beside(reference, {}, folder)[0] == place
    file = Path(place.partition(":")[2])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    assert beside(reference, {}, folder)[0] == place


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ("local:a.onnx", ("decoder", "labels_file")),
        ("opencv:nanotrack", ("backbone", "head")),
        ("roboflow:workspace/project/3", ("examples",)),
    ],
)
def test_so_do_the_options_that_are_paths(folder, reference, names):
    late = dict.fromkeys(names, "w/late")
    assert beside(reference, late, folder)[1] == dict.fromkeys(names, f"{folder}/w/late")
    elsewhere = dict.fromkeys(names, "~/late")
    assert beside(reference, elsewhere, folder)[1] == elsewhere


@pytest.mark.parametrize(
    ("name", "whole"),
    [("coco-to-voc", "coco-to-voc"), ("late.toml", "{}/late.toml"), ("maps/late", "{}/maps/late"), ("mine", "{}/mine")],
)
def test_a_label_map_is_one_of_ours_or_a_file_beside(folder, name, whole):
    (folder / "mine").write_text("")
    file = folder / "service.toml"
    file.write_text(f'[[models]]\nid = "a"\nmodel = "opencv:face"\nlabel_map = "{name}"\n')
    assert str(load_models(file)[0].label_map) == whole.format(folder)


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

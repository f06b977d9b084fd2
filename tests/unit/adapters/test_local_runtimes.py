"""Files of other runtimes than ONNX: the same heads, the same answers, and nothing runs that is no network."""

import json
import os
import pickle
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agent.contract import Context, Frame, Prompts, Rectangle
from agent.errors import BadPrediction, ConfigError, ModelLoadFailed
from agent.models.loading import load_model
from tests.support.onnx_graphs import constant_graph
from tests.support.tflite_graphs import mean_colour
from tests.support.torch_programs import Constant, MeanColour, export, sam_pair, script

CELLS = 64 + 16 + 4
NAMES = ["cat", "dog", "owl"]
FRAME = Frame(0, "wide", np.zeros((64, 128, 3), np.uint8))
LETTERBOXED = (48.0, 16.0, 80.0, 48.0)
ULTRALYTICS = {"names": dict(enumerate(NAMES)), "imgsz": [64, 64], "task": "detect", "stride": 32, "batch": 1}


def yolo(*rows, depth=7):
    made = np.zeros((depth, CELLS), np.float32)
    for place, row in enumerate(rows or [(32, 32, 16, 16, 0.1, 0.2, 0.7)]):
        made[: len(row), place] = row
    return made


def load(path, **options):
    return load_model(f"local:{path}", device="cpu", options=options)


def found_in(loaded, frame=FRAME):
    (found,) = loaded.model.detect([frame], Context(threshold=0.1))
    return [(d.label, round(d.score, 3), (d.shape.left, d.shape.top, d.shape.right, d.shape.bottom)) for d in found]


# ------------------------------------------------------------------------------------------------ TorchScript


def test_torchscript_with_what_ultralytics_leaves(tmp_path):
    path = script(tmp_path / "yolo.torchscript", Constant([yolo()]), metadata=ULTRALYTICS)
    loaded = load(path)
    assert loaded.facts["head"] == "yolov8"
    assert loaded.facts["format"] == "TorchScript"
    assert loaded.facts["input size"] == "64x64"
    assert loaded.facts["runs on"].startswith("PyTorch 2.")
    assert [label.name for label in loaded.labels] == NAMES
    assert found_in(loaded) == [("owl", 0.7, LETTERBOXED)]
    frames = [FRAME] * 5
    assert len(loaded.model.detect(frames, Context())) == 5


def test_torchscript_without_facts_takes_options(tmp_path):
    path = script(tmp_path / "m.pt", Constant([yolo()]))
    assert found_in(load(path, labels=NAMES, input_size=64)) == [("owl", 0.7, LETTERBOXED)]
    with pytest.raises(ModelLoadFailed, match="unknown kind of head: for a 640x640 picture"):
        load(path, labels=NAMES)


def test_torchscript_with_several_outputs(tmp_path):
    prototypes = np.zeros((32, 16, 16), np.float32)
    prototypes[0] = 1
    output = yolo((32, 32, 16, 16, 0.1, 0.2, 0.7, *[3] * 32), depth=7 + 32)
    path = script(
        tmp_path / "m.torchscript", Constant([output, prototypes]), metadata={**ULTRALYTICS, "task": "segment"}
    )
    loaded = load(path)
    assert loaded.facts["head"] == "yolov8-seg"
    (one,) = loaded.model.detect([FRAME], Context(threshold=0.1))[0]
    assert (one.shape.left, one.shape.top, one.shape.bitmap.shape) == (48, 16, (32, 32))


def test_torchscript_of_other_kinds(tmp_path):
    path = script(tmp_path / "m.torchscript", MeanColour(), side=16)
    loaded = load(path, kind="reid", input_size=16, scale=1, mean=[0], std=[1])
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = (0, 30, 40)
    rows = loaded.model.describe(Frame(0, "f", image), [Rectangle(0, 0, 32, 32)] * 3)
    np.testing.assert_allclose(rows, [[0, 0, 0, 0, 0.6, 0.8]] * 3, atol=1e-6)
    tags = load(
        script(tmp_path / "c.torchscript", Constant([np.float32([0.2, 0.8])])), labels=["a", "b"], input_size=64
    )
    assert [d.label for d in tags.model.detect([FRAME], Context())[0]] == ["b"]


def test_torchscript_that_fails_or_comes_apart(tmp_path):
    path = script(tmp_path / "m.torchscript", Constant([np.full((7, CELLS), np.nan, np.float32)]), metadata=ULTRALYTICS)
    with pytest.raises(BadPrediction, match="100% of the output 'output0' are no numbers"):
        found_in(load(path))
    whole = script(tmp_path / "w.torchscript", Constant([yolo()]), metadata=ULTRALYTICS).read_bytes()
    (tmp_path / "cut.torchscript").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelLoadFailed, match=r"damaged|cannot load it"):
        load(tmp_path / "cut.torchscript")
    with pytest.raises(ConfigError, match="providers are for ONNX models, this is TorchScript"):
        load(tmp_path / "w.torchscript", providers=["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="device: got 'tpu'"):
        load_model(f"local:{tmp_path / 'w.torchscript'}", device="tpu")


# ------------------------------------------------------------------------------------------------ torch.export


@pytest.mark.parametrize("batch", [False, True])
def test_exported_programs(tmp_path, batch):
    loaded = load(export(tmp_path / "m.pt2", Constant([yolo()]), batch=batch), labels=NAMES, batch_size=3)
    assert loaded.facts["format"] == "torch.export"
    assert loaded.facts["input size"] == "64x64"
    assert found_in(loaded) == [("owl", 0.7, LETTERBOXED)]
    assert len(loaded.model.detect([FRAME] * 7, Context())) == 7


def test_an_exported_program_with_weights_and_arithmetic_of_sizes(tmp_path):
    """What real networks have: convolutions, norms, attention, sizes that follow the batch."""

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
            self.norm = torch.nn.BatchNorm2d(8)
            self.look = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, x):
            x = torch.nn.functional.silu(self.norm(self.stem(x)))
            x = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(2).transpose(1, 2)
            x = x.reshape(x.shape[0], x.shape[1] * 1, -1)
            return self.head(self.look(x, x, x)[0].mean(1)).softmax(1)

    torch.manual_seed(0)
    module = Small()
    loaded = load(export(tmp_path / "m.pt2", module, batch=True), labels=NAMES, top_k=3, scale=1, mean=[0], std=[1])
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    (found,) = loaded.model.detect([Frame(0, "f", image)], Context())
    with torch.inference_mode():
        expected = module(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0].tolist()
    assert {one.label: one.score for one in found} == pytest.approx(dict(zip(NAMES, expected, strict=True)), abs=1e-5)


@pytest.mark.parametrize("form", ["torchscript", "pt2"])
def test_an_interactor_of_two_programs(tmp_path, form):
    encoder, decoder = sam_pair(tmp_path, form)
    model = load(encoder, decoder=str(decoder), input_size=64).model
    embedding = model.embed(FRAME)
    (one,) = model.segment(embedding, Prompts(positive=((60, 32),)))
    rows, columns = one.shape.bitmap.shape
    box = (one.shape.left, one.shape.top, one.shape.left + columns, one.shape.top + rows)
    np.testing.assert_allclose(box, (44, 16, 76, 48), atol=1)
    assert one.score == 0.75
    (again,) = model.segment(embedding, Prompts(positive=((60, 32), (61, 33)), negative=((3, 3),)))
    np.testing.assert_array_equal(again.shape.bitmap, one.shape.bitmap)


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def rewritten(path, change):
    """The archive with its parts changed: (name without the first folder, bytes) -> bytes."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, change(name.partition("/")[2], content))
    return path


def model_json(change):
    def edit(name, content):
        if name != "models/model.json":
            return content
        model = json.loads(content)
        change(model)
        return json.dumps(model).encode()

    return edit


def evil_target(model):
    model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"


def evil_argument(model):
    model["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "torch.os.system"}


def evil_size(model):
    def walk(part):
        if isinstance(part, dict):
            for key in part:
                if key == "expr_str":
                    part[key] = "__import__('os').system('touch sprung')"
                walk(part[key])
        elif isinstance(part, list):
            for one in part:
                walk(one)

    walk(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (evil_target, "it wants to run 'torch.os.system', allowed: tensor operations of ATen"),
        (evil_argument, "it wants to run 'torch.os.system'"),
        (evil_size, "it has a size written as .*__import__"),
    ],
)
def test_an_exported_program_that_would_run_something_is_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    path = rewritten(export(tmp_path / "m.pt2", Constant([yolo()]), batch=True), model_json(change))
    with pytest.raises(ModelLoadFailed, match=message):
        load(path, labels=NAMES)
    assert not (tmp_path / "sprung").exists()


def test_pickles_in_an_exported_program_are_never_opened(tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    path = export(tmp_path / "m.pt2", Constant([yolo()]))
    rewritten(path, lambda name, content: trap if name.startswith("data/sample_inputs/") else content)
    assert found_in(load(path, labels=NAMES)) == [("owl", 0.7, LETTERBOXED)]
    assert not (tmp_path / "sprung").exists()

    def pickled(name, content):
        return (
            content.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("config.json") else content
        )

    with pytest.raises(ModelLoadFailed, match="names pickled tensors, allowed: plain tensors"):
        load(rewritten(path, pickled), labels=NAMES)


def test_guards_of_an_exported_program_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def guard(model):
        model["guards_code"] = ["__import__('pathlib').Path('sprung').touch() or True"]

    path = rewritten(export(tmp_path / "m.pt2", Constant([yolo()])), model_json(guard))
    assert found_in(load(path, labels=NAMES)) == [("owl", 0.7, LETTERBOXED)]
    assert not (tmp_path / "sprung").exists()


def test_damaged_exported_programs_are_told(tmp_path):
    path = export(tmp_path / "m.pt2", Constant([yolo()]))
    broken = rewritten(path, lambda name, content: b"{" if name == "models/model.json" else content)
    with pytest.raises(ModelLoadFailed, match=r"models/model.json is damaged"):
        load(broken, labels=NAMES)
    (tmp_path / "cut.pt2").write_bytes(path.read_bytes()[:300])
    with pytest.raises(ModelLoadFailed, match="a zip archive that is no model, or is damaged"):
        load(tmp_path / "cut.pt2")


# ------------------------------------------------------------------------------------------------ pickles


def pickled_weights(tmp_path):
    path = tmp_path / "yolo.pt"
    torch.save({"model": Trap(tmp_path / "sprung")}, path)
    return path


def test_pickles_are_refused_and_never_opened(tmp_path):
    path = pickled_weights(tmp_path)
    with pytest.raises(
        ModelLoadFailed, match=r"PyTorch saves its pickles.*pickles can run anything.*allow_pickle = true"
    ):
        load(path)
    with pytest.raises(ModelLoadFailed, match="PyTorch saves its pickles"):
        load(path, kind="reid")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(find_spec("ultralytics") is not None, reason="is about an environment without ultralytics")
def test_ultralytics_is_asked_for_by_name(tmp_path):
    path = pickled_weights(tmp_path)
    with pytest.raises(ModelLoadFailed, match=r"AGPL-3.0 and no part of this program: pip install ultralytics; or"):
        load(path, allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


def test_ultralytics_own_files_where_it_is_installed(tmp_path):
    ultralytics = pytest.importorskip("ultralytics", reason="needs ultralytics, which is AGPL-3.0 and no part of this")
    ultralytics.YOLO("yolov8n-pose.yaml").save(tmp_path / "pose.pt")
    loaded = load(tmp_path / "pose.pt", allow_pickle=True, input_size=64)
    assert loaded.facts["head"] == "yolov8-pose"
    assert "AGPL" in loaded.facts["licence"]
    assert sorted(os.listdir(tmp_path)) == ["pose.pt"]


# ------------------------------------------------------------------------------------------------ OpenVINO


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino", reason="needs the package openvino")


def converted(openvino, folder, outputs, metadata=None, batch=1):
    folder.mkdir(exist_ok=True)
    graph = constant_graph(folder / "m.onnx", outputs, batch=batch)
    openvino.save_model(openvino.convert_model(str(graph)), str(folder / "m.xml"), compress_to_fp16=False)
    graph.unlink()
    if metadata:
        (folder / "metadata.yaml").write_text(json.dumps(metadata))
    return folder / "m.xml"


@pytest.mark.parametrize("by", ["file", "folder"])
def test_openvino_models(openvino, tmp_path, by):
    path = converted(openvino, tmp_path / "m_openvino_model", {"o": yolo()}, ULTRALYTICS)
    loaded = load(path if by == "file" else path.parent)
    assert loaded.facts["head"] == "yolov8"
    assert loaded.facts["format"] == "OpenVINO IR"
    assert [label.name for label in loaded.labels] == NAMES
    assert found_in(loaded) == [("owl", 0.7, LETTERBOXED)]
    assert loaded.model.detect([FRAME] * 3, Context(threshold=0.1))[2][0].label == "owl"


def test_openvino_models_of_any_batch_and_without_weights(openvino, tmp_path):
    path = converted(openvino, tmp_path / "m", {"o": yolo()}, batch="n")
    assert found_in(load(path, labels=NAMES, batch_size=2)) == [("owl", 0.7, LETTERBOXED)]
    with pytest.raises(ConfigError, match="device: got 'cuda', allowed for OpenVINO: auto, cpu, gpu"):
        load_model(f"local:{path}", device="cuda", options={"labels": NAMES})
    version = load(path, labels=NAMES).version
    weights = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(weights + b"\0")
    assert load(path, labels=NAMES).version != version
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelLoadFailed, match=r"its weights are missing: there is no m.bin"):
        load(path)


def test_a_damaged_openvino_model_is_told(openvino, tmp_path):
    path = converted(openvino, tmp_path / "m", {"o": yolo()})
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ModelLoadFailed, match="OpenVINO cannot load it") as caught:
        load(path, labels=NAMES)
    assert "\n" not in str(caught.value)


def test_openvino_answers_as_onnx_does(openvino, tmp_path, assets):
    weights = assets / "weights" / "yolox_nano_416.onnx"
    openvino.save_model(openvino.convert_model(str(weights)), str(tmp_path / "m.xml"), compress_to_fp16=False)
    frame = Frame(0, "cat", np.asarray(Image.open(assets / "media/misc/cat_720p.jpg").convert("RGB")))
    one, other = (load(path).model.detect([frame], Context(threshold=0.3))[0] for path in (weights, tmp_path / "m.xml"))
    assert [d.label for d in one] == [d.label for d in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine.score == pytest.approx(theirs.score, abs=1e-3)


# ------------------------------------------------------------------------------------------------ TensorFlow Lite


@pytest.fixture
def litert():
    return pytest.importorskip("ai_edge_litert.interpreter", reason="needs the package ai-edge-litert")


def test_a_quantised_tflite_classifier(litert, assets):
    path = assets / "weights" / "mobilenet_v2_1.0_224_quant.tflite"
    loaded = load(path, labels_file=str(assets / "weights" / "imagenet_labels.txt"), resize="stretch")
    assert loaded.facts["preparation"] == "stretch, rgb, x*1"
    for picture, label in (("parrot", "macaw"), ("hot_dog", "hotdog"), ("cat_720p", "Egyptian cat")):
        image = np.asarray(Image.open(assets / "media" / "misc" / f"{picture}.jpg").convert("RGB"))
        (one,) = loaded.model.detect([Frame(0, picture, image)], Context())[0]
        assert one.label.startswith(label)
        assert one.score > 0.8
    assert len(load(path, head="classifier").labels) > 990, "a thousand names, some of them twice"


ORANGE = Frame(0, "orange", np.full((8, 8, 3), (255, 127, 0), np.uint8))


def tags(loaded):
    (found,) = loaded.model.detect([ORANGE], Context())
    return {one.label: one.score for one in found}


@pytest.mark.parametrize(("kind", "zero"), [(np.int8, -128), (np.uint8, 0)])
def test_quantised_inputs_and_outputs_of_tflite(litert, tmp_path, kind, zero):
    """As Ultralytics quantises: bytes stand for 0 to 1, on the way in and on the way out."""
    path = mean_colour(tmp_path / "m.tflite", kind=kind, into=(1 / 255, zero), out=(1 / 255, zero))
    found = tags(load(path, labels=["red", "green", "blue"], top_k=3))
    assert found == pytest.approx({"red": 1, "green": 127 / 255, "blue": 0}, abs=1e-6)


@pytest.mark.parametrize(("kind", "zero"), [(np.int8, -14), (np.uint8, 114)])
def test_a_quantised_tflite_input_takes_the_numbers_that_options_give(litert, tmp_path, kind, zero):
    """As a network in PyTorch's tradition is quantised: bytes stand for ImageNet's normalised colours."""
    path = mean_colour(tmp_path / "m.tflite", kind=kind, into=(0.0187, zero), out=(0.02, zero))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    seen = load(path, kind="reid", scale=1 / 255, mean=mean, std=std)
    assert "x*0.00392157 - [0.485 0.456 0.406]" in seen.facts["preparation"]
    (row,) = seen.model.describe(ORANGE, [Rectangle(0, 0, 8, 8)])
    expected = (np.array([1, 127 / 255, 0]) - mean) / std
    np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=0.01)


def test_a_tflite_map_of_class_numbers(litert, assets):
    path = assets / "weights" / "deeplabv3_mnv2_pascal_quant.tflite"
    loaded = load(path, labels="pascal-voc-segmentation")
    image = np.asarray(Image.open(assets / "media/misc/parrot.jpg").convert("RGB"))
    (one,) = loaded.model.detect([Frame(0, "parrot", image)], Context())[0]
    assert (one.label, one.score) == ("bird", None)
    assert 0.15 < one.shape.bitmap.sum() / image[..., 0].size < 0.4


def test_a_tflite_pose(litert, assets):
    loaded = load(assets / "weights" / "movenet_single_pose_lightning_ptq.tflite", head="movenet")
    image = np.asarray(Image.open(assets / "media/misc/grace_hopper.png").convert("RGB"))
    (one,) = loaded.model.detect([Frame(0, "p", image)], Context())[0]
    points = {point.label: point for point in one.shape.elements}
    assert points["left_eye"].x > points["right_eye"].x
    assert points["nose"].y < points["left_shoulder"].y
    assert not points["nose"].outside


def test_names_in_a_tflite_file(litert, assets, tmp_path):
    """Exporters append a zip archive with the labels to the file."""
    names = (assets / "weights" / "imagenet_labels.txt").read_text()
    path = tmp_path / "m.tflite"
    path.write_bytes((assets / "weights" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labelmap.txt", names)
    loaded = load(path)
    assert loaded.facts["labels from"] == "the file's metadata"
    assert "macaw" in {label.name for label in loaded.labels}
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.json", json.dumps({"task": "classify"}))
    assert load(path).facts["head"] == "classifier"


def test_a_cut_tflite_file_is_told(litert, assets, tmp_path):
    whole = (assets / "weights" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    (tmp_path / "m.tflite").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ModelLoadFailed, match="LiteRT cannot load it"):
        load(tmp_path / "m.tflite", head="classifier")


def test_tflite_takes_a_processor_only(litert, assets):
    path = assets / "weights" / "mobilenet_v2_1.0_224_quant.tflite"
    with pytest.raises(ConfigError, match="allowed for TensorFlow Lite: auto, cpu"):
        load_model(f"local:{path}", device="cuda", options={"head": "classifier"})


# ------------------------------------------------------------------------------------------------ not installed


@pytest.mark.skipif(find_spec("ai_edge_litert") is not None, reason="is about an environment without ai-edge-litert")
def test_a_missing_litert_is_named(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 99)
    with pytest.raises(ModelLoadFailed, match="a TensorFlow Lite model needs the package ai-edge-litert: pip install"):
        load(tmp_path / "m.tflite")


@pytest.mark.skipif(find_spec("openvino") is not None, reason="is about an environment without openvino")
def test_a_missing_openvino_is_named(tmp_path):
    (tmp_path / "m.xml").write_text('<?xml version="1.0"?>\n<net name="m" version="11"></net>')
    (tmp_path / "m.bin").touch()
    with pytest.raises(ModelLoadFailed, match="an OpenVINO model needs the package openvino: pip install openvino"):
        load(tmp_path / "m.xml")

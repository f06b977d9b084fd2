"""What is not a whole ONNX model is named for what it is, and nothing is ever unpickled."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from agent.errors import ModelLoadFailed, ModelNotFound
from agent.models.loading import load_model
from tests.support.onnx_graphs import constant_graph


class Trap:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(tmp_path):
    (tmp_path / "w").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))


def zipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "w", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap(tmp_path / "sprung")))


CASES = {
    "a pickle": (pickled, "Python pickle.*export it to ONNX"),
    "a .pt of today": (zipped, "PyTorch saves its pickles.*export it to ONNX"),
    "tflite": (lambda t: (t / "w").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 99), "TensorFlow Lite"),
    "jpeg": (lambda t: (t / "w").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 99), "a JPEG picture"),
    "empty": (lambda t: (t / "w").write_bytes(b""), "an empty file"),
    "a folder": (lambda t: (t / "w").mkdir(), "got a folder, allowed: an ONNX, "),
    "lfs pointer": (
        lambda t: (t / "w").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        "Git LFS pointer.*git lfs pull",
    ),
    "a web page": (lambda t: (t / "w").write_text("<!DOCTYPE html><html>404"), "XML or a web page"),
    "safetensors": (lambda t: (t / "w").write_bytes(b"\x10\0\0\0\0\0\0\0" + b'{"a":{}}'), "safetensors.*hf:FOLDER"),
    "hdf5": (lambda t: (t / "w").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99), "HDF5.*Keras"),
    "text": (lambda t: (t / "w").write_text("person\nbicycle\n"), "not a whole ONNX model|not an ONNX model"),
    "noise": (lambda t: (t / "w").write_bytes(np.random.default_rng(0).bytes(4096)), "not a(n| whole) ONNX model"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_found_is_said(tmp_path, case):
    make, message = CASES[case]
    make(tmp_path)
    with pytest.raises(ModelLoadFailed, match=message) as caught:
        load_model(f"local:{tmp_path / 'w'}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_told(tmp_path, kept):
    whole = constant_graph(
        tmp_path / "m.onnx", {"o": np.zeros((85, 84), np.float32)}, metadata={"names": "['a']"}
    ).read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ModelLoadFailed, match=r"not a whole ONNX model|cannot load it|there is no graph"):
        load_model(f"local:{tmp_path / 'm.onnx'}")


def test_a_damaged_model_is_told(tmp_path):
    path = constant_graph(tmp_path / "m.onnx", {"o": np.zeros((85, 84), np.float32)})
    content = bytearray(path.read_bytes())
    content[40:80] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(ModelLoadFailed):
        load_model(f"local:{path}")


def test_a_missing_file_has_hints(tmp_path):
    with pytest.raises(ModelNotFound, match="nor any model file in"):
        load_model(f"local:{tmp_path / 'yolo.onnx'}")
    (tmp_path / "yolo8.onnx").touch()
    with pytest.raises(ModelNotFound, match=r"did you mean .*yolo8\.onnx"):
        load_model(f"local:{tmp_path / 'yolo.onnx'}")
    with pytest.raises(ModelNotFound, match="nor the folder"):
        load_model(f"local:{tmp_path / 'no' / 'yolo.onnx'}")
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelLoadFailed, match="did you mean hf:"):
        load_model(f"local:{tmp_path}")


def test_the_real_pickle_and_tflites_are_refused(assets):
    for name in ("yolov5n.pt", "movenet_single_pose_lightning_ptq.tflite", "imagenet_labels.txt"):
        with pytest.raises(ModelLoadFailed):
            load_model(f"local:{assets / 'weights' / name}")


def test_real_graphs_of_other_kinds_are_refused(assets):
    for name in (
        "osnet_x0_25_msmt17.onnx", "espnetv2_s2.0_voc_384.onnx", "nanotrackv2_backbone_dyn.onnx",
        "nanotrackv2_head_sim.onnx", "squeezenet_v1.1_227.onnx", "promptseg_decoder.onnx",
    ):  # fmt: skip
        with pytest.raises(ModelLoadFailed, match=r"unknown kind of head|got the inputs") as refused:
            load_model(f"local:{assets / 'weights' / name}", device="cpu")
        second = name in ("nanotrackv2_head_sim.onnx", "promptseg_decoder.onnx")
        assert ("the option `decoder` of its encoder" in str(refused.value)) == second


def test_the_version_is_of_the_content_and_of_its_data_beside(tmp_path):
    given = {"o": np.zeros((7, 84), np.float32)}
    path = constant_graph(tmp_path / "m.onnx", given, metadata={"names": "['a', 'b', 'c']"})
    first = load_model(f"local:{path}", device="cpu")
    moved = path.rename(tmp_path / "n.onnx")
    assert load_model(f"local:{moved}", device="cpu").version == first.version
    (tmp_path / "n.onnx.data").write_bytes(b"weights")
    assert load_model(f"local:{moved}", device="cpu").version != first.version
    assert first.version.startswith("sha256:")
    assert first.facts["format"] == "ONNX, opset 17, by tests"

"""Files that are not what they are called, and numbers that are none: of every format and kind, a clear line."""

import io
import json
import zipfile

import numpy as np
import pytest

from agent.contract import Context, Frame, Prompts, Rectangle
from agent.errors import BadPrediction, ModelLoadFailed, SidecarError
from agent.models.loading import load_model
from tests.support.onnx_graphs import constant_graph, sam_pair

CELLS = 64 + 16 + 4
FRAME = Frame(0, "wide", np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8))


# ------------------------------------------------------------------------------------------------ whole files


def onnx_file(folder):
    rows = np.zeros((7, CELLS), np.float32)
    return constant_graph(folder / "m.onnx", {"o": rows}, metadata={"names": "['a', 'b', 'c']"})


def torchscript_file(folder):
    pytest.importorskip("torch")
    from tests.support.torch_programs import FaceFinder, script

    return script(folder / "m.torchscript", FaceFinder())


def exported_file(folder):
    pytest.importorskip("torch")
    from tests.support.torch_programs import FaceFinder, export

    return export(folder / "m.pt2", FaceFinder())


def openvino_file(folder):
    runtime = pytest.importorskip("openvino", reason="needs the package openvino")
    graph = onnx_file(folder)
    runtime.save_model(runtime.convert_model(str(graph)), str(folder / "m.xml"), compress_to_fp16=False)
    return folder / "m.xml"


def openvino_weights(folder):
    return openvino_file(folder).with_suffix(".bin")


def tflite_file(folder):
    pytest.importorskip("ai_edge_litert.interpreter", reason="needs the package ai-edge-litert")
    from tests.support.tflite_graphs import mean_colour

    return mean_colour(folder / "m.tflite", kind=np.uint8, into=(1 / 255, 0), out=(1 / 255, 0))


def safetensors_file(folder):
    pytest.importorskip("torch")
    from tests.support import hub_models

    hub_models.vit(folder)
    return folder / "model.safetensors"


def config_file(folder):
    return safetensors_file(folder).with_name("config.json")


def encoder_file(folder):
    return sam_pair(folder)[0]


def decoder_file(folder):
    return sam_pair(folder)[1]


def reference(path):
    """(reference, options) of the model that a file belongs to."""
    if path.name in ("model.safetensors", "config.json"):
        return f"hf:{path.parent}", {}
    if path.name in ("encoder.onnx", "decoder.onnx"):
        return f"local:{path.parent}/encoder.onnx", {"decoder": f"{path.parent}/decoder.onnx"}
    return f"local:{path.with_suffix('.xml') if path.suffix == '.bin' else path}", {}


FILES = {
    make.__name__: make
    for make in (
        onnx_file, torchscript_file, exported_file, openvino_file, openvino_weights, tflite_file, safetensors_file,
        config_file, encoder_file, decoder_file,
    )
}  # fmt: skip


def some_zip(content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("notes/readme.txt", "nothing to run here")
    return out.getvalue()


DAMAGES = {
    "empty": lambda content: b"",
    "a web page": lambda content: b"<!DOCTYPE html><html><body>404: not found</body></html>",
    "what a server said": lambda content: b'{"error": "Invalid username or password."}',
    "a pointer of Git LFS": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "a zip of something else": some_zip,
    "noise": lambda content: np.random.default_rng(0).bytes(5000),
    "the first third": lambda content: content[: len(content) // 3],
    "all but the end": lambda content: content[: int(len(content) * 0.97)],
    "holes": lambda content: content[: len(content) // 4] + bytes(len(content) // 2) + content[3 * len(content) // 4 :],
}
HARMLESS = {
    # Constants and weights that are only wrong, not broken, nobody can tell: SHA-256 is what is for that.
    ("onnx_file", "holes"), ("openvino_weights", "holes"), ("tflite_file", "holes"), ("safetensors_file", "holes"),
    ("torchscript_file", "holes"), ("exported_file", "holes"), ("encoder_file", "holes"), ("decoder_file", "holes"),
    ("tflite_file", "all but the end"),
    ("openvino_weights", "noise"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_whole_is_told_in_one_line(tmp_path, file, damage):
    path = FILES[file](tmp_path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if (error := refused(*reference(path))) is None:
        assert (file, damage) in HARMLESS
        return
    assert isinstance(error, ModelLoadFailed)
    assert "\n" not in str(error)
    assert str(tmp_path) in str(error)
    assert len(str(error)) < 900


def refused(name, options):
    """What is said instead of loading a model, None where it was loaded."""
    try:
        load_model(name, device="cpu", options=options).close()
    except SidecarError as error:
        return error
    return None


def test_weights_that_are_missing_are_told_before_a_runtime_is_looked_for(tmp_path):
    (tmp_path / "m.xml").write_text('<?xml version="1.0"?>\n<net name="m" version="11"><layers/></net>')
    with pytest.raises(ModelLoadFailed, match=r"its weights are missing: there is no m\.bin"):
        load_model(f"local:{tmp_path / 'm.xml'}")


def test_weights_beside_an_onnx_file_that_are_missing_are_told(tmp_path):
    import onnx

    model = onnx.load(str(onnx_file(tmp_path)))
    onnx.save(
        model, str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.onnx.data", size_threshold=1024
    )
    load_model(f"local:{tmp_path}/big.onnx", device="cpu").close()
    (tmp_path / "big.onnx.data").unlink()
    with pytest.raises(ModelLoadFailed, match=r"big\.onnx: onnxruntime cannot load it: .*big\.onnx\.data"):
        load_model(f"local:{tmp_path}/big.onnx", device="cpu")


# ------------------------------------------------------------------------------------------------ numbers that are none


def graph(folder, outputs, **more):
    return constant_graph(folder / "m.onnx", outputs, **more)


def yolo(rows, depth):
    made = np.zeros((depth, CELLS), np.float32)
    for place, row in enumerate(rows):
        made[: len(row), place] = row
    return made


NAN = float("nan")
BOX = (32, 32, 16, 16, 0.9)
ONE = {"names": "['a']"}
SEGMENTS = {"o": yolo([(*BOX, *[NAN] * 32)], 5 + 32), "p": np.ones((32, 16, 16), np.float32)}
PROTOTYPES = {"o": yolo([(*BOX, *[1] * 32)], 5 + 32), "p": np.full((32, 16, 16), NAN, np.float32)}
ASKED = {
    "boxes": ({"o": np.full((5, CELLS), NAN, np.float32)}, ONE, {}),
    "mask coefficients": (SEGMENTS, {**ONE, "task": "segment"}, {}),
    "prototypes": (PROTOTYPES, {**ONE, "task": "segment"}, {}),
    "scores": ({"o": np.float32([0.2, NAN])}, {}, {"labels": ["a", "b"]}),
    "a map of classes": ({"o": np.full((2, 16, 16), NAN, np.float32)}, {}, {"labels": ["a", "b"]}),
    "heat maps": ({"o": np.full((2, 16, 16), NAN, np.float32)}, {}, {"head": "heatmaps"}),
    "landmarks": ({"o": np.float32([0.5, 0.5, 0.5, NAN])}, {}, {"head": "landmarks"}),
}


@pytest.mark.parametrize("kind", ASKED)
def test_numbers_that_are_none_are_a_bad_prediction(tmp_path, kind):
    outputs, metadata, options = ASKED[kind]
    loaded = load_model(f"local:{graph(tmp_path, outputs, metadata=metadata)}", device="cpu", options=options)
    with pytest.raises(BadPrediction, match="NaN") as caught:
        loaded.model.detect([FRAME], Context(threshold=0.1))
    assert "\n" not in str(caught.value)


def test_one_pose_of_numbers_that_are_none_does_not_cost_the_others(tmp_path):
    good = [value for point in range(17) for value in (20 + point, 30, 0.9)]
    rows = [(*BOX, *[NAN] * 51), (40, 32, 30, 30, 0.8, *good)]
    metadata = {**ONE, "task": "pose", "kpt_shape": "[17, 3]"}
    loaded = load_model(f"local:{graph(tmp_path, {'o': yolo(rows, 5 + 51)}, metadata=metadata)}", device="cpu")
    (found,) = loaded.model.detect([FRAME], Context(threshold=0.1))
    assert [round(one.score, 1) for one in found] == [0.8]


def test_an_interactors_masks_that_are_none(tmp_path):
    """A decoder whose masks depend on what it sees: NaN for white, not for the gray that it is tried with."""
    import onnx
    import onnx.parser

    encoder, _ = sam_pair(tmp_path)
    text = """<ir_version: 9, opset_import: ["": 17]>
    decoder (float[1, 3, 16, 16] image_embeddings, float[1, n, 2] point_coords, float[1, n] point_labels)
        => (float[1, 1, 16, 16] masks) {
        first = ReduceMean <axes = [1], keepdims = 1> (image_embeddings)
        two = Constant <value_float = 1.0> ()
        dark = Sub (two, first)
        masks = Sqrt (dark)
    }"""
    onnx.save(onnx.parser.parse_model(text), str(tmp_path / "decoder.onnx"))
    model = load_model(f"local:{encoder}", options={"decoder": str(tmp_path / "decoder.onnx")}).model
    white = Frame(0, "white", np.full((64, 64, 3), 255, np.uint8))
    with pytest.raises(BadPrediction, match="the decoder gave numbers that are none"):
        model.segment(model.embed(white), Prompts(positive=((5.0, 5.0),)))


def test_descriptors_that_are_none(tmp_path):
    path = graph(tmp_path, {"o": np.float32([NAN, 1])})
    model = load_model(f"local:{path}", options={"kind": "reid"}).model
    with pytest.raises(BadPrediction, match="the descriptor of rectangle 0 is NaN"):
        model.describe(FRAME, [Rectangle(0, 0, 9, 9)])


def test_a_composition_passes_on_what_its_part_says(tmp_path):
    from agent.compose.named import open_named

    path = graph(tmp_path, {"o": np.full((5, CELLS), NAN, np.float32)}, metadata=ONE)
    for scheme, options in {
        "ensemble": {"of": [f"local:{path}"] * 2},
        "tiles": {"of": f"local:{path}", "size": 64},
        "flips": {"of": f"local:{path}"},
        "chain": {"of": f"local:{path}", "then": [{"model": f"local:{path}", "gives": "detections"}]},
    }.items():
        whole = open_named(f"{scheme}:", device="cpu", options=json.loads(json.dumps(options)))
        try:
            with pytest.raises(BadPrediction, match="are no numbers"):
                whole.model.detect([FRAME], Context(threshold=0.1))
        finally:
            whole.close()

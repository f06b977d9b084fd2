"""What the documents say was run, was: each row names a test that is there, and nothing is without a row."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapters._networks.files import FORMATS
from adapters._networks.heads import _ELSEWHERE, FAMILIES
from adapters.huggingface.tasks import TASKS as HUB_TASKS
from adapters.opencv import _MODELS as OPENCV
from adapters.roboflow.forms import TASKS as ROBOFLOW_TASKS
from agent.compose.named import open_named
from agent.contract import Context, Frame
from agent.models.loading import adapter_of, parse_reference
from agent.models.options import check_options
from agent.settings.parts import SCHEMES, is_composition
from agent.settings.service import load_models
from tests.support.onnx_graphs import constant_graph

ROOT = Path(__file__).resolve().parents[2]
TEST = re.compile(r"`((?:contract|flow|unit)/[\w/]+\.py)(?:::(\w+))?`")


def rows(document, heading):
    """The rows of the first table below a heading, as lists of cells."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8").partition(heading)[2]
    lines = text[text.index("| --- |") :].splitlines()[1:]
    table = lines[: next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in table]


MENUS = rows("menus.md", "# The models of CVAT's menus")
RUN = rows("models.md", "## What was run")


@pytest.mark.parametrize("row", [*MENUS, *RUN], ids=lambda row: row[0])
def test_a_row_names_tests_that_are_there(row):
    named = TEST.findall(row[-1])
    assert named or row[-1] == "the same"
    for file, name in named:
        path = ROOT / "tests" / file
        assert path.is_file(), file
        if name:
            assert re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"


def test_rows_that_say_the_same_have_one_to_be_the_same_as():
    assert MENUS[0][-1] != "the same"
    assert len(MENUS) > 20


def test_whatever_is_named_anywhere_in_the_documents_is_there():
    for document in (ROOT / "docs").glob("*.md"):
        for file, name in TEST.findall(document.read_text(encoding="utf-8")):
            path = ROOT / "tests" / file
            assert path.is_file(), f"{document.name}: {file}"
            assert not name or f"def {name}(" in path.read_text(encoding="utf-8"), f"{document.name}: {name}"


def test_nothing_that_can_be_loaded_is_without_a_row():
    said = " ".join(row[0] for row in RUN)
    words = {*re.findall(r"`([\w:-]+)`", said)}
    wanted = {*FAMILIES, *_ELSEWHERE, *(task.name for task in HUB_TASKS), *ROBOFLOW_TASKS, *OPENCV, *SCHEMES}
    assert wanted - words == set()
    assert [name for name in FORMATS.values() if name not in said] == []


BLOCKS = [
    pytest.param(text, id=f"{path.stem} {number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, text in enumerate(re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S))
    if "[[models]]" in text
]


@pytest.mark.parametrize("text", BLOCKS)
def test_the_models_of_examples_are_allowed(tmp_path, text):
    """Every option that an example gives a model is one that its adapter takes."""
    (tmp_path / "service.toml").write_text(text)
    models = load_models(tmp_path / "service.toml")
    assert models
    for settings in models:
        if is_composition(settings):
            continue
        reference = parse_reference(settings.model)
        check_options(adapter_of(reference), settings.options, settings.model, {})


def test_the_example_of_attributed_faces_runs(tmp_path, assets):
    """docs/menus.md: a detector of faces and two classifiers, real and built, by configuration alone."""
    (text,) = [block.values[0] for block in BLOCKS if "faces-with-attributes" in block.values[0]]
    for name, kinds in (("age", ["young", "old"]), ("emotion", ["glad", "sad", "none"])):
        scores = np.zeros(len(kinds), np.float32)
        scores[1] = 0.9
        constant_graph(tmp_path / f"{name}.onnx", {"out": scores}, metadata={"names": str(dict(enumerate(kinds)))})
        text = text.replace(f"local:weights/{name}.onnx", f"local:{name}.onnx")
    text = text.replace("local:weights/yunet.onnx", f"local:{assets}/weights/yunet_n_640_640.onnx")
    (tmp_path / "service.toml").write_text(text)
    whole = open_named("faces-with-attributes", load_models(tmp_path / "service.toml"), device="cpu")
    try:
        picture = np.asarray(Image.open(assets / "media" / "misc" / "face.jpg").convert("RGB"))
        (found,) = whole.model.detect([Frame(0, "face.jpg", picture)], Context(0.6))
    finally:
        whole.close()
    (label,) = whole.labels
    assert [(one.name, one.values) for one in label.attributes] == [
        ("age", ("young", "old")), ("emotion", ("glad", "sad", "none")),
    ]  # fmt: skip
    assert [(one.label, dict(one.attributes)) for one in found] == [("face", {"age": "old", "emotion": "sad"})] * 4

import threading
from types import SimpleNamespace

import pytest

from agent.contract import Attribute, Label, PromptNeeds
from agent.models.descriptions import Description, Descriptions
from agent.models.loading import LoadedModel, ModelReference
from agent.settings.tables import ModelSettings

SETTINGS = ModelSettings("a", "x:y", options={"n": 1, "names": ["b", "a"]})
POSE = Label(
    "pose", "skeleton", sublabels=(Label("head", "points", (Attribute("colour", "select", ("red", "blue")),)),)
)
FULL = Description(
    "tracker", (Label("cat"), POSE), "v7", PromptNeeds(2, None, "required", True), "Help", ("rectangle",)
)


@pytest.fixture
def kept(tmp_path):
    return Descriptions(tmp_path / "models")


@pytest.mark.parametrize("description", [Description("detector"), FULL], ids=["plain", "full"])
def test_what_is_written_is_read_back(kept, description):
    assert kept.read(SETTINGS) is None
    kept.write(SETTINGS, description)
    assert kept.read(SETTINGS) == description


def test_another_reference_or_option_is_another_model(kept):
    kept.write(SETTINGS, FULL)
    assert kept.read(ModelSettings("b", "x:y", options={"names": ["b", "a"], "n": 1}, threshold=0.5)) == FULL
    assert kept.read(ModelSettings("a", "x:z", options=SETTINGS.options)) is None
    assert kept.read(ModelSettings("a", "x:y", options={"n": 2})) is None


def test_a_file_that_cannot_be_read_is_as_none(kept, tmp_path, caplog):
    kept.write(SETTINGS, FULL)
    (file,) = (tmp_path / "models").iterdir()
    for content in (b"", b"{", b'{"kind": 3}', b'{"kind": "x", "labels": [{"name": "a", "type": "odd"}]}', b"\xff"):
        file.write_bytes(content)
        assert kept.read(SETTINGS) is None
        assert "cannot be read" in caplog.text
        caplog.clear()
    kept.write(SETTINGS, FULL)
    assert kept.read(SETTINGS) == FULL


def test_a_disk_that_does_not_take_it_is_logged(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    Descriptions(tmp_path / "file").write(SETTINGS, FULL)
    assert "cannot be kept" in caplog.text


def test_many_writers_leave_one_whole_file(kept, tmp_path):
    threads = [
        threading.Thread(target=lambda: [kept.write(SETTINGS, FULL) for _ in range(30)], daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert kept.read(SETTINGS) == FULL
    assert len(list((tmp_path / "models").iterdir())) == 1


@pytest.mark.parametrize(
    ("kind", "more", "described"),
    [
        ("detector", {}, Description("detector", (Label("cat"),), "v1")),
        ("interactor", {}, Description("interactor", (Label("cat"),), "v1", PromptNeeds())),
        ("interactor", {"needs": PromptNeeds(3), "help_message": "Click"},
         Description("interactor", (Label("cat"),), "v1", PromptNeeds(3), "Click")),
        ("tracker", {"shape_types": ["rectangle"]},
         Description("tracker", (Label("cat"),), "v1", shape_types=("rectangle",))),
        ("reid", {}, Description("reid", (Label("cat"),), "v1")),
    ],
)  # fmt: skip
def test_a_model_is_described_by_what_it_says(kind, more, described):
    model = LoadedModel(ModelReference("x", "y"), SimpleNamespace(**more), kind, (Label("cat"),), "v1")
    assert Description.of(model) == described


def test_a_file_that_is_another_one_is_another_model(tmp_path):
    weights = tmp_path / "a.onnx"
    weights.write_bytes(b"one")
    folder = Descriptions(tmp_path / "kept")
    settings = ModelSettings("a", f"local:{weights}", options={"labels": ["x"]})
    folder.write(settings, Description("detector", version="1"))
    assert folder.read(settings).version == "1"
    weights.write_bytes(b"another")
    assert folder.read(settings) is None


def test_files_of_parts_and_folders_count_too(tmp_path):
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "config.json").write_text("{}")
    folder = Descriptions(tmp_path / "kept")
    settings = ModelSettings("both", "ensemble:", options={"of": [{"model": f"hf:{hub}"}, "faces"]})
    folder.write(settings, Description("detector", version="1"))
    assert folder.read(settings).version == "1"
    (hub / "config.json").write_text('{"changed": true}')
    assert folder.read(settings) is None

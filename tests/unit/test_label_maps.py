"""The files in label_maps/, and the form that they and anybody's own must have."""

import json
import re
from importlib import resources
from pathlib import Path

import pytest

from agent.domain import Label, TaskLabel
from agent.errors import ConfigError
from agent.labels.maps import known_label_maps, load_label_map, parse_label_map
from agent.labels.matching import match_labels
from agent.labels.names import fold

ROOT = Path(__file__).resolve().parents[2]
UNUSED_COCO_IDS = {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_all_files_are_valid_and_say_where_they_come_from():
    names = known_label_maps()
    assert {"coco-80", "coco-91", "pascal-voc", "imagenet-1k", "open-images-to-coco", "coco-to-voc"} <= set(names)
    for name in names:
        label_map = load_label_map(name)
        assert label_map.description, name
        assert label_map.source, name
        assert label_map.names or label_map.labels, name


@pytest.mark.parametrize("name", known_label_maps())
def test_class_names_are_unique(name):
    used = [label for label in load_label_map(name).names if label]
    assert len({fold(label) for label in used}) == len(used)


def test_coco():
    short, long = load_label_map("coco-80").names, load_label_map("coco-91").names
    assert (len(short), len(long)) == (80, 91)
    assert {number for number, name in enumerate(long) if not name} == UNUSED_COCO_IDS
    assert tuple(name for name in long if name) == short
    assert (short[0], short[10], short[57], short[79]) == ("person", "fire hydrant", "couch", "toothbrush")
    assert len(load_label_map("coco-17-keypoints").names) == 17


def test_coco_names_are_those_that_a_model_carries(assets):
    config = json.loads((assets / "weights" / "deimv2_atto_coco_hf" / "config.json").read_text())
    by_index = {int(index): name for index, name in config["id2label"].items()}
    assert load_label_map("coco-80").names == tuple(by_index[index] for index in range(80))


def test_pascal_voc(assets):
    lines = (assets / "weights" / "pascal_voc_segmentation_labels.txt").read_text().splitlines()[:21]
    assert load_label_map("pascal-voc-segmentation").names == tuple(lines)
    assert load_label_map("pascal-voc").names == tuple(lines[1:])


def test_imagenet(assets):
    lines = (assets / "weights" / "imagenet_labels_1000.txt").read_text().splitlines()
    names = load_label_map("imagenet-1k").names
    assert len(names) == len(lines) == 1000
    strangers = [(own, line) for own, line in zip(names, lines, strict=True)
                 if not {part.strip() for part in line.split(",")} & {own, own.split(" (")[0]}]  # fmt: skip
    assert strangers == []


@pytest.mark.parametrize("name", [n for n in known_label_maps() if "-to-" in n])
def test_maps_lead_into_the_vocabulary_that_they_name(name):
    vocabulary = {"coco": "coco-80", "voc": "pascal-voc"}[name.rpartition("-to-")[2]]
    names = set(load_label_map(vocabulary).names)
    entries = load_label_map(name).labels
    assert {entry.name for entry in entries.values() if entry.name} <= names


def test_coco_becomes_voc_completely():
    own = [Label(name, "rectangle") for name in load_label_map("coco-80").names]
    theirs = [TaskLabel(n, name, "any") for n, name in enumerate(load_label_map("pascal-voc").names)]
    assert match_labels(own, theirs, label_map=load_label_map("coco-to-voc")).unused == ()
    back = match_labels(
        [Label(label.name, "rectangle") for label in theirs],
        [TaskLabel(n, label.name, "any") for n, label in enumerate(own)],
        label_map=load_label_map("voc-to-coco"),
    )
    assert back.dropped == ()


def test_open_images_knows_two_kinds_of_mice():
    names = ("Mouse", "Computer mouse", "Man", "Person")
    theirs = [TaskLabel(1, "mouse", "any"), TaskLabel(2, "person", "any")]
    match = match_labels([Label(n) for n in names], theirs, label_map=load_label_map("open-images-to-coco"))
    assert {name: target.label.name for name, target in match.targets.items()} == {
        "Computer mouse": "mouse", "Man": "person", "Person": "person",
    }  # fmt: skip


def test_names_forgive_and_paths_work(tmp_path):
    assert load_label_map("coco80") is load_label_map("COCO-80")
    path = tmp_path / "mine.toml"
    path.write_text('[labels]\ncar = "vehicle"\n')
    assert load_label_map(str(path)).name == "mine"
    assert load_label_map(str(path)).labels["car"].name == "vehicle"


def test_vocabularies_can_be_read_without_the_agent():
    text = (resources.files("label_maps") / "coco-80.toml").read_text(encoding="utf-8")
    import tomllib

    assert tomllib.loads(text)["names"][0] == "person"


def test_missing_ones_say_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'coco-80'"):
        load_label_map("coco-8")
    with pytest.raises(ConfigError, match=r"there are: .*pascal-voc"):
        load_label_map("zzzzzz")
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read"):
        load_label_map(str(tmp_path / "nothing.toml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labels = 3", "labels: got 3, allowed: a table"),
        ("lables = {}", "unknown key 'lables'; did you mean 'labels'"),
        ("names = 'car'", "names: got car, allowed: a list of strings"),
        ("names = [1]", "names: got [1], allowed: a list of strings"),
        ("description = 1", "description: got 1"),
        ("[synonyms]\ncar = 'auto'", "synonyms: car: got auto, allowed: a list of strings"),
        ("[labels]\ncar = true", "labels: car: got True, allowed: a task label, false (drops it), or a table"),
        ("[labels]\ncar = ''", "labels: car: got '', allowed: a name"),
        ("[labels]\ncar = {nmae = 'x'}", "unknown key 'nmae'; did you mean 'name'"),
        ("[labels]\ncar = {threshold = 1.5}", "threshold: got 1.5, allowed: 0 to 1"),
        ("[labels]\ncar = {threshold = true}", "threshold: got True"),
        ("[labels]\ncar = {threshold = nan}", "threshold: got nan"),
        ("[labels]\ncar = {attributes = 'x'}", "attributes: got 'x', allowed: a table"),
        ("[labels]\ncar = {attributes = {a = [1]}}", "attributes: a: got [1]"),
        ("[labels]\ncar = {sublabels = {nose = 1}}", "sublabels: nose: got 1, allowed: a name"),
        ("[labels]\ncar = {sublabels = {nose = {nam = 'x'}}}", "unknown key 'nam'; did you mean 'name'"),
        ("car = ", "not valid TOML"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(ConfigError) as refused:
        parse_label_map("mine", text, "mine.toml")
    assert said in str(refused.value)
    assert str(refused.value).startswith("mine.toml: ")


def test_every_form_of_an_entry():
    text = """
    [labels]
    car = "vehicle"
    "hair drier" = false
    truck = { name = "vehicle", attributes = { kind = "truck", wheels = 6, old = true }, threshold = 0.4 }

    [labels.pose]
    name = "person"
    attribute_names = { colour = "color" }
    sublabels = { nose = "Nose", chin = false, ear = { name = "Ear", attribute_names = { v = "seen" } } }
    """
    entries = parse_label_map("mine", text, "mine.toml").labels
    assert (entries["car"].name, entries["hair drier"].drop) == ("vehicle", True)
    assert dict(entries["truck"].attributes) == {"kind": "truck", "wheels": "6", "old": "true"}
    assert entries["truck"].threshold == 0.4
    pose = entries["pose"]
    assert {name: sub.name for name, sub in pose.sublabels.items()} == {"nose": "Nose", "chin": None, "ear": "Ear"}
    assert dict(pose.sublabels["ear"].attribute_names) == {"v": "seen"}
    assert dict(pose.attribute_names) == {"colour": "color"}


def test_the_documents_examples_are_valid_and_its_table_is_complete():
    text = (ROOT / "docs" / "label-maps.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    entries = parse_label_map("example", examples[0], "docs").labels
    assert entries["truck"].threshold == 0.4
    assert entries["pose"].sublabels["left_ear"].name is None
    assert parse_label_map("example", examples[1], "docs").names[1] == "car"
    named = set(re.findall(r"`([\w-]+)`", "".join(line for line in text.splitlines() if line.startswith("| `"))))
    assert set(known_label_maps()) <= named

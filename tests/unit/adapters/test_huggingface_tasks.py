"""What a model is for, what it is asked for in words, and options that belong to other tasks."""

import pytest

from adapters.huggingface.phrases import Vocabulary, phrases_of
from adapters.huggingface.tasks import TASKS, choose
from agent.contract import Context
from agent.errors import ConfigError, ModelLoadFailed

transformers = pytest.importorskip("transformers")


class Config:
    """What the choice looks at."""

    model_type = "mine"

    def __init__(self, *architectures, **auto_map):
        self.architectures = list(architectures)
        self.auto_map = auto_map


def known(kind):
    from transformers.models.auto import modeling_auto

    names = getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES").values()
    return [one for name in names for one in (name if isinstance(name, tuple) else (name,))]


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("ZERO_SHOT_OBJECT_DETECTION", "zero-shot-detection"),
        ("UNIVERSAL_SEGMENTATION", "segmentation"),
        ("INSTANCE_SEGMENTATION", "segmentation"),
        ("SEMANTIC_SEGMENTATION", "semantic-segmentation"),
        ("POSE_ESTIMATION", "pose"),
        ("MASK_GENERATION", "interaction"),
        ("TEXT_RECOGNITION", "text-reading"),
    ],
)
def test_every_class_of_transformers_has_its_task(kind, task):
    found = known(kind)
    assert found
    assert {name: choose(Config(name), "hf:x", None).name for name in found} == dict.fromkeys(found, task)


def test_detectors_of_things_and_of_text():
    tasks = {name: choose(Config(name), "hf:x", None).name for name in known("OBJECT_DETECTION")}
    text = {name for name, task in tasks.items() if task == "text-detection"}
    assert text == {name for name in tasks if "OCR" in name}
    assert set(tasks.values()) == {"detection", "text-detection"}


def test_classifiers():
    names = [name for name in known("IMAGE_CLASSIFICATION") if not name.startswith("Perceiver")]
    assert {choose(Config(name), "hf:x", None).name for name in names} == {"classification"}


def test_trackers_have_the_names_of_interactors():
    for name in ("Sam2VideoModel", "EdgeTamVideoModel", "Sam3VideoModel", "Sam3TrackerVideoModel"):
        assert choose(Config(name), "hf:x", None).name == "interaction"
        assert choose(Config(name), "hf:x", "tracking").name == "tracking"


def test_code_of_a_repository_says_what_it_is_for():
    mine = Config("MineForDetecting", AutoModelForObjectDetection="mine.Model")
    assert choose(mine, "hf:x", None).name == "detection"


def test_a_config_without_architectures_goes_by_its_type():
    assert choose(transformers.YolosConfig(), "hf:x", None).name == "detection"
    assert choose(transformers.Owlv2Config(), "hf:x", None).name == "zero-shot-detection"


def test_what_nothing_runs_is_named():
    with pytest.raises(ModelLoadFailed, match=r"hf:x: got BertForMaskedLM, which nothing here runs, allowed: …"):
        choose(Config("BertForMaskedLM"), "hf:x", None)
    with pytest.raises(ConfigError, match="task: got 'poses', allowed: detection, "):
        choose(Config("BertForMaskedLM"), "hf:x", "poses")


def test_each_task_has_a_module_that_builds_it():
    import importlib

    for task in TASKS:
        assert callable(importlib.import_module(f"adapters.huggingface.{task.module}").build)


# ------------------------------------------------------------------------------------------------- phrases


def words(*options):
    return [(one.label, one.words) for one in phrases_of(*options, "hf:x")]


def test_labels_are_asked_for_by_their_names():
    assert words(["car", "traffic_light"], None) == [("car", "car"), ("traffic_light", "traffic light")]
    assert len(words("coco-80", None)) == 80


def test_phrases_say_more_than_names():
    assert words(None, {"car": "a red car"}) == [("car", "a red car")]
    assert words(["bus", "car"], {"car": ["a car", "a taxi"]}) == [("bus", "bus"), ("car", "a car"), ("car", "a taxi")]


def test_only_what_has_a_place_is_asked_for():
    known = Vocabulary(["bus", "car"], None, "hf:x")
    assert known.asked(Context()) == known.phrases == phrases_of(["bus", "car"], None, "hf:x")
    assert [one.label for one in known.asked(Context(labels=frozenset({"car", "else"})))] == ["car"]


def test_a_task_may_say_what_is_asked_for():
    told = Vocabulary("task", {"car": ["a car", "a taxi"], "van": "a van"}, "hf:x")
    asked = told.asked(Context(labels=frozenset({"traffic_light", "car", "bus"})))
    assert [one.words for one in asked] == ["a car", "a taxi", "bus", "traffic light"]
    assert [one.label for one in asked] == ["car", "car", "bus", "traffic_light"]
    assert Vocabulary("task", None, "hf:x").asked(Context(labels=frozenset())) == ()
    with pytest.raises(ConfigError, match="phrases: 'car': got ''"):
        Vocabulary("task", {"car": ""}, "hf:x")


@pytest.mark.parametrize("nothing", [(None, None), ([], {}), (["n/a"], None)])
def test_an_open_vocabulary_has_to_be_told_what_to_look_for(nothing):
    with pytest.raises(ConfigError, match=r"hf:x: finds what it is told to, .*labels = \[\"car\", …\], or phrases = "):
        phrases_of(*nothing, "hf:x")


@pytest.mark.parametrize("wrong", ["", [], [""], 3, [1], {"a": "b"}])
def test_phrases_that_say_nothing(wrong):
    with pytest.raises(ConfigError, match=r"phrases: 'car': got .*, allowed: a phrase, or a list of phrases"):
        phrases_of(None, {"car": wrong}, "hf:x")

"""Who tells the labels of a `roboflow:` model: options, the platform, what was learned before, answers, examples."""

import json

import numpy as np
import pytest
from PIL import Image

from adapters.roboflow.masks import from_png, from_run_lengths
from agent.contract import BadPrediction, ConfigError, Context, Frame, ModelLoadFailed
from tests.support.roboflow import KEY, Model, RoboflowServer, above, box, loading, png

FRAME = Frame(0, "one.jpg", np.zeros((40, 60, 3), np.uint8))


@pytest.fixture(autouse=True)
def _key(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def server():
    with RoboflowServer() as running:
        yield running


@pytest.fixture
def load(server):
    with loading(server) as loads:
        yield loads


def names(model):
    return [label.name for label in model.labels]


def detector(*predictions, task="object-detection", classes=("dog", "cat"), **more):
    return Model(task, lambda picture, asked: above(list(predictions), asked), classes, **more)


def classifier(task, *classes):
    def tell(picture, asked):
        if task == "multi-label-classification":
            return {"predictions": {c: {"confidence": 0.2, "class_id": 0} for c in classes}, "predicted_classes": []}
        return {"predictions": [{"class": c, "class_id": 0, "confidence": 0.2} for c in classes], "top": classes[0]}

    return Model(task, tell, classes)


class TestPlatform:
    def test_tells_classes_task_and_version_and_costs_no_prediction(self, server, load):
        server.models["shop/3"] = detector(version_id="team/shop/3")
        model = load()
        assert names(model) == ["cat", "dog"]
        assert (model.facts["labels from"], model.version) == ("Roboflow's project", "team/shop/3")
        assert server.predictions() == []

    def test_without_a_workspace_the_one_of_the_key_is_taken(self, server, load):
        server.models["shop/3"] = detector()
        assert names(load("shop/3")) == ["cat", "dog"]
        assert server.paths("GET") == ["/info", "/", "/team/shop/3"]

    @pytest.mark.parametrize(
        "skeletons",
        [
            {"cat": {"vertices": [{"id": 0, "name": "nose"}, {"id": 1, "name": "tail"}]}},
            [{"class": "cat", "vertices": [{"id": 0, "name": "nose"}, {"id": 1, "name": "tail"}], "edges": []}],
        ],
    )
    def test_tells_keypoints_as_a_table_or_a_list(self, server, load, skeletons):
        server.models["shop/3"] = detector(task="keypoint-detection", classes=("cat",), skeletons=skeletons)
        (cat,) = load().labels
        assert (cat.type, [sub.name for sub in cat.sublabels]) == ("skeleton", ["nose", "tail"])

    def test_that_does_not_tell_keypoints_is_told_with_what_to_do(self, server, load):
        server.models["shop/3"] = detector(task="keypoint-detection")
        with pytest.raises(
            ModelLoadFailed, match=r"nobody tells the keypoints of 'cat', 'dog'; give them by keypoints"
        ):
            load()

    def test_that_is_down_is_told_with_what_to_do(self, server, load):
        server.has_platform = False
        server.models["shop/3"] = detector()
        with pytest.raises(
            ModelLoadFailed, match=r"nobody tells its classes \(.*failed \(503\): down\); give them by labels"
        ):
            load()

    def test_nonsense_of_it_is_not_believed(self, server, load):
        server.models["shop/3"] = detector()
        for body in (b"[]", b'{"project": 3, "version": [], "x": null}', b'{"project": {"classes": 7, "type": {}}}'):
            server.fail(200, body, where="/team/shop/3")
            with pytest.raises(ModelLoadFailed, match="nobody tells its classes"):
                load()

    def test_plain_classification_is_asked_what_it_means(self, server, load):
        server.models["shop/3"] = classifier("multi-label-classification", "a", "b")
        server.models["shop/3"].task = "classification"
        model = load()
        assert (model.facts["task"], model.default_threshold) == ("multi-label-classification", 0.5)


class TestOptions:
    def test_win_over_the_platform(self, server, load):
        server.models["shop/3"] = detector()
        model = load(labels=["bird"])
        assert (names(model), model.facts["labels from"]) == (["bird"], "options")
        assert model.facts["task"] == "object-detection", "which the platform told"

    def test_with_task_and_labels_nobody_is_asked(self, server, load):
        server.models["shop/3"] = detector()
        model = load(labels=["cat"], task="instance-segmentation")
        assert server.paths() == ["/info"]
        assert model.version == "team/shop/3"
        assert model.labels[0].type == "polygon"

    def test_a_vocabulary(self, server, load):
        server.models["shop/3"] = detector()
        assert len(load(labels="coco-80", task="object-detection").labels) == 80

    def test_keypoints_for_all_classes_or_for_each(self, server, load):
        server.models["shop/3"] = detector(task="keypoint-detection")
        each = load(task="keypoint-detection", keypoints={"cat": ["nose", "tail"], "dog": ["nose"]})
        assert {label.name: len(label.sublabels) for label in each.labels} == {"cat": 2, "dog": 1}
        same = load(task="keypoint-detection", labels=["cat", "dog"], keypoints=["nose"])
        assert {label.name: len(label.sublabels) for label in same.labels} == {"cat": 1, "dog": 1}
        for wrong in ({"cat": "nose"}, {"cat": []}, ["nose", 3]):
            with pytest.raises(ConfigError, match="keypoints"):
                load(task="keypoint-detection", labels=["cat"], keypoints=wrong)
        with pytest.raises(ConfigError, match="with labels only"):
            load(task="keypoint-detection", keypoints=["nose"])

    def test_a_keypoint_that_is_none_of_them(self, server, load):
        point = {"x": 1, "y": 1, "confidence": 0.9, "class": "ear", "class_id": 0}
        server.models["shop/3"] = detector(box("cat", 5, 5, 5, 5, keypoints=[point]), task="keypoint-detection")
        model = load(task="keypoint-detection", keypoints={"cat": ["nose"]})
        with pytest.raises(BadPrediction, match=r"got the keypoint 'ear', allowed: nose \(option keypoints\)"):
            model.model.detect([FRAME], Context())

    def test_a_task_that_is_another_one_than_the_answers(self, server, load):
        server.models["shop/3"] = detector(box("cat", 5, 5, 5, 5))
        model = load(task="classification", labels=["cat"])
        with pytest.raises(BadPrediction, match="answers with object-detection, its task is classification"):
            model.model.detect([FRAME], Context())


class TestMemory:
    def test_a_model_that_was_known_stays_known_while_the_platform_is_down(self, server, load):
        server.models["shop/3"] = detector()
        load()
        server.has_platform = False
        model = load()
        assert (names(model), model.version) == (["cat", "dog"], "team/shop/3")
        assert model.facts["labels from"] == "what was learned before"

    def test_is_one_for_each_server_and_model(self, server, load):
        server.models["shop/3"] = server.models["shop/4"] = detector()
        load()
        server.has_platform = False
        with pytest.raises(ModelLoadFailed):
            load("team/shop/4")

    def test_holds_no_key_and_damage_is_no_harm(self, server, load, tmp_path):
        server.models["shop/3"] = detector()
        load()
        (file,) = (tmp_path / "cache" / "cvat-sidecar" / "roboflow").iterdir()
        assert KEY not in file.read_text()
        assert json.loads(file.read_text())["classes"] == ["cat", "dog"]
        for damage in ("", "[]", '{"format": 1}', '{"format": 99}', "\0"):
            file.write_text(damage)
            assert names(load()) == ["cat", "dog"]

    def test_a_cache_that_cannot_be_written_is_no_harm(self, server, load, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        server.models["shop/3"] = detector()
        assert names(load()) == ["cat", "dog"]


class TestAnswers:
    """Where the platform says nothing, as for a server in a closed network."""

    @pytest.fixture(autouse=True)
    def _no_platform(self, server):
        server.has_platform = False

    @pytest.mark.parametrize("task", ["classification", "multi-label-classification"])
    def test_classifiers_tell_all_their_classes_of_a_gray_picture(self, server, load, task):
        server.models["shop/3"] = classifier(task, "a", "b", "c")
        model = load()
        assert (names(model), model.facts["task"]) == (["a", "b", "c"], task)
        assert model.facts["labels from"] == "an answer of the server"
        (asked,) = server.predictions()
        assert asked.picture.std() < 1

    def test_so_does_semantic_segmentation(self, server, load):
        answer = {
            "segmentation_mask": png(np.zeros((40, 60))),
            "class_map": {"0": "background", "1": "car", "2": "sky"},
        }
        server.models["shop/3"] = Model("semantic-segmentation", lambda picture, asked: {"predictions": answer})
        assert names(load()) == ["car", "sky"]

    def test_the_servers_registry_tells_the_task(self, server, load):
        server.models["shop/3"] = detector(task="instance-segmentation")
        model = load(labels=["cat"])
        assert (model.facts["task"], model.labels[0].type) == ("instance-segmentation", "polygon")

    def test_without_a_registry_each_answer_tells_its_own(self, server, load):
        server.hosted = True
        points = [{"x": 1, "y": 1}, {"x": 5, "y": 1}, {"x": 5, "y": 5}]
        server.models["shop/3"] = detector(box("cat", 5, 5, 5, 5, points=points))
        model = load(labels=["cat"])
        assert (model.labels[0].type, model.facts["task"]) == ("any", "told by each answer")
        ((cat,),) = model.model.detect([FRAME], Context())
        assert cat.shape.type == "polygon"

    def test_a_detector_is_not_paid_for_a_gray_picture(self, server, load):
        with pytest.raises(ModelLoadFailed, match="nobody tells its classes"):
            load(task="object-detection")
        assert server.predictions() == []


class TestExamples:
    @pytest.fixture
    def pictures(self, tmp_path):
        folder = tmp_path / "pictures"
        folder.mkdir()
        for number in range(3):
            Image.new("RGB", (32, 24), (100 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / "notes.txt").write_text("no picture")
        return folder

    @pytest.fixture(autouse=True)
    def _model(self, server):
        server.has_platform = False

        def tell(picture, asked):
            seen = {0: "cat", 100: "dog", 200: "bird", 50: "cow"}.get(int(picture[0, 0, 0]), "cat")
            points = [{"x": 1, "y": 1, "confidence": 0.5, "class": f"{seen}'s nose", "class_id": 1}]
            points.append({"x": 1, "y": 1, "confidence": 0.5, "class": f"{seen}'s tail", "class_id": 0})
            more = {"keypoints": points} if server.models["shop/3"].task == "keypoint-detection" else {}
            return above([box(seen, 5, 5, 5, 5, 0.02, **more)], asked)

        server.models["shop/3"] = Model("object-detection", tell)

    def test_teach_the_classes_once(self, server, load, pictures):
        options = {"task": "object-detection", "examples": str(pictures), "lossless": True}
        model = load(**options)
        assert names(model) == ["bird", "cat", "dog"]
        assert model.facts["labels from"] == "the example pictures"
        assert len(server.predictions()) == 3
        assert names(load(**options)) == ["bird", "cat", "dog"]
        assert names(load(task="object-detection")) == ["bird", "cat", "dog"], "learned is learned"
        assert len(server.predictions()) == 3, "and not asked again"
        Image.new("RGB", (32, 24), (50, 0, 0)).save(pictures / "3.png")
        (pictures / "0.png").unlink()
        assert names(load(**options)) == ["bird", "cat", "cow", "dog"], "other pictures add to what is known"

    def test_teach_the_keypoints_in_the_models_order(self, server, load, pictures):
        server.models["shop/3"].task = "keypoint-detection"
        model = load(task="keypoint-detection", examples=str(pictures / "0.png"))
        (cat,) = model.labels
        assert [sub.name for sub in cat.sublabels] == ["cat's tail", "cat's nose"]

    def test_that_show_nothing_or_are_no_pictures(self, server, load, pictures):
        server.models["shop/3"] = detector()
        with pytest.raises(ModelLoadFailed, match="nobody tells its classes"):
            load(task="object-detection", examples=str(pictures))
        (pictures / "4.jpg").write_text("no picture either")
        with pytest.raises(ConfigError, match=r"4\.jpg: cannot be read"):
            load(task="object-detection", examples=str(pictures))


class TestMasks:
    def test_run_lengths_as_coco_writes_them(self):
        coco = pytest.importorskip("pycocotools.mask")
        rng = np.random.default_rng(0)
        for height, width in ((1, 1), (1, 9), (7, 1), (40, 33), (300, 500)):
            for share in (0.0, 0.03, 0.5, 1.0):
                bitmap = (rng.random((height, width)) < share).astype(np.uint8)
                rle = coco.encode(np.asfortranarray(bitmap))
                found = from_run_lengths({"size": [height, width], "counts": rle["counts"].decode()})
                np.testing.assert_array_equal(found, bitmap == 1)

    @pytest.mark.parametrize(
        "rle",
        [
            None,
            {},
            {"size": [4], "counts": "x"},
            {"size": [4, -4], "counts": [16]},
            {"size": [4.0, 4], "counts": [16]},
            {"size": [4, 4]},
            {"size": [4, 4], "counts": [15]},
            {"size": [4, 4], "counts": [20, -4]},
            {"size": [4, 4], "counts": ["a"]},
            {"size": [4, 4], "counts": "oooo"},
            {"size": [10**6, 10**6], "counts": [10**12]},
        ],
    )
    def test_run_lengths_that_make_no_mask(self, rle):
        with pytest.raises(BadPrediction, match="run lengths"):
            from_run_lengths(rle)

    @pytest.mark.parametrize("text", [None, 7, "", "%%%", "aGVsbG8=", png(np.zeros((4, 4)))[:40]])
    def test_maps_that_are_no_png(self, text):
        with pytest.raises(BadPrediction, match="map: "):
            from_png(text, "map")

    def test_a_map_of_several_channels(self):
        with pytest.raises(BadPrediction, match="one channel of 8 bits"):
            from_png(png(np.zeros((4, 4, 3))), "map")

    @pytest.mark.parametrize(
        ("predictions", "words"),
        [
            (
                {"segmentation_mask": png(np.full((4, 4), 9)), "class_map": {"1": "car"}},
                "the number 9, which class_map",
            ),
            ({"segmentation_mask": png(np.ones((4, 4))), "class_map": {"1": "cow"}}, "class 'cow', which is none"),
            ({"segmentation_mask": png(np.ones((4, 4)))}, "without class_map"),
            ({"segmentation_mask": "x", "class_map": {"1": "car"}}, "segmentation_mask: cannot be read"),
        ],
    )
    def test_maps_that_make_no_sense(self, server, load, predictions, words):
        server.models["shop/3"] = Model("semantic-segmentation", lambda picture, asked: {"predictions": predictions})
        model = load(task="semantic-segmentation", labels=["car"])
        with pytest.raises(BadPrediction, match=words):
            model.model.detect([FRAME], Context())

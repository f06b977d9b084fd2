"""`roboflow:workflow/…`: which output has the predictions, what goes in, and what is said where that is not clear."""

import numpy as np
import pytest

from agent.contract import BadPrediction, ConfigError, Context, Frame, ModelLoadFailed, ModelNotFound, Rectangle
from tests.support.roboflow import KEY, RoboflowServer, Workflow, box, loading

FRAME = Frame(0, "one.jpg", np.zeros((40, 60, 3), np.uint8))
BOXES = {"image": {"width": 60, "height": 40}, "predictions": [box("cat", 10, 10, 8, 6, 0.5)]}
NOTHING = {"image": {"width": None, "height": None}, "predictions": []}
TAGS = {
    "image": {"width": 60, "height": 40},
    "predictions": [{"class": "day", "class_id": 0, "confidence": 0.9}],
    "top": "day",
    "confidence": 0.9,
}
DRAWING = {"type": "base64", "value": "AAAA", "video_metadata": None}


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
    with loading(server, "workflow/team/count-cats") as loads:
        yield loads


def workflow(server, outputs, kinds=None, **inputs):
    """Saves a workflow with these outputs; without kinds the server is too old to describe it."""
    ran = []

    def run(picture, values):
        ran.append(values)
        return outputs(values) if callable(outputs) else outputs

    told = {"image": ["image"], **{name: [kind] for name, kind in inputs.items()}}
    server.workflows["team/count-cats"] = Workflow(run, told, kinds)
    return ran


def found(model, threshold=0.0):
    (detections,) = model.model.detect([FRAME], Context(threshold))
    return detections


class TestOutput:
    def test_the_only_one_of_a_kind_with_predictions(self, server, load):
        kinds = {"boxes": ["object_detection_prediction"], "drawing": ["image"], "count": ["integer"]}
        workflow(server, {"boxes": BOXES, "drawing": DRAWING, "count": 1}, kinds)
        model = load(labels=["cat"])
        assert [(label.name, label.type) for label in model.labels] == [("cat", "rectangle")]
        assert [one.shape for one in found(model)] == [Rectangle(6.0, 7.0, 14.0, 13.0)]
        assert server.paths() == [
            "/team/workflows/count-cats/describe_interface",
            "/team/workflows/count-cats",
        ], "and nothing was run to find out"
        assert model.version == "workflow/team/count-cats"

    def test_everything_that_a_step_gives(self, server, load):
        kinds = {"model": {"inference_id": ["string"], "predictions": ["object_detection_prediction"]}}
        workflow(server, {"model": {"inference_id": "x", "predictions": BOXES}}, kinds)
        for option in ({}, {"output": "model"}, {"output": "model.predictions"}):
            assert len(found(load(labels=["cat"], **option))) == 1

    def test_several_are_told_and_one_is_chosen(self, server, load):
        kinds = {"boxes": ["object_detection_prediction"], "scene": ["classification_prediction"]}
        workflow(server, {"boxes": BOXES, "scene": TAGS}, kinds)
        words = r"several outputs have predictions: boxes \(object_detection_prediction\), scene \(classif"
        with pytest.raises(ConfigError, match=words):
            load(labels=["cat"])
        (tag,) = found(load(output="scene"))
        assert (tag.label, tag.shape, tag.score) == ("day", None, 0.9)

    def test_none_is_told(self, server, load):
        workflow(server, {"count": 3}, {"count": ["integer"], "drawing": ["image"]})
        with pytest.raises(ModelLoadFailed, match=r"none of its outputs has predictions, it has count \(integer\)"):
            load(labels=["cat"])

    def test_one_that_is_not_there(self, server, load):
        workflow(server, {"boxes": BOXES}, {"boxes": ["object_detection_prediction"]})
        with pytest.raises(ConfigError, match="output: got 'box', allowed: boxes"):
            load(labels=["cat"], output="box")

    @pytest.mark.parametrize("kinds", [None, {"boxes": ["*"], "count": ["*"]}])
    def test_without_kinds_the_first_answer_tells(self, server, load, kinds):
        workflow(server, {"boxes": BOXES, "drawing": DRAWING, "count": 1, "words": ["a"]}, kinds)
        model = load(labels=["cat"])
        assert len(found(model)) == 1
        assert len(server.predictions()) == 2, "a gray picture, and the frame"

    def test_without_kinds_several_that_look_like_it_are_told(self, server, load):
        workflow(server, {"boxes": BOXES, "scene": TAGS, "empty": NOTHING})
        words = r"boxes \(object-detection\), scene \(classification\), empty \(nothing found\); choose one by output"
        with pytest.raises(ModelLoadFailed, match=words):
            load(labels=["cat"])
        assert len(found(load(labels=["cat"], output="boxes"))) == 1

    def test_without_kinds_none_that_looks_like_it_is_told(self, server, load):
        workflow(server, {"count": 3, "drawing": DRAWING})
        with pytest.raises(ModelLoadFailed, match=r"looks like predictions, it has count \(int\), drawing \(dict\)"):
            load(labels=["cat"])

    def test_that_vanishes_later_costs_its_frame(self, server, load):
        outputs = [{"boxes": BOXES}, {"other": BOXES}, {"boxes": 3}, {}]
        workflow(server, lambda values: outputs.pop(0), {"boxes": ["object_detection_prediction"]})
        model = load(labels=["cat"])
        assert len(found(model)) == 1
        for words in ("no such output, it has other", "a int without predictions", "no such output"):
            with pytest.raises(BadPrediction, match=words):
                found(model)

    @pytest.mark.parametrize("body", [b"{}", b"[]", b'{"outputs": []}', b'{"outputs": [1]}', b'{"outputs": [{}, {}]}'])
    def test_answers_that_are_none_of_a_workflow(self, server, load, body):
        workflow(server, {"boxes": BOXES}, {"boxes": ["object_detection_prediction"]})
        model = load(labels=["cat"])
        server.fail(200, body)
        with pytest.raises(BadPrediction, match="the workflow answered with"):
            found(model)


class TestKinds:
    def test_nothing_found_is_nothing(self, server, load):
        workflow(server, {"boxes": NOTHING}, {"boxes": ["object_detection_prediction"]})
        assert found(load(labels=["cat"])) == []

    @pytest.mark.parametrize("kind", ["rle_instance_segmentation_prediction", "semantic_segmentation_prediction"])
    def test_run_lengths(self, server, load, kind):
        coco = pytest.importorskip("pycocotools.mask")
        bitmap = np.zeros((40, 60), np.uint8)
        bitmap[3:9, 4:14] = bitmap[20:22, 4:6] = 1
        rle = coco.encode(np.asfortranarray(bitmap))
        rle = {"size": [40, 60], "counts": rle["counts"].decode()}
        workflow(server, {"x": {**BOXES, "predictions": [box("cat", 1, 1, 1, 1, rle_mask=rle)]}}, {"x": [kind]})
        (cat,) = found(load(labels=["cat"]))
        assert (cat.shape.left, cat.shape.top, int(cat.shape.bitmap.sum())) == (4, 3, 64)
        if kind == "semantic_segmentation_prediction":
            parts = found(load(labels=["cat"], split_regions=True))
            assert [int(one.shape.bitmap.sum()) for one in parts] == [60, 4]

    def test_skeletons(self, server, load):
        points = [{"x": 1, "y": 2, "confidence": 0.9, "class": "nose", "class_id": 0}]
        outputs = {"pose": {**BOXES, "predictions": [box("cat", 1, 1, 1, 1, keypoints=points)]}}
        workflow(server, outputs, {"pose": ["keypoint_detection_prediction"]})
        (cat,) = found(load(keypoints={"cat": ["nose", "tail"]}))
        assert [(e.label, e.x, e.y) for e in cat.shape.elements] == [("nose", 1.0, 2.0)]

    def test_boxes_or_outlines_as_they_come(self, server, load):
        kinds = {"x": ["object_detection_prediction", "instance_segmentation_prediction"]}
        workflow(server, {"x": BOXES}, kinds)
        model = load(labels=["cat"])
        assert model.labels[0].type == "any"
        assert found(model)[0].shape.type == "rectangle"

    def test_classes_nobody_tells(self, server, load):
        workflow(server, {"boxes": BOXES}, {"boxes": ["object_detection_prediction"]})
        with pytest.raises(ModelLoadFailed, match="nobody tells its classes; give them by labels"):
            load()

    def test_classes_of_a_classifier_are_in_its_answer(self, server, load):
        workflow(server, {"scene": TAGS}, {"scene": ["classification_prediction"]})
        model = load()
        assert [(label.name, label.type) for label in model.labels] == [("day", "tag")]


class TestInputs:
    KINDS = {"boxes": ["object_detection_prediction"]}  # noqa: RUF012

    def test_parameters_and_the_threshold(self, server, load):
        ran = workflow(server, {"boxes": BOXES}, self.KINDS, confidence="float", zone="string")
        model = load(labels=["cat"], parameters={"zone": "left"}, threshold_input="confidence")
        found(model, threshold=0.35)
        found(model, threshold=0.0)
        assert ran == [{"zone": "left", "confidence": 0.35}, {"zone": "left", "confidence": 0.01}]

    def test_the_threshold_holds_where_the_workflow_takes_none(self, server, load):
        workflow(server, {"boxes": BOXES}, self.KINDS)
        assert found(load(labels=["cat"]), threshold=0.6) == []

    def test_an_input_that_it_has_not(self, server, load):
        workflow(server, {"boxes": BOXES}, self.KINDS, zone="string")
        for wrong in ({"parameters": {"zoen": 1}}, {"threshold_input": "zoen"}, {"image_input": "zoen"}):
            with pytest.raises(ConfigError, match="the workflow has no input 'zoen', allowed: image, zone"):
                load(labels=["cat"], **wrong)

    def test_a_picture_by_another_name(self, server, load):
        ran = workflow(server, {"boxes": BOXES}, self.KINDS)
        server.workflows["team/count-cats"].inputs = {"photo": ["image"]}
        found(load(labels=["cat"]))
        assert "photo" in server.asked[-1].content["inputs"]
        assert ran == [{}]

    def test_several_pictures(self, server, load):
        workflow(server, {"boxes": BOXES}, self.KINDS)
        server.workflows["team/count-cats"].inputs = {"left": ["image"], "right": ["image"]}
        with pytest.raises(ConfigError, match="takes left, right; which one is the frame"):
            load(labels=["cat"])
        assert len(found(load(labels=["cat"], image_input="right"))) == 1

    def test_a_version(self, server, load):
        workflow(server, {"boxes": BOXES}, self.KINDS)
        model = load(labels=["cat"], workflow_version="1733000000000")
        found(model)
        assert [asked.content["workflow_version_id"] for asked in server.asked] == ["1733000000000"] * 2
        assert model.version == "workflow/team/count-cats@1733000000000"

    @pytest.mark.parametrize("way", ["header", "body"])
    def test_the_key_travels_as_for_models(self, server, load, way):
        server.reads_header = way == "header"
        workflow(server, {"boxes": BOXES}, self.KINDS)
        found(load(labels=["cat"], api_key_in=way))
        asked = server.asked[-1]
        assert asked.query == {}
        assert (asked.headers.get("Authorization"), asked.content.get("api_key")) == (
            (f"Bearer {KEY}", None) if way == "header" else (None, KEY)
        )

    def test_what_is_for_models_only(self, server, load):
        with pytest.raises(ConfigError, match="'nms_iou' is not for a workflow"):
            load(labels=["cat"], nms_iou=0.5)


@pytest.mark.parametrize("described", [True, False])
def test_a_workflow_that_is_not_there(server, load, described):
    with pytest.raises(ModelNotFound, match=r"knows no such model, workflow or workspace \(404\)"):
        load(labels=["cat"])


def test_errors_of_its_steps_are_told(server, load):
    workflow(server, {"boxes": BOXES}, {"boxes": ["object_detection_prediction"]})
    model = load(labels=["cat"])
    content = {
        "message": "Error during step execution",
        "error_type": "X",
        "context": "c",
        "inner_error_message": "no GPU",
    }
    server.fail(400, content)
    with pytest.raises(BadPrediction, match=r"\(400\): Error during step execution \(no GPU\)"):
        found(model)

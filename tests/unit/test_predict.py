"""Models that do not keep their contract cost their frame only, and are told what was wrong."""

from dataclasses import replace

import numpy as np
import pytest

from agent.contract import (
    Attribute,
    Detection,
    Frame,
    Keypoint,
    Label,
    Mask,
    Points,
    Polygon,
    Rectangle,
    Skeleton,
)
from agent.errors import BadPrediction
from agent.predict import check_predictions, describe

LABELS = [
    Label("car", "rectangle", attributes=(Attribute("kind"),)),
    Label("thing"),
    Label("scene", "tag"),
    Label("area", "mask"),
    Label("pose", "skeleton", sublabels=(Label("head", "points", attributes=(Attribute("seen"),)), Label("foot"))),
]
BOX = Rectangle(1, 2, 3, 4)
GOOD = Detection("car", BOX, 0.5)
BITMAP = np.ones((2, 2), bool)


def frames(count=1):
    return [Frame(index, f"{index}.jpg", np.zeros((4, 5, 3), np.uint8)) for index in range(count)]


def check(*detections):
    (found,) = check_predictions([list(detections)], frames(), LABELS)
    return found


class Reidentifier:
    def __init__(self, answer):
        self.answer = answer

    def describe(self, frame, rectangles):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            np.full((2, 4), np.nan),
            r"reid: got an array of shape \(2, 4\), allowed: finite descriptors of shape \(2, D\)",
        ),
        (np.ones((1, 4)), r"got an array of shape \(1, 4\)"),
        (np.ones(2), r"got an array of shape \(2,\)"),
        (RuntimeError("out of memory"), "reid: the model failed: RuntimeError: out of memory"),
        (BadPrediction("as it says"), "^as it says$"),
    ],
)
def test_looks_that_are_none(answer, message):
    with pytest.raises(BadPrediction, match=message):
        describe(Reidentifier(answer), frames()[0], [BOX, BOX], "reid")
    assert describe(Reidentifier([[1, 0], [0, 1]]), frames()[0], [BOX, BOX], "reid").dtype == np.float32


@pytest.mark.parametrize(
    "detection",
    [
        GOOD,
        Detection("car", BOX, None),
        Detection("car", BOX, np.float32(1), {"kind": "truck"}, group=np.int64(3)),
        Detection("car", Rectangle(float("nan"), 0, 1, 1)),
        Detection("car", Rectangle(*np.array([1, 2, 3, 4], np.float32))),
        Detection("thing", BOX),
        Detection("thing", Points((1.0, 2.0))),
        Detection("thing", None),
        Detection("scene", None, 1),
        Detection("area", Mask(BITMAP)),
        Detection("area", Polygon((0, 0, 1, 0, 1, 1))),
        Detection("pose", Skeleton((Keypoint("head", 1, 2, attributes={"seen": "yes"}),))),
    ],
    ids=str,
)
def test_what_keeps_the_contract_passes_unchanged(detection):
    (found,) = check(detection)
    assert found is detection


@pytest.mark.parametrize(
    ("detection", "said"),
    [
        ({"label": "car"}, "got dict, allowed: Detection"),
        (None, "got NoneType, allowed: Detection"),
        (Detection("cat", BOX), "label 'cat' is none of the model's: car, thing, scene"),
        (Detection(["car"], BOX), "label ['car'] is none of the model's"),
        (Detection(3, BOX), "label 3 is none of the model's"),
        (replace(GOOD, score=1.5), "score of 'car': got 1.5, allowed: 0 to 1"),
        (replace(GOOD, score=-0.1), "got -0.1"),
        (replace(GOOD, score=float("nan")), "got nan"),
        (replace(GOOD, score=float("inf")), "got inf"),
        (replace(GOOD, score="0.5"), "got '0.5'"),
        (replace(GOOD, group="a"), "group of 'car': got 'a'"),
        (replace(GOOD, attributes={"colour": "red"}), "it has no attribute colour"),
        (Detection("car", None), "got a tag, the model declares it as rectangle"),
        (Detection("car", Mask(BITMAP)), "got a mask, the model declares it as rectangle"),
        (Detection("scene", BOX), "got a rectangle, the model declares it as tag"),
        (Detection("car", (1, 2, 3, 4)), "shape of 'car': got tuple"),
        (Detection("car", Rectangle("1", 2, 3, 4)), "coordinates that are no numbers"),
        (Detection("thing", Points((None, 1.0))), "coordinates that are no numbers"),
        (Detection("pose", Skeleton((Keypoint("tail", 1, 2),))), "it has no point 'tail': head, foot"),
        (Detection("pose", Skeleton((Keypoint("foot", 1, 2, attributes={"x": "y"}),))), "it has no attribute x"),
    ],
)
def test_what_does_not_is_told_with_its_frame(detection, said):
    found = check(GOOD, detection)
    assert isinstance(found, BadPrediction)
    assert said in str(found)
    assert str(found).startswith("frame 0 (0.jpg): ")


def test_one_bad_frame_does_not_cost_the_others():
    failed = BadPrediction("the model failed")
    found = check_predictions([[GOOD], [Detection("cat", BOX)], failed, []], frames(4), LABELS)
    assert found[0] == [GOOD]
    assert isinstance(found[1], BadPrediction)
    assert found[2] is failed
    assert found[3] == []


@pytest.mark.parametrize("answer", [None, 5, "text"])
def test_a_frame_without_a_list(answer):
    (found,) = check_predictions([answer], frames(), LABELS)
    assert "allowed: a list of detections" in str(found)


@pytest.mark.parametrize(("answer", "got"), [([], "0"), ([[], [], []], "3"), (None, "NoneType")])
def test_lists_that_belong_to_no_frame(answer, got):
    with pytest.raises(BadPrediction, match=f"got {got}, allowed: one list of detections for each of 2 frames"):
        check_predictions(answer, frames(2), LABELS)

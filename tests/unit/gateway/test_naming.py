"""How labels are called in CVAT's menus: by themselves, and by a label map."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from agent.contract import Attribute, Detection, Keypoint, Label, Rectangle, Skeleton
from agent.doors.gateway.naming import Naming, drawing
from agent.doors.gateway.replies import write_reply
from agent.errors import ConfigError
from agent.labels.maps import parse_label_map

COLOUR = Attribute("colour", "select", ("red", "blue"))
SIDE = Attribute("side", "text")
LABELS = (
    Label("car", "rectangle", (COLOUR,)),
    Label("truck", "rectangle", (COLOUR, SIDE)),
    Label("cat", "mask"),
    Label("person", "skeleton", sublabels=(Label("nose", "points", (SIDE,)), Label("left_eye", "points"))),
)
MAP = """
[labels]
car = "vehicle"
cat = false

[labels.truck]
name = "vehicle"
threshold = 0.7
attributes = {heavy = true}
attribute_names = {colour = "paint"}

[labels.person]
name = "human"
sublabels = {nose = {name = "snout", attribute_names = {side = "which"}}, left_eye = false}
"""


def mapped(text):
    return parse_label_map("mine", text, "mine.toml")


def reply(detections, naming):
    return json.loads(write_reply(detections, naming, (100, 100), "0" * 64))


def test_without_a_map_labels_keep_their_names():
    naming = Naming.of(LABELS, None, None)
    assert naming.labels == LABELS
    assert {name: target.name for name, target in naming.targets.items()} == {
        label.name: label.name for label in LABELS
    }


def test_a_map_renames_joins_and_drops():
    naming = Naming.of(LABELS, mapped(MAP), None)
    vehicle, human = naming.labels
    assert (vehicle.name, vehicle.type) == ("vehicle", "rectangle")
    assert {(a.name, a.input_type) for a in vehicle.attributes} == {
        ("colour", "select"), ("paint", "select"), ("side", "text"), ("heavy", "text"),
    }  # fmt: skip
    assert (human.name, [sub.name for sub in human.sublabels]) == ("human", ["snout"])
    assert [attribute.name for attribute in human.sublabels[0].attributes] == ["which"]
    assert naming.thresholds == {"truck": 0.7}


def test_detections_are_called_as_their_labels():
    naming = Naming.of(LABELS, mapped(MAP), "score")
    box = Rectangle(1, 2, 3, 4)
    skeleton = Skeleton((Keypoint("nose", 5, 6, attributes={"side": "left"}), Keypoint("left_eye", 7, 8)))
    found = reply(
        [
            Detection("truck", box, 0.5, {"colour": "red"}),
            Detection("cat", box, 0.5),
            Detection("person", skeleton, 0.996),
        ],
        naming,
    )
    assert found == [
        {
            "label": "vehicle",
            "type": "rectangle",
            "confidence": "0.5000",
            "points": [1, 2, 3, 4],
            "attributes": [
                {"name": "paint", "value": "red"},
                {"name": "heavy", "value": "true"},
                {"name": "score", "value": "50"},
            ],
        },
        {
            "label": "human",
            "type": "skeleton",
            "confidence": "0.9960",
            "attributes": [{"name": "score", "value": "100"}],
            "elements": [
                {
                    "label": "snout",
                    "type": "points",
                    "points": [5, 6],
                    "outside": 0,
                    "attributes": [{"name": "which", "value": "left"}],
                }
            ],
        },
    ]


def test_a_model_with_a_score_attribute_of_its_own_keeps_it():
    own = Label("car", "rectangle", (Attribute("score", "text"),))
    naming = Naming.of([own], None, "score")
    assert naming.labels == (own,)
    (item,) = reply([Detection("car", Rectangle(1, 2, 3, 4), 0.5, {"score": "high"})], naming)
    assert item["attributes"] == [{"name": "score", "value": "high"}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[labels]\ncar = "human"\nperson = "human"', "label 'human': a rectangle and a skeleton cannot be called"),
        ("[labels.person]\nsublabels = {nose = false, left_eye = false}", "'person': it is a skeleton without points"),
        ('names = ["car"]', r"label map mine: it has no \[labels\]"),
    ],
)
def test_maps_that_make_no_sense(text, why):
    with pytest.raises(ConfigError, match=why):
        Naming.of(LABELS, mapped(text), None)


def test_a_drawing_has_a_node_for_each_point_whatever_it_is_called():
    names = ["nose", "<left> & 'right'", 'a "b"', "ä"]
    nodes = ElementTree.fromstring(f"<svg>{drawing(names)}</svg>")
    assert [node.get("data-label-name") for node in nodes] == names
    assert [node.get("data-node-id") for node in nodes] == ["1", "2", "3", "4"]
    places = {(node.get("cx"), node.get("cy")) for node in nodes}
    assert len(places) == 4
    assert all(0 <= float(number) <= 100 for place in places for number in place)

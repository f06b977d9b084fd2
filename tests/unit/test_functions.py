"""What CVAT is told of a model, as the official client says it; and what the model has to keep of it."""

import json
from pathlib import Path

import pytest

from agent.contract import Attribute, Label, PromptNeeds
from agent.errors import ModelError
from agent.functions.bodies import NotCompatible, check_compatible, function_body
from agent.models.descriptions import Description
from agent.settings.tables import ModelSettings

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "contract" / "agent-queue" / "cvat-cli-2.80.json"
SETTINGS = ModelSettings("det", "test:det")
CAR = Label("car", "rectangle", (Attribute("color", "select", ("red", "blue")),))
POSE = Label("pose", "skeleton", (), (Label("head", "points"), Label("foot", "points")))
DETECTOR = Description("detector", (CAR, Label("cat", "mask"), Label("person"), Label("scene", "tag"), POSE))
INTERACTOR = Description("interactor", needs=PromptNeeds(0, 0, "optional"))
TRACKER = Description("tracker", shape_types=("rectangle", "mask"))


def recorded(kind):
    """What cvat-cli sent to make a function of a kind."""
    if not RECORDED.is_file():
        pytest.skip("needs the recording of cvat-cli beside the project")
    exchanges = json.loads(RECORDED.read_text())["exchanges"]
    made = [one["request"]["body"] for one in exchanges if one["request"]["path"] == "/api/functions"]
    return next(body for body in made if body["kind"] == kind)


@pytest.mark.parametrize("description", [DETECTOR, INTERACTOR, TRACKER], ids=lambda one: one.kind)
def test_as_the_official_client(description):
    body, theirs = function_body(SETTINGS, description, public=False), recorded(description.kind)
    for label in theirs.get("labels_v2", ()):
        if label["type"] == "any":  # said and left out mean the same
            del label["type"]
    assert {**body, "name": theirs["name"]} == theirs
    check_compatible({"id": 1, **theirs}, description)


@pytest.mark.parametrize(
    ("needs", "fields"),
    [
        (PromptNeeds(), {"min_pos_points": 1, "min_neg_points": 0}),
        (PromptNeeds(2, None, "no"), {"min_pos_points": 2}),
        (PromptNeeds(0, 1, "required"), {"min_pos_points": 0, "min_neg_points": 1, "startswith_box": True}),
        (PromptNeeds(1, 0, "optional"), {"min_pos_points": 1, "min_neg_points": 0, "startswith_box_optional": True}),
    ],
    ids=str,
)
def test_what_interactors_need(needs, fields):
    description = Description("interactor", needs=needs)
    body = function_body(SETTINGS, description, public=False)
    assert {name: body[name] for name in body if name.startswith(("min_", "startswith"))} == fields
    # The server fills in what was not said.
    check_compatible({"startswith_box": False, "startswith_box_optional": False, **body}, description)
    check_compatible({"min_neg_points": -1, **body}, description)


def test_names_and_visibility():
    named = ModelSettings("det", "test:det", name="Street things")
    body = function_body(named, TRACKER, public=True)
    assert (body["name"], body["visibility"], body["provider"]) == ("Street things", "public", "native")
    with pytest.raises(ModelError, match="a reid has no native function"):
        function_body(named, Description("reid"), public=False)


def of(description, **changes):
    return {"id": 7, **function_body(SETTINGS, description, public=False), **changes}


def labelled(*labels):
    return {"labels_v2": list(labels)}


def test_a_model_may_do_more():
    fewer = labelled({"name": "car", "type": "rectangle", "attributes": []})
    check_compatible(of(DETECTOR, **fewer), DETECTOR)
    check_compatible(
        of(DETECTOR, **labelled({"name": "car", "type": "any"}, {"name": "cat", "type": "unknown"})), DETECTOR
    )
    check_compatible(of(TRACKER, supported_shape_types=["mask"]), TRACKER)
    check_compatible(of(INTERACTOR, min_pos_points=3, min_neg_points=2), INTERACTOR)
    check_compatible(of(INTERACTOR, startswith_box=True), INTERACTOR)


COLOR = {"name": "color", "input_type": "select", "values": ["red", "blue"]}


@pytest.mark.parametrize(
    ("function", "description", "message"),
    [
        (of(DETECTOR, provider="nuclio"), DETECTOR, "function 7: its provider is 'nuclio', allowed: 'native'"),
        (of(TRACKER), DETECTOR, "function 7: it is a tracker, the model is a detector"),
        (of(DETECTOR, **labelled({"name": "dog"})), DETECTOR, "function 7: label 'dog': the model does not have it"),
        (
            of(DETECTOR, **labelled({"name": "cat", "type": "polygon"})), DETECTOR,
            "label 'cat': it is of the type polygon, the model's of the type mask",
        ),
        (
            of(DETECTOR, **labelled({"name": "car", "attributes": [{**COLOR, "name": "size"}]})), DETECTOR,
            "label 'car': attribute 'size': the model does not have it",
        ),
        (
            of(DETECTOR, **labelled({"name": "car", "attributes": [{**COLOR, "input_type": "radio"}]})), DETECTOR,
            "attribute 'color': it is a radio, the model's a select",
        ),
        (
            of(DETECTOR, **labelled({"name": "car", "attributes": [{**COLOR, "values": ["red"]}]})), DETECTOR,
            "attribute 'color': it has the values",
        ),
        (
            of(DETECTOR, **labelled({"name": "pose", "type": "skeleton", "sublabels": [{"name": "hand"}]})), DETECTOR,
            "label 'pose': point 'hand': the model does not have it",
        ),
        (of(TRACKER, supported_shape_types=["mask", "points"]), TRACKER, "it promises to follow points, the model"),
        (of(INTERACTOR), Description("interactor", needs=PromptNeeds(1)), "it takes 0 positive points, the model"),
        (
            of(INTERACTOR), Description("interactor", needs=PromptNeeds(0, None)),
            "it takes negative points, the model does not",
        ),
        (
            of(INTERACTOR), Description("interactor", needs=PromptNeeds(0, 2)),
            "it takes 0 negative points, the model needs 2",
        ),
        (
            of(INTERACTOR, min_neg_points=-1), Description("interactor", needs=PromptNeeds(0, 2)),
            "it takes 0 negative points, the model needs 2",
        ),
        (of(INTERACTOR), Description("interactor", needs=PromptNeeds(0, 0, "no")), "it takes a box, the model"),
        (
            of(INTERACTOR), Description("interactor", needs=PromptNeeds(0, 0, "required")),
            "it does not ask for a box, the model needs one",
        ),
    ],
)  # fmt: skip
def test_promises_that_the_model_does_not_keep(function, description, message):
    with pytest.raises(NotCompatible) as caught:
        check_compatible(function, description)
    assert message in str(caught.value)
    assert "label" not in caught.value.public

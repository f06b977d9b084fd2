"""Our models handed to cvat-cli: its own code loads them, and its own mapper takes what they answer."""

import logging

import numpy as np
import pytest
from PIL import Image

from agent.compose import named
from agent.contract import (
    Attribute,
    Cuboid,
    Detection,
    Ellipse,
    Keypoint,
    Label,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Skeleton,
)  # fmt: skip
from agent.errors import BadPrediction, ModelLoadFailed
from agent.models.loading import LoadedModel, ModelReference

cvataa = pytest.importorskip("cvat_sdk.auto_annotation")
common = pytest.importorskip("cvat_cli._internal.common")
parsers = pytest.importorskip("cvat_cli._internal.parsers")
driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")

LABELS = (
    Label("thing"),
    Label("car", "rectangle", (Attribute("colour", "select", ("red", "blue")), Attribute("note"))),
    Label("person", "skeleton", (), (Label("head", "points", (Attribute("hat"),)), Label("foot", "points"))),
    Label("sunny", "tag"),
    Label("blob", "mask"),
)
BITMAP = np.zeros((6, 8), bool)
BITMAP[1:5, 1:4] = True


class Fixed:
    """Gives the same detections for any frame."""

    labels = LABELS

    def __init__(self, *detections):
        self.detections = detections

    def detect(self, frames, context):
        self.context, self.frames = context, frames
        return [list(self.detections) for _ in frames]


@pytest.fixture
def handed_over(monkeypatch):
    """cvat-cli's loader run over a model of ours."""

    def load(*detections, kind="detector", threshold=0.0):
        loaded = LoadedModel(ModelReference("x", "y"), Fixed(*detections), kind, LABELS, default_threshold=threshold)
        monkeypatch.setattr(named, "open_named", lambda *args, **options: loaded)
        parameters = dict([parsers.parse_function_parameter("model=str:x:y")])
        return common.FunctionLoader("adapters.as_function", None, parameters).load()

    return load


def ask(function, **context):
    given = driver._DetectionFunctionContextImpl(frame_name="f.png", **context)
    found = function.detect(given, Image.new("RGB", (80, 60)))
    mapper = driver._AnnotationMapper(
        logging.getLogger("test"),
        function.spec.labels,
        [server_label(label, given.conv_mask_to_poly) for label in function.spec.labels],
        allow_unmatched_labels=False,
        conv_mask_to_poly=given.conv_mask_to_poly,
    )
    return mapper.validate_and_remap(found, 17)


def server_label(label, polygons=False):
    """A label as the server would have it: the same, with a type and all lists there."""
    from types import SimpleNamespace

    kind = getattr(label, "type", "any")
    return SimpleNamespace(
        id=label.id,
        name=label.name,
        type="polygon" if polygons and kind == "mask" else kind,
        attributes=list(getattr(label, "attributes", [])),
        sublabels=[server_label(sub) for sub in getattr(label, "sublabels", [])],
    )


SHAPES = [
    (Rectangle(1, 2, 3, 4, 30), "rectangle", [1, 2, 3, 4]),
    (Ellipse(10, 20, 3, 4), "ellipse", [10, 20, 13, 16]),
    (Polygon((1, 2, 3, 4, 5, 0)), "polygon", [1, 2, 3, 4, 5, 0]),
    (Polyline((1, 2, 3, 4)), "polyline", [1, 2, 3, 4]),
    (Points((1, 2)), "points", [1, 2]),
    (Cuboid(tuple(map(float, range(16)))), "cuboid", list(range(16))),
    (Mask(BITMAP, 10, 20), "mask", [0, 12, 11, 21, 13, 24]),
]


@pytest.mark.parametrize(("shape", "kind", "points"), SHAPES, ids=lambda v: v if isinstance(v, str) else "")
def test_every_shape(handed_over, shape, kind, points):
    _, (made,) = ask(handed_over(Detection("thing", shape, 0.5, group=4, occluded=True, z_order=2)))
    assert (made.type.value, made.points, made.frame, made.label_id) == (kind, points, 17, 0)
    assert (made.score, made.group, made.occluded, made.z_order) == (0.5, 4, True, 2)


def test_attributes_tags_and_skeletons(handed_over):
    head = Keypoint("head", 1, 2, occluded=True, attributes={"hat": "bowler"})
    tags, shapes = ask(
        handed_over(
            Detection("car", Rectangle(1, 2, 3, 4), attributes={"colour": "red", "note": "x"}),
            Detection("sunny", None),
            Detection("person", Skeleton((head,))),
        )
    )
    assert [tag.label_id for tag in tags] == [3]
    car, person = shapes
    assert [(a.spec_id, a.value) for a in car.attributes] == [(0, "red"), (1, "x")]
    assert not hasattr(car, "score")
    assert [(e.label_id, e.outside) for e in person.elements] == [(0, False), (1, True)]
    assert person.elements[0].attributes[0].value == "bowler"


def test_thresholds(handed_over):
    low, high = Detection("thing", Rectangle(1, 2, 3, 4), 0.3), Detection("thing", Rectangle(1, 2, 3, 4), 0.6)
    function = handed_over(low, high, threshold=0.5)
    assert len(ask(function)[1]) == 1
    assert function._loaded.model.context.threshold == 0.5
    assert len(ask(function, conf_threshold=0.2)[1]) == 2


def test_masks_become_polygons_where_asked(handed_over):
    two = BITMAP.copy()
    two[1:5, 6:8] = True
    _, made = ask(handed_over(Detection("blob", Mask(two, 10, 20), 0.5)), conv_mask_to_poly=True)
    assert [shape.type.value for shape in made] == ["polygon", "polygon"]
    assert {(11.0, 21.0), (13.0, 24.0)} <= set(zip(made[1].points[::2], made[1].points[1::2], strict=True))


def test_wrong_answers_and_kinds(handed_over):
    with pytest.raises(BadPrediction, match="unknown label 'zebra'"):
        ask(handed_over(Detection("zebra", Rectangle(1, 2, 3, 4))))
    with pytest.raises(BadPrediction, match="unknown attribute 'age'"):
        ask(handed_over(Detection("car", Rectangle(1, 2, 3, 4), attributes={"age": "9"})))
    with pytest.raises(ModelLoadFailed, match="is of the kind reid, allowed: detector, interactor, tracker"):
        handed_over(kind="reid")


def test_lists_are_given_as_json(tmp_path):
    from tests.support.onnx_graphs import constant_graph

    path = constant_graph(tmp_path / "m.onnx", {"o": np.zeros((6, 84), np.float32)})
    function = loaded(f"model=str:local:{path}", 'labels=str:["car", "bus"]', "nms_iou=float:0.4", "threads=int:1")
    assert [label.name for label in function.spec.labels] == ["car", "bus"]


def loaded(*texts):
    """A function as cvat-cli loads it for `-p` of each text."""
    parameters = dict(parsers.parse_function_parameter(text) for text in texts)
    return common.FunctionLoader("adapters.as_function", None, parameters).load()


def marks(positive=(), negative=(), box=None):
    from types import SimpleNamespace

    return SimpleNamespace(pos_points=positive, neg_points=negative, bounding_box=box)


def test_interactors_say_what_they_need_and_answer_in_masks():
    image = Image.fromarray(np.kron([[0, 0, 0], [0, 255, 0], [0, 0, 0]], np.ones((40, 40))).astype(np.uint8))
    box = loaded("model=str:opencv:grabcut")
    assert (box.spec.min_pos_points, box.spec.min_neg_points, box.spec.min_bounding_boxes) == (0, 0, 1)
    seen = box.preprocess_image(None, image)
    (found,) = box.detect(None, seen, marks([(60.0, 60.0)], box=((85.0, 85.0), (35.0, 35.0))))
    assert (found.type, found.points[-4:]) == ("mask", [40, 40, 79, 79])
    # Scissors draw an outline, which CVAT's editor does not take.
    clicks = loaded("model=str:opencv:scissors")
    assert (clicks.spec.min_pos_points, clicks.spec.min_bounding_boxes) == (3, None)
    corners = [(40.0, 40.0), (80.0, 40.0), (80.0, 80.0), (40.0, 80.0)]
    (found,) = clicks.detect(None, clicks.preprocess_image(None, image), marks(corners))
    assert found.type == "mask"
    np.testing.assert_allclose(found.points[-4:], [40, 40, 79, 79], atol=2)
    assert clicks.detect(None, clicks.preprocess_image(None, image), marks([(-9.0, -9.0)] * 3)) == []


def test_an_interactors_opinion_comes_along(tmp_path):
    from tests.support.onnx_graphs import sam_pair

    encoder, decoder = sam_pair(tmp_path)
    function = loaded(f"model=str:local:{encoder}", f"decoder=str:{decoder}")
    assert (function.spec.min_pos_points, function.spec.min_bounding_boxes) == (0, 0)
    (found,) = function.detect(
        None, function.preprocess_image(None, Image.new("RGB", (128, 64))), marks([(60.0, 32.0)])
    )
    ((opinion,),) = [found.attributes]
    assert (opinion.spec_id, opinion.value) == (cvataa.InteractionResultAttributes.CONFIDENCE, "0.9")


def test_trackers_go_on_from_the_state_that_cvats_agent_keeps():
    function = loaded("model=str:opencv:mil")
    assert function.spec.supported_shape_types == {"rectangle"}
    rng = np.random.default_rng(0)
    square = rng.integers(0, 255, (40, 40, 3), np.uint8)

    def picture(left):
        image = np.full((120, 200, 3), 90, np.uint8)
        image[40:80, left : left + 40] = square
        return function.preprocess_image(None, Image.fromarray(image))

    start = cvataa.TrackableShape(type="rectangle", points=[40, 40, 80, 80])
    state = function.init_tracking_state(None, picture(40), start)
    first = list(state)
    for left in (46, 52, 58):
        found = function.track(None, picture(left), state)
    assert found.type == "rectangle"
    np.testing.assert_allclose(found.points, [58, 40, 98, 80], atol=12)
    assert state != first
    with pytest.raises(ValueError, match="got a points, allowed: rectangle"):
        function.init_tracking_state(None, picture(40), cvataa.TrackableShape(type="points", points=[1, 2]))


@pytest.mark.parametrize("mode", ["I;16", "I", "L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_every_mode_are_seen_in_colour(handed_over, mode):
    """A ramp from dark to bright; PIL alone would make grays of 16 bits white."""
    ramp = np.tile(np.linspace(0, 255, 80), (60, 1))
    if mode.startswith("I"):
        deep = (ramp * 200).astype(np.uint16 if mode == "I;16" else np.int32)
        image = Image.fromarray(deep)
    else:
        image = Image.fromarray(ramp.astype(np.uint8)).convert("RGB").convert(mode)
    assert image.mode == mode
    function = handed_over()
    given = driver._DetectionFunctionContextImpl(frame_name="f.png")
    function.detect(given, image)
    (frame,) = function._loaded.model.frames
    assert (frame.image.shape, frame.image.dtype) == ((60, 80, 3), np.uint8)
    left, right = frame.image[:, :20].mean(), frame.image[:, -20:].mean()
    assert left < 60
    assert right > 190

"""CVAT's auto-annotation functions: loaded as cvat-cli loads them, held to the SDK's rules."""

import textwrap

import numpy as np
import pytest

from agent.contract import Attribute, Context, Cuboid, Ellipse, Frame, Label, Mask, Points, Polygon, Rectangle
from agent.errors import BadPrediction, ConfigError, ModelLoadFailed, ModelNotFound
from agent.models.loading import load_model

FRAME = Frame(3, "street.jpg", np.zeros((60, 80, 3), np.uint8))

SPEC = """
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models
from cvat_sdk.masks import encode_mask
import numpy as np

spec = cvataa.DetectionFunctionSpec(labels=[
    cvataa.label_spec("car", 10, type="rectangle", attributes=[
        cvataa.select_attribute_spec("colour", 1, ["red", "blue"]),
        cvataa.number_attribute_spec("doors", 2, ["0", "10", "2"]),
        cvataa.checkbox_attribute_spec("parked", 3),
    ]),
    cvataa.label_spec("thing", 11),
    cvataa.skeleton_label_spec("person", 12, [
        cvataa.keypoint_spec("head", 5, attributes=[cvataa.text_attribute_spec("hat", 1)]),
        cvataa.keypoint_spec("foot", 6),
    ]),
    cvataa.label_spec("sunny", 13, type="tag"),
    cvataa.label_spec("blob", 14, type="mask"),
])
"""


@pytest.fixture
def function(tmp_path):
    """Writes a function's file; `answer` is what its detect returns."""

    def write(answer="[]", spec=SPEC, **options):
        path = tmp_path / "func.py"
        body = f"\ndef detect(context, image):\n    return {answer}\n" if answer is not None else ""
        path.write_text(spec + body)
        return load_model(f"cvat:{path}", options=options)

    return write


def found(loaded, **context):
    return loaded.model.detect([FRAME], Context(**context))[0]


def test_labels_come_with_attributes_and_sublabels(function):
    loaded = function()
    assert loaded.kind == "detector"
    assert loaded.labels == (
        Label(
            "car",
            "rectangle",
            (
                Attribute("colour", "select", ("red", "blue")),
                Attribute("doors", "number", ("0", "10", "2")),
                Attribute("parked", "checkbox"),
            ),
        ),
        Label("thing", "any"),
        Label("person", "skeleton", (), (Label("head", "points", (Attribute("hat"),)), Label("foot", "points"))),
        Label("sunny", "tag"),
        Label("blob", "mask"),
    )
    assert loaded.version.startswith("sha256:")
    assert found(loaded) == []


SHAPES = {
    "rectangle": ("points=[1, 2, 30, 40], rotation=30", Rectangle(1, 2, 30, 40, 30)),
    "ellipse": ("points=[40, 30, 50, 10]", Ellipse(40, 30, 10, 20)),
    "polygon": ("points=[1, 2, 3, 4, 5, 0]", Polygon((1, 2, 3, 4, 5, 0))),
    "points": ("points=[1, 2]", Points((1, 2))),
    "cuboid": ("points=list(range(16))", Cuboid(tuple(float(i) for i in range(16)))),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes(function, kind):
    arguments, shape = SHAPES[kind]
    (detection,) = found(function(f"[cvataa.shape(11, type={kind!r}, {arguments})]"))
    assert (detection.label, detection.shape, detection.score) == ("thing", shape, None)


def test_what_goes_with_a_shape(function):
    attributes = "attributes=[models.AttributeValRequest(spec_id=2, value='4')]"
    more = "occluded=True, z_order=3, group=7, score=0.5"
    (detection,) = found(function(f"[cvataa.rectangle(10, [1, 2, 3, 4], {more}, {attributes})]"))
    assert (detection.score, detection.group, detection.occluded, detection.z_order) == (0.5, 7, True, 3)
    assert detection.attributes == {"doors": "4"}


def test_masks_become_bitmaps_of_their_box(function):
    loaded = function("[cvataa.mask(14, encode_mask(np.pad(np.eye(4, 6, dtype=bool), ((10, 46), (20, 54)))))]")
    (detection,) = found(loaded)
    assert isinstance(detection.shape, Mask)
    assert (detection.shape.left, detection.shape.top) == (20, 10)
    np.testing.assert_array_equal(detection.shape.bitmap, np.eye(4, dtype=bool))


def test_skeletons_and_tags(function):
    elements = "[cvataa.keypoint(5, [1, 2], occluded=True), cvataa.keypoint(6, [3, 4], outside=True)]"
    person, sunny = found(function(f"[cvataa.skeleton(12, {elements}), cvataa.tag(13)]"))
    head, foot = person.shape.elements
    assert (head.label, head.x, head.y, head.occluded, head.outside) == ("head", 1, 2, True, False)
    assert (foot.label, foot.outside) == ("foot", True)
    assert (sunny.label, sunny.shape) == ("sunny", None)


def test_the_function_sees_name_threshold_and_picture(function):
    answer = (
        "[cvataa.rectangle(11, [0, 0, image.width, image.height],"
        " score=context.conf_threshold if context.conf_threshold is not None else 1.0)]"
        " if context.frame_name == 'street.jpg' and image.mode == 'RGB' and not context.conv_mask_to_poly else None"
    )
    loaded = function(answer)
    assert found(loaded)[0].score == 1.0
    assert found(loaded, threshold=0.25)[0].score == 0.25
    assert found(loaded)[0].shape == Rectangle(0, 0, 80, 60)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("[cvataa.rectangle(99, [1, 2, 3, 4])]", "unknown label id 99"),
        ("[cvataa.rectangle(11, [1, 2, 3, 4], id=1)]", "a preset id"),
        ("[cvataa.rectangle(11, [1, 2, 3, 4], source='auto')]", "a preset source"),
        ("[models.LabeledShapeRequest(label_id=11, frame=2, type='points', points=[1, 2])]", "the frame number 2"),
        ("[cvataa.polygon(10, [1, 2, 3, 4, 5, 6])]", "a polygon of the label 'car', allowed: rectangle"),
        ("[cvataa.tag(10)]", "a tag of the label 'car', allowed: rectangle"),
        ("[cvataa.rectangle(13, [1, 2, 3, 4])]", "allowed: tag"),
        ("[cvataa.rectangle(11, [1, 2, 3])]", "got 3 numbers, allowed: 4"),
        ("[cvataa.polygon(11, [1, 2, 3, 4])]", "polygon: got 4 numbers"),
        ("[cvataa.mask(14, [1, 2])]", "a mask of the label 'blob'"),
        ("['car']", "got a str, allowed: LabeledShapeRequest"),
        ("None", "answered with a NoneType"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(func\.py, line"),
        ("[cvataa.skeleton(12, [cvataa.keypoint(5, [1, 2])])]", "a skeleton with 1 elements, allowed: all 2"),
        ("[cvataa.skeleton(12, [cvataa.keypoint(9, [1, 2]), cvataa.keypoint(6, [1, 2])])]", "unknown sublabel id 9"),
        (
            "[cvataa.rectangle(10, [1, 2, 3, 4], attributes=[models.AttributeValRequest(spec_id=9, value='x')])]",
            "unknown attribute id 9",
        ),
        (
            "[cvataa.rectangle(10, [1, 2, 3, 4], attributes=[models.AttributeValRequest(spec_id=1, value='green')])]",
            "the value 'green', which its spec forbids",
        ),
        (
            "[cvataa.rectangle(10, [1, 2, 3, 4], attributes=[models.AttributeValRequest(spec_id=2, value='3')])]",
            "the value '3'",
        ),
    ],
)
def test_the_sdks_rules(function, answer, message):
    with pytest.raises(BadPrediction, match=message):
        found(function(answer))


def test_masks_where_polygons_were_asked_for(function):
    loaded = function("[cvataa.mask(14, [0, 4, 1, 1, 2, 2])]")
    assert len(found(loaded)) == 1
    with pytest.raises(BadPrediction, match="conv_mask_to_poly"):
        found(loaded, masks_as_polygons=True)


FACTORY = SPEC + textwrap.dedent(
    """
    import dataclasses

    @dataclasses.dataclass
    class Function:
        size: int
        name: str = "x"
        device: str = "cpu"
        spec = spec

        def detect(self, context, image):
            return [cvataa.rectangle(11, [0, 0, self.size, len(self.name + self.device)])]

    create = Function
    """
)


def test_a_factory_takes_its_parameters(function):
    assert found(function(None, FACTORY, size=5))[0].shape == Rectangle(0, 0, 5, 4)
    assert found(function(None, FACTORY, size=5, name="abc", device="cuda:0"))[0].shape == Rectangle(0, 0, 5, 9)
    with pytest.raises(ConfigError, match="missing a required argument: 'size'"):
        function(None, FACTORY)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'sise'"):
        function(None, FACTORY, size=5, sise=5)
    with pytest.raises(ConfigError, match="takes no parameters"):
        function("[]", size=5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no 'spec' attribute"),
        ("spec = 1", "spec: got int, allowed: DetectionFunctionSpec, InteractionFunctionSpec, TrackingFunctionSpec"),
        ("def f(:", r"SyntaxError.*func.py, line 1"),
        ("import no_such_thing", "No module named 'no_such_thing'"),
        (SPEC.replace('"thing", 11', '"thing", 10'), "BadFunctionError.*same ID"),
        (SPEC, r"has no detect\(context, image\)"),
        (
            "import cvat_sdk.auto_annotation as a\nspec = a.InteractionFunctionSpec(min_pos_points=1)",
            r"has no detect\(context, pp_image, prompts\)",
        ),
        (
            "import cvat_sdk.auto_annotation as a\nspec = a.TrackingFunctionSpec(supported_shape_types=['rectangle'])",
            r"has no init_tracking_state\(context, pp_image, shape\)",
        ),
    ],
)
def test_what_cannot_be_loaded(function, source, message):
    with pytest.raises(ModelLoadFailed, match=message):
        function(None, source)


def test_modules(tmp_path, monkeypatch):
    (tmp_path / "my_functions").mkdir()
    (tmp_path / "my_functions" / "__init__.py").touch()
    (tmp_path / "my_functions" / "cars.py").write_text(SPEC + "\ndef detect(context, image):\n    return []\n")
    with pytest.raises(ModelNotFound, match="there is no module 'my_functions'"):
        load_model("cvat:my_functions.cars")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_model("cvat:my_functions.cars").labels[0].name == "car"
    with pytest.raises(ModelNotFound, match=r"there is no module 'my_functions\.vans'"):
        load_model("cvat:my_functions.vans")
    with pytest.raises(ModelNotFound, match="there is no such file"):
        load_model(f"cvat:{tmp_path}/none.py")

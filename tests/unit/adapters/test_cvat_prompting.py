"""CVAT's interaction and tracking functions as interactors and trackers of ours."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.contract import Frame, Mask, Points, Polygon, PromptNeeds, Prompts, Rectangle
from agent.errors import BadPrediction
from agent.interaction import size_of
from agent.models.loading import load_model

FRAME = Frame(3, "street.jpg", np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3))

INTERACTION = """
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models
import numpy as np
from cvat_sdk.masks import encode_mask

spec = cvataa.InteractionFunctionSpec(min_pos_points=1, min_neg_points=0, min_bounding_boxes=0)
prepared = []

def preprocess_image(context, image):
    assert isinstance(context, cvataa.InteractionFunctionContext)
    prepared.append(image.size)
    return np.asarray(image)

def detect(context, pp_image, prompts):
    assert isinstance(context, cvataa.InteractionFunctionContext)
    assert isinstance(prompts, cvataa.InteractionPrompts)
    x, y = prompts.pos_points[0]
    mask = np.zeros(pp_image.shape[:2], bool)
    mask[int(y):int(y) + 4, int(x):int(x) + 6 + len(prompts.neg_points)] = True
    score = models.AttributeValRequest(spec_id=0, value="0.93")
    found = [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask), attributes=[score])]
    if prompts.bounding_box is not None:
        (left, top), (right, bottom) = prompts.bounding_box
        found.append(cvataa.InteractionResultShape(type="rectangle", points=[left, top, right, bottom]))
    return found
"""
TRACKING = """
import dataclasses
import cvat_sdk.auto_annotation as cvataa

spec = cvataa.TrackingFunctionSpec(supported_shape_types=["rectangle", "mask", "polygon"])
prepared = []

@dataclasses.dataclass
class State:
    points: list
    steps: int = 0

def preprocess_image(context, image):
    assert isinstance(context, cvataa.TrackingFunctionContext)
    prepared.append(image.size)
    return image

def init_tracking_state(context, pp_image, shape):
    assert isinstance(context, cvataa.TrackingFunctionShapeContext)
    assert context.original_shape_type == shape.type
    return State(shape.points)

def track(context, pp_image, state):
    state.steps += 1
    if state.steps > 2:
        return None
    points = state.points
    if context.original_shape_type != "mask":
        points = [number + state.steps for number in points]
    return cvataa.TrackableShape(type=context.original_shape_type, points=points)
"""


@pytest.fixture
def loaded(tmp_path):
    """Loads a function from its source."""

    def load(source, name="func.py"):
        path = tmp_path / name
        path.write_text(source)
        return load_model(f"cvat:{path}")

    return load


# ------------------------------------------------------------------ interactors


@pytest.mark.parametrize(
    ("spec", "needs"),
    [
        ("min_pos_points=2", PromptNeeds(2, None, "no")),
        ("min_pos_points=0, min_neg_points=1, min_bounding_boxes=1", PromptNeeds(0, 1, "required")),
        ("min_pos_points=1, min_neg_points=0, min_bounding_boxes=0", PromptNeeds(1, 0, "optional")),
    ],
)
def test_what_it_needs(loaded, spec, needs):
    made = loaded(INTERACTION.replace("min_pos_points=1, min_neg_points=0, min_bounding_boxes=0", spec))
    assert (made.kind, made.model.needs) == ("interactor", needs)
    assert made.version.startswith("sha256:")


def test_clicks_and_boxes(loaded):
    model = loaded(INTERACTION).model
    embedding = model.embed(FRAME)
    (mask,) = model.segment(embedding, Prompts(positive=((10.0, 20.0),), negative=((1.0, 1.0),)))
    assert mask.score == 0.93
    assert isinstance(mask.shape, Mask)
    assert (mask.shape.left, mask.shape.top, mask.shape.bitmap.shape) == (10, 20, (4, 7))
    _, box = model.segment(embedding, Prompts(positive=((10.0, 20.0),), box=Rectangle(1, 2, 30, 40)))
    assert (box.shape, box.score) == (Rectangle(1, 2, 30, 40), None)
    assert sys.modules[model._function.__name__].prepared == [(80, 60)]
    assert size_of(embedding) == FRAME.image.nbytes


def test_without_preparation_it_sees_the_picture(loaded):
    source = INTERACTION.replace("def preprocess_image", "def not_this_one").replace(
        "x, y = prompts", "pp_image = np.asarray(pp_image)\n    x, y = prompts"
    )
    model = loaded(source).model
    (mask,) = model.segment(model.embed(FRAME), Prompts(positive=((10.0, 20.0),)))
    assert mask.shape.bitmap.shape == (4, 6)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("1 / 0", r"ZeroDivisionError: division by zero \(func\.py, line \d+\)"),
        ("None", "answered with a NoneType, allowed: a list of shapes"),
        ("[7]", "a None: got the type None, allowed: rectangle"),
        ("[cvataa.InteractionResultShape(type='mask', points=[1, 2])]", "a mask: "),
        ("[cvataa.InteractionResultShape(type='skeleton', points=[])]", "a skeleton: got the type skeleton"),
        (
            "[cvataa.InteractionResultShape(type='points', points=[1, 2],"
            " attributes=[models.AttributeValRequest(spec_id=0, value='high')])]",
            "a confidence of 'high', allowed: 0 to 1",
        ),
    ],
)
def test_answers_that_are_none(loaded, answer, message):
    model = loaded(INTERACTION.replace("    return found", f"    return {answer}")).model
    with pytest.raises(BadPrediction, match=message):
        model.segment(model.embed(FRAME), Prompts(positive=((10.0, 20.0),)))


def test_preparation_that_fails(loaded):
    model = loaded(INTERACTION.replace("    prepared.append(image.size)", "    raise OSError('no')")).model
    with pytest.raises(BadPrediction, match=r"OSError: no \(func\.py, line"):
        model.embed(FRAME)


# ---------------------------------------------------------------------- trackers


def test_shapes_are_followed(loaded):
    made = loaded(TRACKING)
    assert (made.kind, made.model.shape_types) == ("tracker", ["mask", "polygon", "rectangle"])
    bitmap = np.eye(4, dtype=bool)
    shapes = [Rectangle(1, 2, 30, 40), Polygon((1, 2, 3, 4, 5, 0)), Mask(bitmap, 10, 20)]
    states = made.model.begin(FRAME, shapes)
    found = made.model.follow(FRAME, states)
    assert [shape for _, shape in found][:2] == [Rectangle(2, 3, 31, 41), Polygon((2, 3, 4, 5, 6, 1))]
    mask = found[2][1]
    assert (mask.left, mask.top) == (10, 20)
    np.testing.assert_array_equal(mask.bitmap, bitmap)
    found = made.model.follow(FRAME, [state for state, _ in found[:1]])
    assert found[0][1] == Rectangle(3, 4, 32, 42)
    ((_, lost),) = made.model.follow(FRAME, [found[0][0]])
    assert lost is None
    # Each picture was looked at once, however many shapes there are.
    assert len(sys.modules[made.model._function.__name__].prepared) == 4


def test_states_outlive_the_process(loaded, tmp_path):
    made = loaded(TRACKING)
    (state,) = made.model.begin(FRAME, [Rectangle(1, 2, 30, 40)])
    (tmp_path / "state").write_bytes(state)
    script = """
import sys
from pathlib import Path
import numpy as np
from agent.contract import Frame
from agent.models.loading import load_model
folder = Path(sys.argv[1])
model = load_model(f"cvat:{folder}/func.py").model
frame = Frame(4, "b.jpg", np.zeros((60, 80, 3), np.uint8))
print(model.follow(frame, [(folder / "state").read_bytes()])[0][1])
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == str(Rectangle(2, 3, 31, 41)), done.stderr


def test_functions_side_by_side_keep_their_states_apart(loaded):
    one, two = loaded(TRACKING, "one.py"), loaded(TRACKING.replace("points: list", "points: tuple"), "two.py")
    (first,) = one.model.begin(FRAME, [Rectangle(1, 2, 30, 40)])
    (second,) = two.model.begin(FRAME, [Rectangle(5, 6, 30, 40)])
    assert one.model.follow(FRAME, [first])[0][1] == Rectangle(2, 3, 31, 41)
    assert two.model.follow(FRAME, [second])[0][1] == Rectangle(6, 7, 31, 41)


UNPICKLABLE = TRACKING.replace(
    "    return State(shape.points)",
    "    import threading\n    state = State(shape.points)\n    state.lock = threading.Lock()\n    return state",
)


def test_states_that_cannot_be_written_stay_in_the_process(loaded):
    model = loaded(UNPICKLABLE).model
    one, two = model.begin(FRAME, [Rectangle(1, 2, 30, 40), Rectangle(5, 6, 30, 40)])
    assert one != two
    ((again, shape),) = model.follow(FRAME, [two])
    assert (again, shape) == (two, Rectangle(6, 7, 31, 41))
    ((_, shape),) = model.follow(FRAME, [one])
    assert shape == Rectangle(2, 3, 31, 41)
    ((_, shape),) = model.follow(FRAME, [two])
    assert shape == Rectangle(7, 8, 32, 42)
    with pytest.raises(ValueError, match="ended with the process"):
        loaded(UNPICKLABLE).model.follow(FRAME, [one])


@pytest.mark.parametrize("state", [b"", b"X", b"Vnonsense", b"N" + bytes(16)])
def test_states_that_are_none(loaded, state):
    with pytest.raises(ValueError, match="the state"):
        loaded(TRACKING).model.follow(FRAME, [state])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("cvataa.TrackableShape(type='points', points=[1, 2])", "a shape of the type points, it began as rectangle"),
        ("cvataa.TrackableShape(type='rectangle', points=[1, 2])", "a rectangle: got 2 numbers, allowed: 4"),
        ("7", "a shape of the type int, it began as rectangle"),
    ],
)
def test_shapes_that_are_none(loaded, answer, message):
    model = loaded(TRACKING.replace("    state.steps += 1", f"    return {answer}")).model
    states = model.begin(FRAME, [Rectangle(1, 2, 30, 40)])
    with pytest.raises(BadPrediction, match=message):
        model.follow(FRAME, states)


def test_without_preparation_it_sees_each_picture(loaded):
    model = loaded(TRACKING.replace("def preprocess_image", "def not_this_one")).model
    states = model.begin(FRAME, [Rectangle(1, 2, 30, 40)])
    assert model.follow(FRAME, states)[0][1] == Rectangle(2, 3, 31, 41)
    assert not any(isinstance(shape, Points) for _, shape in model.follow(FRAME, states))

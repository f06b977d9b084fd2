"""Functions that the official client has made, served by its agent and by ours: people get the same answers."""

import pytest

from agent.settings.tables import ModelSettings
from tests.support.material import make_image_task
from tests.support.official import caller, made_twice, served

FUNCTIONS = {
    "detector": """
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models
import numpy as np
from cvat_sdk.masks import encode_mask

color = cvataa.select_attribute_spec("color", 7, ["red", "blue"])
spec = cvataa.DetectionFunctionSpec(labels=[
    cvataa.label_spec("car", 5, type="rectangle", attributes=[color]),
    cvataa.label_spec("cat", 6, type="mask"),
    cvataa.label_spec("scene", 7, type="tag"),
    cvataa.skeleton_label_spec("pose", 8, [cvataa.keypoint_spec("head", 1), cvataa.keypoint_spec("foot", 2)]),
    cvataa.label_spec("unmapped", 9),
])

def detect(context, image):
    mask = np.zeros((image.height, image.width), bool)
    mask[10:30, 20:50] = True
    assert context.conf_threshold in (0.25, None) and not context.conv_mask_to_poly
    return [
        cvataa.rectangle(5, [1.5, 2, 30, 40], attributes=[models.AttributeValRequest(spec_id=7, value="blue")]),
        cvataa.rectangle(5, [4, 5, 30, 40], rotation=30, occluded=True, z_order=2),
        cvataa.mask(6, encode_mask(mask)),
        cvataa.tag(7),
        cvataa.skeleton(8, [cvataa.keypoint(1, [10, 20]), cvataa.keypoint(2, [15, 25], outside=True)]),
        cvataa.polyline(9, [1, 2, 3, 4]) if hasattr(cvataa, "polyline") else cvataa.shape(
            9, type="polyline", points=[1, 2, 3, 4]),
    ]
""",
    "interactor": """
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models
import numpy as np
from cvat_sdk.masks import encode_mask

spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

def preprocess_image(context, image):
    return np.asarray(image)

def detect(context, pp_image, prompts):
    mask = np.zeros(pp_image.shape[:2], bool)
    for x, y in prompts.pos_points:
        mask[int(y) - 5:int(y) + 5, int(x) - 5:int(x) + 5] = True
    if prompts.bounding_box:
        (left, top), (right, bottom) = prompts.bounding_box
        mask[int(top):int(bottom), int(left):int(right)] = True
    for x, y in prompts.neg_points:
        mask[int(y), int(x)] = False
    score = [models.AttributeValRequest(spec_id=0, value="0.93")]
    return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask), attributes=score)]
""",
    "tracker": """
import cvat_sdk.auto_annotation as cvataa

spec = cvataa.TrackingFunctionSpec(supported_shape_types=["rectangle", "mask"])

def preprocess_image(context, image):
    return image

def init_tracking_state(context, pp_image, shape):
    return {"points": shape.points, "steps": 0}

def track(context, pp_image, state):
    state["steps"] += 1
    if context.original_shape_type == "mask":
        return cvataa.TrackableShape(type="mask", points=state["points"])
    if state["steps"] == 3:
        return None
    return cvataa.TrackableShape(type="rectangle", points=[number + state["steps"] for number in state["points"]])
""",
}
LABELS = [
    {"name": "car", "type": "rectangle", "attributes": [
        {"name": "color", "mutable": False, "input_type": "select", "values": ["red", "blue"], "default_value": "red"},
    ]},
    {"name": "cat", "type": "mask"},
    {"name": "scene", "type": "tag"},
    {"name": "pose", "type": "skeleton", "attributes": [], "sublabels": [
        {"name": name, "type": "points", "attributes": []} for name in ("head", "foot")
    ], "svg": "".join(
        f'<circle data-type="element node" data-element-id="{n}" data-node-id="{n}" data-label-name="{name}"></circle>'
        for n, name in enumerate(("head", "foot"), 1)
    )},
]  # fmt: skip
MASK = {"type": "mask", "points": [0, 200, 10, 10, 29, 19]}
BOX = {"type": "rectangle", "points": [10, 20, 30, 40]}


def detections(call, task):
    yield call(task=task, frame=1, threshold=0.25)
    yield call(task=task, frame=2)
    yield call(task=task, frame=2, threshold=0.25, mapping={"car": {"name": "car"}})
    yield call(task=task, frame=2, roi=[10, 10, 200, 200])


def clicks(call, task):
    yield call(task=task, frame=1, pos_points=[[50, 60]], neg_points=[[51, 61]], obj_bbox=[])
    yield call(task=task, frame=1, pos_points=[[50, 60], [90, 60]], neg_points=[], obj_bbox=[])
    yield call(task=task, frame=2, pos_points=[], neg_points=[], obj_bbox=[[10, 20], [30, 40]])
    yield call(task=task, frame=2, pos_points=[[50, 60]], obj_bbox=[], roi=[20, 30, 200, 180])


def tracks(call, task):
    states = call(task=task, frame=0, shapes=[BOX, MASK])["states"]
    for frame in (1, 2, 3):
        answer = call(task=task, frame=frame, states=states)
        states = answer["states"]
        yield answer["shapes"]


ASKED = {"detector": detections, "interactor": clicks, "tracker": tracks}


@pytest.fixture
def make(sandbox):
    with made_twice(sandbox) as making:
        yield making


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_the_same_answers(sandbox, session, make, kind, tmp_path):
    file = tmp_path / f"{kind}.py"
    file.write_text(FUNCTIONS[kind])
    theirs, ours = make(kind, "--function-file", file)
    task = make_image_task(session, count=4, labels=LABELS)
    with served(sandbox, ModelSettings(kind, f"cvat:{file}", function_id=ours), tmp_path) as client:
        answers = {}
        for function in (theirs, ours):
            answers[function] = list(ASKED[kind](caller(client, function), task))
            if kind == "detector":
                client.put(f"/api/tasks/{task}/annotations", json={})
                order = {"function": str(function), "task": task, "threshold": 0.25}
                assert client.lambda_request(order)["status"] == "finished"
                found = client.get(f"/api/tasks/{task}/annotations").json()
                answers[function].append([_without_ids(found[part]) for part in ("tags", "shapes")])
    assert answers[ours] == answers[theirs]
    assert answers[ours]


def _without_ids(items):
    """What does not depend on the order in which the server has stored it."""
    plain = [{k: v for k, v in item.items() if k != "id"} for item in items]
    for item in plain:
        item["elements"] = _without_ids(item.get("elements", []))
    return sorted(plain, key=str)

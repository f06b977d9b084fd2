"""Our models handed to the official client: its agent serves them, and people get what our own door answers."""

import numpy as np
import pytest

from agent.settings.tables import ModelSettings
from tests.support.material import make_image_task
from tests.support.official import caller, made_twice, served
from tests.support.onnx_graphs import constant_graph, sam_pair

NAMES = ["car", "bus", "cat"]
LABELS = [{"name": name, "type": "any"} for name in NAMES]
BOX = {"type": "rectangle", "points": [60, 50, 120, 110]}


def detections(call, task):
    yield call(task=task, frame=1, threshold=0.25)
    yield call(task=task, frame=2)


def clicks(call, task):
    yield call(task=task, frame=1, pos_points=[[100, 100]], neg_points=[], obj_bbox=[])
    yield call(task=task, frame=1, pos_points=[[100, 100]], neg_points=[[70, 60]], obj_bbox=[])
    yield call(task=task, frame=2, pos_points=[], neg_points=[], obj_bbox=[[60, 50], [220, 190]], roi=[9, 9, 300, 220])


def tracks(call, task):
    states = call(task=task, frame=0, shapes=[BOX, {**BOX, "points": [150, 90, 210, 150]}])["states"]
    for frame in (1, 2, 3):
        answer = call(task=task, frame=frame, states=states)
        states = answer["states"]
        yield answer["shapes"]


ASKED = {"detector": detections, "interactor": clicks, "tracker": tracks}


def graph(folder):
    rows = np.zeros((7, 84), np.float32)
    rows[:, 0] = (32, 32, 16, 24, 0.1, 0.2, 0.7)
    rows[:, 9] = (20, 40, 12, 12, 0.4, 0.1, 0.1)
    return constant_graph(folder / "yolo.onnx", {"o": rows}, metadata={"names": str(dict(enumerate(NAMES)))})


def reference(kind, folder, request):
    """(what cvat-cli is told, what our service is told) of a model of a kind."""
    if kind == "interactor":
        encoder, decoder = sam_pair(folder)
        return [f"model=str:local:{encoder}", f"decoder=str:{decoder}"], (f"local:{encoder}", {"decoder": str(decoder)})
    if kind == "tracker":
        weights = request.getfixturevalue("assets") / "weights"
        files = {"backbone": "nanotrackv2_backbone_dyn.onnx", "head": "nanotrackv2_head_sim.onnx"}
        options = {name: str(weights / file) for name, file in files.items()}
        told = [f"{name}=str:{value}" for name, value in options.items()]
        return ["model=str:opencv:nanotrack", *told], ("opencv:nanotrack", options)
    # A composition, by its id: what cannot be written on a command line.
    single = {"model": f"local:{graph(folder)}"}
    config = folder / "service.toml"
    config.write_text(
        f'[[models]]\nid = "one"\nmodel = "{single["model"]}"\n'
        '[[models]]\nid = "both"\nmodel = "ensemble:"\noptions = { of = ["one", "one"], iou = 0.5 }\n'
    )
    return [f"config=str:{config}", "model=str:both"], ("ensemble:", {"of": [single, single], "iou": 0.5})


@pytest.fixture
def make(sandbox):
    with made_twice(sandbox) as making:
        yield making


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ASKED)
def test_their_agent_answers_as_our_door_does(sandbox, session, make, kind, tmp_path, request):
    told, (name, options) = reference(kind, tmp_path, request)
    words = [word for part in told for word in ("-p", part)]
    theirs, ours = make(kind, "--function-module", "adapters.as_function", *words)
    task = make_image_task(session, count=4, labels=LABELS)
    with served(sandbox, ModelSettings(kind, name, function_id=ours, options=options), tmp_path) as client:
        there, here = (list(ASKED[kind](caller(client, function), task)) for function in (theirs, ours))
    assert all(here)
    if kind == "tracker":  # their agent looks at original pictures, ours at compressed ones
        there, here = ([shape["points"] for shapes in answers for shape in shapes] for answers in (there, here))
        assert np.shape(here) == (6, 4)
        np.testing.assert_allclose(there[:2], here[:2], atol=2)
        np.testing.assert_allclose(there, here, atol=20)
    else:
        assert there == here


def test_what_cannot_be_a_function(assets):
    from adapters.as_function import create
    from agent.errors import ModelLoadFailed

    with pytest.raises(ModelLoadFailed, match="is of the kind reid, allowed: detector, interactor, tracker"):
        create(f"local:{assets}/weights/osnet_x0_25_msmt17.onnx", kind="reid")

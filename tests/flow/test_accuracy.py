"""Boxes that come back from the server are as good as the model's own, whatever way the frames took."""

import pytest

from agent.contract import Context, Frame
from agent.cvat.annotations_api import get_annotations
from agent.cvat.decode import decode_picture
from agent.cvat.work import find_work
from agent.labels.maps import load_label_map
from agent.models.loading import load_model
from agent.options import Options, Target
from agent.runs.running import Surroundings, start
from tests.support.coco import accuracy, load_ground_truth
from tests.support.material import make_task, make_video_task, number_of

THRESHOLD = 0.01
MODELS = {"local": "local:{weights}/deimv2_atto_coco_320.onnx", "hf": "hf:{weights}/deimv2_atto_coco_hf"}


@pytest.fixture(scope="module")
def truth(assets):
    return load_ground_truth(assets / "media" / "coco_val")


@pytest.fixture(scope="module")
def offline(truth, assets):
    """Accuracy of a model on the picture files themselves, by reference; computed once."""
    known = {}

    def measure(reference):
        if reference not in known:
            loaded, boxes = load_model(reference, device="cpu"), {}
            for number, name in enumerate(truth.names):
                frame = Frame(number, name, decode_picture(truth.path(name).read_bytes()))
                (found,) = loaded.model.detect([frame], Context(threshold=THRESHOLD))
                boxes[name] = [
                    (d.label, d.score, (d.shape.left, d.shape.top, d.shape.right, d.shape.bottom))
                    for d in found
                    if d.score >= THRESHOLD
                ]
            known[reference] = accuracy(truth, boxes)
        return known[reference]

    return measure


@pytest.mark.timeout(300)
@pytest.mark.parametrize("segment_size", [None, 17], ids=["one job", "several jobs"])
@pytest.mark.parametrize("kind", MODELS)
def test_boxes_read_back_are_the_models_own(sandbox, session, truth, offline, assets, tmp_path, kind, segment_size):
    reference = MODELS[kind].format(weights=assets / "weights")
    labels = [{"name": name, "type": "rectangle"} for name in load_label_map("coco-80").names]
    files = [truth.path(name) for name in truth.names]
    task = make_task(session, files, labels=labels, segment_size=segment_size, chunk_size=10)
    around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3")
    options = Options(model=reference, device="cpu", threshold=THRESHOLD, quality="original")
    report = start(Target("task", task), options, around)
    assert report.done == len(files)
    (work,) = find_work(session, Target("task", task))
    assert len(work.jobs) == (1 if segment_size is None else 5)
    names = {label.id: label.name for label in work.labels}
    stored = [shape for job in work.jobs for shape in get_annotations(session, job.id)["shapes"]]
    frames = {frame: job.name_of(frame) for job in work.jobs for frame in job.frames}
    boxes = {name: [] for name in truth.names}
    for shape in stored:
        boxes[frames[shape["frame"]]].append((names[shape["label_id"]], shape["score"], tuple(shape["points"])))
    assert accuracy(truth, boxes).map == pytest.approx(offline(reference).map, abs=0.001)
    assert offline(reference).map > 0.2


FUNCTION = """
import sys
sys.path.insert(0, {root!r})
import cvat_sdk.auto_annotation as cvataa
import numpy as np
from tests.support.material import number_of

spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    number = number_of(np.asarray(image))
    return [cvataa.rectangle(0, [0, 0, 2 + number, 2 + number])]
"""


@pytest.mark.parametrize(
    ("cut", "expected"),
    [({}, [*range(30)]), ({"start_frame": 10, "stop_frame": 79, "frame_step": 3}, [*range(10, 80, 3)])],
    ids=["whole", "step 3, start 10"],
)
def test_boxes_of_a_video_task_are_on_the_right_frames(session, tmp_path, cut, expected):
    """The model writes the number that it sees into the box, which must stand on the frame of that number."""
    from tests.conftest import ROOT

    assert number_of is not None
    function = tmp_path / "numbers.py"
    function.write_text(FUNCTION.format(root=str(ROOT)))
    frames = 90 if cut else 30
    task = make_video_task(session, frames=frames, segment_size=10, overlap=3, chunk_size=6, **cut)
    around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3")
    start(Target("task", task), Options(model=f"cvat:{function}"), around)
    stored = session.request("GET", f"/api/tasks/{task}/annotations").json()["shapes"]
    seen = {shape["frame"]: round(shape["points"][2]) - 2 for shape in stored}
    assert len(stored) == len(expected)
    assert seen == dict(enumerate(expected))

"""Real weights behind the agent queue: what people get is what the models say, and what `annotate` would have made."""

import numpy as np
import pytest
from cvat_sdk.masks import decode_mask

from agent.cli import main
from agent.cvat.decode import decode_picture
from agent.settings.tables import ModelSettings
from tests.support.coco import load_ground_truth
from tests.support.queue import serving

THRESHOLD = 0.4


@pytest.fixture
def served(sandbox, assets):
    weights = assets / "weights"
    networks = ("nanotrackv3_backbone_dyn.onnx", "nanotrackv3_head.onnx")
    backbone, head = (str(weights / name) for name in networks)
    clicks = {"decoder": str(weights / "promptseg_decoder.onnx")}
    models = [
        ModelSettings("boxes", f"local:{weights / 'deimv2_atto_coco_320.onnx'}", threshold=THRESHOLD, device="cpu"),
        ModelSettings("clicks", f"local:{weights / 'promptseg_encoder_384.onnx'}", options=clicks, device="cpu"),
        ModelSettings("nano", "opencv:nanotrack", options={"backbone": backbone, "head": head}),
    ]
    with serving(sandbox, models) as found:
        yield found


@pytest.fixture(scope="module")
def truth(assets):
    return load_ground_truth(assets / "media/coco_val")


def content(shapes):
    kept = ("type", "frame", "label_id", "points", "score", "source", "attributes")
    return sorted([shape[name] for name in kept] for shape in shapes)


def test_a_task_as_the_command_line_annotates_it(served, truth, assets, tmp_path):
    names = sorted(truth.names)[:12]
    labels = [{"name": name, "type": "rectangle"} for name in truth.labels]
    files = [(name, truth.path(name).read_bytes()) for name in names]
    task, other = (served.client.task(files, labels=labels, segment_size=5) for _ in range(2))
    assert served.ended(served.order(task, "boxes"), 100)["status"] == "finished"
    words = ["annotate", "--task", str(other), "--model", f"local:{assets / 'weights/deimv2_atto_coco_320.onnx'}"]
    words += ["--threshold", str(THRESHOLD), "--device", "cpu", "--ledger", str(tmp_path / "ledger.sqlite3")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--server-host", served.sandbox.url, "--auth", "bot:secret"])
    assert ended.value.code == 0
    ids = dict(zip(served.client.labels(other).values(), served.client.labels(task).values(), strict=True))
    ours, theirs = served.shapes(task), served.shapes(other)
    assert len(ours) > 20
    assert content(ours) == content({**shape, "label_id": ids[shape["label_id"]]} for shape in theirs)
    # A person who asks for one of the frames gets the same.
    (answer,) = [served.call("boxes", task=task, frame=7).json()["shapes"]]
    alone = sorted(shape["points"] for shape in ours if shape["frame"] == 7)
    assert np.allclose(sorted(shape["points"] for shape in answer), alone, atol=2)


def test_an_interactor_marks_what_is_in_a_box(served, truth):
    shares = []
    for name in truth.names[:6]:
        file = truth.path(name).read_bytes()
        height, width = decode_picture(file).shape[:2]
        task = served.client.task([(name, file)])
        (_, _, (left, top, right, bottom)), bitmap = max(truth.masks(name), key=lambda found: found[1].sum())
        box = [[left, top], [right, bottom]]
        (shape,) = served.call("clicks", task=task, frame=0, obj_bbox=box).json()["shapes"]
        got = decode_mask(shape["points"], image_width=width, image_height=height)
        shares.append((got & bitmap).sum() / (got | bitmap).sum())
    assert np.median(shares) > 0.5, shares


def test_a_tracker_keeps_to_its_object(served, assets):
    folder = assets / "media/sot/bag"
    corners = np.loadtxt(folder / "groundtruth.txt", delimiter=",")[:12]
    boxes = [(row[0::2].min(), row[1::2].min(), row[0::2].max(), row[1::2].max()) for row in corners]
    files = sorted(folder.rglob("*.jpg"))[:12]
    task = served.client.task([(file.name, file.read_bytes()) for file in files])
    first = {"type": "rectangle", "points": [float(number) for number in boxes[0]]}
    states = served.call("nano", task=task, frame=0, shapes=[first]).json()["states"]
    shares = []
    for frame in range(1, len(files)):
        answer = served.call("nano", task=task, frame=frame, states=states).json()
        states = answer["states"]
        shares.append(iou(answer["shapes"][0]["points"], boxes[frame]))
    assert np.mean(shares) > 0.7, shares


def iou(one, other):
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    both = max(0, right - left) * max(0, bottom - top)
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)

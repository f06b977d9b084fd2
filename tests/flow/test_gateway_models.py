"""Real weights behind the gateway, asked by a sandbox: what arrives is what the model says."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from cvat_sdk.masks import decode_mask

from agent.contract import Context, Frame
from agent.cvat.decode import decode_picture
from agent.models.loading import load_model
from agent.settings.tables import ModelSettings
from tests.support.coco import load_ground_truth
from tests.support.gateway import staged
from tests.support.tasks import Client


@pytest.fixture(scope="module")
def stage(assets):
    weights = assets / "weights"
    models = [
        ModelSettings("detr", f"local:{weights / 'deimv2_atto_coco_320.onnx'}", threshold=0.4, device="cpu"),
        ModelSettings("masks", f"local:{weights / 'yolov8n-seg_int8.onnx'}", device="cpu"),
        ModelSettings(
            "clicks",
            f"local:{weights / 'promptseg_encoder_384.onnx'}",
            options={"decoder": str(weights / "promptseg_decoder.onnx")},
            device="cpu",
        ),
        ModelSettings("mil", "opencv:mil"),
        ModelSettings(
            "nano",
            "opencv:nanotrack",
            options={
                "backbone": str(weights / "nanotrackv3_backbone_dyn.onnx"),
                "head": str(weights / "nanotrackv3_head.onnx"),
            },
        ),
        ModelSettings("people", f"local:{weights / 'osnet_x0_25_msmt17.onnx'}", options={"kind": "reid"}),
    ]
    with staged(models) as found:
        yield found


@pytest.fixture(scope="module")
def client(stage):
    with Client(stage.sandbox, "bot", "secret") as found:
        yield found


@pytest.fixture(scope="module")
def truth(assets):
    return load_ground_truth(assets / "media/coco_val")


def call(client, function, **body):
    answer = client.post(f"/api/lambda/functions/{function}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def iou(one, other):
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    shared = max(0, right - left) * max(0, bottom - top)
    return shared / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared)


def test_all_kinds_are_listed(client):
    listed = {row["id"]: row["kind"] for row in client.get("/api/lambda/functions").json()}
    kinds = ["detector", "detector", "interactor", "tracker", "tracker", "reid"]
    assert listed == dict(zip(["detr", "masks", "clicks", "mil", "nano", "people"], kinds, strict=True))


def test_a_detector_says_what_the_model_says(client, truth, assets):
    names = sorted(truth.names)[:12]
    labels = [{"name": name, "type": "rectangle"} for name in truth.labels]
    task = client.task([(name, truth.path(name).read_bytes()) for name in names], labels=labels)
    ended = client.lambda_request({"function": "detr", "task": task})
    assert ended["status"] == "finished", ended
    ids = {number: name for name, number in client.labels(task).items()}
    got = defaultdict(set)
    for shape in client.get(f"/api/tasks/{task}/annotations").json()["shapes"]:
        got[shape["frame"]].add((ids[shape["label_id"]], *shape["points"]))
    model = load_model(f"local:{assets / 'weights/deimv2_atto_coco_320.onnx'}", device="cpu").model
    assert sum(map(len, got.values())) > 20
    for number, name in enumerate(names):
        frame = Frame(0, name, decode_picture(truth.path(name).read_bytes()))
        (found,) = model.detect([frame], Context(0.4))
        sure = [d for d in found if d.score >= 0.4]
        assert len(got[number]) == len(sure)
        for detection in sure:
            box = detection.shape
            points = (box.left, box.top, box.right, box.bottom)
            near = [
                p for label, *p in got[number] if label == detection.label and np.abs(np.subtract(p, points)).max() < 6
            ]
            assert near, f"{name}: {detection}"


def test_masks_arrive_as_masks_or_polygons(client, truth):
    name = "000000241668.jpg"
    labels = [{"name": label, "type": "any"} for label in truth.labels]
    task = client.task([(name, truth.path(name).read_bytes())], labels=labels)
    masks = call(client, "masks", task=task, frame=0)["shapes"]
    polygons = call(client, "masks", task=task, frame=0, conv_mask_to_poly=True)["shapes"]
    assert [shape["label_id"] for shape in masks] == [shape["label_id"] for shape in polygons]
    assert {shape["type"] for shape in masks} == {"mask"}
    assert {shape["type"] for shape in polygons} == {"polygon"}
    for mask, polygon in zip(masks, polygons, strict=True):
        left, top, right, bottom = mask["points"][-4:]
        xs, ys = polygon["points"][0::2], polygon["points"][1::2]
        assert iou((left, top, right + 1, bottom + 1), (min(xs), min(ys), max(xs), max(ys))) > 0.5


def test_an_interactor_marks_what_is_in_a_box(client, truth):
    shares = []
    for name in truth.names[:6]:
        file = truth.path(name).read_bytes()
        height, width = decode_picture(file).shape[:2]
        task = client.task([(name, file)])
        boxes = sorted(truth.masks(name), key=lambda found: -found[1].sum())[:1]
        for (_, _, (left, top, right, bottom)), bitmap in boxes:
            box = [[left, top], [right, bottom]]
            asked = {"task": task, "frame": 0, "pos_points": [], "neg_points": [], "obj_bbox": box}
            (shape,) = call(client, "clicks", **asked)["shapes"]
            got = decode_mask(shape["points"], image_width=width, image_height=height)
            shares.append((got & bitmap).sum() / (got | bitmap).sum())
    assert np.median(shares) > 0.5, shares


@pytest.mark.parametrize("tracker", ["mil", "nano"])
def test_a_tracker_keeps_to_its_object(client, assets, tracker):
    folder = assets / "media/sot/bag"
    corners = np.loadtxt(folder / "groundtruth.txt", delimiter=",")[:12]
    boxes = [(row[0::2].min(), row[1::2].min(), row[0::2].max(), row[1::2].max()) for row in corners]
    files = sorted(folder.rglob("*.jpg"))[:12]
    task = client.task([(file.name, file.read_bytes()) for file in files])
    job = client.jobs(task)[0]["id"]
    states = call(
        client, tracker, job=job, frame=0, shapes=[{"type": "rectangle", "points": [float(n) for n in boxes[0]]}]
    )["states"]
    shares = []
    for frame in range(1, len(files)):
        answer = call(client, tracker, job=job, frame=frame, states=states)
        states = answer["states"]
        (shape,) = answer["shapes"]
        shares.append(iou(shape["points"], boxes[frame]))
    # The bag turns; MIL, which only knows one size, is expected to lose some of it.
    assert np.mean(shares) > {"mil": 0.4, "nano": 0.7}[tracker], shares


def test_a_reidentifier_makes_tracks_of_people(client, assets):
    folder = assets / "media/mot/MOT17-mini/MOT17-05-FRCNN"
    rows = np.loadtxt(folder / "gt/gt.txt", delimiter=",")
    files = sorted((folder / "img1").iterdir())
    task = client.task([(file.name, file.read_bytes()) for file in files])
    label, whose, shapes = client.labels(task)["thing"], {}, []
    for row in rows:
        if row[7] == 1 and row[8] > 0.4:
            frame = int(row[0]) - 1
            points = [float(n) for n in (row[2], row[3], row[2] + row[4], row[3] + row[5])]
            whose[frame, points[0], points[1]] = int(row[1])
            shapes.append({"type": "rectangle", "label_id": label, "frame": frame, "points": points})
    path = f"/api/tasks/{task}/annotations"
    assert client.put(path, json={"shapes": shapes}).status_code == 200
    ended = client.lambda_request({"function": "people", "task": task, "threshold": 0.5, "max_distance": 100})
    assert ended["status"] == "finished", ended
    after = client.get(path).json()
    assert after["shapes"] == []
    people = [
        [whose[s["frame"], s["points"][0], s["points"][1]] for s in track["shapes"] if not s["outside"]]
        for track in after["tracks"]
    ]
    steps = [(one, other) for track in people for one, other in pairwise(track)]
    assert len(steps) > 20
    assert sum(one == other for one, other in steps) / len(steps) > 0.9

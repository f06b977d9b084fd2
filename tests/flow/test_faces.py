"""Faces from the picture to the identity: found with their landmarks, described, and grouped over a whole task.

No trained weights of face recognition are at hand: small networks take their place whose answers are known, loaded
through the same code, and a real detector of faces with five landmarks.
"""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from agent.cli import command
from agent.contract import Context, Frame, Rectangle
from agent.cvat.annotations_api import get_annotations
from agent.cvat.work import find_work
from agent.models.loading import load_model
from agent.options import Target
from tests.support.material import make_task
from tests.support.torch_programs import FaceFinder, Landmarks, MeanColour, script

POINTS = [str(number + 1) for number in range(68)]
PEOPLE = {
    "ann": ((230, 20, 20), (20, 20, 230)),
    "bob": ((20, 200, 20), (230, 20, 20)),
    "eve": ((20, 20, 230), (20, 200, 20)),
}
"""The colours of the left and of the right half of somebody's face."""
FRAMES = (
    {"ann": (0, 0), "bob": (2, 1)},
    {"eve": (3, 3), "ann": (1, 2)},
    {"bob": (0, 3), "eve": (2, 2), "ann": (3, 0)},
    {},
    {"eve": (1, 1)},
)
"""Who is where, in cells of 32 pixels."""
CELL = 32
WHO = {"name": "who", "mutable": False, "input_type": "text", "default_value": "", "values": []}


def skeleton(names):
    """The raw label of a face whose points have names."""
    nodes = "".join(
        f'<circle r="1" cx="{number}" cy="5" data-type="element node" data-element-id="{number}"'
        f' data-node-id="{number}" data-label-name="{name}"></circle>'
        for number, name in enumerate(names, 1)
    )
    points = [{"name": name, "type": "points", "attributes": []} for name in names]
    return {"name": "face", "type": "skeleton", "svg": nodes, "sublabels": points, "attributes": [WHO]}


def drawn(people, shade):
    """A gray picture of 128 x 128 with faces, somewhat darker or lighter than in others."""
    image = np.full((4 * CELL, 4 * CELL, 3), 110, np.uint8)
    for who, (column, row) in people.items():
        face = image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        face[:, : CELL // 2], face[:, CELL // 2 :] = (np.clip(np.array(half) + shade, 0, 255) for half in PEOPLE[who])
    return image


@pytest.fixture
def networks(tmp_path):
    """(detector, descriptors), as files."""
    told = {"names": {0: "face"}, "imgsz": [64, 64], "task": "pose", "kpt_shape": [68, 3], "batch": 1}
    return (
        script(tmp_path / "faces.torchscript", FaceFinder(), metadata=told),
        script(tmp_path / "looks.torchscript", MeanColour(), side=16),
    )


@pytest.fixture
def run(sandbox, tmp_path):
    """Runs a command of cvat-sidecar at the sandbox; its report."""

    def words(*given):
        access = ["--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", tmp_path / "l.sqlite3"]
        report = ["--report", tmp_path / "report.json"]
        done = CliRunner().invoke(command, [str(word) for word in (*given, *access, *report)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads((tmp_path / "report.json").read_text())

    return words


DESCRIBED = ("-p", "kind=reid", "-p", "input_size=int:16", "-p", "mean=[0.5]", "-p", "std=[0.5]")


def people_of(told):
    """{(frame, cell): number} as {who: numbers}."""
    found = {who: set() for who in PEOPLE}
    for number, people in enumerate(FRAMES):
        for who, cell in people.items():
            found[who].add(told[number, cell])
    return found


@pytest.mark.parametrize("form", ["skeleton", "rectangle"])
def test_faces_get_landmarks_and_the_same_number_over_a_task(session, run, networks, tmp_path, form):
    files = []
    for number, people in enumerate(FRAMES):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(drawn(people, 6 * number - 12)).save(files[-1])
    label = skeleton(POINTS) if form == "skeleton" else {"name": "face", "type": "rectangle", "attributes": [WHO]}
    task = make_task(session, files, labels=[label], segment_size=3)
    detector, describer = networks
    run("annotate", "--task", task, "--model", f"local:{detector}", "-p", f"shape={form}", "--threshold", 0.3)
    (work,) = find_work(session, Target("task", task))
    shapes = [shape for job in work.jobs for shape in get_annotations(session, job.id)["shapes"]]
    assert [shape["type"] for shape in shapes] == [form] * sum(map(len, FRAMES))
    if form == "skeleton":
        assert all(len(shape["elements"]) == 68 for shape in shapes)
    # The landmarks of each face are an oval around its middle, the first at the right and the 18th below.
    report = run(
        "enrich", "--task", task, "--gives", "identity", "--attribute", "who", "--label", "face",
        "--model", f"local:{describer}", *DESCRIBED, "--max-distance", 0.2,
    )  # fmt: skip
    assert "identities  3 in 8 shapes" in report["notes"]
    told = {}
    for job in work.jobs:
        for shape in get_annotations(session, job.id)["shapes"]:
            places = np.array(
                [element["points"] for element in shape["elements"]]
                if form == "skeleton"
                else np.reshape(shape["points"], (2, 2))
            )
            middle = (places.min(axis=0) + places.max(axis=0)) / 2
            cell = tuple(int(side) for side in middle // CELL)
            if form == "skeleton":
                np.testing.assert_allclose(places[0], np.add(middle, (12, 0)), atol=0.6)
                np.testing.assert_allclose(places[17], np.add(middle, (0, 8)), atol=0.6)
            told[shape["frame"], cell] = shape["attributes"][0]["value"]
    assert set(told) == {(number, cell) for number, people in enumerate(FRAMES) for cell in people.values()}
    numbers = people_of(told)
    assert all(len(own) == 1 for own in numbers.values()), "each has one number"
    assert len(set.union(*numbers.values())) == 3, "and nobody has that of another"


def test_a_margin_shows_more_of_the_face(session, run, networks, tmp_path):
    """With so much around them all look alike: they differ no more than the gray that they are in."""
    Image.fromarray(drawn(FRAMES[0], 0)).save(tmp_path / "0.png")
    Image.fromarray(drawn(FRAMES[4], 0)).save(tmp_path / "1.png")
    label = {"name": "face", "type": "rectangle", "attributes": [WHO]}
    task = make_task(session, [tmp_path / "0.png", tmp_path / "1.png"], labels=[label])
    detector, describer = networks
    run("annotate", "--task", task, "--model", f"local:{detector}", "-p", "shape=rectangle", "--threshold", 0.3)
    words = ["enrich", "--task", task, "--gives", "identity", "--attribute", "who", "--model", f"local:{describer}"]
    told = [
        run(*words, *DESCRIBED, "--max-distance", 0.3, "--margin", margin, "--dry-run")["notes"] for margin in (0, 2)
    ]
    assert "identities  3 in 3 shapes" in told[0]
    assert "identities  2 in 3 shapes" in told[1], "two are on one frame, which nobody is twice"


def test_real_faces_with_five_landmarks_are_the_same_ones_on_each_picture(session, run, assets, tmp_path):
    """YuNet's four faces of one picture, three times: moved, mirrored and in another light."""
    real = Image.open(assets / "media" / "misc" / "face.jpg").convert("RGB")
    real = real.resize((800, round(800 * real.height / real.width)))
    light = Image.fromarray((np.asarray(real) * 0.9).astype(np.uint8))
    moved = Image.new("RGB", real.size, (90, 90, 90))
    moved.paste(real, (20, 10))
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, picture in zip(files, (real, light, moved), strict=True):
        picture.save(file)
    names = ["right eye", "left eye", "nose", "right mouth corner", "left mouth corner"]
    weights = assets / "weights"
    loaded = load_model(f"local:{weights}/yunet_n_640_640.onnx")
    assert len(loaded.labels[0].sublabels) == len(names)
    task = make_task(session, files, labels=[skeleton([sub.name for sub in loaded.labels[0].sublabels])])
    run("annotate", "--task", task, "--model", f"local:{weights}/yunet_n_640_640.onnx", "--threshold", 0.6)
    report = run(
        "enrich", "--task", task, "--gives", "identity", "--attribute", "who", "--margin", 0.3,
        "--model", f"local:{weights}/osnet_x0_25_msmt17.onnx", "--max-distance", 0.25,
    )  # fmt: skip
    assert "identities  4 in 12 shapes" in report["notes"]
    (work,) = find_work(session, Target("task", task))
    shapes = get_annotations(session, work.jobs[0].id)["shapes"]
    told = {}
    for shape in shapes:
        told.setdefault(shape["frame"], []).append(
            (min(e["points"][0] for e in shape["elements"]), shape["attributes"][0]["value"])
        )
    orders = [[number for _, number in sorted(found)] for _, found in sorted(told.items())]
    assert orders[0] == orders[1] == orders[2], "from left to right the same four"


def test_a_network_of_landmarks_alone_works_on_the_faces_of_a_detector(networks, tmp_path):
    """As PFLD and its kin: (1, 136) numbers for the crop of a face."""
    from agent.compose.named import open_named

    path = script(tmp_path / "landmarks.torchscript", Landmarks(), side=32)
    options = {"head": "landmarks", "input_size": 32, "around": 1.0, "mean": [0.0], "std": [1.0]}
    alone = load_model(f"local:{path}", options=options)
    (label,) = alone.labels
    assert (label.name, [sub.name for sub in label.sublabels]) == ("face", POINTS)
    step = {"model": f"local:{path}", "options": options, "gives": "skeleton"}
    found = {"model": f"local:{networks[0]}", "options": {"shape": "rectangle"}}
    chain = open_named("chain:", device="cpu", options={"of": found, "then": [step]})
    image = drawn({"ann": (1, 2)}, 0)
    image[2 * CELL + 24, CELL : 2 * CELL] = 255  # a bright line, three quarters down
    try:
        ((one,),) = chain.model.detect([Frame(0, "f", image)], Context(0.3))
    finally:
        chain.close()
    places = np.array([(point.x, point.y) for point in one.shape.elements])
    np.testing.assert_allclose(places[:, 0], CELL + (np.arange(68) + 0.5) / 68 * CELL, atol=0.5)
    np.testing.assert_allclose(places[:, 1], 2 * CELL + 24.5, atol=1)
    (found,) = alone.model.detect([Frame(0, "f", image)], Context())
    assert found[0].shape.type == "skeleton"
    assert alone.model.estimate(Frame(0, "f", image), [Rectangle(0, 0, 128, 128)])[0].elements[0].x < 2

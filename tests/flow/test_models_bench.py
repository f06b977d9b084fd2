"""`models bench` against truth on the server."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import command, main
from agent.contract import Context, Frame
from agent.cvat.annotations_api import create
from agent.cvat.decode import decode_picture
from agent.cvat.work import find_work
from agent.errors import ConfigError, LabelMismatch
from agent.labels.maps import load_label_map
from agent.models.loading import load_model
from agent.options import Target
from tests.support.coco import accuracy, load_ground_truth
from tests.support.material import make_image_task, make_task, make_video_task

PICTURES = 24


def bench(sandbox, *words):
    args = ["models", "bench", *words, "--server-host", sandbox.url, "--auth", "bot:secret"]
    return CliRunner().invoke(command, [str(word) for word in args], catch_exceptions=False)


@pytest.fixture(scope="module")
def truth(assets):
    return load_ground_truth(assets / "media" / "coco_val")


@pytest.fixture
def job(session, truth):
    """(task, job) of pictures on which COCO's boxes and masks are drawn."""
    names = truth.names[:PICTURES]
    task = make_task(
        session, [truth.path(name) for name in names], labels=[{"name": n} for n in load_label_map("coco-80").names]
    )
    (work,) = find_work(session, Target("task", task))
    ids = {label.name: label.id for label in work.labels}
    shapes = [
        {"type": "rectangle", "frame": frame, "label_id": ids[label], "points": list(box), "source": "manual"}
        for frame in work.jobs[0].frames  # the server has sorted the files
        for label, _, box in truth.boxes(work.jobs[0].name_of(frame))
    ]
    create(session, work.jobs[0].id, {"tags": [], "shapes": shapes, "tracks": []})
    return task, work.jobs[0].id


def test_it_says_what_a_separate_evaluation_says(sandbox, job, truth, assets):
    reference = f"local:{assets}/weights/yolox_nano_416.onnx"
    model, boxes = load_model(reference, device="cpu").model, {}
    for number, name in enumerate(truth.names[:PICTURES]):
        frame = Frame(number, name, decode_picture(truth.path(name).read_bytes()))
        boxes[name] = [
            (d.label, d.score, (d.shape.left, d.shape.top, d.shape.right, d.shape.bottom))
            for d in model.detect([frame], Context(0.01))[0]
        ]
    done = bench(sandbox, reference, "--task", job[0], "--truth", job[1], "--json", "--device", "cpu")
    (row,) = json.loads(done.stdout)
    assert row["frames"] == PICTURES
    assert row["precision"] == pytest.approx(accuracy(truth, boxes).map, abs=0.02)  # crowds are not among our truth
    assert row["frames_per_second"] > 1
    assert row["failed"] == 0
    assert set(row["by_label"]) <= set(load_label_map("coco-80").names)
    assert any(value > 0.3 for value in row["by_label"].values())


def test_models_beside_each_other_by_the_ids_of_service_toml(sandbox, job, assets, tmp_path):
    weights = assets / "weights"
    config = tmp_path / "service.toml"
    config.write_text(
        f"""
        [[models]]
        id = "nano"
        model = "local:{weights}/yolox_nano_416.onnx"
        [[models]]
        id = "both"
        model = "ensemble:"
        options = {{ of = ["nano", "local:{weights}/yolov5n_640.onnx"] }}
        """
    )
    done = bench(sandbox, "nano", "both", "--truth", job[1], "--config", config, "--device", "cpu")
    header, nano, both, *by_label = done.stdout.splitlines()
    assert header.split() == ["model", "mAP", "mAP50", "masks", "frames/s", "MiB", "failed"]
    assert (nano.split()[0], both.split()[0]) == ("nano", "both")
    assert float(both.split()[1]) > float(nano.split()[1])
    assert any(line.split()[0] == "person" for line in by_label)


def test_masks_have_a_figure_of_their_own(sandbox, session, assets, truth):
    reference = f"local:{assets}/weights/yolov8n-seg_int8.onnx"
    labels = [{"name": name} for name in load_label_map("coco-80").names]
    task = make_task(session, [truth.path(name) for name in truth.names[:2]], labels=labels)
    words = ["annotate", "--task", task, "--model", reference, "--server-host", sandbox.url, "--auth", "bot:secret"]
    run = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert run.exit_code == 0
    (work,) = find_work(session, Target("task", task))
    (row,) = json.loads(bench(sandbox, reference, "--truth", work.jobs[0].id, "--json").stdout)
    # Its own answers above the threshold are the truth here.
    assert row["precision"] > 0.95
    if row["mask_precision"] is not None:
        assert row["mask_precision"] > 0.9


def test_tracks_of_a_finished_video_are_truth_on_each_of_their_frames(sandbox, session, tmp_path):
    task = make_video_task(session, frames=5, labels=[{"name": "thing", "type": "rectangle"}])
    (work,) = find_work(session, Target("task", task))
    shape = {"type": "rectangle", "points": [10, 10, 50, 50], "outside": False, "occluded": False, "attributes": []}
    keyframes = [{**shape, "frame": 0}, {**shape, "frame": 2, "points": [30, 10, 70, 50]}, {**shape, "frame": 4}]
    keyframes[2] |= {"points": [30, 10, 70, 50], "outside": True}
    track = {"frame": 0, "label_id": work.labels[0].id, "group": 0, "source": "manual", "attributes": []}
    create(session, work.jobs[0].id, {"tags": [], "shapes": [], "tracks": [{**track, "shapes": keyframes}]})
    function = tmp_path / "follows.py"
    function.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "import cvat_sdk.auto_annotation as cvataa\n"
        "import numpy as np\n"
        "from tests.support.material import number_of\n"
        "spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec('thing', 0, type='rectangle')])\n"
        "def detect(context, image):\n"
        "    number = number_of(np.asarray(image.convert('RGB')))\n"
        "    left = min(10 + 10 * number, 30)\n"
        "    return [cvataa.rectangle(0, [left, 10, left + 40, 50])] if number < 4 else []\n"
    )
    (row,) = json.loads(bench(sandbox, f"cvat:{function}", "--truth", work.jobs[0].id, "--json").stdout)
    assert row["precision"] == pytest.approx(1.0)
    assert row["by_label"] == {"thing": pytest.approx(1.0)}


def test_what_lies_beside_the_picture_or_nowhere_costs_nothing(sandbox, session, tmp_path):
    """Only what would be uploaded is measured: of shapes over the edge the part in the picture."""
    task = make_image_task(session, count=2, labels=[{"name": "thing"}])
    (work,) = find_work(session, Target("task", task))
    box = {"type": "rectangle", "frame": 0, "label_id": work.labels[0].id, "points": [280, 200, 320, 240]}
    create(session, work.jobs[0].id, {"tags": [], "shapes": [{**box, "source": "manual"}], "tracks": []})
    function = tmp_path / "far.py"
    function.write_text(
        "import cvat_sdk.auto_annotation as cvataa\n"
        "spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec('thing', 0)])\n"
        "def detect(context, image):\n"
        "    yield cvataa.rectangle(0, [500, 500, 509, 509])\n"
        "    yield cvataa.rectangle(0, [float('nan'), 0, 1, 1])\n"
        "    yield cvataa.rectangle(0, [280, 200, 400, 400])\n"
    )
    (row,) = json.loads(bench(sandbox, f"cvat:{function}", "--truth", work.jobs[0].id, "--json").stdout)
    assert row["failed"] == 0, row["why_failed"]
    assert row["precision"] == pytest.approx(1.0)


def test_what_cannot_be_measured(sandbox, session, assets):
    reference = f"local:{assets}/weights/yolox_nano_416.onnx"
    task = make_image_task(session, count=2, labels=[{"name": "person"}])
    (work,) = find_work(session, Target("task", task))
    job = work.jobs[0].id
    for words, message in (
        ((reference, "--truth", job), "the truth has no shapes on these frames"),
        ((reference, "--truth", job, "--task", task + 7), f"it is of task {task}, not {task + 7}"),
        ((reference, "--truth", 9999), "9999"),
    ):
        with pytest.raises(Exception, match=message):
            bench(sandbox, *words)


def test_why_a_model_failed_is_told(sandbox, session, tmp_path):
    task = make_image_task(session, count=2, labels=[{"name": "thing"}])
    (work,) = find_work(session, Target("task", task))
    shape = {"type": "rectangle", "frame": 0, "label_id": work.labels[0].id, "points": [1, 1, 20, 20]}
    create(session, work.jobs[0].id, {"tags": [], "shapes": [shape], "tracks": []})
    function = tmp_path / "weak.py"
    function.write_text(
        "import cvat_sdk.auto_annotation as cvataa\n"
        "spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec('thing', 0, type='rectangle')])\n"
        "def detect(context, image):\n"
        "    raise RuntimeError('this frame is too much for me')\n"
    )
    done = bench(sandbox, f"cvat:{function}", "--truth", work.jobs[0].id)
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"cvat:{function}: it failed on 2 of 2 frames: ")
    assert "too much for me" in last


def test_a_model_that_cannot_be_used_costs_the_others_nothing(sandbox, job, assets, capsys):
    good = f"local:{assets}/weights/yolox_nano_416.onnx"
    words = ("models", "bench", good, "opencv:grabcut", "local:nowhere.onnx", "--truth", str(job[1]))
    with pytest.raises(SystemExit) as ended:
        main([*words, "--device", "cpu", "--server-host", sandbox.url, "--auth", "bot:secret"])
    assert ended.value.code == 4
    said = capsys.readouterr()
    assert said.out.splitlines()[1].startswith(good)
    assert "grabcut" not in said.out
    assert "Error: opencv:grabcut: it is a model of the kind interactor, allowed here: detector" in said.err
    assert "Error: local:nowhere.onnx: there is no such file" in said.err
    told = json.loads(bench(sandbox, "opencv:grabcut", good, "--truth", job[1], "--json", "--device", "cpu").stdout)
    assert ["error" in row for row in told] == [True, False]


FUNCTION = """
import cvat_sdk.auto_annotation as cvataa
import numpy as np

BALLAST = np.ones(MIB << 20, np.uint8)
spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("NAME", 0, type="rectangle")])

def detect(context, image):
    return [cvataa.rectangle(0, [1, 1, 20, 20])]
"""


@pytest.fixture
def small(session):
    """Draws one shape in a job of its own, and gives the job's id."""

    def draw(source="manual", state=None):
        task = make_image_task(session, count=2, labels=[{"name": "thing"}])
        (work,) = find_work(session, Target("task", task))
        shape = {"type": "rectangle", "frame": 0, "label_id": work.labels[0].id, "points": [1, 1, 20, 20]}
        create(session, work.jobs[0].id, {"tags": [], "shapes": [{**shape, "source": source}], "tracks": []})
        if state is not None:
            session.request("PATCH", f"/api/jobs/{work.jobs[0].id}", body={"state": state})
        return work.jobs[0].id

    return draw


def test_memory_can_be_compared_whatever_the_order(sandbox, small, tmp_path):
    names = {}
    for name, mib in (("light", 10), ("heavy", 310)):
        path = tmp_path / f"{name}.py"
        path.write_text(FUNCTION.replace("MIB", str(mib)).replace("NAME", "thing"))
        names[name] = f"cvat:{path}"
    job = small()
    for order in (("light", "heavy"), ("heavy", "light"), ("heavy", "heavy")):
        rows = json.loads(bench(sandbox, *(names[name] for name in order), "--truth", job, "--json").stdout)
        taken = [row["memory"] / 2**20 for row in rows]
        assert min(taken) > 10
        more = 300 * ((order[1] == "heavy") - (order[0] == "heavy"))
        assert taken[1] - taken[0] == pytest.approx(more, abs=60)


def test_labels_that_are_called_otherwise(sandbox, small, tmp_path):
    path, job = tmp_path / "other.py", small()
    path.write_text(FUNCTION.replace("MIB", "1").replace("NAME", "gizmo"))
    words = (f"cvat:{path}", "--truth", job)
    with pytest.raises(LabelMismatch, match=r"--map"):
        bench(sandbox, *words)
    (row,) = json.loads(bench(sandbox, *words, "--map", "gizmo=thing", "--json").stdout)
    assert row["by_label"] == {"thing": pytest.approx(1.0)}


def test_options_of_a_single_model(sandbox, job, assets):
    reference = f"local:{assets}/weights/yolov8n-seg_int8.onnx"
    words = ("--truth", job[1], "-p", "shape=square", "--device", "cpu")
    with pytest.raises(ConfigError, match="shape"):
        bench(sandbox, reference, *words)
    with pytest.raises(ConfigError, match=r"-p shape: got 2 models, allowed: with one REF"):
        bench(sandbox, reference, reference, *words)


def test_what_may_be_no_truth_is_warned_of(sandbox, small, tmp_path):
    path = tmp_path / "model.py"
    path.write_text(FUNCTION.replace("MIB", "1").replace("NAME", "thing"))
    done = bench(sandbox, f"cvat:{path}", "--truth", job := small("auto"), "--json")
    assert f"Warning: job {job} is 'new', not 'completed'" in done.stderr
    assert f"Warning: job {job}: all its 1 shapes and tracks are models' own (source auto)" in done.stderr
    assert json.loads(done.stdout)
    assert "Warning" not in bench(sandbox, f"cvat:{path}", "--truth", small("manual", "completed")).stderr

"""`annotate` from outside, against a running sandbox with the real SDK: what comes back from the server is checked."""

import json

import numpy as np
import pytest
from PIL import Image

from agent import preview
from agent.cli import main
from agent.cvat.annotations_api import create, get_annotations
from agent.cvat.work import find_work
from agent.domain import Roi
from agent.labels.maps import load_label_map
from agent.ledger.ledger import Ledger, default_path
from agent.options import Target
from agent.shapes.geometry import polygon_area
from tests.support.material import make_image_task, make_task

FUNCTION = '''
"""Finds one box a frame, whose place tells the frame's size; and fails where it is told to."""
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models

spec = cvataa.DetectionFunctionSpec(labels=[
    cvataa.label_spec("thing", 0, type="rectangle"), cvataa.label_spec("scene", 1, type="tag"),
    cvataa.label_spec("unknown", 2, type="rectangle"),
])
BAD = {BAD!r}

def detect(context, image):
    if any(name in context.frame_name for name in BAD):
        raise RuntimeError("this frame is too much for me")
    return [cvataa.rectangle(0, [1, 2, image.width - 3, image.height - 4]), cvataa.tag(1),
            cvataa.rectangle(2, [0, 0, 5, 5])]
'''


@pytest.fixture
def function(tmp_path):
    """A model reference; `function(bad=[names])` fails on frames whose name has one of these in it."""

    def write(bad=()):
        path = tmp_path / f"function{len(bad)}.py"
        path.write_text(FUNCTION.replace("{BAD!r}", repr(list(bad))))
        return f"cvat:{path}"

    return write


@pytest.fixture
def task(session):
    return make_image_task(
        session, count=9, segment_size=3, labels=[{"name": "thing"}, {"name": "scene", "type": "tag"}]
    )


def run(sandbox, *args):
    """The exit code."""
    with pytest.raises(SystemExit) as ended:
        main([args[0], *map(str, args[1:]), "--server-host", sandbox.url, "--auth", "bot:secret"])
    return ended.value.code


def stored(session, task):
    """(shapes, tags) of a task's jobs."""
    (work,) = find_work(session, Target("task", task))
    found = [get_annotations(session, job.id) for job in work.jobs]
    return [s for a in found for s in a["shapes"]], [t for a in found for t in a["tags"]]


def test_a_task_of_several_jobs(sandbox, session, task, function, tmp_path, capsys):
    report = tmp_path / "out" / "report.json"
    assert run(sandbox, "annotate", "--task", task, "--model", function(), "--report", report) == 0
    shapes, tags = stored(session, task)
    assert sorted(shape["frame"] for shape in shapes) == list(range(9))
    assert sorted(tag["frame"] for tag in tags) == list(range(9))
    assert {shape["source"] for shape in shapes} == {"auto"}
    values = json.loads(report.read_text())
    assert values["frames"] == {"total": 9, "done": 9, "skipped": {}}
    assert values["annotations"] == {"thing": 9, "scene": 9}
    assert values["dropped"]["unknown"]["count"] == 9
    printed = capsys.readouterr().out
    assert "9 of 9 annotated" in printed
    assert f"runs undo {values['run']}" in printed


def test_a_job_alone(sandbox, session, task, function):
    (work,) = find_work(session, Target("task", task))
    assert run(sandbox, "annotate", "--job", work.jobs[1].id, "--model", function()) == 0
    assert sorted(shape["frame"] for shape in stored(session, task)[0]) == [3, 4, 5]


def test_a_project(sandbox, session, function):
    reply = session.request("POST", "/api/projects", body={"name": "p", "labels": [{"name": "thing"}]})
    project = reply.json()["id"]
    tasks = [make_image_task(session, count=2, project=project, labels=None) for _ in range(2)]
    assert run(sandbox, "annotate", "--project", project, "--model", function()) == 0
    for task in tasks:
        assert sorted(shape["frame"] for shape in stored(session, task)[0]) == [0, 1]


def test_bad_frames_are_skipped_and_told(sandbox, session, task, function, tmp_path):
    report = tmp_path / "report.json"
    names = [frame_name(session, task, 4)]
    assert run(sandbox, "annotate", "--task", task, "--model", function(names), "--report", report) == 1
    assert sorted(shape["frame"] for shape in stored(session, task)[0]) == [0, 1, 2, 3, 5, 6, 7, 8]
    (reason,) = json.loads(report.read_text())["frames"]["skipped"].values()
    assert "too much for me" in reason


def test_too_many_bad_frames_end_the_run_and_keep_what_was_done(sandbox, session, task, function, capsys):
    names = [frame_name(session, task, frame) for frame in (5, 6, 7)]
    assert run(sandbox, "annotate", "--task", task, "--model", function(names), "--max-bad-frames", 2) == 4
    assert "more than --max-bad-frames 2" in capsys.readouterr().err
    with Ledger() as ledger:
        (record,) = ledger.runs()
    assert record.status == "failed"
    before = len(stored(session, task)[0])
    assert before >= 5, "what was finished has been uploaded"
    assert run(sandbox, "runs", "resume", record.id) == 4, "they are tried again, and are still too many"
    assert "(--leave-skipped goes on without them)" in capsys.readouterr().err
    assert run(sandbox, "runs", "resume", record.id, "--leave-skipped") == 1
    assert sorted(shape["frame"] for shape in stored(session, task)[0]) == [0, 1, 2, 3, 4, 8]


def test_a_model_that_always_fails_is_exit_4(sandbox, session, task, function, capsys):
    assert run(sandbox, "annotate", "--task", task, "--model", function([".jpg"])) == 4
    assert "none of the 9 frames" in capsys.readouterr().err


def frame_name(session, task, frame):
    return session.request("GET", f"/api/tasks/{task}/data/meta").json()["frames"][frame]["name"]


@pytest.mark.parametrize(
    ("which", "frames"),
    [("0-2,7", [0, 1, 2, 7]), ("every:4", [0, 4, 8]), ("empty", [0, 1, 2, 3, 4, 5, 6, 7])],
)
def test_frames_are_selected(sandbox, session, task, function, which, frames):
    (work,) = find_work(session, Target("task", task))
    label = next(label for label in work.labels if label.name == "scene").id
    create(session, work.jobs[2].id, {"tags": [{"frame": 8, "label_id": label}]})
    assert run(sandbox, "annotate", "--task", task, "--model", function(), "--frames", which) == 0
    assert sorted(shape["frame"] for shape in stored(session, task)[0]) == frames


def test_ranges_that_are_cut_are_told(sandbox, session, task, function, capsys):
    assert run(sandbox, "annotate", "--task", task, "--model", function(), "--frames", "7-1000") == 0
    assert sorted(shape["frame"] for shape in stored(session, task)[0]) == [7, 8]
    assert "--frames 7-1000: there are the frames 0 to 8 only" in capsys.readouterr().err
    assert run(sandbox, "annotate", "--task", task, "--model", function(), "--frames", "7-8") == 0
    assert "there are the frames" not in capsys.readouterr().err


def test_where_all_is_annotated_there_is_nothing_to_do(sandbox, session, task, function, tmp_path, capsys):
    words = ("annotate", "--task", task, "--model", function())
    assert run(sandbox, *words, "--frames", "0-2") == 0
    capsys.readouterr()
    report = tmp_path / "report.json"
    assert run(sandbox, *words, "--frames", "empty+0-2", "--report", report) == 0
    said = capsys.readouterr()
    assert said.out.startswith("nothing     frames: 'empty+0-2' chooses none of the 9 frames")
    assert "have annotations already" in said.out
    assert json.loads(report.read_text())["run"] is None
    assert len(stored(session, task)[0]) == 3
    for wrong in ("500", "empty+500", "every:5+1-3"):
        assert run(sandbox, *words, "--frames", wrong) == 2, wrong
        assert capsys.readouterr().err.startswith("Error: ")


@pytest.mark.parametrize("option", ["--report", "--preview"])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(
    sandbox, session, task, function, option, capsys
):
    assert run(sandbox, "annotate", "--task", task, "--model", function(), option, "/proc/r.json") == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"Error: {option} /proc/r.json: cannot be written: ")
    assert stored(session, task) == ([], [])


def test_a_report_that_is_looked_at_before_is_not_made_or_emptied(sandbox, session, task, function, tmp_path):
    report = tmp_path / "report.json"
    assert run(sandbox, "annotate", "--task", 9999, "--model", function(), "--report", report) == 3
    assert not report.exists()
    report.write_text("of old")
    assert run(sandbox, "annotate", "--task", 9999, "--model", function(), "--report", report) == 3
    assert report.read_text() == "of old"


def test_a_report_that_cannot_be_written_in_the_end_hides_no_run(sandbox, session, task, tmp_path, capsys):
    folder, function = tmp_path / "reports", tmp_path / "removes.py"
    text = FUNCTION.replace("{BAD!r}", "[]")
    function.write_text(
        text.replace("    if any", f"    __import__('shutil').rmtree({str(folder)!r}, True)\n    if any")
    )
    words = ("--model", f"cvat:{function}", "--report", folder / "report.json")
    assert run(sandbox, "annotate", "--task", task, *words) == 2
    said = capsys.readouterr()
    with Ledger() as ledger:
        (record,) = ledger.runs()
    assert "9 of 9 annotated" in said.out
    assert f"run         {record.id} (" in said.out
    assert f"Error: --report {folder / 'report.json'}: cannot be written: No such file or directory" in said.err
    assert len(stored(session, task)[0]) == 9


@pytest.mark.parametrize("type_", ["any", "polygon"])
def test_a_preview_shows_what_is_uploaded(sandbox, session, assets, tmp_path, monkeypatch, type_):
    drawn, draw = [], preview.draw
    monkeypatch.setattr("agent.preview.draw", lambda *given: drawn.append(given[1]) or draw(*given))
    labels = [{"name": name, "type": type_} for name in load_label_map("coco-80").names]
    task = make_task(session, sorted((assets / "media" / "coco_val").rglob("*.jpg"))[:3], labels=labels)
    model = ("--model", f"local:{assets}/weights/yolov8n-seg_int8.onnx", "--device", "cpu")
    more = ("--masks-as-polygons", "--tolerance", 8, "--preview", tmp_path / "p")
    assert run(sandbox, "annotate", "--task", task, *model, *more) == 0
    shapes, _ = stored(session, task)
    assert {shape["type"] for shape in shapes} == {"polygon"}
    (work,) = find_work(session, Target("task", task))
    names = {label.id: label.name for label in work.labels}
    shown = [(found.label, np.round(found.shape.points, 2).tolist()) for frame in drawn for found in frame]
    assert shown == [(names[shape["label_id"]], np.round(shape["points"], 2).tolist()) for shape in shapes]
    assert (tmp_path / "p" / "contact-sheet.jpg").exists()


PARTS = """
import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask

spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("thing", 0, type="mask")])

def detect(context, image):
    mask = np.zeros((image.height, image.width), bool)
    mask[20:80, 20:80] = mask[100:105, 100:105] = mask[150:152, 20:30] = True
    return [cvataa.mask(0, encode_mask(mask, [0, 0, image.width, image.height]))]
"""


@pytest.mark.parametrize(("least", "areas"), [(1, [3600, 25, 20]), (22, [3600, 25]), (100, [3600])])
def test_small_parts_of_a_mask_are_left_out_as_small_shapes_are(sandbox, session, tmp_path, least, areas):
    function = tmp_path / "parts.py"
    function.write_text(PARTS)
    task = make_image_task(session, count=1, labels=[{"name": "thing", "type": "polygon"}])
    assert run(sandbox, "annotate", "--task", task, "--model", f"cvat:{function}", "--min-area", least) == 0
    shapes, _ = stored(session, task)
    assert [polygon_area(shape["points"]) for shape in shapes] == areas
    assert len({shape["group"] for shape in shapes}) == 1
    assert (shapes[0]["group"] == 0) == (len(areas) == 1)


@pytest.mark.parametrize("where", ["when it is loaded", "on each frame"])
def test_a_model_that_ends_its_program_has_failed(sandbox, session, task, tmp_path, capsys, where):
    function = tmp_path / "ends.py"
    text = FUNCTION.replace("{BAD!r}", "[]")
    ends = "    raise SystemExit(3)\n"
    function.write_text(
        text.replace("    if any", ends + "    if any")
        if where == "on each frame"
        else text + "\nraise SystemExit(3)\n"
    )
    assert run(sandbox, "annotate", "--task", task, "--model", f"cvat:{function}") == 4
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert "SystemExit: 3" in said[0]


def test_a_dry_run_sends_nothing(sandbox, session, task, function, tmp_path):
    code = run(sandbox, "annotate", "--task", task, "--model", function(), "--dry-run", "--preview", tmp_path / "p")
    assert code == 0
    assert stored(session, task) == ([], [])
    assert not {entry.method for entry in sandbox.requests} & {"PUT", "PATCH", "DELETE"} or all(
        "annotations" not in entry.path for entry in sandbox.requests if entry.method != "GET"
    )
    assert not default_path().exists() or not Ledger().runs()
    assert (tmp_path / "p" / "contact-sheet.jpg").exists()


def test_previews_show_the_names_of_the_task(sandbox, session, task, function, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr("agent.preview.draw", lambda *given: drawn.append(given) or Image.new("RGB", (9, 9)))
    args = ("--map", "unknown=thing", "--roi", "1,1,30,30", "--preview", tmp_path, "--dry-run")
    assert run(sandbox, "annotate", "--task", task, "--model", function(), *args) == 0
    assert len(drawn) == 9
    assert {found.label for _, detections, _ in drawn for found in detections} == {"thing", "scene"}
    assert {region for _, _, region in drawn} == {Roi(1, 1, 30, 30)}
    printed = capsys.readouterr().out
    assert "dry run     nothing was sent" in printed
    assert f"preview     {tmp_path / 'contact-sheet.jpg'}" in printed


def test_a_region_is_what_the_model_sees_and_places_are_of_the_whole_frame(sandbox, session, task, function):
    assert (
        run(
            sandbox,
            "annotate",
            "--task",
            task,
            "--model",
            function(),
            "--roi",
            "40,30,140,90",
            "--frames",
            "0",
        )
        == 0
    )
    ((shape,), _) = stored(session, task)
    assert shape["points"] == [41, 32, 137, 86]


class TestReplace:
    def test_own_takes_the_place_of_earlier_runs_only(self, sandbox, session, task, function):
        (work,) = find_work(session, Target("task", task))
        label = next(label for label in work.labels if label.name == "thing").id
        drawn = {"type": "rectangle", "frame": 0, "label_id": label, "points": [5, 5, 9, 9]}
        create(session, work.jobs[0].id, {"shapes": [drawn]})
        for replace in ("none", "own", "own"):
            assert run(sandbox, "annotate", "--task", task, "--model", function(), "--replace", replace) == 0
        shapes, tags = stored(session, task)
        assert len(tags) == 9
        assert sorted(shape["points"] == [5, 5, 9, 9] for shape in shapes) == [False] * 9 + [True]

    def test_own_keeps_what_somebody_changed(self, sandbox, session, task, function):
        assert run(sandbox, "annotate", "--task", task, "--model", function()) == 0
        (work,) = find_work(session, Target("task", task))
        shape = get_annotations(session, work.jobs[0].id)["shapes"][0]
        moved = {**shape, "points": [5, 5, 9, 9], "source": "semi-auto"}
        session.request(
            "PATCH",
            f"/api/jobs/{work.jobs[0].id}/annotations",
            query={"action": "update"},
            body={"shapes": [moved]},
        )
        assert run(sandbox, "annotate", "--task", task, "--model", function(), "--replace", "own") == 0
        assert len(stored(session, task)[0]) == 10

    def test_all_keeps_a_backup(self, sandbox, session, task, function):
        (work,) = find_work(session, Target("task", task))
        label = next(label for label in work.labels if label.name == "thing").id
        drawn = {"type": "rectangle", "frame": 0, "label_id": label, "points": [5, 5, 9, 9]}
        create(session, work.jobs[0].id, {"shapes": [drawn, {**drawn, "frame": 2}]})
        assert (
            run(
                sandbox,
                "annotate",
                "--task",
                task,
                "--model",
                function(),
                "--replace",
                "all",
                "--frames",
                "0-1",
            )
            == 0
        )
        shapes, _ = stored(session, task)
        assert sorted((shape["frame"], shape["points"] == [5, 5, 9, 9]) for shape in shapes) == [
            (0, False), (1, False), (2, True),
        ]  # fmt: skip
        (backup,) = (default_path().parent / "backups").iterdir()
        assert len(json.loads(backup.read_text())["annotations"]["shapes"]) == 2


def test_predictions_over_existing_shapes_are_left_out(sandbox, session, task, function):
    (work,) = find_work(session, Target("task", task))
    label = next(label for label in work.labels if label.name == "thing").id
    width, height = 320, 240
    drawn = {"type": "rectangle", "frame": 0, "label_id": label, "points": [0, 0, width, height]}
    create(session, work.jobs[0].id, {"shapes": [drawn, {**drawn, "frame": 1, "points": [0, 0, 9, 9]}]})
    args = ("--frames", "0-1", "--skip-overlapping", 0.5)
    assert run(sandbox, "annotate", "--task", task, "--model", function(), *args) == 0
    assert sorted(shape["frame"] for shape in stored(session, task)[0]) == [0, 1, 1]


def test_runs_are_listed_shown_and_undone(sandbox, session, task, function, capsys):
    assert run(sandbox, "annotate", "--task", task, "--model", function()) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["runs", "list"])
    listed = capsys.readouterr().out
    assert "done" in listed
    assert f"task {task}" in listed
    number = listed.split()[0]
    with pytest.raises(SystemExit):
        main(["runs", "show", number])
    shown = capsys.readouterr().out
    assert f"run         {number}, done\n" in shown
    assert "annotations 18\n" in shown
    assert "still there 9 tags, 9 shapes, as far as we know\n" in shown
    with pytest.raises(SystemExit):
        main(["runs", "show", number, "--json"])
    assert json.loads(capsys.readouterr().out)["made"] == {"tags": 9, "shapes": 9, "tracks": 0}
    assert run(sandbox, "runs", "undo", number) == 0
    assert "18 annotations removed" in capsys.readouterr().out
    assert stored(session, task) == ([], [])
    assert run(sandbox, "runs", "undo", number) == 2


def test_thirty_percent_of_faults(sandbox, session, task, function):
    """The run completes, and nothing is doubled or lost."""
    for seed, fault in enumerate(({"status": 500}, {"status": 429}, {"cut": True})):
        for when in ("before", "after"):
            sandbox.faults.add(path=r"/api/.*", probability=0.06, seed=seed, when=when, count=10_000, **fault)
    try:
        assert run(sandbox, "annotate", "--task", task, "--model", function()) == 0
    finally:
        sandbox.faults.clear()
    shapes, tags = stored(session, task)
    assert sorted(shape["frame"] for shape in shapes) == list(range(9))
    assert sorted(tag["frame"] for tag in tags) == list(range(9))

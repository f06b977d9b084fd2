"""What `enrich` leaves as it is, and what it refuses: told through the command, and typed as it is advised."""

import re
import shlex

import pytest
from click.testing import CliRunner

from agent.cli import command
from agent.cvat.annotations_api import create, get_annotations, update
from agent.cvat.work import find_work
from agent.errors import ConfigError, LabelMismatch
from agent.options import Options, Target
from agent.runs.running import start
from agent.runs.surroundings import Surroundings
from tests.support.material import make_image_task, make_video_task

FINDER = """
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    return [a.rectangle(0, [10, 8, 50, 40])]
"""
CLASSIFIER = """
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("good", 0, type="tag"), a.label_spec("box", 1, type="rectangle")])

def detect(context, image):
    return [a.rectangle(1, [1, 1, 9, 9]), a.tag(0)]
"""
FILLER = """
import cvat_sdk.auto_annotation as a
import numpy as np
from cvat_sdk.masks import encode_mask

spec = a.InteractionFunctionSpec(min_pos_points=0, min_bounding_boxes=1)

def detect(context, image, prompts):
    (left, top), (right, bottom) = prompts.bounding_box
    mask = np.zeros((image.height, image.width), bool)
    mask[int(top):int(bottom), int(left):int(right)] = True
    return [a.InteractionResultShape(type="mask", points=encode_mask(mask))] if right - left > 20 else []
"""
STATE = {"name": "state", "mutable": False, "input_type": "text", "default_value": "", "values": []}
LABELS = [{"name": "thing", "type": "any", "attributes": [STATE]}, {"name": "narrow", "type": "rectangle"}]
BOX = {"type": "rectangle", "points": [10, 8, 50, 40]}
OTHERS = [
    {"type": "polygon", "points": [1, 1, 30, 1, 30, 20]},
    {"type": "polyline", "points": [1, 1, 30, 1, 30, 20]},
    {"type": "points", "points": [1, 1, 30, 20]},
    {"type": "ellipse", "points": [20, 20, 30, 10]},
    {"type": "mask", "points": [0, 4, 1, 1, 2, 2]},
]


@pytest.fixture
def cli(sandbox, tmp_path):
    for name, text in (("finder", FINDER), ("classifier", CLASSIFIER), ("filler", FILLER)):
        (tmp_path / f"{name}.py").write_text(text)
    access = ["--server-host", sandbox.url, "--auth", "bot:secret"]

    def run(*words, fails=False):
        words = [str(word).replace("MODEL/", f"cvat:{tmp_path}/") for word in words]
        ledger = [] if "--ledger" in words or words[0] == "models" else ["--ledger", str(tmp_path / "ledger.sqlite3")]
        login = [] if words[0] == "models" or words[1] in ("show", "list") else access
        done = CliRunner().invoke(command, [*words, *ledger, *login], catch_exceptions=fails)
        assert fails or done.exit_code == 0, done.output
        return done

    return run


@pytest.fixture
def detect(session, tmp_path):
    """Annotates a task with what the finder finds, and gives the run."""

    def annotate(task):
        around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3")
        return start(Target("task", task), Options(model=f"cvat:{tmp_path}/finder.py"), around).run

    return annotate


@pytest.fixture
def task(session):
    return make_image_task(session, count=3, labels=LABELS)


def jobs_of(session, task):
    (work,) = find_work(session, Target("task", task))
    return work.jobs, {label.name: label.id for label in work.labels}


def draw(session, task, *shapes, source="manual"):
    """Puts shapes on the first frame, under the first label where they name none."""
    (job, *_), ids = jobs_of(session, task)
    made = [{"frame": 0, "source": source, "label_id": ids["thing"], **shape} for shape in shapes]
    create(session, job.id, {"shapes": made})
    return stored(session, task)


def stored(session, task):
    jobs, _ = jobs_of(session, task)
    return [shape for job in jobs for shape in get_annotations(session, job.id)["shapes"]]


def advised(text):
    return [shlex.split(words) for words in re.findall("`cvat-sidecar (.+?)`", text)]


def mask(task, *words):
    return ("enrich", "--task", task, "--model", "MODEL/filler.py", "--gives", "mask", *words)


@pytest.mark.parametrize("of", ["all", "auto"])
def test_only_rectangles_become_masks(session, cli, task, of):
    before = draw(session, task, BOX, *OTHERS, source="auto" if of == "auto" else "manual")
    done = cli(*mask(task, "--of", of))
    after = {shape["id"]: shape for shape in stored(session, task)}
    assert [after.pop(shape["id"], None) for shape in before] == [None, *before[1:]]
    assert [shape["type"] for shape in after.values()] == ["mask"]
    assert "replaced    1 earlier annotation removed" in done.output
    assert "left out    5" in done.output
    for shape in OTHERS:
        assert re.search(rf"^  {shape['type']}: a mask takes the place of rectangles only +1$", done.output, re.M)
    again = cli(*mask(task, "--of", of))
    assert "it holds no rectangles to look at" in again.output
    assert "other shapes are left: 6" in again.output


def test_own_polygons_stay_where_masks_are_made(session, cli, task, detect):
    detect(task)
    cli(*mask(task))
    masks = stored(session, task)
    assert [shape["type"] for shape in masks] == ["mask"] * 3
    again = cli(*mask(task))
    assert "other shapes are left: 3" in again.output
    assert stored(session, task) == masks


def test_what_an_interactor_has_no_mask_for_stays_and_is_counted(session, cli, task):
    small = {"type": "rectangle", "points": [5, 5, 15, 15]}
    kept, _ = draw(session, task, small, BOX)
    done = cli(*mask(task, "--of", "all"))
    assert re.search(r"^left out    1\n  nothing was found +1$", done.output, re.M)
    assert [shape for shape in stored(session, task) if shape["type"] == "rectangle"] == [kept]


def test_what_is_too_small_to_be_looked_at_is_counted(session, cli, task):
    """A crop without a pixel is shown to nobody."""
    kept, _ = draw(session, task, {"type": "rectangle", "points": [5, 5, 6, 6]}, BOX)
    words = ("--gives", "attribute", "--attribute", "state", "--label", "thing", "--of", "all")
    done = cli("enrich", "--task", task, "--model", "MODEL/classifier.py", *words)
    assert "changed     1" in done.output
    assert re.search(r"^left out    1\n  nothing was found +1$", done.output, re.M)
    values = {shape["id"]: shape["attributes"][0]["value"] for shape in stored(session, task)}
    assert values.pop(kept["id"]) == ""
    assert list(values.values()) == ["good"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--gives", "attribute", "--attribute", "state", "--label", "thing", "--model", "MODEL/finder.py"),
            "finder.py is no classifier: it gives rectangle (thing), allowed for 'attribute': a model that gives tags",
        ),
        (
            ("--gives", "label", "--model", "opencv:face"),
            "opencv:face is no classifier: it gives rectangle (face, eye)",
        ),
        (
            ("--gives", "mask", "--model", "opencv:scissors"),
            "opencv:scissors wants 3 or more points, allowed for 'mask': an interactor that answers to a box alone",
        ),
    ],
)
def test_a_model_that_cannot_answer_is_refused(session, cli, task, words, said):
    before = draw(session, task, BOX)
    done = cli("enrich", "--task", task, "--of", "all", *words, fails=True)
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)
    assert stored(session, task) == before
    assert cli("runs", "list").output.startswith("no runs in ")


def test_a_chain_is_refused_before_it_sees_a_frame(tmp_path, task):
    config = tmp_path / "service.toml"
    config.write_text(
        '[[models]]\nid = "whole"\nmodel = "chain:"\n[models.options]\nof = "opencv:face"\n'
        '[[models.options.then]]\nmodel = "opencv:face"\ngives = "attribute"\nattribute = "age"\n'
    )
    done = CliRunner().invoke(command, ["models", "show", "whole", "--config", str(config)])
    assert "chain: option 'then 1': opencv:face is no classifier" in str(done.exception)


def test_a_label_that_the_task_lacks_is_told(session, cli, task):
    draw(session, task, BOX)
    for name, said in (
        ("thign", "--into: it has no label 'thign'; did you mean 'thing'?"),
        ("pmask", "--into: it has no label 'pmask'; there are: thing, narrow"),
        ("narrow", "--into: 'narrow' takes rectangle, allowed: a label of the type mask, polygon or any"),
    ):
        done = cli(*mask(task, "--of", "all", "--into", name), fails=True)
        assert isinstance(done.exception, LabelMismatch)
        assert str(done.exception) == f"task {task}: {said}"


def test_what_people_made_or_changed_is_counted(session, cli, task, detect):
    detect(task)
    first, *_ = stored(session, task)
    (job,), _ = jobs_of(session, task)
    update(session, job.id, {"shapes": [{**first, "points": [11, 9, 50, 40], "source": "semi-auto"}]})
    draw(session, task, BOX, BOX)
    words = ("--gives", "attribute", "--attribute", "state", "--label", "thing")
    for of, passed, said in (
        ("own", 3, "what this program made and nobody changed (--of auto or all: more)"),
        ("auto", 3, "what a model made and nobody changed (--of all: more)"),
    ):
        done = cli("enrich", "--task", task, "--model", "MODEL/classifier.py", *words, "--of", of)
        assert f"note        {passed} shapes passed over: looked at is only {said}" in done.output
        assert "2 of 2 looked at" in done.output
    done = cli("enrich", "--task", task, "--model", "MODEL/classifier.py", *words, "--of", "all")
    assert "passed over" not in done.output


def test_a_tracks_parts_in_several_jobs_are_called_so(session, cli):
    task = make_video_task(session, frames=24, labels=LABELS, segment_size=8, overlap=0)
    jobs, ids = jobs_of(session, task)
    for job in jobs:
        shape = {**BOX, "frame": job.start, "outside": False, "attributes": []}
        track = {"frame": job.start, "label_id": ids["thing"], "source": "auto", "group": 0, "attributes": []}
        create(session, job.id, {"tracks": [{**track, "shapes": [shape]}]})
    words = ("--gives", "attribute", "--attribute", "state", "--label", "thing", "--of", "all")
    done = cli("enrich", "--task", task, "--model", "MODEL/classifier.py", *words)
    assert "looked at   0 shapes, and 3 tracks (a track's part in each job is one) in " in done.output
    done = cli("enrich", "--job", jobs[0].id, "--model", "MODEL/classifier.py", *words)
    assert "looked at   0 shapes, and 1 track in " in done.output


def test_the_way_back_from_masks_can_be_typed(session, cli, task, detect):
    detect(task)
    before = [shape["points"] for shape in stored(session, task)]
    done = cli(*mask(task))
    run = advised(done.output)[0][2]
    shown = cli("runs", "show", run).output
    assert advised(shown) == advised(done.output)
    assert [words[:3] for words in advised(shown)] == [["runs", "undo", run], ["runs", "restore", run]]
    assert shown.count("backup  ") == 1
    assert "(version attribute)" not in shown
    resumed = cli("runs", "resume", run, fails=True)
    assert advised(str(resumed.exception)) == advised(shown)
    for words in advised(shown):
        cli(*words)
    assert [shape["points"] for shape in stored(session, task)] == before
    assert advised(cli("runs", "show", run).output) == advised(shown)[1:], "it is undone"


def test_what_to_do_about_a_run_that_broke_off_can_be_typed(sandbox, session, cli):
    """The server refuses the second job's values: the first job has them already."""
    task = make_image_task(session, count=4, labels=LABELS, segment_size=2)
    jobs, ids = jobs_of(session, task)
    for job in jobs:
        create(session, job.id, {"shapes": [{**BOX, "frame": job.start, "label_id": ids["thing"], "source": "auto"}]})
    words = ("enrich", "--task", task, "--model", "MODEL/classifier.py", "--label", "thing", "--of", "auto")
    words += ("--gives", "attribute", "--attribute", "state")
    sandbox.faults.add(method="PATCH", path=f"/api/jobs/{jobs[1].id}/annotations", status=400)
    broken = cli(*words, fails=True)
    assert broken.exit_code != 0
    assert "the run did not end well; run the same command again: it looks at what is there then; or `" in broken.output
    (way,) = advised(broken.output)
    assert [shape["attributes"][0]["value"] for shape in stored(session, task)] == ["good", ""]
    assert "1 have their old labels and attributes again" in cli(*way).output
    assert [shape["attributes"][0]["value"] for shape in stored(session, task)] == ["", ""]
    cli(*words)
    assert [shape["attributes"][0]["value"] for shape in stored(session, task)] == ["good", "good"]


def test_what_somebody_has_corrected_since_keeps_its_values(session, cli, task, detect):
    detect(task)
    words = ("--gives", "attribute", "--attribute", "state", "--label", "thing")
    done = cli("enrich", "--task", task, "--model", "MODEL/classifier.py", *words)
    first, *_ = stored(session, task)
    (job, *_), _ = jobs_of(session, task)
    right = {**first, "source": "semi-auto", "attributes": [{**first["attributes"][0], "value": "bad"}]}
    update(session, job.id, {"shapes": [right]})
    told = cli(*advised(done.output)[0]).output
    assert "2 have their old labels and attributes again\n1 keep their labels and attributes, because somebody" in told
    assert [shape["attributes"][0]["value"] for shape in stored(session, task)] == ["bad", "", ""]


def test_the_version_is_the_models(session, cli, task):
    draw(session, task, BOX)
    words = ("--gives", "attribute", "--attribute", "state", "--label", "thing", "--of", "all")
    done = cli("enrich", "--task", task, "--model", "MODEL/classifier.py", *words)
    shown = cli("runs", "show", advised(done.output)[0][2]).output
    version = cli("models", "show", "MODEL/classifier.py").output
    (version,) = re.findall(r"^version +(\S+)", version, re.M)
    assert f"(version {version}" in shown


def test_undo_tells_who_has_replaced_what_is_gone(session, cli, detect):
    task = make_video_task(session, frames=12, labels=LABELS)
    run = detect(task)
    linked = advised(cli("track", "--task", task).output)[0][2]
    assert f"12 that were there run {linked} has replaced" in cli("runs", "show", run).output
    undone = cli("runs", "undo", run).output
    assert undone == f"run {run}: 0 annotations removed\n12 were there no more: run {linked} has replaced them\n"


def test_a_run_without_backups_and_what_is_no_run_are_told(session, cli, task, detect):
    run = detect(task)
    done = cli("runs", "restore", run, fails=True)
    assert str(done.exception) == f"run {run}: it has kept no backup: it removed and changed nothing"
    for wrong, said in (("elsewhere/job-1.json", "there is no such file"), ("ffff", "no run of that id")):
        assert said in str(cli("runs", "restore", wrong, fails=True).exception)

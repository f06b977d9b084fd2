"""Shapes that a task has, looked at again through the command and by small models."""

import json
import re
import shlex
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli import command
from agent.contract import Detection, Keypoint, Label, Mask, PromptNeeds, Skeleton
from agent.cvat.annotations_api import create, get_annotations, update
from agent.cvat.work import find_work
from agent.enrich.places import EnrichOptions
from agent.enrich.runs import enrich_target
from agent.errors import BadRequest, ConfigError, LabelMismatch, ModelError
from agent.ledger.ledger import Ledger
from agent.models.host import Host
from agent.models.loading import LoadedModel, ModelReference
from agent.options import Target
from agent.runs.surroundings import Surroundings
from tests.support.material import make_image_task, make_task, number_of

COLOR = {"name": "color", "mutable": False, "input_type": "select", "default_value": "red", "values": ["red", "blue"]}
TEXT = {"name": "plate", "mutable": True, "input_type": "text", "default_value": "", "values": []}
LABELS = [
    {"name": "car", "type": "rectangle", "attributes": [COLOR, TEXT]},
    {"name": "bus", "type": "rectangle", "attributes": [COLOR]},
    {"name": "blob", "type": "any"},
]


class Colours:
    """Blue on odd frames, red on even ones; a third colour, that the task does not know, on frame 4."""

    labels = (Label("red", "tag"), Label("blue", "tag"), Label("green", "tag"))

    def detect(self, frames, context):
        names = {4: "green"}
        return [[Detection(names.get(f.index, "blue" if f.index % 2 else "red"), None, 0.9)] for f in frames]


class Plates:
    labels = (Label("text", "rectangle"),)

    def detect(self, frames, context):
        return [[] for _ in frames]

    def read(self, frame, rectangles):
        return [f"{number_of(frame.image)}-{r.left:g}{f' at {r.rotation:g}' if r.rotation else ''}" for r in rectangles]


class Kinds:
    """Calls everything a bus."""

    labels = (Label("bus", "tag"),)

    def detect(self, frames, context):
        return [[Detection("bus", None, 0.9)] for _ in frames]


class Poses(Plates):
    labels = (Label("body", "skeleton", sublabels=(Label("head", "points"), Label("foot", "points"))),)

    def estimate(self, frame, rectangles):
        return [Skeleton((Keypoint("head", r.left, r.top), Keypoint("foot", r.right, r.bottom))) for r in rectangles]


class Boxes:
    """Fills the rectangle that it is prompted with."""

    needs = PromptNeeds(positive=0, box="required")

    def embed(self, frame):
        return frame.image.shape

    def segment(self, embedding, prompts):
        box = prompts.box
        bitmap = np.ones((round(box.bottom - box.top), round(box.right - box.left)), bool)
        return [Detection("thing", Mask(bitmap, round(box.left), round(box.top)))]


MODELS = {"colours": Colours(), "plates": Plates(), "kinds": Kinds(), "poses": Poses(), "boxes": Boxes()}


@contextmanager
def opener(name, device, options):
    model = MODELS[name]
    loaded = LoadedModel(
        ModelReference("test", name), model, "detector", tuple(getattr(model, "labels", ())), batch_size=4
    )
    with Host(model, batch_size=4, name=name) as host:
        yield loaded, host


@pytest.fixture
def enrich(session, tmp_path):
    def run(task, dry_run=False, **options):
        around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3")
        options = EnrichOptions(**{"of": "all", **options})
        target = Target("task", task)
        return enrich_target(target, options, around, device="cpu", params={}, opener=opener, dry_run=dry_run)

    return run


@pytest.fixture
def scene(session):
    """(task, the jobs' shapes as they are now): a car on each of six frames, two jobs, drawn by a person."""
    task = make_image_task(session, count=6, labels=LABELS, segment_size=3)
    (work,) = find_work(session, Target("task", task))
    ids = {label.name: label.id for label in work.labels}
    for job in work.jobs:
        shapes = [
            {"type": "rectangle", "frame": f, "label_id": ids["car"], "points": [10, 8, 60, 40], "source": "manual"}
            for f in job.frames
        ]
        create(session, job.id, {"shapes": shapes})

    def now():
        return [shape for job in work.jobs for shape in get_annotations(session, job.id)["shapes"]]

    return task, now, work


def advised(text):
    """The commands that a text names, as they can be typed."""
    return [shlex.split(words) for words in re.findall("`cvat-sidecar (.+?)`", text)]


def values(shape, work):
    names = {a.id: a.name for label in work.labels for a in label.attributes}
    return {names[a["spec_id"]]: a["value"] for a in shape["attributes"]}


def test_a_classifier_fills_an_attribute_and_shapes_keep_their_ids(scene, enrich):
    task, now, work = scene
    before = now()
    report = enrich(task, model="colours", gives="attribute", attribute="color")
    after = now()
    assert [shape["id"] for shape in after] == [shape["id"] for shape in before]
    assert [values(s, work)["color"] for s in after] == ["red", "blue", "red", "blue", "red", "blue"]
    assert all(shape["source"] == "manual" and shape["points"] == [10, 8, 60, 40] for shape in after)
    assert report.annotations["car"] == 3  # the red ones were red before
    assert report.refused["color: got 'green', allowed: red, blue"] == 1
    assert len([note for note in report.notes if note.startswith("backup")]) == 2


def test_of_shapes_and_tracks_masks_and_skeletons_are_for_shapes(session, scene, enrich):
    task, now, work = scene
    job, label = work.jobs[0], now()[0]["label_id"]
    shape = {"type": "rectangle", "frame": 0, "points": [1, 1, 20, 20], "outside": False, "attributes": []}
    track = {"frame": 0, "label_id": label, "group": 0, "source": "manual", "attributes": [], "shapes": [shape]}
    create(session, job.id, {"tracks": [track]})
    report = enrich(task, model="colours", gives="attribute", attribute="color")
    assert "looked at   6 shapes, and 1 track in 3 places" in report.notes
    with pytest.raises(BadRequest, match="'car' takes rectangle"):
        enrich(task, model="poses", gives="skeleton")
    told = "1 track is not looked at: a mask takes the place of a shape on one frame, not of a track"
    report = enrich(task, model="boxes", gives="mask", into="blob")
    assert f"note        {told}" in report.notes
    assert report.annotations == {"blob": 6}
    stored = get_annotations(session, job.id)
    assert [shape["type"] for shape in stored["shapes"]] == ["mask"] * 3
    assert len(stored["tracks"]) == 1


def test_old_values_come_back_from_the_backup(sandbox, scene, enrich, tmp_path):
    task, now, _ = scene
    before = now()
    report = enrich(task, model="kinds", gives="label")
    access = ["--server-host", sandbox.url, "--auth", "bot:secret"]
    where = ["--ledger", str(tmp_path / "ledger.sqlite3")]
    undone = CliRunner().invoke(command, ["runs", "undo", report.run, *where, *access])
    (way,) = advised(str(undone.exception))
    assert way == ["runs", "restore", report.run, "--values", *where]
    resumed = CliRunner().invoke(command, ["runs", "resume", report.run, *where, *access])
    assert "cannot go on in the middle; run the same command again" in str(resumed.exception)
    assert advised(str(resumed.exception)) == [way]
    shown = CliRunner().invoke(command, ["runs", "show", report.run, *where], catch_exceptions=False).output
    assert advised(shown) == [way]
    for note in report.notes:
        if note.startswith("backup"):
            assert shown.count(note.split(": ", 1)[1]) == 1
    done = CliRunner().invoke(command, [*way, *access], catch_exceptions=False)
    assert done.output.count("3 have their old labels and attributes again") == 2
    assert [(s["id"], s["label_id"], s["attributes"]) for s in now()] == [
        (s["id"], s["label_id"], s["attributes"]) for s in before
    ]


def test_what_somebody_changes_meanwhile_stays(session, scene, enrich):
    task, now, work = scene
    moved = {**now()[1], "points": [20, 20, 70, 45], "source": "manual"}

    class Slow(Kinds):
        def detect(self, frames, context):
            update(session, work.jobs[0].id, {"shapes": [moved]})
            return super().detect(frames, context)

    MODELS["slow"] = Slow()
    report = enrich(task, model="slow", gives="label")
    assert report.refused["somebody changed it meanwhile"] == 1
    shapes = {shape["id"]: shape for shape in now()}
    assert shapes[moved["id"]]["points"] == [20, 20, 70, 45]
    assert shapes[moved["id"]]["label_id"] == moved["label_id"]
    assert len({shape["label_id"] for shape in shapes.values()}) == 2


def test_what_somebody_changes_while_the_server_is_waited_for_stays(sandbox, session, scene, tmp_path):
    task, now, work = scene
    first = work.jobs[0].id
    update(session, first, {"shapes": [{**shape, "source": "auto"} for shape in now()[:3]]})
    moved = {**now()[1], "points": [20, 20, 70, 45], "source": "semi-auto"}

    class Person(threading.Event):
        """Whoever waits for the server gives a person time for a change."""

        def wait(self, timeout=None):
            update(session, first, {"shapes": [moved]})
            return False

    sandbox.faults.add(method="PATCH", path="/annotations$", cut=True)
    around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3", stop=Person())
    options = EnrichOptions(model="boxes", gives="mask", of="auto", into="blob")
    report = enrich_target(Target("task", task), options, around, device="cpu", params={}, opener=opener)
    shapes = get_annotations(session, first)["shapes"]
    left = [(shape["id"], shape["points"]) for shape in shapes if shape["type"] == "rectangle"]
    assert left == [(moved["id"], moved["points"])]
    assert (len(shapes), report.removed) == (4, 2)


def test_a_reader_writes_what_it_reads(scene, enrich):
    task, now, work = scene
    enrich(task, model="plates", gives="text", attribute="plate")
    assert [values(s, work)["plate"] for s in now()] == [f"{n}-10" for n in range(6)]


def test_a_turned_rectangle_is_read_as_it_is_turned(session, scene, enrich):
    task, now, work = scene
    update(session, work.jobs[0].id, {"shapes": [{**now()[0], "rotation": 30.0}]})
    enrich(task, model="plates", gives="text", attribute="plate")
    assert values(now()[0], work)["plate"] == "0-10 at 30"


def test_another_label_and_its_own_attributes(scene, enrich):
    task, now, work = scene
    enrich(task, model="kinds", gives="label")
    bus = next(label for label in work.labels if label.name == "bus")
    assert {shape["label_id"] for shape in now()} == {bus.id}


def test_a_dry_run_changes_nothing_and_a_label_that_is_not_there_is_told(scene, enrich):
    task, now, _ = scene
    before = now()
    report = enrich(task, dry_run=True, model="kinds", gives="label")
    assert (report.annotations.total(), report.run) == (6, None)
    assert now() == before
    with pytest.raises(BadRequest, match="it has no label 'tram'; there are: car, bus, blob"):
        enrich(task, model="kinds", gives="label", labels=("tram",))
    with pytest.raises(BadRequest, match="its labels have no attribute 'colour', allowed: color, plate"):
        enrich(task, model="colours", gives="attribute", attribute="colour")
    with pytest.raises(BadRequest, match="no shapes or tracks to look at that this program made"):
        enrich(task, of="own", model="kinds", gives="label")
    with pytest.raises(ConfigError, match="cannot give a mask"):
        enrich(task, model="kinds", gives="mask", into="blob")


def test_skeletons_take_the_rectangles_place(session, enrich):
    labels = [
        {"name": "person", "type": "skeleton", "svg": SVG, "sublabels": [
            {"name": "head", "type": "points"}, {"name": "foot", "type": "points"}]},
    ]  # fmt: skip
    task = make_image_task(session, count=2, labels=[*labels, {"name": "box", "type": "rectangle"}])
    (work,) = find_work(session, Target("task", task))
    ids = {label.name: label.id for label in work.labels}
    shapes = [{"type": "rectangle", "frame": 1, "label_id": ids["box"], "points": [10, 8, 60, 40], "source": "auto"}]
    create(session, work.jobs[0].id, {"shapes": shapes})
    # The rectangle's label cannot hold a skeleton: it stays, and it is said why.
    with pytest.raises(BadRequest, match="'box' takes rectangle, allowed: a label of the type skeleton; --into"):
        enrich(task, model="poses", gives="skeleton")
    assert [s["type"] for s in get_annotations(session, work.jobs[0].id)["shapes"]] == ["rectangle"]
    for wrong in ("box", "nobody"):
        with pytest.raises(LabelMismatch):
            enrich(task, model="poses", gives="skeleton", into=wrong)
    report = enrich(task, model="poses", gives="skeleton", into="person", labels=("box",))
    assert report.annotations == {"person": 1}
    (shape,) = get_annotations(session, work.jobs[0].id)["shapes"]
    assert (shape["type"], shape["label_id"], shape["frame"]) == ("skeleton", ids["person"], 1)
    assert {tuple(element["points"]) for element in shape["elements"]} == {(10, 8), (60, 40)}


def test_what_cannot_be_done_leaves_no_run(scene, enrich, tmp_path):
    task, now, _ = scene
    before = now()
    with pytest.raises(BadRequest, match="'car' takes rectangle"):
        enrich(task, model="poses", gives="skeleton", labels=("car",))
    with pytest.raises(ConfigError, match="cannot give a text"):
        enrich(task, model="kinds", gives="text", attribute="plate")
    with pytest.raises(ModelError, match="of the kind detector, allowed here: reid; `annotate` uses it"):
        enrich(task, model="kinds", gives="identity", attribute="color")
    with pytest.raises(BadRequest, match=r"attribute 'color' \(select\) takes none of bus, allowed: red, blue"):
        enrich(task, model="kinds", gives="attribute", attribute="color")
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        assert ledger.runs() == []
    assert now() == before


def test_a_project_opens_its_model_once(session, tmp_path):
    opened = []

    @contextmanager
    def counting(*asked):
        opened.append(asked)
        with opener(*asked) as found:
            yield found

    project = session.request("POST", "/api/projects", body={"name": "two tasks", "labels": LABELS}).json()["id"]
    for _ in range(2):
        task = make_image_task(session, count=1, project=project, labels=None)
        (work,) = find_work(session, Target("task", task))
        shape = {"type": "rectangle", "frame": 0, "label_id": work.labels[0].id, "points": [1, 1, 20, 20]}
        create(session, work.jobs[0].id, {"shapes": [shape]})
    around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3")
    options = EnrichOptions(model="kinds", gives="label", of="all")
    report = enrich_target(Target("project", project), options, around, device="cpu", params={}, opener=counting)
    assert report.annotations == {"bus": 2}
    assert len(opened) == 1


SVG = (
    '<line x1="10" y1="10" x2="20" y2="20" data-type="edge" data-node-from="1" data-node-to="2"></line>'
    '<circle r="1" cx="10" cy="10" data-type="element node" data-element-id="1" data-node-id="1"'
    ' data-label-name="head"></circle>'
    '<circle r="1" cx="20" cy="20" data-type="element node" data-element-id="2" data-node-id="2"'
    ' data-label-name="foot"></circle>'
)


def test_rectangles_become_masks_and_can_be_taken_back(sandbox, session, assets, tmp_path):
    task = make_task(session, [assets / "media" / "misc" / "cat_720p.jpg"], labels=[{"name": "cat"}])
    (work,) = find_work(session, Target("task", task))
    (job,) = work.jobs
    box = {"type": "rectangle", "frame": 0, "label_id": work.labels[0].id, "points": [300, 100, 900, 650]}
    create(session, job.id, {"shapes": [{**box, "source": "auto"}]})
    weights = assets / "weights"
    ledger = tmp_path / "ledger.sqlite3"
    words = [
        "enrich", "--task", task, "--gives", "mask", "--of", "auto",
        "--model", f"local:{weights}/promptseg_encoder_384.onnx", "-p", f"decoder={weights}/promptseg_decoder.onnx",
        "--report", tmp_path / "report.json",
    ]  # fmt: skip
    access = ["--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", ledger]
    done = CliRunner().invoke(command, [str(word) for word in (*words, *access)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (mask,) = get_annotations(session, job.id)["shapes"]
    assert mask["type"] == "mask"
    left, top, right, bottom = mask["points"][-4:]
    assert left < 900
    assert right > 300
    assert top < 650
    assert bottom > 100
    run = json.loads((tmp_path / "report.json").read_text())["run"]
    CliRunner().invoke(command, [str(w) for w in ("runs", "undo", run, *access)], catch_exceptions=False)
    assert get_annotations(session, job.id)["shapes"] == []


def test_the_same_persons_have_the_same_number(sandbox, session, assets, tmp_path):
    """Six frames of a street: the numbers agree with the truth for most pairs of persons."""
    folder = assets / "media" / "mot" / "MOT17-mini" / "MOT17-05-FRCNN"
    files = sorted((folder / "img1").glob("*.jpg"))
    labels = [{"name": "person", "type": "rectangle", "attributes": [{**TEXT, "name": "identity"}]}]
    task = make_task(session, files, labels=labels)
    (work,) = find_work(session, Target("task", task))
    (job,) = work.jobs
    frames = {int(file.stem): number for number, file in enumerate(files)}
    truth = []
    for line in (folder / "gt" / "gt.txt").read_text().splitlines():
        frame, who, left, top, width, height, flag, kind, visible = (float(v) for v in line.split(","))
        if frame in frames and flag and kind == 1 and visible > 0.5 and height > 60:
            truth.append((frames[frame], int(who), [left, top, left + width, top + height]))
    shapes = [
        {"type": "rectangle", "frame": f, "label_id": work.labels[0].id, "points": points, "source": "manual"}
        for f, _, points in truth
    ]
    create(session, job.id, {"shapes": shapes})
    words = [
        "enrich", "--task", task, "--gives", "identity", "--attribute", "identity", "--of", "all",
        "--model", f"local:{assets}/weights/osnet_x0_25_msmt17.onnx", "-p", "kind=reid", "--max-distance", "0.35",
        "--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", tmp_path / "l.sqlite3",
    ]  # fmt: skip
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = {
        (s["frame"], tuple(round(p, 1) for p in s["points"])): s["attributes"][0]["value"]
        for s in get_annotations(session, job.id)["shapes"]
    }
    numbers = [told[f, tuple(round(p, 1) for p in points)] for f, _, points in truth]
    who = np.array([w for _, w, _ in truth])
    same_truth, same_told = who[:, None] == who[None], np.array(numbers)[:, None] == np.array(numbers)[None]
    pairs = ~np.eye(len(who), dtype=bool)
    recall = (same_truth & same_told & pairs).sum() / (same_truth & pairs).sum()
    precision = (same_truth & same_told & pairs).sum() / max(1, (same_told & pairs).sum())
    assert recall > 0.6, (recall, precision)
    assert precision > 0.6, (recall, precision)


def test_what_a_person_reads(sandbox, session, tmp_path):
    task = make_image_task(session, count=2, labels=[{"name": "thing", "type": "any"}])
    (work,) = find_work(session, Target("task", task))
    label = work.labels[0].id
    shapes = [
        {"type": "rectangle", "frame": n, "label_id": label, "points": [5, 5, 40, 30], "source": "auto"} for n in (0, 1)
    ]
    create(session, work.jobs[0].id, {"shapes": shapes})
    ledger = tmp_path / "ledger.sqlite3"
    access = ["--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", str(ledger)]
    words = ["enrich", "--task", str(task), "--model", "opencv:grabcut", "--gives", "mask", "--of", "auto", *access]
    printed = CliRunner().invoke(command, [*words, "--dry-run"], catch_exceptions=False).output
    assert "dry run     nothing was sent" in printed
    assert "2 of 2 looked at, 0 skipped" in printed
    assert "changed     2" in printed
    assert "annotated" not in printed
    wrong = CliRunner().invoke(command, [*words, "--into", "nobody"])
    assert isinstance(wrong.exception, LabelMismatch)
    CliRunner().invoke(command, words, catch_exceptions=False)
    listed = CliRunner().invoke(command, ["runs", "list", "--ledger", str(ledger)], catch_exceptions=False).output
    assert "2/2 frames" in listed
    assert len(listed.splitlines()) == 1, "what was refused is no run"

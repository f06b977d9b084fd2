"""`track`: rectangles on the server become tracks there, and can be had back."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli import command
from agent.contract import Rectangle
from agent.cvat.annotations_api import create, get_annotations, update
from agent.cvat.work import find_work
from agent.existing import shapes_by_frame
from agent.options import Target
from agent.runs.link_runs import link_target
from agent.runs.linking import TrackOptions
from agent.runs.surroundings import Surroundings
from agent.shapes.overlap import overlap
from agent.tracks.keyframes import box_at, thin
from agent.tracks.link import LinkOptions, Sighting, link
from tests.support.material import make_task, make_video_task, picture_bytes
from tests.support.sequences import sequence

FRAMES = 90
LABELS = [{"name": "person", "type": "rectangle"}, {"name": "car", "type": "rectangle"}]


@pytest.fixture
def cli(sandbox, tmp_path):
    def run(*words, code=0):
        args = [*words, "--server-host", sandbox.url, "--auth", "bot:secret", "--ledger", tmp_path / "ledger.sqlite3"]
        done = CliRunner().invoke(command, [str(word) for word in args])
        if code == 0 and done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


class Scene:
    """A video task on which a detector's rectangles lie, job by job."""

    def __init__(self, session, seed=1, source="auto", **task):
        self.session, self.found = session, sequence(seed, frames=FRAMES, things=6)
        self.task = make_video_task(session, frames=FRAMES, labels=LABELS, **task)
        (self.work,) = find_work(session, Target("task", self.task))
        self.ids = {label.name: label.id for label in self.work.labels}
        for job in self.work.jobs:
            shapes = [
                {
                    "type": "rectangle", "frame": d.frame, "label_id": self.ids[d.label], "source": source,
                    "points": [round(float(v), 2) for v in d.box], "score": round(d.score, 3),
                }
                for d in self.found.detections
                if d.frame in job.frames
            ]  # fmt: skip
            create(session, job.id, {"tags": [], "shapes": shapes, "tracks": []})

    def stored(self, job):
        return get_annotations(self.session, job.id)

    def expected(self):
        """By frame, (label id, box) of all tracks, as linking by itself gives them."""
        boxes = defaultdict(list)
        for label, number in self.ids.items():
            seen = [
                Sighting(d.frame, tuple(round(float(v), 2) for v in d.box), round(d.score, 3))
                for d in self.found.detections
                if d.label == label
            ]
            for track in link(seen, LinkOptions()):
                keyframes = thin(track)
                for frame in range(FRAMES):
                    if (box := box_at(keyframes, frame)) is not None:
                        boxes[frame].append((number, box))
        return boxes


@pytest.mark.parametrize(
    "task",
    [{}, {"segment_size": 40, "overlap": 5}, {"segment_size": 30, "overlap": 0}],
    ids=["one job", "overlap", "cut"],
)
def test_every_job_shows_its_part_of_every_track(session, cli, task):
    scene = Scene(session, **task)
    before = {job.id: len(scene.stored(job)["shapes"]) for job in scene.work.jobs}
    done = cli("track", "--task", scene.task, "--of", "auto")
    assert "linked      task" in done.stdout
    expected, left = scene.expected(), 0
    for job in scene.work.jobs:
        stored = scene.stored(job)
        left += len(stored["shapes"])
        assert len(stored["shapes"]) < before[job.id] / 2  # what is left is noise
        drawn = shapes_by_frame({"tracks": stored["tracks"]}, job.stop)
        for frame in range(job.start, job.stop + 1):
            there = sorted((shape["label_id"], tuple(shape["points"])) for shape in drawn.get(frame, ()))
            wanted = sorted(expected[frame])
            assert [label for label, _ in there] == [label for label, _ in wanted]
            for (_, one), (_, other) in zip(there, wanted, strict=True):
                assert np.abs(np.subtract(one, other)).max() < 0.1
        assert all(track["source"] == "auto" for track in stored["tracks"])
    assert left > 0


def test_undone_and_restored_the_job_is_as_before(session, cli, tmp_path):
    scene = Scene(session, segment_size=50, overlap=0)
    before = [scene.stored(job)["shapes"] for job in scene.work.jobs]
    report = tmp_path / "report.json"
    cli("track", "--task", scene.task, "--of", "all", "--report", report)
    told = json.loads(report.read_text())
    cli("runs", "undo", told["run"])
    assert all(scene.stored(job)["tracks"] == [] for job in scene.work.jobs)
    backups = [
        json.loads(Path(note.split(": ", 1)[1]).read_text()) for note in told["notes"] if note.startswith("backup")
    ]
    kept = {backup["job"]: backup["annotations"]["shapes"] for backup in backups}
    assert [kept[job.id] for job in scene.work.jobs] == before
    for note in told["notes"]:
        if note.startswith("backup"):
            access = ("--server-host", session.url, "--auth", "bot:secret")
            assert main_of("runs", "restore", note.split(": ", 1)[1], *access) == 0
    for job, shapes in zip(scene.work.jobs, before, strict=True):
        assert content(scene.stored(job)["shapes"]) == content(shapes)


def main_of(*words):
    return CliRunner().invoke(command, words, catch_exceptions=False).exit_code


def content(shapes):
    """What is drawn, without the ids that the server gives."""
    return sorted((s["frame"], s["label_id"], s["source"], s["score"], *s["points"]) for s in shapes)


def test_a_rectangle_that_somebody_changes_meanwhile_stays(session, tmp_path):
    scene = Scene(session)
    (job,) = scene.work.jobs
    changed = {**scene.stored(job)["shapes"][0], "points": [1.0, 2.0, 30.0, 40.0], "source": "semi-auto"}

    def change(run, plans):
        update(session, job.id, {"shapes": [changed]})

    around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3", started=change)
    report = link_target(Target("task", scene.task), TrackOptions(of="auto", link=LinkOptions(min_sightings=1)), around)
    assert report.refused == {"somebody changed it meanwhile": 1}
    assert changed["points"] in [shape["points"] for shape in scene.stored(job)["shapes"]]
    (backup,) = [note.split(": ", 1)[1] for note in report.notes if note.startswith("backup")]
    assert changed["points"] in [s["points"] for s in json.loads(Path(backup).read_text())["annotations"]["shapes"]]


def test_what_can_change_changes_on_the_frame_where_it_did(session, cli):
    """However straight the way: a keyframe holds until the next one, for attributes and flags as well."""
    attribute = {"name": "state", "input_type": "select", "values": ["drives", "stands"], "mutable": True}
    task = make_video_task(
        session, frames=40, labels=[{"name": "car", "attributes": [attribute]}], segment_size=20, overlap=0
    )
    (work,) = find_work(session, Target("task", task))
    (label,) = work.labels
    truth = {f: ("stands" if 7 <= f < 31 else "drives", f in (12, 13, 25)) for f in range(40)}
    for job in work.jobs:
        shapes = [
            {
                "type": "rectangle", "frame": f, "label_id": label.id, "points": [2 * f, 9, 2 * f + 60, 90],
                "source": "auto", "occluded": truth[f][1],
                "attributes": [{"spec_id": label.attributes[0].id, "value": truth[f][0]}],
            }
            for f in job.frames
        ]  # fmt: skip
        create(session, job.id, {"tags": [], "shapes": shapes, "tracks": []})
    assert cli("track", "--task", task, "--of", "auto").exit_code == 0
    for job in work.jobs:
        (track,) = get_annotations(session, job.id)["tracks"]
        drawn = shapes_by_frame({"tracks": [track]}, job.stop)
        for frame in job.frames:
            (shape,) = drawn[frame]
            assert (shape["attributes"][0]["value"], shape["occluded"]) == truth[frame]
        assert len(track["shapes"]) <= 8


def test_ships_that_turn(session, cli):
    """A detector tells one and the same turned rectangle in four ways, and CVAT turns the shorter way round."""
    task = make_video_task(session, frames=40, labels=[{"name": "ship"}], segment_size=20, overlap=4)
    (work,) = find_work(session, Target("task", task))
    truth = {f: Rectangle(60.0 + 2 * f, 90, 140.0 + 2 * f, 110, (150 + 6.0 * f) % 180) for f in range(40)}
    for job in work.jobs:
        shapes = [
            {
                "type": "rectangle", "frame": f, "label_id": work.labels[0].id, "source": "auto",
                "points": [truth[f].left, 90, truth[f].right, 110], "rotation": truth[f].rotation,
            }
            for f in job.frames
        ]  # fmt: skip
        create(session, job.id, {"tags": [], "shapes": shapes, "tracks": []})
    assert cli("track", "--task", task, "--of", "auto").exit_code == 0
    for job in work.jobs:
        stored = get_annotations(session, job.id)
        (track,) = stored["tracks"]
        assert stored["shapes"] == []
        assert len(track["shapes"]) <= 6
        drawn = shapes_by_frame({"tracks": [track]}, job.stop)
        for frame in range(job.start, job.stop + 1):
            (shape,) = drawn[frame]
            assert overlap(Rectangle(*shape["points"], shape["rotation"]), truth[frame], 1.0) >= 0.95


@pytest.mark.parametrize(
    ("names", "is_sequence"),
    [
        (["0001.jpg", "0002.jpg", "0003.jpg"], True),
        (["frame_000010.png", "frame_000015.png", "frame_000020.png"], True),
        (["000000000139.jpg", "000000000285.jpg", "000000000632.jpg"], False),
        (["a1.jpg", "a2.jpg", "b3.jpg"], False),
        (["bus.jpg", "cat.jpg", "dog.jpg"], False),
    ],
)
def test_pictures_that_are_no_sequence_are_told(session, cli, tmp_path, names, is_sequence):
    for name in names:
        (tmp_path / name).write_bytes(picture_bytes(1))
    files = [tmp_path / name for name in names]
    task = make_task(session, files, labels=LABELS)
    (work,) = find_work(session, Target("task", task))
    shapes = [
        {"type": "rectangle", "frame": f, "label_id": work.labels[0].id, "points": [9, 9, 90, 90], "source": "auto"}
        for f in range(3)
    ]
    create(session, work.jobs[0].id, {"tags": [], "shapes": shapes, "tracks": []})
    done = cli("track", "--task", task, "--of", "auto", "--dry-run")
    assert ("its pictures are no sequence, as their names do not count up" in done.stdout) != is_sequence


def test_by_default_only_what_this_program_made_is_linked(session, cli, tmp_path):
    scene = Scene(session, source="manual")
    done = cli("track", "--task", scene.task)
    assert f"no tracks   task {scene.task}: it holds no rectangles to link that this program made" in done.stdout
    report = tmp_path / "report.json"
    done = cli("track", "--task", scene.task, "--of", "auto", "--report", report)
    assert "holds no rectangles to link" in done.stdout
    assert done.exit_code == 0
    told = json.loads(report.read_text())
    assert (told["run"], told["notes"]) == (None, [done.stdout.strip()])
    assert scene.stored(scene.work.jobs[0])["tracks"] == []


def test_rectangles_that_make_no_track_are_told_apart_from_none(session, cli):
    scene = Scene(session)
    done = cli("track", "--task", scene.task, "--of", "auto", "--min-sightings", 9999)
    assert done.exit_code == 0
    assert "rectangles make no track of 9999 sightings or more (--min-sightings, --max-gap)" in done.stdout


FUNCTION = """
import cvat_sdk.auto_annotation as cvataa

spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("person", 0, type="rectangle")])

def detect(context, image):
    return [cvataa.rectangle(0, [10, 10, 40, 60])] if BOXES else []
"""


@pytest.mark.parametrize("boxes", [True, False])
def test_tracks_at_once(session, cli, tmp_path, boxes):
    function = tmp_path / "function.py"
    function.write_text(FUNCTION.replace("BOXES", str(boxes)))
    task = make_video_task(session, frames=6, labels=LABELS)
    words = ("annotate", "--task", task, "--model", f"cvat:{function}", "--track")
    dry = cli(*words, "--dry-run")
    assert "no tracks   a dry run uploads no rectangles that could be linked" in dry.output
    report = tmp_path / "report.json"
    done = cli(*words, "--report", report)
    assert done.exit_code == 0, done.output
    told = json.loads(report.read_text())
    assert told["frames"]["done"] == 6
    assert bool(told["run"] and told["run"] in done.output)
    assert sum(told["track"]["annotations"].values()) == boxes
    assert (told["track"]["run"] not in (None, told["run"])) == boxes
    (work,) = find_work(session, Target("task", task))
    tracks = get_annotations(session, work.jobs[0].id)["tracks"]
    if boxes:
        assert len(tracks) == 1
        assert "6 of 6 linked, 0 skipped\ntracks      1\n" in done.output
        assert "6 rectangles to 1 track\n" in done.output
    else:
        assert tracks == []
        assert f"no tracks   task {task}: it holds no rectangles to link" in done.output


def test_kept_shapes_one_label_and_a_dry_run(session, cli):
    scene = Scene(session)
    (job,) = scene.work.jobs
    before = scene.stored(job)
    dry = cli("track", "--task", scene.task, "--of", "auto", "--dry-run")
    assert "would be removed" in dry.stdout
    assert scene.stored(job) == before
    cli("track", "--task", scene.task, "--of", "auto", "--label", "car", "--keep-shapes")
    after = scene.stored(job)
    assert len(after["shapes"]) == len(before["shapes"])
    assert {track["label_id"] for track in after["tracks"]} == {scene.ids["car"]}
    cli("track", "--task", scene.task, "--of", "auto", "--label", "person")  # other rectangles
    assert {track["label_id"] for track in scene.stored(job)["tracks"]} == set(scene.ids.values())


def test_a_label_that_is_not_there(session, cli):
    scene = Scene(session)
    wrong = cli("track", "--task", scene.task, "--label", "bus", code=2)
    assert "it has no label 'bus', allowed: person, car" in str(wrong.exception)


def test_looks_are_asked_of_a_reidentifier(session, cli, assets):
    scene = Scene(session)
    model = f"local:{assets}/weights/osnet_x0_25_msmt17.onnx"
    words = ["--of", "auto", "--label", "person", "--dry-run", "--reid", model]
    for more in ([], ["-p", "kind=reid"]):  # what --reid says already may be said
        done = cli("track", "--task", scene.task, *words, *more)
        assert "person" in done.stdout
    done = cli("track", "--task", scene.task, "--of", "auto", "--reid", "opencv:face", code=4)
    assert "of the kind detector, allowed here: reid" in str(done.exception)
    other = ("--reid", f"local:{assets}/weights/yolox_nano_416.onnx", "-p", "kind=detector")
    done = cli("track", "--task", scene.task, "--of", "auto", *other, code=4)
    assert "of the kind detector, allowed here: reid" in str(done.exception)


def test_options_of_no_model_are_refused(sandbox, cli):
    before = len(sandbox.requests)
    done = cli("track", "--task", 1, "-p", "kind=reid", code=2)
    assert str(done.exception) == "-p 'kind=reid': got no --reid, allowed: with --reid REF, whose options they are"
    assert len(sandbox.requests) == before


def test_a_reidentifier_of_service_toml_is_known_to_be_one(session, cli, assets, tmp_path):
    scene = Scene(session)
    config = tmp_path / "service.toml"
    config.write_text(f'[[models]]\nid = "looks"\nmodel = "local:{assets}/weights/osnet_x0_25_msmt17.onnx"\n')
    words = ["--of", "auto", "--label", "person", "--dry-run", "--reid", "looks", "--config", config]
    assert "person" in cli("track", "--task", scene.task, *words).stdout


@pytest.mark.parametrize("where", ["before", "after"])
def test_faults_double_nothing(sandbox, session, cli, where):
    scene = Scene(session, segment_size=30, overlap=0)
    clean = Scene(session, segment_size=30, overlap=0)
    cli("track", "--task", clean.task, "--of", "auto")
    sandbox.faults.add(path="/annotations", status=500, when=where, probability=0.3, seed=4)
    cli("track", "--task", scene.task, "--of", "auto")
    for one, other in zip(clean.work.jobs, scene.work.jobs, strict=True):
        assert len(clean.stored(one)["tracks"]) == len(scene.stored(other)["tracks"])


MOVING = """
import sys
sys.path.insert(0, {root!r})
import cvat_sdk.auto_annotation as cvataa
import numpy as np
from tests.support.material import number_of

spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    left = 2.0 * number_of(np.asarray(image.convert("RGB")))
    return [cvataa.rectangle(0, [left, 5.0, left + 30, 40.0])]
"""


def test_annotate_and_link_in_one_go(session, cli, tmp_path):
    function = tmp_path / "moving.py"
    function.write_text(MOVING.format(root=str(Path(__file__).parents[2])))
    task = make_video_task(session, frames=20, labels=[{"name": "thing"}])
    done = cli("annotate", "--task", task, "--model", f"cvat:{function}", "--track")
    assert done.exit_code == 0, done.output
    (work,) = find_work(session, Target("task", task))
    stored = get_annotations(session, work.jobs[0].id)
    assert stored["shapes"] == []
    (track,) = stored["tracks"]
    frames = [shape["frame"] for shape in track["shapes"]]
    assert (frames[0], frames[-1]) == (0, 19)
    assert len(frames) <= 4


def test_what_was_linked_and_kept_is_not_linked_again(session, cli, tmp_path):
    scene = Scene(session)
    report = tmp_path / "report.json"
    cli("track", "--task", scene.task, "--of", "auto", "--keep-shapes", "--report", report)
    run = json.loads(report.read_text())["run"]
    again = cli("track", "--task", scene.task, "--of", "auto", code=2)
    assert f"run {run} of `track`: it has linked these rectangles, and kept them; undo it first" in str(again.exception)
    resumed = cli("runs", "resume", run, code=2)
    assert "cannot go on in the middle" in str(resumed.exception)
    cli("runs", "undo", run)
    assert cli("track", "--task", scene.task, "--of", "auto").exit_code == 0


def groups_of(session, cli, tmp_path, of_rectangles, others, *words, frames=6):
    """(the tracks, what else the job holds, the report's notes) of one thing with these groups, frame by frame."""
    labels = [{"name": "person", "type": "rectangle"}, {"name": "rest", "type": "any"}]
    task = make_video_task(session, frames=frames, labels=labels)
    (work,) = find_work(session, Target("task", task))
    ids = {label.name: label.id for label in work.labels}
    common = {"type": "rectangle", "label_id": ids["person"], "source": "auto", "points": [10, 10, 90, 90]}
    shapes = [{**common, "frame": frame, "group": group} for frame, group in enumerate(of_rectangles)]
    shapes += [
        {
            "type": "polygon", "label_id": ids["rest"], "source": "manual", "points": [9, 9, 50, 9, 9, 50],
            "frame": frame, "group": group,
        }
        for frame, group in others
    ]  # fmt: skip
    create(session, work.jobs[0].id, {"shapes": shapes})
    report = tmp_path / "report.json"
    cli("track", "--task", task, "--of", "auto", "--label", "person", "--report", report, *words)
    stored = get_annotations(session, work.jobs[0].id)
    return stored["tracks"], stored["shapes"], "\n".join(json.loads(report.read_text())["notes"])


def test_a_track_is_in_its_rectangles_group(session, cli, tmp_path):
    """Also where some of them are in none: what is grouped with them stays so."""
    for groups in ([4] * 6, [0, 0, 4, 0, 0, 0]):
        (track,), (polygon,), notes = groups_of(session, cli, tmp_path, groups, [(2, 4)])
        assert track["group"] == polygon["group"] == 4
        assert "group" not in notes
    (track,), _, notes = groups_of(session, cli, tmp_path, [0] * 6, [(2, 4)])
    assert track["group"] == 0
    assert "group" not in notes


def test_rectangles_of_several_groups_and_what_is_parted_by_that_are_told(session, cli, tmp_path):
    mixed = "1 track is of rectangles of several groups, and in the one that most of them were in"
    parted = "rectangles were grouped with something that the track is not grouped with any more"
    (track,), shapes, notes = groups_of(session, cli, tmp_path, [1, 2, 2, 3, 3, 3], [(1, 2), (2, 2), (5, 3)])
    assert track["group"] == 3
    assert mixed in notes
    assert f"2 {parted}" in notes
    assert sorted(shape["group"] for shape in shapes) == [2, 2, 3]
    _, shapes, notes = groups_of(session, cli, tmp_path, [1, 2, 2, 3, 3, 3], [(1, 2)], "--keep-shapes")
    assert len(shapes) == 7
    assert mixed in notes
    assert "any more" not in notes
    _, _, notes = groups_of(session, cli, tmp_path, [1, 1, 1, 2, 2, 2], [])
    assert mixed in notes
    assert "any more" not in notes  # nobody else was in them


def test_things_that_a_detector_groups_on_each_frame_stay_together(session, cli, tmp_path):
    """Its groups have other numbers on each frame; and every job has groups of its own."""
    labels = [{"name": "person", "type": "rectangle"}, {"name": "bag", "type": "rectangle"}]
    task = make_video_task(session, frames=20, labels=labels, segment_size=10, overlap=0)
    (work,) = find_work(session, Target("task", task))
    for job in work.jobs:
        shapes = [
            {
                "type": "rectangle", "label_id": label.id, "frame": frame, "source": "auto", "points": points,
                "group": 1000 * frame + 1,
            }
            for frame in job.frames
            for label, points in zip(work.labels, ([10, 10, 90, 200], [50, 100, 120, 160]), strict=True)
        ]  # fmt: skip
        create(session, job.id, {"shapes": shapes})
    done = cli("track", "--task", task, "--of", "auto")
    assert "4 tracks are of rectangles of several groups" in done.stdout
    assert "any more" not in done.stdout
    for job, group in zip(work.jobs, (1, 10001), strict=True):
        tracks = get_annotations(session, job.id)["tracks"]
        assert [(track["label_id"], track["group"]) for track in tracks] == [(label.id, group) for label in work.labels]

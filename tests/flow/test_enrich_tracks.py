"""Tracks that a task has, looked at again through the command."""

import json

import pytest
from click.testing import CliRunner

from agent.cli import command
from agent.cvat.annotations_api import create, get_annotations, update
from agent.cvat.work import find_work
from agent.enrich.places import LOOKS, EnrichOptions
from agent.enrich.runs import enrich_target
from agent.errors import BadRequest
from agent.options import Target
from agent.runs.surroundings import Surroundings
from tests.support.looking import install
from tests.support.material import make_video_task

SELECT = {"name": "color", "mutable": False, "input_type": "select", "default_value": "white"}
SELECT |= {"values": ["white", "red", "blue"]}
STATE = {**SELECT, "name": "state", "mutable": True}
PLATE = {"name": "plate", "mutable": False, "input_type": "text", "default_value": "?", "values": []}
WHO = {"name": "who", "mutable": True, "input_type": "number", "default_value": "0", "values": ["0", "99", "1"]}
LABELS = [
    {"name": "car", "type": "rectangle", "attributes": [SELECT, STATE, PLATE, WHO]},
    {"name": "bus", "type": "rectangle", "attributes": [SELECT]},
    {"name": "area", "type": "polygon"},
]
FRAMES = 24


@pytest.fixture
def cli(sandbox, tmp_path, monkeypatch):
    install(tmp_path / "site", monkeypatch)

    def run(*words, fails=False):
        args = [*words, "--server-host", sandbox.url, "--auth", "bot:secret"]
        if words[:2] != ("runs", "restore"):
            args += ["--ledger", tmp_path / "ledger.sqlite3"]
        done = CliRunner().invoke(command, [str(word) for word in args], catch_exceptions=fails)
        assert fails or done.exit_code == 0, done.output
        return done

    return run


class Scene:
    """A video task with tracks; `keyframes` are (frame, outside) of each."""

    def __init__(self, session, *keyframes, source="auto", label="car", points=(10, 8, 60, 40), **task):
        self.session = session
        self.task = make_video_task(session, frames=FRAMES, labels=LABELS, **task)
        (self.work,) = find_work(session, Target("task", self.task))
        self.ids = {label.name: label.id for label in self.work.labels}
        self.specs = {a.id: a.name for label in self.work.labels for a in label.attributes}
        for frames in keyframes:
            self.add(frames, source=source, label=label, points=points)

    def add(self, keyframes, *, job=0, source="auto", label="car", points=(10, 8, 60, 40)):
        shapes = [
            {"type": "rectangle", "frame": frame, "outside": outside, "points": points, "attributes": []}
            for frame, outside in keyframes
        ]
        track = {
            "frame": keyframes[0][0], "label_id": self.ids[label], "source": source, "group": 3, "attributes": [],
            "shapes": shapes,
        }  # fmt: skip
        (made,) = create(self.session, self.work.jobs[job].id, {"tracks": [track]})["tracks"]
        return made["id"]

    def tracks(self, job=0):
        stored = get_annotations(self.session, self.work.jobs[job].id)["tracks"]
        return sorted(stored, key=lambda track: track["id"])

    def values(self, item):
        return {self.specs[a["spec_id"]]: a["value"] for a in item["attributes"]}

    def at_keyframes(self, track, name):
        return {shape["frame"]: self.values(shape)[name] for shape in track["shapes"]}


def look(scene, said, gives="attribute", *words, of="all"):
    return ("enrich", "--task", scene.task, "--model", f"looking:{said}", "--gives", gives, "--of", of, *words)


def without_values(track):
    """All but what is looked for: ids, keyframes, places, source, group."""
    return {**track, "attributes": [], "shapes": [{**shape, "attributes": []} for shape in track["shapes"]]}


ALWAYS = [(0, False)]


def test_what_cannot_change_is_told_once_by_the_looks_that_are_surest_together(session, cli):
    """Four weak reds and a blue one that is sure, and then the same with less trust in it."""
    scene = Scene(session, [(0, False), (1, False), (2, False), (3, False), (4, False), (5, True)], source="manual")
    (before,) = scene.tracks()
    cli(*look(scene, "tags/red@0.2,red@0.2,blue@0.9,red@0.2,red@0.2", "attribute", "--attribute", "color"))
    (after,) = scene.tracks()
    assert scene.values(after)["color"] == "blue"
    assert without_values(after) == without_values(before)
    done = cli(*look(scene, "tags/red@0.2,red@0.2,blue@0.7,red@0.2,red@0.2", "attribute", "--attribute", "color"))
    (after,) = scene.tracks()
    assert scene.values(after)["color"] == "red"
    assert "5 of 5 looked at" in done.output
    assert "looked at   0 shapes, and 1 track in 5 places" in done.output
    assert "changed     1\n  car       1" in done.output


def test_a_long_track_is_looked_at_on_few_frames_all_over_it(session, cli):
    """Two keyframes: the frames between are looked at as CVAT draws them, and none where it is outside."""
    scene = Scene(session, [(0, False), (20, True)])
    done = cli(*look(scene, "tags/" + "blue," * 10 + "red", "attribute", "--attribute", "color"))
    assert f"{LOOKS} of {LOOKS} looked at" in done.output
    (track,) = scene.tracks()
    assert scene.values(track)["color"] == "blue"  # at 4 of 8, and at the first keyframe
    scene = Scene(session, [(frame, False) for frame in range(FRAMES)])
    done = cli(*look(scene, "tags/" + "red," * 15 + "blue", "attribute", "--attribute", "color"))
    assert f"{LOOKS} of {LOOKS} looked at" in done.output
    (track,) = scene.tracks()
    assert scene.values(track)["color"] == "red"


def test_what_can_change_is_told_at_keyframes_and_holds_until_the_next_word(session, cli):
    scene = Scene(session, [(0, False), (4, False), (8, False), (12, True), (16, False), (20, False)])
    said = ",".join({0: "red", 4: "-", 8: "blue", 16: "blue", 20: "green"}.get(frame, "white") for frame in range(24))
    done = cli(*look(scene, f"tags/{said}", "attribute", "--attribute", "state"))
    (track,) = scene.tracks()
    assert scene.at_keyframes(track, "state") == {
        0: "red", 4: "red", 8: "blue", 12: "blue", 16: "blue", 20: "blue",
    }  # fmt: skip
    assert "5 of 5 looked at" in done.output
    assert "state: got 'green', allowed: white, red, blue" in done.output


def test_nobodys_word_is_carried_over_somebody_elses(session, cli):
    """At a keyframe where nothing is found the value that somebody set there stays."""
    scene = Scene(session, [(0, False), (4, False), (8, False)])
    (track,) = scene.tracks()
    state = next(spec for spec, name in scene.specs.items() if name == "state")
    track["shapes"][1]["attributes"] = [{"spec_id": state, "value": "blue"}]
    track["shapes"][2]["attributes"] = [{"spec_id": state, "value": "blue"}]
    update(session, scene.work.jobs[0].id, {"tracks": [track]})
    cli(*look(scene, "tags/red,-", "attribute", "--attribute", "state"))
    (track,) = scene.tracks()
    assert scene.at_keyframes(track, "state") == {0: "red", 4: "blue", 8: "blue"}


def test_a_text_that_is_read_now_and_then(session, cli):
    """What cannot be read says nothing; where nothing can be read, that is the text."""
    scene = Scene(session, [(frame, False) for frame in range(8)])
    cli(*look(scene, "texts/,,,AB-12,,A8-12,AB-12,", "text", "--attribute", "plate"))
    (track,) = scene.tracks()
    assert scene.values(track)["plate"] == "AB-12"
    cli(*look(scene, "texts/", "text", "--attribute", "plate"))
    (track,) = scene.tracks()
    assert scene.values(track)["plate"] == ""


def test_of_two_texts_read_once_the_larger_view_counts(session, cli):
    scene = Scene(session)
    scene.add([(0, False), (1, False), (2, True)])
    (track,) = scene.tracks()
    track["shapes"][1]["points"] = [10, 8, 110, 80]
    update(session, scene.work.jobs[0].id, {"tracks": [track]})
    cli(*look(scene, "texts/far,near", "text", "--attribute", "plate"))
    (track,) = scene.tracks()
    assert scene.values(track)["plate"] == "near"


def test_another_label_for_a_whole_track(session, cli):
    """Looks that are for the label it has count too; attributes are those of the new one."""
    scene = Scene(session, [*((frame, False) for frame in range(5)), (5, True)])
    (before,) = scene.tracks()
    done = cli(*look(scene, "tags/car,bus,car,bus,car", "label"))
    assert scene.tracks() == [before]
    assert "changed     0" in done.output
    cli(*look(scene, "tags/car,bus,bus,bus,car", "label"))
    (after,) = scene.tracks()
    assert after["label_id"] == scene.ids["bus"]
    assert scene.values(after) == {"color": "white"}
    assert [shape["points"] for shape in after["shapes"]] == [shape["points"] for shape in before["shapes"]]
    done = cli(*look(scene, "tags/area", "label"))
    assert "label 'area' takes no rectangle" in done.output
    assert scene.tracks() == [after]


def test_one_number_for_each_thing_over_its_tracks_and_shapes(session, cli):
    """Two tracks beside each other, one of which comes back in the next job, and a shape of it there."""
    scene = Scene(session, segment_size=12, overlap=0)
    left, right = (10, 8, 60, 40), (110, 8, 160, 40)
    scene.add([(0, False), (6, False), (9, True)], points=left)
    scene.add([(2, False), (11, False)], points=right)
    scene.add([(12, False), (18, True)], job=1, points=left)
    shape = {"type": "rectangle", "frame": 20, "label_id": scene.ids["car"], "points": left, "source": "manual"}
    create(session, scene.work.jobs[1].id, {"shapes": [shape]})
    done = cli(*look(scene, "looks/", "identity", "--attribute", "who"))
    assert "identities  2 in 1 shapes and 3 tracks" in done.output
    one, other = scene.tracks()
    assert set(scene.at_keyframes(one, "who").values()) == {"1"}
    assert set(scene.at_keyframes(other, "who").values()) == {"2"}
    (again,) = scene.tracks(1)
    assert set(scene.at_keyframes(again, "who").values()) == {"1"}
    (shape,) = get_annotations(session, scene.work.jobs[1].id)["shapes"]
    assert scene.values(shape)["who"] == "1"


def test_two_tracks_that_are_there_at_once_are_two(session, cli):
    """However alike, and though they are looked at on different frames."""
    scene = Scene(session, [(0, False), (10, False), (11, True)], [(5, False), (20, False)])
    done = cli(*look(scene, "looks/", "identity", "--attribute", "who"))
    assert "identities  2 in 0 shapes and 2 tracks" in done.output
    scene = Scene(session, [(0, False), (10, True)], [(10, False), (20, False)])
    done = cli(*look(scene, "looks/", "identity", "--attribute", "who"))
    assert "identities  1 in 0 shapes and 2 tracks" in done.output


def test_whose_tracks_are_looked_at_and_of_which_label(session, cli):
    scene = Scene(session)
    scene.add(ALWAYS, source="manual")
    scene.add(ALWAYS, source="auto")
    scene.add(ALWAYS, source="auto", label="bus")
    words = ("attribute", "--attribute", "color")
    cli(*look(scene, "tags/red", *words, "--label", "car", of="auto"))
    assert [scene.values(track)["color"] for track in scene.tracks()] == ["white", "red", "white"]
    done = cli(*look(scene, "tags/blue", *words, of="own"))
    assert "it holds no shapes or tracks to look at that this program made and nobody changed" in done.output
    before = scene.tracks()
    done = cli(*look(scene, "tags/blue", *words, "--dry-run"))
    assert "dry run     nothing was sent" in done.output
    assert "changed     3" in done.output
    assert scene.tracks() == before


def rectangles(session, scene):
    """A model's rectangle of a car on each frame of the one job, which is given."""
    (job,) = scene.work.jobs
    shapes = [
        {"type": "rectangle", "frame": f, "label_id": scene.ids["car"], "points": [f, 8, 60 + f, 40], "source": "auto"}
        for f in range(12)
    ]
    create(session, job.id, {"shapes": shapes})
    return job


def test_tracks_that_were_linked_before_are_ones_own(session, cli):
    scene = Scene(session)
    rectangles(session, scene)
    cli("track", "--task", scene.task, "--of", "auto")
    scene.add(ALWAYS)
    cli(*look(scene, "tags/red", "attribute", "--attribute", "color", of="own"))
    assert [scene.values(track)["color"] for track in scene.tracks()] == ["red", "white"]


def test_masks_and_skeletons_take_no_tracks_place(session, cli):
    scene = Scene(session, ALWAYS)
    words = ("enrich", "--task", scene.task, "--model", "opencv:grabcut", "--gives", "mask", "--of", "all")
    told = "1 track is not looked at: a mask takes the place of a shape on one frame, not of a track"
    done = cli(*words)
    assert done.output.rstrip().endswith(f"it holds no rectangles to look at; {told}")


def restored(cli, report):
    """What `runs restore --values` says of each backup of a run."""
    told = []
    for note in json.loads(report.read_text())["notes"]:
        if note.startswith("backup"):
            told.append(cli("runs", "restore", note.split(": ", 1)[1], "--values").output)
    return told


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("tags/red,blue", ("attribute", "--attribute", "state")),
        ("tags/red", ("attribute", "--attribute", "color")),
        ("tags/bus", ("label",)),
        ("looks/", ("identity", "--attribute", "who")),
    ],
    ids=["at keyframes", "once", "label", "identity"],
)
def test_old_values_come_back_from_the_backup(session, cli, tmp_path, said, words):
    scene = Scene(session, [(0, False), (4, False), (9, True)], [(2, False), (20, False)])
    before, report = scene.tracks(), tmp_path / "report.json"
    done = cli(*look(scene, said, *words, "--report", report))
    run = json.loads(report.read_text())["run"]
    back = f"`cvat-sidecar runs restore {run} --values --ledger {tmp_path / 'ledger.sqlite3'}`"
    assert f"({back} brings the old values back)" in done.output
    assert scene.tracks() != before
    undone = cli("runs", "undo", run, fails=True)
    assert f"it changed values of what was there; {back}" in str(undone.exception)
    # Somebody adds a keyframe in the meantime: it stays, and has the values that were there before.
    track = scene.tracks()[0]
    more = {**track["shapes"][0], "frame": 2, "points": [11, 9, 61, 41], "id": None}
    update(session, scene.work.jobs[0].id, {"tracks": [{**track, "shapes": [*track["shapes"], more]}]})
    (told,) = restored(cli, report)
    assert "2 have their old labels and attributes again" in told
    after = scene.tracks()
    assert [shape["frame"] for shape in after[0]["shapes"]] == [0, 2, 4, 9]
    del after[0]["shapes"][1]
    assert after == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_answers_that_are_lost_change_nothing(sandbox, session, cli, when):
    """An update is asked for again, and each track is there once, under its old id."""
    scene = Scene(session, *[[(0, False), (n + 1, False)] for n in range(6)])
    before = scene.tracks()
    sandbox.faults.add(path="/annotations", method="PATCH", status=502, when=when, count=2)
    cli(*look(scene, "tags/red", "attribute", "--attribute", "color"))
    after = scene.tracks()
    assert list(map(without_values, after)) == list(map(without_values, before))
    assert [scene.values(track)["color"] for track in after] == ["red"] * 6


def test_what_somebody_changes_meanwhile_stays(session, cli, tmp_path):
    scene = Scene(session, [(0, False), (4, False)], [(1, False), (5, False)])
    track = scene.tracks()[0]
    track["shapes"][1]["points"] = [20, 20, 80, 60]

    def change(run, plans):
        update(session, scene.work.jobs[0].id, {"tracks": [track]})

    from agent.compose.named import opener_for

    around = Surroundings(server=session.settings, ledger=tmp_path / "ledger.sqlite3", started=change)
    options = EnrichOptions(model="looking:tags/red", gives="attribute", attribute="color", of="all")
    report = enrich_target(Target("task", scene.task), options, around, device="cpu", params={}, opener=opener_for(()))
    assert report.refused == {"somebody changed it meanwhile": 1}
    changed, other = scene.tracks()
    assert changed["shapes"][1]["points"] == [20, 20, 80, 60]
    assert [scene.values(one)["color"] for one in (changed, other)] == ["white", "red"]


def test_tracks_in_the_frames_that_two_jobs_share(session, cli):
    """A part that is nowhere else is looked at there; each part is told for itself."""
    scene = Scene(session, segment_size=14, overlap=4)
    first, second = scene.work.jobs
    assert (first.stop, second.start) == (13, 10)
    scene.add([(2, False), (13, False)])
    scene.add([(10, False), (12, True)], job=1)
    cli(*look(scene, "tags/" + "red," * 10 + "blue", "attribute", "--attribute", "color"))
    assert [scene.values(track)["color"] for track in (*scene.tracks(0), *scene.tracks(1))] == ["red", "blue"]


def test_an_attribute_that_the_tracks_label_lacks(session, cli):
    scene = Scene(session, ALWAYS, label="bus")
    scene.add(ALWAYS)
    before = scene.tracks()[0]
    done = cli(*look(scene, "tags/red", "attribute", "--attribute", "state"))
    assert "label 'bus' has no attribute 'state'" in done.output
    assert scene.tracks()[0] == before
    assert set(scene.at_keyframes(scene.tracks()[1], "state").values()) == {"red"}
    with pytest.raises(BadRequest, match="its labels have no attribute 'size'"):
        cli(*look(scene, "tags/red", "attribute", "--attribute", "size"))


def test_what_was_filled_by_ourselves_is_still_ones_own(session, cli, tmp_path):
    """Linked, looked at twice, and taken back by the run that made it: nobody else has changed it in between."""
    scene = Scene(session)
    rectangles(session, scene)
    reports = [tmp_path / f"{number}.json" for number in range(4)]
    cli("track", "--task", scene.task, "--of", "auto", "--report", reports[0])
    scene.add(ALWAYS)
    words = [
        ("tags/red", "--attribute", "color"),
        ("tags/blue", "--attribute", "state"),
        ("tags/red", "--attribute", "state"),
    ]
    for report, (said, *more) in zip(reports[1:], words, strict=True):
        cli(*look(scene, said, "attribute", *more, "--report", report, of="own"))
    made, other = scene.tracks()
    assert (scene.values(made)["color"], scene.values(other)["color"]) == ("red", "white")
    assert set(scene.at_keyframes(made, "state").values()) == {"red"}
    restored(cli, reports[3])
    assert set(scene.at_keyframes(scene.tracks()[0], "state").values()) == {"blue"}
    done = cli("runs", "undo", json.loads(reports[0].read_text())["run"])
    assert "1 annotations removed" in done.output
    assert scene.tracks() == [other]


def test_what_somebody_has_changed_is_not_ones_own_again(session, cli, tmp_path):
    scene = Scene(session)
    job = rectangles(session, scene)
    cli("track", "--task", scene.task, "--of", "auto")
    (track,) = scene.tracks()
    track["shapes"][0]["points"] = [1, 9, 70, 44]
    update(session, job.id, {"tracks": [track]})
    words = ("attribute", "--attribute", "color")
    cli(*look(scene, "tags/red", *words, of="all"))
    assert scene.values(scene.tracks()[0])["color"] == "red"
    done = cli(*look(scene, "tags/blue", *words, of="own"))
    assert "that this program made and nobody changed" in done.output


SKELETON = {
    "name": "person", "type": "skeleton", "attributes": [SELECT],
    "sublabels": [{"name": "head", "type": "points"}, {"name": "foot", "type": "points"}],
    "svg": '<line x1="10" y1="10" x2="20" y2="20" data-type="edge" data-node-from="1" data-node-to="2"></line>'
    '<circle r="1" cx="10" cy="10" data-type="element node" data-element-id="1" data-node-id="1"'
    ' data-label-name="head"></circle>'
    '<circle r="1" cx="20" cy="20" data-type="element node" data-element-id="2" data-node-id="2"'
    ' data-label-name="foot"></circle>',
}  # fmt: skip


def test_tracks_of_skeletons(session, cli):
    """Their place is that of their points; they keep their label, as the points are of it."""
    task = make_video_task(session, frames=10, labels=[SKELETON, {"name": "bus", "type": "rectangle"}])
    (work,) = find_work(session, Target("task", task))
    person, job = work.labels[0], work.jobs[0].id

    def part(label, kind, *points):
        shapes = [
            {"type": kind, "frame": frame, "outside": False, "points": list(points), "attributes": []}
            for frame in (0, 6)
        ]
        return {"frame": 0, "label_id": label, "source": "auto", "attributes": [], "shapes": shapes}

    elements = [part(sub.id, "points", *at) for sub, at in zip(person.sublabels, ((150, 20), (190, 90)), strict=True)]
    create(session, job, {"tracks": [{**part(person.id, "skeleton"), "elements": elements}]})
    (before,) = get_annotations(session, job)["tracks"]
    words = ("enrich", "--task", task, "--of", "all")
    cli(*words, "--model", "looking:tags/blue", "--gives", "attribute", "--attribute", "color")
    (after,) = get_annotations(session, job)["tracks"]
    assert [a["value"] for a in after["attributes"]] == ["blue"]
    assert {**after, "attributes": []} == {**before, "attributes": []}
    done = cli(*words, "--model", "looking:tags/bus", "--gives", "label")
    assert "the points of a skeleton are its label's, which it keeps" in done.output
    assert get_annotations(session, job)["tracks"] == [after]

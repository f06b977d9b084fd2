"""Runs that stop half way and go on: what they replace, what they count, and who may work on them."""

import json
import threading
from dataclasses import replace

import pytest

from agent.cli import main
from agent.commands.report_file import ReportFile
from agent.commands.running import watch_run
from agent.cvat.annotations_api import create, get_annotations
from agent.cvat.work import find_work
from agent.errors import BadRequest, ConfigError, RequestCancelled, ServerError
from agent.ledger.ledger import Ledger
from agent.options import Options, Target
from agent.plan import frames_by_job
from agent.report import RunReport
from agent.runs.running import Surroundings, resume, start
from agent.runs.undo import undo_run
from agent.survey import Surveyor
from tests.support.material import make_image_task

FUNCTION = """
import cvat_sdk.auto_annotation as cvataa

spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    return [cvataa.rectangle(0, [1, 2, 90, 80]), cvataa.rectangle(0, [5, 5, 5, 5])]
"""


@pytest.fixture
def task(session):
    return make_image_task(session, count=6)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        yield ledger


class Runs:
    """Runs on a task, which stop as if by Ctrl-C once `stop_after` frames are done."""

    def __init__(self, session, task, ledger, folder):
        self.session, self.task, self.ledger = session, task, ledger
        self.model = folder / "function.py"
        self.model.write_text(FUNCTION)

    def around(self, stop_after=None):
        stop = threading.Event()

        def progress(done, total):
            if stop_after is not None and done >= stop_after:
                stop.set()

        return Surroundings(server=self.session.settings, ledger=self.ledger.path, stop=stop, progress=progress)

    def start(self, stop_after=None, dry_run=False, **options):
        values = Options(model=f"cvat:{self.model}", **options)
        return start(Target("task", self.task), values, self.around(stop_after), dry_run=dry_run)

    def interrupted(self, stop_after=2, **options):
        """The id of a run that stopped there."""
        with pytest.raises(RequestCancelled):
            self.start(stop_after, **options)
        record = self.ledger.runs()[0]
        assert record.status == "interrupted"
        return record.id

    def job(self):
        ((job,),) = (part.jobs for part in find_work(self.session, Target("task", self.task)))
        return job.id

    def stored(self):
        return get_annotations(self.session, self.job())

    def draw(self, **more):
        (work,) = find_work(self.session, Target("task", self.task))
        shape = {"type": "rectangle", "points": [5, 5, 30, 30], "frame": 0, "outside": False, "occluded": False}
        track = {"label_id": work.labels[0].id, "frame": 0, "source": "manual", "shapes": [shape], "attributes": []}
        create(self.session, self.job(), {"tracks": [track]})


@pytest.fixture
def runs(session, task, ledger, tmp_path):
    return Runs(session, task, ledger, tmp_path)


def test_a_resumed_run_replaces_the_tracks_too(runs):
    runs.draw()
    run = runs.interrupted(replace="all")
    report = resume(run, runs.around())
    stored = runs.stored()
    assert (len(stored["shapes"]), len(stored["tracks"])) == (6, 0)
    assert report.removed == 1


def test_tracks_are_replaced_although_the_last_frame_is_bad(runs, sandbox):
    runs.draw()
    text = FUNCTION.replace("    return", '    assert "5" not in context.frame_name\n    return')
    runs.model.write_text(text)
    runs.start(replace="all")
    stored = runs.stored()
    assert (len(stored["shapes"]), len(stored["tracks"])) == (5, 0)


def test_what_was_replaced_is_counted(runs):
    runs.start()
    assert runs.start(replace="own").removed == 6


def test_the_report_of_a_resumed_run_counts_all_frames_and_says_what_it_cannot_know(runs):
    report = resume(runs.interrupted(), runs.around())
    assert (report.done, report.total, report.annotations.total()) == (6, 6, 6)
    assert report.refused["without area"] == 6 - 2
    assert any("before" in note for note in report.notes)


def test_a_run_that_is_gone_on_with_is_running(runs):
    number = runs.interrupted()
    seen = []
    around = replace(runs.around(), progress=lambda done, total: seen.append(runs.ledger.run(number).status))
    resume(number, around)
    assert (set(seen), runs.ledger.run(number).status) == ({"running"}, "done")


def test_a_dry_run_leaves_room_as_the_real_one_does(runs):
    runs.start()
    report = runs.start(dry_run=True, replace="own", skip_overlapping=0.5)
    assert report.annotations.total() == 6
    assert not (runs.ledger.path.parent / "backups").exists()


def test_a_run_that_another_process_is_working_on_is_refused_before_anything_is_planned(runs, sandbox):
    run = runs.interrupted()
    asked = len(sandbox.requests)
    with runs.ledger.hold(run), pytest.raises(BadRequest, match="another process"):
        resume(run, runs.around())
    assert len(sandbox.requests) == asked


def test_no_thread_is_left_when_recovery_fails(runs):
    run = runs.interrupted()
    payload = {"shapes": [{**runs.stored()["shapes"][0], "label_id": 999_999, "frame": 3}]}
    runs.ledger.write_upload(run, runs.job(), [3], payload, {"shapes": 10**6}, [])
    before = {thread for thread in threading.enumerate() if thread.name == "upload"}
    with pytest.raises(ServerError):
        resume(run, runs.around())
    assert {thread for thread in threading.enumerate() if thread.name == "upload"} == before


def test_after_ctrl_c_a_lost_answer_is_left_to_the_resumed_run(runs, sandbox):
    """Once asked to stop, the waiting between two looks is over, so nothing may be sent again."""
    patches = {"method": "PATCH", "path": r"/api/jobs/\d+/annotations"}
    fault = sandbox.faults.add(**patches, cut=True, when="before", count=8)
    run = runs.interrupted()
    assert fault.struck == 1
    sandbox.faults.clear()
    resume(run, runs.around())
    assert len(runs.stored()["shapes"]) == 6


def test_ctrl_c_before_the_first_frame_begins_no_run(runs):
    around = runs.around()
    around.stop.set()
    with pytest.raises(RequestCancelled):
        start(Target("task", runs.task), Options(model=f"cvat:{runs.model}"), around)
    assert runs.ledger.runs() == []


def test_shapes_of_an_overlapping_job_are_in_the_way_too(session, ledger, tmp_path):
    task = make_image_task(session, count=6, segment_size=4, overlap=2)
    (work,) = find_work(session, Target("task", task))
    first, second = work.jobs
    assert 2 in first.frames
    shape = {"type": "rectangle", "frame": 2, "label_id": work.labels[0].id, "points": [1, 2, 90, 80]}
    create(session, second.id, {"shapes": [shape]})
    report = Runs(session, task, ledger, tmp_path).start(skip_overlapping=0.5)
    assert report.annotations.total() == 5


def test_only_the_chosen_frames_are_remembered(runs, session):
    runs.draw()
    (work,) = find_work(session, Target("task", runs.task))
    options = Options(model="x:y", skip_overlapping=0.5)
    survey = Surveyor(session, options, runs.ledger).look(work, {work.jobs[0].id: [4]}, whole=())
    assert set(survey.existing) == {(work.jobs[0].id, 4)}


def test_a_report_that_cannot_be_written_is_told_before_the_run(runs, tmp_path):
    (tmp_path / "file").write_text("")

    def work(around):
        raise AssertionError("it must not begin")

    with pytest.raises(ConfigError, match="--report"):
        watch_run(runs.session.settings, work, None, ReportFile(tmp_path / "file" / "report.json"), None)


@pytest.mark.parametrize("wrong", [{"selection": "nonsense"}, {"label_map": "there-is-none"}])
def test_a_wrong_option_is_told_before_any_request(runs, sandbox, wrong):
    asked = len(sandbox.requests)
    with pytest.raises(ConfigError):
        runs.start(**wrong)
    assert len(sandbox.requests) == asked


def test_long_runs_are_planned_in_linear_time():
    """100,000 frames took hours when each of them looked at all the others."""
    assert frames_by_job((frame // 1000, frame) for frame in range(100_000))[99] == list(range(99_000, 100_000))


def test_a_killed_run_is_listed_with_what_it_has_done(runs, capsys):
    run = runs.ledger.begin(
        server="http://a",
        user="bot",
        target="task 1",
        model="local:m",
        model_version="1",
        options={},
        frames={1: range(9)},
    )
    runs.ledger.write_upload(run, 1, [0, 1, 2], {}, {}, [])

    def told(*words):
        with pytest.raises(SystemExit):
            main(["runs", *words, "--ledger", str(runs.ledger.path)])
        return capsys.readouterr().out

    assert "3/9 frames" in told("list")
    assert f"{run}  " in told("list")
    assert "  broken off   " in told("list")
    shown = told("show", run)
    assert f"run         {run}, broken off\n" in shown
    assert f"nobody works on it: `cvat-sidecar runs resume {run} --ledger {runs.ledger.path}` goes on" in shown
    assert json.loads(told("show", run, "--json"))["status"] == "broken off"
    with runs.ledger.hold(run):
        assert "  running      " in told("list")
        assert f"run         {run}, running\n" in told("show", run)
    runs.ledger.end(run, "interrupted", {})
    assert "  interrupted  " in told("list")


@pytest.mark.parametrize("arrived", [False, True])
def test_own_replaces_what_a_killed_run_sent_without_hearing_the_answer(runs, session, arrived):
    runs.start()
    (shape, *_) = runs.stored()["shapes"]
    killed = runs.ledger.begin(
        server=session.url, user="bot", target=f"task {runs.task}", model="m", model_version="1", options={}, frames={}
    )
    payload = {"shapes": [{**shape, "points": [7, 7, 70, 70]}]}
    runs.ledger.write_upload(killed, runs.job(), [0], payload, {"shapes": shape["id"]}, [])
    if arrived:
        create(session, runs.job(), payload)
    runs.start(replace="own")
    assert [item["points"] for item in runs.stored()["shapes"]] == [[1, 2, 90, 80]] * 6


def test_own_leaves_a_run_alone_that_is_still_going_on(runs, session):
    going = runs.ledger.begin(
        server=session.url, user="bot", target="task 1", model="m", model_version="1", options={}, frames={}
    )
    upload = runs.ledger.write_upload(going, runs.job(), [0], {"shapes": []}, {}, [])
    with runs.ledger.hold(going):
        runs.start(replace="own")
    assert runs.ledger.uploads(going) == [upload]


def test_a_bad_frame_of_two_jobs_counts_twice(runs):
    report = RunReport(total=2)
    report.skip(1, 2, 3, "torn")
    report.skip(1, 9, 3, "torn")
    assert (report.done, len(report.skipped)) == (2, 2)


def test_a_label_that_vanishes_meanwhile_ends_the_run_and_a_resumed_one_does_without_it(session, ledger, tmp_path):
    task = make_image_task(session, count=6, labels=[{"name": "thing"}, {"name": "other"}])
    runs = Runs(session, task, ledger, tmp_path)
    text = FUNCTION.replace('"rectangle")]', '"rectangle"), cvataa.label_spec("other", 1, type="rectangle")]')
    runs.model.write_text(text.replace("return [", "return [cvataa.rectangle(1, [5, 5, 60, 60]), "))
    (work,) = find_work(session, Target("task", task))
    (label,) = (label.id for label in work.labels if label.name == "thing")
    options, around = Options(model=f"cvat:{runs.model}"), runs.around()

    def vanish(done, total):
        if done == 1:
            session.request("DELETE", f"/api/labels/{label}")

    with pytest.raises(ServerError, match="label"):
        start(Target("task", task), options, replace(around, progress=vanish))
    (record,) = ledger.runs()
    assert record.status == "failed"
    assert resume(record.id, runs.around()).annotations == {"other": 6}
    assert len(runs.stored()["shapes"]) == 6


def test_a_task_that_is_deleted_meanwhile_is_a_servers_error_and_can_be_undone(runs, session):
    around = replace(runs.around(), progress=lambda done, total: done == 1 and delete(session, runs.task))
    with pytest.raises(ServerError):
        start(Target("task", runs.task), Options(model=f"cvat:{runs.model}"), around)
    (record,) = runs.ledger.runs()
    assert record.status == "failed"
    assert undo_run(record.id, session.settings, runs.ledger.path).removed == 0


def delete(session, task):
    session.request("DELETE", f"/api/tasks/{task}")

"""Runs that broke off or skipped frames, and what was replaced: told as far as they came, tried again, brought back."""

import json
from collections import Counter

import pytest

from agent.cli import main
from agent.cvat.annotations_api import create, get_annotations
from agent.cvat.work import find_work
from agent.errors import BadRequest
from agent.ledger.content import content_key
from agent.ledger.ledger import Ledger, default_path
from agent.options import Options, Target
from agent.runs.running import Surroundings, resume, start
from tests.support.material import make_image_task

FUNCTION = """
import json, os, pathlib, signal
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("thing", 0, type="rectangle")])

def detect(context, image):
    bad, stop = json.loads(pathlib.Path(__file__).with_name("wish.json").read_text())
    if any(name in context.frame_name for name in bad):
        raise RuntimeError("too much")
    if stop in context.frame_name:
        os.kill(os.getpid(), signal.SIGINT)
    return [a.rectangle(0, [1, 2, 90, 80])]
"""


@pytest.fixture
def task(session):
    return make_image_task(session, count=4)


@pytest.fixture
def job(session, task):
    ((job,),) = (part.jobs for part in find_work(session, Target("task", task)))
    return job.id


@pytest.fixture
def model(tmp_path):
    """Tells the function, always the same one, on which frames to fail, and at which one to be interrupted."""
    path = tmp_path / "function.py"
    path.write_text(FUNCTION)

    def write(bad=(), stop="never"):
        path.with_name("wish.json").write_text(json.dumps([list(bad), stop]))
        return f"cvat:{path}"

    return write


def run(sandbox, *args):
    """The exit code."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, args), "--server-host", sandbox.url, "--auth", "bot:secret"])
    return ended.value.code


def last_run():
    with Ledger() as ledger:
        return ledger.runs()[0]


def frames(session, job):
    return sorted(shape["frame"] for shape in get_annotations(session, job)["shapes"])


class TestSkippedFrames:
    def test_those_of_a_run_that_is_done_are_tried_again(self, sandbox, session, task, job, model, capsys):
        assert run(sandbox, "annotate", "--task", task, "--model", model(["0001", "0003"])) == 1
        number = last_run().id
        assert f"`cvat-sidecar runs resume {number}` tries the skipped frames again" in capsys.readouterr().out
        assert run(sandbox, "runs", "resume", number, "--leave-skipped") == 2, "there is nothing else to do"
        model(["0003"])
        assert run(sandbox, "runs", "resume", number) == 1
        assert frames(session, job) == [0, 1, 2]
        model()
        assert run(sandbox, "runs", "resume", number) == 0
        assert frames(session, job) == [0, 1, 2, 3]
        assert run(sandbox, "runs", "resume", number) == 2, "none is left"

    def test_where_all_failed_they_are_what_is_gone_on_with(self, sandbox, session, task, job, model, capsys):
        assert run(sandbox, "annotate", "--task", task, "--model", model([".jpg"])) == 4
        number = last_run().id
        advice = f"once the reason is gone, `cvat-sidecar runs resume {number}` tries the 4 skipped frames again"
        assert advice in capsys.readouterr().err
        assert run(sandbox, "runs", "resume", number) == 4, "the reason is still there"
        model()
        assert run(sandbox, "runs", "resume", number) == 0
        assert frames(session, job) == [0, 1, 2, 3]
        assert last_run().report["frames"] == {"total": 4, "done": 4, "skipped": {}}

    def test_where_some_failed_both_they_and_the_others_are_gone_on_with(
        self, sandbox, session, task, job, model, capsys
    ):
        args = ("annotate", "--task", task, "--model", model(["0000", "0001"]), "--max-bad-frames", 1)
        assert run(sandbox, *args) == 4
        number = last_run().id
        assert f"`cvat-sidecar runs resume {number}`, which tries the 2 skipped frames again" in capsys.readouterr().err
        model()
        assert run(sandbox, "runs", "resume", number) == 0
        assert frames(session, job) == [0, 1, 2, 3]

    def test_they_can_be_left_where_they_are(self, sandbox, session, task, job, model):
        args = ("annotate", "--task", task, "--model", model(["0000"], stop="0002"))
        assert run(sandbox, *args) == 130
        model()
        assert run(sandbox, "runs", "resume", last_run().id, "--leave-skipped") == 1
        assert frames(session, job) == [1, 2, 3]

    def test_an_undone_run_stays_so(self, session, task, job, model):
        around = Surroundings(server=session.settings)
        report = start(Target("task", task), Options(model=model(["0001"])), around)
        with Ledger() as ledger:
            ledger.end(report.run, "undone", {})
        with pytest.raises(BadRequest, match="it is undone"):
            resume(report.run, around)


class TestInterrupted:
    def test_a_run_that_is_interrupted_leaves_report_and_contact_sheet(
        self, sandbox, session, task, job, model, tmp_path, capfd
    ):
        report, pictures = tmp_path / "report.json", tmp_path / "pictures"
        args = ("--report", report, "--preview", pictures)
        assert run(sandbox, "annotate", "--task", task, "--model", model(stop="0001"), *args) == 130
        values = json.loads(report.read_text())
        assert (values["status"], values["run"]) == ("interrupted", last_run().id)
        assert 0 < values["frames"]["done"] < 4
        assert (pictures / "contact-sheet.jpg").exists()
        said = capfd.readouterr()
        assert f"{values['frames']['done']} of 4 annotated" in said.out
        assert "runs resume" in said.err
        model()
        assert run(sandbox, "runs", "resume", values["run"], "--report", report) == 0
        assert json.loads(report.read_text())["status"] == "done"
        assert frames(session, job) == [0, 1, 2, 3]

    def test_a_run_that_fails_leaves_its_report_too(self, sandbox, session, task, model, tmp_path):
        report = tmp_path / "report.json"
        assert run(sandbox, "annotate", "--task", task, "--model", model([".jpg"]), "--report", report) == 4
        assert json.loads(report.read_text())["status"] == "failed"
        assert len(json.loads(report.read_text())["frames"]["skipped"]) == 4


def test_a_dry_run_tells_how_many_annotations_it_would_remove(sandbox, session, task, job, model, tmp_path, capsys):
    assert run(sandbox, "annotate", "--task", task, "--model", model(), "--replace", "own", "--dry-run") == 0
    assert "replaced    nothing" in capsys.readouterr().out
    assert run(sandbox, "annotate", "--task", task, "--model", model()) == 0
    capsys.readouterr()
    report = tmp_path / "report.json"
    args = ("--replace", "own", "--dry-run", "--frames", "0-2", "--report", report)
    assert run(sandbox, "annotate", "--task", task, "--model", model(), *args) == 0
    assert "replaced    3 earlier annotations would be removed" in capsys.readouterr().out
    values = json.loads(report.read_text())
    assert (values["removed"], values["dry_run"]) == (3, True)
    assert frames(session, job) == [0, 1, 2, 3]


class TestRestore:
    @pytest.fixture
    def backup(self, sandbox, session, task, job, model):
        """The backup of a rectangle, a track and a tag that `--replace all` took away; and what the job held."""
        (work,) = find_work(session, Target("task", task))
        label, bot = work.labels[0].id, {"frame": 0, "label_id": work.labels[0].id}
        box = {"type": "rectangle", "points": [5, 5, 30, 30], "source": "manual"}
        key = {"type": "rectangle", "outside": False, "occluded": False}
        shapes = [{**key, "frame": 0, "points": [5, 5, 9, 9]}, {**key, "frame": 2, "points": [6, 6, 9, 9]}]
        track = {"label_id": label, "frame": 0, "source": "manual", "shapes": shapes, "attributes": []}
        create(session, job, {"shapes": [{**box, **bot}], "tracks": [track], "tags": [bot]})
        before = self.content(session, job)
        assert run(sandbox, "annotate", "--task", task, "--model", model(), "--replace", "all") == 0
        (file,) = (default_path().parent / "backups").iterdir()
        return file, before

    def content(self, session, job):
        stored = get_annotations(session, job)
        return Counter(
            (kind, content_key(item), item["source"]) for kind in ("tags", "shapes", "tracks") for item in stored[kind]
        )

    def test_what_was_replaced_comes_back_once(self, sandbox, session, job, backup, capsys):
        file, before = backup
        assert run(sandbox, "runs", "undo", last_run().id) == 0
        assert not self.content(session, job)
        capsys.readouterr()
        assert run(sandbox, "runs", "restore", file) == 0
        assert "3 annotations brought back (1 tags, 1 shapes, 1 tracks)" in capsys.readouterr().out
        assert self.content(session, job) == before
        assert run(sandbox, "runs", "restore", file) == 0
        assert "0 annotations brought back\n3 were there already" in capsys.readouterr().out
        assert self.content(session, job) == before

    def test_what_a_run_made_stays_and_what_is_missing_comes(self, sandbox, session, job, backup):
        file, before = backup
        assert run(sandbox, "runs", "restore", file) == 0
        found = self.content(session, job)
        assert found.total() == before.total() + 4
        assert before <= found

    def test_a_lost_answer_does_not_double(self, sandbox, session, job, backup, capsys):
        file, before = backup
        run(sandbox, "runs", "undo", last_run().id)
        fault = {"method": "PATCH", "path": rf"/api/jobs/{job}/annotations", "cut": True, "when": "after"}
        sandbox.faults.add(**fault)
        assert run(sandbox, "runs", "restore", file) == 3
        assert "again: what has arrived is not sent twice" in capsys.readouterr().err
        assert run(sandbox, "runs", "restore", file) == 0
        assert self.content(session, job) == before

    def test_a_task_that_is_gone_does_not_keep_the_others_from_theirs(self, sandbox, session, model, capsys):
        made = session.request("POST", "/api/projects", body={"name": "p", "labels": [{"name": "thing"}]})
        project = made.json()["id"]
        tasks = [make_image_task(session, count=1, project=project, labels=None) for _ in range(2)]
        jobs, before = [], []
        for number in tasks:
            (work,) = find_work(session, Target("task", number))
            jobs.append(work.jobs[0].id)
            box = {"type": "rectangle", "points": [5, 5, 30, 30], "source": "manual", "frame": 0}
            create(session, jobs[-1], {"shapes": [{**box, "label_id": work.labels[0].id}]})
            before.append(self.content(session, jobs[-1]))
        assert run(sandbox, "annotate", "--project", project, "--model", model(), "--replace", "all") == 0
        session.request("DELETE", f"/api/tasks/{tasks[0]}")
        assert run(sandbox, "runs", "undo", last_run().id) == 0
        capsys.readouterr()
        assert run(sandbox, "runs", "restore", last_run().id) == 0
        told = capsys.readouterr().out
        assert f"job {jobs[0]} no longer exists" in told
        assert f"job {jobs[1]}: 1 annotations brought back" in told
        assert self.content(session, jobs[1]) == before[1]

    @pytest.mark.parametrize("text", ["", "{}", '{"server": 1, "job": 1, "annotations": {}}', "[1]"])
    def test_what_is_no_backup_is_told(self, sandbox, session, tmp_path, text, capsys):
        file = tmp_path / "no-backup.json"
        file.write_text(text)
        assert run(sandbox, "runs", "restore", file) == 2
        assert "it is no backup of ours" in capsys.readouterr().err

    def test_a_backup_goes_back_where_it_came_from(self, sandbox, session, backup, capsys):
        file, _ = backup
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "server": "http://elsewhere"}))
        assert run(sandbox, "runs", "restore", file) == 2
        assert "it belongs to http://elsewhere, not to" in capsys.readouterr().err


def test_the_list_of_runs_tells_which_rule_it_was(capsys):
    with Ledger() as ledger:
        options = Options(model="m", rule="night").as_json()
        ledger.begin(
            server="http://a", user="bot", target="job 1", model="m", model_version="1", options=options, frames={}
        )
    with pytest.raises(SystemExit):
        main(["runs", "list"])
    assert "m  (rule night)" in capsys.readouterr().out

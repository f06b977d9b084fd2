"""Old runs forgotten: what goes, what stays, what that costs, and how large the ledger is before and after."""

import json
import signal
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import pytest

from agent.cli import main
from agent.cvat.annotations_api import get_annotations, update
from agent.cvat.work import find_work
from agent.errors import RequestCancelled
from agent.ledger.ledger import Ledger, default_path
from agent.ledger.pruning import OldRuns
from agent.ledger.rules import RuleJob, RuleMemory
from agent.options import Options, Target
from agent.runs.running import Surroundings, resume, start
from tests.flow.test_watch import new_task
from tests.support.material import make_image_task
from tests.support.serving import serve, sidecar
from tests.support.watching import boxes, rule, watching

FUNCTION = """
import cvat_sdk.auto_annotation as a

spec = a.DetectionFunctionSpec(labels=[a.label_spec("thing", 0, type="polygon")])

def detect(context, image):
    seed = int(context.frame_name[:4])
    shapes = []
    for n in range(20):
        turns = [0.01 * ((seed * 31 + n * 17 + i * i * 7) % 97) for i in range(200)]
        points = [value + turn for i, turn in enumerate(turns) for value in (i + n, i % 90)]
        shapes.append(a.polygon(0, points))
    return shapes
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "function.py"
    path.write_text(FUNCTION)
    return f"cvat:{path}"


@pytest.fixture
def task(session):
    return make_image_task(session, count=6)


@pytest.fixture
def job(session, task):
    ((job,),) = (part.jobs for part in find_work(session, Target("task", task)))
    return job.id


@pytest.fixture
def command(sandbox, capsys):
    """Runs a command of this machine's ledger, and gives its exit code and what it said."""

    def run(*args, server=False):
        login = ["--server-host", sandbox.url, "--auth", "bot:secret"] if server else []
        with pytest.raises(SystemExit) as ended:
            main([*map(str, args), *login])
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    return run


def annotated(command, task, model, *more):
    code, said = command("annotate", "--task", task, "--model", model, *more, server=True)
    assert code == 0, said
    with Ledger() as ledger:
        return ledger.runs()[0].id


def interrupted(session, options, task, after=2):
    """The id of a run that was stopped once so many frames were done."""
    stop = threading.Event()

    def progress(done, total):
        if done >= after:
            stop.set()

    with pytest.raises(RequestCancelled):
        start(Target("task", task), options, Surroundings(server=session.settings, stop=stop, progress=progress))
    with Ledger() as ledger:
        return ledger.runs()[0].id


def shapes(session, job):
    return get_annotations(session, job)["shapes"]


class TestCommand:
    def test_what_would_go_is_said_and_stays(self, command, session, task, job, model):
        run = annotated(command, task, model)
        code, said = command("runs", "prune", "--older-than", "0d", "--dry-run")
        assert code == 0
        assert f"{run}  " in said
        assert "1 runs and 0 backups would be removed" in said
        assert "`runs undo` could not take back the 120 annotations" in said
        assert command("runs", "undo", run, server=True)[1].startswith(f"run {run}: 120 annotations removed")

    def test_a_run_that_went_cannot_be_undone_and_what_it_made_stays(self, command, session, task, job, model):
        run = annotated(command, task, model)
        code, said = command("runs", "prune", "--older-than", "0d")
        assert (code, "1 runs and 0 backups removed" in said) == (0, True)
        assert "`runs undo` cannot take back the 120 annotations that these runs left in CVAT" in said
        code, said = command("runs", "undo", run, server=True)
        assert (code, "no run of that id" in said) == (2, True)
        assert len(shapes(session, job)) == 120
        annotated(command, task, model, "--replace", "own")
        assert len(shapes(session, job)) == 240, "they are nobody's now, and are not replaced as ours"

    def test_younger_runs_stay(self, command, task, model):
        run = annotated(command, task, model)
        assert "0 runs and 0 backups removed" in command("runs", "prune", "--older-than", "1d")[1]
        assert run in command("runs", "list")[1]

    def test_backups_go_with_their_runs(self, command, session, task, job, model):
        annotated(command, task, model)
        run = annotated(command, task, model, "--replace", "all")
        (backup,) = (default_path().parent / "backups").iterdir()
        assert json.loads(command("runs", "show", run, "--json")[1])["backups"] == [str(backup)]
        said = command("runs", "prune", "--older-than", "0d", "--dry-run")[1]
        assert "2 runs and 1 backups would be removed" in said
        assert backup.exists()
        said = command("runs", "prune", "--older-than", "0d")[1]
        assert "2 runs and 1 backups removed" in said
        assert "`runs restore` cannot bring back" in said
        assert not backup.exists()

    def test_the_backup_of_a_run_that_stays_stays(self, command, session, task, job, model):
        annotated(command, task, model)
        interrupted(session, Options(model=model, replace="all"), task)
        assert "1 runs and 0 backups removed" in command("runs", "prune", "--older-than", "0d")[1]
        assert len(list((default_path().parent / "backups").iterdir())) == 1

    def test_runs_that_can_be_gone_on_with_stay_and_end_as_if_nothing_had_been(
        self, command, sandbox, session, task, job, model
    ):
        old = annotated(command, task, model)
        broken_off = interrupted(session, Options(model=model), task)
        said = command("runs", "prune", "--older-than", "0d")[1]
        assert "1 runs as old stay: they can be gone on with" in said
        listed = command("runs", "list")[1]
        assert (old in listed, broken_off in listed) == (False, True)
        report = resume(broken_off, Surroundings(server=session.settings))
        assert report.annotations.total() == 120
        assert len(shapes(session, job)) == 240

    @pytest.mark.parametrize("age", ["", "30", "-1d", "1.5d", "30 days"])
    def test_an_age_that_is_none(self, command, age):
        code, said = command("runs", "prune", "--older-than", age)
        assert (code, "allowed: a number of hours, days or weeks" in said) == (2, True)


class TestPayloads:
    def test_what_has_arrived_is_kept_as_what_tells_it_from_others(self, command, session, task, job, model):
        """What a model draws may be long, and its objects are many."""
        run = annotated(command, task, model)
        sent = len(json.dumps([shape["points"] for shape in shapes(session, job)]))
        with Ledger() as ledger:
            (kept,) = ledger._rows("SELECT SUM(LENGTH(payload)) AS bytes FROM uploads WHERE run = ?", run)
        assert kept["bytes"] < sent / 20

    def test_what_somebody_has_changed_is_still_known_and_stays(self, command, session, task, job, model):
        run = annotated(command, task, model)
        changed = shapes(session, job)[7]
        changed["points"][0] += 5
        update(session, job, {"shapes": [changed]})
        said = command("runs", "undo", run, server=True)[1]
        assert "119 annotations removed" in said
        assert "1 kept, because somebody has changed them" in said
        assert [shape["id"] for shape in shapes(session, job)] == [changed["id"]]
        assert "1 annotations removed" in command("runs", "undo", run, "--changed-too", server=True)[1]

    def test_of_what_was_taken_away_only_labels_are_counted(self, command, session, task, job, model):
        first = annotated(command, task, model)
        annotated(command, task, model, "--replace", "own")
        with Ledger() as ledger:
            sizes = ledger._rows("SELECT run, SUM(LENGTH(payload)) AS bytes FROM uploads GROUP BY run")
            replaced, there = sorted(row["bytes"] for row in sizes)
            assert replaced < there / 10
            (label,) = ledger.label_counts(first, job).values()
        assert label == 120

    def test_a_lost_answer_is_found_again_after_a_kill(self, sandbox, session, task, job, model):
        """Until the server has answered, the whole payload is needed."""
        fault = sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}/annotations", cut=True, when="after")
        run = interrupted(session, Options(model=model), task, after=6)
        assert fault.struck == 1
        resume(run, Surroundings(server=session.settings))
        assert len(shapes(session, job)) == 120


class TestSpace:
    def test_the_file_becomes_small_again(self, command, session, task, model):
        for _ in range(3):
            annotated(command, task, model)
        with OldRuns() as old:
            before = old.size()
        command("runs", "prune", "--older-than", "0d")
        with OldRuns() as old:
            assert old.size() < before / 2

    def test_so_does_one_that_was_made_without_that_in_mind(self, tmp_path):
        path = tmp_path / "ledger.sqlite3"
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE other (text)")
        db.commit()
        db.close()
        with OldRuns(path) as old:
            assert old._db.execute("PRAGMA auto_vacuum").fetchone()[0] == 0
            old._db.execute("INSERT INTO other VALUES (randomblob(1000000))")
            old._db.execute("DELETE FROM other")
            assert old.give_back() > 900_000
        with OldRuns(path) as old:
            assert old._db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2

    def test_somebody_who_reads_meanwhile_is_no_error(self, tmp_path):
        with OldRuns(tmp_path / "ledger.sqlite3") as old, Ledger(old.path) as other:
            old._db.execute("PRAGMA busy_timeout=50")
            old._db.execute("CREATE TABLE other (text)")
            old._db.execute("INSERT INTO other VALUES (randomblob(1000000))")
            old._db.execute("DELETE FROM other")
            with other._change():
                assert old.give_back() == 0
            assert old.give_back() > 900_000


class TestWhatStays:
    @pytest.fixture
    def ledger(self, tmp_path):
        with Ledger(tmp_path / "ledger.sqlite3") as ledger:
            yield ledger

    def ended(self, ledger, status):
        run = ledger.begin(
            server="http://a", user="bot", target="job 7", model="m:x", model_version="1", options={}, frames={7: [0]}
        )
        ledger.end(run, status, {})
        return run

    def later(self):
        return datetime.now(UTC) + timedelta(seconds=5)

    @pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
    def test_runs_that_have_not_ended_well(self, ledger, status):
        run = self.ended(ledger, status)
        with OldRuns(ledger.path) as old:
            assert (old.finished(self.later()), old.unfinished(self.later())) == ([], 1)
            assert not old.forget(run, self.later())
        assert ledger.run(run).status == status

    def test_one_that_somebody_is_working_on(self, ledger):
        run = self.ended(ledger, "done")
        with OldRuns(ledger.path) as old:
            with ledger.hold(run):
                assert not old.forget(run, self.later())
            assert old.forget(run, self.later())

    def test_one_that_was_begun_again_meanwhile(self, ledger):
        run = self.ended(ledger, "done")
        with OldRuns(ledger.path) as old:
            (found,) = old.finished(self.later())
            ledger.reopen(run)
            assert not old.forget(found.id, self.later())

    @pytest.mark.parametrize(
        ("status", "owed", "goes"), [("interrupted", None, 0), ("done", "x", 0), ("done", None, 1)]
    )
    def test_one_whose_rule_has_not_heard_of_its_end(self, ledger, status, owed, goes):
        run = self.ended(ledger, "done")
        with RuleMemory(ledger.path, "http://a") as memory:
            memory.write(RuleJob("things", 7, "key", "1", status, run=run, owed=owed))
        with OldRuns(ledger.path) as old:
            assert len(old.finished(self.later())) == goes


class TestRules:
    def test_each_job_once_whether_its_run_is_known_or_not(self, sandbox, session, command, caplog):
        caplog.set_level("INFO")
        _, job = new_task(session, count=2)
        with watching(sandbox, rule()) as watch:
            watch.ended(1)
            watch.settle()
            assert "1 runs" in command("runs", "prune", "--older-than", "0d", "--ledger", watch.shared.ledger)[1]
            assert watch.runs() == []
            watch.look()
            assert watch.count == 1
            assert boxes(session, job) == {0: 1, 1: 1}

    def test_of_another_version_too_and_what_was_there_is_told(self, sandbox, session, command, caplog, tmp_path):
        caplog.set_level("INFO")
        _, job = new_task(session, count=2)
        with watching(sandbox, rule(), folder=tmp_path) as watch:
            watch.ended(1)
            watch.settle()
            (run,) = (record.id for record in watch.runs())
        command("runs", "prune", "--older-than", "0d", "--ledger", tmp_path / "ledger.sqlite3")
        watch.models.version = "2"
        with watching(sandbox, rule(), folder=tmp_path, models=watch.models) as later:
            later.shared.pool._slots["finder"].description = None
            later.look()
            assert later.ended(1)[0].outcome == "done"
        assert f"what run {run} may have left here stays: that run was pruned" in caplog.text
        assert boxes(session, job) == {0: 2, 1: 2}


SERVICE = """
[cvat]
host = "{host}"
user = "bot"
password_env = "BOT_PASSWORD"
[service]
port = 0
state_dir = "state"
keep_runs_days = {days}
[gateway]
port = 0
prefetch = false
[[models]]
id = "things"
model = "{model}"
"""


class TestService:
    def test_it_forgets_old_runs_by_itself(self, sandbox, task, model, tmp_path):
        file = tmp_path / "service.toml"
        file.write_text(SERVICE.format(host=sandbox.url, days=0, model=model))
        done = sidecar("annotate", "--config", file, "--task", task, "--model", "things")
        assert done.returncode == 0, done.stderr
        listed = sidecar("runs", "list", "--config", file).stdout
        assert f"task {task}" in listed
        with serve(file) as process:
            process.ready()
            assert "older than" not in process.log, "0 keeps them for ever"
            file.write_text(file.read_text().replace("keep_runs_days = 0", "keep_runs_days = 0.0000001"))
            process.signal(signal.SIGHUP)
            process.until(lambda: "1 runs and 0 backups removed" in process.log)
            assert "`runs undo` cannot take back the 120 annotations" in process.log
        ledger = tmp_path / "state" / "ledger.sqlite3"
        assert sidecar("runs", "list", "--config", file).stdout.startswith(f"no runs in {ledger}")

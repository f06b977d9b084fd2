"""A rule's job after something went wrong with it: tried again, put off while the server is away, or left."""

import pytest

from agent.ledger.ledger import Ledger
from agent.runs.undo import undo_run
from agent.settings.server import ServerSettings
from tests.flow.test_watch import LABELS, job_of, new_task, patch
from tests.flow.test_watch_cancel import stopped
from tests.support.watching import Clock, Models, boxes, rule, until, watching

WISH = {
    "state_when_started": "in progress",
    "state_when_done": "completed",
    "state_when_failed": "rejected",
    "issue_on_failure": True,
}
UNCLAIMED = {name: value for name, value in WISH.items() if name != "state_when_started"}


def issues_of(session, job):
    return session.request("GET", "/api/issues", query={"job_id": job}).json()["results"]


@pytest.fixture
def failing():
    models = Models()
    models.finder.fails = True
    return models


class TestStateOfAFailure:
    """The state that a failure has given a job is ours, and keeps nobody from trying again."""

    @pytest.mark.parametrize("wish", [WISH, UNCLAIMED], ids=["claimed", "unclaimed"])
    def test_it_is_tried_again_until_it_is_done(self, sandbox, session, failing, wish):
        _, job = new_task(session)
        clock = Clock()
        with watching(sandbox, rule(**wish), models=failing, timing=clock.timing) as watch:
            for tries, wait in enumerate((0, 61, 121), 1):
                clock.ahead += wait
                watch.look()
                assert (watch.count, watch.memory()[job].tries) == (tries, tries)
                assert (job_of(session, job)["state"], len(issues_of(session, job))) == ("rejected", 1)
                watch.look()
                assert watch.count == tries, "not at once"
            failing.finder.fails = False
            clock.ahead += 241
            failing.finder.gate.clear()
            watch.look_without_end()
            failing.finder.await_batch()
            during = "in progress" if wish is WISH else "rejected"
            until(lambda: job_of(session, job)["state"] == during)
            failing.finder.gate.set()
            watch.settle()
            assert [record.outcome for record in watch.ended(4)] == ["failed"] * 3 + ["done"]
            assert len(watch.runs()) == 1, "it goes on with the same run"
            assert watch.memory()[job].status == "done"
            (issue,) = issues_of(session, job)
            assert issue["resolved"]
        assert job_of(session, job)["state"] == "completed"
        assert boxes(session, job) == {0: 1, 1: 1}

    @pytest.mark.parametrize("wish", [WISH, UNCLAIMED], ids=["claimed", "unclaimed"])
    def test_another_state_is_a_persons_until_it_is_set_back(self, sandbox, session, failing, wish):
        _, job = new_task(session)
        clock = Clock()
        with watching(sandbox, rule(**wish), models=failing, timing=clock.timing) as watch:
            watch.look()
            patch(session, job, state="completed")
            failing.finder.fails = False
            clock.ahead = 100
            watch.look()
            assert (watch.count, watch.memory()[job].status) == (1, "cancelled")
            assert watch.memory()[job].error == "somebody has set the job's state to 'completed'"
            patch(session, job, state="rejected")
            clock.ahead = 9999
            watch.look()
            assert watch.count == 1, "who had it has rejected it: that is no failure of ours any more"
            patch(session, job, state="new")
            watch.look()
            assert (watch.count, watch.memory()[job].status) == (2, "done")

    def test_during_a_try_it_is_taken_back_by_the_same_state_too(self, sandbox, session, failing):
        _, job = new_task(session, count=6)
        clock = Clock()
        with watching(sandbox, rule(**WISH), models=failing, timing=clock.timing) as watch:
            watch.look()
            failing.finder.fails = False
            clock.ahead = 100
            watch.finder.batches = type(watch.finder.batches)(0)
            watch.finder.gate.clear()
            watch.look_without_end()
            watch.finder.await_batch()
            patch(session, job, state="rejected")
            watch.finder.gate.set()
            assert watch.ended(2)[1].outcome == "cancelled"
            watch.settle()
            assert watch.memory()[job].status == "cancelled"
        assert job_of(session, job)["state"] == "rejected"

    def test_another_version_of_the_model_tries_at_once_and_settles_the_issue(
        self, sandbox, session, failing, tmp_path
    ):
        _, job = new_task(session)
        with watching(sandbox, rule(**WISH), models=failing, folder=tmp_path) as watch:
            watch.look()
            assert job_of(session, job)["state"] == "rejected"
        failing.finder.fails, failing.version = False, "2"
        clock = Clock()
        clock.ahead = 100
        with watching(sandbox, rule(**WISH), models=failing, folder=tmp_path, timing=clock.timing) as watch:
            watch.look()
            watch.look()
            assert job_of(session, job)["state"] == "completed"
            (issue,) = issues_of(session, job)
            assert issue["resolved"]
        assert boxes(session, job) == {0: 1, 1: 1}

    def test_the_log_says_what_brings_it_back_sooner(self, sandbox, session, failing, caplog):
        caplog.set_level("INFO")
        new_task(session)
        with watching(sandbox, rule(**WISH), models=failing) as watch:
            watch.look()
        (said,) = [r.getMessage() for r in caplog.records if "tries it again" in r.getMessage()]
        assert said.endswith("in 60 s, or when its state is set back to 'new'")


HASTY = ServerSettings(user="bot", password="secret", retries=0)


class TestServerAway:
    def test_a_run_is_put_off_and_goes_on_as_soon_as_the_server_is_reached(self, sandbox, session, caplog):
        """By the wakes of the door alone: its rule looks once an hour."""
        caplog.set_level("INFO")
        _, job = new_task(session, count=4)
        with watching(sandbox, rule(**WISH), server=HASTY) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            sandbox.faults.add(path="^/api/", status=502, count=None)
            watch.finder.gate.set()
            (record,) = watch.ended(1)
            assert (record.outcome, record.error) == ("cancelled", "the server is away; it goes on when it answers")
            assert watch.shared.activity.errors() == []
            row = watch.remembered(job, "interrupted")
            assert (row.tries, row.next_try) == (0, 0.0)
            with Ledger(watch.shared.ledger) as ledger:
                until(lambda: ledger.run(record.run).status == "interrupted")
                assert ledger.run(record.run).report["status"] == "interrupted"
            sandbox.faults.clear()
            assert [one.outcome for one in watch.ended(2)] == ["cancelled", "done"]
            watch.settle()
            assert len(watch.runs()) == 1
        assert job_of(session, job)["state"] == "completed"
        assert issues_of(session, job) == []
        assert boxes(session, job) == dict.fromkeys(range(4), 1)
        assert "failed" not in caplog.text

    def test_what_the_server_refuses_this_job_alone_is_asked_ever_more_seldom(self, sandbox, session):
        """It answers all the time, but not what its frames are."""
        _, job = new_task(session)
        clock = Clock()
        with watching(sandbox, rule(**WISH), server=HASTY, timing=clock.timing) as watch:
            sandbox.faults.add(path=rf"/api/jobs/{job}/data/meta", status=500, count=None)
            waits = []
            for _ in range(4):
                clock.ahead += 600
                watch.look()
                row = watch.memory()[job]
                assert (row.status, row.tries) == ("interrupted", 0)
                waits.append(row.next_try - row.updated if row.next_try else 0.0)
            assert waits == sorted(set(waits)), "longer each time"
            sandbox.faults.clear()
            clock.ahead += 600
            watch.look()
            assert watch.memory()[job].status == "done"


class TestLeft:
    def test_a_claimed_job_that_an_operator_cancelled_is_gone_on_with_when_its_state_is_set_back(
        self, sandbox, session, caplog
    ):
        caplog.set_level("INFO")
        _, job = new_task(session, count=6)
        with watching(sandbox, rule(**WISH)) as watch:
            stopped(watch, lambda: watch.shared.activity.cancel(watch.shared.activity.running()[0].id))
            assert job_of(session, job)["state"] == "in progress"
            assert "cancelled on the status page; it goes on when its state is set back to 'new'" in caplog.text
            patch(session, job, stage="annotation")  # a change, by whoever works on it now
            watch.look()
            assert watch.count == 1
            patch(session, job, state="new")
            watch.look()
            assert [record.outcome for record in watch.ended(2)] == ["cancelled", "done"]
        assert job_of(session, job)["state"] == "completed"
        assert boxes(session, job) == dict.fromkeys(range(6), 1)

    def test_a_run_that_was_undone_leaves_the_state_as_it_was(self, sandbox, session):
        _, job = new_task(session)
        with watching(sandbox, rule(**WISH)) as watch:
            (record,) = watch.ended(1)
            watch.settle()
            undo_run(record.run, session.settings, watch.shared.ledger)
            watch.look()
            assert watch.count == 1
        assert (job_of(session, job)["state"], boxes(session, job)) == ("completed", {})


class TestTold:
    def test_runs_that_begin_and_go_on_are_lines_of_the_log(self, sandbox, session, tmp_path, caplog):
        caplog.set_level("INFO")
        _, job = new_task(session, count=6)
        with watching(sandbox, rule(), folder=tmp_path) as watch:
            record = stopped(watch, lambda: watch.shared.activity.cancel(watch.shared.activity.running()[0].id))
            done = boxes(session, job).total()
            patch(session, job, state="new")
            watch.look()
        said = [r.getMessage() for r in caplog.records if r.getMessage().startswith(f"job {job}: rule things ")]
        assert said[0] == f"job {job}: rule things begins run {record.run} with finder: 6 frames"
        assert said[-1] == (
            f"job {job}: rule things goes on with run {record.run} with finder: {6 - done} of 6 frames are left"
        )

    def test_a_model_that_fails_is_told_in_the_words_of_rules_and_without_our_files(
        self, sandbox, session, failing, caplog
    ):
        caplog.set_level("INFO")
        new_task(session, count=4)
        with watching(sandbox, rule(options={"max_bad_frames": 1}), models=failing) as watch:
            watch.look()
            (error,) = watch.shared.activity.errors()
        assert "2 frames failed, more than max_bad_frames = 1; the last one: frame 1: " in error.detail
        assert "--max-bad-frames" not in caplog.text
        ours = [
            r for r in caplog.records if r.name != "agent.models.host"
        ]  # that one tells where the model's own code failed
        assert [r.getMessage() for r in ours if r.exc_info] == []
        assert error.detail in caplog.text, "the line says it all the same"

    def test_a_model_that_cannot_be_loaded_is_told_without_our_files(self, sandbox, session, caplog):
        caplog.set_level("DEBUG", logger="agent")
        new_task(session, labels=LABELS)
        models = Models()
        models.broken = True
        with watching(sandbox, rule(), models=models) as watch:
            watch.look()
        traces = [r for r in caplog.records if r.exc_info]
        assert traces
        assert {r.levelname for r in traces} == {"DEBUG"}
        assert "its weights are torn" in "".join(r.getMessage() for r in caplog.records if r.levelname == "WARNING")

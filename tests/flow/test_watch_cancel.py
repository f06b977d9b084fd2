"""Jobs that somebody takes back while a rule is working on them, over real HTTP."""

import pytest

from agent.cvat.annotations_api import get_annotations
from agent.ledger import Ledger
from agent.service_config import WatchSettings
from agent.undo import undo_run
from tests.flow.test_watch import job_of, new_task, patch
from tests.support.watching import PATIENCE, boxes, rule, until, watching


@pytest.fixture
def handed(session):
    """(task, job, bot's id): a job of six frames that is assigned to bot."""
    me = session.request("GET", "/api/users/self").json()["id"]
    task, job = new_task(session, count=6)
    patch(session, job, assignee=me)
    return task, job, me


def stopped(watch, take_back, kind="cancelled"):
    """The record of a run during whose second batch the job was taken back."""
    watch.finder.gate.clear()
    watch.finder.await_batch()
    take_back()
    (attended,) = watch.door._place.at_work()
    assert attended.cancelled.wait(PATIENCE), "nobody has noticed"
    before = len(watch.finder.seen)
    watch.finder.gate.set()
    (record,) = watch.ended(1)
    assert record.outcome == kind
    assert len(watch.finder.seen) <= before + 3, "the batch at hand, and what the model had been given already"
    watch.settle()
    return record


WISH = {"assignee": "bot", "state_when_started": "in progress", "state_when_done": "completed"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"assignee": None}, "it is assigned to nobody, not to bot"),
        ({"state": "rejected"}, "somebody has set the job's state to 'rejected'"),
        ({"state": "new"}, "somebody has set the job's state to 'new'"),
        ({"stage": "validation", "state": "in progress"}, "its stage is 'validation'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_job_that_is_taken_back_is_left_within_a_batch(sandbox, session, handed, change, said):
    _, job, _ = handed
    with watching(sandbox, rule(**WISH)) as watch:
        record = stopped(watch, lambda: patch(session, job, **change))
        assert record.error == said
        assert watch.memory()[job].status == "cancelled"
        assert job_of(session, job)["state"] == change.get("state", "in progress")
        assert boxes(session, job) == {}, "nothing more is sent to a job that is somebody else's"
        watch.look()
        again = change == {"state": "new"}
        assert watch.count == 1 + again, "what was set back to new is to be had again"
    assert boxes(session, job) == (dict.fromkeys(range(6), 1) if again else {})


def test_a_job_that_is_handed_over_again_is_gone_on_with(sandbox, session, handed):
    _, job, me = handed
    with watching(sandbox, rule(assignee="bot")) as watch:
        stopped(watch, lambda: patch(session, job, assignee=None))
        watch.look()
        assert watch.count == 1
        patch(session, job, assignee=me)
        watch.look()
        assert [record.outcome for record in watch.ended(2)] == ["cancelled", "done"]
        assert len(watch.runs()) == 1
    assert boxes(session, job) == dict.fromkeys(range(6), 1)


def test_the_status_page_stops_a_run_what_was_done_stays_and_can_be_undone(sandbox, session):
    _, job = new_task(session, count=6)
    with watching(sandbox, rule()) as watch:
        record = stopped(watch, lambda: watch.shared.activity.cancel(watch.shared.activity.running()[0].id))
        assert record.error == "cancelled on the status page"
        count = boxes(session, job).total()
        assert 0 < count < 6
        watch.look()
        assert watch.count == 1, "not before the job changes"
        with Ledger(watch.shared.ledger) as ledger:
            assert ledger.run(record.run).status == "interrupted"
        assert undo_run(record.run, session.settings, watch.shared.ledger).removed == count
        watch.look()
        assert watch.count == 1, "to undo it is a change, but none that asks for it again"
        patch(session, job, state="new")
        watch.look()
        assert watch.count == 2
    assert boxes(session, job) == dict.fromkeys(range(6), 1)


def test_a_task_that_is_deleted_ends_the_run(sandbox, session, handed):
    task, job, _ = handed
    with watching(sandbox, rule(**WISH)) as watch:
        record = stopped(watch, lambda: session.request("DELETE", f"/api/tasks/{task}"))
        assert record.error == "the job is gone, or this user may not see it any more"
        assert watch.memory()[job].status == "cancelled"
        watch.look()
        assert watch.count == 1


def test_a_refused_upload_of_a_job_that_was_taken_back_is_no_failure(sandbox, session, handed):
    """The upload came before the look that would have told."""
    _, job, _ = handed
    wish = rule(**WISH, issue_on_failure=True, state_when_failed="rejected")
    with watching(sandbox, wish, watch=WatchSettings(check_seconds=99)) as watch:
        watch.finder.gate.clear()
        watch.finder.await_batch()
        patch(session, job, assignee=None)
        sandbox.faults.add(method="PATCH", path=rf"/api/jobs/{job}/annotations", status=403, count=None)
        watch.finder.gate.set()
        watch.ended(1)
        watch.settle()
        assert watch.memory()[job].status == "cancelled"
        assert (job_of(session, job)["state"], job_of(session, job)["issues"]["count"]) == ("in progress", 0)


def test_an_event_about_a_job_at_work_lets_it_be_looked_at_now(sandbox, session, handed):
    _, job, _ = handed
    with watching(sandbox, rule(**WISH), watch=WatchSettings(check_seconds=99)) as watch:

        def take_back():
            patch(session, job, assignee=None)
            assert watch.door._place.look_at(job)

        stopped(watch, take_back)
        assert watch.memory()[job].status == "cancelled"


def test_a_run_goes_on_while_the_server_does_not_answer_the_looks(sandbox, session, handed):
    _, job, _ = handed
    with watching(sandbox, rule(**WISH)) as watch:
        watch.finder.gate.clear()
        watch.finder.await_batch()
        fault = sandbox.faults.add(method="GET", path=rf"/api/jobs/{job}$", status=500, count=3)
        until(lambda: fault.struck == 3)
        watch.finder.gate.set()
        watch.settle()
        assert watch.ended(1)[0].outcome == "done"
    assert len(get_annotations(session, job)["shapes"]) == 6

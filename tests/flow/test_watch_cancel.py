"""Jobs that somebody takes back while a rule is working on them, over real HTTP."""

import time

import pytest

from agent.cvat.annotations_api import get_annotations
from agent.ledger.ledger import Ledger
from agent.runs.undo import undo_run
from agent.settings.tables import WatchSettings
from tests.flow.test_watch import job_of, new_task, patch
from tests.support.watching import PATIENCE, Models, boxes, rule, until, watching


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
    begun = len(watch.finder.begun)
    watch.finder.gate.set()
    (record,) = watch.ended(1)
    assert record.outcome == kind
    assert len(watch.finder.begun) == begun, "the batch at hand is the last one"
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
        assert watch.memory()[job].error == said
        assert job_of(session, job)["state"] == change.get("state", "in progress")
        assert boxes(session, job) == {}, "nothing more is sent to a job that is somebody else's"
        watch.look()
        again = change == {"state": "new"}
        assert watch.count == 1 + again, "what was set back to new is to be had again"
    assert boxes(session, job) == (dict.fromkeys(range(6), 1) if again else {})


TAKEN_BACK = {
    "un-assigned": lambda session, task, job: patch(session, job, assignee=None),
    "its state set back": lambda session, task, job: patch(session, job, state="rejected"),
    "the task deleted": lambda session, task, job: session.request("DELETE", f"/api/tasks/{task}"),
}


def uploads(sandbox, job):
    return sandbox.requests.matching("PATCH", rf"/api/jobs/{job}/annotations")


@pytest.mark.parametrize("how", TAKEN_BACK)
def test_at_most_one_batch_begins_after_it_nothing_is_uploaded_and_it_is_not_looked_at_all_the_time(
    sandbox, session, how
):
    """With a model that takes its time, and nobody who tells the door."""
    me = session.request("GET", "/api/users/self").json()["id"]
    task, job = new_task(session, count=60)
    patch(session, job, assignee=me)
    with watching(sandbox, rule(**WISH), watch=WatchSettings(check_seconds=0.3)) as watch:
        watch.finder.seconds = 0.4
        until(lambda: len(watch.finder.begun) >= 4)
        looks = len(sandbox.requests.matching("GET", rf"/api/jobs/{job}$"))
        TAKEN_BACK[how](session, task, job)
        known = time.monotonic()
        (record,) = watch.ended(1)
        watch.settle()
        assert record.outcome == "cancelled"
        assert sum(moment > known for moment in watch.finder.begun) <= 1
        assert uploads(sandbox, job) == []
        assert looks <= 4 + 1.6 / 0.3, "one look in 0.3 s, and those at the beginning"


@pytest.mark.parametrize("how", TAKEN_BACK)
def test_nothing_is_uploaded_before_the_job_is_looked_at(sandbox, session, handed, how):
    """However rarely it is looked at besides."""
    task, job, _ = handed
    with watching(sandbox, rule(**WISH), watch=WatchSettings(check_seconds=99)) as watch:
        watch.finder.gate.clear()
        watch.finder.await_batch()
        TAKEN_BACK[how](session, task, job)
        watch.finder.gate.set()
        (record,) = watch.ended(1)
        watch.settle()
        assert (record.outcome, watch.memory()[job].status) == ("cancelled", "cancelled")
        assert uploads(sandbox, job) == []
        with Ledger(watch.shared.ledger) as ledger:
            assert ledger.uploads(record.run, job) == [], "what was never sent is not looked for later"


def test_a_cancelled_run_still_uploads_what_is_finished_but_not_to_a_job_taken_back(sandbox, session, handed):
    _, job, _ = handed
    models = Models()
    detect = models.finder.detect

    def hold_the_next_one(frames, context):
        found = detect(frames, context)
        if not models.finder.seen[1:]:
            models.finder.gate.clear()
        return found

    models.finder.detect = hold_the_next_one
    with watching(sandbox, rule(**WISH), models=models, watch=WatchSettings(check_seconds=99)) as watch:
        watch.finder.await_batch()
        watch.finder.await_batch()
        patch(session, job, assignee=None)
        watch.shared.activity.cancel(watch.shared.activity.running()[0].id)
        watch.finder.gate.set()
        watch.ended(1)
        watch.settle()
        assert uploads(sandbox, job) == []


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
    """It was still ours when it was looked at before the upload."""
    _, job, _ = handed
    wish = rule(**WISH, issue_on_failure=True, state_when_failed="rejected")
    with watching(sandbox, wish, watch=WatchSettings(check_seconds=99)) as watch:
        annotations = rf"/api/jobs/{job}/annotations"
        upload = sandbox.faults.add(method="PATCH", path=annotations, status=403, delay=1.0, count=None)
        until(lambda: upload.struck)
        patch(session, job, assignee=None)
        (record,) = watch.ended(1)
        watch.settle()
        assert (record.outcome, watch.memory()[job].status) == ("cancelled", "cancelled")
        assert (job_of(session, job)["state"], job_of(session, job)["issues"]["count"]) == ("in progress", 0)


def test_an_event_about_a_job_at_work_lets_it_be_looked_at_now(sandbox, session, handed):
    _, job, _ = handed
    with watching(sandbox, rule(**WISH), watch=WatchSettings(check_seconds=99)) as watch:

        def take_back():
            patch(session, job, assignee=None)
            assert watch.door._place.look_at(job) == 1

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

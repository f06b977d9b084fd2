"""What could keep a job of a rule waiting for ever: wakes that are lost, threads that die, models that never answer."""

import json
import threading

import pytest

from agent.doors.watch.looking import Looker
from agent.ledger.rules import RuleMemory
from agent.models import host as host_module
from agent.settings.tables import ServiceSettings
from tests.flow.test_watch import new_task, patch
from tests.support.watching import Models, boxes, rule, until, watching


@pytest.fixture
def job(session):
    """A new job of two frames."""
    _, job = new_task(session, count=2)
    return job


def annotated(session, job):
    return boxes(session, job) == {0: 1, 1: 1}


class TestWakes:
    """The rules of these tests look by themselves once an hour: whatever is missed stays undone."""

    def test_a_place_that_somebody_else_gives_back(self, sandbox, session, job):
        with watching(sandbox, rule(), service=ServiceSettings(batch_lanes=1)) as watch:
            watch.settle()
            _, other = new_task(session, count=2)
            with watch.shared.lanes.batch.claim():
                for looker in watch.door._all():
                    looker.look()
                until(lambda: watch.door._all()[0].starved)
                watch.settle_looks()
                assert not boxes(session, other)
            until(lambda: annotated(session, other))

    def test_a_job_that_is_put_down_while_others_are_looked_at(self, sandbox, session, job):
        with watching(sandbox, rule(enabled=False)) as watch:
            watch.settle()
            with RuleMemory(watch.shared.ledger, watch.shared.session.url) as memory:
                wish = rule("other")
                (first,) = watch.door._all()
                looker = Looker(watch.door._place, first.rule.__class__(wish, first.rule.options), lambda: None)
                held = memory.hold_job(job)
                held.__enter__()
                is_exhausted, calls = looker._is_exhausted, []

                def put_down():
                    """The first is called before the jobs are begun, the second after this one was not to be had."""
                    calls.append(1)
                    if len(calls) == 2:
                        held.__exit__(None, None, None)
                        looker.freed()
                    return is_exhausted()

                looker._is_exhausted = put_down
                looker.look()
                until(lambda: annotated(session, job))

    def test_one_that_comes_while_the_last_is_not_over(self, sandbox, session, job, monkeypatch):
        gate, looks = threading.Event(), []
        look = Looker.look

        def slow(self, **more):
            looks.append(more)
            if len(looks) == 2:
                assert gate.wait(20)
            look(self, **more)

        with watching(sandbox, rule()) as watch:
            watch.settle()
            monkeypatch.setattr(Looker, "look", slow)
            looks.append("so that the next one is slow")
            watch.door.wake("things")
            until(lambda: len(looks) == 2)
            watch.door.wake("things")
            until(lambda: len(looks) == 3)
            gate.set()
            watch.settle()


class TestThreads:
    def test_no_thread_for_a_look(self, sandbox, session, monkeypatch):
        with watching(sandbox, rule()) as watch:
            watch.settle()
            start = threading.Thread.start

            def refuse(self):
                if self.name.startswith("look-"):
                    raise RuntimeError("can't start new thread")
                start(self)

            monkeypatch.setattr(threading.Thread, "start", refuse)
            (looker,) = watch.door._all()
            with pytest.raises(RuntimeError, match="can't start new thread"):
                looker.look()
            monkeypatch.undo()
            _, job = new_task(session, count=2)
            watch.look()
            assert annotated(session, job)

    def test_a_model_that_means_to_end_the_program(self, sandbox, session, job):
        class Ending(Models):
            def __call__(self, *args, **more):
                if self.broken:
                    raise SystemExit("no licence found")
                return super().__call__(*args, **more)

        models = Ending()
        models.broken = True
        with watching(sandbox, rule(), models=models) as watch:
            until(lambda: "no licence found" in watch.door.health().text)
            models.broken = False
            watch.door._shared.pool._slots["finder"].forgive()
            watch.door._all()[0].rest.forget()
            watch.look()
            assert annotated(session, job)

    def test_an_answer_about_the_job_that_nobody_can_read(self, sandbox, session, caplog):
        me = session.request("GET", "/api/users/self").json()["id"]
        _, job = new_task(session, count=6)
        patch(session, job, assignee=me)
        with watching(sandbox, rule(assignee="bot")) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            strange = json.dumps({"id": job}).encode()
            said = {"content-type": "application/vnd.cvat+json"}
            fault = sandbox.faults.add(method="GET", path=rf"/api/jobs/{job}$", status=200, body=strange, headers=said)
            until(lambda: fault.struck)
            patch(session, job, assignee=None)
            (attended,) = watch.door._place.at_work()
            assert attended.cancelled.wait(20), "nobody looks any more"
            watch.finder.gate.set()
            assert watch.ended(1)[0].outcome == "cancelled"
        assert "it could not be looked at" in caplog.text


class TestModels:
    def test_a_run_that_was_cancelled_does_not_wait_for_ever_for_its_batch(self, sandbox, session, job, monkeypatch):
        monkeypatch.setattr(host_module, "BATCH_PATIENCE", 0.2)
        with watching(sandbox, rule(), service=ServiceSettings(batch_lanes=1)) as watch:
            watch.finder.gate.clear()
            watch.finder.await_batch()
            watch.shared.activity.cancel(watch.shared.activity.running()[0].id)
            assert watch.ended(1)[0].error == "cancelled on the status page"
            until(lambda: not watch.shared.lanes.batch.taken)
            assert not watch.finder.seen, "the model is still in it"

"""Requests that are held: signs of life, cancellation, people who come in between, and what faults do to all of it."""

import logging
import threading
import time
from dataclasses import replace

import pytest

from agent.settings.server import ServerSettings
from agent.settings.tables import EngineSettings, ModelSettings, ServiceSettings
from tests.support.material import make_image_task
from tests.support.models import Clicker, Finder, loader
from tests.support.queue import FAST, serving, until

THING = [{"name": "thing"}]
QUEUE = r"/api/functions/queues/function(:|%3A)\d+/requests"


@pytest.fixture
def task(session):
    return make_image_task(session, count=12, labels=THING)


def held_up(served, task, finder, **more):
    """A batch request whose model has begun and waits at its gate."""
    finder.gate.clear()
    finder.began.clear()
    rq_id = served.order(task, **more)
    assert finder.began.wait(20)
    return rq_id


def heard_of_it(finder, caplog):
    """Opens the gate once the agent has heard that its request is gone."""
    until(lambda: "the request is not ours any more" in caplog.text)
    finder.gate.set()


def verbs(served):
    """What was said about requests after they were acquired, in order."""
    said = [line.rpartition("/")[2] for line in served.log("POST", QUEUE)]
    return [verb for verb in said if verb != "acquire"]


def beats(served):
    return verbs(served).count("update")


# -------------------------------------------------------------- signs of life


def test_the_heart_beats_while_one_batch_takes_for_ever(sandbox, task):
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        rq_id = held_up(served, task, finder)
        until(lambda: beats(served) >= 3)
        assert served.request(rq_id)["status"] == "started"
        finder.gate.set()
        assert served.ended(rq_id)["status"] == "finished"
        assert verbs(served)[-1] == "complete"


def test_progress_is_told(sandbox, task):
    finder = Finder(batch_size=3)
    with serving(sandbox, {"finder": finder}) as served:
        rq_id = held_up(served, task, finder)
        # Two batches through the gate, one after the other: the third is then at work, the first is counted.
        for _ in range(2):
            finder.began.clear()
            finder.gate.set()
            assert finder.began.wait(20)
            finder.gate.clear()
        until(lambda: (served.request(rq_id)["progress"] or 0) >= 25)
        (record,) = served.shared.activity.running()
        assert (record.done >= 3, record.total) == (True, 12)
        finder.gate.set()
        assert served.ended(rq_id)["progress"] == 100


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 502}, {"status": 429}, {"cut": True}, {"cut": True, "when": "after"}], ids=str
)
def test_signs_of_life_that_do_not_arrive(sandbox, task, fault):
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        struck = sandbox.faults.add(
            method="POST", path=r"/update$", count=2, **{"headers": {"retry-after": "0"}, **fault}
        )
        rq_id = held_up(served, task, finder)
        until(lambda: struck.struck == 2 and beats(served) >= 3)
        finder.gate.set()
        assert served.ended(rq_id)["status"] == "finished"
        assert len(served.shapes(task)) == 12


# ---------------------------------------------------------------- cancellation


def test_a_cancelled_request_stops_within_a_batch_and_nothing_is_said(sandbox, task, caplog):
    caplog.set_level(logging.INFO)
    finder = Finder(batch_size=2)
    with serving(sandbox, {"finder": finder}) as served:
        rq_id = held_up(served, task, finder)
        begun = len(finder.calls)
        assert served.client.delete(f"/api/lambda/requests/{rq_id}").status_code == 204
        heard_of_it(finder, caplog)
        (record,) = served.finished()
        assert len(finder.calls) <= begun + 1
        assert record.outcome == "cancelled"
        assert record.done <= 4
        assert {"complete", "fail"}.isdisjoint(verbs(served))
        assert served.shapes(task) == []
        # The place is free again.
        assert served.ended(served.order(task))["status"] == "finished"


def test_a_cancelled_request_does_not_wait_for_a_download(sandbox, session):
    task = make_image_task(session, count=8, labels=THING)
    with serving(sandbox, {"finder": Finder()}) as served:
        sandbox.faults.add(path=r"/data$", status=503, headers={"Retry-After": "100"}, count=None)
        rq_id = served.order(task)
        until(lambda: sandbox.requests.matching("GET", r"/data$", 503))
        served.client.delete(f"/api/lambda/requests/{rq_id}")
        assert served.finished()[0].outcome == "cancelled"
        assert "fail" not in verbs(served)


def test_the_operator_does_not_wait_for_a_download(sandbox, session):
    task = make_image_task(session, count=8, labels=THING)
    with serving(sandbox, {"finder": Finder()}, queue=replace(FAST, heartbeat_seconds=60)) as served:
        sandbox.faults.add(path=r"/data$", status=503, headers={"Retry-After": "100"}, count=None)
        rq_id = served.order(task)
        until(lambda: sandbox.requests.matching("GET", r"/data$", 503))
        (record,) = served.shared.activity.running()
        served.shared.activity.cancel(record.id)
        assert served.ended(rq_id)["exc_info"] == "cancelled by the operator"


def test_the_operator_cancels(sandbox, task):
    finder = Finder(batch_size=2)
    with serving(sandbox, {"finder": finder}) as served:
        rq_id = held_up(served, task, finder)
        begun = len(finder.calls)
        (record,) = served.shared.activity.running()
        assert served.shared.activity.cancel(record.id)
        finder.gate.set()
        ended = served.ended(rq_id)
        assert (ended["status"], ended["exc_info"]) == ("failed", "cancelled by the operator")
        assert len(finder.calls) <= begun + 1
        assert served.shapes(task) == []
        assert served.finished()[0].outcome == "cancelled"


def test_a_person_who_goes_away_is_not_waited_for(sandbox, task):
    """The caller's time is over while the model is busy with something else."""
    finder = Finder()
    sandbox.state.interactive_timeout = 0.3
    with serving(sandbox, {"finder": finder}) as served:
        rq_id = held_up(served, task, finder)
        assert served.call(task=task, frame=3).status_code == 504
        record = served.finished()[0]
        assert (record.kind, record.outcome) == ("annotate_frame", "cancelled")
        begun = len(finder.calls)
        finder.gate.set()
        assert served.ended(rq_id)["status"] == "finished"
        assert [3] not in finder.calls[begun:]


@pytest.mark.parametrize("path", [r"/data$", "/api/jobs$"], ids=["the frame", "the task"])
def test_a_person_who_goes_away_leaves_a_silent_server_to_itself(sandbox, task, path):
    sandbox.state.interactive_timeout = 0.3
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        fault = sandbox.faults.add(method="GET", path=path, delay=5, count=1)
        began = time.monotonic()
        assert served.call(task=task, frame=3).status_code == 504
        assert served.finished()[0].outcome == "cancelled"
        assert time.monotonic() - began < 4
        assert fault.struck == 1
        assert "fail" not in verbs(served)
        sandbox.faults.clear()
        # What has come after all is what the next one finds; nobody asks twice.
        sandbox.state.interactive_timeout = 20
        assert served.call(task=task, frame=3).status_code == 200
        assert len(served.log("GET", r"/data$")) == 1


@pytest.mark.parametrize("asked", ["task", "frame"])
def test_a_cancelled_request_does_not_wait_for_a_model_that_is_being_loaded(sandbox, task, asked):
    may_load, models = threading.Event(), {"finder": Finder()}
    may_load.set()

    def load(reference, **more):
        assert may_load.wait(60)
        return loader(models)(reference, **more)

    engine, rows = EngineSettings(idle_minutes=1e-9), [ModelSettings("finder", "test:finder")]
    service = ServiceSettings(batch_lanes=1, interactive_lanes=1)
    with serving(sandbox, rows, load=load, engine=engine, service=service) as served:
        served.shared.pool.sweep()
        may_load.clear()
        if asked == "task":
            served.client.delete(f"/api/lambda/requests/{begun(served, served.order(task))}")
        else:
            sandbox.state.interactive_timeout = 0.3
            assert served.call(task=task, frame=3).status_code == 504
        assert served.finished()[0].outcome == "cancelled"
        assert "fail" not in verbs(served)
        lanes = served.shared.lanes
        until(lambda: lanes.batch.taken == lanes.interactive.taken == 0)
        may_load.set()
        sandbox.state.interactive_timeout = 20
        assert served.call(task=task, frame=3).status_code == 200


def begun(served, rq_id):
    until(lambda: served.shared.activity.running())
    return rq_id


# --------------------------------------------------- people who come in between


def test_a_person_waits_for_one_batch_of_a_long_request(sandbox, task):
    finder = Finder(batch_size=2)
    with serving(sandbox, {"finder": finder}) as served:
        rq_id = held_up(served, task, finder)
        asked = served.calling(task=task, frame=11)
        # It stands in the model's queue before the gate opens.
        with served.shared.pool.use("finder") as hosted:
            until(lambda: hosted.host.depth >= 2)
        begun = len(finder.calls)
        finder.gate.set()
        assert asked.answer().json()["shapes"][0]["points"][0] == 11
        assert finder.calls.index([11]) <= begun
        assert served.ended(rq_id)["status"] == "finished"
        assert len(served.shapes(task)) == 12


def test_as_many_long_requests_as_there_are_lanes(sandbox, session, task):
    finder, other = Finder(), make_image_task(session, count=2, labels=THING)
    service = ServiceSettings(batch_lanes=1, interactive_lanes=1)
    with serving(sandbox, {"finder": finder}, service=service) as served:
        first = held_up(served, task, finder)
        second = served.order(other)
        asked = served.calling(task=task, frame=3)
        until(lambda: len(served.shared.activity.running()) == 2)
        # The second one stays in the queue, where another agent could take it.
        assert served.request(second)["status"] == "queued"
        finder.gate.set()
        assert asked.answer().status_code == 200
        assert served.ended(first)["status"] == served.ended(second)["status"] == "finished"


def test_many_people_at_once(sandbox, session):
    task = make_image_task(session, count=12)
    clicker = Clicker()
    with serving(sandbox, {"clicker": clicker}) as served:
        asked = [served.calling(task=task, frame=n % 4, pos_points=[[50 + n, 60]]) for n in range(16)]
        boxes = [call.answer().json()["shapes"][0]["points"][-4] for call in asked]
        assert boxes == [45 + n for n in range(16)]
        assert len(clicker.embedded) == 4
        assert len(sandbox.requests.matching("GET", r"/data$")) == 4


# -------------------------------------------------------------------- handing in


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500}, {"status": 500, "when": "after"}, {"status": 504, "when": "after"}, {"status": 429},
        {"cut": True}, {"cut": True, "when": "after"}, {"cut": True, "when": "after", "after_bytes": 1},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 2])
def test_a_result_whose_handing_in_is_disturbed(sandbox, task, fault, count):
    with serving(sandbox, {"finder": Finder()}) as served:
        struck = sandbox.faults.add(
            method="POST", path=r"/complete$", count=count, **{"headers": {"retry-after": "0"}, **fault}
        )
        assert served.ended(served.order(task))["status"] == "finished"
        (record,) = served.finished()
        assert record.outcome == "done"
        assert struck.struck >= 1
        assert len(served.shapes(task)) == 12


def test_a_result_that_had_arrived_is_no_failure_although_no_beat_told_so(sandbox, task):
    """With the pace of real beats it is the second try that hears that the request is over."""
    queue = replace(FAST, heartbeat_seconds=60)
    with serving(sandbox, {"finder": Finder()}, queue=queue) as served:
        sandbox.faults.add(method="POST", path=r"/complete$", cut=True, when="after")
        assert served.ended(served.order(task))["status"] == "finished"
        assert served.finished()[0].outcome == "done"
        assert verbs(served) == ["complete", "complete"]
        assert len(served.shapes(task)) == 12


def test_a_result_that_the_server_refuses_for_good(sandbox, task):
    with serving(sandbox, {"finder": Finder()}) as served:
        sandbox.faults.add(method="POST", path=r"/complete$", status=413)
        ended = served.ended(served.order(task))
        assert ended["status"] == "failed"
        assert ended["exc_info"] == "the result is too large for the server, or for a proxy before it"
        assert served.finished()[0].outcome == "failed"


def test_labels_that_vanish_meanwhile(sandbox, task):
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        rq_id = held_up(served, task, finder)
        (label,) = served.client.labels(task).values()
        assert served.client.delete(f"/api/labels/{label}").status_code == 204
        finder.gate.set()
        ended = served.ended(rq_id)
        assert ended["status"] == "failed"
        assert ended["exc_info"].startswith(
            "the server did not take the result; has the task or its labels been changed"
        )
        assert served.shapes(task) == []


def test_a_task_that_is_deleted_meanwhile(sandbox, task, session, caplog):
    caplog.set_level(logging.INFO)
    finder = Finder(batch_size=2)
    with serving(sandbox, {"finder": finder}) as served:
        held_up(served, task, finder)
        begun = len(finder.calls)
        assert served.client.delete(f"/api/tasks/{task}").status_code == 204
        heard_of_it(finder, caplog)
        assert served.finished()[0].outcome == "cancelled"
        assert len(finder.calls) <= begun + 1
        other = make_image_task(session, count=2, labels=THING)
        assert served.ended(served.order(other))["status"] == "finished"


def test_a_failure_that_is_hard_to_tell(sandbox, task):
    def find(frame, context):
        raise RuntimeError("never")

    with serving(sandbox, {"finder": Finder(find=find)}) as served:
        sandbox.faults.add(method="POST", path=r"/fail$", status=500, count=2)
        assert served.ended(served.order(task))["exc_info"] == "The model failed on this request"


# ---------------------------------------------------------- what is remembered


def test_what_is_remembered_of_a_task_gives_way_to_what_is_there(sandbox, task):
    """A label that came after the first look, as a mapping tells."""
    with serving(sandbox, {"finder": Finder()}) as served:
        assert served.call(task=task, frame=0).status_code == 200
        added = {"labels": [{"name": "extra", "type": "rectangle"}]}
        assert served.client.patch(f"/api/tasks/{task}", json=added).status_code == 200
        extra = served.client.labels(task)["extra"]
        answer = served.call(task=task, frame=1, mapping={"thing": {"name": "extra"}})
        assert answer.json()["shapes"][0]["label_id"] == extra


# ------------------------------------------------------------------------- logs


def test_no_secrets_in_logs_and_messages(sandbox, task, caplog):
    caplog.set_level(logging.DEBUG)

    def find(frame, context):
        raise RuntimeError("disk /mnt/private: secret-of-the-machine")

    with serving(sandbox, {"finder": Finder(find=find), "fine": Finder()}) as served:
        told = served.ended(served.order(task, "finder"))["exc_info"]
        served.ended(served.order(task, "fine"))
        token = served.shared.session.client.api_client.default_headers["Authorization"].split()[1]
        agent = served.door.agent
    assert len(agent) == 32
    assert int(agent, 16) >= 0
    assert "private" not in told
    assert token not in caplog.text
    assert "secret" not in caplog.text.replace("secret-of-the-machine", "")


def test_a_session_whose_token_ends_logs_in_again(sandbox, task):
    finder = Finder()
    with serving(sandbox, {"finder": finder}) as served:
        held_up(served, task, finder)
        with sandbox.state.store.change():
            for login in sandbox.state.logins.all():
                sandbox.state.logins.remove(login.id)
        until(lambda: sandbox.requests.matching(status=401))
        finder.gate.set()
        assert served.finished()[0].outcome == "done"
        assert len(sandbox.requests.matching("POST", r"/complete$", 200)) == 1


def test_an_access_token_that_ends_is_a_clear_stop(sandbox, task, session):
    made = session.request("POST", "/api/auth/access_tokens", body={"name": "agent", "read_only": False}).json()
    server = ServerSettings(token=made["value"])
    queue = replace(FAST, poll_seconds=0.2)
    with serving(sandbox, {"finder": Finder()}, server=server, queue=queue) as served:
        assert served.ended(served.order(task))["status"] == "finished"
        session.request("DELETE", f"/api/auth/access_tokens/{made['id']}")
        health = until(lambda: None if (found := served.door.health()).ok else found)
        assert "the server does not accept the token or password any more" in health.text
        asked = len(served.log("POST", r"/acquire$"))
        time.sleep(1.0)
        assert len(served.log("POST", r"/acquire$")) - asked <= 12, "it must not storm a server that refuses"

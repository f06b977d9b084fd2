"""A function served: its stream watched, its queue asked, several agents on it; and a server that comes and goes."""

import logging
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from agent.contract import Label
from agent.cvat.session import open_session
from agent.errors import ModelLoadFailed
from agent.sandbox import Sandbox
from agent.settings.server import ServerSettings
from agent.settings.tables import EngineSettings, ModelSettings, QueueSettings
from tests.support.material import make_image_task
from tests.support.models import Clicker, Finder, loader
from tests.support.queue import registrar, serving, until
from tests.support.tasks import Client

THING = [{"name": "thing"}]
ACQUIRE, WATCH = r"/requests/acquire$", r"/watch$"
RARE = QueueSettings(poll_seconds=60, heartbeat_seconds=0.1)


@pytest.fixture
def task(session):
    return make_image_task(session, count=4, labels=THING)


def params(task, frame):
    mapping = {"thing": {"name": "thing"}}
    return {"type": "annotate_frame", "task": task, "frame": frame, "mapping": mapping, "threshold": None}


# ------------------------------------------------------------------ the stream


def test_the_stream_tells_of_new_requests_at_once(sandbox, task):
    with serving(sandbox, {"finder": Finder()}, queue=RARE) as served:
        until(lambda: len(served.log("POST", ACQUIRE)) >= 2)
        waits = []
        for frame in (0, 1, 2, 3) * 3:
            began = time.monotonic()
            queued = served.enqueue(params(task, frame))
            until(lambda queued=queued: queued.status != "queued")
            waits.append(time.monotonic() - began)
            assert served.settled(queued)[0] == "completed"
        assert sorted(waits)[len(waits) // 2] < 0.5, "the stream rings, nobody waits for the next poll"
        assert served.ended(served.order(task))["status"] == "finished"


def test_without_a_stream_we_ask(sandbox, task):
    sandbox.faults.add(path=WATCH, status=404, count=None)
    with serving(sandbox, {"finder": Finder()}, watched=False) as served:
        assert served.ended(served.order(task))["status"] == "finished"
        health = until(lambda: found if (found := served.door.health()).ok else None)
        assert "finder (function 1): asked every 0.3 s, there is no event stream" in health.text


@pytest.mark.parametrize("fault", [{"status": 500}, {"cut": True}, {"status": 429}], ids=str)
def test_the_stream_is_tried_again_soon(sandbox, task, fault):
    """Long before the next poll."""
    struck = sandbox.faults.add(path=WATCH, count=2, **fault)
    with serving(sandbox, {"finder": Finder()}, queue=RARE) as served:
        assert struck.struck == 2
        assert served.ended(served.order(task))["status"] == "finished"


def test_a_stream_that_breaks_off_is_taken_up_again(sandbox, task):
    for _ in range(3):
        sandbox.faults.add(path=WATCH, cut=True, when="after", after_bytes=10)
    with serving(sandbox, {"finder": Finder()}, queue=RARE, watched=False) as served:
        until(lambda: len(served.log("GET", WATCH)) >= 4)
        until(lambda: "watched" in served.door.health().text)
        assert served.ended(served.order(task))["status"] == "finished"


def test_an_event_that_breaks_off_with_its_stream_is_asked_for(sandbox, task):
    """And no other stream comes, which would tell of it again."""
    sandbox.faults.add(path=WATCH, cut=True, when="after", after_bytes=40)
    sandbox.faults.add(path=WATCH, status=404, count=None)
    with serving(sandbox, {"finder": Finder()}, queue=RARE) as served:
        until(lambda: len(served.log("POST", ACQUIRE)) >= 2)
        assert served.settled(served.enqueue(params(task, 0)))[0] == "completed"


ODD = {
    "comments and blank lines": b": hello\n\n\n: keep-alive\n\nretry: 50\n\n",
    "an unknown event": b'event: weather\ndata: {"sun": true}\n\n',
    "an unknown category": b'event: newrequest\ndata: {"request_category": "urgent"}\n\n',
    "no category": b"event: newrequest\ndata: 7\n\n",
    "data in lines": b'event: newrequest\ndata: {"request_category":\ndata:  "batch"}\n\n',
    "a page": b"<html><title>Welcome to nginx</title></html>",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("case", ODD)
def test_whatever_comes_through_the_stream(sandbox, task, case):
    """It is read to its end, and taken up again."""
    sandbox.faults.add(path=WATCH, status=200, body=ODD[case], headers={"content-type": "text/event-stream"}, count=2)
    with serving(sandbox, {"finder": Finder()}, queue=RARE) as served:
        assert served.ended(served.order(task))["status"] == "finished"


# ---------------------------------------------------------------------- asking


def test_interactive_requests_come_first_and_all_of_them(sandbox, task):
    with serving(sandbox, {"finder": Finder()}, start=False) as served:
        batch = served.enqueue({**params(task, 0), "type": "annotate_task"}, "batch")
        urgent = [served.enqueue(params(task, frame)) for frame in (0, 1, 2)]
        served.door.start()
        for queued in (batch, *urgent):
            assert served.settled(queued)[0] == "completed"
        kinds = [record.kind for record in sorted(served.finished(4), key=lambda record: record.began)]
        assert kinds == ["annotate_frame"] * 3 + ["annotate_task"]
        served.door.close()


PROXY = {"status": 404, "headers": {"content-type": "text/plain"}}


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}, {"status": 503}, {"cut": True}, PROXY], ids=str)
def test_a_server_that_cannot_be_asked_for_a_while(sandbox, task, fault):
    with serving(sandbox, {"finder": Finder()}) as served:
        asking = {"retry-after": "0", **fault.get("headers", {})}
        struck = sandbox.faults.add(method="POST", path=ACQUIRE, count=3, **{**fault, "headers": asking})
        if fault.get("status") == 404:
            sandbox.faults.add(path="/api/server/about", status=404, count=3)
        rq_id = served.order(task)
        assert served.ended(rq_id)["status"] == "finished"
        assert until(lambda: struck.struck == 3), "all of them, whichever call came first"
        assert until(lambda: served.door.health().ok)


def test_retry_after_is_kept(sandbox, task):
    with serving(sandbox, {"finder": Finder()}, start=False) as served:
        sandbox.faults.add(method="POST", path=ACQUIRE, status=429, headers={"Retry-After": "2"})
        began = time.monotonic()
        served.door.start()
        assert served.ended(served.order(task))["status"] == "finished"
        assert time.monotonic() - began >= 2
        served.door.close()


def test_a_server_that_allows_to_come_back_at_once_is_left_alone_all_the_same(sandbox):
    with serving(sandbox, {"finder": Finder()}, start=False) as served:
        struck = sandbox.faults.add(method="POST", path=ACQUIRE, status=429, headers={"Retry-After": "0"}, count=None)
        served.door.start()
        until(lambda: struck.struck)
        time.sleep(2)
        assert struck.struck <= 4
        served.door.close()


def test_a_lost_assignment_comes_again_when_its_time_is_over(sandbox, task):
    """The server gave it to us, and we never heard of it."""
    sandbox.state.lease_seconds = 0.5
    with serving(sandbox, {"finder": Finder()}) as served:
        sandbox.faults.add(method="POST", path=ACQUIRE, cut=True, when="after")
        assert served.ended(served.order(task))["status"] == "finished"
        assert len(served.shapes(task)) == 4


def test_who_may_not_serve_a_function_is_told_so(sandbox, task):
    with serving(sandbox, {"finder": Finder()}, start=False) as served:
        sandbox.faults.add(method="POST", path=ACQUIRE, status=403)
        served.door.start()
        health = until(lambda: found if "let this user" in (found := served.door.health()).text else None)
        assert not health.ok
        # It is asked again, at leisure.
        assert until(lambda: served.door.health().ok)
        served.door.close()


def test_a_function_that_is_deleted(sandbox, task):
    with serving(sandbox, {"finder": Finder(), "clicker": Clicker()}) as served:
        assert served.client.delete(f"/api/functions/{served.functions['finder']}").status_code == 204
        text = "finder (function 1): the function was deleted on the server; register the model again"
        health = until(lambda: found if text in (found := served.door.health()).text else None)
        assert not health.ok
        # The other one is served as before, nobody storms the server, and a new one is taken up.
        assert served.call("clicker", task=task, frame=0, pos_points=[[50, 60]]).status_code == 200
        asked = len(sandbox.requests.matching(path=r"/api/functions/.*1/"))
        time.sleep(0.5)
        assert len(sandbox.requests.matching(path=r"/api/functions/.*1/")) == asked
        made = {record.model: record for record in registrar(served.shared).register()}
        assert (made["finder"].status, made["clicker"].status) == ("created", "there")
        served.functions["finder"] = made["finder"].function
        served.door.reload()
        assert until(lambda: served.door.health().ok)
        assert served.ended(served.order(task, "finder"))["status"] == "finished"


def test_a_function_that_comes_back_is_served_once_service_toml_is_read_again(sandbox, task):
    """As for a user who was put out of the organization, and is let in again."""
    functions = sandbox.state.functions
    with serving(sandbox, {"finder": Finder()}) as served:
        row = functions.get(served.functions["finder"])
        assert row is not None
        with sandbox.state.store.change():
            functions.remove(row.id)
        until(lambda: "was deleted" in served.door.health().text)
        with sandbox.state.store.change():
            functions.save(row)
        served.door.reload()
        until(lambda: served.door.health().ok)
        assert served.ended(served.order(task))["status"] == "finished"


# --------------------------------------------------------------- several agents


def test_agents_share_the_work(sandbox, session):
    tasks = [make_image_task(session, count=2, labels=THING) for _ in range(6)]
    one, two = Finder(seconds=0.2), Finder(seconds=0.2)
    with (
        serving(sandbox, {"finder": one}) as first,
        serving(sandbox, {"finder": two}, register=False, start=False) as second,
    ):
        (first.shared.state_dir / "functions.json").rename(second.shared.state_dir / "functions.json")
        second.functions = first.functions
        second.door.start()
        assert first.door.agent != second.door.agent
        orders = [first.order(task) for task in tasks]
        assert {first.ended(order)["status"] for order in orders} == {"finished"}
        assert [len(first.shapes(task)) for task in tasks] == [2] * 6
        assert one.calls
        assert two.calls
        # Each frame once; requests that wait together may go through the model together.
        assert sum(len(frames) for frames in [*one.calls, *two.calls]) == 12
        second.door.close()


def _asks_in(sandbox, seconds):
    """How often the queue is asked for work in so many seconds."""
    before = len(sandbox.requests.matching("POST", "/acquire$"))
    time.sleep(seconds)
    return len(sandbox.requests.matching("POST", "/acquire$")) - before


def test_leaving_nothing_new_and_what_is_held_goes_on(sandbox, session, task):
    finder, other = Finder(), make_image_task(session, count=2, labels=THING)
    with serving(sandbox, {"finder": finder}) as served:
        finder.gate.clear()
        first = served.order(task)
        assert finder.began.wait(20)
        # Whoever has just got a request asks for another: what that call brings was asked for before.
        until(lambda: not _asks_in(sandbox, 0.2))
        served.door.drain()
        assert "nothing new is taken" in served.door.health().text
        second = served.order(other)
        queued = served.enqueue(params(task, 1))
        finder.gate.set()
        assert served.ended(first)["status"] == "finished"
        time.sleep(0.5)
        assert (served.request(second)["status"], queued.status) == ("queued", "queued")


def test_closing_gives_up_what_is_held_without_a_word(sandbox, task):
    finder = Finder(batch_size=1)
    with serving(sandbox, {"finder": finder}) as served:
        finder.gate.clear()
        rq_id = served.order(task)
        assert finder.began.wait(20)
        served.door.close()
        finder.gate.set()
        assert served.finished()[0].outcome == "cancelled"
        assert len(finder.calls) <= 2
        assert served.request(rq_id)["status"] == "started"
        assert not served.log("POST", r"/(fail|complete)$")


def test_closing_leaves_no_threads(sandbox, task):
    def alive():
        ours = ("ask-", "watch-", "heartbeat", "lane-", "download-", "decode-", "functions")
        return [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)]

    with serving(sandbox, {"finder": Finder(), "clicker": Clicker()}) as served:
        assert served.ended(served.order(task))["status"] == "finished"
        assert served.call("clicker", task=task, frame=0, pos_points=[[50, 60]]).status_code == 200
        assert len(alive()) >= 4
        began = time.monotonic()
        served.door.close()
        assert time.monotonic() - began < 2
        until(lambda: not alive())


# ------------------------------------------------------------------------ models


def test_a_model_that_cannot_be_loaded_takes_no_work_and_says_so_once(sandbox, task, caplog):
    caplog.set_level(logging.DEBUG, "agent.doors.queue.server")
    models = {"finder": Finder()}
    with serving(sandbox, models, start=False) as served:
        served.shared.pool.close()
        with serving(
            sandbox, {"finder": ModelLoadFailed("no weights at /srv/x")}, register=False, start=False
        ) as broken:
            (served.shared.state_dir / "functions.json").rename(broken.shared.state_dir / "functions.json")
            broken.door.start()
            queued = served.enqueue(params(task, 0))
            health = until(lambda: found if "cannot be served" in (found := broken.door.health()).text else None)
            assert not health.ok
            tries = until(lambda: found if len(found := _tries(caplog)) >= 3 else None)
            assert [line.levelno for line in tries] == [logging.WARNING] + [logging.DEBUG] * (len(tries) - 1)
            assert queued.status == "queued"
            broken.door.close()


def test_nothing_is_taken_before_a_model_is_ready_that_is_to_be_so_from_the_start(sandbox, task, tmp_path):
    """What it is, an earlier service has written down; but its weights may have to come from afar."""
    with serving(sandbox, {"finder": Finder()}, folder=tmp_path, start=False) as before:
        before.shared.pool.close()
    gate, begun, load = threading.Event(), threading.Event(), loader({"finder": Finder()})

    def slow(*words, **options):
        begun.set()
        assert gate.wait(20)
        return load(*words, **options)

    rows = [ModelSettings("finder", "test:finder")]
    with serving(sandbox, rows, folder=tmp_path, load=slow, register=False, watched=False) as served:
        served.functions = before.functions
        assert served.shared.pool.describe("finder") is not None
        queued = served.enqueue(params(task, 0))
        assert begun.wait(20)
        time.sleep(0.5)
        assert queued.status == "queued"
        gate.set()
        assert served.settled(queued)[0] == "completed"


def _tries(caplog):
    return [line for line in caplog.records if "no weights at /srv/x; trying again" in line.getMessage()]


def test_a_model_that_no_longer_does_what_its_function_promises(sandbox, task):
    with serving(sandbox, {"finder": Finder()}, start=False) as served:
        other = Finder(labels=[Label("something else", "rectangle")])
        with serving(sandbox, {"finder": other}, register=False, start=False) as changed:
            (served.shared.state_dir / "functions.json").rename(changed.shared.state_dir / "functions.json")
            changed.door.start()
            text = "function 1: label 'thing': the model does not have it"
            until(lambda: text in changed.door.health().text)
            queued = served.enqueue(params(task, 0))
            time.sleep(0.5)
            assert queued.status == "queued"
            changed.door.close()


@pytest.fixture
def two_models(sandbox):
    """A function for a finder of things, and what makes the model another one, as SIGHUP does."""
    other = Finder(labels=[Label("something else", "rectangle")])
    rows = [ModelSettings("finder", "test:finder")]
    with serving(sandbox, rows, load=loader({"finder": Finder(), "other": other, "clicker": Clicker()})) as served:

        def replace_by(name):
            served.shared.pool.replace([ModelSettings("finder", f"test:{name}")], EngineSettings())
            served.shared.pool.preload()

        yield served, other, replace_by


def test_after_a_reload_nothing_is_taken_that_only_the_old_model_could_do(two_models, task):
    """Also before the door has heard of the reload."""
    served, other, replace_by = two_models
    assert served.ended(served.order(task))["status"] == "finished"
    replace_by("other")
    queued = served.enqueue(params(task, 0))
    until(lambda: "label 'thing': the model does not have it" in served.door.health().text)
    time.sleep(0.5)
    assert (queued.status, other.calls) == ("queued", [])
    replace_by("finder")
    served.door.reload()
    assert served.settled(queued)[0] == "completed"


@pytest.mark.parametrize("name", ["other", "clicker"])
def test_a_request_that_was_taken_before_a_reload_is_judged_by_the_new_model(sandbox, two_models, task, name):
    served, other, replace_by = two_models
    slow = sandbox.faults.add(method="GET", path=rf"/api/tasks/{task}$", delay=1.0)
    rq_id = served.order(task)
    until(lambda: slow.struck)
    replace_by(name)
    served.door.reload()
    ended = served.ended(rq_id)
    assert ended["status"] == "failed"
    assert "The model does not fit the function any more" in str(ended)
    assert other.calls == []


def test_the_log_tells_when_the_server_is_waited_for_and_reached(sandbox, task, caplog):
    caplog.set_level("INFO")
    with serving(sandbox, {"finder": Finder(), "clicker": Clicker()}, start=False) as served:
        away = sandbox.faults.add(path=r"^/api/functions", status=502, count=None)
        served.shared.session.settings = replace(served.shared.session.settings, retries=0)
        served.door.start()
        assert "finder (function 1): waiting for the server" in served.door.health().text
        until(lambda: served.door.health().text.count("waiting for the server, which cannot be reached yet") == 2)
        assert away.struck
        sandbox.faults.clear()
        until(lambda: served.door.health().ok)
        assert served.ended(served.order(task))["status"] == "finished"
        served.door.close()
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("queue: ")]
    assert said[0].startswith("queue: agent ")
    assert said[1].startswith("queue: waiting for the server: ")
    assert said[2:] == ["queue: the server is reached", "queue: the server answers again"][: len(said) - 2]
    assert len(said) in (3, 4)


def test_models_without_a_function_are_named(sandbox):
    with serving(sandbox, {"finder": Finder(), "clicker": Clicker()}, register=False, start=False) as served:
        served.door.start()
        health = served.door.health()
        assert not health.ok
        assert health.text == "without a function: finder, clicker (`cvat-sidecar functions register`)"
        made = [record.function for record in registrar(served.shared).register(["finder"])]
        served.door.reload()
        until(lambda: served.door.health().ok)
        assert served.door.health().text.startswith(f"finder (function {made[0]}): ")
        # Without its table the door serves nothing.
        served.shared.config = replace(served.shared.config, queue=None)
        served.door.reload()
        assert served.door.health().text == "no model is for the queue"
        served.door.close()


def test_a_reidentifier_is_not_asked_to_have_a_function(sandbox):
    rows = [ModelSettings("people", "test:people", options={"kind": "reid"})]
    with serving(sandbox, rows, load=loader({}), register=False, start=False) as served:
        served.door.start()
        assert served.door.health().text == "no model is for the queue"
        served.door.close()


def test_functions_that_are_registered_or_deleted_are_noticed(sandbox, task, caplog):
    with serving(sandbox, {"finder": Finder(), "clicker": Clicker()}, register=False, start=False) as served:
        served.door.start()
        made = {record.model: record.function for record in registrar(served.shared).register()}
        served.functions = {model: number for model, number in made.items() if number is not None}
        assert served.ended(served.order(task, "finder"))["status"] == "finished"
        until(lambda: served.door.health().ok)
        functions = served.shared.state_dir / "functions.json"
        right = functions.read_text()
        functions.write_text("[]")
        until(lambda: "everything stays as it is" in caplog.text)
        functions.write_text(right)
        list(registrar(served.shared).delete(["clicker"]))
        until(lambda: "without a function: clicker" in served.door.health().text)
        assert served.ended(served.order(task, "finder"))["status"] == "finished"
        served.door.drain()
        list(registrar(served.shared).register())
        time.sleep(1.5)
        assert "clicker (function" not in served.door.health().text, "nothing new is taken"
        served.door.close()


# ------------------------------------------------------------------- the server


def test_the_server_restarts(tmp_path):
    """In the middle of a long request: what was done is handed in once it is back."""
    users, data, finder = {"bot": "secret"}, tmp_path / "cvat", Finder(batch_size=1)
    with ExitStack() as stack:
        with Sandbox(users, data=data) as first:
            port = int(first.url.rpartition(":")[2])
            with open_session(ServerSettings(host=first.url, user="bot", password="secret")) as session:
                task = make_image_task(session, count=6, labels=THING)
            served = stack.enter_context(serving(first, {"finder": finder}))
            finder.gate.clear()
            rq_id = served.order(task)
            assert finder.began.wait(20)
        until(lambda: not served.door.health().ok)
        second = stack.enter_context(Sandbox(users, port, data))
        finder.gate.set()
        client = stack.enter_context(Client(second, "bot", "secret"))
        ended = client.until(
            f"/api/lambda/requests/{rq_id}", lambda got: got.json().get("status") in ("finished", "failed"), 60
        )
        assert ended["status"] == "finished", ended
        found = client.get(f"/api/tasks/{task}/annotations").json()["shapes"]
        assert sorted(shape["frame"] for shape in found) == list(range(6))
        until(lambda: served.door.health().ok)

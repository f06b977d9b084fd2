"""Webhooks of the sandbox, delivered over real HTTP, wake the rules that they can concern."""

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agent.settings.tables import WatchSettings
from tests.flow.test_watch import LABELS, new_task
from tests.support.watching import boxes, rule, until, watching

SECRET = "a long secret"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)


def hooked(sandbox, *rules, **more):
    return watching(sandbox, *rules, watch=WatchSettings("HOOK_SECRET", check_seconds=0.05), **more)


@pytest.fixture
def receiver():
    """(address, answers, function to give what receives)."""
    answers, door = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, text = door[0].receive(body, self.headers)
            answers.append((json.loads(body)["event"], status, text))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", answers, door.append
    server.shutdown()
    thread.join()
    server.server_close()


def test_new_work_in_a_project_is_found_at_once(sandbox, session, receiver):
    address, answers, give = receiver
    project = session.request("POST", "/api/projects", body={"name": "p", "labels": LABELS}).json()["id"]
    events = ["create:task", "update:task", "create:job", "update:job", "create:issue"]
    hook = {"target_url": address, "type": "project", "project_id": project, "events": events, "secret": SECRET}
    with hooked(sandbox, rule(projects=(project,)), rule("other", projects=(project + 1,))) as watch:
        give(watch.door)
        watch.settle()
        number = session.request("POST", "/api/webhooks", body=hook).json()["id"]
        before = {looker.rule.name: looker.looks for looker in watch.door._all()}
        _, job = new_task(session, project=project, labels=None)
        (record,) = watch.ended(1)
        assert record.outcome == "done"
        watch.settle()
        looks = {looker.rule.name: looker.looks - before[looker.rule.name] for looker in watch.door._all()}
        assert looks["other"] == 0, "what cannot concern a rule does not wake it"
        assert {status for _, status, _ in answers} == {200}
        asked = session.request("POST", f"/api/webhooks/{number}/ping").json()
        assert (asked["status_code"], asked["response"]) == (200, "nothing to do")
    assert boxes(session, job) == {0: 1, 1: 1}


def test_an_event_about_a_job_at_work_wakes_every_rule_that_the_job_may_match(sandbox, session, receiver):
    """What the one rule has let go of, the other one is for, long before its time."""
    address, _, give = receiver
    project = session.request("POST", "/api/projects", body={"name": "p", "labels": LABELS}).json()["id"]
    events = ["update:job"]
    hook = {"target_url": address, "type": "project", "project_id": project, "events": events, "secret": SECRET}
    _, job = new_task(session, project=project, labels=None)
    rules = (rule("first"), rule("second", states=("rejected",)), rule("off", enabled=False))
    with hooked(sandbox, *rules) as watch:
        give(watch.door)
        watch.finder.gate.clear()
        watch.finder.await_batch()
        session.request("POST", "/api/webhooks", body=hook)
        session.request("PATCH", f"/api/jobs/{job}", body={"state": "rejected"})
        watch.finder.gate.set()
        records = watch.ended(2)
        assert [record.outcome for record in records] == ["cancelled", "done"]
        assert [one.looks for one in watch.door._all() if one.rule.name == "off"] == [1]
    assert boxes(session, job) == {0: 1, 1: 1}


def test_a_project_that_gets_the_label_brings_all_its_jobs(sandbox, session, receiver):
    """Its labels had been asked for just before."""
    address, answers, give = receiver
    project = session.request("POST", "/api/projects", body={"name": "p", "labels": [{"name": "thing"}]}).json()["id"]
    hook = {"target_url": address, "type": "project", "project_id": project, "events": ["update:project"]}
    jobs = [new_task(session, project=project, labels=None)[1] for _ in range(3)]
    with hooked(sandbox, rule(label="special*")) as watch:
        give(watch.door)
        watch.settle()
        session.request("POST", "/api/webhooks", body={**hook, "secret": SECRET})
        session.request("PATCH", f"/api/projects/{project}", body={"labels": [{"name": "special thing"}]})
        assert {record.outcome for record in watch.ended(3)} == {"done"}
        assert answers == [("update:project", 200, "1 rules look")]
    assert boxes(session, *jobs) == {0: 3, 1: 3}


@pytest.mark.parametrize("kind", ["task", "project"])
def test_a_deleted_task_or_project_stops_the_jobs_at_work(sandbox, session, kind):
    _, job = new_task(session, count=6)
    with watching(sandbox, rule(), watch=WatchSettings("HOOK_SECRET", check_seconds=99)) as watch:
        watch.finder.gate.clear()
        watch.finder.await_batch()
        task = session.request("GET", f"/api/jobs/{job}").json()["task_id"]
        session.request("DELETE", f"/api/tasks/{task}")
        body = json.dumps({"event": f"delete:{kind}", kind: {"id": task}}).encode()
        assert send(watch.door, body) == (200, "1 jobs at work are looked at")
        (attended,) = watch.door._place.at_work()
        assert attended.cancelled.wait(20)
        watch.finder.gate.set()
        assert watch.ended(1)[0].outcome == "cancelled"


def test_an_event_lets_a_server_be_asked_again_that_was_away(sandbox, session):
    with hooked(sandbox, rule()) as watch:
        watch.settle()
        reach = watch.door._place.reach
        _, job = new_task(session)
        sandbox.faults.add(method="GET", path=r"/api/jobs$", status=403)
        for looker in watch.door._all():
            looker.look()
        until(lambda: reach.wait > 2)
        body = json.dumps({"event": "update:job", "job": {"id": job}}).encode()
        assert send(watch.door, body) == (200, "1 rules look")
        assert reach.wait == 0
        assert watch.ended(1)[0].outcome == "done"


def test_a_server_that_was_away_is_asked_again_long_before_the_next_look(sandbox, session, caplog):
    caplog.set_level("INFO")
    new_task(session)
    away = sandbox.faults.add(method="GET", path=r"/api/jobs$", status=403)
    with watching(sandbox, rule()) as watch:
        assert watch.ended(1)[0].outcome == "done"
        assert away.struck == 1
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("watch: ")]
    assert said[0].startswith("watch: the server refuses us: ")
    assert said[1:] == ["watch: the server is reached"]


def test_events_are_gathered(sandbox, session):
    new_task(session)
    with hooked(sandbox, rule(tasks=(999,))) as watch:
        watch.settle()
        looks = watch.door._all()[0].looks
        body = json.dumps({"event": "update:task", "task": {}}).encode()
        for _ in range(50):
            assert send(watch.door, body) == (200, "1 rules look")
        until(lambda: watch.door._all()[0].looks > looks)
        watch.settle()
        assert watch.door._all()[0].looks - looks <= 10


def send(door, body, secret=SECRET, header="X-Signature-256"):
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return door.receive(body, {header: f"sha256={digest}"})


def test_what_is_no_event_of_ours_is_refused(sandbox, session):
    body = json.dumps({"event": "update:job", "job": {"id": 1}}).encode()
    with hooked(sandbox, rule()) as watch:
        door = watch.door
        assert send(door, body)[0] == 200
        assert send(door, body, header="x-signature-256")[0] == 200
        assert door.receive(body, {})[0] == 401
        assert send(door, body, secret="another")[0] == 403
        assert door.receive(body, {"X-Signature-256": "sha256=ü"})[0] == 403
        assert send(door, b"x" * (2**20 + 1))[0] == 413
        for wrong in (b"", b"{", b"[]", b"{}", b'{"event": 7}', b"[" * 100_000):
            assert send(door, wrong)[0] == 400
    with watching(sandbox, rule()) as watch:
        assert send(watch.door, body)[0] == 404

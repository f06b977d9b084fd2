"""The status page over HTTP, without a browser: what it shows, and whom it obeys."""

import hashlib
import hmac
import socket

import httpx
import pytest

from agent.cvat.annotations_api import get_annotations
from agent.errors import BadRequest, ModelLoadFailed
from agent.ledger.ledger import Ledger
from tests.support.html import elements, text_of, wellformed
from tests.support.service import PASSWORD, Page, running, written
from tests.unit.test_pool import Loader

EVIL = "<script>alert(1)</script>"
pytestmark = pytest.mark.usefixtures("passwords")


@pytest.fixture
def page(service):
    return service.page


@pytest.fixture
def guarded(tmp_path, passwords):
    """A service that wants a password."""
    with running(written(tmp_path, service='secret_env = "STATUS_WORD"'), load=Loader()) as opened:
        yield opened
        opened.door.end.set()


@pytest.fixture
def visit():
    """Opens pages as others would, and closes them."""
    opened = []

    def come(service, password=None):
        opened.append(Page(service.url, password))
        return opened[-1]

    yield come
    for page in opened:
        page.http.close()


class TestLooking:
    def test_it_shows_what_is_worked_on_and_what_was(self, service, page):
        page.until(lambda now: now["ready"])
        service.door.work("task 12")
        with (
            pytest.raises(BadRequest),
            service.shared.activity.begin("queue", "annotate_frame", "faces", "job 7 frame 3"),
        ):
            raise BadRequest("job 7 has no frame 3")
        text, html = text_of(page.get("/").text), page.get("/").text
        for shown in (
            "task 12",
            "3 of 10",
            "queue annotate_task",
            "faces",
            "opencv:face",
            "ready",
            "job 7 has no frame 3",
        ):
            assert shown in text
        (bar,) = elements(html, "progress")
        assert (bar["value"], bar["max"]) == ("3", "10")
        assert "task 12" in bar["aria-label"]

    def test_it_is_whole_and_says_what_is_what(self, service, page):
        service.door.work()
        html = page.get("/").text
        assert html.startswith("<!doctype html>")
        assert wellformed(html)
        assert elements(html, "html") == [{"lang": "en"}]
        assert len(elements(html, "h1")) == 1
        assert elements(html, "meta")[1]["name"] == "viewport"
        assert all("aria-labelledby" in section for section in elements(html, "section"))
        ids = [attributes["id"] for name in ("section", "h2", "button", "a", "p") for attributes in elements(html, name)
               if "id" in attributes]  # fmt: skip
        assert len(ids) == len(set(ids)), "ids are there once"
        assert all(column["scope"] == "col" for column in elements(html, "th") if column["role"] == "columnheader")

    def test_json_has_the_same(self, service, page):
        service.door.work("task 12")
        found = page.status()
        (request,) = found["running"]
        assert (request["what"], request["done"], request["total"], request["can_be_cancelled"]) == (
            "task 12",
            3,
            10,
            True,
        )
        assert found["lanes"][1] == {"name": "batch", "places": 2, "taken": 1}
        assert found["models"][0].keys() >= {"id", "title", "status", "memory", "users", "error", "kind", "load"}
        parts = page.get("/api/parts").json()
        assert set(parts) == {"service", "running", "models", "doors", "runs", "errors", "finished"}
        assert "task 12" in text_of(parts["running"])

    def test_no_text_becomes_markup(self, tmp_path):
        more = f"""
        [[models]]
        id = "evil"
        model = "x:{EVIL}"
        name = "{EVIL}"
        """
        load = Loader()
        load.fail[f"x:{EVIL}"] = ModelLoadFailed(f"no such file {EVIL}")
        with running(written(tmp_path, more=more), load=load) as service:
            service.door.state = type(service.door.state)(False, EVIL)
            service.door.work(EVIL, model=EVIL)
            service.page.until(lambda now: now["models"][1]["status"] == "failed")
            with pytest.raises(BadRequest), service.shared.activity.begin("queue", EVIL, EVIL, EVIL):
                raise BadRequest(EVIL)
            with Ledger(service.shared.ledger) as book:
                run = book.begin(server=EVIL, user=EVIL, target=f"task {EVIL}", model=EVIL, model_version=EVIL,
                                 options={}, frames={1: [0]})  # fmt: skip
                book.end(run, "failed", {})
            for path in ("/", f"/runs/{run}"):
                html = service.page.get(path).text
                assert wellformed(html)
                assert [script.get("src") for script in elements(html, "script")] == ["/status.js"]
                assert text_of(html).count(EVIL) >= 4
            for html in service.page.get("/api/parts").json().values():
                assert not elements(html, "script")
            service.door.end.set()

    def test_secrets_are_not_shown(self, service, page, monkeypatch):
        monkeypatch.setenv("SOME_TOKEN", "very-secret-word")
        service.service._redact.know(["very-secret-word"])
        with pytest.raises(OSError), service.shared.activity.begin("queue", "x", "faces", "task 1"):
            raise OSError("cannot open https://user:very-secret-word@host/ with Bearer abcdefgh12345678")
        for path in ("/", "/api/status", "/api/parts"):
            shown = page.get(path).text
            assert "very-secret-word" not in shown
            assert "abcdefgh12345678" not in shown
            assert "OSError: cannot open https://***@host/" in shown

    def test_the_policy_lets_nothing_run_but_our_own_files(self, page):
        for path in ("/", "/status.js", "/api/status", "/nothing", "/healthz"):
            headers = page.get(path).headers
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
        html = page.get("/").text
        assert "style=" not in html
        assert "onclick" not in html

    def test_files_come_as_what_they_are(self, page):
        kinds = {"/status.js": "text/javascript", "/status.css": "text/css", "/icon.svg": "image/svg+xml"}
        for path, kind in kinds.items():
            answer = page.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert page.get("/static/status.js").status_code == 404
        assert page.get("/../agent/cli.py").status_code == 404

    def test_without_the_script_it_loads_itself_again(self, page):
        html = page.get("/").text
        assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in html


class TestWhoMayLook:
    def test_others_need_the_password(self, guarded, visit):
        stranger = visit(guarded)
        for path in ("/", "/api/status", "/api/parts", "/metrics", "/status.js", "/runs/x", "/nothing"):
            answer = stranger.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Basic realm=")
            assert "faces" not in answer.text
        assert stranger.http.post("/requests/x/cancel").status_code == 401

    def test_with_it_all_is_there(self, guarded, visit):
        friend = visit(guarded, PASSWORD)
        for path in ("/", "/api/status", "/metrics"):
            assert friend.get(path).status_code == 200
        bearer = {"Authorization": f"Bearer {PASSWORD}"}
        assert visit(guarded).get("/metrics", headers=bearer).status_code == 200
        assert visit(guarded).get("/metrics", headers={"Authorization": "Bearer no"}).status_code == 401

    def test_health_is_told_to_everybody_and_reasons_are_not(self, guarded, visit):
        stranger, friend = visit(guarded), visit(guarded, PASSWORD)
        guarded.door.state = type(guarded.door.state)(False, "cannot reach cvat.internal")
        assert stranger.get("/healthz").text == "ok\n"
        answer = stranger.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False})
        assert "cvat.internal" in friend.get("/readyz").text

    @pytest.mark.parametrize("host", ["evil.test", "localhost.evil.test:80", "127.0.0.1.evil.test"])
    def test_a_name_that_somebody_pointed_here_is_refused(self, service, host):
        """DNS rebinding: the browser believes that this is the attacker's own site."""
        for path in ("/", "/api/status", "/metrics"):
            answer = service.page.get(path, headers={"Host": host})
            assert (answer.status_code, "faces" in answer.text) == (403, False)
        assert service.page.get("/readyz", headers={"Host": host}).json().keys() == {"ready"}

    def test_names_can_be_allowed(self, tmp_path):
        with running(written(tmp_path, service='allowed_hosts = ["sidecar.test"]'), load=Loader()) as opened:
            assert opened.page.get("/", headers={"Host": "sidecar.test:8090"}).status_code == 200
            assert opened.page.get("/", headers={"Host": "other.test:8090"}).status_code == 403

    def test_a_connection_that_asks_nothing_is_closed(self, service, monkeypatch):
        monkeypatch.setattr("agent.http_server.HEADER_SECONDS", 0.1)
        with socket.create_connection(("127.0.0.1", httpx.URL(service.url).port), timeout=10) as silent:
            silent.sendall(b"GET / HT")
            assert silent.recv(100) == b""

    def test_only_what_changes_nothing_can_be_got(self, page):
        for path in ("/requests/x/cancel", "/runs/x/undo", "/webhook"):
            assert page.get(path).status_code == 405
        assert page.http.post("/").status_code == 405
        assert page.http.delete("/runs/x").status_code == 405


class TestCancelling:
    def test_the_button_cancels(self, service, page):
        service.door.work("task 12")
        (request,) = page.status()["running"]
        answer = page.post(f"/requests/{request['id']}/cancel")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        found = page.until(lambda now: not now["running"])
        assert [(row["what"], row["outcome"], row["error"]) for row in found["finished"]] == [
            ("task 12", "cancelled", "cancelled on the status page")
        ]

    def test_one_that_is_over_needs_no_cancelling(self, page, service):
        service.door.work()
        assert page.post("/requests/nothing/cancel").status_code == 303
        assert len(page.status()["running"]) == 1

    def test_nobody_else_can_press_it(self, service, page):
        service.door.work()
        (request,) = page.status()["running"]
        path, host = f"/requests/{request['id']}/cancel", service.url.removeprefix("http://")
        refused = [
            page.post(path, token=""),
            page.post(path, token="wrong"),
            page.post(path, headers={"Sec-Fetch-Site": "cross-site"}),
            page.post(path, headers={"Sec-Fetch-Site": "same-site"}),
            page.post(path, headers={"Origin": "http://evil.test"}),
            page.post(path, headers={"Origin": "null"}),
            page.post(path, headers={"Host": "evil.test"}),
            page.http.post(path, json={"token": page.token}),
            page.http.post(path),
        ]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        assert len(page.status()["running"]) == 1
        assert not page.status()["running"][0]["cancelling"]
        own = {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert page.post(path, headers=own).status_code == 303

    def test_a_form_that_is_too_large_is_refused(self, page, service):
        service.door.work()
        assert page.post("/requests/x/cancel", more="x" * 2**17).status_code == 413


class TestUndoing:
    def undone(self, page, run):
        return page.until(lambda now: now["undoing"].get(run) and not now["undoing"][run]["running"])["undoing"][run]

    def test_a_run_is_shown_and_taken_back(self, annotated):
        service, run, session, job = annotated
        page = service.page
        assert len(get_annotations(session, job)["shapes"]) == 2
        (shown,) = page.status()["runs"]
        assert (shown["id"], shown["status"], shown["frames"]["done"], shown["annotations"]) == (run, "done", 2, 2)
        assert f"Undo… run {run}" in text_of(page.get("/").text)
        html = page.get(f"/runs/{run}").text
        assert wellformed(html)
        assert "2 shapes" in text_of(html)
        assert "nothing else" in text_of(html), "it asks before it does anything"
        assert len(get_annotations(session, job)["shapes"]) == 2
        service.door.work()  # the page's token comes with a form
        answer = page.post(f"/runs/{run}/undo")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run}")
        assert self.undone(page, run)["lines"] == [f"run {run}: 2 annotations removed"]
        assert get_annotations(session, job)["shapes"] == []
        assert page.status()["runs"][0]["status"] == "undone"
        assert "2 annotations removed" in text_of(page.get(f"/runs/{run}").text)
        finished = page.status()["finished"][0]
        assert (finished["kind"], finished["outcome"], finished["run"]) == ("undo", "done", run)

    def test_what_somebody_changed_stays_unless_asked_for(self, annotated):
        service, run, session, job = annotated
        shape = get_annotations(session, job)["shapes"][0]
        changed = {"shapes": [{**shape, "points": [5, 5, 25, 25], "source": "semi-auto"}]}
        session.request("PATCH", f"/api/jobs/{job}/annotations", query={"action": "update"}, body=changed)
        service.door.work()
        service.page.post(f"/runs/{run}/undo")
        assert "1 kept, because somebody has changed them" in self.undone(service.page, run)["lines"][1]
        assert len(get_annotations(session, job)["shapes"]) == 1
        service.page.post(f"/runs/{run}/undo", changed_too="yes")
        service.page.until(lambda now: "1 annotations removed" in str(now["undoing"][run]["lines"]))
        assert get_annotations(session, job)["shapes"] == []

    def test_what_cannot_be_undone_is_told(self, annotated):
        service, run, _, _ = annotated
        service.door.work()
        answer = service.page.post("/runs/nothing/undo")
        assert answer.status_code == 404
        service.page.post(f"/runs/{run}/undo")
        self.undone(service.page, run)
        service.page.post(f"/runs/{run}/undo")
        service.page.until(lambda now: "it is undone already" in str(now["undoing"][run]["error"]))
        assert "It could not be undone" in text_of(service.page.get(f"/runs/{run}").text)

    def test_one_after_the_other(self, annotated, sandbox):
        service, run, _, _ = annotated
        service.door.work()
        sandbox.faults.add(method="GET", path=r"/api/jobs/\d+/annotations", delay=0.5, when="before", count=1)
        assert service.page.post(f"/runs/{run}/undo").status_code == 303
        answer = service.page.post(f"/runs/{run}/undo")
        assert answer.status_code == 409
        assert "it is being undone already" in text_of(answer.text)
        assert elements(answer.text, "meta")[-1]["http-equiv"] == "refresh"
        (undo,) = [row for row in service.page.status()["running"] if row["kind"] == "undo"]
        assert not undo["can_be_cancelled"]
        self.undone(service.page, run)

    def test_a_server_that_is_gone_is_told(self, annotated, sandbox):
        service, run, _, _ = annotated
        service.door.work()
        sandbox.faults.add(path=r"/api/jobs/\d+/annotations", status=403, count=100)
        service.page.post(f"/runs/{run}/undo")
        assert self.undone(service.page, run)["error"]
        (error,) = service.page.status()["errors"]
        assert error["kind"] == "undo"

    def test_nobody_else_can_do_it(self, annotated):
        service, run, session, job = annotated
        service.door.work()
        for more in ({"token": "x"}, {"headers": {"Sec-Fetch-Site": "cross-site"}}):
            assert service.page.post(f"/runs/{run}/undo", **more).status_code == 403
        assert len(get_annotations(session, job)["shapes"]) == 2

    def test_an_unknown_run_is_a_404(self, service):
        answer = service.page.get("/runs/nothing")
        assert answer.status_code == 404
        assert "no run of that id" in answer.text


class Receiver:
    """What the watch door does with webhooks: checks the signature, and says so."""

    def __init__(self):
        self.events = []

    def receive(self, body, headers):
        wanted = "sha256=" + hmac.new(b"hook-word", body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(headers.get("X-Signature-256", ""), wanted):
            return 401, "the signature is not right"
        self.events.append(body)
        return 200, "taken"


class TestWebhooks:
    RULE = '\n[watch]\nwebhook_secret_env = "HOOK"\n[[rules]]\nname = "r"\nmodel = "faces"'

    @pytest.fixture
    def hooked(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOOK", "hook-word")
        with running(written(tmp_path, more=self.RULE, service='secret_env = "STATUS_WORD"'), load=Loader()) as opened:
            receiver = Receiver()
            opened.doors["watch"].receive = receiver.receive
            yield opened, receiver

    def test_are_passed_on_as_they_came(self, hooked):
        service, receiver = hooked
        body = b'{"event": "update:job"}'
        signature = "sha256=" + hmac.new(b"hook-word", body, hashlib.sha256).hexdigest()
        # The server comes by whatever name it knows, without our password; the signature says who it is.
        headers = {"X-Signature-256": signature, "Host": "sidecar.internal"}
        answer = httpx.post(f"{service.url}/webhook", content=body, headers=headers, trust_env=False)
        assert (answer.status_code, answer.text) == (200, "taken\n")
        answer = httpx.post(f"{service.url}/webhook", content=body + b" ", headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert receiver.events == [body]

    def test_are_not_received_unless_service_toml_says_so(self, service):
        assert service.page.http.post("/webhook", content=b"{}").status_code == 404

    def test_no_flood_fills_the_memory(self, hooked):
        service, receiver = hooked
        answer = httpx.post(f"{service.url}/webhook", content=b"x" * (5 * 2**20), trust_env=False)
        assert answer.status_code == 413
        assert receiver.events == []

    def test_who_sends_slowly_or_hangs_up_is_answered_or_forgotten(self, hooked, monkeypatch, caplog):
        monkeypatch.setattr("agent.web.app.BODY_SECONDS", 0.3)
        service, receiver = hooked
        address = ("127.0.0.1", httpx.URL(service.url).port)
        head = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
        for _ in range(3):
            with socket.create_connection(address, timeout=10) as gone:
                gone.sendall(head)
        with socket.create_connection(address, timeout=10) as slow:
            slow.sendall(head)
            assert b" 408 " in slow.recv(4096)
        assert receiver.events == []
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

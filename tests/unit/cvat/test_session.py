"""Retries, time-outs and refusals of a session, against a small HTTP server that says what a test tells it to."""

import gzip
import http.server
import json
import logging
import socket
import threading
import time
import warnings
from email.utils import formatdate

import pytest

from agent.cvat.session import Session
from agent.errors import RequestCancelled, ServerRefused, ServerUnavailable
from agent.settings.server import ServerSettings

JSON = "application/vnd.cvat+json"


class Script:
    """Answers in turn with (status, headers, body); `cut` ends a body early. The last one is repeated."""

    def __init__(self):
        self.answers, self.seen, self.gate = [(200, {}, b"{}")], [], threading.Event()
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                script.seen.append((self.command, self.path, dict(self.headers), body))
                answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                answer = answer(self) if callable(answer) else answer
                if answer is not None:
                    script.send(self, *answer)

            def log_message(self, *args): ...

        for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.do_any)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @staticmethod
    def send(handler, status, headers, body, cut=False):
        handler.send_response(status)
        for name, value in {"Content-Type": JSON, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if cut else body)
        handler.close_connection = handler.close_connection or cut

    @property
    def paths(self):
        return [(method, path) for method, path, _, _ in self.seen]

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def script():
    made = Script()
    yield made
    made.close()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def opened(script, waits):
    """`opened(**settings)` gives a session with a token, whose waits are noted and never slept."""
    sessions = []

    def open_(**more):
        settings = {"host": script.url, "token": "tok-en", "timeout": 5.0, **more}
        stop = settings.pop("stop", None)
        session = Session(ServerSettings(**settings), sleep=waits.append, jitter=lambda: 1.0, stop=stop)
        sessions.append(session)
        return session

    yield open_
    for session in sessions:
        session.close()


def test_headers(script, opened):
    opened(organization="my-org").request("GET", "/api/tasks", query={"page": 2, "name": "a b"})
    method, path, headers, _ = script.seen[0]
    assert (method, path) == ("GET", "/api/tasks?page=2&name=a+b")
    assert headers["Authorization"] == "Bearer tok-en"
    assert headers["X-Organization"] == "my-org"
    assert headers["Accept"].startswith("application/vnd.cvat+json")


@pytest.mark.parametrize(("slug", "sent"), [(None, None), ("", ""), ("org", "org")])
def test_the_organization_is_named_or_not(script, opened, slug, sent):
    opened(organization=slug).request("GET", "/api/tasks")
    assert script.seen[0][2].get("X-Organization") == sent


def test_back_off_doubles_and_ends(script, opened, waits):
    script.answers = [(500, {}, b"")]
    with pytest.raises(ServerUnavailable, match=r"GET .*/api/tasks: status 500.*\(6 tries\)") as caught:
        opened(retries=5).request("GET", "/api/tasks")
    assert waits == [0.3, 0.6, 1.2, 2.4, 4.8]
    assert len(script.seen) == 6
    assert caught.value.maybe_done


def test_back_off_is_capped(script, opened, waits):
    script.answers = [(503, {}, b"")]
    with pytest.raises(ServerUnavailable):
        opened(retries=12).request("GET", "/api/tasks")
    assert max(waits) == waits[-1] == 30.0


def test_jitter_is_full(script, waits):
    script.answers = [(500, {}, b"")]
    settings = ServerSettings(host=script.url, token="t", retries=3)
    with Session(settings, sleep=waits.append, jitter=lambda: 0.0) as session, pytest.raises(ServerUnavailable):
        session.request("GET", "/api/tasks")
    assert waits == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_seconds_are_kept_and_capped(script, opened, waits, status):
    script.answers = [(status, {"Retry-After": "7"}, b""), (status, {"Retry-After": "9999"}, b""), (200, {}, b"[]")]
    assert opened().request("GET", "/api/tasks").json() == []
    assert 7 <= waits[0] <= 8
    assert 120 <= waits[1] <= 121


def test_retry_after_as_a_date(script, opened, waits):
    script.answers = [(429, {"Retry-After": formatdate(time.time() + 50, usegmt=True)}, b""), (200, {}, b"[]")]
    opened().request("GET", "/api/tasks")
    assert 45 <= waits[0] <= 51


@pytest.mark.parametrize("value", ["soon", "nan", "-5", "Mon, 99 Foo 2020"])
def test_a_retry_after_without_sense_does_no_harm(script, opened, waits, value):
    script.answers = [(429, {"Retry-After": value}, b""), (200, {}, b"[]")]
    opened().request("GET", "/api/tasks")
    assert 0 <= waits[0] <= 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("answer", [(500, {}, b""), (502, {"Content-Type": "text/html"}, b"<html>"), None])
def test_what_may_not_be_repeated_is_sent_once(script, opened, waits, method, answer):
    script.answers = [answer or (lambda handler: setattr(handler, "close_connection", True))]
    with pytest.raises(ServerUnavailable) as caught:
        opened().request(method, "/api/jobs/1/annotations", body={"a": 1})
    assert caught.value.maybe_done
    assert len(script.seen) == 1
    assert waits == []


def test_what_may_be_repeated_is_when_it_is_said(script, opened):
    script.answers = [(500, {}, b""), (200, {}, b"{}")]
    opened().request("PATCH", "/api/jobs/1", body={"state": "new"}, repeatable=True)
    assert [json.loads(body) for *_, body in script.seen] == [{"state": "new"}] * 2


def test_what_was_never_sent_is_sent_again(opened, waits):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(ServerUnavailable, match="is the server running") as caught:
        opened(host=f"http://127.0.0.1:{port}", retries=2).request("POST", "/api/tasks", body={})
    assert not caught.value.maybe_done
    assert len(waits) == 2


def test_a_try_that_may_have_been_done_is_not_forgotten(script, opened):
    """The last try tells nothing about the ones before it."""

    def refuse_connections(handler):
        script.server.socket.close()
        handler.close_connection = True

    script.answers = [refuse_connections]
    with pytest.raises(ServerUnavailable) as caught:
        opened(retries=2).request("DELETE", "/api/tasks/1")
    assert caught.value.maybe_done


@pytest.mark.parametrize("status", [400, 403, 404, 406, 409, 413])
def test_a_refusal_is_final(script, opened, waits, status):
    script.answers = [(status, {}, b'{"detail":"because"}')]
    with pytest.raises(ServerRefused, match=f"status {status}: because") as caught:
        opened().request("GET", "/api/tasks/7")
    assert caught.value.status == status
    assert len(script.seen) == 1
    assert waits == []


def test_a_redirect_is_told_and_not_followed(script, opened):
    script.answers = [(301, {"Location": "https://cvat.example.com/api/tasks?token=x"}, b"")]
    with pytest.raises(ServerRefused, match=r"redirects to https://cvat\.example\.com/api/tasks;") as caught:
        opened().request("GET", "/api/tasks")
    assert caught.value.status == 301
    assert "token=x" not in str(caught.value)
    assert len(script.seen) == 1


def test_a_page_instead_of_json(script, opened):
    script.answers = [(200, {"Content-Type": "text/html"}, b"<!doctype html><title>Welcome to nginx</title>")]
    with pytest.raises(ServerRefused, match="is there a CVAT server"):
        opened().request("GET", "/api/tasks").json()


def test_a_body_that_is_cut_is_fetched_again(script, opened, waits):
    whole = bytes(range(256)) * 40
    script.answers = [(200, {}, whole, True), (200, {}, whole)]
    assert opened().request("GET", "/api/jobs/1/data").body == whole
    assert len(waits) == 1


def test_json_comes_squeezed_and_data_as_it_is(script, opened):
    script.answers = [(200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"a": 1}')), (200, {}, b"zip")]
    session = opened()
    assert session.request("GET", "/api/jobs/1/annotations").json() == {"a": 1}
    assert session.request("GET", "/api/jobs/1/data").body == b"zip"
    assert [headers.get("Accept-Encoding") for _, _, headers, _ in script.seen] == ["gzip", "identity"]


def test_a_server_that_is_silent(script, opened, waits):
    script.answers = [lambda handler: void(script.gate.wait(30)), (200, {}, b"[]")]
    assert opened().request("GET", "/api/tasks", timeout=0.2).json() == []
    assert len(waits) == 1


def test_an_answer_that_trickles_in_is_given_up(script, waits):
    def trickle(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not script.gate.wait(0.01):
            handler.wfile.write(b"x" * 2000)

    script.answers = [trickle]
    now = iter(range(0, 10_000, 30))
    settings = ServerSettings(host=script.url, token="t", retries=0, timeout=5.0)
    with Session(settings, clock=lambda: next(now)) as session, pytest.raises(ServerUnavailable, match="in time"):
        session.request("GET", "/api/jobs/1/data")


def test_stop_ends_waiting(script):
    script.answers = [(500, {}, b"")]
    stop = threading.Event()
    stop.set()
    with Session(ServerSettings(host=script.url, token="t"), stop=stop) as session, pytest.raises(ServerUnavailable):
        session.request("GET", "/api/tasks")
    assert len(script.seen) == 1


def test_one_calls_stop_ends_its_waiting_and_no_others(script):
    script.answers = [(503, {"Retry-After": "100"}, b""), (200, {}, b"[]")]
    stop = threading.Event()
    with Session(ServerSettings(host=script.url, token="t")) as session:
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(RequestCancelled):
            session.request("GET", "/api/jobs/1/data", stop=stop)
        assert session.request("GET", "/api/tasks").json() == []


def test_a_password_is_sent_once_and_never_shown(script, opened, caplog):
    caplog.set_level(logging.DEBUG)
    script.answers = [(200, {}, b'{"key":"abc"}'), (500, {}, b""), (200, {}, b"[]")]
    session = opened(token=None, user="bot", password="pass-word")
    session.request("GET", "/api/tasks")
    session.request("GET", "/api/tasks")
    assert [path for _, path in script.paths] == ["/api/auth/login"] + ["/api/tasks"] * 3
    assert json.loads(script.seen[0][3]) == {"username": "bot", "password": "pass-word"}
    assert {headers["Authorization"] for _, _, headers, _ in script.seen[1:]} == {"Token abc"}
    for secret in ("pass-word", "abc"):
        assert secret not in caplog.text
        assert secret not in repr(session.settings)


def test_a_token_that_ends_is_renewed_once_a_call(script, opened):
    """The old token must not go with the login: CVAT looks at it first and refuses."""
    refused = (401, {}, b'{"detail":"Invalid token."}')
    fine = (200, {}, b"[]")
    keys = [(200, {}, json.dumps({"key": key}).encode()) for key in "123"]
    script.answers = [keys[0], fine, refused, keys[1], fine, refused, keys[2], refused]
    session = opened(token=None, user="bot", password="p")
    session.request("GET", "/api/a")
    session.request("PATCH", "/api/b", body={})
    with pytest.raises(ServerRefused) as caught:
        session.request("GET", "/api/c")
    assert caught.value.status == 401
    assert [(path, headers.get("Authorization")) for _, path, headers, _ in script.seen] == [
        ("/api/auth/login", None), ("/api/a", "Token 1"),
        ("/api/b", "Token 1"), ("/api/auth/login", None), ("/api/b", "Token 2"),
        ("/api/c", "Token 2"), ("/api/auth/login", None), ("/api/c", "Token 3"),
    ]  # fmt: skip


def test_a_refused_access_token_is_not_tried_again(script, opened):
    script.answers = [(401, {}, b'{"detail":"Invalid token."}')]
    with pytest.raises(ServerRefused, match="token or password is not accepted"):
        opened().request("GET", "/api/tasks")
    assert len(script.seen) == 1


def test_threads_log_in_once(script, opened):
    script.answers = [(200, {}, b'{"key":"abc"}'), (200, {}, b"[]")]
    session = opened(token=None, user="bot", password="p")
    threads = [threading.Thread(target=session.request, args=("GET", "/api/tasks")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path for _, path in script.paths].count("/api/auth/login") == 1


def test_the_sdks_client_is_logged_in(script, opened):
    script.answers = [(200, {}, b'{"key":"abc"}')]
    assert opened(token=None, user="b", password="p").client.api_client.default_headers["Authorization"] == "Token abc"


def test_an_unknown_version_is_no_noise(script, opened, caplog):
    caplog.set_level(logging.INFO)
    script.answers = [(200, {}, b'{"version":"1.2.3"}')]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened().server_version == "1.2.3"
    assert caplog.text == ""


def test_connections_of_failed_calls_are_not_leaked(script, opened):
    script.answers = [(200, {}, b"x" * 5000, True)]
    session = opened(retries=3)
    with pytest.raises(ServerUnavailable):
        session.request("GET", "/api/jobs/1/data")


def void(value): ...

"""The doctor against real servers with one thing wrong: it names that hop, and no other."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.commands.doctor import patient_of
from agent.cvat.functions_api import delete_function
from agent.doctor.agenda import checks_for
from agent.doctor.examination import examine, exit_code
from agent.domain import Label
from agent.functions.bodies import function_body
from agent.functions.ids import FunctionIds
from agent.models.descriptions import Description, Descriptions
from agent.sandbox import Sandbox
from agent.settings.tables import GatewaySettings, ModelSettings
from tests.support.dashboard import Dashboard
from tests.support.doctor import LOGIN, SLOW, examined, written
from tests.support.doors import shared
from tests.support.gateway import free_port, opened
from tests.support.material import make_image_task

ROOT = Path(__file__).resolve().parents[2]
FACE = ModelSettings(id="face", model="opencv:face")
FACES = Description("detector", (Label("face", "rectangle"), Label("eye", "rectangle")), "1")


@pytest.fixture(autouse=True)
def _password(monkeypatch):
    monkeypatch.setenv("BOT_PASSWORD", "secret")


@pytest.fixture
def task(session):
    return make_image_task(session, count=2, labels=[{"name": "face"}, {"name": "eye"}])


def known(folder, description=FACES):
    """The model has been loaded here before."""
    Descriptions(folder / "state" / "models").write(FACE, description)


def token(session, **more):
    return session.request("POST", "/api/auth/access_tokens", body={"name": "doctor", **more}).json()["value"]


# ------------------------------------------------------------- the way to the server


@pytest.fixture(params=[False, True], ids=["on a machine", "in a container"])
def contained(request, monkeypatch):
    """Whether this is a container, which is not for a test to choose."""
    monkeypatch.setattr("agent.doctor.network.in_container", lambda: request.param)
    return request.param


def test_a_wrong_port(tmp_path, contained):
    found = examined(written(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert found.failed == {"server.connection"}
    mend = "http://cvat-server:8080" if contained else "is CVAT running? are [cvat] host and port right?"
    assert "Connection refused -> " in found["server.connection"]
    assert found["server.connection"].endswith(mend)
    assert found["server.login"] == "skipped  server.login: server.connection failed"


def test_a_name_that_nobody_knows(tmp_path):
    found = examined(written(tmp_path, "http://cvat.invalid"), seconds=5)
    assert found.failed == {"server.name"}
    assert "'cvat.invalid'" in found["server.name"]
    assert found.state("server.connection") == "skipped"


def test_a_name_with_an_underscore_is_refused_by_django(tmp_path, sandbox, monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, *args, **more):
        return real("127.0.0.1" if host == "cvat_server" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found = examined(written(tmp_path, sandbox.url.replace("127.0.0.1", "cvat_server")))
    assert (found.failed, found.warnings & {"server.name"}) == (set(), {"server.name"})
    assert "cvat-server" in found["server.name"]


def test_a_server_that_accepts_and_never_answers(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        began = time.monotonic()
        found = examined(written(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}"), seconds=0.5)
    assert found.failed == {"server.cvat"}
    assert "no answer in time" in found["server.cvat"]
    assert time.monotonic() - began < 30


def test_proxies_are_told_and_not_used(tmp_path, sandbox, task, monkeypatch):
    monkeypatch.setattr("agent.doctor.network.in_container", lambda: False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy")
    known(tmp_path)
    found = examined(written(tmp_path, sandbox.url))
    assert found.failed == set()
    assert "http_proxy, https_proxy set" in found["server.proxy"]
    gone = examined(written(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert "only through the proxy" in gone["server.connection"]


# ------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody has signed, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=127.0.0.1",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    return folder


class Answers(BaseHTTPRequestHandler):
    """Somebody who is not CVAT, or says so."""

    page = b"<html><title>Welcome to nginx!</title></html>"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *args):
        pass


class Cvat(Answers):
    page = b'{"version": "2.73.0"}'


@contextmanager
def serving(handler, certificate=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # What clients think of the certificate is their matter.
    server.handle_error = lambda *args: None
    if certificate:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_certificate_that_nobody_has_signed(tmp_path, certificate):
    with serving(Cvat, certificate) as place:
        found = examined(written(tmp_path, f"https://{place}"))
        assert found.failed == {"server.tls"}
        assert "self-signed certificate -> give the authority's certificate as [cvat] ca_file" in found["server.tls"]
        trusted = examined(written(tmp_path, f"https://{place}", cvat=f'{LOGIN}\nca_file = "{certificate}/cert.pem"'))
        assert trusted.state("server.tls") == trusted.state("server.cvat") == "ok"
        assert "good for 29 days" in trusted["server.tls"] or "good for 30 days" in trusted["server.tls"]
        blind = examined(written(tmp_path, f"https://{place}", cvat=f"{LOGIN}\nverify_ssl = false"))
        assert {"server.tls", "configuration.exposure"} <= blind.warnings
        assert blind.state("server.cvat") == "ok"


def test_a_certificate_for_another_name(tmp_path, certificate):
    with serving(Cvat, certificate) as place:
        url = f"https://{place}".replace("127.0.0.1", "localhost")
        found = examined(written(tmp_path, url, cvat=f'{LOGIN}\nca_file = "{certificate}/cert.pem"'))
    assert found.failed == {"server.tls"}
    assert "is not for localhost" in found["server.tls"]


def test_https_where_http_is_spoken(tmp_path, sandbox):
    found = examined(written(tmp_path, sandbox.url.replace("http://", "https://")))
    assert found.failed == {"server.tls"}
    assert "plain http" in found["server.tls"]


# ------------------------------------------------------------------------ the server


def test_something_that_is_not_cvat(tmp_path):
    with serving(Answers) as place:
        found = examined(written(tmp_path, f"http://{place}"))
    assert found.failed == {"server.cvat"}
    assert "it is not CVAT" in found["server.cvat"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 502}, "start cvat_server"),
        ({"status": 301, "headers": {"Location": "https://cvat.example.com/api"}}, "https://cvat.example.com/api"),
        ({"status": 400}, "ALLOWED_HOSTS"),
        ({"status": 200, "body": b'{"name": "another API"}'}, "it is not CVAT"),
        ({"cut": True}, "look at the logs of CVAT"),
    ],
    ids=["proxy without a server", "redirect", "another name", "another API", "cut"],
)
def test_a_server_that_answers_wrongly(tmp_path, sandbox, fault, said):
    sandbox.faults.add(path="/api/server/about", count=None, **fault)
    found = examined(written(tmp_path, sandbox.url))
    assert found.failed == {"server.cvat"}
    assert said in found["server.cvat"]


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        ("2.20.1", "warning", "older than 2.60"),
        ("3.0.0", "warning", "newer than cvat-sdk"),
        ("2.73.0", "ok", "2.73.0"),
        ("dev", "skipped", "cannot be compared"),
    ],
)
def test_versions(tmp_path, sandbox, version, state, said):
    body = json.dumps({"version": version}).encode()
    sandbox.faults.add(path="/api/server/about", status=200, body=body, count=None)
    found = examined(written(tmp_path, sandbox.url))
    assert found.failed == set()
    assert (found.state("server.version"), said in found["server.version"]) == (state, True)


@pytest.mark.parametrize(("hours", "said"), [(2, "ahead of"), (-2, "behind")])
def test_a_clock_that_is_wrong(tmp_path, hours, said):
    class Late(Cvat):
        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + hours * 3600)

    with serving(Late) as place:
        found = examined(written(tmp_path, f"http://{place}"))
    assert found.warnings >= {"server.clock"}
    assert re.search(rf"(719\d|720\d) s {said} ours", found["server.clock"])


# ----------------------------------------------------------------------- the account


def test_a_wrong_password(tmp_path, sandbox, monkeypatch):
    monkeypatch.setenv("BOT_PASSWORD", "wrong-word")
    found = examined(written(tmp_path, sandbox.url))
    assert found.failed == {"server.login"}
    assert "password of bot (password_env BOT_PASSWORD)" in found["server.login"]
    assert not any("wrong-word" in str(line) for line in found.lines.values())


def test_a_wrong_token(tmp_path, sandbox, monkeypatch):
    monkeypatch.setenv("DOCTORS_TOKEN", "no-such-token")
    found = examined(written(tmp_path, sandbox.url, cvat='token_env = "DOCTORS_TOKEN"'))
    assert found.failed == {"server.login"}
    assert "does not accept the token -> make a personal access token" in found["server.login"]
    assert "where token_env DOCTORS_TOKEN says" in found["server.login"]


def test_a_token_that_may_only_read(tmp_path, sandbox, session, task, monkeypatch):
    monkeypatch.setenv("DOCTORS_TOKEN", token(session, read_only=True))
    known(tmp_path)
    rule = '[[rules]]\nname = "all"\nmodel = "face"'
    found = examined(written(tmp_path, sandbox.url, cvat='token_env = "DOCTORS_TOKEN"', more=rule))
    assert found.failed == {"server.rights"}
    assert "without `read-only`" in found["server.rights"]
    found = examined(written(tmp_path, sandbox.url, cvat='token_env = "DOCTORS_TOKEN"'))
    assert (found.failed, found.state("server.rights")) == (set(), "warning")


@pytest.mark.parametrize(
    ("more", "state", "said"),
    [
        ({}, "ok", "does not expire"),
        ({"expiry_date": "2999-01-01T00:00:00Z"}, "ok", "may write, for"),
        (
            {"expiry_date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3 * 86400))},
            "warning",
            "ends in 2 days",
        ),
        (
            {"expiry_date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))},
            "warning",
            "within a day, at",
        ),
    ],
    ids=["for ever", "for long", "for three days", "for an hour"],
)
def test_the_life_of_a_token(tmp_path, sandbox, session, monkeypatch, more, state, said):
    monkeypatch.setenv("DOCTORS_TOKEN", token(session, **more))
    found = examined(written(tmp_path, sandbox.url, cvat='token_env = "DOCTORS_TOKEN"'))
    assert found.failed == set()
    assert (found.state("server.rights"), said in found["server.rights"]) == (state, True)


def test_no_login_at_all_is_a_wrong_configuration(tmp_path, sandbox):
    found = examined(written(tmp_path, sandbox.url, cvat=""))
    assert found.failed == {"configuration.login"}
    assert found["server.login"] == "skipped  server.login: configuration.login failed"


def test_the_gateway_alone_needs_no_login(tmp_path, sandbox):
    found = examined(written(tmp_path, sandbox.url, cvat="", more=f"[gateway]\nport = {free_port()}"))
    assert found.failed == set()
    assert found.state("configuration.login") == found.state("server.login") == "skipped"


def test_an_organization_that_does_not_exist(tmp_path, sandbox, session):
    session.request("POST", "/api/organizations", body={"slug": "farm", "name": "Farm"})
    found = examined(written(tmp_path, sandbox.url, cvat=f'{LOGIN}\norganization = "nope"'))
    assert found.failed == {"server.organization"}
    assert "'nope' does not exist for bot; allowed: farm" in found["server.organization"]
    good = examined(written(tmp_path, sandbox.url, cvat=f'{LOGIN}\norganization = "farm"'))
    assert (good.failed, good.state("server.organization")) == (set(), "ok")


def test_somebody_who_sees_nothing(tmp_path, sandbox):
    found = examined(written(tmp_path, sandbox.url))
    assert (found.failed, found.state("server.sight")) == (set(), "warning")
    assert "0 jobs -> assign jobs to bot" in found["server.sight"]


# ------------------------------------------------------------------------- the queue


def registered(folder, session, description=FACES):
    made = session.request("POST", "/api/functions", body=function_body(FACE, description, public=False)).json()
    with FunctionIds(folder / "state", session).held() as remember:
        remember("face", made["id"])
    return made["id"]


def test_a_function_that_fits(tmp_path, sandbox, session, task):
    registered(tmp_path, session)
    file = written(tmp_path, sandbox.url, more="[queue]")
    found = examined(file)
    assert (found.failed, found.state("queue.function face")) == (set(), "skipped")
    known(tmp_path)
    found = examined(file)
    assert found.failed | found.warnings == set()
    assert "detector 'face', fits the model" in found["queue.function face"]


def test_the_open_source_server_has_no_queue(tmp_path, sandbox, session, task):
    page = b"<html><title>Not Found</title></html>"
    html = {"status": 404, "body": page, "headers": {"Content-Type": "text/html"}}
    sandbox.faults.add(path="^/api/functions", count=None, **html)
    found = examined(written(tmp_path, sandbox.url, more="[queue]"))
    assert found.failed == {"queue.server"}
    assert "use [gateway]" in found["queue.server"]
    assert found.state("queue.function face") == "skipped"


def test_a_model_without_a_function(tmp_path, sandbox, task):
    found = examined(written(tmp_path, sandbox.url, more="[queue]"))
    assert found.failed == {"queue.function face"}
    assert f"-> cvat-sidecar functions register --config {tmp_path}/service.toml" in found["queue.function face"]


@pytest.mark.parametrize("remembered", [True, False])
def test_a_reidentifier_needs_no_function(tmp_path, sandbox, task, remembered):
    model = ""
    if remembered:
        known(tmp_path, Description("reid"))
    else:
        model = 'options = { kind = "reid" }'
    found = examined(written(tmp_path, sandbox.url, more="[queue]", model=model))
    assert found.failed == set()
    assert "no native functions of the kind reid" in found["queue.function face"]


def test_a_function_that_was_deleted(tmp_path, sandbox, session, task):
    delete_function(session, registered(tmp_path, session))
    found = examined(written(tmp_path, sandbox.url, more="[queue]"))
    assert found.failed == {"queue.function face"}
    assert "is not there any more" in found["queue.function face"]


def test_a_model_that_cannot_have_its_options_is_told_once(tmp_path, sandbox, session, task):
    model = "options = { zebra = 1 }"
    found = examined(written(tmp_path, sandbox.url, more="[queue]", model=model), adapters=True)
    assert found.failed == {"models.options face"}
    assert "models.options face failed" in found["queue.function face"]


def test_a_function_that_does_not_fit(tmp_path, sandbox, session, task):
    registered(tmp_path, session, Description("detector", (Label("face", "polygon"), Label("nose")), "1"))
    known(tmp_path)
    found = examined(written(tmp_path, sandbox.url, more="[queue]"))
    assert found.failed == {"queue.function face"}
    assert "label 'face'" in found["queue.function face"]
    assert "cvat-sidecar functions delete face" in found["queue.function face"]


# ----------------------------------------------------------------------- the gateway


@contextmanager
def gateway_and_server(folder, *, invoke="dashboard", nuclio=None, **settings):
    """A gateway with one model, a sandbox that looks for its dashboard there (or at `nuclio`), and a task."""
    from agent.cvat.session import open_session
    from agent.settings.server import ServerSettings

    port = free_port()
    with (
        Sandbox({"bot": "secret"}, nuclio=nuclio or f"http://127.0.0.1:{port}", invoke=invoke) as sandbox,
        shared(sandbox, [FACE], folder=folder / "state", gateway=GatewaySettings(port=port, **settings)) as parts,
        opened(parts),
    ):
        parts.pool.preload()
        with open_session(ServerSettings(host=sandbox.url, user="bot", password="secret")) as session:
            make_image_task(session, count=2, labels=[{"name": "face"}, {"name": "eye"}])
        yield sandbox, port


def table(port, **more):
    return "\n".join(["[gateway]", f"port = {port}", *(f"{key} = {json.dumps(value)}" for key, value in more.items())])


def test_a_gateway_that_cvat_sees(tmp_path):
    with gateway_and_server(tmp_path) as (sandbox, port):
        found = examined(written(tmp_path, sandbox.url, more=table(port)), try_call=True)
    assert found.failed | found.warnings == set()
    assert "CVAT shows what our gateway has: face" in found["gateway.functions"]
    assert found.state("gateway.call") == "ok"


def test_menus_that_are_switched_off(tmp_path):
    with gateway_and_server(tmp_path) as (sandbox, port):
        sandbox.faults.add(path="/api/server/plugins", status=200, body=b'{"MODELS": false}', count=None)
        found = examined(written(tmp_path, sandbox.url, more=table(port)))
    assert found.failed == {"gateway.menus"}
    assert "CVAT_SERVERLESS=1" in found["gateway.menus"]


def test_a_dashboard_that_cvat_does_not_reach(tmp_path):
    with gateway_and_server(tmp_path, nuclio=f"http://127.0.0.1:{free_port()}") as (sandbox, port):
        found = examined(written(tmp_path, sandbox.url, more=table(port)))
        assert found.failed == {"gateway.dashboard"}
        assert sandbox.state.nuclio.removeprefix("http://") in found["gateway.dashboard"]
        assert f"CVAT_NUCLIO_PORT={port}" in found["gateway.dashboard"]
        assert found.state("gateway.functions") == "skipped"


def test_before_the_service_is_started_the_dashboard_cannot_be_judged(tmp_path, task):
    with Sandbox({"bot": "secret"}, nuclio=f"http://127.0.0.1:{free_port()}") as sandbox:
        found = examined(written(tmp_path, sandbox.url, more=table(free_port())))
    assert (found.failed, found.state("gateway.dashboard")) == (set(), "warning")
    assert "start `cvat-sidecar serve`" in found["gateway.dashboard"]


def test_another_dashboard_answers_cvat(tmp_path):
    with (
        Dashboard() as nuclio,
        gateway_and_server(tmp_path, nuclio=nuclio.url) as (sandbox, port),
    ):
        found = examined(written(tmp_path, sandbox.url, more=table(port)))
    assert found.failed == {"gateway.functions"}
    assert "CVAT does not show face, which our gateway has; it shows fake-detector" in found["gateway.functions"]


def test_another_sidecar_answers_cvat(tmp_path):
    other = tmp_path / "other"
    with (
        gateway_and_server(other) as (_, port),
        gateway_and_server(tmp_path, nuclio=f"http://127.0.0.1:{port}") as (sandbox, own),
    ):
        # The same id and labels; only what people read of it differs.
        file = written(tmp_path, sandbox.url, more=table(own))
        assert examined(file).failed == set()
    renamed = ModelSettings(id="face", model="opencv:face", description="Ours")
    with (
        gateway_and_server(other) as (_, port),
        Sandbox({"bot": "secret"}, nuclio=f"http://127.0.0.1:{port}") as sandbox,
        shared(sandbox, [renamed], folder=tmp_path / "state", gateway=GatewaySettings(port=own)) as parts,
        opened(parts),
    ):
        found = examined(written(tmp_path, sandbox.url, more=table(own)))
    assert found.failed == {"gateway.functions"}
    assert "another sidecar answers it" in found["gateway.functions"]


def test_a_gateway_that_does_not_let_cvat_in(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_WORD", "open sesame")
    with gateway_and_server(tmp_path, secret_env="GATEWAY_WORD") as (sandbox, port):
        found = examined(written(tmp_path, sandbox.url, more=table(port, secret_env="GATEWAY_WORD")))
    assert found.failed == {"gateway.dashboard"}
    assert "gateway.allow" in found["gateway.dashboard"]
    assert found.state("ports.gateway") == "ok"
    assert not any("sesame" in str(line) for line in found.lines.values())


def test_a_server_that_calls_functions_directly(tmp_path):
    with gateway_and_server(tmp_path, invoke="direct") as (sandbox, port):
        file = written(tmp_path, sandbox.url, more=table(port))
        assert examined(file).failed == set()
        found = examined(file, try_call=True)
    assert found.failed == {"gateway.call"}
    assert "CVAT_NUCLIO_INVOKE_METHOD=dashboard on cvat_server and cvat_worker_annotation" in found["gateway.call"]
    assert "direct_ports" in found["gateway.call"]


def test_direct_calls_with_ports_of_their_own(tmp_path):
    first = free_port(2)
    with gateway_and_server(tmp_path, invoke="direct", direct_ports=first) as (sandbox, port):
        found = examined(written(tmp_path, sandbox.url, more=table(port, direct_ports=first)), try_call=True)
        assert found.failed | found.warnings == set()
        assert f"{first} is held by our own gateway" in found["ports.direct"]
        # Another process would have other ports.
        found = examined(written(tmp_path, sandbox.url, more=table(port, direct_ports=free_port(2))))
        assert found.failed == {"ports.direct"}


def test_a_model_that_fails_when_it_is_called(tmp_path):
    with gateway_and_server(tmp_path) as (sandbox, port):
        sandbox.faults.add(
            method="POST", path="/api/lambda/functions/face", status=500, count=None,
            headers={"Content-Type": "application/json"},
            body=b'"500 Server Error: Internal Server Error for url: http://nuclio:8070/api/function_invocations"',
        )  # fmt: skip
        found = examined(written(tmp_path, sandbox.url, more=table(port)), try_call=True)
    assert found.failed == {"gateway.call"}
    assert "log of `cvat-sidecar serve`" in found["gateway.call"]


# --------------------------------------------------------------------------- our ports


def test_ports_that_somebody_else_has(tmp_path, sandbox, task):
    with serving(Answers) as status, serving(Answers) as gateway:
        first, second = (int(place.rpartition(":")[2]) for place in (status, gateway))
        found = examined(written(tmp_path, sandbox.url, port=first, more=table(second)))
    assert found.failed == {"ports.status", "ports.gateway"}
    assert f"{first} is taken by process {os.getpid()} (" in found["ports.status"]
    assert "choose another gateway.port" in found["ports.gateway"]
    assert found.state("gateway.dashboard") == "skipped"


def test_an_address_that_this_machine_does_not_have(tmp_path, sandbox, task):
    found = examined(written(tmp_path, sandbox.url, more=table(free_port(), host="192.0.2.1", allow=["192.0.2.0/24"])))
    assert found.failed == {"ports.gateway"}
    assert "no address of this machine" in found["ports.gateway"]


@contextmanager
def served(file):
    """`cvat-sidecar serve` in a process of its own, from when it listens; ends it in good order."""
    command = [sys.executable, "-m", "agent.cli", "serve", "--config", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            for line in process.stderr:
                if line.startswith("status page"):
                    break
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            yield process
        finally:
            process.terminate()
            process.wait(60)
            drain.join(10)


def test_our_own_service_holds_the_ports(tmp_path, monkeypatch):
    monkeypatch.setenv("STATUS_WORD", "open sesame")
    status, gateway = free_port(), free_port()
    with Sandbox({"bot": "secret"}, nuclio=f"http://127.0.0.1:{gateway}") as sandbox:
        from agent.cvat.session import open_session
        from agent.settings.server import ServerSettings

        with open_session(ServerSettings(host=sandbox.url, user="bot", password="secret")) as session:
            make_image_task(session, count=1, labels=[{"name": "face"}, {"name": "eye"}])
        parts = {"port": status, "service": 'secret_env = "STATUS_WORD"', "more": table(gateway)}
        file = written(tmp_path, sandbox.url, **parts)
        with served(file):
            end = time.monotonic() + 60
            while "which is ready" not in (found := examined(file, try_call=True))["ports.status"]:
                assert time.monotonic() < end, found["ports.status"]
            assert found.failed | found.warnings == set()
            assert f"{gateway} is held by our own gateway, which shows face" in found["ports.gateway"]
            assert found.state("gateway.call") == "ok"
        broken = f'{table(gateway)}\n[[models]]\nid = "none"\nmodel = "opencv:face"\noptions = {{ no = 1 }}'
        file = written(tmp_path, sandbox.url, **{**parts, "more": broken})
        with served(file):
            end = time.monotonic() + 60
            while "unknown option 'no'" not in (found := examined(file, adapters=True))["ports.status"]:
                assert time.monotonic() < end, found["ports.status"]
        assert found.failed == {"models.options none"}
        assert {"ports.status", "ports.gateway"} <= found.warnings
        assert "does not show none" in found["ports.gateway"]
    assert not any("sesame" in str(line) for line in found.lines.values())


# --------------------------------------------------------------------------- webhooks


WATCHED = """
[watch]
webhook_secret_env = "HOOK_WORD"
[[rules]]
name = "all"
model = "face"
"""


def test_webhooks(tmp_path, sandbox, session, task, monkeypatch):
    monkeypatch.setenv("HOOK_WORD", "a long word")
    known(tmp_path)
    file = written(tmp_path, sandbox.url, more=WATCHED)
    found = examined(file)
    assert (found.failed, found.warnings) == (set(), {"watch.webhook"})
    project = session.request("POST", "/api/projects", body={"name": "p", "labels": []}).json()["id"]
    hook = {"type": "project", "project_id": project, "events": ["update:job"], "secret": "a long word"}

    class Takes(Answers):
        status = 200

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(self.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Takes) as place:
        body = {**hook, "target_url": f"http://{place}/webhook", "is_active": True, "content_type": "application/json"}
        made = session.request("POST", "/api/webhooks", body=body).json()["id"]
        assert "nothing was delivered yet" in examined(file)["watch.webhook"]
        session.request("POST", f"/api/webhooks/{made}/ping", body={})
        assert "the last deliveries went well" in examined(file)["watch.webhook"]
        Takes.status = 403
        session.request("POST", f"/api/webhooks/{made}/ping", body={})
        found = examined(file)
        assert found.warnings == {"watch.webhook"}
        assert "the secret that webhook_secret_env names" in found["watch.webhook"]


# ------------------------------------------------------------------------------- rules


RULE = '[[rules]]\nname = "ours"\nmodel = "face"\n'


def test_rules_that_make_sense(tmp_path, sandbox, session, task):
    known(tmp_path)
    file = written(
        tmp_path, sandbox.url, more=f'{RULE}tasks = [{task}]\nassignee = "bot"\noptions = {{ threshold = 0.5 }}'
    )
    found = examined(file)
    assert found.failed | found.warnings == set()
    assert f"task {task}: 2 of 2" in found["rules.labels ours"]


@pytest.mark.parametrize(
    ("rule", "check", "said"),
    [
        ("options = { treshold = 0.5 }", "rules.options", "did you mean 'threshold'?"),
        ('options = { label_map = "nope.toml" }', "rules.options", "nope.toml"),
        ("projects = [77]", "rules.places ours", "bot sees no project 77"),
        ("tasks = [78, 79]", "rules.places ours", "bot sees no task 78, no task 79"),
        ('options = { mapping = { face = "nose" } }', "rules.labels ours", "no such label"),
    ],
)
def test_rules_that_do_not(tmp_path, sandbox, task, rule, check, said):
    known(tmp_path)
    found = examined(written(tmp_path, sandbox.url, more=RULE + rule))
    assert found.failed == {check}
    assert said in found[check]


def test_a_task_of_others_is_seen_by_the_jobs_in_it(tmp_path, sandbox, session, task):
    other = make_image_task(session, count=2, labels=[{"name": "face"}])
    with sandbox.state.store.change():
        rows, alice = sandbox.state, sandbox.state.users.first(username="alice").id
        for row in (rows.tasks.rows[task], rows.tasks.rows[other]):
            row.owner_id = alice
            rows.tasks.save(row)
        job = rows.jobs_of(task)[0]
        job.assignee_id = rows.users.first(username="bot").id
        rows.jobs.save(job)
    known(tmp_path)
    assert examined(written(tmp_path, sandbox.url, more=f"{RULE}tasks = [{task}]")).failed == set()
    found = examined(written(tmp_path, sandbox.url, more=f"{RULE}tasks = [{task}, {other}]"))
    assert found.failed == {"rules.places ours"}
    assert f"bot sees no task {other} " in found["rules.places ours"]


def test_an_assignee_whom_we_cannot_see(tmp_path, sandbox, task):
    known(tmp_path)
    found = examined(written(tmp_path, sandbox.url, more=f'{RULE}assignee = "alcie"'))
    assert (found.failed, found.warnings) == (set(), {"rules.assignee ours"})
    assert "'alcie'" in found["rules.assignee ours"]


def test_a_rule_for_a_model_of_another_kind(tmp_path, sandbox, task):
    known(tmp_path, Description("interactor"))
    found = examined(written(tmp_path, sandbox.url, more=RULE))
    assert found.failed == {"rules.labels ours"}
    assert "a rule wants a detector" in found["rules.labels ours"]


def test_a_rule_for_a_model_that_is_told_by_tasks(tmp_path, sandbox, task):
    known(tmp_path, Description("detector", finds="rectangle"))
    found = examined(written(tmp_path, sandbox.url, more=f"{RULE}tasks = [{task}]"))
    assert found.failed == set()
    assert f"task {task}: 2 of 2" in found["rules.labels ours"]
    found = examined(written(tmp_path, sandbox.url, more="[gateway]\nport = 0"))
    assert "only for rules and `annotate`" in found["labels face"]


def test_labels_without_a_place_are_worth_a_warning_for_menus(tmp_path, sandbox, task):
    known(tmp_path, Description("detector", (Label("submarine", "rectangle"),)))
    found = examined(written(tmp_path, sandbox.url, more="[gateway]\nport = 0"))
    assert (found.failed, found.warnings) == (set(), {"labels face"})
    command = f"cvat-sidecar labels match --task {task} --model face --config {tmp_path}/service.toml"
    assert f"-> {command} shows it" in found["labels face"]


# --------------------------------------------------------------------- the whole command


def sidecar(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", "doctor", *map(str, args)],
        capture_output=True, text=True, timeout=110, check=False, cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip


def test_the_whole_command_when_all_is_well(tmp_path, session):
    with gateway_and_server(tmp_path) as (sandbox, port):
        more = f'{table(port)}\n[[rules]]\nname = "all"\nmodel = "face"'
        before = len(sandbox.requests)
        file = written(tmp_path, sandbox.url, more=more)
        done = sidecar("--config", file, "--load", "--try-call", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(done.stdout)
        assert (told["exit_code"], told["failed"]) == (0, 0)
        lines = {(line["check"], line["of"]): line for line in told["checks"]}
        assert "detector, 2 labels" in lines["models.loads", "face"]["text"]
        assert lines["gateway.call", None]["state"] == "ok"
        # Nothing is changed on the server: it is read, but for the login and the call that was asked for.
        asked = {(entry.method, entry.path) for entry in list(sandbox.requests)[before:] if entry.method != "GET"}
        assert asked == {("POST", "/api/auth/login"), ("POST", "/api/lambda/functions/face")}
    assert "secret" not in done.stdout.replace("secrets", "").replace("secret_env", "")


def test_the_whole_command_when_the_server_is_away(tmp_path):
    done = sidecar("--config", written(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("failed")] == [
        line for line in lines if " server.connection: " in line
    ]
    assert lines[-1].startswith("1 failed, ")


@pytest.mark.parametrize(
    ("change", "said", "mend"),
    [
        (("[service]", "[servce]"), "unknown table [servce]; did you mean 'service'?", "put right the key"),
        (("[service]", "[service"), "cannot be read: Expected ']'", "put right that line: it is no TOML"),
        (("BOT_PASSWORD", "NO_SUCH"), "the environment has no variable NO_SUCH", "set it where the service starts"),
        (("http://127.0.0.1:9", "ftp://cvat"), "allowed: a name or an address like https://cvat", "put right the key"),
        (
            ("[service]", '[gateway]\nallow = ["10.0.0.0/33"]\n[service]'),
            "allow: got '10.0.0.0/33'",
            "put right the key",
        ),
        (("opencv:face", 'opencv:face"\ndors = "x'), "unknown key 'dors'; did you mean 'doors'?", "put right the key"),
    ],
)
def test_a_wrong_configuration_is_exit_2(tmp_path, change, said, mend):
    file = written(tmp_path, "http://127.0.0.1:9")
    file.write_text(file.read_text().replace(*change))
    patient = patient_of(file)
    checks = [check for check in checks_for(patient.config) if not check.name.startswith(SLOW)]
    lines = list(examine(checks, patient))
    assert exit_code(lines) == 2
    (failed,) = [str(line) for line in lines if line.finding.state == "failed"]
    assert failed.startswith("failed   configuration.file: ")
    assert said in failed
    assert f" -> {mend}" in failed
    # What has nothing to do with it is looked at all the same.
    states = {line.check: line.finding.state for line in lines}
    assert (states["machine.processors"] != "skipped", states["server.name"]) == (True, "skipped")


def test_a_configuration_that_is_not_there(tmp_path):
    done = sidecar("--config", tmp_path / "nope.toml")
    assert done.returncode == 2, done.stdout + done.stderr
    (failed,) = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert f"configuration.file: {tmp_path}/nope.toml: cannot be read: No such file" in failed
    assert "-> name the file by --config, or make one" in failed
    # What is skipped for it is one line until something else is looked at.
    skipped = [line for line in done.stdout.splitlines() if line.endswith(": configuration.file failed")]
    assert skipped[0].startswith("skipped  configuration.doors, configuration.secrets, ")
    assert "server.name, server.proxy, " in skipped[-1]
    assert len(skipped) <= 3
    assert "ok       installation.packages" in done.stdout


def test_what_is_so_of_several_models_is_one_line(tmp_path):
    more = "".join(f"[[models]]\nid = '{name}'\nmodel = 'opencv:face'\n" for name in ("second", "third"))
    done = sidecar("--config", written(tmp_path, f"http://127.0.0.1:{free_port()}", more=more))
    (line,) = [line for line in done.stdout.splitlines() if "models.loads" in line]
    assert line == (
        "skipped  models.loads face, second, third: loading takes a while; --load does it, and runs the model on a"
        " picture"
    )
    assert done.stdout.splitlines()[-1].endswith("skipped"), "the counts are of checks, not of lines"
    # What is well is a line each: it comes as it is found.
    assert sum("models.options" in line for line in done.stdout.splitlines()) == 3

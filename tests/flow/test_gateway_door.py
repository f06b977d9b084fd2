"""The gateway as a door: who may come in, other settings while it is open, and its end."""

import base64
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
import requests

from agent.errors import ConfigError
from agent.sandbox import Sandbox
from agent.settings.tables import GatewaySettings, ModelSettings
from tests.flow.test_gateway_bounds import GOOD, refused, until, works
from tests.support.gateway import Gateway, Watched, free_port, staged
from tests.support.models import Clicker
from tests.support.tasks import Client, drawn

SECRET = "open sesame & more"
CALLS = "/api/function_invocations"


@pytest.fixture
def guarded(monkeypatch):
    monkeypatch.setenv("GATEWAY_SECRET", SECRET)
    with staged({"finder": Watched()}, secret_env="GATEWAY_SECRET") as stage:
        yield stage


def test_nobody_comes_in_without_the_secret(guarded):
    for headers in ({}, {"X-Sidecar-Secret": "open"}, {"Authorization": "Basic !"}, {"Authorization": "Bearer x"}):
        refused(guarded.http.get("/api/functions", headers=headers), 403, "the secret is missing or wrong")
        answer = guarded.http.post(CALLS, json=GOOD, headers={**headers, "x-nuclio-function-name": "finder"})
        refused(answer, 403)
    refused(guarded.http.get("/wrong/api/functions"), 403)
    assert SECRET not in guarded.http.get("/api/functions").text


def test_the_secret_in_a_header_or_in_the_path(guarded):
    known = {"X-Sidecar-Secret": SECRET}
    assert list(guarded.http.get("/api/functions", headers=known).json()) == ["finder"]
    quoted = "/open%20sesame%20%26%20more"
    assert list(guarded.http.get(f"{quoted}/api/functions").json()) == ["finder"]
    assert guarded.http.get(f"{quoted}/api/functions/finder").status_code == 200
    answer = guarded.http.post(f"{quoted}{CALLS}", json=GOOD, headers={"x-nuclio-function-name": "finder"})
    assert answer.json()[0]["points"][0] == 3


def test_the_secret_in_the_dashboards_address_as_cvats_own_client_sends_it(guarded):
    """CVAT joins scheme, host and port to an address and calls it by requests."""
    host, port = "cvat:open%20sesame%20%26%20more@127.0.0.1", httpx.URL(guarded.gateway.url).port
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"http://{host}:{port}/api/functions", timeout=10)
    assert list(answer.json()) == ["finder"]
    token = base64.b64encode(b"anybody:wrong").decode()
    refused(guarded.http.get("/api/functions", headers={"Authorization": f"Basic {token}"}), 403)


def test_a_sandbox_with_the_secret_in_its_dashboards_address(guarded):
    address = guarded.gateway.url.replace("://", "://cvat:open%20sesame%20%26%20more@")
    with Sandbox({"bot": "secret"}, nuclio=address) as sandbox, Client(sandbox, "bot", "secret") as client:
        task = client.task([("0.png", drawn("PNG", (320, 240)))])
        answer = client.post("/api/lambda/functions/finder", json={"task": task, "frame": 0})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("allow", "status"),
    [((), 200), (("127.0.0.1",), 200), (("127.0.0.0/8", "::1"), 200), (("10.0.0.0/8",), 403), (("::1",), 403)],
)
def test_addresses(allow, status):
    with staged({"finder": Watched()}, allow=allow) as stage:
        answer = stage.http.get("/api/functions", headers={"X-Forwarded-For": "10.0.0.1"})
        assert answer.status_code == status
        assert stage.call("finder", GOOD).status_code == status


def test_an_open_gateway_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING), staged({"finder": Watched()}, host="0.0.0.0") as stage:
        assert "lets everybody use the models who reaches it" in caplog.text
        assert stage.gateway.url.startswith("http://0.0.0.0:")
    caplog.clear()
    with caplog.at_level(logging.WARNING), staged({"finder": Watched()}, host="0.0.0.0", allow=("127.0.0.1",)):
        assert caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"allow": ("here",)}, "service.toml: gateway: allow: got 'here', allowed: an address or a network"),
        ({"secret_env": "NO_SUCH_VARIABLE"}, "service.toml: gateway: secret_env: the environment has no variable"),
        ({"direct_ports": 65535}, "direct_ports: got 65535 to 65536, allowed: ports up to 65535"),
    ],
)
def test_settings_that_cannot_be(settings, text):
    with pytest.raises(ConfigError, match=text), staged({"one": Watched(), "two": Watched()}, **settings):
        pass


def test_a_taken_port_is_told_and_nothing_is_left_open():
    with socket.socket() as taken, staged({"finder": Watched()}) as stage:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, free = taken.getsockname()[1], free_port()
        table = GatewaySettings(port=free, direct_ports=port)
        shared = replace(stage.shared, config=replace(stage.shared.config, gateway=table))
        with pytest.raises(ConfigError, match=f"gateway: cannot listen on 127.0.0.1:{port}: Address already in use"):
            Gateway(shared).start()
        with socket.socket() as again:
            again.bind(("127.0.0.1", free))


def test_a_drained_gateway_ends_what_it_has_begun():
    finder = Watched()
    with staged({"finder": finder, "other": Watched()}) as stage, ThreadPoolExecutor(1) as pool:
        finder.gate.clear()
        held = pool.submit(stage.call, "finder", GOOD)
        until(finder.began.is_set, "the call never came")
        stage.gateway.drain()
        answer = stage.call("other", GOOD)
        refused(answer, 503, "the service ends")
        assert answer.headers["Retry-After"] == "1"
        assert stage.gateway.busy
        finder.gate.set()
        assert held.result(20).status_code == 200


def test_a_drained_gateway_stays_so_although_settings_come():
    with staged({"finder": Watched()}) as stage:
        stage.gateway.drain()
        stage.gateway.reload()
        refused(stage.call("finder", GOOD), 503, "the service ends")


def test_a_drained_gateway_goes_on_with_what_cvat_is_in_the_middle_of(monkeypatch):
    with staged({"finder": Watched(), "other": Watched()}) as stage:
        assert stage.call("finder", GOOD).status_code == 200
        assert stage.gateway.busy  # the next frame may be on its way
        stage.gateway.drain()
        assert stage.call("finder", GOOD).status_code == 200
        refused(stage.call("other", GOOD), 503, "the service ends")
        refused(stage.http.get("/api/functions"), 503, "the service ends")
        monkeypatch.setattr("agent.doors.gateway.app.SERIAL_GAP", 0.0)
        assert not stage.gateway.busy
        refused(stage.call("finder", GOOD), 503, "the service ends")


def test_a_closed_gateway_gives_up_what_it_holds():
    finder = Watched(batch_size=1)
    with staged({"finder": finder}) as stage, ThreadPoolExecutor(2) as pool:
        finder.gate.clear()
        held = [pool.submit(stage.call, "finder", GOOD) for _ in range(2)]
        until(lambda: finder.began.is_set() and stage.shared.pool.record("finder").depth == 1, "the calls never came")
        stage.gateway.close()
        for call in held:
            refused(call.result(20), 503, "the service ends")
        finder.gate.set()
        assert not stage.gateway.health().ok
        with pytest.raises(httpx.ConnectError):
            stage.http.get("/api/functions")


def test_a_call_whose_body_comes_while_the_gateway_closes_is_refused_too(capfd):
    body = json.dumps(GOOD).encode()
    head = f"POST /api/function_invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "x-nuclio-function-name: finder\r\n\r\n"
    with staged({"finder": Watched()}) as stage, ThreadPoolExecutor(1) as pool:
        assert stage.call("finder", GOOD).status_code == 200  # CVAT is in the middle of a request
        address = ("127.0.0.1", httpx.URL(stage.gateway.url).port)
        with (
            socket.create_connection(address, timeout=10) as late,
            socket.create_connection(address, timeout=10) as never,
        ):
            for caller in (late, never):
                caller.sendall(head.encode() + body[:10])
            time.sleep(0.2)  # both are being read
            closing = pool.submit(stage.gateway.close)
            time.sleep(0.2)
            late.sendall(body[10:])
            assert b" 503 " in late.recv(4096)
            assert b" 503 " in never.recv(4096)
            closing.result(20)
    assert "Traceback" not in capfd.readouterr().err


def with_gateway(stage, **changes):
    config = stage.shared.config
    stage.shared.config = replace(config, gateway=replace(config.gateway, **changes))
    stage.gateway.reload()


def test_other_settings_while_calls_are_held():
    finder = Watched()
    with staged({"finder": finder}, concurrency=1) as stage, ThreadPoolExecutor(3) as pool:
        finder.gate.clear()
        held = pool.submit(stage.call, "finder", GOOD)
        until(finder.began.is_set, "the call never came")
        refused(stage.call("finder", GOOD), 429)
        with_gateway(stage, concurrency=2, score_attribute="")
        more = pool.submit(stage.call, "finder", GOOD)
        until(lambda: stage.shared.pool.record("finder").depth == 1, "the call never came")
        finder.gate.set()
        assert (held.result(20).status_code, more.result(20).status_code) == (200, 200)
        assert "attributes" not in more.result().json()[0]
        spec = stage.http.get("/api/functions/finder").json()["metadata"]["annotations"]["spec"]
        assert "score" not in spec


def hangs_up(url):
    try:
        httpx.get(f"{url}/api/functions", trust_env=False)
    except httpx.TransportError:
        return True
    return False


def test_another_port_and_another_model():
    first = free_port(2)
    finder = Watched()
    with staged({"one": finder, "two": Clicker()}, direct_ports=first) as stage, ThreadPoolExecutor(1) as pool:
        finder.gate.clear()
        held = pool.submit(stage.call, "one", GOOD)
        until(finder.began.is_set, "the call never came")
        config, old, new = stage.shared.config, stage.gateway.url, free_port()
        stage.shared.config = replace(
            config,
            models=config.models[:1],
            gateway=replace(config.gateway, port=new, direct_ports=first + 1),
        )
        stage.shared.pool.replace(stage.shared.config.models, stage.shared.config.engine)
        stage.gateway.reload()
        with httpx.Client(trust_env=False) as client:
            assert list(client.get(f"http://127.0.0.1:{new}/api/functions").json()) == ["one"]
            finder.gate.set()
            assert held.result(20).status_code == 200
            answer = client.post(f"http://127.0.0.1:{first + 1}/", json=GOOD)
            assert answer.json()[0]["points"][0] == 3
            for gone in (old, f"http://127.0.0.1:{first}"):
                until(lambda gone=gone: hangs_up(gone), "the old port is still there")


def test_many_ports_close_at_once():
    models = {f"finder-{number}": Watched() for number in range(60)}
    with staged(models, learn=False, direct_ports=free_port(60)) as stage:
        began = time.monotonic()
        stage.gateway.close()
        assert time.monotonic() - began < 2


def test_no_call_is_lost_while_servers_are_exchanged():
    """Each on a connection of its own, as CVAT makes them."""
    first = free_port(1)
    with staged({"finder": Watched()}) as stage, ThreadPoolExecutor(3) as pool:
        ended = threading.Event()

        def calls():
            found = []
            while not ended.is_set():
                found.append(stage.call("finder", GOOD, Connection="close").status_code)
            return found

        callers = [pool.submit(calls) for _ in range(3)]
        for turn in range(6):
            with_gateway(stage, direct_ports=None if turn % 2 else first)
            assert works(stage)
        ended.set()
        statuses = [status for caller in callers for status in caller.result(60)]
    assert len(statuses) > 10
    assert set(statuses) == {200}


def test_bad_settings_leave_the_old_ones():
    with staged({"finder": Watched()}) as stage:
        good = stage.shared.config
        with pytest.raises(ConfigError, match="allow: got 'nowhere'"):
            with_gateway(stage, allow=("nowhere",))
        stage.shared.config = good
        assert works(stage)


def test_models_that_are_for_other_doors_are_not_here():
    models = [ModelSettings("hidden", "test:hidden", doors=("queue",)), ModelSettings("shown", "test:shown")]
    with staged({"hidden": Watched(), "shown": Watched()}) as stage:
        stage.shared.pool.replace(models, stage.shared.config.engine)
        assert list(stage.http.get("/api/functions").json()) == ["shown"]
        refused(stage.http.get("/api/functions/hidden"), 404)
        refused(stage.call("hidden", GOOD), 404)


def test_the_id_that_cvats_editor_takes_for_its_own_sam(caplog):
    with staged({"pth-facebookresearch-sam-vit-h": Clicker(), "other": Clicker()}) as stage:
        assert list(stage.http.get("/api/functions").json()) == ["other"]
        assert "treats the function id" in stage.gateway.health().text


def test_a_port_is_never_given_to_another_model():
    first = free_port(2)
    with staged({"finder": Watched(), "other": Watched()}) as stage:
        with_gateway(stage, direct_ports=first)
        ports = {name: f["status"]["httpPort"] for name, f in stage.http.get("/api/functions").json().items()}
        assert ports == {"finder": first, "other": first + 1}
        config = stage.shared.config
        stage.shared.config = replace(config, models=config.models[1:])
        stage.shared.pool.replace(stage.shared.config.models, config.engine)
        stage.gateway.reload()
        ports = {name: f["status"]["httpPort"] for name, f in stage.http.get("/api/functions").json().items()}
        assert ports == {"other": first + 1}


def ports_of(stage):
    listed = stage.http.get(f"{stage.gateway.url}/api/functions").json()
    return {name: function["status"]["httpPort"] for name, function in listed.items()}


def test_settings_that_the_file_may_have_are_taken_whatever_was_before():
    """Ports that models had before are in nobody's way: what service.toml says is right by itself."""
    first = free_port(4)
    with staged({"one": Watched(), "two": Watched()}, direct_ports=first) as stage:
        both = stage.shared.config
        only = replace(both, models=both.models[1:], gateway=replace(both.gateway, port=first + 1))
        stage.shared.config = only
        stage.shared.pool.replace(only.models, only.engine)
        stage.gateway.reload()
        assert ports_of(stage) == {"two": first + 2}, "the dashboard is where it was"
        again = replace(only, models=both.models, gateway=replace(both.gateway, port=first + 3))
        stage.shared.config = again
        stage.shared.pool.replace(again.models, again.engine)
        stage.gateway.reload()
        assert set(ports_of(stage)) == {"one", "two"}
        assert len({*ports_of(stage).values(), first + 3}) == 3

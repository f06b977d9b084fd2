"""Callers that mean harm: header lines and pictures that are made to get past what is asked of everybody."""

import io
import json
import socket
import struct

import httpx
import pytest
from PIL import Image, PngImagePlugin

from agent.web.metrics import Metrics
from tests.support.gateway import free_port, image_of, staged
from tests.support.material import make_video_task, picture_bytes
from tests.support.models import Clicker, Finder, Follower
from tests.support.queue import serving
from tests.support.service import running, written
from tests.unit.test_pool import Loader


@pytest.mark.parametrize("host", ["x/healthz?", "127.0.0.1/healthz?", "127.0.0.1/readyz#", "x/webhook;", "["])
@pytest.mark.usefixtures("passwords")
def test_a_host_that_names_an_open_path_opens_no_other(tmp_path, host):
    with running(written(tmp_path, service='secret_env = "STATUS_WORD"'), load=Loader()) as opened:
        port = httpx.URL(opened.url).port
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(f"GET /api/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: plain.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 403 "), answer
    assert b"models" not in answer


def test_a_path_that_is_not_there_is_told_whatever_the_host(caplog):
    with staged({"finder": Finder()}) as stage:
        answer = stage.http.get("/nothing", headers={"Host": "["})
        assert answer.status_code == 404
        assert answer.json()["message"].startswith("GET /nothing: not here")


def icon(side):
    """An icon whose header says 16x16, and which holds a picture of another size."""
    inside = io.BytesIO()
    Image.new("L", (side, side)).save(inside, "PNG")
    content = inside.getvalue()
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 8, len(content), 22) + content


def test_a_picture_that_is_decoded_to_be_measured_is_none(monkeypatch):
    """Pillow decodes an icon when it opens it, before anybody could look how large it is."""
    decoded = []
    load = PngImagePlugin.PngImageFile.load
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    with staged({"finder": Finder()}, max_megapixels=1) as stage:
        answer = stage.call("finder", {"image": image_of(icon(2000))})
        assert (answer.status_code, decoded) == (400, [])
        assert answer.json()["message"].startswith("image: cannot be decoded")
        assert stage.call("finder", {"image": image_of(picture_bytes(1, "PNG"))}).status_code == 200
        assert decoded


@pytest.mark.parametrize("values", ["[0,0]," * 600_000, "[]," * 600_000, '{"a":0},' * 600_000])
def test_a_body_of_very_many_values_is_not_taken_apart(values):
    """It would take a hundred times its own memory, and keep everything else from running meanwhile."""
    with staged({"clicker": Clicker()}) as stage:
        body = f'{{"image": "eA==", "pos_points": [{values.rstrip(",")}]}}'.encode()
        answer = stage.call("clicker", body)
        assert (answer.status_code, answer.json()["message"][:26]) == (413, "body: got too many values,")
        many = {"image": image_of(picture_bytes(1)), "pos_points": [[1, 1]] * 20_000}
        assert stage.call("clicker", many).status_code == 200


WHOLE = [0, 3000 * 3000, 0, 0, 2999, 2999]
"""A mask of nine million pixels, in six numbers."""
TOO_MANY = "got masks of 153,000,000 pixels and more, allowed: 150,000,000 together"


def test_masks_of_more_pixels_than_any_picture_has_are_not_made_in_the_gateway():
    picture = image_of(picture_bytes(1, "PNG", size=(3000, 3000)))
    with staged({"follower": Follower(("mask",))}) as stage:
        shapes = [{"type": "mask", "points": WHOLE}] * 10_000
        answer = stage.call("follower", {"image": picture, "shapes": shapes, "states": []})
        assert answer.status_code == 413
        assert answer.json()["message"].startswith(
            "shapes: got masks of 153,000,000 pixels and more, allowed: 150,000,000"
        )


def test_nor_in_the_queue(sandbox, session):
    task = make_video_task(session, frames=2)
    with serving(sandbox, {"follower": Follower(("mask",))}) as served:
        shapes = [{"type": "mask", "points": WHOLE}] * 10_000
        queued = served.enqueue({"type": "init_tracking", "task": task, "frame": 0, "shapes": shapes})
        assert served.settled(queued) == ("failed", f"shapes: {TOO_MANY}")


def test_calls_that_are_turned_away_are_counted_and_listed():
    """CVAT loses the reason; whoever runs the service finds it beside those that failed at work."""
    metrics = Metrics(lambda: ["finder"])
    with staged({"finder": Finder()}) as stage:
        stage.shared.activity.on_end = metrics.on_end
        stage.call("finder", {"image": image_of(b"no picture")})
        stage.call("nothing" * 50, {})
        stage.http.post("/api/function_invocations", json={})
        assert stage.call("finder", {"image": image_of(picture_bytes(1))}).status_code == 200
        found = [(record.model[:7], record.kind, record.detail) for record in stage.shared.activity.errors()]
    assert [model for model, _, _ in found] == ["nobody", "nothing", "finder"]
    assert found[2][1:] == (
        "refused",
        "image: cannot be decoded: it is no picture, or of a format that is not known here",
    )
    counted = [line for line in metrics.text().decode().splitlines() if line.startswith("cvat_sidecar_requests_total")]
    assert sorted(counted) == [
        'cvat_sidecar_requests_total{door="gateway",kind="detect",model="finder",outcome="done"} 1.0',
        'cvat_sidecar_requests_total{door="gateway",kind="refused",model="finder",outcome="failed"} 1.0',
        'cvat_sidecar_requests_total{door="gateway",kind="refused",model="other",outcome="failed"} 2.0',
    ]


def test_a_secret_that_is_shown_twice_is_told_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("GATEWAY_SECRET", "open-sesame")
    with staged({"finder": Finder()}, secret_env="GATEWAY_SECRET") as stage:
        known = {"X-Sidecar-Secret": "open-sesame"}
        assert list(stage.http.get("/open-sesame/api/functions", headers=known).json()) == ["finder"]
        answer = stage.http.get("/open-sesame/nothing", headers=known)
    assert (answer.status_code, "open-sesame" in answer.text, "open-sesame" in caplog.text) == (404, False, False)
    assert "GET /nothing: not here" in caplog.text


def test_a_web_page_in_a_browser_that_reaches_the_gateway_has_no_call_there():
    """A form or a script of another site needs no header of its own for a function's port."""
    finder, port = Finder(), free_port()
    with staged({"finder": finder}, direct_ports=port) as stage:
        url, content = f"http://127.0.0.1:{port}/", json.dumps({"image": image_of(picture_bytes(1))})
        for said in ({"Origin": "http://evil.test"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = stage.http.post(url, content=content, headers={"Content-Type": "text/plain", **said})
            assert (answer.status_code, answer.json()) == (403, {"message": "a web page may not call"})
        assert finder.calls == []
        # A person who looks for herself, and CVAT.
        assert stage.http.get("/api/functions", headers={"Sec-Fetch-Site": "none"}).status_code == 200
        assert stage.http.post(url, content=content).status_code == 200

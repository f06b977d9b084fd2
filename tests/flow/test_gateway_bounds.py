"""Calls that are wrong, too large, too many or too late: the right status, a line of JSON, and life goes on."""

import json
import logging
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.contract import Detection, Rectangle
from agent.errors import ModelLoadFailed
from agent.models.memory import resident_bytes
from tests.support.gateway import Describer, Watched, image_of, staged
from tests.support.material import picture_bytes
from tests.support.models import Clicker, Follower
from tests.support.tasks import Client

GOOD = {"image": image_of(picture_bytes(3))}


def until(done, why, seconds=20):
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, why
        time.sleep(0.005)
    return found


@pytest.fixture(scope="module")
def stage():
    models = {
        "finder": Watched(),
        "clicker": Clicker(),
        "follower": Follower(("rectangle", "mask")),
        "describer": Describer(),
    }
    with staged(models) as found:
        yield found


def refused(answer, status, text=""):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["message"]
    assert text in answer.json()["message"]
    assert "\n" not in answer.json()["message"]


def works(stage):
    return stage.call("finder", GOOD).json()[0]["points"] == [3.0, 20.0, 33.0, 50.0]


def png_of(width, height):
    """A PNG's head and nothing behind it but a few bytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "body: it is no JSON"),
        (b"{", "body: it is no JSON"),
        (b"\xff\xfe\x00", "body: it is no JSON"),
        (b"[" * 100_000, "body: it is no JSON"),
        (b'{"image": "x", "threshold": NaN}', "NaN is none of JSON's values"),
        (b"[1]", "body: got a list, allowed: an object"),
        (b"null", "body: got null, allowed: an object"),
        (b"{}", "image: got nothing, allowed: a picture file in base64"),
        (b'{"image": 5}', "image: got 5, allowed"),
        (b'{"image": {"a": 1}}', "image: got an object, allowed"),
        (b'{"image": ""}', "image: got text, allowed"),
        (b'{"image": "%%%"}', "image: it is no base64"),
        ('{"image": "\u00e4\u00f6"}'.encode(), "image: it is no base64"),
        ({"image": image_of(b"no picture")}, "image: cannot be decoded: it is no picture"),
        ({"image": image_of(picture_bytes(1)[:600])}, "image: cannot be decoded"),
        ({"image": image_of(picture_bytes(1, "PNG")[:600])}, "image: cannot be decoded"),
        ({"image": image_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")}, "it is no picture"),
        ({**GOOD, "threshold": "0.5"}, "threshold: got text, allowed: 0 to 1"),
        ({**GOOD, "threshold": 1.5}, "threshold: got 1.5, allowed: 0 to 1"),
        ({**GOOD, "threshold": True}, "threshold: got true or false, allowed: 0 to 1"),
        (b'{"threshold": 1e999, "image": "eA=="}', "threshold: got a number, allowed: 0 to 1"),
    ],
)
def test_what_a_detector_cannot_read(stage, body, text):
    refused(stage.call("finder", body), 400, text)
    assert works(stage)


@pytest.mark.parametrize(
    ("function", "more", "text"),
    [
        ("clicker", {}, "prompts: got none"),
        ("clicker", {"pos_points": 5}, "pos_points: got 5, allowed: a list of [x, y]"),
        ("clicker", {"pos_points": [[1]]}, "pos_points: got a list, allowed: a list of [x, y]"),
        ("clicker", {"pos_points": [["1", "2"]]}, "pos_points"),
        ("clicker", {"pos_points": [[1e300, 0]]}, "pos_points"),
        ("clicker", {"pos_points": [], "obj_bbox": [[1, 2]]}, "obj_bbox: got a list, allowed: [[left, top]"),
        ("clicker", {"text_prompts": ["cat"]}, "text_prompts: this model understands no words"),
        ("clicker", {"text_prompts": "cat"}, "text_prompts: got text, allowed: a list of texts"),
        ("clicker", {"text_prompts": ["cat " * 3000]}, "text_prompts: got 12,000 characters, allowed: 10,000 in all"),
        ("follower", {}, "shapes: got none, and no states"),
        ("follower", {"shapes": {}}, "shapes: got an object, allowed: a list"),
        ("follower", {"shapes": [5]}, "shapes[0]: allowed: an object with a type and points"),
        ("follower", {"shapes": [{"type": "blob", "points": []}]}, "shapes[0]: shape: got the type 'blob'"),
        ("follower", {"shapes": [{"type": "rectangle", "points": [1, 2, 3]}]}, "got 3 numbers, allowed: 4"),
        ("follower", {"shapes": [{"type": "ellipse", "points": [1, 2, 3, 4]}]}, "it cannot follow a ellipse"),
        ("follower", {"shapes": [[1, 2, 3]]}, "shapes[0]: rectangle: got 3 numbers"),
        ("follower", {"shapes": [{"type": "mask", "points": [9, 0, 0, 99999, 99999]}]}, "mask: got the box"),
        ("follower", {"shapes": [{"type": "mask", "points": [9, 0, 0, 4, 4]}]}, "got runs of 9 pixels"),
        ("follower", {"shapes": [{"type": "rectangle", "points": [1, 2, 3, 10**400]}]}, "a list of numbers"),
        ("follower", {"states": ["made up"]}, "tracker state: it is unknown or has expired"),
        ("follower", {"states": [None]}, "states[0]: allowed: a state that this function has given"),
        ("describer", {"image0": GOOD["image"]}, "image1: got nothing"),
        ("describer", {"boxes0": [{"type": "polygon", "points": [1, 2, 3, 4, 5, 6]}]}, "got a polygon, allowed: rect"),
        ("describer", {"max_distance": -1}, "max_distance: got -1, allowed: 0 to"),
    ],
)
def test_what_other_kinds_cannot_read(stage, function, more, text):
    refused(stage.call(function, {**GOOD, **more}), 400, text)


def test_pictures_are_measured_before_they_are_decoded(stage):
    before, began = resident_bytes(), time.monotonic()
    for width, height in ((40_000, 40_000), (65_000, 65_000), (20_000, 10_000)):
        refused(stage.call("finder", {"image": image_of(png_of(width, height))}), 413, "image: ")
    assert time.monotonic() - began < 1
    assert resident_bytes() - before < 50 * 2**20
    assert works(stage)


def test_unknown_functions_and_places(stage):
    refused(stage.call("nobody", GOOD), 404, "function 'nobody': got an unknown name, allowed: finder, clicker")
    refused(stage.http.get("/api/functions/nobody"), 404, "nobody")
    refused(stage.http.get("/api/nothing"), 404, "not here")
    refused(stage.http.get("/api/function_invocations"), 405, "not here")
    refused(stage.http.delete("/api/functions"), 405, "not here")
    refused(stage.http.post("/api/function_invocations", json=GOOD), 400, "function: got no name")
    refused(stage.http.post("/", json=GOOD), 400, "function: got no name")


def test_the_reason_is_logged_because_cvat_loses_it(stage, caplog):
    with Client(stage.sandbox, "bot", "secret") as client, caplog.at_level(logging.WARNING):
        task = client.task([("a.jpg", picture_bytes(0))])
        answer = client.post("/api/lambda/functions/finder", json={"task": task, "frame": 0, "threshold": 7})
    assert (answer.status_code, "threshold" in answer.text) == (400, False)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("agent.doors.gateway")]
    assert line == "gateway: POST from 127.0.0.1, for 'finder': 400: threshold: got 7, allowed: 0 to 1"


def test_bodies_are_bounded():
    with staged({"finder": Watched()}, max_body_mb=0.05) as stage:
        large = {**GOOD, "padding": "x" * 100_000}
        refused(stage.call("finder", large), 413, "body: it is larger than allowed: 0.05 MiB")
        body = json.dumps(large).encode()
        headers = {"x-nuclio-function-name": "finder"}
        pieces = (body[at : at + 1000] for at in range(0, len(body), 1000))
        refused(stage.http.post("/api/function_invocations", content=pieces, headers=headers), 413, "body")
        assert works(stage)
        # One that announces a gigabyte is told at once.
        port = httpx.URL(stage.gateway.url).port
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"POST /api/function_invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
            assert b" 413 " in plain.recv(4096)
        assert works(stage)


def test_a_body_that_does_not_come_and_one_whose_sender_hangs_up():
    with staged({"finder": Watched()}, concurrency=1, timeout=0.3) as stage:
        port = httpx.URL(stage.gateway.url).port
        head = b"POST /api/function_invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(head)
            assert b" 408 " in slow.recv(4096)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as gone:
                gone.sendall(head)
        until(lambda: stage.call("finder", GOOD).status_code == 200, "their places were never given back")


def test_headers_that_do_not_come(monkeypatch):
    """Neither those of the first request on a connection, nor those of the next one; an answer may take longer."""
    finder = Watched()
    with staged({"finder": finder}) as stage:
        port = httpx.URL(stage.gateway.url).port
        monkeypatch.setattr("agent.http_server.HEADER_SECONDS", 0.3)
        head, body = b"POST /api/function_invocations HTTP/1.1\r\n", json.dumps(GOOD).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
            assert silent.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(head)
            assert slow.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as good:
            finder.gate.clear()
            more = f"Host: x\r\nx-nuclio-function-name: finder\r\nContent-Length: {len(body)}\r\n\r\n"
            good.sendall(head + more.encode() + body)
            until(finder.began.is_set, "the call never came")
            time.sleep(0.4)
            finder.gate.set()
            assert b" 200 " in good.recv(65536)
            good.sendall(head)
            until(lambda: good.recv(65536) == b"", "the connection was never closed")


def test_slow_senders_keep_nobody_out():
    with staged({"finder": Watched()}, concurrency=1, timeout=5) as stage, ExitStack() as stack:
        port = httpx.URL(stage.gateway.url).port
        for _ in range(5):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            slow.sendall(b"POST /api/function_invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert works(stage)


def test_memory_of_all_calls_together_is_bounded():
    """A picture of 320x240 takes 225 KiB, its body less than 20."""
    finder = Watched(batch_size=1)
    with staged({"finder": finder}, memory_mb=0.6) as stage, ThreadPoolExecutor(8) as pool:
        finder.gate.clear()
        picture = {"image": image_of(picture_bytes(1, size=(320, 240)))}
        held = [pool.submit(stage.call, "finder", picture) for _ in range(2)]
        until(lambda: finder.began.is_set() and stage.shared.pool.record("finder").depth == 1, "they never came")
        answer = stage.call("finder", picture)
        refused(answer, 429, "the calls that are being answered fill 0.6 MiB")
        assert answer.headers["Retry-After"] == "1"
        for large in ({**picture, "padding": "x" * 200_000}, {"padding": "x" * 200_000}):
            refused(stage.call("finder", large), 429, "the calls that are being answered fill 0.6 MiB")
        finder.gate.set()
        assert [call.result(20).status_code for call in held] == [200] * 2
        until(lambda: not stage.gateway.memory_held, "memory was not given back")
        # Whoever is alone may have what the other bounds allow.
        assert stage.call("finder", {"image": image_of(picture_bytes(1, size=(900, 600)))}).status_code == 200
        until(lambda: not stage.gateway.memory_held, "memory was not given back")


def test_as_many_calls_as_are_allowed():
    finder = Watched()
    with staged({"finder": finder}, concurrency=3) as stage, ThreadPoolExecutor(8) as pool:
        finder.gate.clear()
        held = [pool.submit(stage.call, "finder", GOOD)]
        until(finder.began.is_set, "the first call never came")
        held += [pool.submit(stage.call, "finder", GOOD) for _ in range(2)]
        until(lambda: stage.shared.pool.record("finder").depth == 2, "the calls never came")
        answer = stage.call("finder", GOOD)
        refused(answer, 429, "3 calls are being answered")
        assert answer.headers["Retry-After"] == "1"
        assert stage.http.get("/api/functions").status_code == 200
        finder.gate.set()
        assert [call.result(20).status_code for call in held] == [200] * 3
        assert works(stage)


def test_calls_that_come_together_go_to_the_model_together():
    finder = Watched(batch_size=4)
    with staged({"finder": finder}) as stage, ThreadPoolExecutor(8) as pool:
        finder.gate.clear()
        numbers = range(7)
        first = pool.submit(stage.call, "finder", {"image": image_of(picture_bytes(0))})
        until(finder.began.is_set, "the first call never came")
        others = [pool.submit(stage.call, "finder", {"image": image_of(picture_bytes(n))}) for n in numbers[1:]]
        until(lambda: stage.shared.pool.record("finder").depth == 6, "the calls never came")
        finder.gate.set()
        answers = [call.result(20).json() for call in [first, *others]]
        assert [answer[0]["points"][0] for answer in answers] == [*numbers]
        assert [len(batch) for batch in finder.batches] == [1, 4, 2]


def test_a_call_is_late_and_the_model_is_spared():
    finder = Watched(batch_size=1)
    with staged({"finder": finder}, timeout=0.3) as stage, ThreadPoolExecutor(2) as pool:
        finder.gate.clear()
        calls = [pool.submit(stage.call, "finder", {"image": image_of(picture_bytes(n))}) for n in (1, 2)]
        for call in calls:
            refused(call.result(20), 504, "the model has not answered within 0.3 s")
        finder.gate.set()
        assert works(stage)
        assert len(finder.batches) == 2, "the second one had not begun, and never did"


def test_a_model_that_loads_for_long():
    may_load = threading.Event()
    with staged({"finder": Watched()}, learn=False, may_load=may_load, timeout=0.2) as stage:
        refused(stage.call("finder", GOOD), 504, "has not answered within 0.2 s")
        began = time.monotonic()
        assert stage.http.get("/api/functions").json() == {}
        assert time.monotonic() - began < 0.2
        assert "it is still loading" in stage.gateway.health().text
        until(lambda: not stage.gateway.calls, "it keeps its place although nobody waits for it")
        may_load.set()
        until(lambda: list(stage.http.get("/api/functions").json()) == ["finder"], "it was never loaded")
        assert works(stage)


def test_models_that_cannot_be_used_are_left_out_and_told_once(caplog):
    models = {"good": Watched(), "broken": ModelLoadFailed("the file /weights/x.onnx is damaged")}
    with staged(models) as stage, caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert list(stage.http.get("/api/functions").json()) == ["good"]
        missing = stage.http.get("/api/functions/broken")
        refused(missing, 404, "could not be loaded")
        assert "/weights" not in missing.text, "whoever may call need not know what is where on this machine"
        answer = stage.call("broken", GOOD)
        refused(answer, 503, "The model could not be used")
        told = [r.getMessage() for r in caplog.records if "is not listed" in r.getMessage()]
        assert told == [
            "gateway: the model broken is not listed: it could not be loaded: the file /weights/x.onnx is damaged"
        ]
        health = stage.gateway.health()
        assert health.ok
        assert "1 functions; not listed: broken: it could not be loaded" in health.text


def test_a_model_that_talks_nonsense_of_itself_costs_no_other_its_place(caplog):
    with staged({"good": Watched(), "odd": Follower(shape_types=[7])}) as stage:
        assert list(stage.http.get("/api/functions").json()) == ["good"]
        refused(stage.http.get("/api/functions/odd"), 404, "The model could not be used")
        assert "odd: what it says of itself makes no sense: TypeError" in stage.gateway.health().text


def test_a_model_is_listed_once_it_was_ever_loaded(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with staged({"one": Watched()}, learn=False, shared={"folder": tmp_path}) as stage:
        assert stage.http.get("/api/functions").json() == {}
        assert not stage.gateway.health().ok
        stage.shared.pool.preload()
        for _ in range(2):
            assert list(stage.http.get("/api/functions").json()) == ["one"]
        told = [r.getMessage() for r in caplog.records if "listed" in r.getMessage()]
        assert told == ["gateway: the model one is listed now"]
    with staged({"one": Watched()}, learn=False, shared={"folder": tmp_path}) as stage:
        assert list(stage.http.get("/api/functions").json()) == ["one"]
        assert stage.shared.pool.record("one").loads == 0
        assert stage.call("one", GOOD).status_code == 200


def test_a_model_that_fails_costs_its_call_only(caplog):
    def find(frame, context):
        if frame.width == 64:
            raise RuntimeError("out of luck at /secret/path")
        return [Detection("thing", Rectangle(3, 20, 33, 50), 0.5)]

    with staged({"finder": Watched(find=find)}) as stage:
        answer = stage.call("finder", {"image": image_of(picture_bytes(0, size=(64, 48)))})
        refused(answer, 500, "The model failed on this request")
        assert "out of luck" in caplog.text
        assert works(stage)
        assert [record.kind for record in stage.shared.activity.errors()] == ["detect"]


def test_a_model_outside_its_contract():
    def find(frame, context):
        return [Detection("nobody's label", Rectangle(3, 20, 33, 50), 0.5)]

    with staged({"finder": Watched(find=find)}) as stage:
        refused(stage.call("finder", GOOD), 500, "The model failed on this request")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("threshold", "pos_points", "neg_points", "obj_bbox", "text_prompts", "shapes", "states", "boxes0", "boxes1")
NUMBERS = st.lists(st.floats(-1e4, 1e4) | st.integers(-9, 400), max_size=18)
SHAPES = st.fixed_dictionaries({"type": st.sampled_from(["rectangle", "mask", "polygon", "x"]), "points": NUMBERS})
VALUES = JSON | st.lists(SHAPES, max_size=3) | st.lists(NUMBERS, max_size=3)
IMAGES = st.sampled_from([GOOD["image"], image_of(png_of(9, 9)), "", "eA=="]) | st.binary(max_size=40).map(image_of)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    function=st.sampled_from(["finder", "clicker", "follower", "describer"]),
    fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    images=st.fixed_dictionaries({}, optional={"image": IMAGES | JSON, "image0": IMAGES, "image1": IMAGES}),
)
def test_whatever_comes_is_answered_or_refused(stage, function, fields, images):
    answer = stage.call(function, {**fields, **images})
    assert answer.status_code in (200, 400, 413), answer.text
    json.loads(answer.text, parse_constant=pytest.fail)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_whatever_bytes_come_are_refused(stage, body):
    refused(stage.call("finder", body), 400)


def test_a_damaged_picture_of_any_kind_is_refused(stage):
    chance = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        whole = picture_bytes(5, kind)
        for _ in range(8):
            content = bytearray(whole)
            for place in chance.integers(0, len(content), 20):
                content[place] = int(chance.integers(0, 256))
            answer = stage.call("finder", {"image": image_of(bytes(content))})
            assert answer.status_code in (200, 400, 413), answer.text
    assert works(stage)

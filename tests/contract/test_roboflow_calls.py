"""Everything that goes wrong between `roboflow:` and a server, and that the key is in no text and no log."""

import email.utils
import logging
import os
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from adapters.roboflow.calls import Calls, Limits
from adapters.roboflow.refusals import CallFailed, Key
from agent.contract import BadPrediction, ConfigError, Context, Frame, ModelError, ModelLoadFailed, ModelNotFound
from tests.support.roboflow import KEY, Model, RoboflowServer, above, box, loading

FRAME = Frame(0, "one.jpg", np.zeros((40, 60, 3), np.uint8))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _key(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def server():
    model = Model("object-detection", lambda picture, asked: above([box("cat", 10, 10, 8, 6)], asked), ("cat",))
    with RoboflowServer({"shop/3": model}) as running:
        yield running


@pytest.fixture
def load(server):
    with loading(server) as loads:
        yield lambda **options: loads(**options).model


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self):
        self.time, self.waited = 1000.0, []

    def now(self):
        return self.time

    def wait(self, seconds):
        self.waited.append(round(seconds, 3))
        self.time += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def calls(clock):
    """Makes `Calls` whose time stands still."""
    made = []

    def make(**limits):
        calls = Calls(
            "roboflow:x",
            Key(KEY, "ROBOFLOW_API_KEY"),
            Limits(**limits),
            wait=clock.wait,
            now=clock.now,
            chance=lambda: 1.0,
        )
        made.append(calls)
        return calls

    yield make
    for one in made:
        one.close()


def failure(model):
    """What is said of a frame that fails."""
    with pytest.raises(BadPrediction) as raised:
        model.detect([FRAME], Context())
    text = str(raised.value)
    assert text.startswith("roboflow:team/shop/3: ")
    assert "\n" not in text
    assert len(text) < 500
    assert KEY not in text
    return text


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "content", "words"),
        [
            (400, {"message": "Could not load input image."}, r"refuses the request \(400\): Could not load input"),
            (401, {"message": "Unauthorized"}, r"refuses the API key in ROBOFLOW_API_KEY.*\(401\): Unauthorized"),
            (402, {"message": "Not enough credits"}, r"no credits left \(402\): Not enough"),
            (403, {"message": "Forbidden"}, r"refuses the API key in ROBOFLOW_API_KEY.*'body' \(403\)"),
            (404, {"message": "not found"}, r"knows no such model.*\(404\): not found"),
            (413, "<html>too large</html>", r"too large for it \(413\); max_size or a lower quality"),
            (422, {"detail": [{"loc": ["query", "confidence"], "msg": "bad"}]}, r"\(422\): query.confidence: bad"),
            (423, {"message": "paused"}, r"use of the API is paused \(423\)"),
            (301, "<html>moved</html>", r"redirects to another address \(301\)"),
            (501, {"message": "cannot"}, r"failed \(501\): cannot"),
            (507, {"message": "memory"}, r"failed \(507\): memory"),
        ],
    )
    def test_are_told_and_never_repeated(self, server, load, status, content, words):
        model = load(retries=5)
        server.fail(status, content, where="/shop/3", times=99)
        text = failure(model)
        assert re.search(words, text), text
        assert len(server.predictions()) == 1

    def test_words_of_a_workflow_and_of_the_platform_are_read(self, server, load):
        model = load()
        server.fail(400, {"message": "Step failed", "inner_error_message": "no model"}, where="/shop/3")
        assert "Step failed (no model)" in failure(model)
        server.fail(400, {"error": {"message": "Unsupported", "type": "GraphMethodException"}}, where="/shop/3")
        assert "Unsupported" in failure(model)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"<html><title>Hotel WiFi</title></html>", "not with JSON"),
            (b"", "not with JSON: 'nothing'"),
            (b'{"predictions": [{"x": 1', "not with JSON"),
            (b"[1, 2]", "answered with a list, allowed: an object"),
            (b"{}", "has no predictions, it has nothing"),
            (b'{"message": "ok"}', "has no predictions, it has message"),
            (b'{"predictions": 7}', "has no predictions"),
            (b'{"is_stub": true, "predictions": []}', "the project has no trained model"),
            (b'{"predictions": [{"class": "cat"}]}', "answers with classification, its task is object-detection"),
            (b'{"predictions": [], "top": "cat"}', "answers with classification"),
            (b'{"predictions": [7]}', "a prediction is no object: 7"),
            (b'{"predictions": [{"width": 3, "confidence": 0.5}]}', "without a class"),
            (
                b'{"predictions": [{"class": "cow", "width": 3, "confidence": 0.5}]}',
                "class 'cow', which is none of its",
            ),
            (b'{"predictions": [{"class": "cat", "width": 3}]}', "'cat': got confidence = None"),
            (b'{"predictions": [{"class": "cat", "width": 3, "confidence": NaN}]}', "got confidence = nan"),
            (b'{"predictions": [{"class": "cat", "width": 3, "confidence": 40}]}', "confidence 40, allowed: 0 to 1"),
            (b'{"predictions": [{"class": "cat", "width": "3", "confidence": 0.4}]}', "got x = None"),
            (
                b'{"predictions": [{"class": "cat", "x": 1, "y": 1, "width": -3, "height": 1, "confidence": 1}]}',
                "got a box of -3 by 1",
            ),
            (
                b'{"predictions": [{"class": "cat", "x": Infinity, "y": 1, "width": 3, "height": 1, "confidence": 1}]}',
                "got x = inf",
            ),
            (b'{"image": {"width": 0, "height": 4}, "predictions": [{"width": 1}]}', "picture of 0 by 4"),
            (b'{"image": {"width": "wide", "height": 4}, "predictions": [{"width": 1}]}', "got width = wide"),
        ],
    )
    def test_answers_that_make_no_sense(self, server, load, body, words):
        model = load(retries=5)
        server.fail(200, body, where="/shop/3")
        assert words in failure(model)
        assert len(server.predictions()) == 1, "a server that answers nonsense is not asked again"
        assert len(model.detect([FRAME], Context())[0]) == 1

    def test_deep_nonsense(self, server, load):
        model = load()
        server.fail(200, b"[" * 200_000, where="/shop/3")
        assert "not with JSON" in failure(model)


class TestTriesAgain:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_what_may_pass(self, server, calls, clock, status):
        server.fail(status, {"message": "busy"}, times=3)
        assert calls(retries=3).get(f"{server.url}/info")["version"] == "1.5.0"
        assert clock.waited == [0.5, 1.0, 2.0]

    @pytest.mark.parametrize("how", ["refuse", "cut"])
    def test_broken_connections(self, server, calls, clock, how):
        server.fail(how=how, times=2)
        assert calls(retries=2).get(f"{server.url}/info")["version"] == "1.5.0"
        assert clock.waited == [0.5, 1.0]

    def test_pauses_are_bound_and_spread(self, server, clock):
        calls = Calls(
            "x", Key(None, "K"), Limits(retries=9), wait=clock.wait, now=clock.now, chance=iter([0.0, 1.0] * 5).__next__
        )
        server.fail(503, times=9)
        calls.get(f"{server.url}/info")
        calls.close()
        assert clock.waited == [0.25, 1.0, 1.0, 4.0, 4.0, 16.0, 15.0, 30.0, 15.0]

    @pytest.mark.parametrize("form", ["seconds", "date", "nonsense"])
    def test_retry_after_is_honoured(self, server, calls, clock, form):
        date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=40))
        asked = {"seconds": "17", "date": date, "nonsense": "soon"}[form]
        server.fail(429, {"message": "slow down"}, headers={"Retry-After": asked})
        calls(retries=1).get(f"{server.url}/info")
        (waited,) = clock.waited
        assert {"seconds": waited == 17, "date": 35 < waited <= 40, "nonsense": waited == 0.5}[form]

    def test_retry_after_holds_the_others_back_too(self, server, calls, clock):
        one = calls(retries=0)
        server.fail(429, headers={"Retry-After": "9"})
        with pytest.raises(CallFailed, match=r"wants fewer requests \(429\); lower in_flight"):
            one.get(f"{server.url}/info")
        again = calls(retries=1)
        server.fail(429, headers={"Retry-After": "9"})
        again.get(f"{server.url}/info")
        again.get(f"{server.url}/info")
        assert clock.waited == [9]

    def test_who_is_to_wait_for_hours_is_told(self, server, calls, clock):
        server.fail(429, {"message": "quota"}, headers={"Retry-After": "3600"})
        with pytest.raises(CallFailed, match="quota; it asks to be left alone for 3600 s"):
            calls(retries=5).get(f"{server.url}/info")
        assert clock.waited == []

    def test_the_last_trouble_is_told_with_the_number_of_tries(self, server, calls):
        server.fail(502, {"message": "Request to Roboflow API failed."}, times=9)
        with pytest.raises(CallFailed, match=r"failed \(502\) after 3 tries: Request to Roboflow") as raised:
            calls(retries=2).get(f"{server.url}/info")
        assert raised.value.status == 502
        assert len(server.asked) == 3

    def test_a_dead_server_is_not_waited_for_frame_by_frame(self, server, calls, clock):
        one = calls(retries=2)
        server.fail(503, times=5)
        for _ in range(3):
            with pytest.raises(CallFailed):
                one.get(f"{server.url}/info")
        assert len(server.asked) == 5, "three tries, and then one each"
        one.get(f"{server.url}/info")
        server.fail(503, times=2)
        one.get(f"{server.url}/info")
        assert len(server.asked) == 9, "once it has answered, all tries again"

    def test_limits_on_requests_are_no_reason_for_fewer_tries(self, server, calls):
        one = calls(retries=1)
        server.fail(429, times=3)
        with pytest.raises(CallFailed):
            one.get(f"{server.url}/info")
        one.get(f"{server.url}/info")
        assert len(server.asked) == 4

    def test_a_rate_limit_gives_turns(self, server, calls, clock):
        one = calls(per_second=4)
        for _ in range(4):
            one.get(f"{server.url}/info")
        assert clock.waited == [0.25, 0.25, 0.25]

    def test_what_waits_ends_when_the_model_is_closed(self, server):
        waiting, said = threading.Event(), []
        calls = Calls("roboflow:x", Key(None, "K"), Limits(retries=9))
        rest = calls._wait
        calls._wait = lambda seconds: (waiting.set(), rest(seconds))
        server.fail(503, headers={"Retry-After": "100"}, times=99)

        def ask():
            with pytest.raises(ModelError) as raised:
                calls.get(f"{server.url}/info")
            said.append(str(raised.value))

        thread = threading.Thread(target=ask)
        thread.start()
        assert waiting.wait(20)
        calls.close()
        thread.join(20)
        assert said == ["roboflow:x: the model was closed"]


class TestDeadline:
    @pytest.mark.parametrize("how", ["hang", "drip"])
    def test_a_server_that_does_not_come_to_an_end(self, server, load, how):
        model = load(timeout=0.4)
        server.fail(how=how, where="/shop/3", times=99)
        began = time.monotonic()
        assert "no whole answer within 0.4 s (option timeout)" in failure(model)
        assert time.monotonic() - began < 5
        server.let_go.set()

    def test_a_slow_upload_is_bound_too(self, calls, clock):
        """The clock is looked at between the pieces of what is sent, also where each piece goes out in time."""
        one = calls(timeout=1.0)
        pieces = one._pieces(b"x" * 300_000, deadline=clock.now() + 1, late="too late")
        assert len(next(pieces)) == 65536
        clock.time += 2
        with pytest.raises(Exception, match="too late"):
            next(pieces)

    def test_a_large_picture_arrives_whole(self, server, load):
        noise = np.random.default_rng(1).integers(0, 255, (700, 900, 3), np.uint8)
        load(lossless=True).detect([Frame(0, "noise", noise)], Context())
        np.testing.assert_array_equal(server.predictions()[-1].picture, noise)
        assert "Transfer-Encoding" not in server.predictions()[-1].headers

    def test_frames_do_not_wait_for_each_other(self, server, load):
        model = load(timeout=0.5, in_flight=4)
        server.fail(how="hang", where="/shop/3", times=4)
        began = time.monotonic()
        answers = model.detect([FRAME] * 4, Context())
        assert all(isinstance(answer, BadPrediction) for answer in answers)
        assert time.monotonic() - began < 1.8


class TestLoading:
    def test_a_server_that_is_not_there(self, load):
        with pytest.raises(ModelLoadFailed, match=r"http://127.0.0.1:9: cannot be reached: .*refused"):
            load(url="http://127.0.0.1:9")

    def test_a_name_that_no_resolver_knows(self, load):
        with pytest.raises(ModelLoadFailed, match=r"http://no-such-host\.invalid: cannot be reached"):
            load(url="http://no-such-host.invalid")

    def test_a_server_without_the_encryption_that_is_asked_for(self, server, load):
        with pytest.raises(ModelLoadFailed, match=r"https://127.0.0.1:\d+: cannot be reached"):
            load(url=server.url.replace("http:", "https:"))

    def test_a_wrong_key(self, server, load, monkeypatch):
        monkeypatch.setenv("ROBOFLOW_API_KEY", "rf_wrongKEY")
        with pytest.raises(ModelLoadFailed, match=r"refuses the API key in ROBOFLOW_API_KEY.*\(401\)") as raised:
            load()
        assert "rf_wrongKEY" not in str(raised.value)

    def test_no_key_for_a_server_of_ones_own_that_needs_one(self, load, monkeypatch):
        monkeypatch.delenv("ROBOFLOW_API_KEY")
        with pytest.raises(ModelLoadFailed, match="wants an API key, and ROBOFLOW_API_KEY is not set"):
            load()

    def test_no_key_for_one_that_needs_none(self, server, load, monkeypatch):
        monkeypatch.setenv("ROBOFLOW_API_KEY", " ")
        server.free = True
        assert len(load().detect([FRAME], Context())[0]) == 1
        assert all("Authorization" not in asked.headers for asked in server.asked)

    def test_roboflow_itself_wants_a_key_before_any_request(self, load, monkeypatch):
        monkeypatch.delenv("ROBOFLOW_API_KEY")
        for url in (None, "https://serverless.roboflow.com", "https://detect.roboflow.com"):
            with pytest.raises(ConfigError, match="ROBOFLOW_API_KEY is not set"):
                load(url=url)
        with pytest.raises(ConfigError, match="OTHER_KEY is not set"):
            load(api_key_in="body", api_key_env="OTHER_KEY")

    def test_the_name_of_another_variable(self, server, load, monkeypatch):
        monkeypatch.setenv("ROBOFLOW_API_KEY", "rf_wrongKEY")
        monkeypatch.setenv("TEAM_KEY", KEY)
        assert load(api_key_env="TEAM_KEY").detect([FRAME], Context())[0]

    def test_a_key_in_place_of_its_name_is_not_repeated(self, load):
        with pytest.raises(ConfigError) as raised:
            load(url="https://serverless.roboflow.com", api_key_env="a1B2c3D4e5F6g7H8i9J0")
        assert "a1B2c3" not in str(raised.value)

    def test_a_key_that_would_forge_headers(self, load, monkeypatch):
        monkeypatch.setenv("ROBOFLOW_API_KEY", "rf\r\nX-Admin: 1")
        with pytest.raises(ConfigError, match="has characters that no API key has"):
            load()

    def test_a_model_that_is_not_there(self, server, load):
        server.models.clear()
        with pytest.raises(ModelNotFound, match=r"knows no such model.*\(404\): Requested Roboflow resource not found"):
            load()

    def test_a_server_that_says_nothing_of_itself(self, server, load):
        server.has_info = False
        assert load().facts["runs on"] == server.url


class TestTheKey:
    def test_is_in_no_address_no_log_and_no_repr(self, server, load, caplog):
        caplog.set_level(logging.DEBUG)
        logging.getLogger("httpx").setLevel(logging.DEBUG)
        logging.getLogger("httpcore").setLevel(logging.DEBUG)
        model = load()
        model.detect([FRAME] * 3, Context())
        server.fail(
            401, {"message": f"GET https://api.roboflow.com/x?api_key={KEY}&nocache=1: bad key {KEY}"}, where="/shop"
        )
        text = failure(model)
        assert "api_key=***" in text
        for asked in server.asked:
            assert KEY not in asked.path + str(asked.query)
        assert caplog.text, "the libraries did log"
        assert KEY not in caplog.text
        assert KEY not in repr(model) + repr(Key(KEY, "K")) + str(vars(model)) + str(model.facts)

    def test_a_key_of_somebody_elses_is_hidden_as_well(self, server, load):
        model = load()
        server.fail(
            500, {"message": "https://api.roboflow.com/ort/x/1?api_key=rf_other&service_secret=abc"}, where="/shop"
        )
        assert "rf_other" not in failure(model)

    def test_it_travels_in_the_header_alone(self, server, load):
        load().detect([FRAME], Context())
        asked = server.predictions()[-1]
        assert asked.headers["Authorization"] == f"Bearer {KEY}"
        assert "api_key" not in asked.query

    def test_a_netrc_does_not_take_its_place(self, server, load, monkeypatch, tmp_path):
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login me password wrong\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        load().detect([FRAME], Context())
        assert server.predictions()[-1].headers["Authorization"] == f"Bearer {KEY}"


def test_the_sdk_is_imported_when_a_model_is_loaded_and_not_before():
    code = (
        "import sys; from agent.models.loading import load_model, known_schemes; import adapters.roboflow;"
        "assert 'roboflow' in known_schemes();"
        "heavy = {'inference_sdk', 'httpx', 'cv2', 'supervision', 'PIL'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("region", "ending"), [("us", ".roboflow.com"), ("eu", ".roboflow.eu")])
def test_the_region_moves_the_server_and_the_platform_together(region, ending):
    code = "from adapters.roboflow.client import HOSTED, PLATFORM; print(HOSTED, PLATFORM)"
    environment = {**os.environ, "ROBOFLOW_REGION": region}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [f"https://serverless{ending}", f"https://api{ending}"], done.stderr

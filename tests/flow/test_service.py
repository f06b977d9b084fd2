"""The service as a whole, in this process: beginning, health, reading again, the end. Doors are a test's own."""

import logging
import os
import signal
import socket
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import ConfigError, ModelLoadFailed
from agent.process.lifetime import GIVEN_UP, Signals, run_until_stopped
from agent.process.open_doors import OpenDoors
from agent.process.service import Service
from agent.settings.service import load_config
from tests.support.service import SmallDoor, refusing, running, written
from tests.unit.test_pool import Loader

pytestmark = pytest.mark.usefixtures("passwords")


@pytest.fixture
def load():
    return Loader()


@pytest.fixture
def service(tmp_path, load, passwords):
    with running(written(tmp_path), load=load) as opened:
        yield opened


class TestBeginning:
    def test_doors_open_and_models_are_loaded(self, service, load):
        assert service.door.heard == ["start"]
        service.page.until(lambda now: now["models"][0]["status"] == "ready")
        assert load.loads == [("opencv:face", "auto")]
        found = service.page.status()
        assert (found["ready"], found["obstacles"]) == (True, [])
        assert found["server"] == "http://cvat.test"
        assert found["doors"] == [{"name": "queue", "ok": True, "text": "is well"}]

    def test_only_the_doors_that_service_toml_names(self, tmp_path, load):
        rule = '[gateway]\n[[rules]]\nname = "r"\nmodel = "faces"'
        with running(written(tmp_path, more=rule), load=load) as service:
            assert sorted(service.doors) == ["gateway", "queue", "watch"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("[queue]", ""), "got no door, allowed: one or more of [queue], [gateway] and [[rules]]"),
            (("[[models]]\nid = \"faces\"\nmodel = \"opencv:face\"", ""), "models: got none"),
            (("user = \"bot\"\npassword_env = \"BOT_PASSWORD\"", ""), "cvat: got nothing that says who we are"),
            (("port = 0", "port = 0\nsecret_env = \"NOT_SET\""), "service: secret_env: the environment has no"),
            (("[queue]", "[queue]\n[watch]\nwebhook_secret_env = \"NOT_SET\""), "watch: webhook_secret_env: the envir"),
            (("[queue]", "[gateway]\nsecret_env = \"NOT_SET\""), "gateway: secret_env: the environment has no"),
            (("port = 0", "porto = 0"), "unknown key 'porto'"),
            (("port = 0", "port = 0\nhost = '0.0.0.0'"), "service: secret_env: got none"),
            (("cvat.test", "cvat.test:99999"), "cannot be used"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_told_before_anything_begins(self, tmp_path, change, said):
        file = written(tmp_path)
        file.write_text(file.read_text().replace(*change))
        with pytest.raises(ConfigError) as caught, running(file):
            pass
        assert said in str(caught.value) or "--server-host" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_gateway_alone_needs_no_login(self, tmp_path, load):
        file = written(tmp_path)
        text = file.read_text().replace("[queue]", "[gateway]")
        file.write_text(text.replace('user = "bot"\npassword_env = "BOT_PASSWORD"', ""))
        with running(file, load=load) as service:
            assert list(service.doors) == ["gateway"]

    def test_a_port_that_is_taken_is_told(self, tmp_path, load):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            file = written(tmp_path)
            file.write_text(file.read_text().replace("port = 0", f"port = {other.getsockname()[1]}"))
            with (
                pytest.raises(ConfigError, match=r"service: port: cannot listen on 127\.0\.0\.1:.*in use"),
                running(file),
            ):
                pass

    def test_two_services_cannot_have_one_port(self, tmp_path, service, load):
        file = tmp_path / "other.toml"
        file.write_text(service.file.read_text().replace("port = 0", f"port = {service.url.rsplit(':', 1)[1]}"))
        with pytest.raises(ConfigError, match="in use"), running(file, load=load):
            pass

    def test_a_door_that_cannot_open_ends_it_all(self, tmp_path, load):
        file = written(tmp_path, more="[gateway]")
        made = []

        def prepare(door):
            made.append(door)
            if door.name == "queue":
                refusing("queue: it is taken")(door)

        with pytest.raises(ConfigError, match="is taken"), running(file, load=load, prepare=prepare):
            pass
        assert [(door.name, door.heard[-1]) for door in made] == [("gateway", "close"), ("queue", "close")]
        with running(written(tmp_path), load=load):
            pass  # nothing of the first one was left open

    def test_a_broken_ledger_is_told(self, tmp_path):
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "ledger.sqlite3").write_bytes(b"no database" * 1000)
        with pytest.raises(ConfigError, match="ledger"), running(written(tmp_path)):
            pass


class TestHealth:
    def test_a_process_that_lives_says_so(self, service):
        service.door.state = type(service.door.state)(False, "cannot reach the server")
        assert service.page.get("/healthz").text == "ok\n"

    def test_ready_is_when_doors_are_well_and_models_are_there(self, tmp_path, load):
        load.gate.clear()
        with running(written(tmp_path), load=load) as service:
            assert load.entered.wait(10)
            answer = service.page.get("/readyz")
            assert (answer.status_code, answer.json()) == (503, {"ready": False, "reasons": ["model faces: loading"]})
            load.gate.set()
            service.page.until(lambda now: now["ready"])
            assert service.page.get("/readyz").json() == {"ready": True, "reasons": []}
            service.door.state = type(service.door.state)(False, "cannot reach the server since 12:00")
            answer = service.page.get("/readyz")
            assert answer.status_code == 503
            assert answer.json()["reasons"] == ["door queue: cannot reach the server since 12:00"]

    def test_a_model_that_cannot_be_loaded_is_a_reason_and_one_that_was_unloaded_is_none(self, tmp_path, load):
        lazy = '[[models]]\nid = "lazy"\nmodel = "x:lazy"\nload = "use"'
        load.fail["x:lazy"] = ModelLoadFailed("not needed at the start")
        with running(written(tmp_path, more=lazy + "\n[engine]\nidle_minutes = 0.0001"), load=load) as service:
            service.page.until(lambda now: now["ready"])
            service.shared.pool.sweep()
            time.sleep(0.01)  # longer than idle_minutes
            service.shared.pool.sweep()
            assert service.page.status()["models"][0]["status"] == "unloaded"
            assert service.page.get("/readyz").status_code == 200
        load.fail["opencv:face"] = ModelLoadFailed("no such file")
        with running(written(tmp_path), load=load) as service:
            found = service.page.until(lambda now: now["models"][0]["status"] == "failed")
            assert found["obstacles"] == ["model faces: no such file"]

    def test_a_door_that_breaks_when_asked_is_not_well(self, service, caplog):
        def broken():
            raise ZeroDivisionError

        service.page.until(lambda now: now["ready"])
        service.door.health = broken
        assert service.page.get("/readyz").json()["reasons"] == ["door queue: it does not tell how it is; see the log"]
        assert service.page.get("/metrics").status_code == 200
        assert "ZeroDivisionError" in caplog.text

    def test_a_process_says_that_it_lives_although_pages_hang(self, service):
        """A ledger on a slow disk, for example, and many who look at it."""
        stuck, asked = threading.Event(), []
        health = service.door.health
        service.door.health = lambda: (asked.append(1), stuck.wait(30), health())[-1]
        pages = [threading.Thread(target=httpx.get, args=(f"{service.url}/readyz",), kwargs={"timeout": 60})
                 for _ in range(50)]  # fmt: skip
        for page in pages:
            page.start()
        end = time.monotonic() + 20
        while len(asked) < 40:  # as many threads as there are for pages
            assert time.monotonic() < end
            time.sleep(0.01)
        try:
            assert httpx.get(f"{service.url}/healthz", timeout=10).text == "ok\n"
        finally:
            stuck.set()
            for page in pages:
                page.join(30)

    def test_a_server_that_is_not_there_is_not_fatal(self, tmp_path, load):
        """The doors keep trying; the service lives (cvat.test does not exist)."""
        with running(written(tmp_path), load=load) as service:
            assert service.page.get("/healthz").status_code == 200


class TestMetrics:
    def test_what_happens_is_counted(self, service):
        service.page.until(lambda now: now["ready"])
        service.door.end.set()
        service.door.work()
        assert service.shared.lanes.join(5)
        service.door.end.clear()
        service.door.work("task 5")
        answer = service.page.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert found["cvat_sidecar_requests_total", "annotate_task", "done", "faces", "queue"] == 1
        assert found["cvat_sidecar_requests_running",] == 1
        assert found["cvat_sidecar_lane_taken", "batch"] == 1
        assert found["cvat_sidecar_door_healthy", "queue"] == 1
        assert found["cvat_sidecar_model_state", "faces", "ready"] == 1
        service.door.end.set()


class TestReadingAgain:
    def change(self, service, *pairs):
        text = service.file.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        service.file.write_text(text)

    def test_changes_are_told_and_taken(self, service, load, caplog):
        caplog.set_level(logging.INFO)
        service.page.until(lambda now: now["ready"])
        self.change(
            service,
            ('model = "opencv:face"', 'model = "opencv:eye"\nthreshold = 0.5'),
            ("[queue]", "[queue]\npoll_seconds = 7\n[engine]\nembeddings_mb = 3"),
        )
        assert service.service.reload()
        assert service.door.heard == ["start", "reload"]
        assert service.door.shared.config.queue.poll_seconds == 7
        assert service.shared.embeddings.limit == 3 * 2**20
        assert "changed: models faces: model: 'opencv:face' -> 'opencv:eye'" in caplog.text
        assert "changed: queue: poll_seconds: 60.0 -> 7.0" in caplog.text
        service.page.until(lambda now: now["models"][0]["reference"] == "opencv:eye" and now["ready"])
        assert [reference for reference, _ in load.loads] == ["opencv:face", "opencv:eye"]

    def test_nothing_is_done_for_nothing(self, service, load, caplog):
        caplog.set_level(logging.INFO)
        service.page.until(lambda now: now["ready"])
        assert service.service.reload()
        assert "nothing new for now" in caplog.text
        service.page.until(lambda now: now["ready"])
        assert len(load.loads) == 1

    @pytest.mark.parametrize(
        "broken",
        [("[queue]", "[queue"), ("[queue]", ""), ("[queue]", "[queue]\nnonsense = 1"),
         ("port = 0", 'port = 0\nsecret_env = "NOT_SET"'),
         ("[queue]", '[queue]\npoll_seconds = 7\n[gateway]\nallow = ["10.0.0.0/33"]')],
    )  # fmt: skip
    def test_a_broken_file_is_told_and_ignored(self, service, caplog, broken):
        before = service.shared.config
        self.change(service, broken)
        assert not service.service.reload()
        assert service.shared.config is before
        assert service.door.heard == ["start"]
        assert "everything stays as it is" in caplog.text
        assert service.page.get("/healthz").status_code == 200

    def test_a_file_that_is_not_taken_is_on_the_page_until_one_is(self, service):
        service.page.until(lambda now: now["ready"])
        assert service.page.status()["not_taken"] == []
        assert "\ncvat_sidecar_configuration_taken 1.0" in service.page.get("/metrics").text
        self.change(service, ("[queue]", "[queue]\nnonsense = 1\n[gateway]\nallow = ['10.0.0.0/33']"))
        assert not service.service.reload()
        first, second = service.page.status()["not_taken"]
        assert "queue: unknown key 'nonsense'" in first
        assert "gateway: allow: got '10.0.0.0/33'" in second
        assert "is not taken; what held before still does" in service.page.get("/").text
        assert "10.0.0.0/33" in service.page.get("/").text
        assert "\ncvat_sidecar_configuration_taken 0.0" in service.page.get("/metrics").text
        assert service.page.get("/readyz").status_code == 200
        self.change(service, ("\nnonsense = 1\n[gateway]\nallow = ['10.0.0.0/33']", ""))
        assert service.service.reload()
        assert service.page.status()["not_taken"] == []
        assert "is not taken" not in service.page.get("/").text

    def test_so_is_a_door_that_goes_on_with_what_it_had(self, service):
        service.page.until(lambda now: now["ready"])
        service.door.refuses = ConfigError("gateway: cannot listen on 127.0.0.1:80: it is taken")
        assert service.service.reload()
        told = ["door queue: it goes on as it was: gateway: cannot listen on 127.0.0.1:80: it is taken"]
        assert service.page.status()["not_taken"] == told
        assert service.page.get("/readyz").status_code == 200
        service.door.refuses = None
        assert service.service.reload()
        assert service.page.status()["not_taken"] == []

    def test_a_file_that_is_gone_is_told_and_ignored(self, service, caplog):
        service.file.unlink()
        assert not service.service.reload()
        assert "everything stays as it is" in caplog.text

    def test_what_needs_a_restart_is_named(self, service, caplog):
        self.change(service, ("port = 0", "port = 1234\nbatch_lanes = 7"), ("cvat.test", "other.test"))
        assert service.service.reload()
        for key in ("service.port", "service.batch_lanes", "cvat.host"):
            assert f"changed, but needs a restart: {key}" in caplog.text
        assert service.shared.config.service.port == 0
        assert service.page.get("/healthz").status_code == 200

    def test_each_key_of_the_login_is_named_and_no_secret(self, service, caplog, monkeypatch):
        monkeypatch.setenv("OTHER_PASSWORD", "another-word")
        self.change(service, ("BOT_PASSWORD", "OTHER_PASSWORD"), ('user = "bot"', 'user = "eve"\ntimeout = 7'))
        assert service.service.reload()
        told = [text for text in caplog.messages if "needs a restart" in text]
        assert [text.rpartition(": ")[2] for text in told] == ["cvat.user", "cvat.password_env", "cvat.timeout"]
        assert "another-word" not in caplog.text

    def test_doors_come_and_go(self, service, caplog):
        caplog.set_level(logging.INFO)
        self.change(service, ("[queue]", "[gateway]"))
        service.door.work()
        assert service.service.reload()
        assert [door["name"] for door in service.page.status()["doors"]] == ["gateway"]
        assert service.doors["gateway"].heard == ["start"]
        assert service.door.heard[:2] == ["start", "drain"]
        assert len(service.page.status()["running"]) == 1, "what it held goes on"
        service.door.end.set()
        end = time.monotonic() + 10
        while "close" not in service.door.heard:
            assert time.monotonic() < end
            time.sleep(0.01)

    def test_a_door_that_goes_waits_for_what_it_is_in_the_middle_of(self, service):
        self.change(service, ("[queue]", "[gateway]"))
        service.door.busy = True
        assert service.service.reload()
        time.sleep(0.5)
        assert service.door.heard == ["start", "drain"]
        service.door.busy = False
        end = time.monotonic() + 10
        while "close" not in service.door.heard:
            assert time.monotonic() < end
            time.sleep(0.01)

    @pytest.mark.parametrize("ends", ["drain", "close"])
    def test_a_door_that_opens_while_the_service_ends_takes_nothing(self, tmp_path, load, ends):
        opening, opened = threading.Event(), threading.Event()

        def prepare(door):
            if door.name == "gateway":
                door.start = lambda: (opening.set(), opened.wait(20))

        with running(written(tmp_path), load=load, prepare=prepare) as service:
            self.change(service, ("[queue]", "[queue]\n[gateway]"))
            reading = threading.Thread(target=service.service.reload)
            reading.start()
            assert opening.wait(10)
            getattr(service.service, ends)()
            opened.set()
            reading.join(10)
            assert service.doors["gateway"].heard == [ends]
            self.change(service, ("[gateway]", '[[rules]]\nname = "r"\nmodel = "faces"'))
            service.service.reload()
            assert "watch" not in service.doors, "nothing opens any more"
            assert "reload" not in service.door.heard[2:]

    def test_a_door_that_two_threads_miss_is_opened_once(self, service):
        made, slow = [], threading.Event()

        def make(shared):
            made.append(SmallDoor(shared))
            slow.wait(0.3)
            return made[-1]

        doors = OpenDoors(service.shared, {"queue": make})
        threads = [threading.Thread(target=doors.open_missing) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(made) == 1
        assert doors.all() == made

    def test_a_door_that_does_not_open_is_told_and_keeps_it_from_being_ready(self, tmp_path, load, caplog):
        def prepare(door):
            if door.name == "gateway":
                refusing("gateway: port: is taken")(door)

        with running(written(tmp_path), load=load, prepare=prepare) as service:
            service.page.until(lambda now: now["ready"])
            self.change(service, ("[queue]", "[queue]\n[gateway]"))
            assert service.service.reload()
            assert service.page.status()["obstacles"] == ["door gateway: it is shut; see the log"]
            assert "door gateway: it stays shut: gateway: port: is taken" in caplog.text

    def test_a_door_that_refuses_new_settings_costs_nothing_else(self, service, caplog):
        service.door.refuses = ConfigError("queue: no")
        assert service.service.reload()
        assert "door queue: it cannot reload: queue: no" in caplog.text

    def test_a_password_that_changes_counts_at_once(self, service, monkeypatch):
        monkeypatch.setenv("NEW_PASSWORD", "open sesame")
        assert service.page.get("/api/status").status_code == 200
        self.change(service, ("port = 0", 'port = 0\nsecret_env = "NEW_PASSWORD"'))
        assert service.service.reload()
        assert service.page.get("/api/status").status_code == 401
        assert service.page.get("/api/status", headers={"Authorization": "Bearer open sesame"}).status_code == 200


class Stopped:
    """Runs `run_until_stopped` here, and sends signals from another thread as things come about."""

    def __init__(self, service, grace=30.0):
        self.said, self.forced, self.service, self.grace = [], [], service, grace

    def run(self, *steps):
        """Each step is a signal to send, or something to wait for or to do; the exit code."""

        def send():
            for step in steps:
                if isinstance(step, signal.Signals):
                    os.kill(os.getpid(), step)
                else:
                    end = time.monotonic() + 10
                    while step() is False and time.monotonic() < end:
                        time.sleep(0.01)

        thread = threading.Thread(target=send, daemon=True)
        with Signals() as signals:
            thread.start()
            code = run_until_stopped(self.service, signals, lambda: self.grace, self.said.append, self.forced.append)
            thread.join(5)
        return code


class TestEnd:
    def test_with_nothing_held_it_is_at_once(self, service):
        stopped = Stopped(service.service)
        began = time.monotonic()
        assert stopped.run(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5
        assert stopped.said == ["stopped"]
        assert stopped.forced == [0]
        assert service.door.heard == ["start", "drain", "close"]
        assert service.shared.stop.is_set()

    def test_what_is_held_is_finished_first(self, service):
        service.door.work()
        stopped = Stopped(service.service)
        states = []

        def look():
            if "drain" not in service.door.heard:
                return False
            states.append(service.page.get("/readyz"))
            states.append(service.shared.lanes.batch.claim())
            return None

        assert stopped.run(signal.SIGINT, look, service.door.end.set) == 0
        readyz, claim = states
        assert "the service is stopping" in readyz.json()["reasons"], "the page is there until the end"
        assert claim is None, "nothing new is taken"
        (record,) = service.shared.activity.finished()
        assert record.outcome == "done"
        assert stopped.said[0].startswith("stopping: what is held is finished first, within 30 s")
        assert stopped.said[-1] == "stopped"

    def test_the_second_signal_gives_up_what_is_held(self, service):
        service.door.work()
        stopped = Stopped(service.service)
        code = stopped.run(signal.SIGTERM, lambda: bool(stopped.said), signal.SIGTERM)
        assert code == GIVEN_UP
        assert "may be taken by others" in stopped.said[-1]
        assert service.shared.stop.is_set()
        (record,) = service.shared.activity.finished()
        assert record.outcome != "failed"
        assert not record.cancelling, "nobody has cancelled it"

    def test_so_does_the_end_of_the_grace_period(self, service):
        service.door.work()
        stopped = Stopped(service.service, grace=0.3)
        began = time.monotonic()
        assert stopped.run(signal.SIGTERM) == GIVEN_UP
        assert time.monotonic() - began < 8
        assert "0.3 s are over; stopping at once" in stopped.said

    def test_a_hangup_reads_again_and_goes_on(self, service):
        stopped = Stopped(service.service)
        code = stopped.run(signal.SIGHUP, lambda: "reload" in service.door.heard, signal.SIGTERM)
        assert code == 0
        assert service.door.heard == ["start", "reload", "drain", "close"]

    def test_nothing_that_hangs_keeps_it_alive(self, service, load, caplog):
        """A door that neither drains nor closes, a lane that does not end, a model that is stuck in a batch."""
        service.page.until(lambda now: now["ready"])
        stuck = threading.Event()
        service.door.drain = service.door.close = lambda: stuck.wait(60)
        service.shared.lanes.interactive.claim().run(lambda: stuck.wait(60))
        with service.shared.pool.use("faces") as hosted:
            hosted.host.call(lambda: stuck.wait(60))
        stopped = Stopped(service.service, grace=0.2)
        began = time.monotonic()
        assert stopped.run(signal.SIGTERM) == GIVEN_UP
        assert time.monotonic() - began < 20
        assert "door queue: not closed" in caplog.text
        stuck.set()

    def test_a_door_that_fails_at_the_end_costs_nothing(self, service, caplog):
        def broken():
            raise ZeroDivisionError

        service.door.drain = service.door.close = broken
        assert Stopped(service.service).run(signal.SIGTERM) == 0
        assert "door queue: it cannot drain" in caplog.text
        assert "door queue: it cannot close" in caplog.text

    def test_handlers_are_put_back(self, service):
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        Stopped(service.service).run(signal.SIGTERM)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before

    def test_no_thread_is_left(self, tmp_path, load):
        before = set(threading.enumerate())
        with running(written(tmp_path), load=load) as service:
            service.page.until(lambda now: now["ready"])
            service.door.end.set()
            service.door.work()
        end = time.monotonic() + 5
        while left := set(threading.enumerate()) - before:
            assert time.monotonic() < end, left
            time.sleep(0.01)


def test_the_real_doors_are_where_the_table_says():
    from agent.process.open_doors import DOORS, _maker

    for name in DOORS:
        made = _maker(name)
        assert made.name == name
        assert all(callable(getattr(made, what)) for what in ("start", "drain", "close", "reload", "health"))


def test_a_service_without_a_second_reading_is_complete(tmp_path, load):
    """`open` may be left out: closing what was only made is allowed."""
    file = written(tmp_path)
    service = Service(load_config(file), lambda: load_config(file), doors={"queue": SmallDoor}, load=load)
    service.close()

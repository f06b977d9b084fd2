import threading

import pytest

from agent.errors import ModelLoadFailed
from agent.process.housekeeping import Housekeeping
from agent.settings.tables import EngineSettings, ModelSettings
from tests.support.doors import shared as make_shared
from tests.support.queue import until
from tests.unit.test_pool import Loader

MODEL = ModelSettings("a", "x:a")


class Bell:
    """Rings when a method of an object is called, and calls it."""

    def __init__(self, monkeypatch, owner, name):
        self._rung, original = threading.Semaphore(0), getattr(owner, name)

        def call(*args, **more):
            try:
                return original(*args, **more)
            finally:
                self._rung.release()

        monkeypatch.setattr(owner, name, call)

    def wait(self, times=1):
        for _ in range(times):
            assert self._rung.acquire(timeout=10)


@pytest.fixture
def load():
    return Loader()


@pytest.fixture
def shared(load, tmp_path):
    engine = EngineSettings(idle_minutes=1e-6)
    with make_shared("http://cvat.test", [MODEL], folder=tmp_path, load=load, engine=engine) as made:
        yield made


@pytest.fixture
def keep(shared):
    """Makes housekeepers, and ends them."""
    made = []

    def make(**more):
        made.append(Housekeeping(shared, **more))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_models_are_loaded_and_idle_ones_go(shared, keep, load, monkeypatch):
    swept = Bell(monkeypatch, shared.pool, "sweep")
    keep(sweep_seconds=0.01)
    assert load.entered.wait(10)
    for _ in range(500):
        swept.wait()
        if shared.pool.record("a").loads and shared.pool.record("a").status == "unloaded":
            break
    assert shared.pool.record("a").status == "unloaded"


def test_a_sweep_that_breaks_off_is_not_the_last(shared, keep, monkeypatch, caplog):
    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(shared.track_states, "sweep", broken)
    swept = Bell(monkeypatch, shared.pool, "sweep")
    keep(sweep_seconds=0.001)
    swept.wait(3)
    assert "ZeroDivisionError" in caplog.text


def test_states_that_have_expired_are_forgotten(shared, keep, monkeypatch):
    shared.track_states.add("here", [b"x"])
    monkeypatch.setattr(shared.track_states, "_limit", 0)
    swept = Bell(monkeypatch, shared.track_states, "sweep")
    keep(sweep_seconds=0.001)
    swept.wait(2)
    assert shared.track_states.sweep() == 0, "nothing is left for us"


def test_what_failed_is_tried_again_by_itself(shared, keep, load, monkeypatch):
    monkeypatch.setattr("agent.pool.pool.RETRY_SECONDS", 0.0)
    load.fail["x:a"] = ModelLoadFailed("the Hub does not answer")
    tried = Bell(monkeypatch, shared.pool, "preload")
    keep(retry=0.001)
    tried.wait(3)
    load.fail.clear()
    while not shared.pool.record("a").loads:
        tried.wait()
    assert shared.pool.record("a").loads == 1


def test_what_was_there_and_could_not_come_back_is_tried_again_too(shared, keep, load, monkeypatch):
    """Menus do not list it any more, so that nobody uses it."""
    monkeypatch.setattr("agent.pool.pool.RETRY_SECONDS", 0.0)
    pool = shared.pool
    assert pool.preload()
    until(lambda: pool.sweep() or pool.record("a").status == "unloaded")
    load.fail["x:a"] = ModelLoadFailed("out of memory")
    with pytest.raises(ModelLoadFailed), pool.use("a"):
        pass
    assert pool.record("a").status == "failed"
    tried = Bell(monkeypatch, pool, "preload")
    keep(retry=0.001)
    tried.wait(2)
    load.fail.clear()
    until(lambda: pool.record("a").loads == 2)
    assert (pool.record("a").status, pool.record("a").error) == ("ready", None)


def test_what_fails_after_all_was_well_is_noticed(shared, keep, load, monkeypatch):
    monkeypatch.setattr("agent.pool.pool.RETRY_SECONDS", 0.0)
    tried = Bell(monkeypatch, shared.pool, "preload")
    keep(retry=0.001)
    tried.wait(2)
    until(lambda: shared.pool.sweep() or shared.pool.record("a").status == "unloaded")
    load.fail["x:a"] = ModelLoadFailed("out of memory")
    with pytest.raises(ModelLoadFailed), shared.pool.use("a"):
        pass
    load.fail.clear()
    until(lambda: shared.pool.record("a").loads == 2)


def test_what_failed_is_tried_again_at_once_when_somebody_says_so(shared, keep, load, monkeypatch):
    monkeypatch.setattr("agent.pool.pool.RETRY_SECONDS", 0.0)
    load.fail["x:a"] = ModelLoadFailed("the Hub does not answer")
    tried = Bell(monkeypatch, shared.pool, "preload")
    patient = keep(retry=1000)
    tried.wait()
    load.fail.clear()
    patient.look_again()
    tried.wait()
    assert shared.pool.record("a").loads == 1


def test_preloading_that_breaks_off_is_not_the_last(shared, keep, monkeypatch, caplog):
    calls = []

    def broken():
        calls.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(shared.pool, "preload", broken)
    tried = Bell(monkeypatch, shared.pool, "preload")
    keep(retry=0.001)
    tried.wait(3)
    assert len(calls) >= 3
    assert "models could not be loaded" in caplog.text

"""The pool with models that are made on the spot; real weights go through it in the tests of the doors."""

import gc
import logging
import random
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.contract import Context, Detection, Label, Rectangle
from agent.errors import ConfigError, ModelError, ModelLoadFailed, ModelNotFound, RequestCancelled
from agent.models.loading import LoadedModel, ModelReference
from agent.pool.pool import RETRY_SECONDS, ModelPool
from agent.settings.tables import EngineSettings, ModelSettings
from tests.unit.test_host import frames

MIB = 2**20


class Model:
    """A detector that remembers whether it was closed, and that fails when it runs afterwards."""

    def __init__(self, name, memory=0):
        self.labels, self.memory_bytes = (Label(name, "rectangle"),), memory
        self.closed = 0

    def detect(self, batch, context):
        assert not self.closed, "a closed model ran"
        return [[Detection(self.labels[0].name, Rectangle(0, 0, 1, 1), 0.5)] for _ in batch]

    def close(self):
        self.closed += 1


class Loader:
    """Stands in for agent.models.loading.load_model: counts, can be held up, and fails where it is told to."""

    def __init__(self):
        self.loads, self.models, self.at_once, self.most_at_once = [], [], 0, 0
        self.fail, self.memory, self.options = {}, {}, []
        self.gate = threading.Event()
        self.gate.set()
        self.held = {}
        self.entered = threading.Event()
        self.begins = lambda: None
        self._lock = threading.Lock()

    def __call__(self, reference, *, device, options):
        with self._lock:
            self.loads.append((reference, device))
            self.options.append(options)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.set()
        self.begins()
        try:
            assert self.gate.wait(20)
            if reference in self.held:
                assert self.held[reference].wait(20)
            if reference in self.fail:
                raise self.fail[reference]
            model = Model(reference, self.memory.get(reference, 0))
            with self._lock:
                self.models.append(model)
            scheme, _, name = reference.partition(":")
            return LoadedModel(ModelReference(scheme, name), model, "detector", model.labels, "v1", batch_size=2)
        finally:
            with self._lock:
                self.at_once -= 1


class Made:
    """A pool with a clock that is moved by hand."""

    def __init__(self, folder):
        self.now, self.load, self.folder, self.batches, self.unloaded = 1000.0, Loader(), folder, [], []
        self.pools = []

    def pool(self, *models, memory_mb=None, idle_minutes=0.0, device="cpu", **more):
        made = ModelPool(
            [self.settings(m) for m in models], EngineSettings(device, memory_mb, idle_minutes), self.folder,
            load=self.load, clock=lambda: self.now, on_batch=lambda *batch: self.batches.append(batch),
            on_unload=self.unloaded.append, **more,
        )  # fmt: skip
        self.pools.append(made)
        return made

    @staticmethod
    def settings(model):
        return model if isinstance(model, ModelSettings) else ModelSettings(model, f"x:{model}")


@pytest.fixture
def made(tmp_path):
    made = Made(tmp_path / "models")
    yield made
    made.load.gate.set()
    for gate in made.load.held.values():
        gate.set()
    for pool in made.pools:
        pool.close(5)
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("load-")])
    assert not [t for t in threading.enumerate() if t.name.startswith("host-")], "no host outlives its pool"
    assert all(model.closed == 1 for model in made.load.models), "every model is closed once"


def spawn(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(done):
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def use_once(pool, model="a"):
    with pool.use(model) as hosted:
        return hosted.host.submit(frames(0), Context()).result(10)


class TestLending:
    def test_a_model_is_loaded_at_first_use_and_once(self, made):
        pool = made.pool("a")
        assert pool.record("a").status == "unloaded"
        for _ in range(3):
            ((detection,),) = use_once(pool)
            assert detection.label == "x:a"
        assert made.load.loads == [("x:a", "cpu")]
        assert pool.record("a").status == "ready"
        assert pool.record("a").loads == 1

    def test_who_comes_at_once_shares_one_load(self, made):
        pool = made.pool("a", "b")
        made.load.gate.clear()
        with ThreadPoolExecutor(16) as threads:
            found = [threads.submit(use_once, pool, "ab"[n % 2]) for n in range(32)]
            assert made.load.entered.wait(5)
            made.load.gate.set()
            assert all(len(future.result(10)) == 1 for future in found)
        assert sorted(made.load.loads) == [("x:a", "cpu"), ("x:b", "cpu")]
        assert made.load.most_at_once == 1, "weights are read one model after the other"
        assert pool.record("a").users == pool.record("b").users == 0

    def test_users_are_counted_while_they_wait_for_the_load(self, made):
        pool = made.pool("a")
        made.load.gate.clear()
        thread = spawn(lambda: use_once(pool))
        assert made.load.entered.wait(5)
        record = pool.record("a")
        assert (record.status, record.users) == ("loading", 1)
        made.load.gate.set()
        thread.join(5)
        assert pool.record("a").users == 0

    def test_an_unknown_id_is_refused_with_those_that_there_are(self, made):
        with pytest.raises(ModelNotFound, match=r"'c'.*allowed: a, b"), made.pool("a", "b").use("c"):
            pass
        for ask in ("settings", "describe", "record"):
            with pytest.raises(ModelNotFound, match="allowed: none"):
                getattr(made.pool(), ask)("c")

    def test_a_model_of_its_own_device_and_batch_size(self, made):
        pool = made.pool(ModelSettings("a", "x:a", device="cuda:3", batch_size=7, options={"n": 1}), "b")
        with pool.use("a") as hosted:
            assert hosted.host.batch_size == 7
        with pool.use("b") as hosted:
            assert hosted.host.batch_size == 2, "the model's"
        assert made.load.loads == [("x:a", "cuda:3"), ("x:b", "cpu")]
        assert made.load.options == [{"n": 1}, {}]

    def test_batches_are_told(self, made):
        use_once(made.pool("a"))
        ((model, count, seconds),) = made.batches
        assert (model, count) == ("a", 1)
        assert seconds >= 0

    def test_an_error_of_the_user_gives_the_model_back(self, made):
        pool = made.pool("a")
        with pytest.raises(OSError), pool.use("a"):
            raise OSError
        assert pool.record("a").users == 0

    def test_every_load_has_a_number_of_its_own(self, made):
        pool = made.pool("a")
        with pool.use("a") as first, pool.use("a") as same:
            assert first.load == same.load
        pool.replace([ModelSettings("a", "x:a", options={"n": 2})], EngineSettings("cpu"))
        with pool.use("a") as second:
            assert second.load != first.load


class TestFailing:
    def test_is_told_and_tried_again_after_a_while(self, made):
        pool = made.pool("a")
        made.load.fail["x:a"] = ModelLoadFailed("x:a: no such file")
        for _ in range(3):
            with pytest.raises(ModelLoadFailed, match="no such file"):
                use_once(pool)
        assert len(made.load.loads) == 1, "not tried again at once"
        record = pool.record("a")
        assert (record.status, record.error, record.users) == ("failed", "x:a: no such file", 0)
        del made.load.fail["x:a"]
        made.now += RETRY_SECONDS
        use_once(pool)
        assert (pool.record("a").status, pool.record("a").error) == ("ready", None)

    def test_the_same_error_told_often_does_not_grow(self, made):
        pool = made.pool("a")
        made.load.fail["x:a"] = ModelLoadFailed("broken")

        def depth():
            with pytest.raises(ModelLoadFailed) as caught:
                use_once(pool)
            return len(caught.traceback)

        depth()
        assert len({depth() for _ in range(5)}) == 1

    @pytest.mark.parametrize("error", [RuntimeError("out of memory"), ConfigError("x: unknown option 'n'")])
    def test_any_error_is_kept(self, made, error):
        pool = made.pool("a")
        made.load.fail["x:a"] = error
        with pytest.raises((ModelLoadFailed, ConfigError)) as caught:
            use_once(pool)
        assert str(error) in str(caught.value)
        assert pool.record("a").status == "failed"

    def test_a_model_that_tells_nonsense_of_itself_is_closed_again(self, made):
        pool = made.pool("a")
        made.load.memory["x:a"] = "much"
        with pytest.raises(ModelLoadFailed, match="x:a"):
            use_once(pool)
        assert pool.record("a").status == "failed"

    def test_a_folder_that_cannot_be_written_costs_nothing_but_the_description(self, made, caplog):
        made.folder.parent.mkdir(parents=True, exist_ok=True)
        made.folder.write_text("a file stands where the folder should be")
        pool = made.pool("a")
        assert use_once(pool)
        assert pool.describe("a").kind == "detector"
        assert "description" in caplog.text

    def test_new_settings_give_a_broken_model_another_chance(self, made):
        pool = made.pool("a")
        made.load.fail["x:a"] = ModelLoadFailed("no such file")
        pool.preload()
        made.load.fail.clear()
        pool.replace([made.settings("a")], EngineSettings("cpu"))
        assert use_once(pool)

    def test_others_load_although_one_is_broken(self, made, caplog):
        pool = made.pool("a", "b")
        made.load.fail["x:a"] = ModelLoadFailed("no such file")
        assert not pool.preload()
        assert [record.status for record in pool.records()] == ["failed", "ready"]
        assert "model a: no such file" in caplog.text

    def test_what_was_read_until_it_failed_is_not_kept(self, made):
        """Else a model that does not fit into the memory fills it for as long as it is told that it does not fit."""
        seen = []

        class Weights:
            pass

        def too_much():
            half = Weights()
            seen.append(weakref.ref(half))
            raise RuntimeError(f"out of memory after {half.__class__.__name__}")

        pool = made.pool("a")
        made.load.begins = too_much
        with pytest.raises(ModelLoadFailed, match="out of memory"):
            use_once(pool)
        gc.collect()
        assert pool.record("a").status == "failed"
        assert seen[0]() is None


class TestALoadThatDoesNotEnd:
    def test_keeps_others_waiting_for_a_while_only(self, made, caplog):
        pool, gate = made.pool("a", "b", load_seconds=600), threading.Event()
        made.load.held["x:a"] = gate
        with ThreadPoolExecutor(2) as threads:
            stuck = threads.submit(use_once, pool, "a")
            assert made.load.entered.wait(5)
            other = threads.submit(use_once, pool, "b")
            time.sleep(0.3)
            assert not other.done(), "one after the other, as long as that takes no longer than it may"
            made.now += 600
            assert other.result(10)
            with pytest.raises(ModelError, match="model a: it is still being loaded after 600 s"):
                stuck.result(10)
        record = pool.record("a")
        assert (record.status, record.users) == ("failed", 0)
        assert record.error in caplog.text
        assert not pool.preload()
        assert made.load.loads == [("x:a", "cpu"), ("x:b", "cpu")], "it is not begun a second time"
        gate.set()
        until(lambda: pool.record("a").status == "ready")
        assert use_once(pool, "a")
        assert pool.preload()

    def test_keeps_nobody_who_does_not_want_it_any_more(self, made):
        pool, cancelled = made.pool("a"), threading.Event()
        made.load.gate.clear()

        def check():
            if cancelled.is_set():
                raise RequestCancelled("somebody has cancelled it")

        def wait():
            with pool.use("a", check):
                pass

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(wait)
            assert made.load.entered.wait(5)
            cancelled.set()
            with pytest.raises(RequestCancelled):
                waiting.result(10)
        assert (pool.record("a").status, pool.record("a").users) == ("loading", 0)
        made.load.gate.set()
        assert use_once(pool)
        assert len(made.load.loads) == 1

    def test_one_that_ends_when_nobody_wants_it_any_more_leaves_nothing_behind(self, made):
        pool, gone = made.pool("a"), RequestCancelled("gone")
        made.load.gate.clear()

        def check():
            raise gone

        with pytest.raises(RequestCancelled), pool.use("a", check):
            pass
        pool.replace([], EngineSettings("cpu"))
        made.load.gate.set()
        until(lambda: [model.closed for model in made.load.models] == [1])

    def test_does_not_keep_its_turn_for_those_after_the_next(self, made):
        pool = made.pool("a", "b", "c", load_seconds=600)
        made.load.held["x:a"] = threading.Event()
        with ThreadPoolExecutor(3) as threads:
            threads.submit(use_once, pool, "a")
            assert made.load.entered.wait(5)
            made.now += 600
            found = [threads.submit(use_once, pool, model) for model in "bc"]
            assert all(future.result(10) for future in found)

    def test_the_end_of_the_pool_ends_the_waiting(self, made):
        pool = made.pool("a", "b")
        made.load.gate.clear()
        with ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(use_once, pool, model) for model in "ab"]
            assert made.load.entered.wait(5)
            pool.close(5)
            for future in waiting:
                with pytest.raises(ModelError, match="the service ends"):
                    future.result(10)
        made.load.gate.set()
        until(lambda: not [t for t in threading.enumerate() if t.name.startswith("load-")])
        assert len(made.load.loads) == 1, "the other one was not begun any more"


class TestPreloading:
    def test_loads_what_is_to_be_ready_and_looks_at_the_rest(self, made):
        pool = made.pool("a", ModelSettings("b", "x:b", load="use"))
        assert pool.describe("b") is None
        assert pool.preload()
        assert [record.status for record in pool.records()] == ["ready", "unloaded"]
        assert pool.describe("b").labels == (Label("x:b", "rectangle"),)
        assert made.unloaded == ["b"], "its memory is given back until somebody uses it"

    def test_what_was_seen_once_is_known_without_loading(self, made):
        settings = ModelSettings("b", "x:b", load="use")
        made.pool(settings).preload()
        again = made.pool(settings)
        assert again.describe("b").kind == "detector"
        assert again.preload()
        assert len(made.load.loads) == 1

    def test_does_not_load_again_what_was_unloaded_since(self, made):
        pool = made.pool("a", idle_minutes=1)
        pool.preload()
        made.now += 61
        pool.sweep()
        assert pool.record("a").status == "unloaded"
        assert pool.preload()
        assert pool.record("a").status == "unloaded"
        assert pool.record("a").loads == 1

    def test_goes_on_with_what_failed(self, made):
        pool = made.pool("a")
        made.load.fail["x:a"] = ModelLoadFailed("the Hub does not answer")
        assert not pool.preload()
        made.load.fail.clear()
        assert not pool.preload(), "too early"
        made.now += RETRY_SECONDS
        assert pool.preload()
        assert pool.record("a").status == "ready"

    def test_ends_when_the_pool_does(self, made):
        pool = made.pool("a", "b")
        made.load.gate.clear()
        thread = spawn(pool.preload)
        assert made.load.entered.wait(5)
        pool.close(5)
        made.load.gate.set()
        thread.join(5)
        assert not thread.is_alive()
        assert made.load.loads == [("x:a", "cpu")], "b was not begun"


class TestUnloading:
    def test_after_idle_minutes(self, made):
        pool = made.pool(
            "a", ModelSettings("b", "x:b", idle_minutes=0), ModelSettings("c", "x:c", idle_minutes=5), idle_minutes=1
        )
        pool.preload()
        made.now += 59
        pool.sweep()
        assert [record.status for record in pool.records()] == ["ready"] * 3
        made.now += 1
        pool.sweep()
        assert [record.status for record in pool.records()] == ["unloaded", "ready", "ready"]
        made.now += 10**6
        pool.sweep()
        assert [record.status for record in pool.records()] == ["unloaded", "ready", "unloaded"], "0 is never"
        assert made.unloaded == ["a", "c"]
        assert use_once(pool, "a"), "it comes back when it is used"

    def test_not_while_it_is_used(self, made):
        pool = made.pool("a", idle_minutes=1, memory_mb=1)
        made.load.memory["x:a"] = 5 * MIB
        with pool.use("a") as hosted:
            made.now += 3600
            assert pool.record("a").idle == 0
            pool.sweep()
            assert hosted.host.submit(frames(0), Context()).result(10)
        pool.sweep()
        assert pool.record("a").status == "unloaded", "over the budget, and free"

    def test_what_was_used_longest_ago_makes_room(self, made, caplog):
        caplog.set_level(logging.INFO)
        pool = made.pool("a", "b", "c", memory_mb=10)
        made.load.memory |= {"x:a": 4 * MIB, "x:b": 5 * MIB, "x:c": 4 * MIB}
        for model in "aba":
            made.now += 1
            use_once(pool, model)
        made.now += 1
        use_once(pool, "c")
        assert [record.status for record in pool.records()] == ["ready", "unloaded", "ready"]
        assert sum(record.memory for record in pool.records()) == 8 * MIB
        assert "model b: unloaded, to make room" in caplog.text

    def test_room_is_made_before_a_model_whose_size_is_known_comes_back(self, made):
        pool = made.pool("a", "b", memory_mb=10)
        made.load.memory |= {"x:a": 6 * MIB, "x:b": 6 * MIB}
        use_once(pool, "a")
        use_once(pool, "b")
        (first,) = (model for model in made.load.models if model.labels[0].name == "x:b")
        gone = []
        made.load.begins = lambda: gone.append(first.closed)
        use_once(pool, "a")
        assert gone == [1], "b was gone before a was read again"

    def test_one_that_never_comes_back_from_its_batch_does_not_keep_the_others_waiting(self, made, caplog):
        pool = made.pool("a", "b", memory_mb=10)
        pool._unload_seconds = 0.1
        made.load.memory |= {"x:a": 6 * MIB, "x:b": 6 * MIB}
        use_once(pool, "b")
        gate, begun = threading.Event(), threading.Event()
        with pool.use("a") as hosted:
            stuck = hosted.host.call(lambda: begun.set() or gate.wait(20))
            assert begun.wait(10)
        assert use_once(pool, "b"), "a has to go for it, and is in its batch"
        assert "model a: it does not come back from its batch" in caplog.text
        (model,) = (model for model in made.load.models if model.labels[0].name == "x:a")
        assert not model.closed
        gate.set()
        assert stuck.result(10)
        while not model.closed:
            pass

    def test_one_that_is_too_large_alone_is_told(self, made, caplog):
        pool = made.pool("a", memory_mb=1)
        made.load.memory["x:a"] = 5 * MIB
        use_once(pool)
        assert "memory_mb" in caplog.text
        assert "x:a" in caplog.text or "model a" in caplog.text

    def test_nobody_unloads_for_others_what_is_in_use(self, made):
        pool = made.pool("a", "b", memory_mb=1)
        made.load.memory |= {"x:a": MIB, "x:b": MIB}
        with pool.use("a"), pool.use("b"):
            assert [record.status for record in pool.records()] == ["ready", "ready"]
        pool.sweep()
        assert [record.status for record in pool.records()].count("ready") == 1


class TestReplacing:
    def test_what_did_not_change_stays_loaded(self, made):
        pool = made.pool("a", "b")
        pool.preload()
        titled = ModelSettings("a", "x:a", name="Title", threshold=0.5)
        pool.replace([titled, ModelSettings("c", "x:c")], EngineSettings("cpu", idle_minutes=3))
        assert pool.ids() == ("a", "c")
        assert [record.status for record in pool.records()] == ["ready", "unloaded"]
        assert made.unloaded == ["b"]
        assert pool.settings("a") == titled
        with pool.use("a") as hosted:
            assert hosted.settings.title == "Title"
        with pytest.raises(ModelNotFound), pool.use("b"):
            pass

    @pytest.mark.parametrize(
        "change", [{"model": "x:z"}, {"options": {"n": 1}}, {"device": "cuda"}, {"batch_size": 9}], ids=str
    )
    def test_other_weights_take_the_place_of_the_old_ones(self, made, change):
        pool = made.pool("a")
        pool.preload()
        pool.replace([ModelSettings(**{"id": "a", "model": "x:a", **change})], EngineSettings("cpu"))
        assert pool.record("a").status == "unloaded"
        use_once(pool)
        assert len(made.load.models) == 2

    def test_another_device_counts_where_it_is_the_models(self, made):
        own = ModelSettings("a", "x:a", device="cpu")
        pool = made.pool(own, "b")
        pool.preload()
        pool.replace([own, made.settings("b")], EngineSettings("cuda"))
        assert [record.status for record in pool.records()] == ["ready", "unloaded"]

    def test_who_uses_the_old_one_ends_with_it(self, made):
        pool = made.pool("a")
        with pool.use("a") as old, pool.use("a"):
            pool.replace([ModelSettings("a", "x:new")], EngineSettings("cpu"))
            with pool.use("a") as new:
                assert new.loaded.model is not old.loaded.model
                assert not old.loaded.model.closed
            assert old.host.submit(frames(0), Context()).result(10)[0][0].label == "x:a"
        assert old.loaded.model.closed == 1
        assert not new.loaded.model.closed

    def test_in_the_middle_of_a_load(self, made):
        """Who waits gets the old model, and it goes with them; nobody is left with a model that no one closes."""
        pool = made.pool("a")
        made.load.gate.clear()
        with ThreadPoolExecutor(4) as threads:
            found = [threads.submit(use_once, pool) for _ in range(4)]
            assert made.load.entered.wait(5)
            pool.replace([], EngineSettings("cpu"))
            made.load.gate.set()
            assert all(future.result(10) for future in found)
        assert [model.closed for model in made.load.models] == [1]
        assert pool.records() == []

    def test_and_closed_with_the_pool_even_while_it_is_used(self, made):
        pool = made.pool("a")
        with pool.use("a") as old:
            pool.replace([ModelSettings("a", "x:new")], EngineSettings("cpu"))
            pool.close(5)
            assert old.loaded.model.closed == 1
            assert old.host.submit(frames(0), Context()).cancelled()


class TestClosing:
    def test_ends_what_is_in_use_too(self, made):
        pool = made.pool("a")
        with pool.use("a") as hosted:
            pool.close(5)
            assert hosted.host.submit(frames(0), Context()).cancelled()
        with pytest.raises(ModelError, match="the service ends"):
            use_once(pool)

    def test_in_the_middle_of_a_load_the_model_goes_at_once(self, made):
        pool = made.pool("a")
        made.load.gate.clear()
        caught = []

        def try_it():
            try:
                use_once(pool)
            except ModelError as error:
                caught.append(error)

        thread = spawn(try_it)
        assert made.load.entered.wait(5)
        pool.close(5)
        made.load.gate.set()
        thread.join(5)
        assert "the service ends" in str(caught[0])

    def test_twice_is_once(self, made):
        pool = made.pool("a")
        pool.preload()
        pool.close(5)
        pool.close(5)


def test_many_threads_use_replace_and_sweep_at_once(made):
    """Whatever the order, everybody gets a model that runs, and every model is closed once (see the fixture)."""
    names = "abc"
    pool = made.pool(*names, memory_mb=3, idle_minutes=0.001)
    made.load.memory |= {f"x:{name}{version}": 2 * MIB for name in names for version in range(5)}
    end = threading.Event()

    def work(seed):
        rng = random.Random(seed)
        for _ in range(60):
            made.now += rng.random()
            model = rng.choice(names)
            with pool.use(model) as hosted:
                (found,) = hosted.host.submit(frames(1), Context()).result(20)
                assert found[0].label.startswith(f"x:{model}")

    def stir():
        rng = random.Random(0)
        while not end.is_set():
            version = rng.randrange(5)
            pool.replace([ModelSettings(name, f"x:{name}{version}") for name in names], EngineSettings("cpu", 3, 0.001))
            pool.sweep()
            pool.records()

    stirring = spawn(stir)
    with ThreadPoolExecutor(6) as threads:
        for future in [threads.submit(work, seed) for seed in range(6)]:
            future.result(60)
    end.set()
    stirring.join(10)
    assert all(record.users == 0 for record in pool.records())


def joint(name, *parts, **more):
    return ModelSettings(name, "ensemble:x", options={"of": list(parts), "method": "nms"}, **more)


class TestModelsOfModels:
    def test_parts_are_models_of_the_pool_and_loaded_once(self, made):
        pool = made.pool(joint("both", "a", "b"), "a", "b")
        with pool.use("both") as hosted, pool.use("a") as part:
            assert {label.name for label in hosted.loaded.labels} == {"x:a", "x:b"}
            (found,) = hosted.host.submit(frames(0), Context()).result(10)
            assert {detection.label for detection in found} == {"x:a", "x:b"}
            assert part.host.submit(frames(0), Context()).result(10)
        assert sorted(made.load.loads) == [("x:a", "cpu"), ("x:b", "cpu")]
        assert pool.record("a").users == 1, "the ensemble"

    def test_parts_stay_as_long_as_what_they_are_part_of(self, made):
        both = joint("both", "a", "b", idle_minutes=10)
        pool = made.pool(both, "a", "b", idle_minutes=1)
        use_once(pool, "both")
        made.now += 120
        pool.sweep()
        assert [record.status for record in pool.records()] == ["ready"] * 3
        made.now += 600
        pool.sweep()
        assert pool.record("both").status == "unloaded"
        made.now += 120
        pool.sweep()
        assert made.unloaded == ["both", "a", "b"]
        assert use_once(pool, "both")

    def test_many_threads_come_by_different_ways(self, made):
        pool = made.pool(joint("both", "a", "b"), joint("more", "both", "c"), *"abc")
        with ThreadPoolExecutor(10) as threads:
            names = ["both", "a", "more", "b", "c"] * 4
            found = [threads.submit(use_once, pool, name) for name in names]
            assert all(future.result(20) for future in found)
        assert len(made.load.loads) == 3

    def test_its_memory_is_its_own(self, made):
        made.load.memory |= {"x:a": 700 * MIB, "x:b": 800 * MIB}
        pool = made.pool(joint("both", "a", "b"), "a", "b")
        use_once(pool, "both")
        assert pool.record("a").memory == 700 * MIB
        assert pool.record("both").memory < 300 * MIB

    def test_a_part_of_itself_is_told(self, made):
        pool = made.pool(joint("one", "other", "a"), joint("other", "one", "a"), "a")
        with pytest.raises(ConfigError, match="'one': it is a part of itself"):
            use_once(pool, "one")
        assert [record.users for record in pool.records()] == [0, 0, 0]
        assert use_once(pool, "a")

    def test_a_part_whose_turn_has_not_come_is_read_with_the_whole(self, made):
        pool, gate = made.pool(joint("both", "b", "a"), "a", "b"), threading.Event()
        made.load.held["x:b"] = gate
        with ThreadPoolExecutor(2) as threads:
            whole = threads.submit(use_once, pool, "both")
            assert made.load.entered.wait(5)
            part = threads.submit(use_once, pool, "a")
            until(lambda: pool.record("a").users == 1)
            gate.set()
            assert part.result(10)
            assert whole.result(10)
        assert made.load.loads == [("x:b", "cpu"), ("x:a", "cpu")]

    def test_a_broken_part_is_told_and_nothing_stays_in_use(self, made):
        pool = made.pool(joint("both", "a", "b"), "a", "b")
        made.load.fail["x:b"] = ModelLoadFailed("b: no such file")
        with pytest.raises(ModelLoadFailed, match="no such file"):
            use_once(pool, "both")
        assert [record.users for record in pool.records()] == [0, 0, 0]
        assert pool.record("both").status == "failed"

    def test_a_part_with_other_settings_makes_it_another_model(self, made):
        both = joint("both", "a", "b")
        pool = made.pool(both, "a", "b")
        use_once(pool, "both")
        pool.replace([both, ModelSettings("a", "x:new"), made.settings("b")], EngineSettings("cpu"))
        assert [record.status for record in pool.records()] == ["unloaded", "unloaded", "ready"]
        with pool.use("both") as hosted:
            assert {label.name for label in hosted.loaded.labels} == {"x:new", "x:b"}

    def test_looked_at_only_it_leaves_nothing_behind(self, made):
        lazy = [ModelSettings(name, f"x:{name}", load="use") for name in "ab"]
        pool = made.pool(joint("both", "a", "b", load="use"), *lazy)
        assert pool.preload()
        assert [record.status for record in pool.records()] == ["unloaded"] * 3
        assert pool.describe("both").kind == "detector"

    def test_the_end_of_the_pool_ends_parts_and_whole(self, made):
        pool = made.pool(joint("both", "a", "b"), "a", "b")
        with pool.use("both"):
            pool.close(5)
        assert all(model.closed == 1 for model in made.load.models)

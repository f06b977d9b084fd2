import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from agent.contract import Frame, Points, Polygon, Rectangle
from agent.errors import BadPrediction, BadRequest, ConfigError, ModelError
from agent.host import Host
from agent.models import LoadedModel, ModelReference
from agent.pool import HostedModel
from agent.service_config import ModelSettings
from agent.tracking import LIFETIME, TrackStates, begin_tracking, follow


def frame(number=0, size=(8, 6)):
    return Frame(number, f"{number}.jpg", np.zeros((size[1], size[0], 3), np.uint8))


@pytest.fixture
def now():
    return [1_000_000.0]


@pytest.fixture
def states(tmp_path, now):
    states = TrackStates(tmp_path / "deep" / "tracks.sqlite3", clock=lambda: now[0], limit=1000)
    yield states
    states.close()


class TestStates:
    def test_are_found_under_their_names(self, states):
        names = states.add("here", [b"one", b"two", b""])
        assert len(set(names)) == 3
        assert states.get("here", names[::-1]) == [b"", b"two", b"one"]
        assert states.get("here", []) == []
        assert states.add("here", []) == []
        states.put("here", {names[0]: b"next"})
        assert states.get("here", names[:2]) == [b"next", b"two"]

    def test_names_cannot_be_guessed(self, states):
        names = states.add("here", [b"x"] * 50)
        assert all(len(name) >= 24 for name in names)
        for guess in ("", "1", names[0][:-1], names[0].swapcase(), names[0] + " "):
            with pytest.raises(BadRequest, match="unknown or has expired"):
                states.get("here", [guess])

    def test_are_good_for_their_scope_only(self, states):
        (name,) = states.add("model 1, task 4", [b"x"])
        with pytest.raises(BadRequest, match="another task, picture size or model"):
            states.get("model 1, task 5", [name])

    def test_one_that_is_missing_fails_the_call(self, states):
        (name,) = states.add("here", [b"x"])
        with pytest.raises(BadRequest):
            states.get("here", [name, "other"])

    def test_expire_without_use(self, states, now):
        old, used = states.add("here", [b"old", b"used"])
        now[0] += LIFETIME - 1
        assert states.get("here", [old, used]) == [b"old", b"used"]
        states.put("here", {used: b"used"})
        now[0] += 2
        with pytest.raises(BadRequest, match="expired"):
            states.get("here", [old])
        assert states.get("here", [used]) == [b"used"]
        assert states.sweep() == 1
        assert states.sweep() == 0
        now[0] += LIFETIME
        assert states.sweep() == 1

    def test_the_oldest_go_where_there_is_too_much(self, states, now):
        names = []
        for _ in range(6):
            now[0] += 1
            names += states.add("here", [bytes(300)])
        assert states.sweep() == 3
        with pytest.raises(BadRequest):
            states.get("here", [names[2]])
        assert len(states.get("here", names[3:])) == 3

    def test_outlive_the_process(self, tmp_path, states, now):
        (name,) = states.add("here", [bytes(range(256))])
        states.close()
        again = TrackStates(tmp_path / "deep" / "tracks.sqlite3", clock=lambda: now[0])
        assert again.get("here", [name]) == [bytes(range(256))]
        again.close()

    def test_other_processes_see_them_too(self, tmp_path, states, now):
        other = TrackStates(tmp_path / "deep" / "tracks.sqlite3", clock=lambda: now[0])
        (name,) = states.add("here", [b"x"])
        assert other.get("here", [name]) == [b"x"]
        other.put("here", {name: b"y"})
        assert states.get("here", [name]) == [b"y"]
        other.close()

    def test_all_or_nothing(self, states):
        (name,) = states.add("here", [b"x"])
        with pytest.raises((sqlite3.Error, TypeError)):
            states.put("here", {name: b"y", "other": object()})
        assert states.get("here", [name]) == [b"x"]
        states.put("here", {name: b"z"})

    def test_a_file_that_cannot_be_used_is_one_line(self, tmp_path):
        (tmp_path / "broken.sqlite3").write_bytes(b"this is no database" * 100)
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "broken.sqlite3", tmp_path / "file" / "tracks.sqlite3"):
            with pytest.raises(ConfigError, match=str(path)):
                TrackStates(path)

    def test_many_threads(self, states):
        def work(seed):
            for number in range(25):
                names = states.add(f"{seed}", [b"%d" % number] * 3)
                states.put(f"{seed}", dict.fromkeys(names, b"next"))
                assert states.get(f"{seed}", names) == [b"next"] * 3
                if number % 10 == 0:
                    states.sweep()

        states._limit = 2**20
        with ThreadPoolExecutor(6) as threads:
            for future in [threads.submit(work, seed) for seed in range(6)]:
                future.result(60)


class Tracker:
    """Moves every shape by one pixel a frame; a state is where it was. Loses what leaves the frame."""

    shape_types = ("rectangle", "points")

    def __init__(self):
        self.begun, self.followed = [], []
        self.break_begin = self.break_follow = None

    def begin(self, frame, shapes):
        self.begun.append(frame.index)
        return self.break_begin(shapes) if self.break_begin else [b"%d" % shape.left for shape in shapes]

    def follow(self, frame, states):
        self.followed.append((frame.index, list(states)))
        if self.break_follow:
            return self.break_follow(states)
        places = [int(state) + 1 for state in states]
        return [(b"%d" % left, Rectangle(left, 0, left + 2, 2) if left + 2 <= frame.width else None) for left in places]


@pytest.fixture
def model():
    return Tracker()


@pytest.fixture
def hosted(model):
    opened = []

    def put(**more):
        settings = ModelSettings("nano", "x:y", **more)
        loaded = LoadedModel(ModelReference("x", settings.model[2:]), model, "tracker", version="v1")
        opened.append(Host(model))
        return HostedModel(settings, loaded, opened[-1], len(opened))

    yield put
    for host in opened:
        host.close(5)


BOX = Rectangle(3, 0, 5, 2)


class TestFollowing:
    def test_a_shape_is_followed_until_it_is_lost_and_names_stay(self, hosted, states):
        put = hosted()
        (name,) = begin_tracking(put, states, frame(), [BOX], "task 4").result(5)
        places = []
        for number in range(1, 5):
            found = follow(put, states, frame(number), [name], "task 4").result(5)
            assert found.names == [name]
            places += [shape.left if shape else None for shape in found.shapes]
        assert places == [4, 5, 6, None]

    def test_any_shapes_go_together(self, hosted, states):
        put = hosted()
        one, two = begin_tracking(put, states, frame(), [BOX, Rectangle(0, 0, 2, 2)], "task 4").result(5)
        (three,) = begin_tracking(put, states, frame(), [Rectangle(1, 0, 3, 2)], "task 4").result(5)
        found = follow(put, states, frame(1), [three, one], "task 4").result(5)
        assert [shape.left for shape in found.shapes] == [2, 4]
        found = follow(put, states, frame(1), [two], "task 4").result(5)
        assert [shape.left for shape in found.shapes] == [1]

    def test_nothing_is_nothing(self, hosted, states):
        put = hosted()
        assert begin_tracking(put, states, frame(), [], "task 4").result(5) == []
        assert follow(put, states, frame(), [], "task 4").result(5).shapes == []

    def test_a_restart_is_not_noticed(self, hosted, states):
        (name,) = begin_tracking(hosted(), states, frame(), [BOX], "task 4").result(5)
        assert follow(hosted(), states, frame(1), [name], "task 4").result(5).shapes[0].left == 4

    @pytest.mark.parametrize(
        ("settings", "about", "size"),
        [({}, "task 5", (8, 6)), ({}, "task 4", (9, 6)), ({"options": {"n": 1}}, "task 4", (8, 6))],
        ids=["another task", "another size", "other options"],
    )
    def test_a_state_is_not_taken_elsewhere(self, hosted, states, settings, about, size):
        (name,) = begin_tracking(hosted(), states, frame(), [BOX], "task 4").result(5)
        with pytest.raises(BadRequest, match="another task, picture size or model"):
            follow(hosted(**settings), states, frame(1, size), [name], about)

    def test_a_name_that_is_unknown_is_refused_before_the_model_runs(self, hosted, states, model):
        with pytest.raises(BadRequest, match="begin the track again"):
            follow(hosted(), states, frame(), ["nothing"], "task 4")
        assert model.followed == []

    @pytest.mark.parametrize("shape", [Polygon((0, 0, 1, 1, 2, 0)), Points((0, 0))])
    def test_a_shape_that_it_cannot_follow_is_refused_at_once(self, hosted, states, model, shape):
        model.shape_types = ("rectangle",)
        with pytest.raises(BadRequest, match=f"nano: it cannot follow a {shape.type}, allowed: rectangle"):
            begin_tracking(hosted(), states, frame(), [BOX, shape], "task 4")
        assert model.begun == []

    @pytest.mark.parametrize(
        "answer",
        [lambda shapes: [], lambda shapes: [b"x"] * 5, lambda shapes: 3, lambda shapes: ["text"], lambda shapes: 1 / 0],
    )
    def test_what_is_outside_the_contract_of_begin_is_a_bad_prediction(self, hosted, states, model, answer):
        model.break_begin = answer
        with pytest.raises(BadPrediction, match="nano"):
            begin_tracking(hosted(), states, frame(), [BOX], "task 4").result(5)

    @pytest.mark.parametrize(
        "answer",
        [
            lambda known: [], lambda known: 3, lambda known: [b"x"], lambda known: [("text", None)],
            lambda known: [(b"x", "shape")], lambda known: [(b"x", BOX, 3)], lambda known: 1 / 0,
            lambda known: int("not a state"),
        ],
    )  # fmt: skip
    def test_what_is_outside_the_contract_of_follow_is_a_bad_prediction_and_the_state_stays(
        self, hosted, states, model, answer
    ):
        put = hosted()
        (name,) = begin_tracking(put, states, frame(), [BOX], "task 4").result(5)
        model.break_follow = answer
        with pytest.raises(BadPrediction, match="nano"):
            follow(put, states, frame(1), [name], "task 4").result(5)
        model.break_follow = None
        assert follow(put, states, frame(1), [name], "task 4").result(5).shapes[0].left == 4

    def test_an_error_of_the_models_own_passes(self, hosted, states, model):
        def refuse(shapes):
            raise ModelError("out of memory")

        model.break_begin = refuse
        with pytest.raises(ModelError, match="out of memory"):
            begin_tracking(hosted(), states, frame(), [BOX], "task 4").result(5)

    def test_goes_before_batches_that_wait(self, hosted, states):
        put, gate, order = hosted(), threading.Event(), []
        first = put.host.call(lambda: gate.wait(10), 1)
        batch = put.host.call(lambda: order.append("batch"), 1)
        track = begin_tracking(put, states, frame(), [BOX], "task 4")
        track.add_done_callback(lambda _: order.append("track"))
        gate.set()
        for future in (first, batch, track):
            future.result(5)
        assert order == ["track", "batch"]

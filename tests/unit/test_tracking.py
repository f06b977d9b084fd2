import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from agent.contract import (
    Cuboid,
    Ellipse,
    Frame,
    Keypoint,
    Mask,
    Points,
    Polygon,
    Polyline,
    Rectangle,
    Skeleton,
)
from agent.errors import BadPrediction, BadRequest, ConfigError, ModelError
from agent.models.host import Host
from agent.models.loading import LoadedModel, ModelReference
from agent.pool.pool import HostedModel
from agent.settings.tables import ModelSettings
from agent.track_states import Kept
from agent.tracking import LIFETIME, TrackStates, begin_tracking
from agent.tracking import follow as follow_on


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


def kept(states, scope, names):
    return [one.state for one in states.get(scope, names)]


def put(states, scope, name, state, seen="a picture"):
    (before,) = states.get(scope, [name])
    return states.step(scope, seen, {name: (before, state, None)})


class TestStates:
    def test_are_found_under_their_names(self, states):
        names = states.add("here", [b"one", b"two", b""])
        assert len(set(names)) == 3
        assert kept(states, "here", names[::-1]) == [b"", b"two", b"one"]
        assert states.get("here", []) == []
        assert states.add("here", []) == []
        put(states, "here", names[0], b"next")
        assert kept(states, "here", names[:2]) == [b"next", b"two"]

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
        assert kept(states, "here", [old, used]) == [b"old", b"used"]
        put(states, "here", used, b"used")
        now[0] += 2
        with pytest.raises(BadRequest, match="expired"):
            states.get("here", [old])
        assert kept(states, "here", [used]) == [b"used"]
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
        assert kept(again, "here", [name]) == [bytes(range(256))]
        again.close()

    def test_other_processes_see_them_too(self, tmp_path, states, now):
        other = TrackStates(tmp_path / "deep" / "tracks.sqlite3", clock=lambda: now[0])
        (name,) = states.add("here", [b"x"])
        assert kept(other, "here", [name]) == [b"x"]
        put(other, "here", name, b"y")
        assert kept(states, "here", [name]) == [b"y"]
        other.close()

    def test_of_two_who_take_the_same_step_the_first_counts(self, tmp_path, states, now):
        other = TrackStates(tmp_path / "deep" / "tracks.sqlite3", clock=lambda: now[0])
        (name,) = states.add("here", [b"x"])
        (before,) = states.get("here", [name])
        first, late = Rectangle(1, 2, 3, 4), Rectangle(5, 6, 7, 8)
        assert other.step("here", "5", {name: (before, b"y", first)})[name].answer == first
        assert states.step("here", "5", {name: (before, b"late", late)})[name].answer == first
        assert (kept(states, "here", [name]), states.get("here", [name])[0].answer) == ([b"y"], first)
        # Somebody who follows it on another picture meanwhile has asked for something else.
        assert states.step("here", "6", {name: (before, b"z", late)})[name].answer == late
        other.close()

    def test_of_another_folder_are_told_from_those_that_have_expired(self, tmp_path, states):
        elsewhere = TrackStates(tmp_path / "elsewhere" / "tracks.sqlite3")
        (name,) = elsewhere.add("here", [b"x"])
        with pytest.raises(BadRequest, match="begun at another sidecar, which does not share its state folder"):
            states.get("here", [name])
        assert kept(elsewhere, "here", [name]) == [b"x"]
        elsewhere.close()

    def test_a_file_of_old_is_taken_over(self, tmp_path, now):
        file = tmp_path / "tracks.sqlite3"
        with contextlib.closing(sqlite3.connect(file)) as db:
            db.execute(
                "CREATE TABLE states (name TEXT PRIMARY KEY, scope TEXT NOT NULL, used REAL NOT NULL,"
                " size INTEGER NOT NULL, state BLOB NOT NULL)"
            )
            db.execute("INSERT INTO states VALUES ('old', 'here', ?, 1, ?)", (now[0], b"x"))
            db.commit()
        states = TrackStates(file, clock=lambda: now[0])
        assert kept(states, "here", ["old"]) == [b"x"]
        put(states, "here", "old", b"y")
        assert kept(states, "here", ["old"]) == [b"y"]
        states.close()

    @pytest.mark.parametrize(
        "shape",
        [
            None,
            Rectangle(0.1, 2, 1 / 3, 4, 12.5),
            Ellipse(1, 2, 3, 4, 5),
            Polygon((0, 0, 1.7, 1, 2, 0)),
            Polyline((0, 0, 1, 1)),
            Points((float("inf"), 3)),
            Cuboid(tuple(map(float, range(16)))),
            Skeleton((Keypoint("head", 1, 2, occluded=True), Keypoint("foot", 3, 4, True, False, {"size": "9"}))),
        ],
        ids=lambda shape: getattr(shape, "type", "none"),
    )
    def test_an_answer_is_kept_to_the_last_digit(self, states, shape):
        (name,) = states.add("here", [b"x"])
        (before,) = states.get("here", [name])
        states.step("here", "5", {name: (before, b"y", shape)})
        assert states.get("here", [name]) == [Kept(b"y", 1, "5", shape)]

    def test_a_mask_is_kept_to_the_last_pixel(self, states):
        bitmap = np.random.default_rng(3).random((7, 5)) > 0.5
        (name,) = states.add("here", [b"x"])
        (before,) = states.get("here", [name])
        states.step("here", "5", {name: (before, b"y", Mask(bitmap, 3, 4))})
        found = states.get("here", [name])[0].answer
        assert (found.left, found.top, found.bitmap.tolist()) == (3, 4, bitmap.tolist())

    def test_all_or_nothing(self, states):
        (name,) = states.add("here", [b"x"])
        (before,) = states.get("here", [name])
        with pytest.raises((sqlite3.Error, TypeError)):
            states.step("here", "5", {name: (before, b"y", None), "other": (before, object(), None)})
        assert kept(states, "here", [name]) == [b"x"]
        put(states, "here", name, b"z")

    def test_a_full_disk_is_told_and_leaves_the_file_usable(self, states):
        (name,) = states.add("here", [b"x"])
        (pages,) = states._db.execute("PRAGMA page_count").fetchone()
        states._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(ConfigError, match=r"tracking states: cannot use .* full"):
            states.add("here", [bytes(10**6)])
        assert kept(states, "here", [name]) == [b"x"]
        states._db.execute(f"PRAGMA max_page_count={pages * 1000}")
        assert states.add("here", [bytes(10**6)])

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
                for name in names:
                    put(states, f"{seed}", name, b"next")
                assert kept(states, f"{seed}", names) == [b"next"] * 3
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


def follow(hosted, states, frame, names, about):
    return follow_on(hosted, states, frame, names, about, f"frame {frame.index}")


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

    def test_a_repetition_gets_the_same_answer_and_no_state_moves_on(self, hosted, states, model):
        put = hosted()
        names = begin_tracking(put, states, frame(), [BOX, Rectangle(0, 0, 2, 2)], "task 4").result(5)
        first = follow(put, states, frame(1), names, "task 4").result(5)
        assert follow(put, states, frame(1), names, "task 4").result(5) == first
        assert follow(put, states, frame(1), names[::-1], "task 4").result(5).shapes == first.shapes[::-1]
        assert len(model.followed) == 1
        # Of several, those that are new on this picture are followed.
        (third,) = begin_tracking(put, states, frame(), [Rectangle(5, 0, 7, 2)], "task 4").result(5)
        found = follow(put, states, frame(1), [names[0], third], "task 4").result(5)
        assert [shape.left for shape in found.shapes] == [4, 6]
        assert model.followed[1:] == [(1, [b"5"])]
        assert [s.left for s in follow(put, states, frame(2), names, "task 4").result(5).shapes] == [5, 2]

    def test_a_repetition_that_comes_while_the_first_is_at_work_waits_for_its_answer(self, hosted, states, model):
        put, gate = hosted(), threading.Event()
        names = begin_tracking(put, states, frame(), [BOX], "task 4").result(5)
        put.host.call(lambda: gate.wait(10))
        both = [follow(put, states, frame(1), names, "task 4") for _ in range(2)]
        gate.set()
        assert [[shape.left for shape in one.result(5).shapes] for one in both] == [[4], [4]]
        assert len(model.followed) == 1

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

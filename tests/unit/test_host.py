import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError

import numpy as np
import pytest

from agent.contract import Context, Detection, Frame, Rectangle
from agent.errors import BadPrediction
from agent.models import host as module
from agent.models.host import Host
from agent.models.line import BATCH, INTERACTIVE

FOUND = Detection("thing", Rectangle(0, 0, 2, 2), 0.5)


def frames(*numbers):
    return [Frame(number, f"{number}.jpg", np.zeros((4, 4, 3), np.uint8)) for number in numbers]


class Recorder:
    """Remembers the batches that it saw; fails on the frames that it is told to."""

    labels = ()

    def __init__(self, bad=()):
        self.batches = []
        self.bad = set(bad)
        self.gate = threading.Event()
        self.gate.set()

    def detect(self, batch, context):
        self.gate.wait(5)
        self.batches.append([frame.index for frame in batch])
        if self.bad & {frame.index for frame in batch}:
            raise RuntimeError("cannot do this one")
        return [[FOUND] for _ in batch]


def test_streams_batches_in_order():
    model = Recorder()
    with Host(model) as host:
        found = list(host.stream([frames(0, 1), frames(2)], Context()))
    assert [[frame.index for frame in batch] for batch, _ in found] == [[0, 1], [2]]
    assert all(prediction == [FOUND] for _, predictions in found for prediction in predictions)


def test_one_bad_frame_does_not_cost_the_batch():
    with Host(Recorder(bad=[1])) as host:
        ((_, found),) = host.stream([frames(0, 1, 2)], Context())
    assert found[0] == found[2] == [FOUND]
    assert isinstance(found[1], BadPrediction)
    assert "RuntimeError: cannot do this one" in str(found[1])


def test_a_wrong_number_of_answers_is_a_bad_prediction():
    class Short(Recorder):
        def detect(self, batch, context):
            return []

    with Host(Short()) as host:
        ((_, found),) = host.stream([frames(0)], Context())
    assert "0 lists of detections for 1 frames" in str(found[0])


def test_interactive_work_passes_waiting_batches():
    model = Recorder()
    model.gate.clear()
    with Host(model) as host:
        answers = [host.submit(frames(n), Context(), BATCH) for n in (0, 1, 2)]
        answers.append(host.submit(frames(9), Context(), INTERACTIVE))
        model.gate.set()
        for answer in answers:
            answer.result(5)
    assert model.batches.index([9]) <= 1, "only the batch in hand may go first"


def test_frames_are_fetched_while_the_model_works():
    model = Recorder()
    model.gate.clear()
    pulled = []

    def source():
        for n in range(3):
            pulled.append(n)
            if n == 1:
                model.gate.set()  # the second batch is asked for before the first one is answered
            yield frames(n)

    with Host(model) as host:
        assert len(list(host.stream(source(), Context()))) == 3
    assert pulled == [0, 1, 2]


def test_a_batch_that_nobody_wants_any_more_is_not_begun():
    model, given_up = Recorder(), threading.Event()
    model.gate.clear()
    with Host(model) as host:
        first = host.submit(frames(0), Context(), wanted=lambda: not given_up.is_set())
        while not first.running():
            time.sleep(0.001)
        second = host.submit(frames(1), Context(), wanted=lambda: not given_up.is_set())
        third = host.submit(frames(2), Context(), INTERACTIVE)
        given_up.set()
        model.gate.set()
        assert third.result(5) == [[FOUND]]
        with pytest.raises(CancelledError):
            second.result(5)
        assert first.result(5) == [[FOUND]], "it was under way"
        with pytest.raises(CancelledError):
            list(host.stream([frames(3)], Context(), wanted=lambda: False))
    assert model.batches == [[0], [2]]


def test_an_error_of_the_source_reaches_the_caller_and_the_host_lives():
    def source():
        yield frames(0)
        raise OSError("no more frames")

    with Host(Recorder()) as host:
        with pytest.raises(OSError, match="no more"):
            list(host.stream(source(), Context()))
        assert host.submit(frames(1), Context()).result(5) == [[FOUND]]


def test_a_closed_host_keeps_nobody_waiting():
    with Host(Recorder()) as host:
        pass
    assert host.submit(frames(0), Context()).cancelled()


def test_an_end_at_once_does_not_wait_for_the_model():
    model = Recorder()
    model.gate.clear()
    host = Host(model)
    answer = host.submit(frames(0), Context())
    while not answer.running():
        pass
    host.close(patience=0.05)
    assert not answer.done()
    model.gate.set()
    answer.result(5)


def test_a_question_that_breaks_is_the_callers_matter_and_the_host_lives_on():
    with Host(Recorder()) as host:
        broken = host.submit(frames(0), Context(), wanted=lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            broken.result(5)
        assert host.submit(frames(1), Context()).result(5) == [[FOUND]]


def test_who_does_not_want_a_batch_any_more_does_not_wait_for_ever(monkeypatch, caplog):
    monkeypatch.setattr(module, "BATCH_PATIENCE", 0.1)
    model, unwanted = Recorder(), threading.Event()
    model.gate.clear()
    with Host(model) as host:
        stream = host.stream([frames(0)], Context(), wanted=lambda: not unwanted.is_set())
        threading.Timer(0.1, unwanted.set).start()
        with pytest.raises(CancelledError):
            next(stream)
        model.gate.set()
    assert "does not come back from its batch" in caplog.text


def test_a_batch_that_ends_soon_is_given_although_nobody_wants_the_next_one(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    model, unwanted = Recorder(), threading.Event()
    model.gate.clear()
    with Host(model) as host:
        stream = host.stream([frames(0)], Context(), wanted=lambda: not unwanted.is_set())
        threading.Timer(0.1, unwanted.set).start()
        threading.Timer(0.3, model.gate.set).start()
        assert next(stream)[1] == [[FOUND]]


def test_what_it_has_seen_last_does_not_stay_in_memory():
    class Picture(np.ndarray):
        pass

    picture = np.zeros((8, 8, 3), np.uint8).view(Picture)
    seen = weakref.ref(picture)
    with Host(Recorder()) as host:
        assert host.submit([Frame(0, "0.png", picture)], Context()).result(10)
        del picture
        end = time.monotonic() + 10
        while seen() is not None:
            gc.collect()
            assert time.monotonic() < end


def test_waiting_calls_of_the_same_kind_are_gathered_into_one_batch():
    model = Recorder()
    model.gate.clear()
    heard = []
    with Host(model, batch_size=4, on_batch=lambda count, seconds: heard.append(count)) as host:
        first = host.submit(frames(0), Context(), INTERACTIVE)
        while host.depth:
            pass  # until the model is at it
        singles = [host.submit(frames(number), Context(), INTERACTIVE) for number in (1, 2, 3, 4, 5)]
        other = host.submit(frames(9), Context(threshold=0.5), INTERACTIVE)
        assert host.depth == 6
        model.gate.set()
        answers = [future.result(5) for future in (first, *singles, other)]
    assert answers == [[[FOUND]]] * 7
    assert model.batches == [[0], [1, 2, 3, 4], [5], [9]]
    assert heard == [1, 4, 1, 1]


def test_gathering_never_makes_a_batch_larger_than_the_model_likes():
    model = Recorder()
    model.gate.clear()
    with Host(model, batch_size=4) as host:
        held = host.submit(frames(0), Context())
        while host.depth:
            pass
        futures = [host.submit(frames(*numbers), Context()) for numbers in ((1, 2, 3), (4, 5), (6,), (7, 8, 9, 10, 11))]
        model.gate.set()
        counts = [len(future.result(5)) for future in (held, *futures)]
    assert counts == [1, 3, 2, 1, 5]
    assert model.batches == [[0], [1, 2, 3, 6], [4, 5], [7, 8, 9, 10, 11]]


def test_one_bad_frame_of_a_gathered_batch_costs_its_caller_only():
    model = Recorder(bad=[2])
    model.gate.clear()
    with Host(model, batch_size=4) as host:
        host.submit(frames(0), Context())
        while host.depth:
            pass
        futures = [host.submit(frames(number), Context()) for number in (1, 2, 3)]
        model.gate.set()
        answers = [future.result(5)[0] for future in futures]
    assert answers[0] == answers[2] == [FOUND]
    assert isinstance(answers[1], BadPrediction)


def test_a_call_that_was_cancelled_while_it_waited_never_reaches_the_model():
    model = Recorder()
    model.gate.clear()
    with Host(model, batch_size=4) as host:
        host.submit(frames(0), Context())
        while host.depth:
            pass
        gone, kept = host.submit(frames(1), Context()), host.submit(frames(2), Context())
        assert gone.cancel()
        model.gate.set()
        assert kept.result(5) == [[FOUND]]
    assert model.batches == [[0], [2]]


def test_other_work_runs_in_the_models_thread_before_batches_that_wait():
    model, order = Recorder(), []
    model.gate.clear()
    with Host(model) as host:
        host.submit(frames(0), Context())
        while host.depth:
            pass
        batch = host.submit(frames(1), Context())
        click = host.call(lambda: order.append(list(model.batches)) or threading.current_thread().name)
        model.gate.set()
        assert click.result(5) == "host-model"
        batch.result(5)
    assert order == [[[0]]]  # after the batch at hand, before the one that waited


def test_what_other_work_raises_reaches_the_caller_and_the_host_lives_on():
    def broken():
        raise KeyError("no such embedding")

    with Host(Recorder()) as host:
        with pytest.raises(KeyError, match="no such embedding"):
            host.call(broken).result(5)
        assert host.submit(frames(1), Context()).result(5) == [[FOUND]]

import threading

import numpy as np
import pytest

from agent.contract import Context, Detection, Frame, Rectangle
from agent.errors import BadPrediction
from agent.host import BATCH, INTERACTIVE, Host

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

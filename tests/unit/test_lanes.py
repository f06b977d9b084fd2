import logging
import threading
import time

import pytest

from agent.lanes import Lane, Lanes
from agent.log_fields import current_fields, log_fields


@pytest.fixture
def lane():
    lane = Lane("batch", 2)
    yield lane
    lane.close()
    assert lane.join(5)


def test_no_more_work_than_places(lane):
    gate, begun = threading.Event(), threading.Semaphore(0)

    def work():
        begun.release()
        gate.wait(10)

    for _ in range(2):
        lane.claim().run(work)
    assert begun.acquire(timeout=5)
    assert begun.acquire(timeout=5)
    assert lane.taken == 2
    assert lane.claim() is None
    assert lane.claim(timeout=0.01) is None
    gate.set()
    with lane.claim(timeout=5) as claim:
        assert claim is not None, "places come back when work ends"


def test_who_waits_gets_a_place_as_soon_as_one_is_free(lane):
    one, _other = lane.claim(), lane.claim()
    got = []
    waiting = threading.Thread(target=lambda: got.append(lane.claim(timeout=10)), daemon=True)
    waiting.start()
    one.release()
    waiting.join(5)
    assert got[0] is not None
    got[0].release()
    _other.release()


def test_a_place_that_was_not_used_is_given_back(lane):
    for _ in range(5):
        with lane.claim(), lane.claim():
            assert lane.taken == 2
    assert lane.taken == 0


def test_a_place_is_given_back_once(lane):
    claim = lane.claim()
    claim.release()
    claim.release()
    assert lane.taken == 0
    with pytest.raises(RuntimeError, match="given back"):
        claim.run(lambda: None)
    done = threading.Event()
    with lane.claim() as claim:
        claim.run(done.set)
        with pytest.raises(RuntimeError, match="given back"):
            claim.run(lambda: None)
    assert done.wait(5)
    assert lane.join(5)
    assert lane.taken == 0


def test_an_error_is_logged_and_frees_the_place(lane, caplog):
    def work():
        raise OSError("what went wrong")

    lane.claim().run(work)
    assert lane.join(5)
    assert lane.taken == 0
    assert "what went wrong" in caplog.text
    assert "batch" in caplog.text


def test_a_thread_that_cannot_begin_frees_the_place(lane, monkeypatch):
    def full(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    with pytest.raises(RuntimeError, match="can't start"):
        lane.claim().run(lambda: None)
    monkeypatch.undo()
    assert lane.taken == 0
    assert lane.join(0.0)


def test_a_closed_lane_lets_nobody_in_and_keeps_nobody_waiting(lane):
    claims = [lane.claim(), lane.claim()]
    got = []
    waiting = threading.Thread(target=lambda: got.append(lane.claim(timeout=None)), daemon=True)
    waiting.start()
    lane.close()
    waiting.join(5)
    assert got == [None]
    for claim in claims:
        claim.release()
    assert lane.claim() is None, "although there is room"


def test_what_was_claimed_before_the_end_may_still_run(lane):
    """The door has asked for work with this place; what it was given has to be done by somebody."""
    claim = lane.claim()
    lane.close()
    assert not lane.join(0.01), "a claim may become work at any moment"
    done = threading.Event()
    claim.run(done.set)
    assert lane.join(5)
    assert done.is_set()


def test_join_waits_no_longer_than_told():
    lanes, gate = Lanes(interactive=1, batch=1), threading.Event()
    for lane in (lanes.interactive, lanes.batch):
        lane.claim().run(lambda: gate.wait(20))
    lanes.close()
    began = time.monotonic()
    assert not lanes.join(0.1)
    assert time.monotonic() - began < 2
    gate.set()
    assert lanes.join(5)


def test_log_lines_of_the_work_carry_the_fields_of_who_claimed(lane):
    seen = []
    with log_fields(door="queue"):
        lane.claim().run(lambda: seen.append(dict(current_fields())))
    assert lane.join(5)
    assert seen == [{"door": "queue"}]
    assert current_fields() == {}


def test_hundreds_of_threads_never_take_more_than_there_is(caplog):
    caplog.set_level(logging.ERROR)
    lane, lock, at_once, most, ended = Lane("x", 3), threading.Lock(), [0], [0], []

    def work():
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        with lock:
            at_once[0] -= 1
            ended.append(1)

    def ask():
        for number in range(50):
            with lane.claim(timeout=30) as claim:
                if number % 3:
                    claim.run(work)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert lane.join(5)
    assert (len(ended), lane.taken) == (8 * 33, 0)
    assert most[0] <= 3
    assert not caplog.records


def test_who_is_hungry_hears_of_the_next_place(lane):
    heard = threading.Event()
    one, other = lane.claim(), lane.claim()
    lane.when_free(heard.set)
    assert not heard.is_set()
    one.release()
    assert heard.is_set()
    heard.clear()
    other.release()
    assert not heard.is_set(), "once is enough"
    lane.when_free(heard.set)
    assert heard.is_set(), "there is one already"


def test_who_asks_again_and_again_is_told_once(lane):
    """A rule looks every so many seconds, and a lane may be full for hours."""
    told, claims = [], [lane.claim(), lane.claim()]

    class Hungry:
        def tell(self):
            told.append(self)

    one, other = Hungry(), Hungry()
    for _ in range(50):
        lane.when_free(one.tell)
        lane.when_free(other.tell)
    for claim in claims:
        claim.release()
    assert told == [one, other]


def test_who_fails_when_told_of_a_place_does_not_cost_others_theirs(lane, caplog):
    claims, heard = [lane.claim(), lane.claim()], threading.Event()
    lane.when_free(lambda: 1 // 0)
    lane.when_free(heard.set)
    for claim in claims:
        claim.release()
    assert heard.is_set()
    assert "could not be told" in caplog.text


def test_a_closed_lane_tells_nobody():
    lane, heard = Lane("batch", 1), threading.Event()
    claim = lane.claim()
    lane.when_free(heard.set)
    lane.close()
    claim.release()
    lane.when_free(heard.set)
    assert not heard.is_set()

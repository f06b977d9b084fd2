"""A request that a server gave to us: signs of life, what they hear, and who is told."""

import itertools
import threading
import time
from concurrent.futures import Future

import pytest

from agent.errors import RequestCancelled, ServerRefused, ServerUnavailable
from agent.lease import HeldLease, LocalLease


class Server:
    """Takes signs of life; answers with what it is told to raise, the last one for ever."""

    def __init__(self, *answers):
        self.answers, self.heard, self.rung = list(answers) or [None], [], threading.Event()

    def beat(self, share):
        self.heard.append((time.monotonic(), share))
        self.rung.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer

    def until(self, count):
        end = time.monotonic() + 10
        while len(self.heard) < count:
            assert time.monotonic() < end
            self.rung.wait(0.02)


def held(server, every=0.01, **more):
    return HeldLease(server.beat, every=every, jitter=lambda: 0.0, **more)


def test_it_beats_while_the_block_runs():
    server = Server()
    with held(server) as lease:
        server.until(3)
        lease.check_in(1, 4)
        count = len(server.heard)
        server.until(count + 2)
        assert server.heard[-1][1] == 0.25
    count = len(server.heard)
    time.sleep(0.05)
    assert len(server.heard) <= count + 1


def test_nothing_is_sent_before_its_time():
    server, told = Server(), []
    with held(server, every=60, progress=lambda done, total: told.append((done, total))) as lease:
        lease.check_in(0, 0)
        lease.check_in(2, 4)
    assert server.heard == []
    assert told == [(0, 0), (2, 4)]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410])
def test_a_refusal_means_that_it_is_lost(status):
    server = Server(None, ServerRefused("no", status=status))
    lease = held(server)
    assert lease.wanted()
    with lease:
        with pytest.raises(RequestCancelled, match="does not want it any more"):
            lease.pause(10)
        assert lease.lost
        assert not lease.wanted()
        with pytest.raises(RequestCancelled):
            lease.check_in(1, 2)
        count = len(server.heard)
        time.sleep(0.05)
        assert len(server.heard) == count == 2


@pytest.mark.parametrize("status", [401, 408, 425, 429])
def test_refusals_that_say_nothing_about_it(status):
    server = Server(ServerRefused("no", status=status), None)
    with held(server) as lease:
        server.until(4)
        lease.check()


def test_a_server_that_is_away_is_left_alone_for_longer_and_longer():
    server = Server(*[ServerUnavailable("away")] * 4, None)
    with held(server, every=0.02) as lease:
        server.until(6)
        lease.check()
    times = [moment for moment, _ in server.heard]
    *gaps, last = [b - a for a, b in itertools.pairwise(times)]
    assert [gap >= 0.01 * 2**number for number, gap in enumerate(gaps)] == [True] * 4
    assert last < gaps[3]


def test_retry_after_is_kept():
    server = Server(ServerUnavailable("busy", retry_after=0.3), None)
    with held(server):
        server.until(2)
    assert server.heard[1][0] - server.heard[0][0] >= 0.3


def test_any_other_error_does_not_end_it(caplog):
    server = Server(RuntimeError("what?"), None)
    with held(server) as lease:
        server.until(3)
        lease.check()
    assert "a sign of life could not be sent" in caplog.text


def test_somebody_here_does_not_want_it_any_more():
    stop = threading.Event()

    def check():
        if stop.is_set():
            raise RequestCancelled("the service ends")

    with held(Server(), every=60, checks=[check]) as lease:
        assert lease.wanted()
        lease.check()
        threading.Timer(0.05, stop.set).start()
        with pytest.raises(RequestCancelled, match="the service ends"):
            lease.pause(30)
        assert not lease.wanted()
        assert not lease.lost


def test_waiting_for_a_model():
    future, lost = Future(), Server(ServerRefused("gone", status=404))
    with held(Server(), every=60) as lease:
        threading.Timer(0.3, future.set_result, [7]).start()
        assert lease.result(future) == 7
        failed = Future()
        failed.set_exception(TimeoutError("the model's own"))
        with pytest.raises(TimeoutError, match="own"):
            lease.result(failed)
        ended = Future()
        ended.cancel()
        with pytest.raises(RequestCancelled, match="the model was ended"):
            lease.result(ended)
    with held(lost) as lease:
        waiting = Future()
        with pytest.raises(RequestCancelled):
            lease.result(waiting)
        assert waiting.cancelled()


class JustThen(Future):
    """An answer that comes between the end of a wait and the look whether it is there."""

    def result(self, timeout=None):
        if not self.done():
            self.set_result(7)
            raise TimeoutError
        return super().result(timeout)


def test_an_answer_that_comes_just_then_is_an_answer():
    with held(Server(), every=60) as lease:
        assert lease.result(JustThen()) == 7


def test_who_is_not_wanted_any_more_does_not_wait_for_a_silent_server():
    silent = threading.Event()
    cancelled = pytest.raises(RequestCancelled, match="does not want it any more")
    with held(Server(ServerRefused("gone", status=404))) as lease, cancelled:
        lease.fetched(lambda: silent.wait(20))
    silent.set()
    with held(Server(), every=60) as lease:
        assert lease.fetched(lambda: 7) == 7
        with pytest.raises(OSError, match="its own"):
            lease.fetched(fail)


def fail():
    raise OSError("its own")


def test_a_person_at_a_terminal():
    stop, told = threading.Event(), []
    lease = LocalLease(stop, lambda done, total: told.append(done))
    lease.check_in(1, 2)
    stop.set()
    with pytest.raises(RequestCancelled, match="interrupted after 2 of 2 frames"):
        lease.check_in(2, 2)
    assert told == [1, 2]

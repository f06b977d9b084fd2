"""The threads that read ahead: order, errors and endings, whatever the server and the reader do."""

import itertools
import threading
import time

import pytest

from agent.cvat import reading_ahead
from agent.cvat.frames import ChunkFrames, fetch_frame
from agent.cvat.work import find_work
from agent.errors import RequestCancelled, ServerRefused, ServerUnavailable
from agent.options import Target
from tests.support.material import make_image_task, make_video_task, number_of


def places(session, task):
    (work,) = find_work(session, Target("task", task))
    return [(job, frame) for job in work.jobs for frame in job.frames]


def numbers(frames):
    return [(frame.index, number_of(frame.image)) for frame in frames]


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith(("download", "decode"))}


@pytest.fixture
def two_jobs(session):
    """The places of a task of two jobs of eight frames, and the path of the second one's data."""
    wanted = places(session, make_image_task(session, count=16, segment_size=8))
    return wanted, rf"/api/jobs/{wanted[-1][0].id}/data$"


@pytest.mark.parametrize("downloads", [1, 2, 5])
@pytest.mark.parametrize("decoders", [1, 2, 5])
@pytest.mark.parametrize("ahead_bytes", [0, 1_000_000, 2**30])
def test_order_does_not_depend_on_threads(session, downloads, decoders, ahead_bytes):
    wanted = places(session, make_image_task(session, count=26, segment_size=12, chunk_size=3))
    with ChunkFrames(session, downloads=downloads, decoders=decoders, ahead_bytes=ahead_bytes) as source:
        assert numbers(source.read(wanted)) == [(n, n) for n in range(26)]
    assert threads() == set()


@pytest.mark.parametrize("make", [lambda s: make_image_task(s, count=10), lambda s: make_video_task(s, frames=10)])
def test_any_order_and_any_number_of_times(session, make):
    job = places(session, make(session))[0][0]
    order = [3, 2, 2, 9, 0, 1, 3, 8, 5, 4, 9]
    with ChunkFrames(session) as source:
        assert numbers(source.read([(job, n) for n in order])) == [(n, n) for n in order]


def test_nothing_wanted_is_nothing_asked(sandbox, session):
    before = len(sandbox.requests)
    assert list(ChunkFrames(session).read([])) == []
    assert len(sandbox.requests) == before


def test_two_readers_share_a_session(session):
    wanted = places(session, make_image_task(session, count=12))
    source = ChunkFrames(session)
    pairs = zip(source.read(wanted), source.read(wanted[::-1]), strict=True)
    assert [(one.index, number_of(other.image)) for one, other in pairs] == [(n, 11 - n) for n in range(12)]


@pytest.mark.parametrize("quality", ["compressed", "original"])
@pytest.mark.parametrize("size", [(1920, 1080), (322, 242)])
def test_video_frames_have_the_size_that_annotations_are_drawn_in(session, quality, size):
    """CVAT halves compressed chunks from 1080 lines on."""
    wanted = places(session, make_video_task(session, frames=6, size=size, chunk_size=3))
    job = wanted[0][0]
    assert job.size_of(3) == size
    frames = list(ChunkFrames(session, quality=quality).read(wanted))
    assert {(frame.width, frame.height) for frame in frames} == {size}
    assert numbers(frames) == [(n, n) for n in range(6)]
    single = fetch_frame(session, job, 5, quality=quality)
    assert (single.width, single.height, number_of(single.image)) == (*size, 5)


def test_an_error_comes_after_the_frames_before_it(sandbox, session, two_jobs):
    wanted, path = two_jobs
    sandbox.faults.add(path=path, status=404, count=None)
    frames = ChunkFrames(session).read(wanted)
    assert numbers(itertools.islice(frames, 8)) == [(n, n) for n in range(8)]
    with pytest.raises(ServerRefused, match="status 404"):
        next(frames)
    assert threads() == set()


def test_a_damaged_chunk_is_fetched_again(sandbox, session, two_jobs):
    wanted, path = two_jobs
    damaged = {"body": b"PK\3\4 damaged on the way", "headers": {"X-Checksum": "1", "content-type": "application/zip"}}
    fault = sandbox.faults.add(path=path, status=200, **damaged)
    assert numbers(ChunkFrames(session).read(wanted)) == [(n, n) for n in range(16)]
    assert fault.struck == 1


def test_a_chunk_that_stays_damaged_is_an_error(sandbox, session, two_jobs):
    wanted, path = two_jobs
    for body in (b"PK\3\4 one", b"PK\3\4 two", b"PK\3\4 three"):
        sandbox.faults.add(path=path, status=200, body=body, headers={"X-Checksum": "1"})
    with pytest.raises(ServerUnavailable, match="arrives damaged"):
        list(ChunkFrames(session, downloads=1).read(wanted))


def test_leaving_early_does_not_wait_for_retries(sandbox, session, two_jobs):
    wanted, path = two_jobs
    sandbox.faults.add(path=path, status=503, headers={"Retry-After": "100"}, count=None)
    began = time.monotonic()
    with ChunkFrames(session) as source:
        frames = source.read(wanted)
        assert next(frames).index == 0
    assert time.monotonic() - began < 20
    for thread in threads():
        thread.join(20)
    assert threads() == set()
    assert list(frames) == []


def test_leaving_early_does_not_wait_for_a_silent_server(sandbox, session, two_jobs):
    wanted, path = two_jobs
    sandbox.faults.add(path=path, delay=3, count=None)
    source = ChunkFrames(session).read(wanted)
    assert next(source).index == 0
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1
    for thread in threads():
        assert thread.daemon, "it cannot hold up the end of the program"
        thread.join(20)


def test_who_does_not_want_frames_any_more_does_not_wait_for_the_server(sandbox, session, two_jobs):
    wanted, path = two_jobs
    sandbox.faults.add(path=path, delay=3, count=None)
    unwanted = threading.Event()
    with ChunkFrames(session, wanted=lambda: not unwanted.is_set()) as source:
        frames = source.read(wanted)
        assert numbers(itertools.islice(frames, 8)) == [(n, n) for n in range(8)]
        began = time.monotonic()
        threading.Timer(0.1, unwanted.set).start()
        with pytest.raises(RequestCancelled, match="nobody waits"):
            next(frames)
    assert time.monotonic() - began < 1
    for thread in threads():
        thread.join(20)


def test_a_thread_that_breaks_is_told_and_not_waited_for(session, two_jobs, monkeypatch):
    wanted, _ = two_jobs

    def broken(self):
        raise MemoryError("no room even to say so")

    monkeypatch.setattr(reading_ahead.Reading, "_to_decode", broken)
    with ChunkFrames(session) as source, pytest.raises(MemoryError):
        next(source.read(wanted))


def test_no_more_threads_is_told_and_leaves_none(session, two_jobs, monkeypatch):
    wanted, _ = two_jobs
    start, begun = threading.Thread.start, []

    def refuse_the_third(self):
        if self.name.startswith(("download", "decode")):
            begun.append(self.name)
            if len(begun) == 3:
                raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    with ChunkFrames(session) as source, pytest.raises(RuntimeError, match="can't start new thread"):
        next(source.read(wanted))
    for thread in threads():
        thread.join(20)
    assert threads() == set()


def test_a_reader_that_fails_ends_the_threads(session, two_jobs):
    wanted, _ = two_jobs

    def read():
        with ChunkFrames(session, ahead_bytes=1) as source:
            return [1 // (5 - frame.index) for frame in source.read(wanted)]

    with pytest.raises(ZeroDivisionError):
        read()
    assert threads() == set()

"""The thread that uploads: what it gathers, how it fails, and that it always ends."""

import threading

import pytest

from agent.annotations import FrameAnnotations
from agent.errors import RequestCancelled, ServerUnavailable
from agent.sink import FRAMES_PER_UPLOAD, UploadSink


class Uploads:
    """Remembers what it is told to upload; waits for the gate, fails where it is told to."""

    def __init__(self, job=1, error=None):
        self.job, self.error, self.removed = job, error, 0
        self.sent, self.settled = [], 0
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def add(self, frames, payload, removes):
        self.entered.set()
        self.gate.wait(10)
        if self.error:
            raise self.error
        self.removed += len(removes)
        self.sent.append((list(frames), list(removes)))

    def settle(self):
        self.settled += 1


def sink_to(*uploads, removes=None, **more):
    by_job = {upload.job: upload for upload in uploads}
    skipped = []
    sink = UploadSink(by_job.__getitem__, lambda *place: skipped.append(place), removes=removes, **more)
    return sink, skipped


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "upload"]


def test_frames_are_gathered_and_jobs_settled_one_after_the_other():
    first, second = Uploads(1), Uploads(2)
    sink, _ = sink_to(first, second)
    for frame in range(FRAMES_PER_UPLOAD + 1):
        sink.add(1, frame, FrameAnnotations())
    sink.add(2, 0, FrameAnnotations())
    sink.close()
    assert [len(frames) for frames, _ in first.sent] == [FRAMES_PER_UPLOAD, 1]
    assert second.sent == [([0], [])]
    assert (first.settled, second.settled) == (1, 1)


def test_what_has_waited_long_enough_is_sent():
    uploads = Uploads()
    times = iter([0.0, 100.0])
    sink, _ = sink_to(uploads, clock=lambda: next(times, 100.0))
    sink.add(1, 0, FrameAnnotations())
    assert uploads.entered.wait(5), "without another frame, and without an end"
    sink.close()


def test_a_failed_upload_reaches_whoever_adds_and_blocks_nobody():
    uploads = Uploads(error=ServerUnavailable("gone"))
    sink, _ = sink_to(uploads)
    with pytest.raises(ServerUnavailable):
        [sink.add(1, frame, FrameAnnotations()) for frame in range(10_000)]
    for _ in range(2):
        with pytest.raises(ServerUnavailable):
            sink.close()
    sink.abandon()
    assert threads() == []
    assert uploads.settled == 0


def test_an_abandoned_sink_does_not_send_what_waits():
    uploads = Uploads()
    sink, _ = sink_to(uploads)
    sink.add(1, 0, FrameAnnotations())
    sink.abandon()
    assert uploads.sent == []
    with pytest.raises(RequestCancelled):
        sink.add(1, 1, FrameAnnotations())


def test_an_end_at_once_does_not_wait_for_an_upload():
    uploads = Uploads()
    uploads.gate.clear()
    sink, _ = sink_to(uploads)
    for frame in range(FRAMES_PER_UPLOAD + 64):
        sink.add(1, frame, FrameAnnotations())  # as many as the queue holds behind a full upload
    assert uploads.entered.wait(5)
    sink.abandon(patience=0.05)
    uploads.gate.set()
    for thread in threads():
        thread.join(5)
    assert threads() == []


def test_a_bad_last_frame_takes_the_tracks_with_it_and_leaves_its_shapes():
    uploads = Uploads()
    sink, skipped = sink_to(uploads, removes={(1, 3): [("tracks", 7), ("shapes", 8)]})
    sink.skip(1, 3, "torn")
    sink.close()
    assert uploads.sent == [([], [("tracks", 7)])]
    assert skipped == [(1, 3, "torn")]
    assert sink.removed == 1

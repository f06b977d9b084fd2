"""One running request of CVAT's, read ahead: its frames by the chunk, through the model in batches."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Literal, TypeAlias
from urllib.parse import quote

from agent.activity import Request
from agent.cvat.frames import BadFrame, ChunkFrames
from agent.domain import Frame
from agent.doors import Shared
from agent.doors.gateway.budget import Budget
from agent.doors.gateway.detector import Detecting
from agent.doors.gateway.payload import Picture, pixels_digest
from agent.doors.gateway.serial import Row, find_picture, loop_of
from agent.doors.gateway.window import Answer, Entry, Window
from agent.errors import BadPrediction, RequestCancelled, ServerRefused, ServerUnavailable
from agent.interaction import size_of
from agent.models.host import Prediction
from agent.models.line import BATCH

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""A request without calls for so long has ended, whatever the server says."""
MOST_BATCHES = 2
"""In the model and before it."""
LEAD_BATCHES, LEAST_LEAD = 8, 64
"""How far the calls may be behind: so many batches, or frames if that is more."""
ENTRY = 600
"""Bytes that an answer takes besides its text."""

Batch: TypeAlias = list[tuple[Frame, Entry]]


class Reading:
    """A running request. `run` returns when it has ended, or cannot be read ahead."""

    def __init__(
        self, shared: Shared, detecting: Detecting, row: Row, budget: Budget, *, ahead_bytes: int, check_seconds: float
    ) -> None:
        self.detecting, self.row = detecting, row
        self._check_seconds = check_seconds
        self.window = Window()
        self._shared, self._budget = shared, budget
        self._source = ChunkFrames(shared.session, quality="original", digests=True, ahead_bytes=ahead_bytes)
        self._stop = threading.Event()
        self._by_pixels = False
        self._job_ends: set[int] = set()
        """The places of the last frames of jobs."""
        self._cancelled_there = False
        self._called = time.monotonic()
        self._batch: Batch = []
        self._running = 0
        self._read_all = False
        self._done: queue.SimpleQueue[tuple[Batch, Future[list[Prediction]]]] = queue.SimpleQueue()

    def find(self, picture: Picture) -> Entry | None:
        """The entry of a call's picture; either way it was a call of this request, as far as we can tell."""
        if self._stop.is_set():
            return None
        self._called = time.monotonic()
        entry = self.window.find(picture.pixels if self._by_pixels else picture.digest)
        with self.window.changed:
            self._send()
        return entry

    def stop(self) -> None:
        self._stop.set()
        self._source.close()
        with self.window.changed:
            self.window.changed.notify_all()

    def run(self, picture: Picture) -> bool:
        """Reads until the request ends. False where the picture that a call came with is none of its frames."""
        loop = loop_of(self._shared.session, self.row)
        jobs = [job for job, _ in loop.wanted] + [None]
        self._job_ends = {place for place in range(len(loop.wanted)) if jobs[place] is not jobs[place + 1]}
        with self._source as source:
            frames = enumerate(source.read(loop.wanted[loop.begin :]), loop.begin)
            found = find_picture(frames, picture, loop.end, self._stop.is_set)
            if found is None:
                return False
            self._by_pixels = found.by_pixels
            self.window.open(found.place)
            model, title = self.detecting.hosted.id, f"task {self.row['function']['task']}"
            with (
                suppress(RequestCancelled),
                self._shared.pool.use(model, self._check) as hosted,
                self._shared.activity.begin("gateway", "annotate_task", model, title) as request,
            ):
                if hosted.load == self.detecting.hosted.load:
                    self._work(frames, len(loop.wanted), request)
                if request.cancelled.is_set():
                    if not self._cancelled_there:
                        self._cancel_there()
                    request.check()
        return True

    def _check(self) -> None:
        if self._stop.is_set():
            raise RequestCancelled("nobody reads it any more")

    # ------------------------------------------------------------------ frames

    def _work(self, frames: Iterator[tuple[int, Frame | BadFrame]], total: int, request: Request) -> None:
        answers = threading.Thread(target=self._answers, args=(total, request), name="gateway-answers", daemon=True)
        answers.start()
        try:
            for place, frame in frames:
                if isinstance(frame, Frame) and not self._add(place, frame):
                    break
            else:
                with self.window.changed:
                    self._read_all = True
                    self._send()
            answers.join()
        finally:
            self.stop()
            answers.join()
            for entry in self.window.clear():
                self._budget.give(entry.bytes)

    def _add(self, place: int, frame: Frame) -> bool:
        """Takes a frame into the next batch, once there is room; False when the request has ended."""
        digest = pixels_digest(frame) if self._by_pixels else frame.digest or ""
        entry = Entry(place, digest, int(frame.image.nbytes))
        with self.window.changed:
            while not self._stop.is_set():
                if place <= self.window.current:
                    return True  # CVAT has asked for it already
                if self._room(place) and self._budget.take(entry.bytes):
                    self.window.add(entry)
                    self._batch.append((frame, entry))
                    self._send()
                    return True
                # Other readings give memory back without telling us.
                self.window.changed.wait(0.5)
        return False

    def _room(self, place: int) -> bool:
        lead = max(LEAST_LEAD, LEAD_BATCHES * self.detecting.hosted.host.batch_size)
        return place - self.window.current <= lead and not self._full

    @property
    def _full(self) -> bool:
        size = sum(entry.bytes for _, entry in self._batch)
        return len(self._batch) >= self.detecting.hosted.host.batch_size or size >= self._budget.limit // 3

    def _send(self) -> None:
        """Gives the batch to the model when it is full, or when the calls will soon be there and the model is idle;
        whoever calls this holds the window's lock."""
        if not self._batch or self._running >= MOST_BATCHES:
            return
        hosted, lead = self.detecting.hosted, self._batch[0][1].place - self.window.current
        soon = not self._running and lead <= hosted.host.batch_size
        if self._full or self._read_all or soon:
            batch, self._batch = self._batch, []
            self._running += 1
            frames = [frame for frame, _ in batch]
            future = hosted.host.submit(frames, self.detecting.context, BATCH, lambda: not self._stop.is_set())
            future.add_done_callback(lambda done: self._done.put((batch, done)))

    # ----------------------------------------------------------------- answers

    def _answers(self, total: int, request: Request) -> None:
        """What the model says becomes answers, in a thread of its own; it notices when the request ends, too."""
        looked = time.monotonic()
        try:
            while not (self._stop.is_set() or self._over(total, request)):
                with suppress(queue.Empty):
                    self._keep(*self._done.get(timeout=0.2))
                for entry in self.window.drop_passed():
                    self._budget.give(entry.bytes)
                request.progress(self.window.at + 1, total)
                if time.monotonic() - looked > self._check_seconds:
                    looked = time.monotonic()
                    if (state := self._state()) == "cancelled":
                        self._cancelled_there = True
                        request.cancel("cancelled in CVAT")
                    if state != "running":
                        return
        finally:
            self.stop()

    def _over(self, total: int, request: Request) -> bool:
        idle = time.monotonic() - self._called > IDLE_SECONDS
        return idle or self.window.at >= total - 1 or request.cancelled.is_set()

    def _state(self) -> Literal["running", "ended", "cancelled"]:
        """How CVAT's request stands, as far as it tells."""
        path = f"/api/lambda/requests/{quote(str(self.row['id']), safe='=&')}"
        try:
            row = self._shared.session.request("GET", path, stop=self._stop).json()
        except ServerRefused as error:
            return "cancelled" if error.status == 404 else "ended"
        except ServerUnavailable:
            return "running"
        ours = row.get("enqueued") == self.row.get("enqueued")
        if ours and row["status"] in ("queued", "started"):
            return "running"
        # One that was cancelled comes back as finished. One for a single job ends where the job does; not every server
        # tells which it is for.
        whole = (ours and row["status"] == "failed") or {self.window.at, self.window.current} & self._job_ends
        return "ended" if whole else "cancelled"

    def _cancel_there(self) -> None:
        """Ends CVAT's request too: whoever cancels it on our page means that, and not that it goes on more slowly."""
        path = f"/api/lambda/requests/{quote(str(self.row['id']), safe='=&')}"
        try:
            self._shared.session.request("DELETE", path)
        except (ServerRefused, ServerUnavailable) as error:
            log.warning("gateway: CVAT's request goes on, it could not be cancelled: %s", error)

    def _keep(self, batch: Batch, future: Future[list[Prediction]]) -> None:
        with self.window.changed:
            self._running -= 1
            self._send()
            self.window.changed.notify_all()
        try:
            predictions: Sequence[Prediction] = future.result()
        except (Exception, CancelledError) as error:
            predictions = [BadPrediction(str(error))] * len(batch)
        for (frame, entry), prediction in zip(batch, predictions, strict=True):
            size = ENTRY
            try:
                answer = self._answer(prediction, frame, entry)
                size += size_of(answer.kept) if answer.written is None else len(answer.written)
                entry.answer.set_result(answer)
            except BadPrediction as error:  # the call will be answered by itself, and hear the same
                entry.answer.set_exception(error)
            self._budget.take(size, always=True)
            self._budget.give(entry.bytes)
            entry.bytes = size

    def _answer(self, prediction: Prediction, frame: Frame, entry: Entry) -> Answer:
        kept, size = self.detecting.kept(prediction, frame), (frame.width, frame.height)
        if self._by_pixels:
            return Answer(kept, size)  # the reply's groups are named after the call's own file
        return Answer([], size, self.detecting.written(kept, size, entry.digest))

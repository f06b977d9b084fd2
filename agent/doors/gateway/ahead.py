"""Reading ahead of CVAT's serial loop.

CVAT annotates a task by one call a frame, each waiting for the one before: a model that likes batches never gets one.
When a call comes, we look whether a request of this function runs that we may see; if so, and if the call's picture is
one of its frames, the frames after it are read by the chunk and given to the model in batches, and the calls that come
for them find their answers ready. Whatever goes wrong here costs nothing but time: a call that finds no answer is
answered as any other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

from agent.cvat.login import has_login
from agent.doors import Shared
from agent.doors.gateway.budget import Budget
from agent.doors.gateway.call import Call
from agent.doors.gateway.detector import Detecting
from agent.doors.gateway.payload import Picture
from agent.doors.gateway.reading import Reading
from agent.errors import BadPrediction, SidecarError

log = logging.getLogger(__name__)

MIB = 2**20
CHECK_SECONDS = 3.0
"""How often we ask whether a request still runs."""
LOOK_SECONDS = 2.0
"""Between two looks at the server for the same model, so that people's calls do not make us ask all the time."""
MOST_READINGS = 3
LONGEST_PAUSE = 60.0
"""Seconds until a request is tried again whose frames were not those of a call: it may be for a region of each frame,
or the call was another request's, or a person's. The pause begins with the look's and doubles each time."""
MOST_TOLD = 100
READ_SHARE = 1 / 8
"""Of the memory: what each reading may decode before the batch."""


class Ahead:
    """The requests that are read ahead. Threads may share it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.look_seconds, self.check_seconds = LOOK_SECONDS, CHECK_SECONDS
        self._lock = threading.Lock()
        self._readings: list[Reading] = []
        self._threads: list[threading.Thread] = []
        self._looked: dict[str, float] = {}
        self._looking: set[str] = set()
        self._pauses: dict[tuple[str, Any], tuple[float, float]] = {}
        self._told: set[str] = set()
        self._budget, self._on = Budget(0), False
        self.reset()

    @property
    def readings(self) -> tuple[str, ...]:
        """The requests that are read ahead now."""
        with self._lock:
            return tuple(str(reading.row["id"]) for reading in self._readings)

    @property
    def held(self) -> int:
        """Bytes that they hold, besides frames that are being decoded."""
        return self._budget.used

    def find(self, detecting: Detecting, picture: Picture, call: Call) -> bytes | None:
        """The reply for a picture that was read ahead, None where it was not (or where the model failed on it)."""
        try:
            return self._find(detecting, picture, call)
        except SidecarError:  # the picture's fault, or the caller's time is over
            raise
        except Exception:
            log.exception("gateway: what was read ahead for %s cannot be used", detecting.hosted.id)
            return None

    def _find(self, detecting: Detecting, picture: Picture, call: Call) -> bytes | None:
        for reading in list(self._readings):
            if not reading.detecting.is_like(detecting) or (entry := reading.find(picture)) is None:
                continue
            try:
                answer = call.wait(entry.answer, keep=True)
            except (BadPrediction, CancelledError):
                return None
            return answer.written or detecting.written(answer.kept, answer.size, picture.digest)
        return None

    def look(self, detecting: Detecting, picture: Picture) -> None:
        """Looks, beside the call, whether the picture is part of a request that can be read ahead."""
        model, now = detecting.hosted.id, time.monotonic()
        with self._lock:
            soon = model in self._looked and now - self._looked[model] < self.look_seconds
            busy = model in self._looking or len(self._readings) >= MOST_READINGS
            if not self._on or soon or busy:
                return
            self._looked[model] = now
            self._looking.add(model)
            thread = threading.Thread(target=self._search, args=(detecting, picture), name="gateway-ahead", daemon=True)
            self._threads = [old for old in self._threads if old.is_alive()] + [thread]
        thread.start()

    def reset(self) -> None:
        """Ends all readings; other settings may have come."""
        for reading in list(self._readings):
            reading.stop()
        settings = self._shared.config.gateway
        with self._lock:
            self._on = bool(settings and settings.prefetch and has_login(self._shared.config.server))
            self._budget = Budget(int((settings.prefetch_mb if settings else 0) * MIB))

    def close(self, patience: float = 1.0) -> None:
        """Ends all, for good."""
        with self._lock:
            self._on = False
        end = time.monotonic() + patience
        for thread in self._threads:
            for reading in list(self._readings):
                reading.stop()
            thread.join(max(0.0, end - time.monotonic()))

    # ----------------------------------------------------------- in the thread

    def _search(self, detecting: Detecting, picture: Picture) -> None:
        model = detecting.hosted.id
        try:
            for row in self._requests(detecting):
                if self._on and self._read(detecting, row, picture):
                    return
        except SidecarError as error:
            self._tell(f"gateway: requests of {model} cannot be read ahead: {error}")
        except Exception:  # nobody waits for this thread, and calls go on without it
            log.exception("gateway: reading ahead for %s broke off", model)
        finally:
            with self._lock:
                self._looking.discard(model)

    def _requests(self, detecting: Detecting) -> list[Mapping[str, Any]]:
        """The running requests that the call may belong to."""
        rows = self._shared.session.request("GET", "/api/lambda/requests").json()
        now = time.monotonic()
        with self._lock:
            known = {_key(reading.row) for reading in self._readings}
            self._pauses = {_key(row): self._pauses[_key(row)] for row in rows if _key(row) in self._pauses}
            return [
                row
                for row in rows
                if row["status"] == "started"
                and row["function"].get("id") == detecting.hosted.id
                and (row["function"].get("threshold") or None) == detecting.threshold
                and _key(row) not in known
                and self._pauses.get(_key(row), (now, 0.0))[0] <= now
            ]

    def _read(self, detecting: Detecting, row: Mapping[str, Any], picture: Picture) -> bool:
        """Reads a request ahead until it ends; False where the picture is none of its frames."""
        budget = self._budget
        reading = Reading(
            self._shared,
            detecting,
            row,
            budget,
            ahead_bytes=int(budget.limit * READ_SHARE),
            check_seconds=self.check_seconds,
        )
        with self._lock:
            self._readings.append(reading)
            self._looking.discard(detecting.hosted.id)
        found = False
        try:
            found = reading.run(picture)
        finally:
            reading.stop()
            with self._lock:
                self._readings.remove(reading)
                if not found:
                    self._pause(row)
        if not found:
            log.debug("gateway: request %s: the picture of a call is none of its next frames", row["id"])
        return found

    def _pause(self, row: Mapping[str, Any]) -> None:
        _, last = self._pauses.get(_key(row), (0.0, self.look_seconds / 2))
        pause = min(2 * last, LONGEST_PAUSE)
        self._pauses[_key(row)] = time.monotonic() + pause, pause

    def _tell(self, text: str) -> None:
        """Says once why nothing is read ahead: it would be the same for every frame."""
        if text not in self._told:
            self._told = {text, *list(self._told)[:MOST_TOLD]}
            log.info("%s", text)


def _key(row: Mapping[str, Any]) -> tuple[str, Any]:
    """CVAT names the next request of a task as the one before."""
    return str(row["id"]), row.get("enqueued")

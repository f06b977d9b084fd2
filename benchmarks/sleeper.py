"""An adapter whose model waits like a GPU would, without using the processor.

`sleep:0.02` takes 20 ms for a frame. With `batch_seconds=0.04` and `batch_size=16`, sixteen frames together take 40 ms,
and numbers in between in proportion: that is what a GPU gains from batches. With `log=FILE` each call is a line of that
file: its beginning and end in seconds since the epoch, and the number of frames.
"""

import time
from pathlib import Path

from agent.contract import Context, Detection, Frame, Label, Rectangle


class Sleeper:
    def __init__(
        self, name: str, *, device: str, batch_size: int = 4, batch_seconds: float | None = None, log: str | None = None
    ) -> None:
        self.labels = [Label("thing", "rectangle")]
        self.batch_size = batch_size
        self._single = float(name)
        # Without a word about batches, they gain nothing.
        self._more = self._single if batch_seconds is None else (batch_seconds - self._single) / max(1, batch_size - 1)
        self._log = Path(log) if log else None

    def detect(self, frames: list[Frame], context: Context) -> list[list[Detection]]:
        began = time.time()
        time.sleep(self._single + self._more * (len(frames) - 1))
        if self._log:
            with self._log.open("a", encoding="ascii") as file:
                file.write(f"{began:.6f} {time.time():.6f} {len(frames)}\n")
        return [[Detection("thing", Rectangle(10, 10, f.width / 2, f.height / 2), 0.9)] for f in frames]


load = Sleeper

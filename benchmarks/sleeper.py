"""An adapter whose model waits like a GPU would: `sleep:0.02` takes 20 ms a frame and no processor time."""

import time

from agent.contract import Context, Detection, Frame, Label, Rectangle


class Sleeper:
    def __init__(self, name: str, *, device: str, batch_size: int = 4) -> None:
        self.labels = [Label("thing", "rectangle")]
        self.batch_size = batch_size
        self._seconds = float(name)

    def detect(self, frames: list[Frame], context: Context) -> list[list[Detection]]:
        time.sleep(self._seconds * len(frames))
        return [[Detection("thing", Rectangle(10, 10, f.width / 2, f.height / 2), 0.9)] for f in frames]


load = Sleeper

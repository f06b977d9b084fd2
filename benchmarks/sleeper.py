"""A CVAT auto-annotation function that waits like a GPU would: it finds one box a frame and uses no processor time."""

import time

import cvat_sdk.auto_annotation as cvataa


class Sleeper:
    spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("thing", 0, type="rectangle")])

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def detect(self, context, image):
        time.sleep(self._seconds)
        return [cvataa.rectangle(0, [10, 10, image.width / 2, image.height / 2])]


def create(seconds: float = 0.02) -> Sleeper:
    return Sleeper(seconds)

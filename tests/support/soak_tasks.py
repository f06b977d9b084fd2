"""The tasks of the soak, what has to be in them, and what is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.material import picture_bytes, write_video
from tests.support.soak_models import LABEL, SIZE, Box, boxes
from tests.support.tasks import Client

LABELS = ("one", "two")
"""What shapes become, by turns: those that an earlier request left behind are told from those of the present one."""
Shapes = Counter[tuple[int, str, Box]]
"""Frame, label, box: how often it is there."""


class Material:
    """A task of pictures or of a video, whose frames carry numbers of their own."""

    def __init__(self, client: Client, folder: Path, first: int, frames: int, name: str, *, video: bool) -> None:
        self.client, self.frames = client, frames
        # A video's frames are numbered from 0.
        self.numbers = range(frames) if video else range(first, first + frames)
        files = [(f"{number:05}.jpg", picture_bytes(number, size=SIZE)) for number in self.numbers]
        if video:
            files = [("clip.mp4", write_video(folder / "clip.mp4", frames, SIZE).read_bytes())]
        labels = [{"name": name} for name in (*LABELS, LABEL)]
        data = {"chunk_size": 4, "image_quality": 90}
        self.id = client.task(files, labels=labels, data=data, name=name, segment_size=4)
        self.names = {label: name for name, label in client.labels(self.id).items()}
        self.content = Shapes()
        """What is known to be stored in it."""
        self.turns = count()

    def expected(self, label: str) -> Shapes:
        """What a detector finds on all its frames."""
        return Shapes((f, label, box) for f, number in enumerate(self.numbers) for box in boxes(number))

    def stored(self) -> Shapes:
        """What is stored in it."""
        answer = self.client.get(f"/api/tasks/{self.id}/annotations").json()
        assert (answer["tags"], answer["tracks"]) == ([], []), f"task {self.id}: {answer}"
        return self.read(answer["shapes"])

    def read(self, shapes: Sequence[dict[str, Any]]) -> Shapes:
        """Shapes of the API's."""
        assert all((shape["type"], shape["source"]) == ("rectangle", "auto") for shape in shapes), shapes
        return Shapes((s["frame"], self.names[s["label_id"]], tuple(s["points"])) for s in shapes)


def same(found: Shapes, expected: Shapes, what: str) -> None:
    assert found == expected, f"{what}: {differences(found, expected)}"


def differences(found: Shapes, expected: Shapes) -> str:
    more, less = list((found - expected).items()), list(expected - found)
    return f"{found.total()} shapes of {expected.total()}; too many: {more[:3]}; missing: {less[:3]}"

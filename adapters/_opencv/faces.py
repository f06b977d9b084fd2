"""Frontal faces and eyes by the cascades that come with OpenCV.

Viola and Jones' cascades (CVPR 2001) as trained by Lienhart. Frontal faces with
`haarcascade_frontalface_alt2`, which had the best precision on COCO persons of those that ship; eyes with
`haarcascade_eye_tree_eyeglasses`, in the upper part of a face only, at most two, on the face brought to one
size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.contract import (
    ConfigError,
    Context,
    Detection,
    Frame,
    Label,
    ModelLoadFailed,
    Rectangle,
)


@dataclass(frozen=True, slots=True)
class Cascade:
    """A trained cascade, and how its last stage's sum of votes becomes a score.

    score = 1 / (1 + exp(-(votes - middle) / spread)) rises with the votes. `middle` and `spread` were chosen
    on COCO val2017 pictures with persons: 26 of 30 right faces and 2 of 6 wrong ones are above 0.5.
    """

    file: str
    middle: float
    spread: float

    def score(self, votes: float) -> float:
        return 1 / (1 + math.exp(min(700.0, (self.middle - votes) / self.spread)))


FACE = Cascade("haarcascade_frontalface_alt2.xml", middle=55.0, spread=0.5)
EYE = Cascade("haarcascade_eye_tree_eyeglasses.xml", middle=1.0, spread=1.0)

_FACE_WIDTH = 320
"""Pixels that a face is brought to before its eyes are searched."""


class FaceDetector:
    """Frontal faces, and the eyes in them, as rectangles."""

    default_threshold = 0.5
    batch_size = 1

    def __init__(
        self,
        *,
        eyes: bool = True,
        min_size: int = 0,
        scale_step: float = 1.1,
        neighbours: int = 3,
    ) -> None:
        """`min_size`: the smallest face in pixels (0: 24, and more in large frames, for speed)."""
        if scale_step <= 1:
            raise ConfigError(f"opencv:face: scale_step: got {scale_step}, allowed: more than 1, e.g. 1.1")
        import cv2

        self.labels: Sequence[Label] = [Label("face", "rectangle")] + [Label("eye", "rectangle")] * eyes
        self.facts = {"version": f"opencv {cv2.__version__}", "source": FACE.file, "licence": "BSD-3-Clause"}
        self._min_size, self._step, self._neighbours = min_size, scale_step, neighbours
        self._face = _open(FACE)
        self._eye = _open(EYE) if eyes else None

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return [self._find(frame, context.threshold) for frame in frames]

    def _find(self, frame: Frame, threshold: float) -> list[Detection]:
        import cv2

        gray = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        smallest = self._min_size or max(24, min(gray.shape) // 24)
        found = []
        for score, x, y, w, h in _search(self._face, FACE, gray, self._step, self._neighbours, smallest):
            if score >= threshold:
                found.append(Detection("face", Rectangle(x, y, x + w, y + h), score))
                found += [eye for eye in self._eyes(gray, x, y, w) if (eye.score or 0) >= threshold]
        return found

    def _eyes(self, gray: Any, left: float, top: float, width: float) -> list[Detection]:
        """At most two eyes in the upper part of a face, best first."""
        import cv2

        if self._eye is None:
            return []
        scale = _FACE_WIDTH / width
        upper = gray[int(top) : int(top + 0.6 * width), int(left) : int(left + width)]
        upper = cv2.resize(upper, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        found = _search(self._eye, EYE, upper, 1.05, self._neighbours, _FACE_WIDTH // 8)[:2]
        return [
            Detection(
                "eye",
                Rectangle(left + x / scale, top + y / scale, left + (x + w) / scale, top + (y + h) / scale),
                score,
            )
            for score, x, y, w, h in found
        ]


def _search(
    tree: Any, cascade: Cascade, gray: Any, step: float, neighbours: int, smallest: int
) -> list[tuple[float, float, float, float, float]]:
    """(score, x, y, width, height) of a cascade's finds, best first."""
    boxes, _, votes = tree.detectMultiScale3(
        gray,
        scaleFactor=step,
        minNeighbors=neighbours,
        minSize=(smallest, smallest),
        outputRejectLevels=True,
    )
    found = [(cascade.score(float(v)), *map(float, box)) for box, v in zip(boxes, votes, strict=True)]
    # Threads hand in their finds in any order; the same frame must give the same list.
    return sorted(found, key=lambda find: (-find[0], *find[1:]))  # type: ignore[arg-type]


def _open(cascade: Cascade) -> Any:
    import cv2

    path = Path(cv2.__file__).parent / "data" / cascade.file
    tree = cv2.CascadeClassifier(str(path)) if path.exists() else None
    if tree is None or tree.empty():
        raise ModelLoadFailed(f"opencv:face: {cascade.file} is not part of the installed OpenCV {cv2.__version__}")
    return tree

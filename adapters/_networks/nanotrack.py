"""NanoTrack: a Siamese tracker of two small graphs, whose whole state is a box and the features of its template.

A backbone sees the object once and a search window on every frame; a head compares the two and gives, for each cell
of the window, a score and the distances to the sides of a box. Preparation, penalty and update are those of
HonglinChu/SiamTrackers (NanoTrack), which follows SiamRPN (Li et al., CVPR 2018) and pysot.
"""

from __future__ import annotations

import hashlib
import math
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.any_sides import any_sides
from adapters._networks.files import WeightsFile, open_weights
from adapters._networks.options import Running
from adapters._networks.session import Session, open_session, short
from agent.contract import BadPrediction, Frame, ModelLoadFailed, Rectangle, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPLATE, SEARCH = 127, 255
"""Pixels of the two windows that the backbone sees."""
_ALLOWED = "a backbone of (1, 3, 127|255, 127|255) and a head of two inputs, as NanoTrack's are"
_STRIDE = 16
_MAGIC = b"nanotrack1"
_HEADER = struct.Struct("<10s8s8f")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How much a change of size or shape costs, what the middle of the window is worth, how fast the size follows."""

    penalty: float
    window: float
    rate: float


_TUNINGS = {16: Tuning(0.150, 0.490, 0.385), 15: Tuning(0.138, 0.455, 0.348)}
"""By the cells of the head's map: version 2 has 16 x 16 of them, version 3 has 15 x 15."""


@dataclass(frozen=True, slots=True)
class Target:
    """All that is known of an object: centre and size in pixels, the mean colour of its first frame, its features."""

    x: float
    y: float
    width: float
    height: float
    colour: tuple[float, float, float]
    lost: bool
    features: NDArray[np.float16]

    @property
    def context(self) -> float:
        """The side of the square, in pixels of the frame, that the template shows."""
        margin = (self.width + self.height) / 2
        return math.sqrt((self.width + margin) * (self.height + margin))


class NanoTracker:
    """Follows rectangles; a state is about 6 kB (version 2) or 12 kB (version 3), and needs nothing but the files."""

    shape_types: Sequence[str] = ("rectangle",)

    def __init__(self, backbone: str, head: str, run: Running, *, lost_below: float) -> None:
        files = [open_weights(backbone), open_weights(head)]
        self._owner = "opencv:nanotrack"
        self._backbone = _open_backbone(files[0], self._owner, run)
        self._head = open_session(files[1], self._owner, run, threads=run.cores)
        self._lost_below = lost_below
        version = " + ".join(file.version for file in files)
        self._mark = hashlib.sha256(version.encode()).digest()[:8]
        self._inputs = [port.name for port in self._head.inputs]
        self._shape, cells = self._try_out()
        self._tuning = _TUNINGS[cells]
        line = (np.arange(cells) - cells // 2) * float(_STRIDE)
        self._points = np.stack(np.meshgrid(line, line)).reshape(2, -1)
        self._window = np.outer(np.hanning(cells), np.hanning(cells)).ravel()
        self.facts = {
            "source": " + ".join(file.path.name for file in files),
            "version": version,
            "head": f"NanoTrack, {cells}x{cells} cells",
            "runs on": self._backbone.runs_on,
        }

    def begin(self, frame: Frame, shapes: Sequence[Shape]) -> list[bytes]:
        colour = tuple(float(value) for value in frame.image.mean(axis=(0, 1))[::-1])
        states = []
        for shape in shapes:
            if not isinstance(shape, Rectangle):
                raise ValueError(f"{self._owner}: got a {shape.type}, allowed: rectangle")
            width, height = max(shape.right - shape.left, 1.0), max(shape.bottom - shape.top, 1.0)
            x, y = (shape.left + shape.right) / 2, (shape.top + shape.bottom) / 2
            target = Target(x, y, width, height, colour, False, np.zeros(0, np.float16))  # type: ignore[arg-type]
            window = _window(frame.image, target, round(target.context), TEMPLATE)
            states.append(self._written(replace(target, features=self._features(window).astype(np.float16))))
        return states

    def follow(self, frame: Frame, states: Sequence[bytes]) -> list[tuple[bytes, Shape | None]]:
        targets = [self._read(state) for state in states]
        moved = [self._step(frame.image, target) for target in targets]
        return [(self._written(target), _rectangle(target, frame)) for target in moved]

    def _step(self, image: NDArray[np.uint8], target: Target) -> Target:
        """The target on the next picture."""
        scale = TEMPLATE / target.context
        window = _window(image, target, round(target.context * SEARCH / TEMPLATE), SEARCH)
        scores, boxes = self._compared(target.features, self._features(window))
        left, top, right, bottom = boxes
        x1, y1 = self._points[0] - left, self._points[1] - top
        x2, y2 = self._points[0] + right, self._points[1] + bottom
        widths, heights = np.maximum(x2 - x1, 1e-3), np.maximum(y2 - y1, 1e-3)
        penalty = self._penalty(widths, heights, target.width * scale, target.height * scale)
        weight = self._tuning.window
        best = int(np.argmax(penalty * scores * (1 - weight) + self._window * weight))
        if scores[best] < self._lost_below:
            return replace(target, lost=True)
        rate = float(penalty[best] * scores[best] * self._tuning.rate)
        high, wide = image.shape[:2]
        return replace(
            target,
            x=min(max(target.x + float(x1[best] + x2[best]) / 2 / scale, 0.0), float(wide)),
            y=min(max(target.y + float(y1[best] + y2[best]) / 2 / scale, 0.0), float(high)),
            width=min(max(target.width * (1 - rate) + float(widths[best]) / scale * rate, 10.0), float(wide)),
            height=min(max(target.height * (1 - rate) + float(heights[best]) / scale * rate, 10.0), float(high)),
            lost=False,
        )

    def _penalty(self, widths: Any, heights: Any, width: float, height: float) -> NDArray[np.float64]:
        size = _larger(_side(widths, heights) / _side(width, height))
        shape = _larger((width / height) / (widths / heights))
        result: NDArray[np.float64] = np.exp((1 - size * shape) * self._tuning.penalty)
        return result

    def _features(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        name = self._backbone.inputs[0].name
        features = self._run(self._backbone, {name: window})
        if len(features) != 1:
            raise BadPrediction(f"{self._owner}: the backbone gives {len(features)} outputs")
        return features[0]

    def _compared(self, template: NDArray[Any], search: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """((n,) scores, (4, n) distances to left, top, right, bottom) of the cells."""
        feeds = {self._inputs[0]: template.astype(np.float32).reshape(self._shape), self._inputs[1]: search}
        kinds, boxes = sorted(self._run(self._head, feeds), key=lambda value: value.shape[1])
        votes = kinds.reshape(2, -1).astype(np.float64)
        if not (np.isfinite(votes).all() and np.isfinite(boxes).all()):
            raise BadPrediction(f"{self._owner}: the head gave numbers that are none (NaN or infinite)")
        return 1 / (1 + np.exp(np.clip(votes[0] - votes[1], -80, 80))), boxes.reshape(4, -1).astype(np.float64)

    def _run(self, session: Session, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return list(session.run(feeds).values())
        except Exception as error:
            raise BadPrediction(f"{self._owner}: the graph failed: {short(error)}") from error

    def _try_out(self) -> tuple[tuple[int, ...], int]:
        """The shape of the template's features and the cells of a side of the head's map."""
        for part, session, count in (("backbone", self._backbone, 1), ("head", self._head, 2)):
            if len(session.inputs) != count:
                listing = ", ".join(map(str, session.inputs))
                raise ModelLoadFailed(f"{self._owner}: its {part} takes {listing}; allowed: {_ALLOWED}")
        try:
            template = self._features(np.full((1, 3, TEMPLATE, TEMPLATE), 128, np.float32))
            search = self._features(np.full((1, 3, SEARCH, SEARCH), 128, np.float32))
            self._check_pair(template, search)
            outputs = self._run(self._head, dict(zip(self._inputs, (template, search), strict=True)))
            shapes = sorted(value.shape for value in outputs)
        except (BadPrediction, ValueError) as error:
            said = short(error).removeprefix(f"{self._owner}: ")
            raise ModelLoadFailed(f"{self._owner}: {said}; allowed: {_ALLOWED}") from error
        cells = shapes[0][-1] if shapes else 0
        if cells not in _TUNINGS or shapes != [(1, 2, cells, cells), (1, 4, cells, cells)]:
            raise ModelLoadFailed(f"{self._owner}: its head gives {shapes}; allowed: {_ALLOWED}")
        return template.shape, cells

    def _check_pair(self, *features: NDArray[Any]) -> None:
        """ModelLoadFailed where the head says that it takes other features than the backbone gives."""
        for port, given in zip(self._head.inputs, features, strict=True):
            if len(port.shape) != given.ndim:
                continue  # it does not say
            if any(side not in (None, got) for side, got in zip(port.shape, given.shape, strict=True)):
                raise ModelLoadFailed(
                    f"{self._owner}: not a pair: the backbone gives features of {list(given.shape)}, the head takes"
                    f" {port}; allowed: backbone and head of the same version of NanoTrack"
                )

    def _written(self, target: Target) -> bytes:
        numbers = (target.x, target.y, target.width, target.height, *target.colour, float(target.lost))
        return _HEADER.pack(_MAGIC, self._mark, *numbers) + target.features.astype("<f2").tobytes()

    def _read(self, state: bytes) -> Target:
        """ValueError for what is no state of these files."""
        count = math.prod(self._shape)
        if len(state) != _HEADER.size + 2 * count:
            raise ValueError(f"{self._owner}: got a state of {len(state)} bytes, allowed: {_HEADER.size + 2 * count}")
        magic, mark, x, y, width, height, *rest = _HEADER.unpack_from(state)
        features = np.frombuffer(state, "<f2", count, _HEADER.size)
        numbers = np.array([x, y, width, height, *rest])
        if magic != _MAGIC or mark != self._mark:
            raise ValueError(f"{self._owner}: the state is of another model")
        if not (np.isfinite(numbers).all() and np.isfinite(features).all() and width > 0 and height > 0):
            raise ValueError(f"{self._owner}: the state is damaged")
        blue, green, red, lost = rest
        return Target(x, y, width, height, (blue, green, red), bool(lost), features)


def _open_backbone(file: WeightsFile, owner: str, run: Running) -> Session:
    """The backbone for windows of both sizes; published ones say that they take the larger one only."""
    session = open_session(file, owner, run, threads=run.cores)
    if file.format != "onnx" or not all(session.inputs[0].shape[2:]):
        return session
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "backbone.onnx"
        copy.write_bytes(any_sides(file.path.read_bytes()))
        return open_session(replace(file, path=copy), owner, run, threads=run.cores)


def _window(image: NDArray[np.uint8], target: Target, side: int, size: int) -> NDArray[np.float32]:
    """(1, 3, size, size) BGR of a square around the target; what is outside of the picture has the mean colour."""
    import cv2

    side = max(side, 1)
    high, wide = image.shape[:2]
    left = math.floor(target.x - (side + 1) / 2 + 0.5)
    top = math.floor(target.y - (side + 1) / 2 + 0.5)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = np.array(target.colour[::-1], np.uint8)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, wide), min(top + side, high)
    if x1 < x2 and y1 < y2:
        square[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    small = np.asarray(cv2.resize(square, (size, size)), np.uint8)
    return np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1)[None], np.float32)


def _rectangle(target: Target, frame: Frame) -> Rectangle | None:
    """The target's box as far as it is in the frame; None while it is lost, or out of sight."""
    left, right = max(target.x - target.width / 2, 0.0), min(target.x + target.width / 2, float(frame.width))
    top, bottom = max(target.y - target.height / 2, 0.0), min(target.y + target.height / 2, float(frame.height))
    return None if target.lost or left >= right or top >= bottom else Rectangle(left, top, right, bottom)


def _side(width: Any, height: Any) -> Any:
    """The side of a square as large as a box with its margin."""
    margin = (width + height) / 2
    return np.sqrt((width + margin) * (height + margin))


def _larger(ratio: Any) -> Any:
    return np.maximum(ratio, 1 / ratio)

"""OpenCV's trackers that learn from the first picture alone, without weights: MIL and, where it is built in, CSRT.

OpenCV cannot write a tracker down. So the live trackers of this process are kept, the latest used ones, each under an
id that cannot be guessed; and a state also holds the last rectangle and the picture around it. After a restart, or if
someone goes back to an older state, the tracker begins anew from that picture: it has forgotten how the object looked
before, but goes on from the right place.
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from adapters._opencv.resizing import shrunk
from agent.contract import BadPrediction, Frame, ModelLoadFailed, Rectangle, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_LIVE = 64
"""How many live trackers are kept; CSRT holds some 10 MB for each."""
PICTURE_SIDE = 320
"""The longer side, at most, of the picture in a state: it travels with every request."""
_MARGIN = 1.0
"""What is kept around the rectangle, in its own sizes: both trackers learn from no more than that."""
_MAGIC = b"cvtrack1"
_HEADER = struct.Struct("<8s4s16s6d6i")
_MOST_PIXELS = 1 << 28

_CLASSES = {"mil": "TrackerMIL", "csrt": "TrackerCSRT", "kcf": "TrackerKCF"}
_SMALLEST = 16.0
"""Pixels: smaller boxes are tracked with something around them; MIL's sampler never ends for a few pixels."""
_BORDER = 40
"""Pixels that the frame's edge is drawn out by, so that objects at the edge have surroundings to be told from."""

Box: TypeAlias = tuple[float, float, float, float]
"""left, top, width, height in pixels of the frame."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a state holds: where the object was, and how it and its surroundings looked."""

    id: bytes
    box: Box
    """What is tracked."""
    share: tuple[float, float]
    """What of it, in width and height, is the object."""
    window: tuple[int, int, int, int]
    """left, top, right, bottom of the picture in the frame."""
    frame: tuple[int, int]
    """width, height of the frame."""
    picture: bytes
    """JPEG."""


class OpencvTracker:
    """Follows rectangles by one of OpenCV's own trackers."""

    shape_types: Sequence[str] = ("rectangle",)

    def __init__(self, name: str) -> None:
        import cv2

        self._name, self._owner = name, f"opencv:{name}"
        create = getattr(cv2, f"{_CLASSES[name]}_create", None)
        if create is None:
            raise ModelLoadFailed(
                f"{self._owner}: the installed OpenCV {cv2.__version__} has no {_CLASSES[name]}; it is in the package"
                " opencv-contrib-python (in place of opencv-python, never beside it); opencv:mil needs nothing more"
            )
        self._create: Callable[[], Any] = create
        self._live: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = threading.Lock()
        self.facts = {"version": f"opencv {cv2.__version__}", "source": _CLASSES[name], "licence": "Apache-2.0"}

    def begin(self, frame: Frame, shapes: Sequence[Shape]) -> list[bytes]:
        image, states = _bgr(frame), []
        for shape in shapes:
            if not isinstance(shape, Rectangle):
                raise ValueError(f"{self._owner}: got a {shape.type}, allowed: rectangle")
            box, share = _tracked(shape, frame.width, frame.height)
            states.append(self._kept(self._started(image, box), _pictured(image, box, share)))
        return states

    def follow(self, frame: Frame, states: Sequence[bytes]) -> list[tuple[bytes, Shape | None]]:
        starts = [self._read(state) for state in states]
        image = _bgr(frame)
        return [self._step(image, start) for start in starts]

    def close(self) -> None:
        """Forgets the live trackers."""
        with self._lock:
            self._live.clear()

    def _step(self, image: NDArray[np.uint8], start: Start) -> tuple[bytes, Shape | None]:
        with self._lock:
            # Taken out: an id names one moment, and after the update this tracker is at another.
            tracker = self._live.pop(start.id, None)
        if tracker is None:
            tracker = self._started(_restored(start), start.box)
        found, (x, y, width, height) = self._asked(tracker.update, image)
        box = (x - _BORDER, y - _BORDER, float(width), float(height))
        shape = _shown(box, start.share, image) if found and width > 0 and height > 0 else None
        if shape is None:  # what it looked like when it was last seen is worth more than where it is not
            return self._kept(tracker, start), None
        return self._kept(tracker, _pictured(image, box, start.share)), shape

    def _started(self, image: NDArray[np.uint8], box: Box) -> Any:
        tracker = self._create()
        left, top, width, height = (round(value) for value in box)
        self._asked(tracker.init, image, [left + _BORDER, top + _BORDER, width, height])
        return tracker

    def _asked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        import cv2

        cv2.setRNGSeed(0)  # MIL draws its samples by chance; the same clicks must give the same track
        try:
            return call(*arguments)
        except cv2.error as error:
            raise BadPrediction(f"{self._owner}: OpenCV failed: {' '.join(str(error).split())[:200]}") from error

    def _kept(self, tracker: Any, start: Start) -> bytes:
        """The state of a tracker at this moment."""
        start = replace(start, id=secrets.token_bytes(16))
        with self._lock:
            self._live[start.id] = tracker
            while len(self._live) > MOST_LIVE:
                self._live.popitem(last=False)
        name = self._name.encode().ljust(4, b"\0")
        header = _HEADER.pack(_MAGIC, name, start.id, *start.box, *start.share, *start.window, *start.frame)
        return header + start.picture

    def _read(self, state: bytes) -> Start:
        """ValueError for what is no state of this tracker."""
        if len(state) <= _HEADER.size or state[:8] != _MAGIC:
            raise ValueError(f"{self._owner}: this is no state of an OpenCV tracker")
        _, name, number, *values = _HEADER.unpack_from(state)
        if name.rstrip(b"\0") != self._name.encode():
            raise ValueError(f"{self._owner}: the state is of opencv:{name.rstrip(bytes(1)).decode(errors='replace')}")
        x, y, wide, high, share_x, share_y, left, top, right, bottom, width, height = values
        inside = 0 <= left < right <= width and 0 <= top < bottom <= height and width * height <= _MOST_PIXELS
        # Outside of these, OpenCV would read past the picture, or search for ever.
        sound = 0 <= x + wide / 2 <= width and 0 <= y + high / 2 <= height
        sound = sound and _SMALLEST <= wide <= width + _SMALLEST and _SMALLEST <= high <= height + _SMALLEST
        if not (inside and sound and 0 < share_x <= 1 and 0 < share_y <= 1):
            raise ValueError(f"{self._owner}: the state is damaged")
        window, size = (left, top, right, bottom), (width, height)
        return Start(number, (x, y, wide, high), (share_x, share_y), window, size, bytes(state[_HEADER.size :]))


def _tracked(shape: Rectangle, width: int, height: int) -> tuple[Box, tuple[float, float]]:
    """The box to track for a rectangle, and the share of it that the rectangle is."""
    left, right = (min(max(value, 0.0), float(width)) for value in (shape.left, shape.right))
    top, bottom = (min(max(value, 0.0), float(height)) for value in (shape.top, shape.bottom))
    wide, high = max(right - left, 1.0), max(bottom - top, 1.0)
    whole = max(wide, _SMALLEST), max(high, _SMALLEST)
    box = ((left + right - whole[0]) / 2, (top + bottom - whole[1]) / 2, *whole)
    return box, (wide / whole[0], high / whole[1])


def _shown(box: Box, share: tuple[float, float], image: NDArray[np.uint8]) -> Rectangle | None:
    """The rectangle in a tracked box, as far as it is in the frame."""
    x, y, wide, high = box
    width, height = image.shape[1] - 2 * _BORDER, image.shape[0] - 2 * _BORDER
    half_width, half_height = wide * share[0] / 2, high * share[1] / 2
    left, right = max(x + wide / 2 - half_width, 0.0), min(x + wide / 2 + half_width, float(width))
    top, bottom = max(y + high / 2 - half_height, 0.0), min(y + high / 2 + half_height, float(height))
    return Rectangle(left, top, right, bottom) if left < right and top < bottom else None


def _pictured(image: NDArray[np.uint8], box: Box, share: tuple[float, float]) -> Start:
    """A state, without an id yet, with what is around a box of the frame."""
    import cv2

    width, height = image.shape[1] - 2 * _BORDER, image.shape[0] - 2 * _BORDER
    wide, high = (
        min(max(side, _SMALLEST), most + _SMALLEST) for side, most in zip(box[2:], (width, height), strict=True)
    )
    x = min(max(box[0] + box[2] / 2, 0.0), float(width)) - wide / 2
    y = min(max(box[1] + box[3] / 2, 0.0), float(height)) - high / 2
    left, top = min(max(0, int(x - _MARGIN * wide)), width - 1), min(max(0, int(y - _MARGIN * high)), height - 1)
    right, bottom = min(width, int(x + (1 + _MARGIN) * wide) + 1), min(height, int(y + (1 + _MARGIN) * high) + 1)
    part = image[top + _BORDER : bottom + _BORDER, left + _BORDER : right + _BORDER]
    if (shrink := PICTURE_SIDE / max(part.shape)) < 1:
        part = shrunk(part, shrink)
    _, encoded = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return Start(b"", (x, y, wide, high), share, (left, top, right, bottom), (width, height), encoded.tobytes())


def _restored(start: Start) -> NDArray[np.uint8]:
    """The frame, with its border, as far as the state remembers it; ValueError where its picture is damaged."""
    import cv2

    part = cv2.imdecode(np.frombuffer(start.picture, np.uint8), cv2.IMREAD_COLOR)
    if part is None:
        raise ValueError("the picture in the state is damaged")
    left, top, right, bottom = start.window
    part = cv2.resize(part, (right - left, bottom - top))
    width, height = start.frame
    around = (top + _BORDER, height - bottom + _BORDER, left + _BORDER, width - right + _BORDER)
    return np.asarray(cv2.copyMakeBorder(part, *around, cv2.BORDER_REPLICATE), np.uint8)


def _bgr(frame: Frame) -> NDArray[np.uint8]:
    """The frame as OpenCV wants it, its edges drawn out."""
    import cv2

    around = (_BORDER,) * 4
    return np.asarray(cv2.copyMakeBorder(frame.image[:, :, ::-1], *around, cv2.BORDER_REPLICATE), np.uint8)

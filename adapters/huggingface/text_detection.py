"""Text detection: PP-OCR finds lines of text, as turned rectangles, and another model may read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.huggingface.opening import Opened
from adapters.huggingface.pictures import in_batches
from adapters.huggingface.reading import TextReader
from agent.contract import Attribute, ConfigError, Context, Detection, Frame, Label, Rectangle

_INK = 0.3
"""From this chance on a pixel is of a line."""
_SHRUNK = 1.5
"""The network is trained on lines that are shrunk; how much goes with their area and their outline."""
_LEAST = 3
"""Pixels of the network's map: what is thinner is no line."""
_MOST = 1000


class TextDetector:
    """Gives a rectangle for each line; with a reader, an attribute says what stands there.

    From the map to rectangles as DBNet has it (arXiv 1911.08947). transformers' processor needs torchvision.
    """

    default_threshold = 0.6

    def __init__(
        self,
        opened: Opened,
        *,
        label: str = "text",
        attribute: str = "text",
        reader: TextReader | None = None,
        max_side: int | None = None,
    ) -> None:
        """`max_side`: larger frames are made smaller; as the model says where it is not said."""
        if max_side is not None and max_side < 32:
            raise ConfigError(f"{opened.owner}: max_side: got {max_side}, allowed: 32 or more")
        content = opened.preparation()
        self._opened, self._reader = opened, reader
        self._label, self._attribute = label, attribute
        self._side = max_side or int(content.get("limit_side_len") or 960)
        # Means in the order of the channels that the network wants: blue first.
        self._mean = content.get("image_mean") or [0.406, 0.456, 0.485]
        self._std = content.get("image_std") or [0.225, 0.224, 0.229]
        self._model = opened.model("AutoModelForObjectDetection")
        attributes = (Attribute(attribute, "text"),) if reader else ()
        self.labels = [Label(label, "rectangle", attributes)]
        self.batch_size = opened.batch_size
        read_by = {"read_by": reader.facts["source"]} if reader else {}
        self.facts = opened.facts(self._model, "text detection", f"at most {self._side}", **read_by)

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return in_batches(frames, self.batch_size, lambda batch: self._run(batch, context))

    def _run(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        import torch

        with torch.inference_mode():
            outputs = self._model(**self._opened.placed({"pixel_values": self._pixels(frames)}))
        maps = outputs.last_hidden_state.float()
        self._opened.check(map=maps)
        found = []
        for chances, frame in zip(maps[:, 0].cpu().numpy(), frames, strict=True):
            lines = sorted(_lines(chances, frame, context.threshold), key=lambda line: -line[1])
            found.append(self._detections(lines, frame))
        return found

    def _detections(self, lines: list[tuple[Rectangle, float]], frame: Frame) -> list[Detection]:
        texts = self._reader.read(frame, [rectangle for rectangle, _ in lines]) if self._reader else []
        attributes = [{self._attribute: text} for text in texts] or [{} for _ in lines]
        return [
            Detection(self._label, rectangle, score, given)
            for (rectangle, score), given in zip(lines, attributes, strict=True)
        ]

    def _pixels(self, frames: Sequence[Frame]) -> Any:
        import torch

        height, width = frames[0].height, frames[0].width
        ratio = min(1.0, self._side / max(height, width))
        size = tuple(max(32, round(int(side * ratio) / 32) * 32) for side in (height, width))
        pixels = torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self._mean, self._std))
        # transformers' processor takes the mean of blue from red, and the other way round, and then swaps them.
        return ((small / 255 - mean) / std)[:, [2, 1, 0]]


def _lines(chances: Any, frame: Frame, threshold: float) -> list[tuple[Rectangle, float]]:
    """The lines in a (h, w) map of chances, in pixels of the frame."""
    import cv2

    scale = np.array([frame.width / chances.shape[1], frame.height / chances.shape[0]])
    contours, _ = cv2.findContours((chances > _INK).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours[:_MOST]:
        middle, size, angle = cv2.minAreaRect(contour)
        if min(size) < _LEAST or (score := _mean_inside(chances, cv2.boxPoints((middle, size, angle)))) < threshold:
            continue
        grown = size[0] * size[1] * _SHRUNK / (2 * (size[0] + size[1]))
        corners = cv2.boxPoints((middle, (size[0] + 2 * grown, size[1] + 2 * grown), angle))
        # Contours pass through the middle of pixels. Where width and height are not made smaller alike, a turned
        # rectangle is none in the frame: fit one again.
        rectangle = _upright(cv2.minAreaRect(((corners + 0.5) * scale).astype(np.float32)))
        found.append((rectangle if rectangle.rotation else _inside(rectangle, frame), score))
    return found


def _mean_inside(chances: Any, corners: Any) -> float:
    import cv2

    left, top = np.floor(corners.min(0)).clip(0).astype(int)
    right, bottom = np.ceil(corners.max(0)).astype(int) + 1
    part = chances[top:bottom, left:right]
    inside = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(inside, [(corners - [left, top]).astype(np.int32)], 1)
    return float(part[inside > 0].mean()) if inside.any() else 0.0


def _inside(rectangle: Rectangle, frame: Frame) -> Rectangle:
    left, top = max(0.0, rectangle.left), max(0.0, rectangle.top)
    return Rectangle(left, top, min(float(frame.width), rectangle.right), min(float(frame.height), rectangle.bottom))


def _upright(box: Any) -> Rectangle:
    """OpenCV's turned box, turned by less than 45 degrees: text is wider than high more often than not."""
    (x, y), (width, height), angle = box
    quarter = round(angle / 90)
    if quarter % 2:
        width, height = height, width
    turn = angle - 90 * quarter
    turn = 0.0 if math.isclose(turn, 0, abs_tol=0.5) else turn
    return Rectangle(x - width / 2, y - height / 2, x + width / 2, y + height / 2, turn % 360)


build = TextDetector

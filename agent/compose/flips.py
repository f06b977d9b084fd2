"""Test-time augmentation: `flips:` with the option `of`, one detector that looks at a picture in several ways."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from agent.compose.fusion import fuse
from agent.compose.mirroring import has_sides, mirrored, scaled
from agent.compose.parts import Answer, Parts, each_frame, joint_facts
from agent.contract import ConfigError, Context, Detection, Frame
from agent.labels.names import some

log = logging.getLogger(__name__)

LOWEST = 0.05
"""Fusing lowers what few views agree on, so they are asked for less than the request wants."""


class Flips:
    """Looks at the picture as it is, in the mirror (`mirror`), and in other sizes (`scales`), and fuses the answers."""

    def __init__(
        self,
        name: str,
        *,
        device: str,
        parts: Parts,
        of: Any,
        mirror: bool = True,
        scales: list[float] | None = None,
        method: Literal["wbf", "nms", "soft-nms"] = "wbf",
        iou: float = 0.65,
    ) -> None:
        for scale in scales or ():
            if not 0.1 <= scale <= 10:
                raise ConfigError(f"{parts.owner}: scales: got {scale}, allowed: 0.1 to 10")
        (self._part,) = parts.detectors([of], "of", 1)
        self._views = [
            (scale, flip) for scale in dict.fromkeys([1.0, *(scales or ())]) for flip in (False, True)[: 1 + mirror]
        ]
        self._method, self._iou = method, iou
        self._points = {label.name: [sub.name for sub in label.sublabels] for label in self._part.labels}
        for label, points in self._points.items():
            if mirror and points and not has_sides(points):
                log.warning(
                    "%s: the points of %r name no left and right (%s); if they have sides, set mirror = false",
                    parts.owner, label, some(points, 3),
                )  # fmt: skip
        self.close = parts.close
        self.labels = list(self._part.labels)
        self.batch_size = max(1, self._part.loaded.batch_size // len(self._views))
        self.default_threshold = self._part.loaded.default_threshold
        self.facts = joint_facts([self._part], views=" ".join(f"{s:g}{'m' if m else ''}" for s, m in self._views))

    def detect(self, frames: Sequence[Frame], context: Context) -> list[Answer]:
        asked = Context(min(context.threshold, LOWEST), context.labels, context.masks_as_polygons)
        views = [_view(frame, scale, mirror) for frame in frames for scale, mirror in self._views]
        found, count = self._part.submit(views, asked)(), len(self._views)

        def fused(number: int, seen: list[list[Detection]]) -> list[Detection]:
            own = zip(views[number * count :], seen, self._views, strict=False)
            groups = [
                [_back(mirrored(d, view.width, self._points) if mirror else d, view, frames[number]) for d in group]
                for view, group, (_, mirror) in own
            ]
            return fuse(groups, self._method, self._iou, least=context.threshold)

        return each_frame((found[start : start + count] for start in range(0, len(found), count)), fused)


def _view(frame: Frame, scale: float, mirror: bool) -> Frame:
    image = frame.image
    if scale != 1.0:
        from PIL import Image

        size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    return Frame(frame.index, frame.name, np.ascontiguousarray(image[:, ::-1] if mirror else image))


def _back(detection: Detection, view: Frame, frame: Frame) -> Detection:
    if (view.width, view.height) == (frame.width, frame.height):
        return detection
    return scaled(detection, frame.width / view.width, frame.height / view.height, (frame.width, frame.height))


load = Flips

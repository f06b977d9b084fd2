"""Intelligent scissors: an outline that clings to edges between a few points (Mortensen and Barrett, SIGGRAPH 1995).

CVAT's own tool of that name draws while the mouse moves. Here the positive clicks, in their order, are the anchor
points; the outline follows the edges from each to the next, and from the last back to the first.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from adapters._opencv.resizing import shrunk
from agent.contract import Detection, Frame, Polygon, PromptNeeds, Prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABEL = "object"
LONGEST_SIDE = 640
"""Pixels: a stretch between two points is searched in a picture shrunk to that, so that a click takes no second."""
_LEAST_AROUND = 24
_TOLERANCE = 1.0
"""Pixels that the simplified outline may lie from the path."""

Point: TypeAlias = tuple[float, float]


class Scissors:
    """Polygons along the edges between clicks."""

    needs = PromptNeeds(positive=3, negative=None, box="no")
    help_message = (
        "Click along the outline of the object, one point after the other, three at least: between them the outline"
        " follows the edges in the picture, and it closes by itself."
    )

    def __init__(self) -> None:
        import cv2

        self.facts = {
            "version": f"opencv {cv2.__version__}",
            "source": "IntelligentScissorsMB",
            "licence": "Apache-2.0",
        }

    def embed(self, frame: Frame) -> NDArray[np.uint8]:
        return frame.image

    def segment(self, embedding: NDArray[np.uint8], prompts: Prompts) -> list[Detection]:
        import cv2

        height, width = embedding.shape[:2]
        anchors = [(min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in prompts.positive]
        anchors = [one for one, following in pairwise([*anchors, *anchors[:1]]) if one != following]
        if len(anchors) < 3:
            return []
        outline: list[Point] = []
        for start, end in pairwise([*anchors, anchors[0]]):
            stretch = np.array([start, *_path(embedding, start, end), end], np.float32)
            # Stretch by stretch, so that the points that were clicked stay.
            simple = cv2.approxPolyDP(stretch[:, None], _TOLERANCE, closed=False)[:, 0]
            outline += [(float(x), float(y)) for x, y in simple[:-1]]
        return [Detection(LABEL, Polygon(tuple(number for point in outline for number in point)))]


def _path(image: NDArray[np.uint8], start: Point, end: Point) -> list[Point]:
    """The points between two others along the edges of the picture."""
    import cv2

    height, width = image.shape[:2]
    if any(
        one == other and one in (0.0, float(side)) for one, other, side in zip(start, end, (width, height), strict=True)
    ):
        return []  # along the picture's own edge, where the object is cut off
    margin = max(_LEAST_AROUND, math.dist(start, end) / 2)
    left, top = max(0, int(min(start[0], end[0]) - margin)), max(0, int(min(start[1], end[1]) - margin))
    right = min(width, int(max(start[0], end[0]) + margin) + 1)
    bottom = min(height, int(max(start[1], end[1]) + margin) + 1)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    shrink = min(1.0, LONGEST_SIDE / max(part.shape))
    if shrink < 1:
        part = shrunk(part, shrink)
    high, wide = part.shape[:2]
    if high < 3 or wide < 3:
        return []
    places = []
    for x, y in (start, end):
        column, row = int((x - left) * wide / (right - left)), int((y - top) * high / (bottom - top))
        places.append((min(max(column, 0), wide - 1), min(max(row, 0), high - 1)))
    tool = cv2.segmentation.IntelligentScissorsMB()
    tool.setEdgeFeatureCannyParameters(32, 100)
    tool.setGradientMagnitudeMaxLimit(200)
    tool.applyImage(part)
    tool.buildMap(places[0])
    contour = tool.getContour(places[1])
    steps = contour.reshape(-1, 2)[1:-1] + 0.5  # centres of pixels; the ends are the clicks themselves
    scale = np.array([(right - left) / wide, (bottom - top) / high])
    return [(left + float(x), top + float(y)) for x, y in steps * scale]

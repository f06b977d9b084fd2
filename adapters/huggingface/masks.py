"""From a network's small maps of logits to masks, rectangles and polygons of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._masks import connected_parts, tight_mask
from agent.contract import Mask, Polygon, Rectangle

if TYPE_CHECKING:
    from numpy.typing import NDArray


def enlarged(maps: Any, height: int, width: int) -> Any:
    """(N, height, width) of (N, h, w), interpolated as these networks are trained to be."""
    import torch

    return torch.nn.functional.interpolate(
        maps[None].float(), size=(height, width), mode="bilinear", align_corners=False
    )[0]


def mask_of(bitmap: Any) -> Mask | None:
    """A (height, width) bitmap of the frame, a tensor of any device too, cut to its pixels; None where it has none."""
    return tight_mask(np.asarray(bitmap.cpu() if hasattr(bitmap, "cpu") else bitmap, bool))


def rectangle_of(mask: Mask) -> Rectangle | None:
    """The box around the largest part: specks must not make it larger."""
    if (part := next(connected_parts(mask), None)) is None:
        return None
    height, width = part.bitmap.shape
    return Rectangle(float(part.left), float(part.top), float(part.left + width), float(part.top + height))


def polygon_of(mask: Mask, tolerance: float = 1.0) -> Polygon | None:
    """The outline of the largest part along the edges of its pixels, without its holes, simplified by `tolerance`."""
    import cv2

    if (part := next(connected_parts(mask), None)) is None:
        return None
    # With each pixel as 2 x 2, the outline passes through pixels whose number tells the edge that they lie at.
    doubled = np.repeat(np.repeat(np.pad(part.bitmap, 1).astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = (max(contours, key=cv2.contourArea) + 1) // 2
    points = cv2.approxPolyDP(outline, tolerance, closed=True)[:, 0]
    if len(points) < 3:
        points = outline[:, 0]
    points = points + np.array([part.left - 1, part.top - 1])
    return Polygon(tuple(float(value) for value in points.ravel()))


def filled(shape: Mask | Polygon, height: int, width: int) -> NDArray[np.bool_]:
    """The (height, width) bitmap of a shape on a frame: the pixels whose centres lie inside a polygon."""
    if isinstance(shape, Polygon):
        return _inside(shape, height, width)
    bitmap = np.zeros((height, width), bool)
    rows, columns = shape.bitmap.shape
    top, left = max(0, shape.top), max(0, shape.left)
    part = shape.bitmap[top - shape.top : height - shape.top, left - shape.left : width - shape.left]
    bitmap[top : min(height, shape.top + rows), left : min(width, shape.left + columns)] = part
    return bitmap


def _inside(polygon: Polygon, height: int, width: int) -> NDArray[np.bool_]:
    """Every edge that a row of pixels crosses turns inside into outside for all pixels to the right (even-odd rule)."""
    turns = np.zeros((height, width + 1), np.int32)
    x, y = np.asarray(polygon.points[0::2]), np.asarray(polygon.points[1::2])
    for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        first, last = (int(np.clip(np.ceil(edge - 0.5), 0, height)) for edge in (min(y0, y1), max(y0, y1)))
        if first < last:
            rows = np.arange(first, last)
            crossings = x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)
            np.add.at(turns, (rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)), 1)
    inside: NDArray[np.bool_] = np.cumsum(turns, axis=1)[:, :-1] % 2 == 1
    return inside

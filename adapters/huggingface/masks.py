"""From a network's small maps of logits to masks, rectangles and polygons of the frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

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
    """A (height, width) bitmap of the frame in the smallest box that holds it; None where it is empty."""
    pixels = np.asarray(bitmap.cpu() if hasattr(bitmap, "cpu") else bitmap, bool)
    rows = np.flatnonzero(pixels.any(axis=1))
    if not rows.size:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(pixels[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    # A copy: a view would keep the whole frame's bitmap in memory.
    return Mask(pixels[top:bottom, left:right].copy(), left, top)


def parts(mask: Mask, smallest: int = 1) -> Iterator[Mask]:
    """The connected parts of a mask (corners connect) that have at least `smallest` pixels, the largest first."""
    import cv2

    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.bitmap.astype(np.uint8), connectivity=8)
    for number in sorted(range(1, count), key=lambda n: -stats[n, cv2.CC_STAT_AREA]):
        x, y, width, height, area = (int(value) for value in stats[number])
        if area >= smallest:
            part = numbers[y : y + height, x : x + width] == number
            yield Mask(part, mask.left + x, mask.top + y)


def rectangle_of(mask: Mask) -> Rectangle | None:
    """The box around the largest part: specks must not make it larger."""
    if (part := next(parts(mask), None)) is None:
        return None
    height, width = part.bitmap.shape
    return Rectangle(float(part.left), float(part.top), float(part.left + width), float(part.top + height))


def polygon_of(mask: Mask, tolerance: float = 1.0) -> Polygon | None:
    """The outline of the largest part along the edges of its pixels, without its holes, simplified by `tolerance`."""
    import cv2

    if (part := next(parts(mask), None)) is None:
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


def filled(shape: Mask | Polygon | Rectangle, height: int, width: int) -> NDArray[np.bool_]:
    """The (height, width) bitmap of a shape on a frame; a polygon's by the even-odd rule."""
    from PIL import Image, ImageDraw

    if isinstance(shape, Mask):
        bitmap = np.zeros((height, width), bool)
        rows, columns = shape.bitmap.shape
        top, left = max(0, shape.top), max(0, shape.left)
        part = shape.bitmap[top - shape.top : height - shape.top, left - shape.left : width - shape.left]
        bitmap[top : min(height, shape.top + rows), left : min(width, shape.left + columns)] = part
        return bitmap
    canvas = Image.new("1", (width, height))
    if isinstance(shape, Polygon):
        # PIL's polygons include the pixels of their line: half a pixel inward is where CVAT means it.
        points = [value - 0.5 for value in shape.points]
    else:
        right, bottom = shape.right - 1, shape.bottom - 1
        points = [shape.left, shape.top, right, shape.top, right, bottom, shape.left, bottom]
    ImageDraw.Draw(canvas).polygon(points, fill=1)
    return np.asarray(canvas, bool)

"""What networks of faces give for a picture, with faces at known places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Faces: TypeAlias = Mapping[tuple[int, int, int, int], tuple[float, Sequence[float], Any]]
"""(stride, row, column, anchor) -> (score, four distances, five points), in strides from the cell's corner."""
ONE: Faces = {(16, 1, 2, 1): (0.9, [1, 0.5, 0.25, 0.5], [(-0.5, 0), (0, 0), (-0.25, 0.25), (-0.5, 0.5), (0, 0.5)])}
"""At stride 16, the third cell of the second row begins at (32, 16) of a 64x64 picture: the box is 16, 8, 36, 24."""


def scrfd_outputs(
    side: int,
    strides: Sequence[int],
    anchors: int,
    found: Faces,
    *,
    points: bool = True,
    names: str = "{part}_{stride}",
) -> dict[str, np.ndarray]:
    """SCRFD's outputs for a square picture in which these faces are found."""
    made = {}
    for part, depth in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in strides:
            across = -(-side // stride)
            rows = np.zeros((across * across * anchors, depth), np.float32)
            for (level, row, column, anchor), (score, sides, offsets) in found.items():
                if level == stride:
                    value = {"score": [score], "bbox": sides, "kps": np.ravel(offsets)}[part]
                    rows[(row * across + column) * anchors + anchor] = value
            if part != "kps" or points:
                made[names.format(part=part, stride=stride, number=448 + len(made))] = rows
    return made


def retinaface_outputs(*, logits: bool) -> dict[str, np.ndarray]:
    """A face by the second prior of a cell of stride 16 in the second row, third column: 128 pixels about (40, 24)."""
    place = 2 * 64 + 2 * (1 * 4 + 2) + 1
    told, boxes, points = np.zeros((168, 2)), np.zeros((168, 4)), np.zeros((168, 10))
    told[:] = (4, -4) if logits else (0.999, 0.001)
    told[place] = (0, np.log(9)) if logits else (0.1, 0.9)
    # Moved by (-0.8, 0.4) pixels; 128 * exp(0.2 * -8) = 25.84 pixels wide, half as high.
    boxes[place] = (-0.0625, 0.03125, -8, -8 + 5 * np.log(0.5))
    points[place] = np.ravel([(-0.625, 0), (0, 0), (-0.3125, 0.3125), (-0.625, 0.625), (0, 0.625)])
    return {"loc": boxes, "conf": told, "landms": points}

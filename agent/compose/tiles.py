"""Small objects in large pictures: `tiles:` with the option `of`, one detector that looks at overlapping parts.

Source: Akyon et al., Slicing Aided Hyper Inference, ICIP 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agent.compose.fusion import apart
from agent.compose.merging import Piece, merge
from agent.compose.parts import Parts, joint_facts
from agent.contract import ConfigError, Context, Detection, Frame, Shape
from agent.shapes.geometry import bounds, shift

EDGE = 2.0
"""Pixels from the border of a tile within which a thing may go on in the next one."""


class Tiles:
    """Runs its part on tiles of `size` pixels that overlap, and (`whole`) on the whole picture for what is large."""

    def __init__(
        self,
        name: str,
        *,
        device: str,
        parts: Parts,
        of: Any,
        size: int = 640,
        overlap: float = 0.2,
        whole: bool = True,
        iou: float = 0.5,
    ) -> None:
        if size < 32 or not 0 <= overlap < 0.9:
            raise ConfigError(f"{parts.owner}: size {size}, overlap {overlap}, allowed: from 32, and 0 to 0.9")
        (self._part,) = parts.detectors([of], "of", 1)
        self._size, self._overlap, self._whole, self._iou = size, overlap, whole, iou
        self.close = parts.close
        self.labels = list(self._part.labels)
        self.batch_size = 1
        self.default_threshold = self._part.loaded.default_threshold
        self.facts = joint_facts([self._part], size=str(size), overlap=f"{overlap:g}")

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        return [self._detect(frame, context) for frame in frames]

    def _detect(self, frame: Frame, context: Context) -> list[Detection]:
        tiles = tiles_of(frame.width, frame.height, self._size, self._overlap)
        views = [Frame(frame.index, frame.name, np.ascontiguousarray(tile.of(frame))) for tile in tiles]
        if self._whole and len(tiles) > 1:
            views.append(frame)
        found = apart(self._part.detect(views, context))
        whole = [Piece(d, (0, 0, frame.width, frame.height)) for own in found[len(tiles) :] for d in own]
        pieces = [_piece(d, tile, frame) for tile, own in zip(tiles, found, strict=False) for d in own]
        return sorted(merge([*pieces, *whole], self._iou), key=lambda d: -(1.0 if d.score is None else d.score))


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, frame: Frame) -> Any:
        return frame.image[self.top : self.bottom, self.left : self.right]


def tiles_of(width: int, height: int, size: int, overlap: float) -> list[Tile]:
    """Tiles of at most `size` pixels a side that cover a picture; neighbours share at least `overlap` of it."""
    columns, rows = _starts(width, size, overlap), _starts(height, size, overlap)
    return [Tile(x, y, min(x + size, width), min(y + size, height)) for y in rows for x in columns]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    count = int(np.ceil((length - size) / (size * (1 - overlap)))) + 1
    return [round(place) for place in np.linspace(0, length - size, count)]


def _piece(detection: Detection, tile: Tile, frame: Frame) -> Piece:
    """A tile's detection, in the tile's coordinates, as a piece of the frame."""
    view = tile.left, tile.top, tile.right, tile.bottom
    if detection.shape is None:
        return Piece(detection, view)
    moved = replace(detection, shape=shift(detection.shape, tile.left, tile.top))
    return Piece(moved, view, cut=_is_cut(detection.shape, tile, frame))


def _is_cut(shape: Shape, tile: Tile, frame: Frame) -> bool:
    """Whether a thing, given in the tile's coordinates, reaches a border of the tile that is not the picture's."""
    left, top, right, bottom = bounds(shape)
    width, height = tile.right - tile.left, tile.bottom - tile.top
    return (
        (tile.left > 0 and left <= EDGE)
        or (tile.top > 0 and top <= EDGE)
        or (tile.right < frame.width and right >= width - EDGE)
        or (tile.bottom < frame.height and bottom >= height - EDGE)
    )


load = Tiles

"""Masks as servers send them: COCO's run lengths, and maps of class numbers as PNG."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.contract import BadPrediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_PIXELS = 400_000_000


def at_size(grid: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """A map at the frame's size, each pixel from the nearest one of the map."""
    if grid.shape == (height, width):
        return grid
    rows = np.arange(height) * grid.shape[0] // height
    columns = np.arange(width) * grid.shape[1] // width
    found: NDArray[Any] = grid[rows[:, None], columns[None, :]]
    return found


def from_run_lengths(rle: Any) -> NDArray[np.bool_]:
    """The (h, w) bitmap of COCO's `{"size": [h, w], "counts": …}`, compressed or not.

    Runs go down the columns and begin with the background. Source: cocoapi, common/maskApi.c.
    """
    size = rle.get("size") if isinstance(rle, Mapping) else None
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise BadPrediction("a mask's run lengths have no size of height and width")
    height, width = size
    counts = rle.get("counts")
    try:
        runs = _decompressed(counts) if isinstance(counts, str) else [int(run) for run in counts]
    except (TypeError, ValueError, IndexError) as error:
        raise BadPrediction(f"a mask's run lengths cannot be read: {error!r}") from error
    if height * width > _MOST_PIXELS or any(run < 0 for run in runs) or sum(runs) != height * width:
        got = f"a sum of {sum(runs)}"
        raise BadPrediction(f"a mask's run lengths have {got}, allowed: {height} * {width}, its size")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompressed(text: str) -> list[int]:
    """COCO's string: five bits a character from the lowest on, and from the third run the difference to two before."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        run, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            run |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            place, shift = place + 1, shift + 5
            if not more and bits & 0x10:
                run |= -1 << shift
        runs.append(run + (runs[-2] if len(runs) > 2 else 0))
    return runs


def from_png(text: Any, what: str) -> NDArray[np.uint8]:
    """The (h, w) numbers of a base64 PNG with one channel."""
    from PIL import Image

    if not isinstance(text, str):
        raise BadPrediction(f"{what}: got {type(text).__name__}, allowed: a PNG in base64")
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise BadPrediction(f"{what}: got a PNG of mode {picture.mode}, allowed: one channel of 8 bits")
            grid = np.asarray(picture, np.uint8)
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPrediction(f"{what}: cannot be read as a PNG in base64: {error}") from error
    return grid

"""Maps over the network's input (masks, scores of classes) brought to the frame's pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._networks.pictures import Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_frame(
    grid: NDArray[Any],
    placement: Placement,
    input_size: tuple[int, int],
    box: tuple[int, int, int, int],
) -> NDArray[np.float32]:
    """A map over the whole input, (h, w) or (h, w, channels up to 4), at the frame's pixels in a box of them.

    Bilinear between the centres of the grid's cells. `input_size` is (width, height), `box` left, top, right, bottom
    in pixels of the frame, the far edges exclusive.
    """
    import cv2

    left, top, right, bottom = box
    cells_x, cells_y = grid.shape[1] / input_size[0], grid.shape[0] / input_size[1]
    scale_x, scale_y = placement.scale_x * cells_x, placement.scale_y * cells_y
    # Centre of pixel x in the box -> cell: ((left + x + 0.5) * scale + offset) * cells - 0.5.
    matrix = np.array(
        [
            [scale_x, 0, (left + 0.5) * scale_x + placement.left * cells_x - 0.5],
            [0, scale_y, (top + 0.5) * scale_y + placement.top * cells_y - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (right - left, bottom - top)
    moved = cv2.warpAffine(grid.astype(np.float32), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)

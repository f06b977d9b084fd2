"""Pictures made smaller, however narrow they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def shrunk(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The (height, width, 3) picture with both sides times `scale`, up to 1; no side becomes less than a pixel."""
    import cv2

    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

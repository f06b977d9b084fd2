"""Frames as a server takes them: encoded, and no larger than asked for."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from agent.contract import BadPrediction, ConfigError, Frame

_FINE = 90
"""From this quality on, colours keep the full resolution."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded frame, as base64, and the size that it was encoded at."""

    text: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Upload:
    """How frames are encoded."""

    quality: int = 95
    """JPEG's, 1 to 100."""
    lossless: bool = False
    """PNG in place of JPEG."""
    max_size: int = 0
    """Frames with a longer side are made smaller; 0 is never."""

    def check(self, owner: str) -> None:
        """ConfigError for a quality or a size that makes no sense."""
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"{owner}: quality: got {self.quality}, allowed: 1 to 100")
        if self.max_size < 0 or 0 < self.max_size < 32:
            raise ConfigError(f"{owner}: max_size: got {self.max_size}, allowed: 32 or more, or 0 for any size")

    def __call__(self, frame: Frame) -> Picture:
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(frame.image))
        if self.max_size and max(picture.size) > self.max_size:
            share = self.max_size / max(picture.size)
            size = [max(1, round(side * share)) for side in picture.size]
            picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
        file = io.BytesIO()
        try:
            if self.lossless:
                picture.save(file, "PNG", compress_level=1)
            else:
                # -1 leaves the sampling of colours to the encoder.
                picture.save(file, "JPEG", quality=self.quality, subsampling=0 if self.quality >= _FINE else -1)
        except (OSError, ValueError) as error:
            raise BadPrediction(f"{frame.name}: {frame.width}x{frame.height} cannot be encoded: {error}") from error
        return Picture(base64.b64encode(file.getvalue()).decode("ascii"), picture.width, picture.height)

"""Frames as networks want them: in batches of one size, resized, scaled, normalised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from agent.contract import Frame, ModelLoadFailed

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

_MODES = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""PIL's numbers of the ways to resize, in PyTorch's words."""


def picture(frame: Frame) -> Image:
    """PIL, since a processor guesses the axes of an array, and takes a picture of 3x3 pixels for channels."""
    from PIL import Image

    return Image.fromarray(frame.image)


def in_batches(frames: Sequence[Frame], size: int, run: Callable[[Sequence[Frame]], Sequence[T]]) -> list[T]:
    """What `run` gives for each frame, in the frames' order; at most `size` frames of the same shape at a time.

    Processors pad pictures of different sizes to the largest, which not every model is told to ignore: only frames of
    one size share a batch, so that what is found in a frame does not depend on its neighbours.
    """
    found: dict[int, T] = {}
    by_size = defaultdict(list)
    for place, frame in enumerate(frames):
        by_size[frame.image.shape].append(place)
    for places in by_size.values():
        for start in range(0, len(places), size):
            batch = places[start : start + size]
            found.update(zip(batch, run([frames[place] for place in batch]), strict=True))
    return [found[place] for place in range(len(frames))]


def size_text(size: Mapping[str, Any] | None) -> str:
    """A processor's size for a person."""
    size = dict(size or {})
    if {"height", "width"} <= size.keys():
        return f"{size['width']}x{size['height']}"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size.items() if value) or "unknown"


@dataclass(frozen=True, slots=True)
class Preparation:
    """What transformers' own processors do with torchvision, done with PyTorch: the same to 2.4e-7 for SAM 2."""

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    mode: str = "bilinear"
    antialias: bool = True
    keep_shape: bool = False
    """The picture fills the upper left of the square as far as its shape allows; the rest is 0."""

    @classmethod
    def read(
        cls,
        content: Mapping[str, Any],
        owner: str,
        *,
        side: int | None = None,
        antialias: bool = True,
        keep_shape: bool = False,
    ) -> Preparation:
        """From a preprocessor_config.json; `side` is what the network itself insists on."""
        size = content.get("size") or {}
        if side is not None:
            size = {"height": side, "width": side}
        if not isinstance(size, Mapping) or not {"height", "width"} <= size.keys():
            raise ModelLoadFailed(f"{owner}: preprocessor_config.json: size: got {size}, allowed: height and width")
        normal = content.get("do_normalize", True)
        return cls(
            int(size["height"]),
            int(size["width"]),
            tuple(content.get("image_mean") or (0.485, 0.456, 0.406)) if normal else (0.0, 0.0, 0.0),
            tuple(content.get("image_std") or (0.229, 0.224, 0.225)) if normal else (1.0, 1.0, 1.0),
            float(content.get("rescale_factor") or 1 / 255) if content.get("do_rescale", True) else 1.0,
            _MODES.get(int(content.get("resample") or 2), "bilinear"),
            antialias,
            keep_shape,
        )

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that a frame takes of the network's input."""
        if not self.keep_shape:
            return self.height, self.width
        ratio = max(self.height, self.width) / max(height, width)
        return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))

    def __call__(self, frames: Sequence[Frame]) -> Any:
        """(N, 3, H, W) float32 of frames of one size."""
        import torch

        pixels = torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2)
        if not self.antialias:
            pixels = pixels.float()  # as those do that were trained so: bytes are rounded
        size = self.filled(frames[0].height, frames[0].width)
        small = torch.nn.functional.interpolate(
            pixels, size=size, mode=self.mode, antialias=self.antialias, align_corners=False
        )
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        ready = (small.float() * self.scale - mean) / std
        return torch.nn.functional.pad(ready, (0, self.width - size[1], 0, self.height - size[0]))

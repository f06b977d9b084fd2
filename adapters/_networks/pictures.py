"""Frames made into a network's input, and the way back from its pixels to the frame's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Resize = Literal["letterbox", "letterbox-top-left", "stretch", "centre-crop"]
Colour = Literal["rgb", "bgr"]
Three = tuple[float, float, float]

IMAGENET_MEAN: Three = (0.485, 0.456, 0.406)
IMAGENET_STD: Three = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network wants its pictures: (pixel * scale - mean) / std for each channel in its own order."""

    resize: Resize = "letterbox"
    colour: Colour = "rgb"
    scale: float = 1 / 255
    mean: Three = (0.0, 0.0, 0.0)
    std: Three = (1.0, 1.0, 1.0)
    pad: int | None = 114
    """The gray around a letterboxed picture, 0..255; None is the mean, which the network sees as 0."""
    crop: float = 1.0
    """How much of the shorter side a centre crop shows; 0.875 for "resize to 256, then cut out 224"."""
    smooth: bool = False
    """Whether pictures are made smaller without aliasing, as PIL and torchvision do it, and OpenCV does not."""

    def __str__(self) -> str:
        values = f"x*{self.scale:.6g}"
        if any(self.mean) or self.std != (1.0, 1.0, 1.0):
            values = f"({values} - {_short(self.mean)}) / {_short(self.std)}"
        pad = "" if self.resize in ("stretch", "centre-crop") else f" on {'the mean' if self.pad is None else self.pad}"
        crop = f" of {self.crop:g}" if self.crop != 1 else ""
        return f"{self.resize}{crop}{pad}, {self.colour}, {values}"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies in the input: input pixel = frame pixel * scale + offset."""

    scale_x: float
    scale_y: float
    left: float
    top: float

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """A point of the frame as a point of the input."""
        return x * self.scale_x + self.left, y * self.scale_y + self.top

    def to_frame(self, boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
        """(n, 4) left, top, right, bottom of the input as pixels of the frame, cut at its edges."""
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        edge = np.array([width, height, width, height], np.float32)
        return np.clip((boxes - offset) / scale, 0, edge)


def placement(width: int, height: int, wide: int, high: int, recipe: Recipe) -> Placement:
    """Where a frame of `width` x `height` lies in an input of `wide` x `high`."""
    if recipe.resize == "centre-crop":
        left, top, new_width, new_height = _seen(width, height, wide, high, recipe.crop)
        scale_x, scale_y = wide / new_width, high / new_height
        return Placement(scale_x, scale_y, -left * scale_x, -top * scale_y)
    new_width, new_height, left, top = _box(width, height, wide, high, recipe.resize)
    return Placement(new_width / width, new_height / height, left, top)


def place(image: NDArray[np.uint8], recipe: Recipe, target: NDArray[Any]) -> Placement:
    """Writes a frame, (h, w, 3) uint8 RGB, into a (3, H, W) view of the network's input."""
    import cv2

    _, high, wide = target.shape
    height, width = image.shape[:2]
    where = placement(width, height, wide, high, recipe)
    new_width, new_height, left, top = wide, high, 0, 0
    if recipe.resize == "centre-crop":
        x, y, width, height = _seen(width, height, wide, high, recipe.crop)
        image = image[y : y + height, x : x + width]
    else:
        new_width, new_height, left, top = _box(width, height, wide, high, recipe.resize)
    small = _resized(image, new_width, new_height, recipe.smooth)
    planes = cv2.split(small)
    if (new_width, new_height) != (wide, high):
        _fill(target, recipe)
    inside = target[:, top : top + new_height, left : left + new_width]
    for channel, plane in enumerate(planes if recipe.colour == "rgb" else planes[::-1]):
        _write(inside[channel], plane, recipe, channel)
    return where


def _resized(image: NDArray[np.uint8], width: int, height: int, smooth: bool) -> NDArray[np.uint8]:
    if smooth:
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    import cv2

    # OpenCV's bilinear without antialiasing is what the YOLO families are trained with; 20x faster than PIL's.
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _seen(width: int, height: int, wide: int, high: int, crop: float) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a frame's middle in the shape of the input: the largest part, or less by `crop`."""
    ratio = max(wide / width, high / height) / crop
    seen_width, seen_height = min(width, max(1, round(wide / ratio))), min(height, max(1, round(high / ratio)))
    return (width - seen_width) // 2, (height - seen_height) // 2, seen_width, seen_height


def _box(width: int, height: int, wide: int, high: int, resize: Resize) -> tuple[int, int, int, int]:
    """(width, height, left, top) of the resized frame in the input; as yolov5's and YOLOX's letterboxes round."""
    if resize == "stretch":
        return wide, high, 0, 0
    ratio = min(wide / width, high / height)
    if resize == "letterbox-top-left":
        # Of 333 * (640 / 333) no pixel is lost.
        return max(1, int(width * ratio + 1e-6)), max(1, int(height * ratio + 1e-6)), 0, 0
    new_width, new_height = max(1, round(width * ratio)), max(1, round(height * ratio))
    left, top = round((wide - new_width) / 2 - 0.1), round((high - new_height) / 2 - 0.1)
    return new_width, new_height, left, top


def _fill(target: NDArray[Any], recipe: Recipe) -> None:
    for channel in range(3):
        factor, shift = _line(recipe, channel)
        target[channel] = 0 if recipe.pad is None else recipe.pad * factor + shift


def _write(target: NDArray[Any], plane: NDArray[np.uint8], recipe: Recipe, channel: int) -> None:
    factor, shift = _line(recipe, channel)
    if factor == 1 and shift == 0:
        np.copyto(target, plane, casting="unsafe")
    else:
        np.multiply(plane, np.float32(factor), out=target, casting="unsafe")
        if shift:
            np.add(target, target.dtype.type(shift), out=target, casting="unsafe")


def _line(recipe: Recipe, channel: int) -> tuple[float, float]:
    return recipe.scale / recipe.std[channel], -recipe.mean[channel] / recipe.std[channel]


def _short(values: Three) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "[" + " ".join(f"{v:g}" for v in values) + "]"

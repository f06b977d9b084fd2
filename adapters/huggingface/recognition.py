"""PP-OCR's text recognition (arXiv 2009.09941): a chance for each character in each column, read as CTC has it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.huggingface.opening import Opened
from agent.contract import Frame, ModelLoadFailed

_BLANK = 0


class LineRecognizer:
    """Brings lines to one height, as transformers' processors do, which need torchvision for it."""

    def __init__(self, opened: Opened) -> None:
        self.model = opened.model("AutoModelForTextRecognition")
        content = opened.preparation()
        self._opened = opened
        self._characters = [str(character) for character in content.get("character_list") or []]
        if not self._characters:
            raise ModelLoadFailed(f"{opened.owner}: preprocessor_config.json has no character_list")
        size, room = content.get("size") or {}, content.get("pad_size") or {}
        self._height, self._usual = int(size.get("height", 48)), int(size.get("width", 320))
        self._room, self._widest = int(room.get("width", self._usual)), int(content.get("max_image_width", 3200))
        self._mean, self._std = content.get("image_mean") or [0.5] * 3, content.get("image_std") or [0.5] * 3
        # The sixth version was trained on pictures as OpenCV has them: blue first, resized without smoothing.
        self._like_opencv = "V6" in str(content.get("image_processor_type", ""))
        self.size = f"{self._usual}x{self._height}, up to {self._widest} wide"

    def lines(self, pictures: Sequence[Frame]) -> list[tuple[str, float]]:
        """What each picture says, and the mean chance of its characters; lines of one width share a batch."""
        import torch

        by_width = defaultdict(list)
        for place, one in enumerate(pictures):
            by_width[self._width(one)].append(place)
        found: dict[int, tuple[str, float]] = {}
        for width, places in by_width.items():
            pixels = torch.cat([self._pixels(pictures[place], width) for place in places])
            with torch.inference_mode():
                outputs = self.model(**self._opened.placed({"pixel_values": pixels}))
            chances = outputs.last_hidden_state.float()
            self._opened.check(scores=chances)
            found.update(zip(places, [ctc_line(one, self._characters) for one in chances.cpu().numpy()], strict=True))
        return [found[place] for place in range(len(pictures))]

    def _width(self, one: Frame) -> int:
        return min(self._widest, max(1, math.ceil(self._height * one.width / one.height)))

    def _pixels(self, one: Frame, width: int) -> Any:
        import torch

        pixels = torch.from_numpy(one.image.astype(np.float32)).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(
            pixels,
            size=(self._height, width),
            mode="bilinear",
            antialias=not self._like_opencv,
            align_corners=False,
        )
        if self._like_opencv:
            small = small[:, [2, 1, 0]]
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self._mean, self._std))
        return torch.nn.functional.pad((small / 255 - mean) / std, (0, max(0, self._room - width)))


def ctc_line(chances: Any, characters: Sequence[str]) -> tuple[str, float]:
    """The best character of each of (columns, characters); one that goes on is written once, and blanks separate."""
    best = chances.argmax(-1)
    kept = best != _BLANK
    kept[1:] &= best[1:] != best[:-1]
    if not kept.any():
        return "", 0.0
    text = "".join(characters[index] for index in best[kept].tolist() if index < len(characters))
    return text.strip(), float(min(1.0, max(0.0, chances.max(-1)[kept].mean())))

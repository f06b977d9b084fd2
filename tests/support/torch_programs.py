"""Small PyTorch programs with known answers, saved as TorchScript and as torch.export archives."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Constant(torch.nn.Module):
    """Gives the same answers for each picture of a batch."""

    def __init__(self, answers: Any) -> None:
        super().__init__()
        self.count = len(answers)
        for number, value in enumerate(answers):
            self.register_buffer(f"answer{number}", torch.from_numpy(np.asarray(value)[None]))

    def forward(self, images: torch.Tensor) -> Any:
        found = []
        for number in range(self.count):
            answer = getattr(self, f"answer{number}")
            sides = [images.shape[0]] + [1] * (answer.dim() - 1)
            found.append(answer + (images.mean(dim=(1, 2, 3)) * 0).to(answer.dtype).reshape(sides))
        return tuple(found) if self.count > 1 else found[0]


class MeanColour(torch.nn.Module):
    """The mean of each channel of the left and of the right half: (N, 6), a descriptor."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[3] // 2
        return torch.cat([images[..., :half].mean(dim=(2, 3)), images[..., half:].mean(dim=(2, 3))], dim=1)


class FaceFinder(torch.nn.Module):
    """Finds squares of 16 x 16 input pixels in strong colours, on a grid of 16, in the form of YOLOv8's poses.

    (N, 4 + 1 + 3 * 68, 84) of a 64 x 64 input: as sure as the colours are strong. The landmarks are an oval around the
    middle, the first at the right, and then clockwise.
    """

    def __init__(self, count: int = 68) -> None:
        super().__init__()
        turns = torch.arange(count) * 2 * torch.pi / count
        self.register_buffer("oval", torch.stack([6 * torch.cos(turns), 4 * torch.sin(turns)], dim=1))
        cells = torch.arange(4) * 16.0 + 8
        across, down = cells.repeat(4), cells.repeat_interleave(4)
        self.register_buffer("middles", torch.stack([across, down]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        colours = torch.nn.functional.avg_pool2d(images.amax(1, keepdim=True) - images.amin(1, keepdim=True), 16)
        sure = colours.flatten(2)
        count = images.shape[0]
        middles = self.middles[None].expand(count, 2, 16)
        places = middles[:, None] + self.oval[None, :, :, None]
        points = torch.cat([places, torch.ones_like(places[:, :, :1])], dim=2).flatten(1, 2)
        faces = torch.cat([middles, torch.full_like(middles, 16.0), sure, points], dim=1)
        # The cells at strides 8 and 32 find nothing.
        width = faces.shape[1]
        none, last = images.new_zeros(count, width, 64), images.new_zeros(count, width, 4)
        none[:, :4], last[:, :4] = 32.0, 32.0
        return torch.cat([none, faces, last], dim=2)


class Landmarks(torch.nn.Module):
    """(N, 2 * count): points on a row, at shares of the picture; the row lies where the picture is brightest."""

    def __init__(self, count: int = 68) -> None:
        super().__init__()
        self.register_buffer("across", (torch.arange(count) + 0.5) / count)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images.mean(dim=(1, 3))
        high = (rows.argmax(dim=1).to(images.dtype) + 0.5) / images.shape[2]
        across = self.across[None].expand(images.shape[0], -1)
        return torch.stack([across, high[:, None].expand_as(across)], dim=2).flatten(1)


class Encoder(torch.nn.Module):
    """The mean of 4 x 4 pixels."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 4)


class Decoder(torch.nn.Module):
    """SAM's prompts; the mask is a disc of 8 input pixels around the first point, the opinion of it 0.75."""

    def forward(self, image_embeddings: torch.Tensor, point_coords: torch.Tensor, point_labels: torch.Tensor) -> Any:
        cells = torch.arange(16, dtype=torch.float32) * 4 + 2
        x, y = point_coords[0, 0, 0], point_coords[0, 0, 1]
        away = (cells[None, :] - x) ** 2 + (cells[:, None] - y) ** 2
        masks = (64 - away)[None, None] + 0 * image_embeddings.mean() + 0 * point_labels.sum()
        return masks, torch.full((1, 1), 0.75)


def sam_pair(folder: Path, form: str) -> list[Path]:
    """`Encoder` and `Decoder` of 64 x 64 inputs, as "torchscript" or as "pt2"."""
    paths = [folder / f"encoder.{form}", folder / f"decoder.{form}"]
    prompts = (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 2), torch.zeros(1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, module, example in zip(
            paths, (Encoder(), Decoder()), ((torch.zeros(1, 3, 64, 64),), prompts), strict=True
        ):
            if form == "torchscript":
                torch.jit.save(torch.jit.trace(module, example), str(path))
                continue
            count = torch.export.Dim("points", min=2)
            shapes = (None, {1: count}, {1: count}) if len(example) == 3 else None
            torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), str(path))
    return paths


def script(path: Path, module: torch.nn.Module, *, side: int = 64, metadata: Mapping[str, Any] | None = None) -> Path:
    """A traced TorchScript archive, with what Ultralytics leaves in its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), torch.zeros(1, 3, side, side))
        torch.jit.save(traced, str(path), _extra_files={"config.txt": json.dumps(metadata)} if metadata else {})
    return path


def export(path: Path, module: torch.nn.Module, *, side: int = 64, batch: bool = False) -> Path:
    """An archive of torch.export, for any batch where asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},) if batch else None
        example = (torch.zeros(2 if batch else 1, 3, side, side),)
        torch.export.save(torch.export.export(module.eval(), example, dynamic_shapes=shapes), str(path))
    return path

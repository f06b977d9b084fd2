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

"""What a graph takes and gives, found out by running it once on a gray picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Signature:
    """The outputs of one gray picture, and what else tells the families of detectors apart."""

    width: int
    height: int
    outputs: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    classes: int | None = None
    """How many class names are known; None where none are."""
    asked: str = ""
    """The head that the options name, where they name one."""

    def cells(self, *strides: int) -> int:
        """How many grid cells the input has at these strides; a part of a cell counts as one."""
        return sum(-(-self.height // s) * -(-self.width // s) for s in strides)

    @property
    def anchors(self) -> tuple[int, int]:
        """The cells at strides 8, 16, 32, and with 64 as well (the P6 models)."""
        return self.cells(8, 16, 32), self.cells(8, 16, 32, 64)

    def shaped(self, rank: int, last: int | None = None) -> list[str]:
        """The names of the float outputs of that rank, and with that last dimension."""
        return [
            name
            for name, value in self.outputs.items()
            if value.ndim == rank and value.dtype.kind == "f" and last in (None, value.shape[-1])
        ]

    def named(self, *words: str) -> list[str]:
        """The names of the outputs that have one of the words in them."""
        return [name for name in self.outputs if any(word in name.lower() for word in words)]

    def __str__(self) -> str:
        return ", ".join(f"{name} {list(value.shape)}" for name, value in self.outputs.items())


def grid(width: int, height: int, strides: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """((n, 2) column and row, (n, 1) stride) of every cell, level after level, row after row."""
    cells, sizes = [], []
    for stride in strides:
        rows, columns = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        sizes.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(sizes).astype(np.float32)

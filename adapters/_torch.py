"""Where a PyTorch model runs, and how precisely."""

from __future__ import annotations

import os
from typing import Any, Literal

from agent.contract import ConfigError, ModelLoadFailed

Precision = Literal["auto", "float32", "float16", "bfloat16"]


def import_torch() -> Any:
    """PyTorch, its idle OpenMP threads asleep instead of spinning, where nobody has imported it before.

    Spinning threads and those that decode the next frames take the cores from each other at every barrier: on two
    busy cores a small detector needed 1371 ms a frame instead of 60.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    return torch


def choose_device(device: str, owner: str) -> str:
    """The device for `auto`, or the one asked for; ModelLoadFailed where this machine has it not."""
    torch = import_torch()
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise ConfigError(f"{owner}: device: got {device!r}, allowed: auto, cpu, cuda, cuda:N, mps")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelLoadFailed(f"{owner}: device {device!r}: PyTorch {torch.__version__} finds no CUDA here; use cpu")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise ModelLoadFailed(f"{owner}: device {device!r}: there are {torch.cuda.device_count()} of them")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ModelLoadFailed(f"{owner}: device {device!r}: PyTorch finds no Metal here; use cpu")
    return device


def choose_precision(precision: Precision, device: str, stored: Any = None) -> Any:
    """The torch dtype: half precision on a GPU (twice as fast, the same boxes), single elsewhere.

    Weights that are `stored` in bfloat16 keep it, where the GPU can: float16 has not its range.
    """
    import torch

    if precision != "auto":
        return getattr(torch, precision)
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if stored == torch.bfloat16 and torch.cuda.is_bf16_supported() else torch.float16

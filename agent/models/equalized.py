"""Histogram equalisation of what a model sees: for dark, flat or unevenly lit pictures; an option of every model.

Sources: Pizer et al., Adaptive Histogram Equalization and Its Variations, 1987 (CLAHE); OpenCV's equalizeHist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, TypeAlias, get_args

from agent.contract import ConfigError, Frame

Method: TypeAlias = Literal["global", "clahe"]
CLIP, TILES = 2.0, (8, 8)
"""Of CLAHE: how much of a histogram's peak stays, and into how many tiles a picture is cut."""
_SEES = ("detect", "embed", "begin", "follow", "describe", "estimate", "read")
"""The methods whose first argument is a frame, or frames."""


class Equalized:
    """A model behind a filter: whatever it can, on equalised frames."""

    def __init__(self, model: Any, method: Method) -> None:
        # Attributes of its own, not a __getattr__: what a model can is told by what it has.
        for name in dir(model):
            if not name.startswith("_"):
                value = getattr(model, name)
                setattr(self, name, _filtered(value, method) if name in _SEES and callable(value) else value)


def wanted_method(value: object, owner: str) -> Method | None:
    """The method that the option `equalize` names; ConfigError for anything else."""
    if value in (None, False, "no"):
        return None
    if value not in get_args(Method):
        raise ConfigError(f"{owner}: option 'equalize': got {value!r}, allowed: {', '.join(get_args(Method))}")
    return value  # type: ignore[return-value]


def equalize(frame: Frame, method: Method) -> Frame:
    """The frame with its brightness spread over the whole range; colours keep their hue."""
    import cv2
    import numpy as np

    parts = cv2.cvtColor(frame.image, cv2.COLOR_RGB2YCrCb)
    brightness = np.ascontiguousarray(parts[..., 0])
    if method == "global":
        parts[..., 0] = cv2.equalizeHist(brightness)
    else:
        parts[..., 0] = cv2.createCLAHE(clipLimit=CLIP, tileGridSize=TILES).apply(brightness)
    return Frame(frame.index, frame.name, cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB))


def _filtered(look: Callable[..., Any], method: Method) -> Callable[..., Any]:
    @wraps(look)
    def filtered(seen: Frame | Sequence[Frame], *more: Any, **named: Any) -> Any:
        if isinstance(seen, Frame):
            return look(equalize(seen, method), *more, **named)
        return look([equalize(frame, method) for frame in seen], *more, **named)

    return filtered

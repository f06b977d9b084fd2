"""How a download goes on: a bar for a person who watches, lines for a log."""

from __future__ import annotations

import io
import logging
import sys
import time
from typing import Any

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two lines."""


def bar_class(owner: str) -> type | None:
    """The class for huggingface_hub's `tqdm_class`; None for its own bars."""
    if sys.stderr.isatty():
        return None
    from tqdm.std import tqdm  # type: ignore[import-untyped]

    class Lines(tqdm):  # type: ignore[misc]
        """A bar that nobody sees, and a line in the log now and then."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            self._told = time.monotonic()
            # There is one bar for files, one for bytes received, and one for bytes written.
            self._bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "file": io.StringIO(), "mininterval": EVERY})

        def display(self, *args: Any, **options: Any) -> None:
            if self._bytes and self.n and time.monotonic() - self._told >= EVERY:
                self._told = time.monotonic()
                self._tell("downloading")

        def close(self) -> None:
            if self._bytes and not self.disable and self.n:
                self._tell("downloaded")
            self._bytes = False
            super().close()

        def _tell(self, what: str) -> None:
            total = f" of {_size(self.total)}" if self.total else ""
            log.info("%s: %s %s%s", owner, what, _size(self.n), total)

    return Lines


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"

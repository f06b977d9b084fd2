"""Memory for decoded pictures, used again and again.

A fresh picture's memory comes from the operating system page by page, and goes back there: that costs nearly as much
as decoding a JPEG into it. Kept in the allocator's heap instead, pictures of all sizes among longer-lived things hold
a third more memory in a long run than in a short one.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_BYTES = 96 * 2**20
"""What is kept for the next pictures: some 25 of 1280x960."""
STEP = 2**18
"""Blocks are multiples of it, so that pictures of nearly the same size share them."""
SMALL = 2**19
"""Smaller pictures are the allocator's business."""


class Buffers:
    """Hands out arrays for pictures; memory returns by itself when the last array that looks at it is gone."""

    def __init__(self, keep: int = KEPT_BYTES) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._free: deque[NDArray[np.uint8]] = deque()
        self._kept = 0
        self._returned: deque[NDArray[np.uint8]] = deque()
        """What has come back and is not counted yet: arrays end anywhere, also in a thread that holds the lock."""

    @property
    def kept(self) -> int:
        """Bytes that wait for the next pictures."""
        return self._kept

    def empty(self, height: int, width: int) -> NDArray[np.uint8]:
        """An array (height, width, 3) with arbitrary content."""
        size = height * width * 3
        if size < SMALL:
            return np.empty((height, width, 3), np.uint8)
        block = self._take(-(-size // STEP) * STEP)
        # The loan is an object of its own, so that its end can be noticed; whatever looks at the memory holds it.
        loan = (ctypes.c_ubyte * size).from_buffer(block)  # type: ignore[arg-type]
        weakref.finalize(loan, self._give, block).atexit = False
        return np.frombuffer(memoryview(loan), np.uint8).reshape(height, width, 3)

    def _take(self, size: int) -> NDArray[np.uint8]:
        with self._lock:
            self._settle()
            for place, block in enumerate(self._free):
                if block.nbytes == size:
                    del self._free[place]
                    self._kept -= size
                    return block
        return np.empty(size, np.uint8)

    def _give(self, block: NDArray[np.uint8]) -> None:
        self._returned.append(block)
        if self._lock.acquire(blocking=False):  # or else whoever has the lock, or takes it next, sees to it
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._free.append(block)
            self._kept += block.nbytes
            while self._kept > self._keep:  # of sizes that nobody asks for any more, the oldest go first
                self._kept -= self._free.popleft().nbytes


BUFFERS = Buffers()
"""The process's own."""

"""Memory that many share."""

from __future__ import annotations

import threading


class Budget:
    """Bytes that all may hold together. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._lock = threading.Lock()

    def take(self, count: int, *, always: bool = False, alone: int = 0) -> bool:
        """Whether there is room, or nobody holds anything besides the `alone` bytes that the caller holds."""
        with self._lock:
            if not always and self.used > alone and self.used + count > self.limit:
                return False
            self.used += count
            return True

    def give(self, count: int) -> None:
        with self._lock:
            self.used -= count

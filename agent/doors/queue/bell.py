"""A doorbell for each function's queue: who rings says which category may have something for us."""

from __future__ import annotations

import threading

from agent.cvat.functions_api import CATEGORIES, Category


class Bell:
    """What may wait for us, by category. At first, everything may."""

    def __init__(self) -> None:
        self._pending = set(CATEGORIES)
        self._rings = 0
        self._changed = threading.Condition()

    @property
    def rings(self) -> int:
        """How often it was rung."""
        return self._rings

    def ring(self, *categories: Category) -> None:
        """Something may be there; without a category, anything."""
        with self._changed:
            self._pending.update(categories or CATEGORIES)
            self._rings += 1
            self._changed.notify_all()

    def pending(self) -> list[Category]:
        """The categories that are worth asking for, the most urgent first."""
        with self._changed:
            return [category for category in CATEGORIES if category in self._pending]

    def answer(self, category: Category) -> None:
        """Somebody goes to the door: what rings from now on is something new."""
        with self._changed:
            self._pending.discard(category)

    def wait(self, heard: int, seconds: float) -> bool:
        """Waits until it is rung again after `heard` rings; False after that many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._rings != heard, seconds)

"""Several calls at once, for whoever may leave before they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

THREADS = 4


def at_once(work: Callable[[In], Out], items: Sequence[In], threads: int = THREADS) -> list[Out]:
    """What `work` gives for each item, in their order; the first error ends it.

    Who is interrupted while waiting (Ctrl-C) leaves at once: a pool of the standard library's would be waited for, here
    and at the end of the program, for as long as a silent server likes.
    """
    if len(items) <= 1:
        return [work(item) for item in items]
    left, found = list(enumerate(items))[::-1], dict[int, Out]()
    errors: list[BaseException] = []
    changed = threading.Condition()

    def run() -> None:
        while True:
            with changed:
                if errors or not left:
                    return
                place, item = left.pop()
            try:
                made = work(item)
            except BaseException as error:  # raised where it is waited for
                with changed:
                    errors.append(error)
                    changed.notify_all()
                return
            with changed:
                found[place] = made
                changed.notify_all()

    try:
        for number in range(min(threads, len(items))):
            threading.Thread(target=run, name=f"at-once-{number}", daemon=True).start()
        with changed:
            changed.wait_for(lambda: errors or len(found) == len(items))
    finally:
        left.clear()
    if errors:
        raise errors[0]
    return [found[place] for place in range(len(items))]

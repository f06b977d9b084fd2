"""A headless Chromium: the system's own, driven by playwright, which downloads nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

PLACES = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def chromium() -> str | None:
    """Where it is, None where there is none."""
    return next((place for place in PLACES if Path(place).exists()), shutil.which("chromium"))


class Browser:
    """Runs functions of a page in a thread of its own: playwright keeps an event loop where it runs, which other tests
    must not meet."""

    def __init__(self, folder: Path, **context: Any) -> None:
        self.problems: list[str] = []
        """Errors of scripts, refusals by the page's policy, requests that failed."""
        self._work: SimpleQueue[Any] = SimpleQueue()
        self._broken: BaseException | None = None
        self._folder, self._context = folder, context
        self._thread = Thread(target=self._run, name="browser", daemon=True)
        self._thread.start()
        self.do(lambda page: page.title())

    def do(self, work: Callable[[Any], T]) -> T:
        """What `work(page)` gives."""
        answer: SimpleQueue[Any] = SimpleQueue()
        self._work.put((work, answer))
        while True:
            try:
                found, error = answer.get(timeout=1)
                break
            except Empty:
                if not self._thread.is_alive():
                    raise RuntimeError("the browser has ended") from self._broken
        if error is not None:
            raise error
        result: T = found
        return result

    def close(self) -> None:
        self._work.put(None)
        self._thread.join(30)

    def _run(self) -> None:
        try:
            self._drive()
        except BaseException as error:
            self._broken = error

    def _drive(self) -> None:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as driver:
            context = driver.chromium.launch_persistent_context(
                str(self._folder), executable_path=chromium(), headless=True, args=list(ARGUMENTS),
                timeout=60_000, **self._context,
            )  # fmt: skip
            context.set_default_timeout(15_000)
            page = context.pages[0]
            page.on("console", lambda said: self._note(said.type, said.text))
            page.on("pageerror", lambda error: self.problems.append(str(error)))
            while (item := self._work.get()) is not None:
                work, answer = item
                try:
                    answer.put((work(page), None))
                except BaseException as error:
                    answer.put((None, error))
            context.close()

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(text)


@contextmanager
def browser(folder: Path, **context: Any) -> Iterator[Browser]:
    """A browser with a new, empty profile in this folder."""
    opened = Browser(folder, **context)
    try:
        yield opened
    finally:
        opened.close()

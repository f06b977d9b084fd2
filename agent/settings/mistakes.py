"""What is wrong in service.toml, collected so that all of it is told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from agent.errors import ConfigError, SidecarError

T = TypeVar("T")


class Mistakes:
    """Keeps the ConfigErrors of a `with` block; at its end they are raised as one that has a line for each."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    def __enter__(self) -> Mistakes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # What else broke off may be gone once these are mended.
        if error is None or isinstance(error, SidecarError):
            self._tell()

    def add(self, text: str) -> None:
        """Keeps a mistake of one line."""
        self._found.append(ConfigError(text))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps the ConfigError that ends a block; what follows the block is done all the same."""
        try:
            yield
        except ConfigError as error:
            self._found.append(error)

    def get(self, read: Callable[[], T], instead: T) -> T:
        """What `read` gives; where it raises a ConfigError, that is kept, and `instead` stands for it."""
        with self.kept():
            return read()
        return instead

    def _tell(self) -> None:
        texts = dict.fromkeys(text for error in self._found for text in error.mistakes)
        if len(texts) > 1:
            raise ConfigError(*texts)
        if texts:
            raise self._found[0]

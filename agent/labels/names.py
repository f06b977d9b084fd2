"""When two names are the same, and which was meant by one that is not there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_Named)

_IRREGULAR = {
    "people": "person", "men": "man", "children": "child", "mice": "mouse", "geese": "goose", "feet": "foot",
    "teeth": "tooth",
}  # fmt: skip
_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), *_IRREGULAR.items())


def fold(name: str) -> str:
    """A name without case, spaces, `-` and `_`."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def singulars(name: str) -> set[str]:
    """What a folded English name is the plural of, if it is one; wrong guesses match no other name."""
    return {
        name.removesuffix(ending) + instead
        for ending, instead in _ENDINGS
        if name.endswith(ending) and (len(name) - len(ending) >= 2 or ending in _IRREGULAR)
    }


class NameIndex(Generic[Named]):
    """Things that are found by name: the very name, else without case and separators, else but for the plural."""

    def __init__(self, items: Iterable[Named]) -> None:
        self._exact: dict[str, list[Named]] = {}
        self._folded: dict[str, list[Named]] = {}
        self._by_singular: dict[str, list[Named]] = {}
        for item in items:
            folded = fold(item.name)
            self._exact.setdefault(item.name, []).append(item)
            self._folded.setdefault(folded, []).append(item)
            for singular in singulars(folded):
                self._by_singular.setdefault(singular, []).append(item)

    def find(self, name: str) -> tuple[Named | None, str]:
        """(the one thing of that name, how) or (None, why not): nothing is guessed where two names would do."""
        folded = fold(name)
        plural = [*self._by_singular.get(folded, ())]
        for singular in sorted(singulars(folded)):
            plural += self._folded.get(singular, ())
        ways = (
            ("same name", self._exact.get(name, [])),
            ("same name but for case and separators", self._folded.get(folded, [])),
            ("same name but for the plural", plural),
        )
        for how, found in ways:
            if len(found) == 1:
                return found[0], how
            if found:
                return None, "ambiguous: " + " / ".join(item.name for item in found)
        return None, "no such name"

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def names(self) -> list[str]:
        return list(self._exact)


def close_names(name: str, names: Sequence[str], count: int = 2) -> list[str]:
    """Those of the names that are spelt nearly so, the nearest first."""
    folded = {fold(candidate): candidate for candidate in names}
    return [folded[key] for key in difflib.get_close_matches(fold(name), folded, n=count, cutoff=0.7)]


def meant(name: str, names: Sequence[str]) -> str:
    """The end of an error message about a name that is not there."""
    if near := close_names(name, names, 1):
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {some(names)}" if names else "; there are none"


def some(names: Sequence[str], most: int = 8) -> str:
    """A few of the names, and how many more there are."""
    return ", ".join(names[:most]) + (f", … and {len(names) - most} more" if len(names) > most else "")

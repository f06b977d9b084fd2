"""What an open-vocabulary model is to look for: labels, and the words that it is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters._names import as_names, vocabulary
from agent.contract import ConfigError, Context

TASK = "task"
"""In place of a list of labels: those of each task."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """What is asked for, and the label of what is found."""

    label: str
    words: str


def phrases_of(labels: str | list[str] | None, phrases: Mapping[str, Any] | None, owner: str) -> tuple[Phrase, ...]:
    """The labels of the options, each asked for by its name, or by the phrase or the phrases that it is given."""
    named = (
        vocabulary(labels, owner) if isinstance(labels, str) else as_names(labels, f"{owner}: labels") if labels else []
    )
    own = dict(phrases or {})
    wanted = list(dict.fromkeys([*(name for name in named if name), *own]))
    if not wanted:
        raise ConfigError(
            f'{owner}: finds what it is told to, and was told nothing, allowed: labels = ["car", …],'
            ' or phrases = {car = "a red car", …}; `annotate` and rules take labels = "task" for those of the task'
        )
    return tuple(Phrase(label, words) for label in wanted for words in _words(label, own.get(label, label), owner))


def _words(label: str, value: Any, owner: str) -> list[str]:
    several = [value] if isinstance(value, str) else value
    wrong = not isinstance(several, list | tuple) or not several
    if wrong or not all(isinstance(one, str) and one.strip() for one in several):
        raise ConfigError(f"{owner}: phrases: {label!r}: got {value!r}, allowed: a phrase, or a list of phrases")
    return [" ".join(one.replace("_", " ").split()) for one in several]


class Vocabulary:
    """What a model may be asked for: the labels of its options, or of each task."""

    def __init__(self, labels: str | list[str] | None, phrases: Mapping[str, Any] | None, owner: str) -> None:
        self._own, self._owner = dict(phrases or {}), owner
        self.open = labels == TASK
        """Whether the task has a say."""
        # A task's labels are not known yet; the phrases for some of them are.
        self.phrases = () if self.open and not self._own else phrases_of(None if self.open else labels, phrases, owner)

    def asked(self, context: Context) -> tuple[Phrase, ...]:
        """The phrases whose labels have a place in the task: asking for less is faster, and confuses less."""
        if context.labels is None:
            return self.phrases
        known = [phrase for phrase in self.phrases if phrase.label in context.labels]
        if not self.open:
            return tuple(known)
        more = sorted(context.labels - self._own.keys())
        return (*known, *(Phrase(label, words) for label in more for words in _words(label, label, self._owner)))

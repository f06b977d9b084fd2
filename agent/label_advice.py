"""What may have been meant where labels do not match: by spelling, by synonyms, by our label maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from agent.domain import Label, TaskLabel
from agent.label_map import LabelMap, known_label_maps, load_label_map
from agent.label_match import DroppedLabel
from agent.label_names import NameIndex, close_names, fold, some

NO_SUCH_LABEL = "the task has no label of that name"


@lru_cache(maxsize=1)
def _our_maps() -> tuple[LabelMap, ...]:
    return tuple(load_label_map(name) for name in known_label_maps())


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, list[str]]:
    """Folded name -> other names that our vocabularies and maps know for it."""
    found: dict[str, list[str]] = {}
    for label_map in _our_maps():
        for label, others in label_map.synonyms.items():
            group = [label, *others]
            for name in group:
                found.setdefault(fold(name), []).extend(other for other in group if other != name)
        for name, entry in label_map.labels.items():
            if entry.name is not None:
                found.setdefault(fold(name), []).append(entry.name)
    return found


def suggestions(name: str, task_labels: Sequence[TaskLabel], model_labels: Sequence[Label]) -> tuple[str, ...]:
    """Task labels that may be meant by a model's label.

    By spelling, only those that are no label of the model themselves: "bear" is not "pear" where it has both.
    """
    index = NameIndex(task_labels)
    known = [found.name for other in _synonyms().get(fold(name), ()) if (found := index.find(other)[0]) is not None]
    taken = {fold(label.name) for label in model_labels}
    near = close_names(name, [label.name for label in task_labels if fold(label.name) not in taken])
    return tuple(dict.fromkeys([*known, *near]))


def maps_that_help(model_labels: Sequence[Label], task_labels: Sequence[TaskLabel]) -> list[str]:
    """Our label maps under which something matches that does not by its name, the most helpful first."""
    index, helped = NameIndex(task_labels), {}
    for label_map in _our_maps():
        entries = NameIndex([_Entry(name, entry.name) for name, entry in label_map.labels.items() if entry.name])
        found = [entry for label in model_labels if (entry := entries.find(label.name)[0]) is not None]
        count = sum(index.find(entry.becomes)[0] is not None for entry in found)
        if count:
            helped[label_map.name] = count
    return sorted(helped, key=lambda name: -helped[name])


class _Entry:
    def __init__(self, name: str, becomes: str) -> None:
        self.name, self.becomes = name, becomes


def nothing_matches(
    model_labels: Sequence[Label], task_labels: Sequence[TaskLabel], dropped: Sequence[DroppedLabel]
) -> str:
    """The message for a model and a task that have nothing in common."""
    own, theirs = [label.name for label in model_labels], [label.name for label in task_labels]
    text = f"labels: none of the model's ({some(own)}) has a place in the task's ({some(theirs) or 'it has none'})"
    if reasons := [label.reason for label in dropped if label.reason != NO_SUCH_LABEL]:
        text += f": {reasons[0]}"
    if maps := maps_that_help(model_labels, task_labels):
        return f"{text}; try --label-map {maps[0]}"
    for label in dropped:
        if label.suggestions:
            return f'{text}; try --map "{label.name}={label.suggestions[0]}"'
    return f'{text}; say which is which by --map "model label=task label"'

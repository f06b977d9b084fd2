"""What may have been meant where labels do not match: by spelling, by synonyms, by our label maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent.domain import Label, TaskLabel
from agent.labels.maps import LabelMap, known_label_maps, load_label_map
from agent.labels.match import ALIKE, NO_SUCH_LABEL, DroppedLabel, compatible
from agent.labels.names import NameIndex, close_names, fold, some


@dataclass(frozen=True, slots=True)
class Wording:
    """How whoever asks for a match can say what is meant."""

    pair: str
    """With the names `own` and `theirs`."""
    label_map: str
    """With its `name`."""
    option: str
    """Of the model, with `name` and `value`."""


ON_COMMAND_LINE = Wording('--map "{own}={theirs}"', "--label-map {name}", "-p {name}={value}")
IN_RULE = Wording(
    'mapping = {{"{own}" = "{theirs}"}} in the options of the rule',
    'label_map = "{name}" in the options of the rule',
    '{name} = "{value}" in the options of the model',
)
IN_MENU = Wording(
    '"{own}" for "{theirs}" in the dialog',
    'label_map = "{name}" of the model, in its agent\'s service.toml',
    '{name} = "{value}" in the options of the model',
)


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


def suggestions(label: Label, task_labels: Sequence[TaskLabel], model_labels: Sequence[Label]) -> tuple[str, ...]:
    """Task labels that may be meant by a model's label, of a type that it fits.

    By spelling, only those that are no label of the model themselves: "bear" is not "pear" where it has both.
    """
    fitting = [other for other in task_labels if compatible(label.type, other.type)]
    index = NameIndex(fitting)
    others = _synonyms().get(fold(label.name), ())
    known = [found.name for other in others if (found := index.find(other)[0]) is not None]
    taken = {fold(other.name) for other in model_labels}
    near = close_names(label.name, [other.name for other in fitting if fold(other.name) not in taken])
    return tuple(dict.fromkeys([*known, *near]))


def maps_that_help(model_labels: Sequence[Label], task_labels: Sequence[TaskLabel]) -> list[str]:
    """Our label maps under which something matches that does not by its name, the most helpful first."""
    index, helped = NameIndex(task_labels), {}
    for label_map in _our_maps():
        entries = NameIndex([_Entry(name, entry.name) for name, entry in label_map.labels.items() if entry.name])
        count = 0
        for label in model_labels:
            entry = entries.find(label.name)[0]
            target = index.find(entry.becomes)[0] if entry is not None else None
            if target is not None and index.find(label.name)[0] is None:
                count += compatible(label.type, target.type)
        if count:
            helped[label_map.name] = count
    return sorted(helped, key=lambda name: -helped[name])


class _Entry:
    def __init__(self, name: str, becomes: str) -> None:
        self.name, self.becomes = name, becomes


def nothing_matches(
    model_labels: Sequence[Label],
    task_labels: Sequence[TaskLabel],
    dropped: Sequence[DroppedLabel],
    wording: Wording = ON_COMMAND_LINE,
) -> str:
    """The message for a model and a task that have nothing in common."""
    if not model_labels:
        return 'labels: the model is told what to find (labels = "task"), by rules and `annotate` alone'
    own, theirs = [label.name for label in model_labels], [label.name for label in task_labels]
    text = f"labels: none of the model's ({some(own)}) has a place in the task's ({some(theirs) or 'it has none'})"
    if reasons := [label.reason for label in dropped if label.reason != NO_SUCH_LABEL]:
        text += f": {reasons[0]}"
    if misfits := [label for label in dropped if label.types is not None]:
        return f"{text}; {_about_types(misfits, task_labels, wording)}"
    if any(label.points for label in dropped):
        mine = wording.label_map.format(name="mine.toml")
        return f"{text}; say which is which by `sublabels` in a label map ({mine}), or by the model's option `points`"
    if maps := maps_that_help(model_labels, task_labels):
        return f"{text}; try {wording.label_map.format(name=maps[0])}"
    for label in dropped:
        if label.suggestions:
            return f"{text}; try {wording.pair.format(own=label.name, theirs=label.suggestions[0])}"
    return f"{text}; say which is which by {wording.pair.format(own='model label', theirs='task label')}"


def _about_types(misfits: Sequence[DroppedLabel], task_labels: Sequence[TaskLabel], wording: Wording) -> str:
    """What helps where names are the same and the types do not go together: a label of another name, or of a type."""
    own, theirs = misfits[0].types or ("any", "any")
    # Among many labels, nobody knows which of them is meant by another name.
    others = [label.name for label in task_labels if label.type == own] if len(misfits) <= ALIKE else []
    option = f"many models give rectangles instead by {wording.option.format(name='shape', value='rectangle')}"
    helps = theirs == "rectangle" and own in ("mask", "skeleton")
    if others:
        pair = wording.pair.format(own=misfits[0].name, theirs=others[0])
        return f"{pair} puts together what is of the type {own}{f', or {option}' if helps else ''}"
    wanted = {"skeleton": own, "any": own, "mask": "mask, polygon or any", "polygon": "mask, polygon or any"}
    fits = f"a task's label of the type {wanted.get(own, f'{own} or any')} fits"
    if helps:
        return f"{option}, and {fits}"
    if own == "rectangle" and theirs in ("mask", "polygon", "skeleton"):
        what = "a skeleton" if theirs == "skeleton" else "a mask"
        return f"a `chain:` makes {what} of each rectangle (docs/compositions.md), and {fits}"
    return fits


def strangers(label_map: LabelMap | None, model_labels: Sequence[Label]) -> tuple[str, ...]:
    """Notes about labels, attributes and points that a file of somebody's own names and the model does not have.

    Ours are made for many models, and name what many of them lack.
    """
    if label_map is None or not label_map.is_file:
        return ()
    index, place = NameIndex(model_labels), f"label map {label_map.name}"
    notes = [_strange(label_map.labels, index, place, "the model")]
    for name, entry in label_map.labels.items():
        if (label := index.find(name)[0]) is not None:
            attributes, points = NameIndex(label.attributes), NameIndex(label.sublabels)
            notes.append(_strange(entry.attribute_names, attributes, f"{place}: {name}: attribute_names", "the label"))
            notes.append(_strange(entry.sublabels, points, f"{place}: {name}: sublabels", "the label"))
    return tuple(filter(None, notes))


def _strange(named: Iterable[str], index: NameIndex[Any], place: str, whose: str) -> str:
    """The note about names that are not there; none where all are."""
    strange = [name for name in named if index.find(name)[1] == "no such name"]
    if not strange:
        return ""
    near = close_names(strange[0], index.names, 1)
    hint = f"; instead of {strange[0]!r}, did you mean {near[0]!r}?" if near else ""
    return f"{place} names what {whose} does not have: {some(strange)}{hint}"

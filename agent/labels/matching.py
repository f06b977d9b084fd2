"""Matching labels: which task label, attributes and sublabels each of a model's labels becomes.

Precedence for each model label: the request's mapping, the label map, the same name. Names are the same when they are
equal; else when they are equal without case, spaces, `-` and `_`; else when they differ by a plural only; the last two
only if there is one candidate. Labels of incompatible types do not match (CVAT's rule: the same type, one of them
"any", or mask and polygon).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.domain import Label, TaskLabel
from agent.errors import ConfigError, LabelMismatch
from agent.labels.advice import ON_COMMAND_LINE, Wording, maps_that_help, nothing_matches, strangers, suggestions
from agent.labels.fitting import fit
from agent.labels.maps import LabelMap, MapEntry
from agent.labels.match import (
    NO_SUCH_LABEL,
    DroppedLabel,
    LabelMatch,
    LabelTarget,
    SublabelTarget,
    Thresholds,
    compatible,
)
from agent.labels.names import NameIndex, meant
from agent.labels.request import request_entries

__all__ = [
    "DroppedLabel", "LabelMatch", "LabelTarget", "SublabelTarget", "Thresholds", "check_match", "compatible",
    "find_match", "match_labels",
]  # fmt: skip

MOST_ADVISED = 200
"""Dropped labels that get suggestions; a vocabulary of thousands needs none for each."""


def match_labels(
    model_labels: Sequence[Label],
    task_labels: Sequence[TaskLabel],
    *,
    request: Mapping[str, Any] | None = None,
    label_map: LabelMap | None = None,
    only_requested: bool = False,
    wording: Wording = ON_COMMAND_LINE,
) -> LabelMatch:
    """The match; LabelMismatch when an explicit mapping is impossible or when nothing matches at all.

    The arguments are those of `find_match`; `wording` is for the advice.
    """
    found = find_match(model_labels, task_labels, request=request, label_map=label_map, only_requested=only_requested)
    check_match(found, model_labels, task_labels, wording)
    return found


def check_match(
    found: LabelMatch,
    model_labels: Sequence[Label],
    task_labels: Sequence[TaskLabel],
    wording: Wording = ON_COMMAND_LINE,
) -> None:
    """LabelMismatch, with advice, for a match in which nothing matches."""
    if not found.targets:
        raise LabelMismatch(nothing_matches(model_labels, task_labels, found.dropped, wording))


def find_match(
    model_labels: Sequence[Label],
    task_labels: Sequence[TaskLabel],
    *,
    request: Mapping[str, Any] | None = None,
    label_map: LabelMap | None = None,
    only_requested: bool = False,
) -> LabelMatch:
    """The match, whether anything matches or not; LabelMismatch when an explicit mapping is impossible.

    `request` maps model labels to a task label's name, to None (drop), or to CVAT's form
    {"name": …, "attributes": {model: task}, "sublabels": {model: {"name": …, "attributes": …}}}; with
    `only_requested`, model labels that it does not name are dropped, as CVAT means it.
    """
    if label_map is not None and not label_map.labels:
        maps = maps_that_help(model_labels, task_labels)
        hint = f"; {maps[0]} would help" if maps else "; a vocabulary of a model goes into its option `labels`"
        raise ConfigError(f"label map {label_map.name}: it has no [labels] that say what becomes of its names{hint}")
    matcher = _Matcher(
        request_entries(request or {}, model_labels), model_labels, task_labels, label_map, only_requested
    )
    targets: dict[str, LabelTarget] = {}
    dropped: dict[str, DroppedLabel] = {}
    for label in model_labels:
        if label.name in targets or label.name in dropped:
            continue
        found = matcher.match(label)
        if isinstance(found, LabelTarget):
            targets[label.name] = found
        else:
            dropped[label.name] = found
    used = {target.label.id for target in targets.values()}
    unused = tuple(label for label in task_labels if label.id not in used)
    return LabelMatch(targets, tuple(dropped.values()), unused, strangers(label_map, model_labels))


_BY_NAME = MapEntry()


class _Matcher:
    """Finds a place for one label after the other."""

    def __init__(
        self,
        request: Mapping[str, MapEntry],
        model_labels: Sequence[Label],
        task_labels: Sequence[TaskLabel],
        label_map: LabelMap | None,
        only_requested: bool,
    ) -> None:
        self._request = request
        self._model_labels, self._task_labels = model_labels, task_labels
        self._tasks = NameIndex(task_labels)
        self._only_requested = only_requested
        self._map = label_map
        self._map_names = NameIndex([_MapName(name) for name in label_map.labels] if label_map else [])
        self._advised = 0

    def match(self, label: Label) -> LabelTarget | DroppedLabel:
        if (entry := self._request.get(label.name)) is not None:
            return self._requested(label, entry)
        if self._only_requested:
            return DroppedLabel(label.name, "the mapping does not name it")
        if self._map is not None and (name := self._map_names.find(label.name)[0]) is not None:
            return self._mapped(label, self._map.labels[name.name], f"label map {self._map.name}")
        return self._same_name(label, _BY_NAME)

    def _requested(self, label: Label, entry: MapEntry) -> LabelTarget | DroppedLabel:
        if entry.drop:
            return DroppedLabel(label.name, "dropped by the mapping")
        wanted = entry.name or label.name
        target, why = self._tasks.find(wanted)
        if target is None:
            hint = meant(wanted, self._tasks.names) if not why.startswith("ambiguous") else f" ({why})"
            raise LabelMismatch(f"mapping {label.name!r} -> {wanted!r}: the task has no such label{hint}")
        found = fit(label, target, replace(entry, threshold=self._threshold(label)), "mapping")
        if isinstance(found, DroppedLabel):
            why = found.why().removeprefix(f"mapping, {target.name!r}: ")
            raise LabelMismatch(f"mapping {label.name!r} -> {target.name!r}: {why}")
        return found

    def _threshold(self, label: Label) -> float | None:
        """The map's, which holds wherever a request wants the label to go."""
        name = self._map_names.find(label.name)[0]
        return self._map.labels[name.name].threshold if self._map is not None and name is not None else None

    def _mapped(self, label: Label, entry: MapEntry, how: str) -> LabelTarget | DroppedLabel:
        if entry.drop:
            return DroppedLabel(label.name, f"dropped by {how}")
        if entry.name is None:
            return self._same_name(label, entry)
        target, why = self._tasks.find(entry.name)
        if target is not None:
            return fit(label, target, entry, how)
        # A map is made for many tasks; a task that has the model's own name needs no map for it.
        found = self._same_name(label, _BY_NAME)
        if isinstance(found, LabelTarget):
            return found
        problem = why if why.startswith("ambiguous") else "the task has no such label"
        return DroppedLabel(label.name, f"{how} says {entry.name!r}: {problem}", found.suggestions)

    def _same_name(self, label: Label, entry: MapEntry) -> LabelTarget | DroppedLabel:
        target, how = self._tasks.find(label.name)
        if target is not None:
            return fit(label, target, entry, how)
        if how.startswith("ambiguous"):
            return DroppedLabel(label.name, how)
        self._advised += 1
        advice = suggestions(label, self._task_labels, self._model_labels) if self._advised <= MOST_ADVISED else ()
        return DroppedLabel(label.name, NO_SUCH_LABEL, advice)


class _MapName:
    """A model label's name in a label map, as NameIndex takes it."""

    def __init__(self, name: str) -> None:
        self.name = name

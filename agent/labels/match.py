"""The finished label match: what each of a model's labels becomes in a task, at which score, and what has no place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.domain import TaskAttribute, TaskLabel
from agent.labels.names import some

NO_SUCH_LABEL = "the task has no label of that name"
ALIKE = 3
"""So many dropped labels of one reason have a line each; more share one."""


@dataclass(frozen=True, slots=True)
class SublabelTarget:
    """What a point of a model's skeleton becomes."""

    label: TaskLabel
    attributes: Mapping[str, TaskAttribute] = field(default_factory=dict)
    """Model attribute -> task attribute."""


@dataclass(frozen=True, slots=True)
class LabelTarget:
    """What a model label becomes."""

    label: TaskLabel
    how: str
    """Why: "same name", "label map coco-to-voc", "mapping", …"""
    attributes: Mapping[str, TaskAttribute] = field(default_factory=dict)
    """Model attribute -> task attribute."""
    fixed: Mapping[int, str] = field(default_factory=dict)
    """Task attribute id -> the value that it always gets."""
    sublabels: Mapping[str, SublabelTarget] = field(default_factory=dict)
    threshold: float | None = None
    model_type: str = "any"
    notes: tuple[str, ...] = ()
    """What of the label has no place: attributes, points."""


@dataclass(frozen=True, slots=True)
class DroppedLabel:
    """A model label that has no place in the task."""

    name: str
    reason: str
    suggestions: tuple[str, ...] = ()
    """Task labels that may be meant."""
    types: tuple[str, str] | None = None
    """The model's type and the task's, where it is they that do not go together."""
    points: bool = False
    """Whether both are skeletons that have no point in common."""

    def why(self) -> str:
        """The reason, with what helps where that is no other name."""
        return f"{self.reason}; `sublabels` in a label map say which is which" if self.points else self.reason

    def line(self) -> str:
        """Why, and what may be meant."""
        meant = f"; did you mean {' or '.join(map(repr, self.suggestions))}?" if self.suggestions else ""
        return f"dropped: {self.why()}{meant}"

    @property
    def kind(self) -> str:
        """The reason without the names in it, which many labels may have in common."""
        if self.types is None:
            return self.reason
        own, theirs = self.types
        return f"the model gives them as {own}, the task takes them as {theirs}"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The scores that are enough: the request's, else the label's in the map, else the model's."""

    request: float | None
    per_label: Mapping[str, float]
    default: float

    def of(self, label: str) -> float:
        """For a model label."""
        return self.request if self.request is not None else self.per_label.get(label, self.default)

    @property
    def lowest(self) -> float:
        """What a model need not go below."""
        return self.request if self.request is not None else min([self.default, *self.per_label.values()])


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """The finished mapping for one model and one task."""

    targets: Mapping[str, LabelTarget]
    dropped: tuple[DroppedLabel, ...]
    unused: tuple[TaskLabel, ...]
    """Task labels that no model label becomes."""
    notes: tuple[str, ...] = ()
    """What of a label map of one's own says nothing of this model."""

    def thresholds(self, request: float | None, default: float) -> Thresholds:
        """The scores that are enough; `default` is the model's own."""
        per_label = {name: t.threshold for name, t in self.targets.items() if t.threshold is not None}
        # A default that no label falls back to must not keep the model busy with what nobody will look at.
        falls_back = len(per_label) < len(self.targets) or not per_label
        return Thresholds(request, per_label, default if falls_back else min(per_label.values()))

    def lines(self, thresholds: Thresholds | None = None, most: int = 20) -> Iterator[str]:
        """The match for a person: a line for each label that has a place, and for each that was nearly meant.

        Others that are dropped for one reason share a line, which names up to `most` of them.
        """
        alone, together = self._grouped()
        width = max((len(name) for name in [*self.targets, *(d.name for d in alone)]), default=0)
        for name, target in self.targets.items():
            facts = [target.how]
            if thresholds is not None:
                facts.append(f"threshold {thresholds.of(name):g}")
            values = {a.name: target.fixed[a.id] for a in target.label.attributes if a.id in target.fixed}
            facts += [f"{attribute} = {value}" for attribute, value in values.items()]
            facts += [f"attribute {own} -> {attribute.name}" for own, attribute in target.attributes.items()]
            if target.label.sublabels:
                facts.append(f"{len(target.sublabels)} of {len(target.label.sublabels)} points")
            facts += target.notes
            types = f"{target.model_type} -> {target.label.type}"
            yield f"{name:<{width}}  ->  {target.label.name}  ({types}; {'; '.join(facts)})"
        for dropped in alone:
            yield f"{dropped.name:<{width}}  {dropped.line()}"
        for reason, found in together.items():
            names = some([label.name for label in found], most)
            hint = rectangles_instead(*found[0].types) if found[0].types is not None else ""
            yield f"{len(found)} labels of the model are dropped, {reason}: {names}{hint}"
        yield from self._of_any_type(most)
        if self.unused:
            yield f"labels of the task that stay unused: {', '.join(label.name for label in self.unused)}"
        yield from self.notes

    def _grouped(self) -> tuple[list[DroppedLabel], dict[str, list[DroppedLabel]]]:
        """The dropped labels that deserve a line of their own, and the others by reason."""
        by_reason: dict[str, list[DroppedLabel]] = {}
        for label in self.dropped:
            if not label.suggestions:
                by_reason.setdefault(label.kind, []).append(label)
        many = {reason: found for reason, found in by_reason.items() if len(found) > ALIKE}
        return [label for label in self.dropped if label.suggestions or label.kind not in many], many

    def _of_any_type(self, most: int) -> Iterator[str]:
        """What becomes of shapes whose type the model tells only when it gives them, as ensembles may."""
        places: dict[str, list[str]] = {}
        for name, target in self.targets.items():
            if target.model_type == "any" != target.label.type:
                places.setdefault(target.label.type, []).append(name)
        for kind, names in places.items():
            hint = rectangles_instead("any", kind)
            yield f"any type of shape may come as {some(names, most)}: the task takes {kind}, others are left out{hint}"


def rectangles_instead(own: str, theirs: str) -> str:
    """The end of a line about shapes that a task's label cannot hold, where an option of many models helps."""
    helps = theirs == "rectangle" and own in ("mask", "skeleton", "any")
    return "; many models give rectangles instead by their option shape=rectangle" if helps else ""


def compatible(model_type: str, task_type: str) -> bool:
    """CVAT's rule: the same type, one side "any" (but not for skeletons), or mask and polygon."""
    if model_type == task_type:
        return True
    if "any" in (model_type, task_type):
        return "skeleton" not in (model_type, task_type)
    return {model_type, task_type} == {"mask", "polygon"}

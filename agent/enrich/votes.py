"""What becomes of a track after several looks at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.contract import Detection
from agent.domain import TaskAttribute, TaskLabel
from agent.enrich.places import EnrichOptions, Item, changes_on_the_way
from agent.enrich.shapes import Changes, ShapeBook, attribute_of, with_values
from agent.shapes.geometry import bounds


@dataclass(frozen=True, slots=True)
class Look:
    """A track on one of its frames, before and after; the same object where nothing was found."""

    frame: int
    before: Detection
    after: Detection

    @property
    def size(self) -> float:
        """Square pixels of the view."""
        left, top, right, bottom = bounds(self.before.shape) if self.before.shape is not None else (0.0,) * 4
        return (right - left) * (bottom - top)


def note_track(book: ShapeBook, changes: Changes, track: Item, looks: Sequence[Look], options: EnrichOptions) -> None:
    """Adds what the looks at a track make of it to the changes of its job.

    Its label, and attributes that cannot change, are what most looks say, as sure as they are. Those that can are told
    at its keyframes.
    """
    found = [look for look in looks if look.after is not look.before]
    if not found:
        changes.left["nothing was found"] += 1
        return
    kind = track["shapes"][0]["type"]
    label = book.label(_vote(found, lambda look: look.after.label), track["label_id"], kind, changes)
    if label is None:
        return
    new: dict[str, Any] = {**track, "label_id": label.id}
    if label.id != track["label_id"]:
        new |= {"attributes": [], "shapes": [{**shape, "attributes": []} for shape in track["shapes"]]}
    for name in dict.fromkeys(name for look in found for name in look.after.attributes):
        _fill(book, changes, new, label, name, _telling(found, name), options)
    if new != track:
        changes.tracks.append(new)


def _telling(looks: Sequence[Look], name: str) -> list[Look]:
    """The looks that have a value. An empty text, of what could not be read, is one where there is no other."""
    having = [look for look in looks if name in look.after.attributes]
    return [look for look in having if look.after.attributes[name]] or having


def _fill(
    book: ShapeBook, changes: Changes, track: dict[str, Any], label: TaskLabel, name: str, looks: Sequence[Look],
    options: EnrichOptions,
) -> None:  # fmt: skip
    attribute = attribute_of(label, name)
    if attribute is not None and changes_on_the_way(label, options):
        said = {look.frame: book.value(label, name, look.after.attributes[name], changes) for look in looks}
        track["shapes"] = _told(track["shapes"], attribute, {frame: v for frame, v in said.items() if v is not None})
        return
    value = book.value(label, name, _vote(looks, lambda look: look.after.attributes[name]), changes)
    if value is None or attribute is None:
        return
    if attribute.mutable:
        track["shapes"] = [with_values(shape, {attribute.id: value}) for shape in track["shapes"]]
    else:
        track["attributes"] = with_values(track, {attribute.id: value})["attributes"]


def _told(shapes: Iterable[Item], attribute: TaskAttribute, said: Mapping[int, str]) -> list[dict[str, Any]]:
    """The keyframes with the values said of them. What held on to the next keyframe does so with its new value."""
    told, value, before = [], None, None
    for shape in shapes:
        stored = next((a["value"] for a in shape.get("attributes", ()) if a["spec_id"] == attribute.id), None)
        if shape["frame"] in said:
            value = said[shape["frame"]]
        elif stored != before:
            value = None
        before = stored
        told.append(dict(shape) if value is None else with_values(shape, {attribute.id: value}))
    return told


def _vote(looks: Iterable[Look], answer: Callable[[Look], str]) -> str:
    """The answer with the highest scores together; of two that are as good, the one given of the largest view."""
    scores: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)
    for look in looks:
        said = answer(look)
        scores[said] += 1.0 if look.after.score is None else look.after.score
        sizes[said] = max(sizes[said], look.size)
    return max(scores, key=lambda said: (scores[said], sizes[said]))

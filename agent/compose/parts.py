"""The models that another is built of: opened by the pool where they are models of their own, else for it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from agent.contract import Attribute, BadPrediction, ConfigError, Context, Detection, Frame, Label
from agent.labels.maps import LabelMap, MapEntry, load_label_map
from agent.models.host import Host, current_priority
from agent.models.loading import LoadedModel

T = TypeVar("T")
Named = TypeVar("Named", Attribute, Label)

Opener = Callable[[str, str, Mapping[str, Any]], AbstractContextManager[tuple[LoadedModel, Host]]]
"""Gives the loaded model and its host for a name (an id or a reference), a device and options."""

Answer: TypeAlias = list[Detection] | BadPrediction
"""What a model said of one frame, or why it said nothing."""

_KEYS = ("model", "options", "weight", "label_map", "threshold")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A model within another. Its labels are those of the joint vocabulary."""

    name: str
    loaded: LoadedModel
    host: Host
    weight: float = 1.0
    threshold: float | None = None
    renames: Mapping[str, str | None] = field(default_factory=dict)
    """Its own label -> the joint one, None where it has no place; labels that are not here keep their names."""

    @property
    def labels(self) -> tuple[Label, ...]:
        named = [(self.renames.get(label.name, label.name), label) for label in self.loaded.labels]
        return tuple(replace(label, name=name) for name, label in named if name is not None)

    def submit(self, frames: Sequence[Frame], context: Context) -> Callable[[], list[Answer]]:
        """Begins a detection; what is given waits for it."""
        back: dict[str, list[str]] = {}
        for label in self.loaded.labels:
            if (name := self.renames.get(label.name, label.name)) is not None:
                back.setdefault(name, []).append(label.name)
        labels = context.labels
        if labels is not None:
            labels = frozenset(own for name in labels for own in back.get(name, ()))
            if not labels:  # nothing that it knows is wanted
                return lambda: [[] for _ in frames]
        threshold = context.threshold if self.threshold is None else self.threshold
        asked = replace(context, labels=labels, threshold=threshold)
        size = max(1, self.host.batch_size)
        futures = [
            self.host.submit(frames[at : at + size], asked, current_priority()) for at in range(0, len(frames), size)
        ]
        return lambda: [self._renamed(found, asked) for future in futures for found in future.result()]

    def detect(self, frames: Sequence[Frame], context: Context) -> list[list[Detection]]:
        """What it finds; BadPrediction where it failed on one of the frames."""
        found = self.submit(frames, context)() if frames else []
        if wrong := next((one for one in found if isinstance(one, BadPrediction)), None):
            raise wrong
        return [one for one in found if not isinstance(one, BadPrediction)]

    def call(self, work: Callable[[Any], T]) -> T:
        """What `work` gives for the model, in the model's own thread."""
        answer: Future[T] = self.host.call(lambda: work(self.loaded.model), current_priority())
        return answer.result()

    def _renamed(self, found: Sequence[Detection] | BadPrediction, context: Context) -> Answer:
        if isinstance(found, BadPrediction):
            return found
        named = [(self.renames.get(detection.label, detection.label), detection) for detection in found]
        return [
            detection if name == detection.label else replace(detection, label=name)
            for name, detection in named
            if name is not None and (detection.score is None or detection.score >= context.threshold)
        ]


def each_frame(
    about: Iterable[Sequence[Answer]], make: Callable[[int, list[list[Detection]]], list[Detection]]
) -> list[Answer]:
    """What `make` gives for each frame, of its number and all that was said about it.

    Where an error is among that, it stands in the frame's place: the others need not be asked for again, which may cost
    money. The error of a frame alone is raised.
    """
    found: list[Answer] = []
    for number, answers in enumerate(about):
        wrong = next((one for one in answers if isinstance(one, BadPrediction)), None)
        said = [one for one in answers if not isinstance(one, BadPrediction)]
        found.append(make(number, said) if wrong is None else wrong)
    if len(found) == 1 and isinstance(found[0], BadPrediction):
        raise found[0]
    return found


class Parts:
    """Opens the parts of one model, and closes them with it."""

    def __init__(self, owner: str, device: str, opener: Opener) -> None:
        self.owner = owner
        self._device = device
        self._opener = opener
        self._open = ExitStack()

    def close(self) -> None:
        self._open.close()

    def open(self, wish: str | Mapping[str, Any], option: str) -> Part:
        """A part as an option names it: an id or reference, or a table with `model` and more; else ConfigError."""
        table = {"model": wish} if isinstance(wish, str) else wish
        if not isinstance(table, Mapping) or not isinstance(table.get("model"), str):
            raise ConfigError(
                f"{self.owner}: option {option!r}: got {wish!r}, allowed: a model, or a table with `model`"
            )
        for key in table:
            if key not in _KEYS:
                raise ConfigError(f"{self.owner}: option {option!r}: unknown key {key!r}, allowed: {', '.join(_KEYS)}")
        weight, threshold = self._number(table, "weight", option), self._number(table, "threshold", option)
        if weight == 0:
            raise ConfigError(f"{self.owner}: option {option!r}: weight: got 0, allowed: more than that")
        options: Any = table.get("options", {})
        if not isinstance(options, Mapping):
            raise ConfigError(f"{self.owner}: option {option!r}: options: got {options!r}, allowed: a table")
        renames = self._renames(load_label_map(str(table["label_map"])), option) if "label_map" in table else {}
        loaded, host = self._open.enter_context(self._opener(table["model"], self._device, options))
        if loaded.finds is not None:
            raise ConfigError(
                f"{self.owner}: option {option!r}: {table['model']} finds the labels of each task, allowed within"
                " another model: labels = […]"
            )
        return Part(table["model"], loaded, host, 1.0 if weight is None else weight, threshold, renames)

    def detectors(self, wishes: Sequence[Any], option: str, least: int) -> list[Part]:
        """Parts that find things; ConfigError for fewer than `least`, or for a model of another kind."""
        if isinstance(wishes, str) or len(wishes) < least:
            raise ConfigError(
                f"{self.owner}: option {option!r}: got {wishes!r}, allowed: a list of {least} or more models"
            )
        parts = [self.open(wish, option) for wish in wishes]
        for part in parts:
            if part.loaded.kind != "detector":
                raise ConfigError(
                    f"{self.owner}: option {option!r}: {part.name} is of the kind {part.loaded.kind}, allowed: detector"
                )
        return parts

    def _number(self, table: Mapping[str, Any], key: str, option: str) -> float | None:
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise ConfigError(f"{self.owner}: option {option!r}: {key}: got {value!r}, allowed: a number from 0")
        return float(value)

    def _renames(self, label_map: LabelMap, option: str) -> dict[str, str | None]:
        """The map's names; ConfigError for what else a map can say, which has no meaning between models."""
        for name, entry in label_map.labels.items():
            if entry not in (MapEntry(drop=True), MapEntry(entry.name)):
                raise ConfigError(
                    f"{self.owner}: option {option!r}: label map {label_map.name}: {name!r}: got a table of more than a"
                    " name, allowed: a joint label, or false"
                )
        return {own: None if entry.drop else (entry.name or own) for own, entry in label_map.labels.items()}


def joint_labels(parts: Sequence[Part]) -> list[Label]:
    """The labels of all parts, each name once; of one that they draw differently, any shape."""
    found: dict[str, Label] = {}
    for part in parts:
        for label in part.labels:
            known = found.setdefault(label.name, label)
            found[label.name] = Label(
                label.name,
                known.type if known.type == label.type else "any",
                (*known.attributes, *_strangers(known.attributes, label.attributes)),
                (*known.sublabels, *_strangers(known.sublabels, label.sublabels)),
            )
    return list(found.values())


def _strangers(known: Sequence[Named], more: Sequence[Named]) -> list[Named]:
    """Those of a name that is not known yet."""
    names = {one.name for one in known}
    return [one for one in more if one.name not in names]


def joint_facts(parts: Sequence[Part], **more: str) -> dict[str, str]:
    """What is known of the parts; the version names all of theirs."""
    versions = " + ".join(part.loaded.version for part in parts)
    named = ", ".join(part.name for part in parts)
    return {"parts": named, **more, "version": " ".join([*(f"{k}={v}" for k, v in more.items()), versions])}

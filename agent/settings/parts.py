"""Which of the [[models]] another is built of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent.settings.mistakes import Mistakes

if TYPE_CHECKING:
    from agent.settings.tables import ModelSettings

SCHEMES = ("ensemble", "tiles", "flips", "chain")
"""Of models that are built of others."""


def is_composition(settings: ModelSettings) -> bool:
    """Whether the model is built of others."""
    return settings.model.partition(":")[0].strip().lower() in SCHEMES


def parts_of(settings: ModelSettings, ids: Collection[str]) -> tuple[str, ...]:
    """The ids that a model's options name as its parts, as far as it is built of others."""
    if not is_composition(settings):
        return ()
    return tuple(dict.fromkeys(name for name, _ in named_parts(settings.options) if name in ids))


def check_parts(models: Sequence[ModelSettings], place: str) -> None:
    """ConfigError for models that are parts of themselves; a circle is told once, not for each model in it."""
    known = {settings.id: settings for settings in models}
    told: set[str] = set()

    def walk(path: tuple[str, ...], mistakes: Mistakes) -> None:
        for part in parts_of(known[path[-1]], known):
            if told & {*path}:
                return
            if part not in path:
                walk((*path, part), mistakes)
            else:
                mistakes.add(f"{place}: models {part!r}: it is a part of itself: {' -> '.join([*path, part])}")
                told.update(path[path.index(part) :])

    with Mistakes() as mistakes:
        for name in known:
            walk((name,), mistakes)


def named_parts(options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What `of` and `then` name, and its own options: a string, a table with `model`, or lists of these."""
    for key in ("of", "then"):
        wishes = options.get(key, ())
        for wish in wishes if isinstance(wishes, list | tuple) else [wishes]:
            name, own = (wish.get("model"), wish.get("options")) if isinstance(wish, Mapping) else (wish, None)
            if isinstance(name, str):
                yield name, own if isinstance(own, Mapping) else {}

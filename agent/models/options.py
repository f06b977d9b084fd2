"""Options of models, held to the signature of the adapter's `load`: its keyword-only parameters and their types."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from agent.errors import ConfigError

BESIDE = {
    name: f"--{name.replace('_', '-')}, or `{name}` in the model's table of service.toml"
    for name in ("threshold", "label_map", "batch_size")
}
"""What people take for options of a model, and where it is said."""


def check_options(
    load: Callable[..., Any], options: Mapping[str, Any], owner: str, given: Collection[str] = ()
) -> dict[str, Any]:
    """The options, held to the names and types of the signature of `load`; an int will do for a float.

    `given` are parameters that are no options. ConfigError for a name or a type that does not fit.
    """
    parameters = [p for p in inspect.signature(load).parameters.values() if p.name not in ("device", *given)]
    taken = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    allowed = ", ".join(taken) or "none"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in options:
            if name not in taken:
                near = difflib.get_close_matches(name, [*taken, *BESIDE], n=1)
                hint = f"; did you mean {BESIDE.get(near[0], repr(near[0]))}?" if near else ""
                raise ConfigError(f"{owner}: unknown option {name!r}, allowed: {allowed}{hint}")
    for name, parameter in taken.items():
        if parameter.default is parameter.empty and name not in options:
            raise ConfigError(f"{owner}: option {name!r} is missing")
    types_of = _annotations(load)
    return {name: _typed(value, types_of.get(name, Any), name, owner) for name, value in options.items()}


def _annotations(load: Callable[..., Any]) -> dict[str, Any]:
    function = load.__init__ if inspect.isclass(load) else load
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # names that only a type checker sees: leave the types to the adapter
        return {}


def _typed(value: Any, annotation: Any, name: str, owner: str) -> Any:
    choices = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    if float in choices and type(value) is int:
        return float(value)
    if any(_fits(value, choice) for choice in choices):
        return value
    words = " or ".join(_word(choice) for choice in choices if choice is not type(None))
    raise ConfigError(f"{owner}: option {name!r}: got {value!r}, allowed: {words}")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a TOML value is what an annotation says; annotations that TOML has no word for accept all."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation in (str, int, float, bool):
        return type(value) is annotation
    if origin in (list, tuple, Sequence) or annotation in (list, tuple, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        return not arguments or all(_fits_item(item, arguments) for item in value)
    if origin in (dict, Mapping) or annotation in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


def _fits_item(item: Any, annotations: Sequence[Any]) -> bool:
    choices = _flat(annotations)
    return any(_fits(item, choice) for choice in choices) or (float in choices and type(item) is int)


def _flat(annotations: Sequence[Any]) -> list[Any]:
    """The alternatives of a container's arguments: `tuple[int | float, ...]` gives int and float."""
    return [c for a in annotations for c in (typing.get_args(a) if _is_union(a) else (a,)) if c is not ...]


def _word(annotation: Any, many: bool = False) -> str:
    """The annotation in words for a person who writes TOML."""
    words = {
        str: ("text", "texts"), int: ("a whole number", "whole numbers"), float: ("a number", "numbers"),
        bool: ("true or false", "true or false"),
    }  # fmt: skip
    if annotation in words:
        return words[annotation][many]
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(repr(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) in (list, tuple, Sequence):
        items = [_word(choice, many=True) for choice in _flat(typing.get_args(annotation)) if choice is not Any]
        return f"a list of {' or '.join(items)}" if items else "a list"
    if typing.get_origin(annotation) in (dict, Mapping) or annotation in (dict, Mapping):
        return "tables" if many else "a table"
    return str(getattr(annotation, "__name__", annotation))

"""Tables of service.toml held to dataclasses: types, ranges and names of keys, with an error that names the key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from agent.errors import ConfigError
from agent.settings.tables import FORMS

T = TypeVar("T")


def read_table(kind: type[T], table: Any, place: str) -> T:
    """The table as a value of a dataclass; ConfigError with `place` and the key for each key that is wrong."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place}: got {table!r}, allowed: a table")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    meant = {key: difflib.get_close_matches(key, names, n=1) for key in table if key not in names}
    texts = [
        f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(names)}")
        for key, near in meant.items()
    ]
    known = {key: value for key, value in table.items() if key in names}
    try:
        # By way of JSON: there a list is a tuple and an int a float, but "1" is no number and 1 is no truth.
        found = TypeAdapter(kind).validate_json(json.dumps(known, default=str), strict=True)
    except ValidationError as error:
        texts += _texts(error.errors(), list(meant.values()))
        raise ConfigError(*(f"{place}: {text}" for text in texts)) from error
    if texts:
        raise ConfigError(*(f"{place}: {text}" for text in texts))
    return found


def _texts(errors: Sequence[Any], meant: Sequence[list[str]]) -> list[str]:
    """The errors in our words, one for each key; `meant` is what each of the unknown keys may stand for."""
    told: dict[Any, str] = {}
    for error in errors:
        missing = _is_missing(error) and len(error["loc"]) == 1
        # It may be there under a wrong name.
        if not (missing and meant and (not all(meant) or [*error["loc"]] in meant)):
            told.setdefault(error["loc"][:1], _text(error))
    return list(told.values())


def _is_missing(error: Mapping[str, Any]) -> bool:
    return error["type"] in ("missing", "missing_argument")


def _text(error: Mapping[str, Any]) -> str:
    """One error in our words: which key, what it holds, what it may hold."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in error["loc"]).removeprefix(": ")
    if _is_missing(error):
        return f"the key {key!r} is missing"
    return f"{key}: got {error['input']!r}, allowed: {_allowed(error)}"


def _allowed(error: Mapping[str, Any]) -> str:
    context: Mapping[str, Any] = error.get("ctx") or {}
    if (form := FORMS.get(context.get("pattern", ""))) is not None:
        return form
    words = {
        "greater_than": "more than {gt:g}",
        "greater_than_equal": "{ge:g} or more",
        "less_than": "less than {lt:g}",
        "less_than_equal": "{le:g} or less",
        "literal_error": "{expected}",
        "finite_number": "a number that is finite",
        "string_pattern_mismatch": "text of the form {pattern}",
        "string_type": "text",
        "int_type": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "tuple_type": "a list",
        "dict_type": "a table",
        "path_type": "a path",
    }
    form = words.get(error["type"])
    return form.format(**context) if form else str(error["msg"]).lower()

"""Tables of service.toml held to dataclasses: types, ranges and names of keys, with an error that names the key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from agent.errors import ConfigError

T = TypeVar("T")


def read_table(kind: type[T], table: Any, place: str) -> T:
    """The table as a value of a dataclass; ConfigError with `place` and the key for the first thing that is wrong."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place}: got {table!r}, allowed: a table")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(names)}"
            raise ConfigError(f"{place}: unknown key {key!r}; {hint}")
    try:
        # By way of JSON: there a list is a tuple and an int a float, but "1" is no number and 1 is no truth.
        return TypeAdapter(kind).validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{place}: {_first(error.errors())}") from error


def _first(errors: Sequence[Any]) -> str:
    """One error in our words: which key, what it holds, what it may hold."""
    error = errors[0]
    key = "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in error["loc"]).removeprefix(": ")
    if error["type"] in ("missing", "missing_argument"):
        return f"the key {key!r} is missing"
    return f"{key}: got {error['input']!r}, allowed: {_allowed(error)}"


def _allowed(error: Mapping[str, Any]) -> str:
    context: Mapping[str, Any] = error.get("ctx") or {}
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

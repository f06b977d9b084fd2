"""Lists: pages, search, sort, plain filters and JsonLogic, as CVAT's list endpoints have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.responses import Response

from agent.sandbox.exchange import Call, Refusal, reply

T = TypeVar("T")
Fields = Mapping[str, Callable[[Any], Any]]
MAX_PAGE = 10_000


def plain(*names: str) -> dict[str, Callable[[Any], Any]]:
    """Fields that are attributes of the rows."""
    return {name: attrgetter(name) for name in names}


def listed(
    call: Call,
    rows: Sequence[T],
    fields: Fields,
    view: Callable[[T], object],
    *,
    search: Sequence[str] = (),
    sort: str = "-id",
) -> Response:
    """A page of rows; `fields` can be sorted and filtered by, `search` names those that are searched."""
    for name, wanted in call.query.items():
        if name in fields and wanted != "":
            rows = [row for row in rows if _same(fields[name](row), wanted)]
    if call.query.get("search"):
        text = call.query["search"].lower()
        rows = [row for row in rows if any(text in str(fields[name](row) or "").lower() for name in search)]
    if call.query.get("filter"):
        rule = _rule(call.query["filter"])
        rows = [row for row in rows if evaluate(rule, fields, row)]
    rows = _sorted(rows, fields, call.query.get("sort") or sort)
    return reply(_page(call, rows, view))


def _rule(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refusal(400, [f"filter: can't parse filter expression: {error}"]) from error


def _same(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted.lower() in (("true", "1") if value else ("false", "0"))
    return value is not None and str(value) == wanted


def _sorted(rows: Sequence[T], fields: Fields, order: str) -> list[T]:
    found = list(rows)
    for name in reversed([name.strip() for name in order.split(",")]):
        field = fields.get(name.lstrip("-"))
        if field is not None:
            found.sort(key=lambda row, f=field: _rankable(f(row)), reverse=name.startswith("-"))  # type: ignore[misc]
    return found


def _rankable(value: Any) -> tuple[bool, Any]:
    return (value is not None, value if value is not None else 0)


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "")
    return int(text) if text.isdigit() and int(text) > 0 else default


def _page(call: Call, rows: list[T], view: Callable[[T], object]) -> dict[str, object]:
    size = min(_number(call, "page_size", 10), MAX_PAGE)
    number = _number(call, "page", 1)
    start = (number - 1) * size
    if start >= len(rows) and number > 1:
        raise Refusal(404, {"detail": "Invalid page."})

    def link(to: int) -> str:
        query = {k: v for k, v in call.query.items() if k != "page"}
        if to > 1:
            query["page"] = str(to)
        return call.link(call.request.url.path) + "?" + urlencode(sorted(query.items()))

    return {
        "count": len(rows),
        "next": link(number + 1) if start + size < len(rows) else None,
        "previous": link(number - 1) if number > 1 else None,
        "results": [view(row) for row in rows[start : start + size]],
    }


def evaluate(rule: Any, fields: Fields, row: object) -> Any:
    """The value of a JsonLogic rule for a row; unknown operators and variables are a 400."""
    if not isinstance(rule, dict):
        return rule
    if len(rule) != 1:
        raise Refusal(400, ["filter: an expression has one operator"])
    ((operator, operands),) = rule.items()
    if operator == "var":
        name = operands[0] if isinstance(operands, list) else operands
        if name not in fields:
            raise Refusal(400, [f"filter: {name} term is not supported"])
        return fields[name](row)
    items = operands if isinstance(operands, list) else [operands]
    if operator == "and":
        return all(evaluate(item, fields, row) for item in items)
    if operator == "or":
        return any(evaluate(item, fields, row) for item in items)
    values = [evaluate(item, fields, row) for item in items]
    if operator in ("!", "not"):
        return not values[0]
    return _compared(operator, values)


def _compared(operator: str, values: list[Any]) -> bool:
    try:
        match operator, values:
            case ("==" | "===", [a, b]):
                return bool(a == b)
            case ("!=" | "!==", [a, b]):
                return bool(a != b)
            case ("in", [a, b]):
                # With a list the first is one of it; with a text CVAT looks for the first within the second.
                return a in b if isinstance(b, list) else str(a).lower() in str(b or "").lower()
            case ("<" | "<=", _):
                return _ordered(values, strict=operator == "<")
            case (">" | ">=", [a, b]):
                return _ordered([b, a], strict=operator == ">")
    except TypeError as error:
        raise Refusal(400, [f"filter: {error}"]) from error
    raise Refusal(400, [f"filter: {operator} operation is not supported with {len(values)} arguments"])


def _ordered(values: list[Any], *, strict: bool) -> bool:
    if None in values:
        return False
    pairs = pairwise(values)
    return all(a < b if strict else a <= b for a, b in pairs)

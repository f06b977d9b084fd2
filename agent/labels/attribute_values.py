"""Values of attributes as the server takes them; cvat_sdk/attributes.py has the official client's rules."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from agent.domain import TaskAttribute
from agent.labels.names import fold, some


def valid_value(attribute: TaskAttribute, value: object) -> tuple[str | None, str]:
    """(the value in the attribute's own spelling, "") or (None, why not)."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if attribute.input_type == "text":
        return text, ""
    if attribute.input_type == "checkbox":
        folded = text.strip().lower()
        return (folded, "") if folded in ("true", "false") else (None, f"got {text!r}, allowed: true or false")
    if attribute.input_type == "number":
        return _number(text, attribute.values)
    found = [v for v in attribute.values if v == text] or [v for v in attribute.values if fold(v) == fold(text)]
    return (found[0], "") if len(found) == 1 else (None, f"got {text!r}, allowed: {some(attribute.values)}")


def _number(text: str, values: Sequence[str]) -> tuple[str | None, str]:
    """A number in the range, a whole count of steps above its minimum. Decimal: 0.3 is three steps of 0.1."""
    try:
        number = Decimal(text.strip()) + 0
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or abs(number.adjusted()) > 15:
        return None, f"got {text!r}, allowed: a number"
    try:
        low, high, step = (Decimal(value) for value in values)
    except (InvalidOperation, ValueError):
        return _plain(number), ""
    if not low <= number <= high or (step > 0 and (number - low) % step != 0):
        return None, f"got {text!r}, allowed: {values[0]} to {values[1]} in steps of {values[2]}"
    return _plain(number), ""


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

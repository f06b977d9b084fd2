"""HTML as values: whatever is not made here is text, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TypeAlias

VOID = {"meta", "link", "input", "br"}


class Html(str):
    """Markup that is ready to be sent."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """An element. Names of attributes lose a last `_`, and `_` within is `-`; None and False leave one out."""
    text = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(children)}</{name}>")


def join(children: Child) -> Html:
    """Markup of all of these, one after the other."""
    if children is None:
        return Html()
    if isinstance(children, str):
        return children if isinstance(children, Html) else Html(html.escape(children))
    return Html("".join(join(child) for child in children))


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Child]], empty: str) -> Html:
    """A table whose first column names its rows; on a narrow screen each row becomes a card.

    The roles are said because the form of a card takes a table's own away.
    """
    body = [
        tag(
            "tr",
            [
                tag("th" if not place else "td", cell, role="cell" if place else "rowheader", data_label=columns[place],
                    scope=None if place else "row")
                for place, cell in enumerate(row)
            ],
            role="row",
        )
        for row in rows
    ]  # fmt: skip
    if not body:
        return tag("p", empty, class_="empty")
    head = tag("tr", [tag("th", name, scope="col", role="columnheader") for name in columns], role="row")
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", head, role="rowgroup"),
        tag("tbody", body, role="rowgroup"),
        role="table",
    )


def _attribute(name: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'

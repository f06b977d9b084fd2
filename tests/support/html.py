"""HTML read by the standard library: what a page says, and whether its elements end where they should."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.right = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.right = self.right and bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


def wellformed(html: str) -> bool:
    """Whether every element ends, in the right order."""
    reader = _read(html)
    return reader.right and not reader.open


def text_of(html: str) -> str:
    """The text that a reader sees, character references resolved."""
    return "".join(_read(html).texts)


def elements(html: str, tag: str) -> list[dict[str, str | None]]:
    """The attributes of all elements of a kind."""
    return [attributes for name, attributes in _read(html).elements if name == tag]

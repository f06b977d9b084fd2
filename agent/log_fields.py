"""What log lines carry besides their text: the request, the run and the model that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_FIELDS: ContextVar[tuple[Mapping[str, str], ...]] = ContextVar("log_fields", default=())


@contextmanager
def log_fields(fields: Mapping[str, str] | None = None, **more: str) -> Iterator[None]:
    """Lines that are logged within the block, by this thread and by those that copy its context, carry the fields.

    `fields` may grow meanwhile: all of these threads hear of it.
    """
    given = tuple(mapping for mapping in (fields, more) if mapping is not None)
    token = _FIELDS.set((*_FIELDS.get(), *given))
    try:
        yield
    finally:
        _FIELDS.reset(token)


def current_fields() -> Mapping[str, str]:
    """The fields of the blocks that we are in; the innermost wins."""
    found: dict[str, str] = {}
    for mapping in _FIELDS.get():
        found.update(mapping)
    return found

"""What log lines carry besides their text: the request and the run that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_FIELDS: ContextVar[Mapping[str, str]] = ContextVar("log_fields")


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Lines that are logged within the block, by this thread and by those that copy its context, carry the fields."""
    token = _FIELDS.set({**current_fields(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(token)


def current_fields() -> Mapping[str, str]:
    """The fields of the block that we are in."""
    return _FIELDS.get({})

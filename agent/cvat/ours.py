"""Which of a job's annotations are ours: what an upload sent, and what a run made and nobody has changed since."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from agent.ledger.content import content_key, same_content
from agent.ledger.ledger import KINDS, Made, Upload

Annotations: TypeAlias = Mapping[str, list[dict[str, Any]]]
"""CVAT's labeled data: `tags`, `shapes`, `tracks`."""


def find_sent(
    upload: Upload, stored: Annotations, known: Collection[tuple[str, int]]
) -> dict[str, list[dict[str, Any] | None]]:
    """For each item of the upload, in its order, the stored item that is it, or None."""
    found: dict[str, list[dict[str, Any] | None]] = {}
    for kind, sent in upload.payload.items():
        candidates: dict[str, list[dict[str, Any]]] = {}
        for item in stored.get(kind, ()):
            if item["id"] > upload.above.get(kind, 0) and (kind, item["id"]) not in known:
                candidates.setdefault(content_key(item), []).append(item)
        found[kind] = [_take(candidates.get(content_key(item), []), item) for item in sent]
    return found


def _take(candidates: list[dict[str, Any]], sent: Mapping[str, Any]) -> dict[str, Any] | None:
    for position, item in enumerate(candidates):
        # A person may set the very same tag; the source tells it from ours.
        if item.get("source") == sent.get("source") and same_content(sent, item):
            return candidates.pop(position)
    return None


def untouched(
    made: Iterable[Made], stored: Annotations, known: Collection[tuple[str, int]]
) -> tuple[dict[str, list[dict[str, Any]]], list[Made]]:
    """What of our objects is still as we made it (stored items by kind), and those that somebody has changed.

    CVAT's editor sets the source of what a person changes to "semi-auto". A client that replaces all annotations of a
    job gives each a new id; then our content under an id that is not `known` to be any run's, still "auto", is ours.
    """
    by_id = {(kind, item["id"]): item for kind in KINDS for item in stored.get(kind, ())}
    left: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    changed, lost = [], []
    for item in made:
        there = by_id.get((item.kind, item.server_id))
        if there is None:
            lost.append(item)
        elif there.get("source") == "auto" and same_content(item.sent, there):
            left[item.kind].append(there)
        else:
            changed.append(item)
    strangers: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (kind, number), stranger in by_id.items():
        if (kind, number) not in known and stranger.get("source") == "auto":
            strangers.setdefault((kind, content_key(stranger)), []).append(stranger)
    for item in lost:
        if (found := _take(strangers.get((item.kind, content_key(item.sent)), []), item.sent)) is not None:
            left[item.kind].append(found)
    return left, changed

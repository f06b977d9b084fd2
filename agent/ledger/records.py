"""What the ledger knows of a run, as values: the run itself, its uploads, and the objects that it made."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.ledger.content import fingerprint


def pack(payload: Mapping[str, Any]) -> bytes:
    """An upload's payload as the ledger keeps it."""
    return zlib.compress(json.dumps(payload).encode(), 3)


def unpack(blob: bytes) -> dict[str, list[dict[str, Any]]]:
    """The payload that `pack` packed."""
    payload: dict[str, list[dict[str, Any]]] = json.loads(zlib.decompress(blob))
    return payload


def pack_fingerprints(payload: Mapping[str, list[dict[str, Any]]]) -> bytes:
    """What is still needed of a payload once the server has it: to know each object again, and to count labels."""
    return pack({kind: [fingerprint(item) for item in items] for kind, items in payload.items()})


def pack_labels(payload: Mapping[str, list[dict[str, Any]]]) -> bytes:
    """What is still needed of a payload of which nothing is there any more: to count labels."""
    return pack({kind: [{"label_id": item["label_id"]} for item in items] for kind, items in payload.items()})


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One row of the ledger. `status`: running, interrupted, failed, done, undone."""

    id: str
    created: str
    updated: str
    status: str
    server: str
    user: str
    target: str
    model: str
    model_version: str
    options: Mapping[str, Any]
    frames: Mapping[int, tuple[int, ...]]
    """The frames that the run is to annotate, by job."""
    report: Mapping[str, Any]

    @property
    def command(self) -> str:
        """annotate, or what else made it: track, enrich."""
        word = self.model.partition(" ")[0]
        return "annotate" if ":" in word else word

    @classmethod
    def of(cls, row: sqlite3.Row) -> RunRecord:
        values = dict(row)
        values |= {name: json.loads(values[name]) for name in ("options", "report")}
        values["frames"] = {int(job): tuple(numbers) for job, numbers in json.loads(values["frames"]).items()}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Upload:
    """One create call: `payload` as sent, `above` the highest id of each kind that the job had before.

    Once the server has answered, the ledger keeps the payload's fingerprints only (agent.ledger.content).
    """

    run: str
    number: int
    job: int
    frames: tuple[int, ...]
    payload: Mapping[str, list[dict[str, Any]]]
    above: Mapping[str, int]
    removes: tuple[tuple[str, int], ...]
    """(kind, server id) of what goes away once the new annotations are there."""
    state: str
    resent: bool

    @classmethod
    def of(cls, row: sqlite3.Row) -> Upload:
        values = dict(row)
        values |= {name: json.loads(values[name]) for name in ("frames", "above", "removes")}
        return cls(
            **{
                **values,
                "frames": tuple(values["frames"]),
                "payload": unpack(values["payload"]),
                "removes": tuple((kind, server_id) for kind, server_id in values["removes"]),
                "resent": bool(values["resent"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Made:
    """An object that a run made: where it is, and what of its content was kept: enough to know it again."""

    run: str
    job: int
    kind: str
    server_id: int
    sent: Mapping[str, Any]

"""What the jobs of a run already hold: what new shapes must not overlap, and what they replace."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.cvat.annotations_api import get_annotations
from agent.cvat.session import Session
from agent.cvat.uploads import untouched
from agent.cvat.work import JobWork
from agent.existing import Item, shapes_by_frame
from agent.ledger import KINDS, Ledger
from agent.options import Options


@dataclass(slots=True)
class Survey:
    """By (job id, frame): shapes to keep clear of, and (kind, id) of what goes away when new annotations are there."""

    existing: dict[tuple[int, int], list[Item]] = field(default_factory=dict)
    replaced: dict[tuple[int, int], list[tuple[str, int]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def survey_jobs(
    session: Session,
    frames: Mapping[JobWork, Sequence[int]],
    options: Options,
    ledger: Ledger | None,
    run: str | None,
) -> Survey:
    """Looks at the jobs one by one, as far as the options need it.

    `run` is the run that is resumed: what it made itself is neither in the way nor replaced.
    """
    survey = Survey()
    if options.replace == "none" and options.skip_overlapping is None:
        return survey
    for job, numbers in frames.items():
        stored = get_annotations(session, job.id)
        own = {(made.kind, made.server_id) for made in ledger.made(run=run, job=job.id)} if ledger and run else set()
        leaving = _leaving(stored, job, numbers, options, ledger, run, own, session.url, survey)
        if options.replace == "all" and any(leaving.values()) and ledger is not None:
            survey.warnings.append(f"job {job.id}: backup in {_write_backup(ledger, session.url, job, stored)}")
        gone = {(kind, item["id"]) for kind, items in leaving.items() for item in items} | own
        for kind, items in leaving.items():
            for item in items:
                frame = numbers[-1] if kind == "tracks" else item["frame"]
                survey.replaced.setdefault((job.id, frame), []).append((kind, item["id"]))
        if options.skip_overlapping is not None:
            staying = {kind: [i for i in stored.get(kind, ()) if (kind, i["id"]) not in gone] for kind in KINDS}
            for frame, shapes in shapes_by_frame(staying, job.stop).items():
                survey.existing[job.id, frame] = shapes
    return survey


def _leaving(
    stored: Mapping[str, list[dict[str, Any]]],
    job: JobWork,
    frames: Sequence[int],
    options: Options,
    ledger: Ledger | None,
    run: str | None,
    own: Collection[tuple[str, int]],
    server: str,
    survey: Survey,
) -> dict[str, list[dict[str, Any]]]:
    """What makes room on these frames."""
    if options.replace == "none":
        return {}
    chosen, whole = set(frames), set(frames) >= set(job.frames)
    if options.replace == "own":
        earlier = [made for made in ledger.made(job=job.id, server=server) if made.run != run] if ledger else []
        items, changed = untouched(earlier, stored)
        if changed:
            survey.warnings.append(f"job {job.id}: {changed} annotations of earlier runs stay, somebody changed them")
    else:
        items = {kind: list(stored.get(kind, ())) for kind in KINDS}
        if items["tracks"] and not whole:
            survey.warnings.append(f"job {job.id}: {len(items['tracks'])} tracks stay: not all frames are chosen")
    tracks = items["tracks"] if whole else []
    flat = {kind: [item for item in items[kind] if item["frame"] in chosen] for kind in ("tags", "shapes")}
    return {
        kind: [item for item in found if (kind, item["id"]) not in own]
        for kind, found in {**flat, "tracks": tracks}.items()
    }


def _write_backup(ledger: Ledger, server: str, job: JobWork, stored: Mapping[str, Any]) -> Path:
    """Keeps a job's annotations in a file, in the form that CVAT's API takes back."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = ledger.path.parent / "backups" / f"job-{job.id}-{stamp}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"server": server, "job": job.id, "annotations": stored}), encoding="utf-8")
    return path

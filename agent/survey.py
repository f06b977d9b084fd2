"""What the jobs of a run already hold: what new shapes must not overlap, and what they replace."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.cvat.annotations_api import get_annotations
from agent.cvat.ours import untouched
from agent.cvat.session import Session
from agent.cvat.uploads import JobUploads
from agent.cvat.work import JobWork, TaskWork
from agent.errors import BadRequest
from agent.existing import Item, shapes_by_frame
from agent.ledger.backups import write_backup
from agent.ledger.ledger import KINDS, Ledger
from agent.options import Options

Stored = Mapping[str, list[dict[str, Any]]]


@dataclass(slots=True)
class Survey:
    """By (job id, frame): shapes to keep clear of, and (kind, id) of what goes away when new annotations are there."""

    existing: dict[tuple[int, int], list[Item]] = field(default_factory=dict)
    replaced: dict[tuple[int, int], list[tuple[str, int]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    backups: list[Path] = field(default_factory=list)


class Surveyor:
    """Looks at the jobs of a run one by one, as far as its options need it.

    `run` is the run that is resumed: what it made itself is neither in the way nor replaced. A dry run keeps no backup.
    """

    def __init__(
        self, session: Session, options: Options, ledger: Ledger, run: str | None = None, *, dry_run: bool = False
    ) -> None:
        self._session, self._options, self._ledger, self._run = session, options, ledger, run
        self._dry_run = dry_run

    def look(self, part: TaskWork, wanted: Mapping[int, Sequence[int]], whole: Collection[int]) -> Survey:
        """Looks at a task: `wanted` has the frames by job, `whole` the jobs all of whose frames the run annotates."""
        survey = Survey()
        if self._options.replace == "none" and self._options.skip_overlapping is None:
            return survey
        # A frame that two jobs share is annotated in the first of them, and what the other one holds is in the way too.
        # Ground truth is no neighbour: it is there to be compared with.
        owners = {(job.type, frame): job.id for job in part.jobs for frame in wanted.get(job.id, ())}
        for job in part.jobs:
            here = {frame for kind, frame in owners if kind == job.type and job.start <= frame <= job.stop}
            if not here or not (wanted.get(job.id) or self._options.skip_overlapping is not None):
                continue
            if self._options.replace in ("own", "rule") and not self._dry_run:
                self._adopt(job, survey)
            if self._rule is not None and (run := self._ledger.pruned_run(job.id, self._session.url, self._rule)):
                survey.warnings.append(f"job {job.id}: what run {run} may have left here stays: that run was pruned")
            if self._options.skip_overlapping is None and not self._may_replace(job):
                continue
            stored = get_annotations(self._session, job.id)
            gone = self._own(job)
            if numbers := wanted.get(job.id):
                leaving = self._leaving(stored, job, numbers, job.id in whole, gone, survey)
                gone |= {(kind, item["id"]) for kind, items in leaving.items() for item in items}
            if self._options.skip_overlapping is not None:
                staying = {kind: [i for i in stored.get(kind, ()) if (kind, i["id"]) not in gone] for kind in KINDS}
                for frame, shapes in shapes_by_frame(staying, job.stop, here).items():
                    survey.existing.setdefault((owners[job.type, frame], frame), []).extend(shapes)
        return survey

    def _adopt(self, job: JobWork, survey: Survey) -> None:
        """Makes earlier runs, which were killed, know what they made in the job; else it would stay for ever."""
        for run in self._ledger.unanswered(job.id, self._session.url, rule=self._rule):
            if run == self._run:
                continue
            try:
                with self._ledger.hold(run):
                    JobUploads(self._session, self._ledger, run, job.id, wait=time.sleep).adopt()
            except BadRequest:
                survey.warnings.append(f"job {job.id}: run {run} is still going on; what it makes now stays")

    @property
    def _rule(self) -> str | None:
        """The rule whose runs alone make room, if it is so."""
        return self._options.rule if self._options.replace == "rule" else None

    def _may_replace(self, job: JobWork) -> bool:
        """Whether there can be anything to replace; of most jobs a rule knows that nothing is, without asking."""
        earlier = self._options.replace != "rule" or self._ledger.has_made(job.id, self._session.url, self._rule)
        return self._options.replace != "none" and earlier

    def _own(self, job: JobWork) -> set[tuple[str, int]]:
        if self._run is None:
            return set()
        return {(made.kind, made.server_id) for made in self._ledger.made(run=self._run, job=job.id)}

    def _leaving(
        self,
        stored: Stored,
        job: JobWork,
        frames: Sequence[int],
        whole: bool,
        own: Collection[tuple[str, int]],
        survey: Survey,
    ) -> Stored:
        """What makes room on these frames; tracks do when the last frame is annotated."""
        if self._options.replace == "none":
            return {}
        chosen = set(frames)
        items = self._old(stored, job, survey)
        if items["tracks"] and not whole:
            survey.warnings.append(f"job {job.id}: {len(items['tracks'])} tracks stay: not all frames are chosen")
        leaving = {
            kind: [
                item
                for item in items[kind]
                if (kind, item["id"]) not in own and (whole if kind == "tracks" else item["frame"] in chosen)
            ]
            for kind in KINDS
        }
        if self._options.replace == "all" and any(leaving.values()) and not self._dry_run:
            survey.backups.append(write_backup(self._ledger.path, self._session.url, job.id, stored))
            survey.warnings.append(f"job {job.id}: backup in {survey.backups[-1]}")
        for kind, found in leaving.items():
            for item in found:
                frame = frames[-1] if kind == "tracks" else item["frame"]
                survey.replaced.setdefault((job.id, frame), []).append((kind, item["id"]))
        return leaving

    def _old(self, stored: Stored, job: JobWork, survey: Survey) -> Stored:
        """What may be replaced on any frame."""
        if self._options.replace == "all":
            return {kind: stored.get(kind, []) for kind in KINDS}
        server = self._session.url
        made_here = self._ledger.made(job=job.id, server=server, rule=self._rule)
        earlier = [made for made in made_here if made.run != self._run]
        items, changed = untouched(earlier, stored, self._ledger.known_ids(job.id, server))
        if changed:
            survey.warnings.append(
                f"job {job.id}: {len(changed)} annotations of earlier runs stay, somebody changed them"
            )
        return items

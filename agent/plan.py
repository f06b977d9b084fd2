"""Everything about a task's part of a run that is decided before the first frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.annotations import OutputOptions
from agent.contract import Context
from agent.cvat.annotations_api import get_annotations
from agent.cvat.chunks import BadFrame
from agent.cvat.session import Session
from agent.cvat.work import JobWork, TaskWork
from agent.domain import Frame, Roi
from agent.errors import BadRequest, LabelMismatch, NothingToDo
from agent.existing import Item, occupied_frames
from agent.filters import Filters
from agent.labels.advice import IN_MENU, IN_RULE, ON_COMMAND_LINE
from agent.labels.maps import load_label_map
from agent.labels.matching import LabelMatch, match_labels
from agent.ledger.ledger import Ledger
from agent.models.loading import LoadedModel
from agent.options import Options
from agent.selection import Selection, parse_selection
from agent.survey import Surveyor

Place = tuple[int, int]
"""(job id, task-relative frame)."""


class NoFramesChosen(BadRequest):
    """None of the frames is to be annotated: an error for whoever asked by hand, for a rule nothing to do."""


class AllAnnotated(NoFramesChosen, NothingToDo):
    """Frames without annotations are wanted, and all of them have some: nothing to do, for a person too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One task's part of a run."""

    work: TaskWork
    model: LoadedModel
    wanted: tuple[tuple[JobWork, int], ...]
    """The frames to annotate, in order, job by job."""
    earlier: int
    """How many more frames the run has dealt with before it was interrupted."""
    match: LabelMatch
    filters: Filters
    output: OutputOptions
    context: Context
    region: Roi | None = None
    existing: Mapping[Place, Sequence[Item]] = field(default_factory=dict)
    """Shapes that predictions must not overlap."""
    replaced: Mapping[Place, Sequence[tuple[str, int]]] = field(default_factory=dict)
    """(kind, id) of what goes away when a frame's new annotations are there."""
    skip_overlapping: float | None = None
    max_bad_frames: int = 50
    bad_frames_option: str = "max_bad_frames ="
    """How whoever asks says how many are too many."""
    warnings: tuple[str, ...] = ()
    backups: tuple[Path, ...] = ()
    """Of jobs, as they were before."""

    def headline(self) -> str:
        """One line for a person."""
        labels = f"{len(self.match.targets)} of {len(self.model.labels)} labels match"
        more = f" ({self.earlier} done before)" if self.earlier else ""
        return f"task {self.work.task_id} {self.work.name!r}: {len(self.wanted)} frames{more}, {labels}"

    @property
    def label_names(self) -> dict[int, str]:
        """Label id -> name."""
        return {label.id: label.name for label in self.work.labels}

    @property
    def places(self) -> list[Place]:
        return [(job.id, frame) for job, frame in self.wanted]

    def view(self, frame: Frame) -> Frame | BadFrame:
        """The part of a frame that the model is to see."""
        if (region := self.region) is None:
            return frame
        part = frame.image[region.top : region.bottom, region.left : region.right]
        if not part.size:
            size = f"{frame.width}x{frame.height}"
            return BadFrame(frame.index, frame.name, f"the region lies outside the picture of {size}")
        return Frame(frame.index, frame.name, np.ascontiguousarray(part))


def check_options(options: Options) -> None:
    """Says what is wrong with options that make_plans will read, before any request and before a model is loaded."""
    parse_selection(options.selection, options.seed)
    if options.label_map:
        load_label_map(options.label_map)


def make_plans(
    session: Session,
    work: Sequence[TaskWork],
    options: Options,
    model: LoadedModel,
    ledger: Ledger,
    run: str | None = None,
    *,
    dry_run: bool = False,
) -> list[Plan]:
    """The plans of a new run, or of what is left of an interrupted one; a hopeless request fails here."""
    chosen = ledger.run(run).frames if run else None
    finished = ledger.finished_frames(run) if run else set()
    selection = parse_selection(options.selection, options.seed)
    surveyor = Surveyor(session, options, ledger, run, dry_run=dry_run)
    plans = []
    for part in work:
        notes: list[str] = []
        if chosen is not None:
            places = _as_before(part, chosen)
        else:
            places = _chosen(session, part, selection, alone=len(work) == 1)
            if options.rule is None and len(work) == 1:  # the tasks of a project differ in length
                notes = selection.cut(_frames(part))
        plans.append(_plan(part, places, finished, options, model, surveyor, notes))
    if not any(plan.wanted or plan.earlier for plan in plans):
        size = sum(len(job.frames) for part in work for job in part.jobs)
        text = f"frames: {options.selection!r} chooses none of the {size} frames of the {len(work)} task(s)"
        if chosen is None and selection.needs_occupied and _might_choose(work, selection):
            raise AllAnnotated(f"{text}: those that it may choose have annotations already")
        raise NoFramesChosen(text)
    return plans


def _plan(
    part: TaskWork,
    places: Sequence[tuple[JobWork, int]],
    finished: Collection[Place],
    options: Options,
    model: LoadedModel,
    surveyor: Surveyor,
    notes: Sequence[str],
) -> Plan:
    label_map = load_label_map(options.label_map) if options.label_map else None
    wording = ON_COMMAND_LINE if options.rule is None else IN_RULE
    match = match_labels(model.labels, part.labels, request=options.mapping, label_map=label_map, wording=wording)
    thresholds = match.thresholds(options.threshold, model.default_threshold)
    wanted = [(job, frame) for job, frame in places if (job.id, frame) not in finished]
    counts = Counter(job.id for job, _ in places)
    whole = {job.id for job in part.jobs if counts[job.id] == len(job.frames)}
    survey = surveyor.look(part, frames_by_job((job.id, frame) for job, frame in wanted), whole)
    return Plan(
        work=part,
        model=model,
        wanted=tuple(wanted),
        earlier=len(places) - len(wanted),
        match=match,
        filters=Filters(thresholds=thresholds, min_area=options.min_area, max_per_frame=options.max_per_frame),
        output=OutputOptions(options.masks_as_polygons, options.tolerance, options.min_area),
        context=Context(thresholds.lowest, frozenset(match.targets), options.masks_as_polygons),
        region=options.region,
        existing=survey.existing,
        skip_overlapping=options.skip_overlapping,
        max_bad_frames=options.max_bad_frames,
        bad_frames_option="--max-bad-frames" if options.rule is None else "max_bad_frames =",
        replaced=survey.replaced,
        warnings=(*part.notes, *notes, *match.notes, *survey.warnings),
        backups=tuple(survey.backups),
    )


def request_plan(
    part: TaskWork,
    wanted: Sequence[tuple[JobWork, int]],
    model: LoadedModel,
    *,
    mapping: Mapping[str, Any] | None,
    threshold: float | None,
    default_threshold: float | None = None,
    label_map: str | None = None,
    masks_as_polygons: bool = False,
    max_bad_frames: int = 50,
) -> Plan:
    """The plan of a request that CVAT makes: what its `mapping` does not name is not wanted.

    Without a mapping, labels are matched as everywhere. LabelMismatch where nothing has a place in the task.
    """
    if mapping is not None and not mapping:
        raise LabelMismatch("mapping: it is empty, no label of the model is to become one of the task's")
    known = load_label_map(label_map) if label_map else None
    only, wording = mapping is not None, IN_MENU
    match = match_labels(
        model.labels, part.labels, request=mapping, label_map=known, only_requested=only, wording=wording
    )
    default = model.default_threshold if default_threshold is None else default_threshold
    thresholds = match.thresholds(threshold, default)
    return Plan(
        work=part,
        model=model,
        wanted=tuple(wanted),
        earlier=0,
        match=match,
        filters=Filters(thresholds=thresholds),
        output=OutputOptions(masks_as_polygons=masks_as_polygons),
        context=Context(thresholds.lowest, frozenset(match.targets), masks_as_polygons),
        max_bad_frames=max_bad_frames,
    )


def _chosen(session: Session, part: TaskWork, selection: Selection, *, alone: bool) -> list[tuple[JobWork, int]]:
    occupied: set[int] = set()
    if selection.needs_occupied:
        for job in part.jobs:
            occupied |= occupied_frames(get_annotations(session, job.id), job.stop)
    try:
        picked = set(selection.choose(_frames(part), occupied))
    except BadRequest as error:
        if alone:
            raise NoFramesChosen(str(error)) from error
        picked = set()  # a range may lie beyond the shorter tasks of a project
    return [(job, frame) for job in part.jobs for frame in job.frames if frame in picked]


def _frames(part: TaskWork) -> list[int]:
    return sorted({frame for job in part.jobs for frame in job.frames})


def _might_choose(work: Sequence[TaskWork], selection: Selection) -> bool:
    """Whether it would choose frames if none had annotations."""
    for part in work:
        with suppress(BadRequest):
            if selection.choose(_frames(part)):
                return True
    return False


def _as_before(part: TaskWork, chosen: Mapping[int, Sequence[int]]) -> list[tuple[JobWork, int]]:
    """The frames that the run chose when it began, as far as they still exist."""
    before = {job.id: frozenset(chosen.get(job.id, ())) for job in part.jobs}
    return [(job, frame) for job in part.jobs for frame in job.frames if frame in before[job.id]]


def frames_by_job(places: Iterable[Place]) -> dict[int, list[int]]:
    """The frames of each job, in their order."""
    found: dict[int, list[int]] = {}
    for job, frame in places:
        found.setdefault(job, []).append(frame)
    return found

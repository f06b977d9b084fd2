"""A run of `enrich` from beginning to end: shapes and tracks read, looked at on their frames, changed in their jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from agent.compose.parts import Opener, Parts
from agent.cvat.annotations_api import get_annotations, portions, update
from agent.cvat.session import Session
from agent.cvat.uploads import JobUploads
from agent.cvat.work import find_work
from agent.enrich.looks import Looked, Ready, look, prepare
from agent.enrich.places import ON_FRAMES, EnrichOptions, JobPlaces, read_job, tracks_in
from agent.enrich.shapes import Changes, check_attribute, check_into
from agent.enrich.votes import Look, note_track
from agent.errors import NothingToDo
from agent.ledger.backups import write_backup
from agent.ledger.ledger import Ledger
from agent.models.host import Host
from agent.models.loading import LoadedModel
from agent.options import Target
from agent.report import RunReport
from agent.runs.surroundings import Surroundings

MODEL = "enrich"
"""What the ledger calls the model of such a run, before the name of the real one."""


def enrich_target(
    target: Target, options: EnrichOptions, around: Surroundings, *, device: str, params: Mapping[str, Any],
    opener: Opener, dry_run: bool = False,
) -> RunReport:  # fmt: skip
    """Looks again at the shapes and tracks of a task, a job or a project; NothingToDo where there are none."""
    with ExitStack() as stack:
        session = stack.enter_context(around.open())
        ledger = stack.enter_context(Ledger(around.ledger))
        parts = Parts(MODEL, device, _once(opener, stack))
        stack.callback(parts.close)
        report = RunReport(looked="looked at", made="changed", dry=dry_run)
        work = find_work(session, target)
        jobs = {part.task_id: [read_job(session, ledger, part, job, options) for job in part.jobs] for part in work}
        _count([job for found in jobs.values() for job in found], target, options, report)
        for part in work:
            if options.fills:
                check_attribute(part.labels, options.labels, options.fills, f"task {part.task_id}")
            if options.into:
                check_into(part.labels, options.into, options.gives, f"task {part.task_id}")
        # What cannot be done is told before a run of it is remembered.
        ready = [prepare(part, jobs[part.task_id], options, parts, params) for part in work]
        if not dry_run:
            report.run = ledger.begin(
                server=session.url, user=session.user, target=str(target), model=f"{MODEL} {options.model}",
                model_version=ready[0].part.loaded.version, options=asdict(options),
                frames={job.work.id: sorted(job.places) for found in jobs.values() for job in found if job.places},
            )  # fmt: skip
            stack.enter_context(ledger.hold(report.run))
        around.started(report.run, ())
        with around.concluding(report, ledger):
            for one in ready:
                _change(session, ledger, one, look(session, one, options, around, report), options, around, report)
        return report


def _count(jobs: Sequence[JobPlaces], target: Target, options: EnrichOptions, report: RunReport) -> None:
    """Tells what there is to look at, and what is left alone. NothingToDo where there is nothing."""
    report.total = sum(len(job.places) for job in jobs)
    for job in jobs:
        report.refused.update(job.left)
    alone = list(_left_alone(jobs, options))
    if not report.total:
        what = "rectangles" if options.gives in ON_FRAMES else "shapes or tracks"
        whose, more = _WHOSE[options.of]
        others = [f"other shapes are left: {report.refused.total()}"] if report.refused else []
        reasons = "".join(f"; {reason}" for reason in (*others, *alone))
        raise NothingToDo(f"{target}: it holds no {what} to look at{whose and f' that {whose} ({more})'}{reasons}")
    report.notes += [f"note        {reason}" for reason in alone]
    places = [(job.work.id, place) for job in jobs for places in job.places.values() for place in places]
    if looked_at := {(job, place.track["id"]) for job, place in places if place.track is not None}:
        shapes = sum(place.track is None for _, place in places)
        tracks = tracks_in([job for job, _ in looked_at])
        report.notes.append(f"looked at   {shapes} shapes, and {tracks} in {len(places) - shapes} places")


_WHOSE = {
    "own": ("this program made and nobody changed", "--of auto or all: more"),
    "auto": ("a model made and nobody changed", "--of all: more"),
    "all": ("", ""),
}


def _left_alone(jobs: Sequence[JobPlaces], options: EnrichOptions) -> Iterator[str]:
    """What the options leave out, and why."""
    tracks = [job.work.id for job in jobs for _ in job.stored.get("tracks", ())]
    if tracks and options.gives in ON_FRAMES:
        are = "is" if len(tracks) == 1 else "are"
        yield (
            f"{tracks_in(tracks)} {are} not looked at: a {options.gives} takes the place of a shape on one frame, not"
            " of a track"
        )
    shapes = sum(job.passed_over["shapes"] for job in jobs)
    tracks = [job.work.id for job in jobs for _ in range(job.passed_over["tracks"])]
    counts = ["1 shape" if shapes == 1 else f"{shapes} shapes"] if shapes else []
    if passed_over := " and ".join([*counts, *([tracks_in(tracks)] if tracks else [])]):
        whose, more = _WHOSE[options.of]
        yield f"{passed_over} passed over: looked at is only what {whose} ({more})"


def _once(opener: Opener, stack: ExitStack) -> Opener:
    """Opens the same model once, however many tasks a project has; it stays open as long as the stack."""
    known: dict[str, tuple[LoadedModel, Host]] = {}

    @contextmanager
    def open_part(name: str, device: str, options: Mapping[str, Any]) -> Iterator[tuple[LoadedModel, Host]]:
        key = repr((name, device, sorted(options.items())))
        if key not in known:
            known[key] = stack.enter_context(opener(name, device, options))
        yield known[key]

    return open_part


def _change(
    session: Session, ledger: Ledger, ready: Ready, looked: list[Looked], options: EnrichOptions,
    around: Surroundings, report: RunReport,
) -> None:  # fmt: skip
    names = {label.id: label.name for label in ready.work.labels}
    for number, (job, changes) in _changes(ready, looked, options).items():
        stored = get_annotations(session, number)
        changes.leave_out_changed(job.stored, stored)
        changed = (*changes.updated, *changes.tracks, *changes.created)
        report.annotations.update(names[item["label_id"]] for item in changed)
        report.refused.update(changes.left)
        if report.run is None or not changes:
            report.removed += len(changes.replaced)
            continue
        backup = write_backup(ledger.path, session.url, number, stored)
        ledger.note_backup(report.run, backup)
        report.notes.append(f"backup      job {number}: {backup}")
        for kind, items in (("shapes", changes.updated), ("tracks", changes.tracks)):
            for some in portions(items):
                update(session, number, {kind: some})
                ledger.note_changed(report.run, number, kind, [item for item in some if (kind, item["id"]) in job.own])
        if changes.replaced:
            _recreate(session, ledger, report, number, changes, options, around)


def _changes(ready: Ready, looked: Iterable[Looked], options: EnrichOptions) -> dict[int, tuple[JobPlaces, Changes]]:
    """By job, what is to happen to it."""
    by_job: dict[int, tuple[JobPlaces, Changes]] = {}
    tracks: dict[tuple[int, int], tuple[Mapping[str, Any], list[Look]]] = {}
    for job, place, before, after, size in looked:
        changes = by_job.setdefault(job.work.id, (job, Changes()))[1]
        if place.track is None:
            ready.book.note(changes, place.shape, before, after, size)
        else:
            _, looks = tracks.setdefault((job.work.id, place.track["id"]), (place.track, []))
            looks.append(Look(place.shape["frame"], before, after))
    for (number, _), (track, looks) in tracks.items():
        note_track(ready.book, by_job[number][1], track, looks, options)
    return by_job


def _recreate(
    session: Session, ledger: Ledger, report: RunReport, job: int, changes: Changes, options: EnrichOptions,
    around: Surroundings,
) -> None:  # fmt: skip
    assert report.run is not None
    # The server may be waited for: what somebody changes in that time stays.
    uploads = JobUploads(session, ledger, report.run, job, wait=around.wait, keep_changed=options.of != "all")
    frames = sorted({shape["frame"] for shape in changes.created})
    payload: dict[str, list[dict[str, Any]]] = {"tags": [], "shapes": changes.created, "tracks": []}
    uploads.add(frames, payload, [("shapes", number) for number, _ in changes.replaced])
    uploads.settle()
    report.removed += uploads.removed

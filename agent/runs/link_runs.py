"""`track`: the rectangles that a task holds become tracks, as a run of the ledger that can be taken back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from agent.cvat.annotations_api import get_annotations, unchanged
from agent.cvat.session import Session
from agent.cvat.uploads import JobUploads
from agent.cvat.work import find_work
from agent.errors import BadRequest, NothingToDo, RequestCancelled
from agent.ledger.backups import write_backup
from agent.ledger.ledger import Ledger
from agent.options import Target
from agent.report import RunReport
from agent.runs.advice import typed
from agent.runs.linking import Linked, TrackOptions, is_sequence, link_task
from agent.runs.surroundings import ReadyModel, Surroundings

MODEL = "track"
"""What the ledger calls the model of such a run."""


def link_target(
    target: Target,
    options: TrackOptions,
    around: Surroundings,
    *,
    reidentifier: ReadyModel | None = None,
    dry_run: bool = False,
) -> RunReport:
    """Links the rectangles of a task, a job or a project; NothingToDo where there is nothing to link.

    A job is changed as a whole, in one call that adds its tracks; its rectangles go after that.
    """
    with ExitStack() as stack:
        session = stack.enter_context(around.open())
        ledger = stack.enter_context(Ledger(around.ledger))
        work = find_work(session, target)
        _check_earlier(ledger, session.url, {job.id for part in work for job in part.jobs}, options.labels)
        linked = [link_task(session, ledger, part, options, around, reidentifier) for part in work]
        report = _report(linked, dry=dry_run, kept=options.keep_shapes)
        if not any(part.tracks for part in linked):
            raise NothingToDo(f"{target}: {_why_nothing(linked, options)}")
        if dry_run:
            return report
        report.run = run = ledger.begin(
            server=session.url,
            user=session.user,
            target=str(target),
            model=MODEL,
            model_version="1",
            options=asdict(options),
            frames={job: sorted(part.frames.get(job, ())) for part in linked for job in part.tracks},
        )  # fmt: skip
        stack.enter_context(ledger.hold(run))
        around.started(run, ())
        with around.concluding(report, ledger):
            _upload(session, ledger, run, linked, options, around, report)
        return report


def _why_nothing(linked: Sequence[Linked], options: TrackOptions) -> str:
    count, left = sum(part.rectangles for part in linked), sum(part.left for part in linked)
    if count:
        least = options.link.min_sightings
        return f"its {count} rectangles make no track of {least} sightings or more (--min-sightings, --max-gap)"
    own = " that this program made and nobody changed (--of auto or all links more)" if options.of == "own" else ""
    other = f"; {left} other shapes are no rectangles" if left else ""
    return f"it holds no rectangles to link{own}{other}"


def _check_earlier(ledger: Ledger, server: str, jobs: set[int], labels: Sequence[str]) -> None:
    """BadRequest where the same rectangles would be linked twice."""
    for record in ledger.runs():
        if record.command != MODEL or record.server != server or not jobs & set(record.frames):
            continue
        earlier = record.options.get("labels") or ()
        if labels and earlier and not set(labels) & set(earlier):
            continue
        if record.status in ("running", "interrupted", "failed"):
            why = f"it is {record.status}, and some of its rectangles are tracks already"
        elif record.status == "done" and record.options.get("keep_shapes"):
            why = "it has linked these rectangles, and kept them"
        else:
            continue
        undo = typed("undo", record.id, ledger.path)
        raise BadRequest(f"run {record.id} of `track`: {why}; undo it first: {undo}")


def _upload(
    session: Session,
    ledger: Ledger,
    run: str,
    linked: Sequence[Linked],
    options: TrackOptions,
    around: Surroundings,
    report: RunReport,
) -> None:
    jobs = list(_jobs(linked))
    for done, (part, job) in enumerate(jobs, 1):
        if around.stop.is_set():
            raise RequestCancelled(f"interrupted after {done - 1} of {len(jobs)} jobs")
        tracks, gone = part.tracks.get(job, []), [] if options.keep_shapes else part.gone.get(job, [])
        if gone:
            stored = get_annotations(session, job)
            gone = _unchanged(gone, part.stored[job], stored, report)
            backup = write_backup(ledger.path, session.url, job, stored)
            ledger.note_backup(run, backup)
            report.notes.append(f"backup      job {job}: {backup}")
        uploads = JobUploads(session, ledger, run, job, wait=around.wait, keep_changed=options.of == "own")
        frames = sorted({shape["frame"] for track in tracks for shape in track["shapes"]})
        uploads.add(frames, {"tags": [], "shapes": [], "tracks": tracks}, [("shapes", number) for number in gone])
        uploads.settle()
        report.removed += uploads.removed
        around.progress(done, len(jobs))


def _unchanged(gone: Sequence[int], before: Mapping[str, Any], now: Mapping[str, Any], report: RunReport) -> list[int]:
    """The ids of rectangles that are still what they were when they were linked; the others stay."""
    there, same = {shape["id"] for shape in now["shapes"]}, unchanged(before["shapes"], now["shapes"])
    if changed := sum(number in there and number not in same for number in gone):
        report.refused["somebody changed it meanwhile"] += changed
    return [number for number in gone if number in same]


def _of_groups(part: Linked, kept: bool) -> Iterator[str]:
    """What linking has made of the groups of rectangles; `kept` are those that stay, and their groups with them."""
    mixed = sum(groups.mixed for groups in part.groups.values())
    parted = 0 if kept else sum(groups.parted() for groups in part.groups.values())
    if mixed:
        what = "1 track is" if mixed == 1 else f"{mixed} tracks are"
        yield f"{what} of rectangles of several groups, and in the one that most of them were in"
    if parted:
        what = "1 rectangle was" if parted == 1 else f"{parted} rectangles were"
        yield f"{what} grouped with something that the track is not grouped with any more"


def _jobs(linked: Sequence[Linked]) -> Iterator[tuple[Linked, int]]:
    for part in linked:
        for job in part.work.jobs:
            if part.tracks.get(job.id) or part.gone.get(job.id):
                yield part, job.id


def _report(linked: Sequence[Linked], *, dry: bool, kept: bool) -> RunReport:
    report = RunReport(looked="linked", made="tracks", dry=dry)
    for part in linked:
        for label, (tracks, rectangles) in part.by_label.items():
            report.annotations[label] += tracks
            report.notes.append(
                f"linked      task {part.work.task_id}, {label}: {rectangles} rectangles to"
                f" {tracks} {'track' if tracks == 1 else 'tracks'}"
            )
        if not all(map(is_sequence, part.work.jobs)):
            report.notes.append(
                f"note        task {part.work.task_id}: its pictures are no sequence, as their names do not count up;"
                " tracks follow things from each picture to the next"
            )
        if part.left:
            report.notes.append(f"note        task {part.work.task_id}: {part.left} shapes are no rectangles")
        report.notes += [f"note        task {part.work.task_id}: {said}" for said in _of_groups(part, kept)]
        report.total += len(set().union(*part.frames.values()))
        if dry:
            report.removed += sum(map(len, part.gone.values()))
    report.done = report.total
    return report

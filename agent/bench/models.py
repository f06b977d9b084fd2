"""`models bench` from beginning to end: the job's truth, and each model over its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.bench.measure import measure, truth_of
from agent.bench.weighing import weigh
from agent.compose.named import open_named
from agent.cvat.annotations_api import get_annotations
from agent.cvat.frames import ChunkFrames
from agent.cvat.session import Session, open_session
from agent.cvat.work import JobWork, TaskWork, find_work
from agent.errors import BadRequest, ConfigError, LabelMismatch, ModelError
from agent.labels.maps import load_label_map
from agent.labels.matching import match_labels
from agent.models.loading import LoadedModel, wrong_kind
from agent.options import Target
from agent.settings.server import ServerSettings
from agent.settings.service import load_models
from agent.settings.tables import ModelSettings

USUAL_SIZE = (1280, 960)
"""Of pictures, where the server does not tell."""


def bench_models(
    references: Sequence[str],
    server: ServerSettings,
    truth_job: int,
    task: int | None,
    *,
    config: Path | None = None,
    mapping: Mapping[str, str | None] | None = None,
    label_map: str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    quality: str = "original",
    says: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """For each model what `BenchResult` has, its name, and the bytes that a process takes with it alone, or None.

    A model that cannot be used has an `error` instead, and costs the others nothing; what is said of the last one is
    raised where none can. `says` hears what may be wrong with the truth, and of each model how many frames it is shown.
    BadRequest for a job without shapes, or of another task; ConfigError for `options`, which are one model's, with
    several.
    """
    if options and len(references) > 1:
        raise ConfigError(f"-p {next(iter(options))}: got {len(references)} models, allowed: with one REF")
    rows: list[dict[str, Any]] = []
    models = load_models(config)
    named = load_label_map(label_map) if label_map else None
    with open_session(server) as session:
        work, job = _job_of(session, truth_job, task)
        annotations = get_annotations(session, job.id)
        for line in _doubts(job, annotations):
            says(line)
        truth = truth_of(work.labels, annotations, job.stop)
        size = (job.size_of(job.frames[0]) if job.frames else None) or USUAL_SIZE
        for reference in references:
            says(f"{reference}: {len(job.frames)} frames")
            try:
                with _opened(reference, models, device, options) as loaded:
                    match = match_labels(loaded.labels, work.labels, request=mapping, label_map=named)
                    with ChunkFrames(session, quality=quality) as source:
                        result = measure(loaded, source.read([(job, frame) for frame in job.frames]), truth, match)
                taken = weigh(
                    reference, config=config, device=device, options=options or {}, labels=match.targets, size=size
                )
                rows.append({"model": reference, **asdict(result), "memory": taken})
            except (ModelError, ConfigError, LabelMismatch) as error:
                rows.append({"model": reference, "error": str(error)})
                if all("error" in row for row in rows) and len(rows) == len(references):
                    raise
    return rows


def _job_of(session: Session, number: int, task: int | None) -> tuple[TaskWork, JobWork]:
    """A job and its task; BadRequest where that is not the one that is meant."""
    (work,) = find_work(session, Target("job", number), ground_truth=True, honeypots=True)
    if task is not None and work.task_id != task:
        raise BadRequest(f"job {number}: it is of task {work.task_id}, not {task}")
    (job,) = work.jobs
    return work, job


def _doubts(job: JobWork, annotations: Mapping[str, Any]) -> Iterator[str]:
    """What speaks against taking a job for the truth."""
    if job.state != "completed":
        yield f"Warning: job {job.id} is {job.state!r}, not 'completed': are its shapes right, and all there?"
    drawn = [*annotations.get("shapes", ()), *annotations.get("tracks", ())]
    if drawn and all(item.get("source") == "auto" for item in drawn):
        yield (
            f"Warning: job {job.id}: all its {len(drawn)} shapes and tracks are models' own (source auto), and nobody"
            " has changed one: the figures say how much a model is like the one that made them"
        )


@contextmanager
def _opened(
    reference: str, models: Sequence[ModelSettings], device: str, options: Mapping[str, Any] | None
) -> Iterator[LoadedModel]:
    """A detector, closed again after the block; ModelError for a model of another kind."""
    with closing(open_named(reference, models, device=device, options=options)) as loaded:
        if loaded.kind != "detector":
            raise wrong_kind(reference, loaded.kind, "detector")
        yield loaded

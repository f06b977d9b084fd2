"""`models bench` from beginning to end: the job's truth, and each model over its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.bench.measure import measure, truth_of
from agent.compose.named import open_named
from agent.cvat.annotations_api import get_annotations
from agent.cvat.frames import ChunkFrames
from agent.cvat.session import open_session
from agent.cvat.work import find_work
from agent.errors import BadRequest, ConfigError, LabelMismatch, ModelError
from agent.labels.maps import load_label_map
from agent.labels.matching import match_labels
from agent.models.loading import LoadedModel, wrong_kind
from agent.models.memory import resident_bytes
from agent.options import Target
from agent.pool.reading import memory_of
from agent.settings.server import ServerSettings
from agent.settings.service import load_models
from agent.settings.tables import ModelSettings


def bench_models(
    references: Sequence[str],
    server: ServerSettings,
    truth_job: int,
    task: int | None,
    *,
    config: Path | None = None,
    label_map: str | None = None,
    device: str = "auto",
    quality: str = "original",
    begins: Callable[[str, int], None] = lambda name, frames: None,
) -> list[dict[str, Any]]:
    """For each model what `BenchResult` has, its name, and the bytes that it takes, or by which the process grew.

    A model that cannot be used has an `error` instead, and costs the others nothing; what is said of the last one is
    raised where none can. `begins` hears of each model, and how many frames it is shown. BadRequest for a job without
    shapes, or of another task.
    """
    rows: list[dict[str, Any]] = []
    models = load_models(config)
    mapping = load_label_map(label_map) if label_map else None
    with open_session(server) as session:
        (work,) = find_work(session, Target("job", truth_job), ground_truth=True, honeypots=True)
        if task is not None and work.task_id != task:
            raise BadRequest(f"job {truth_job}: it is of task {work.task_id}, not {task}")
        (job,) = work.jobs
        truth = truth_of(work.labels, get_annotations(session, job.id), job.stop)
        places = [(job, frame) for frame in job.frames]
        for reference in references:
            begins(reference, len(places))
            before = resident_bytes()
            try:
                with _opened(reference, models, device) as loaded:
                    match = match_labels(loaded.labels, work.labels, label_map=mapping)
                    with ChunkFrames(session, quality=quality) as source:
                        result = measure(loaded, source.read(places), truth, match)
                    taken = memory_of(loaded, resident_bytes() - before)
                    rows.append({"model": reference, **asdict(result), "memory": taken})
            except (ModelError, ConfigError, LabelMismatch) as error:
                rows.append({"model": reference, "error": str(error)})
                if all("error" in row for row in rows) and len(rows) == len(references):
                    raise
    return rows


@contextmanager
def _opened(reference: str, models: Sequence[ModelSettings], device: str) -> Iterator[LoadedModel]:
    """A detector, closed again after the block; ModelError for a model of another kind."""
    with closing(open_named(reference, models, device=device)) as loaded:
        if loaded.kind != "detector":
            raise wrong_kind(reference, loaded.kind, "detector")
        yield loaded

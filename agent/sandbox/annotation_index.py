"""Annotations by job and kind, so that no request walks over those of other jobs."""

from __future__ import annotations

from agent.sandbox.records import JSON, Annotation
from agent.sandbox.store import Store, Table

KINDS = ("tags", "shapes", "tracks")


class AnnotationIndex:
    """The tags, shapes and tracks of all jobs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.tables: dict[str, Table[Annotation]] = {kind: store.table(kind, Annotation) for kind in KINDS}
        self._by_job: dict[tuple[int, str], dict[int, Annotation]] = {}
        for kind, table in self.tables.items():
            for row in table.rows.values():
                self._by_job.setdefault((row.job_id, kind), {})[row.id] = row

    def of(self, job_id: int, kind: str) -> list[Annotation]:
        """A job's annotations of one kind, in the order of their creation."""
        with self._store.lock:
            return list(self._by_job.get((job_id, kind), {}).values())

    def get(self, job_id: int, kind: str, id_: int) -> Annotation | None:
        """One annotation of a job, or None."""
        return self._by_job.get((job_id, kind), {}).get(id_)

    def add(self, job_id: int, kind: str, body: JSON) -> None:
        """Keeps a body that has its id already."""
        row = self.tables[kind].save(Annotation(id=body["id"], job_id=job_id, body=body))
        self._by_job.setdefault((job_id, kind), {})[row.id] = row

    def remove(self, job_id: int, kind: str, id_: int) -> bool:
        """Forgets one annotation of a job; False if the job has no such one."""
        if self._by_job.get((job_id, kind), {}).pop(id_, None) is None:
            return False
        self.tables[kind].remove(id_)
        return True

    def clear(self, job_id: int) -> None:
        """Forgets all annotations of a job."""
        for kind in KINDS:
            for id_ in list(self._by_job.pop((job_id, kind), {})):
                self.tables[kind].remove(id_)

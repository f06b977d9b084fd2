"""Bringing back what a backup holds, where it is not there any more."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.cvat.annotations_api import alike, create, get_annotations, portions, update
from agent.cvat.jobs import says_gone
from agent.cvat.session import Session, open_session
from agent.errors import BadRequest, ConfigError, ServerRefused, ServerUnavailable
from agent.ledger.backups import Backup, read_backup
from agent.ledger.content import content_key
from agent.ledger.ledger import KINDS, Ledger
from agent.runs.surroundings import check_server
from agent.settings.server import ServerSettings


@dataclass(slots=True)
class RestoreResult:
    """How many annotations of a backup were brought back, and how many were there anyway."""

    job: int
    restored: int = 0
    there: int = 0
    changed: int = 0
    """Labels and attributes that are again as they were."""
    kept: int = 0
    """Those that are not, because somebody has changed them since."""
    kinds: Counter[str] = field(default_factory=Counter)
    gone: bool = False
    """Whether there is no such job any more."""

    def lines(self) -> Iterator[str]:
        if self.gone:
            yield f"job {self.job} no longer exists"
            return
        parts = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        yield f"job {self.job}: {self.restored} annotations brought back" + (f" ({parts})" if parts else "")
        if self.changed:
            yield f"{self.changed} have their old labels and attributes again"
        if self.kept:
            yield f"{self.kept} keep their labels and attributes, because somebody has changed them since"
        if self.there:
            yield f"{self.there} were there already"


def backups_of(what: str, ledger: Path | None) -> tuple[list[Path], list[Path]]:
    """The backup that a file is, or a run's backups; and those of them that are of a job whose earlier one is there.

    A run that was gone on with has some: they hold what it made itself.
    """
    if (file := Path(what)).is_file():
        return [file], []
    if file.suffix == ".json" or file.name != what:
        raise ConfigError(f"{what}: there is no such file")
    with Ledger(ledger) as book:
        run = book.run(what).id
        kept = book.backups(run)
    if not kept:
        raise BadRequest(f"run {run}: it has kept no backup: it removed and changed nothing")
    first: dict[int, Path] = {}
    for file in kept:  # in the order of their names, which end with the time
        first.setdefault(read_backup(file).job, file)
    return list(first.values()), [file for file in kept if file not in first.values()]


def restore_backup(file: Path, server: ServerSettings, *, values: bool = False) -> RestoreResult:
    """Creates what a backup of a job holds and the job does not; nothing is removed.

    What is there under its old id, changed or not, and what is there with the same content stays as it is. So it can be
    called again after it broke off. A job that is gone is no error. `values`: shapes and tracks under their old ids get
    their old labels and attributes back, but for models' own that a person has changed since.
    """
    backup = read_backup(file)
    with open_session(server.for_run_at(backup.server)) as session:
        check_server(session, backup.server, f"{file}: it belongs to")
        try:
            result = _restore(session, backup, file)
        except ServerRefused as error:
            if not says_gone(error):
                raise
            return RestoreResult(backup.job, gone=True)
        if values:
            _restore_values(session, backup, result)
        return result


def _restore(session: Session, backup: Backup, file: Path) -> RestoreResult:
    stored, result = get_annotations(session, backup.job), RestoreResult(backup.job)
    for kind in KINDS:
        missing = _missing(backup.annotations.get(kind) or [], stored.get(kind) or [])
        result.there += len(backup.annotations.get(kind) or []) - len(missing)
        for part in portions(missing):
            try:
                create(session, backup.job, {kind: part})
            except ServerUnavailable as error:
                again = f"`cvat-sidecar runs restore {shlex.quote(str(file))}`"
                raise ServerUnavailable(
                    f"{error}; say {again} again: what has arrived is not sent twice",
                    maybe_done=error.maybe_done,
                    may_go_on=error.may_go_on,
                    retry_after=error.retry_after,
                ) from error
            result.restored += len(part)
            result.kinds[kind] += len(part)
    return result


def _restore_values(session: Session, backup: Backup, result: RestoreResult) -> None:
    stored = get_annotations(session, backup.job)
    for kind in ("shapes", "tracks"):
        before = {item["id"]: item for item in backup.annotations.get(kind) or []}
        changed = []
        for item in stored[kind]:
            if (old := before.get(item["id"])) is None or alike(new := _with_values_of(old, item), item):
                continue
            # CVAT's editor says so of what a person changes.
            if old.get("source") == "auto" and item.get("source") != "auto":
                result.kept += 1
            else:
                changed.append(new)
        for part in portions(changed):
            update(session, backup.job, {kind: part})
        result.changed += len(changed)


def _with_values_of(old: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """What is there now, with the label and the attributes that it had; a track also at its keyframes."""
    restored = {**item, "label_id": old["label_id"], "attributes": old["attributes"]}
    if "shapes" in item:
        restored["shapes"] = [{**shape, "attributes": _values_at(old, shape["frame"])} for shape in item["shapes"]]
    return restored


def _values_at(track: Mapping[str, Any], frame: int) -> Any:
    """What a track's keyframes say of the attributes on a frame: they hold until the next one, and before the first."""
    keyframes: list[dict[str, Any]] = sorted(track["shapes"], key=lambda shape: int(shape["frame"]))
    until = [shape for shape in keyframes if shape["frame"] <= frame]
    return (until or keyframes)[-1 if until else 0]["attributes"]


def _missing(kept: list[dict[str, Any]], stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of a backup is not there, without its old ids."""
    ids = {item["id"] for item in stored}
    gone = [item for item in kept if item.get("id") not in ids]
    known = {item.get("id") for item in kept}
    # Restored before, or by hand: under another id, and not one of the backup's own.
    alike = Counter(_key(item) for item in stored if item["id"] not in known)
    missing = []
    for item in gone:
        key = _key(item)
        if alike[key] > 0:
            alike[key] -= 1
        else:
            missing.append(_without_ids(item))
    return missing


def _key(item: Mapping[str, Any]) -> tuple[str, Any]:
    """What an annotation says, and who made it: a model may have found the very same thing."""
    return content_key(item), item.get("source")


def _without_ids(item: Mapping[str, Any]) -> dict[str, Any]:
    inner = {part: [_without_ids(one) for one in item[part]] for part in ("shapes", "elements") if part in item}
    return {**{name: value for name, value in item.items() if name not in ("id", "job", "task")}, **inner}

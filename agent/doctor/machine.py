"""This machine: places that can be written, room on disks, processors, memory."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from agent.doctor.configuration import FILE
from agent.doctor.findings import Check, Finding, counted, failed, ok, warning
from agent.doctor.limits import CONTROL_GROUPS, processor_limit, total_memory, usable_memory
from agent.doctor.patient import Patient, scheme_of
from agent.doctor.weights import hub_cache
from agent.functions.ids import state_folder
from agent.ledger.ledger import default_path
from agent.settings.tables import Config

MIB, GIB = 2**20, 2**30
STATE = "machine.state"
STATE_ROOM, CACHE_ROOM = GIB, 5 * GIB
"""Less than that is worth a warning."""


def checks(config: Config) -> list[Check]:
    found = [
        Check(STATE, _state, needs=(FILE,)),
        Check("machine.ledger", _ledger, needs=(STATE,)),
        Check("machine.processors", _processors),
        Check("machine.memory", _memory),
    ]
    if any(scheme_of(model) == "hf" for model in config.models):
        found.append(Check("machine.weights", _weights, needs=(FILE,)))
    return found


# ------------------------------------------------------------------------ disks


def _state(patient: Patient) -> Finding:
    folder = state_folder(patient.config)
    if problem := _unwritable(folder):
        mend = f"make {folder} for the user that runs the service, or name another one as service.state_dir"
        return failed(f"the state cannot be kept in {folder}: {problem}", mend)
    return _room(folder, STATE_ROOM, "the state")


def _ledger(patient: Patient) -> Finding:
    """Whether the file that remembers runs is whole; it is only read."""
    place = patient.config.service.state_dir
    file = default_path() if place is None else place / "ledger.sqlite3"
    if not file.exists():
        return ok("no runs are remembered yet")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=patient.seconds)) as db:
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
            (runs,) = db.execute("SELECT count(*) FROM runs").fetchone()
    except sqlite3.Error as error:
        return failed(f"{file} cannot be read: {error}", "move it away, and put back a copy if there is one")
    if said != "ok":
        return failed(f"{file} is damaged: {said}", "move it away, and put back a copy if there is one")
    return ok(f"{file} remembers {counted(runs, 'run')}")


def _weights(patient: Patient) -> Finding:
    """The cache of the Hugging Face Hub."""
    cache = hub_cache()
    if problem := _unwritable(cache):
        mend = "let the user that runs the service write there, or set HF_HOME to a volume"
        return warning(f"{cache}: {problem}: nothing new can be fetched", mend)
    return _room(cache, CACHE_ROOM, "weights")


def _unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder, which may yet have to be made; None where one can."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        return f"{there} is a file"
    if there != folder.absolute():
        return None if os.access(there, os.W_OK | os.X_OK) else f"it is not there, and {there} cannot be written"
    try:
        # Rights alone do not tell: the file system may be read-only, or full.
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _room(folder: Path, least: int, what: str) -> Finding:
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    text = f"{folder}: {free / GIB:.1f} GiB are free"
    return ok(text) if free >= least else warning(text, f"make room: {what} may need {least / GIB:.0f} GiB")


# --------------------------------------------------------- processors and memory


def _processors(patient: Patient) -> Finding:
    count, limit = len(os.sched_getaffinity(0)), processor_limit(CONTROL_GROUPS)
    if limit is not None and limit < count:
        text = f"{count} processors, of which this container may use {limit:g}"
        if limit < 2:
            return warning(text, "give it two or more: decoding and the model share them")
        return ok(text)
    if count < 2:
        return warning("one processor", "give it two or more: decoding and the model share it")
    return ok(counted(count, "processor"))


def _memory(patient: Patient) -> Finding:
    limit = usable_memory()
    whose = "this machine has" if limit == total_memory() else "this container may use"
    text, budget = f"{whose} {limit / MIB:.0f} MiB", patient.config.engine.memory_mb
    if budget is not None and budget * MIB >= limit:
        mend = f"lower engine.memory_mb to some {0.7 * limit / MIB:.0f}, or give it more memory"
        return failed(f"engine.memory_mb = {budget:g}, but {text}: it would be killed before models are unloaded", mend)
    if budget is not None and budget * MIB > 0.85 * limit:
        mend = f"lower it to some {0.7 * limit / MIB:.0f}: frames and the program itself need some too"
        return warning(f"engine.memory_mb = {budget:g}, and {text}", mend)
    if limit < 2 * GIB:
        return warning(text, "give it 2 GiB or more: torch alone takes half a GiB")
    return ok(text + (f", models may take {budget:g}" if budget is not None else ""))

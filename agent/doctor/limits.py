"""What this process may use: the machine's memory and processors, or the part of them that a control group allows."""

from __future__ import annotations

import os
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def total_memory() -> int:
    """The machine's, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> int:
    """What this process and those beside it may take, in bytes."""
    limit, total = memory_limit(CONTROL_GROUPS), total_memory()
    return total if limit is None else min(limit, total)


def memory_limit(root: Path) -> int | None:
    """What the control group allows, in bytes; None where there is no limit. Version 2, then version 1."""
    found = [
        int(text)
        for folder in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _text(folder / name)).isdigit()
    ]
    # Version 1 says "no limit" by a number that no machine has.
    return min((value for value in found if value < 2**60), default=None)


def processor_limit(root: Path) -> float | None:
    """How many processors' worth of time the control group allows; None where there is no limit."""
    found = []
    for folder in _groups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _groups(root: Path, controller: str, own: str | None = None) -> list[Path]:
    """The folders of our control group and those around it."""
    own = _text(Path("/proc/self/cgroup")) if own is None else own
    folders = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        # In a container our own group is mounted as the root, whatever its path.
        folders += [base, *(base / part for part in (Path(path.lstrip("/")), *Path(path.lstrip("/")).parents))]
    return folders


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""

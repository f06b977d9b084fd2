"""Faults that tests ask for: a wrong status, a delay, a cut connection, before or after the work was done.

sandbox.faults.add(method="PATCH", path=r"/api/jobs/\\d+/annotations", status=500, when="after", count=3)
sandbox.faults.add(path=r"/data$", cut=True, after_bytes=1000)     # the answer breaks off in the middle
sandbox.faults.add(delay=0.5, probability=0.3, seed=7)
sandbox.faults.clear()
"""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass, field

_PAGE = '<!doctype html>\n<html lang="en"><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n'
_REASONS = {
    429: "Too Many Requests",
    500: "Server Error (500)",
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
    504: "504 Gateway Time-out",
}


@dataclass
class Fault:
    """One fault. `left` is how often it still strikes (None: always); `struck` how often it did."""

    method: str | None
    path: re.Pattern[str]
    status: int | None
    when: str
    left: int | None
    delay: float
    cut: bool
    after_bytes: int | None
    probability: float
    chance: random.Random
    headers: dict[str, str]
    body: bytes | None
    struck: int = field(default=0)

    def answer(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body of the wrong answer."""
        status = self.status or 500
        kind = "application/vnd.cvat+json" if 400 <= status < 500 else "text/html; charset=utf-8"
        page = _PAGE.format(_REASONS.get(status, f"Error {status}")).encode()
        body = self.body if self.body is not None else page
        if self.body is None and 400 <= status < 500:
            body = b'{"detail":"Request was throttled."}' if status == 429 else b'{"detail":"Refused by a fault."}'
        headers = {
            "content-type": kind,
            "content-length": str(len(body)),
            **{name.lower(): value for name, value in self.headers.items()},
        }
        if status == 429:
            headers.setdefault("retry-after", "1")
        return status, [(name.encode(), value.encode()) for name, value in headers.items()], body


class Faults:
    """The faults of a sandbox; the first one that fits a request strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(
        self,
        *,
        method: str | None = None,
        path: str = "",
        status: int | None = None,
        when: str = "before",
        count: int | None = 1,
        delay: float = 0.0,
        cut: bool = False,
        after_bytes: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Fault:
        """Adds a fault for requests whose path has a match of the pattern.

        `count` is how often it strikes, None for always (the default where a probability is given). A status
        or a cut replaces the answer, `delay` (seconds) alone only holds it up. `when="after"`: the handler
        runs, its answer is lost. `after_bytes` lets that much of the answer's body through before the
        connection is cut.
        """
        if when not in ("before", "after"):
            raise ValueError(f"when: 'before' or 'after', not {when!r}")
        if status is None and not cut and not delay:
            raise ValueError("a fault needs a status, a delay or cut=True")
        left = None if probability < 1 and count == 1 else count
        fault = Fault(
            method=method.upper() if method else None,
            path=re.compile(path),
            status=status,
            when="after" if after_bytes is not None else when,
            left=left,
            delay=delay,
            cut=cut,
            after_bytes=after_bytes,
            probability=probability,
            chance=random.Random(seed),
            headers=headers or {},
            body=body,
        )
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Removes all faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault that this request suffers, if any; it counts as struck."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                fits = fault.method in (None, method) and fault.left != 0 and fault.path.search(path)
                if fits and fault.chance.random() < fault.probability:
                    fault.struck += 1
                    if fault.left is not None:
                        fault.left -= 1
                    return fault
        return None

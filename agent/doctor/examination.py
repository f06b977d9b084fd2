"""One check after the other, each bounded in time; those that need one that failed are skipped."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from agent.cvat.failures import Failure
from agent.doctor.findings import Check, Finding, Line, State, all_failed, failed, skipped
from agent.doctor.patient import Patient
from agent.errors import ConfigError, SidecarError

log = logging.getLogger(__name__)

CALLS = 4
"""A check may take so many times what one call may, unless it says otherwise."""


def examine(checks: Sequence[Check], patient: Patient, redact: Callable[[str], str] = str) -> Iterator[Line]:
    """What each check has found, as it finds it; `redact` takes secrets out of texts."""
    culprits: dict[str, str] = {}
    states: dict[str, State] = {}
    for check in checks:
        began = time.monotonic()
        culprit = next((culprits[need] for need in check.needs if need in culprits), None)
        if culprit is not None:
            found = skipped(f"{culprit} {'failed' if states[culprit] == 'failed' else 'was not possible'}")
            culprits[check.name] = culprit
        else:
            found = _look(check, patient)
            if found.blocks:
                culprits[check.name] = check.name
        states[check.name] = found.state
        seconds = round(time.monotonic() - began, 3)
        for one in (found, *found.more):
            told = Finding(one.state, _line(redact(one.text)), _line(redact(one.mend)), one.blocks)
            yield Line(check.name, told, seconds)


def exit_code(lines: Sequence[Line]) -> int:
    """0: nothing failed; 2: the configuration is wrong; 1: something else failed."""
    broken = [line.check for line in lines if line.finding.state == "failed"]
    if any(name.startswith("configuration.") for name in broken):
        return 2
    return 1 if broken else 0


def _look(check: Check, patient: Patient) -> Finding:
    """What a check finds, in a thread of its own: one that does not come back is left to itself."""
    answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_tell(check, patient)), name=check.name, daemon=True).start()
    seconds = check.seconds or CALLS * patient.seconds
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return failed(f"no answer within {seconds:g} s", check.mend)


def _tell(check: Check, patient: Patient) -> Finding:
    try:
        return check.look(patient)
    except ConfigError as error:
        return all_failed(error.mistakes, lambda text: check.mend)
    except (SidecarError, Failure) as error:
        return failed(str(error), check.mend)
    except Exception as error:
        log.info("the check %s broke off", check.name, exc_info=error)
        what = f"{type(error).__name__}: {error}"
        return failed(f"the check itself broke off: {what[:300]}", check.mend or "see it with -v, and report it")


def _line(text: str) -> str:
    """One line, whatever a server or a library said."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())

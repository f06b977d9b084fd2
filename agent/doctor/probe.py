"""Questions that a process of its own answers (child.py), so that nothing that goes wrong there ends this one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from agent.errors import ModelError

_START = "import sys; sys.path[:] = {path!r}; from agent.doctor.child import main; main()"
_SIGNALS = {
    signal.SIGKILL: "it was killed, most likely because it took too much memory",
    signal.SIGILL: "this processor lacks instructions that it was built for",
    signal.SIGSEGV: "it crashed (segmentation fault)",
    signal.SIGBUS: "it crashed (bus error; is /dev/shm or the disk full?)",
}


class ProbeFailed(ModelError):
    """The process ended without an answer."""


def probe(ask: str, *given: Any, seconds: float) -> Any:
    """The answer to a question of child.py. ProbeFailed where there is none within that time."""
    # The same folders in the same order: what we ask about is what this process would import.
    command = [sys.executable, "-c", _START.format(path=sys.path)]
    question = json.dumps({"ask": ask, "with": given}, default=str)
    try:
        done = subprocess.run(command, input=question, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ProbeFailed(f"no answer within {seconds:g} s") from error
    except OSError as error:
        raise ProbeFailed(f"no process could be started: {error.strerror or error}") from error
    if done.returncode == 0:
        return json.loads(done.stdout)
    if done.returncode < 0:
        number = -done.returncode
        raise ProbeFailed(_SIGNALS.get(signal.Signals(number), f"it ended by signal {number}"))
    # The last line of a traceback says what it was.
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise ProbeFailed(said[-1][:300] if said else f"it ended with the code {done.returncode}")

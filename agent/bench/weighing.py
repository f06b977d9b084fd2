"""What a model takes of memory, measured in a process of its own: what was loaded before makes no difference there."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agent.bench.measure import LOWEST
from agent.compose.named import open_named
from agent.contract import Context, Frame
from agent.models.memory import resident_bytes
from agent.pool.reading import memory_of
from agent.settings.service import load_models

log = logging.getLogger(__name__)

_START = "import sys; sys.path[:] = {path!r}; from agent.bench.weighing import main; main()"


def weigh(
    reference: str,
    *,
    config: Path | None,
    device: str,
    options: Mapping[str, Any],
    labels: Iterable[str],
    size: tuple[int, int],
) -> int | None:
    """Bytes of the model, its libraries, and a batch of grey pictures of `size` (width, height); None: it failed.

    `labels` are those of its own that it is asked for. Where it says itself that it takes more (on a GPU), that counts.
    """
    # The same folders in the same order: it must be the same adapter.
    command = [sys.executable, "-c", _START.format(path=sys.path)]
    asked = {
        "reference": reference, "config": config and str(config), "device": device, "options": dict(options),
        "labels": sorted(labels), "size": size,
    }  # fmt: skip
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        log.info("%s: its memory could not be measured: %s", reference, done.stderr[-2000:])
        return None
    return int(json.loads(done.stdout))


def main() -> None:
    """Answers one question of `weigh`, which comes as JSON on standard input."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not spoil the answer
    asked = json.loads(sys.stdin.read())
    config = asked["config"] and Path(asked["config"])
    models, before = load_models(config), resident_bytes()
    loaded = open_named(asked["reference"], models, device=asked["device"], options=asked["options"])
    width, height = asked["size"]
    grey = [Frame(n, str(n), np.full((height, width, 3), 128, np.uint8)) for n in range(loaded.batch_size)]
    loaded.model.detect(grey, Context(LOWEST, frozenset(asked["labels"])))
    taken = max(0, resident_bytes() - before)
    with out:
        out.write(json.dumps(max(taken, memory_of(loaded, taken))))

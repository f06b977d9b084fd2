"""A watch door in a process of its own: `python -m tests.support.watch_process URL FOLDER FUNCTION`.

It has one rule, says `open`, and a line for each request that ends; it ends when its standard input does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from agent.activity import RequestRecord
from agent.doors.watch import Watch
from agent.settings.tables import ModelSettings, WatchSettings
from tests.support.doors import shared
from tests.support.watching import rule


def tell(record: RequestRecord) -> None:
    print(record.outcome, record.what, record.error or "", flush=True)


def run(url: str, folder: str, function: str) -> None:
    models = [ModelSettings("finder", f"cvat:{function}")]
    wish = rule(every_seconds=1.0, state_when_started="in progress", state_when_done="completed")
    with shared(url, models, folder=Path(folder), rules=(wish,), watch=WatchSettings(check_seconds=0.2)) as around:
        around.activity.on_end = tell
        door = Watch(around, settle=0.2)
        door.start()
        print("open", flush=True)
        sys.stdin.read()
        door.close()


if __name__ == "__main__":
    run(*sys.argv[1:])

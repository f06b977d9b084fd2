"""Tasks made from local pictures, through the SDK's own upload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.cvat.session import Session


def create_image_task(
    session: Session, name: str, labels: Sequence[dict[str, object]], pictures: Sequence[Path]
) -> int:
    """The id of a new task; returns when the server has taken the pictures in."""
    session.log_in()
    task = session.client.tasks.create_from_data(
        {"name": name, "labels": list(labels)},
        [str(path) for path in pictures],
        data_params={"image_quality": 90},
    )
    return int(task.id)

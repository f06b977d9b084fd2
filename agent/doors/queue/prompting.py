"""What interactors and trackers are asked: shapes under a person's marks, and where shapes went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.contract import Mask, PromptNeeds, Shape
from agent.cvat.chunks import BadFrame
from agent.cvat.single_frames import FrameCache, KeptFrame
from agent.cvat.task_cache import TaskCache
from agent.doors.queue.detection import Lend, cropped
from agent.doors.queue.parameters import InitTracking, Interact, Track
from agent.errors import BadPrediction, BadRequest
from agent.flat_shapes import write_shape
from agent.interaction import Embeddings, check_prompts, editor_shapes, interact
from agent.lease import HeldLease
from agent.tracking import TrackStates, begin_tracking, follow


def interact_with(
    wanted: Interact, lend: Lend, tasks: TaskCache, frames: FrameCache, embeddings: Embeddings, lease: HeldLease
) -> Mapping[str, Any]:
    """The shapes under the prompts, best first."""
    with lend() as hosted:
        needs = getattr(hosted.loaded.model, "needs", PromptNeeds())
        if not (wanted.prompts.positive or wanted.prompts.box):
            raise BadRequest("prompts: got none, allowed: at least a positive point or a box")
        check_prompts(wanted.prompts, needs)
        kept = _frame(wanted.task, wanted.frame, tasks, frames, lease)
        frame, digest = kept.frame, kept.digest
        if (region := wanted.region) is not None:
            part = cropped(frame, region)
            if isinstance(part, BadFrame):
                raise BadRequest(f"frame {wanted.frame}: {part.reason}")
            frame, digest = part, f"{digest} {region.left},{region.top},{region.right},{region.bottom}"
        found = lease.result(interact(hosted, embeddings, frame, wanted.prompts, digest=digest))
        return {"shapes": editor_shapes(found, (frame.width, frame.height))}


def begin(
    wanted: InitTracking, lend: Lend, tasks: TaskCache, frames: FrameCache, states: TrackStates, lease: HeldLease
) -> Mapping[str, Any]:
    """The names of the states of shapes that are to be followed."""
    with lend() as hosted:
        frame = _frame(wanted.task, wanted.frame, tasks, frames, lease).frame
        about = f"task {wanted.task}"
        return {"states": lease.result(begin_tracking(hosted, states, frame, wanted.shapes, about))}


def track(
    wanted: Track, lend: Lend, tasks: TaskCache, frames: FrameCache, states: TrackStates, lease: HeldLease
) -> Mapping[str, Any]:
    """Where shapes are on another frame; their states keep their names. A repetition gets the same answer."""
    with lend() as hosted:
        frame = _frame(wanted.task, wanted.frame, tasks, frames, lease).frame
        about, seen = f"task {wanted.task}", f"frame {wanted.frame}"
        found = lease.result(follow(hosted, states, frame, wanted.states, about, seen))
        shapes = [None if shape is None or _is_empty(shape) else _written(hosted.id, shape) for shape in found.shapes]
        return {"states": found.names, "shapes": shapes}


def _frame(task: int, frame: int, tasks: TaskCache, frames: FrameCache, lease: HeldLease) -> KeptFrame:
    return lease.fetched(lambda: tasks.use(task, lambda known: frames.get(known.job_of(frame), frame)))


def _is_empty(shape: Shape) -> bool:
    return isinstance(shape, Mask) and not shape.bitmap.any()


def _written(model: str, shape: Shape) -> Mapping[str, Any]:
    try:
        return write_shape(shape)
    except ValueError as error:
        raise BadPrediction(f"{model}: {error}") from error

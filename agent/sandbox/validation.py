"""Ground truth and honeypots: which frames validate a task, and where copies of them hide in its jobs."""

from __future__ import annotations

import math
import random
from typing import Any

from starlette.responses import Response

from agent.sandbox.exchange import Call, Refusal, reply
from agent.sandbox.permissions import may_task, the_job, the_task
from agent.sandbox.records import JSON, Data, Task


def _count(sent: JSON, name: str, out_of: int) -> int:
    """A number of frames, given as a count or a share."""
    count, share = sent.get(f"{name}_count"), sent.get(f"{name}_share")
    if count is not None:
        number = int(count)
    elif share is not None:
        number = max(1, math.floor(float(share) * out_of))
    else:
        raise Refusal(400, {f"{name}_count": [f"Either '{name}_count' or '{name}_share' must be specified"]})
    if not 0 < number <= out_of:
        raise Refusal(400, {f"{name}_count": [f"The number of frames must be in the [1, {out_of}] range"]})
    return number


def ground_truth_frames(
    sent: JSON,
    candidates: list[int],
    names: dict[str, int] | None = None,
    segments: list[range] | None = None,
) -> list[int]:
    """The frames that a selection method picks; by hand they are numbers, or names if `names` are given."""
    method = sent.get("frame_selection_method")
    chance = random.Random(sent.get("random_seed"))
    if method == "manual":
        return _by_hand(sent.get("frames") or [], candidates, names)
    if method == "random_uniform":
        return sorted(chance.sample(candidates, _count(sent, "frame", len(candidates))))
    if method == "random_per_job":
        found: set[int] = set()
        for segment in segments or [range(len(candidates))]:
            inside = [frame for frame in candidates if frame in segment and frame not in found]
            per_job = min(_count(sent, "frames_per_job", len(segment)), len(inside))
            found |= set(chance.sample(inside, per_job))
        return sorted(found)
    raise Refusal(400, {"frame_selection_method": [f'"{method}" is not a valid choice.']})


def _by_hand(frames: list[Any], candidates: list[int], names: dict[str, int] | None) -> list[int]:
    if not frames:
        raise Refusal(400, {"frames": ["This list may not be empty."]})
    numbers = [names.get(frame, -1) for frame in frames] if names is not None else frames
    wrong = [frame for frame, number in zip(frames, numbers, strict=True) if number not in candidates]
    if wrong or len(set(numbers)) != len(numbers):
        raise Refusal(400, {"frames": [f"Unknown or repeated frames: {wrong or numbers}"]})
    return sorted(int(number) for number in numbers)


def hide_honeypots(frames: list[JSON], pool: list[int], segment_size: int, per_job: int, seed: Any) -> JSON:
    """Rearranges the pictures of a task with a validation pool.

    Each segment of the others gets `per_job` copies of pool pictures, mixed in; the pool itself comes last.
    Returns the new `frames`, `segments` (first, last), the `pool` (frame numbers) and `honeypots` (frame,
    real).
    """
    chance = random.Random(seed)
    rest = [frame for number, frame in enumerate(frames) if number not in set(pool)]
    size = segment_size or max(1, len(rest))
    starts = range(0, len(rest), size)
    first_of_pool = len(rest) + per_job * len(starts)
    arranged: list[JSON] = []
    honeypots: list[list[int]] = []
    segments: list[list[int]] = []
    for start in starts:
        picked = chance.sample(range(len(pool)), min(per_job, len(pool)))
        mixed: list[tuple[JSON, int | None]] = [(frame, None) for frame in rest[start : start + size]]
        mixed += [(frames[pool[number]], first_of_pool + number) for number in picked]
        chance.shuffle(mixed)
        segments.append([len(arranged), len(arranged) + len(mixed) - 1])
        honeypots += [[len(arranged) + at, real] for at, (_, real) in enumerate(mixed) if real is not None]
        arranged += [dict(frame) for frame, _ in mixed]
    numbers = list(range(len(arranged), len(arranged) + len(pool)))
    arranged += [frames[number] for number in pool]
    return {"frames": arranged, "segments": segments, "pool": numbers, "honeypots": honeypots}


def _layout(data: Data | None, numbers: list[int] | None = None) -> JSON:
    known = (data.validation if data else None) or {}
    found = [pair for pair in known.get("honeypots", []) if numbers is None or pair[0] in set(numbers)]
    return {
        "honeypot_count": len(found),
        "honeypot_frames": [frame for frame, _ in found],
        "honeypot_real_frames": [real for _, real in found],
    }


def _task_layout(call: Call, task: Task) -> JSON:
    data = call.state.data.get(task.data_id)
    known = (data.validation if data else None) or {}
    return {
        "mode": known.get("mode"),
        "validation_frames": known.get("frames", []),
        "disabled_frames": known.get("disabled", []),
        **_layout(data),
    }


def get_task_layout(call: Call) -> Response:
    """GET /api/tasks/{id}/validation_layout."""
    return reply(_task_layout(call, the_task(call)))


def patch_task_layout(call: Call) -> Response:
    """PATCH /api/tasks/{id}/validation_layout: disables validation frames, or swaps what honeypots show."""
    task, sent, state = the_task(call), call.object(), call.state
    data = state.data.get(task.data_id)
    if data is None or data.validation is None:
        raise Refusal(400, ["Validation is not configured in the task"])
    validation = dict(data.validation)
    if "disabled_frames" in sent:
        if not set(sent["disabled_frames"]) <= set(validation["frames"]):
            raise Refusal(400, {"disabled_frames": ["These are not validation frames"]})
        validation["disabled"] = sorted(sent["disabled_frames"])
    frames = list(data.frames)
    if sent.get("frame_selection_method") == "manual":
        wanted = sent.get("honeypot_real_frames") or []
        old = validation.get("honeypots", [])
        if len(wanted) != len(old) or not set(wanted) <= set(validation["frames"]):
            raise Refusal(400, {"honeypot_real_frames": [f"{len(old)} frames of the validation pool are required"]})
        validation["honeypots"] = [[frame, real] for (frame, _), real in zip(old, wanted, strict=True)]
        for frame, real in validation["honeypots"]:
            frames[frame] = dict(frames[real])
    with state.store.change():
        data.validation, data.frames = validation, frames
        state.data.save(data)
        state.touch(task)
    return reply(_task_layout(call, task))


def get_job_layout(call: Call) -> Response:
    """GET /api/jobs/{id}/validation_layout: for the task's staff; annotators shall not know the honeypots."""
    job = the_job(call)
    task = call.state.tasks.rows[job.task_id]
    if not may_task(call, task):
        raise Refusal(403, {"detail": "You do not have permission to perform this action."})
    return reply(_layout(call.state.data.get(task.data_id), job.numbers))

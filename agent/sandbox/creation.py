"""From uploaded files to a task with jobs: the background request `create:task`."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.sandbox import jobs as job_routes
from agent.sandbox import media
from agent.sandbox.exchange import Call, Refusal
from agent.sandbox.records import JSON, Data, Job, Request, Task, now, stamp
from agent.sandbox.state import State
from agent.sandbox.tasks import view as task_view
from agent.sandbox.validation import ground_truth_frames, hide_honeypots
from agent.sandbox.webhooks import announce, changed

log = logging.getLogger(__name__)


def order_creation(call: Call, task: Task, sent: JSON) -> str:
    """Starts making a task from its files; returns the request's id."""
    media.Order.checked(sent)
    state = call.state
    rq_id = f"action=create&target=task&target_id={task.id}"
    with state.store.change():
        running = state.requests.first(rq_id=rq_id)
        if running is not None and running.status in ("queued", "started"):
            raise Refusal(409, {"detail": "The task is being created already"})
        if running is not None:
            state.requests.remove(running.id)
        request = state.requests.add(rq_id=rq_id, task_id=task.id, owner_id=call.user.id, params=sent)
    state.submit("create", create, state, request)
    return rq_id


def create(state: State, request: Request) -> None:
    """Makes the task; whatever goes wrong is the request's message."""
    task = state.tasks.get(request.task_id)
    if task is None:
        return
    with state.store.change():
        request.status, request.started_date = "started", now()
        state.requests.save(request)
    message = _attempt(state, task, request)
    with state.store.change():
        if state.requests.get(request.id) is None:
            return  # the task was deleted meanwhile
        request.message, request.finished_date = message, now()
        request.status = "failed" if message else "finished"
        state.requests.save(request)
    if not message:
        call = Call.behind(state, state.users.rows[request.owner_id])
        done = {"request": request_view(state, request)}
        announce(call, "completed:request[create:task]", task, done)


def _attempt(state: State, task: Task, request: Request) -> str:
    """Makes the task; returns what went wrong, "" if nothing did."""
    if task.data_id is not None:
        return ""  # it was made just before the process was killed
    try:
        _create(state, task, request)
    except (media.CreationError, Refusal) as error:
        text = str(error.payload if isinstance(error, Refusal) else error)
        return f"{text}\n" if text.startswith("PIL.") else f"rest_framework.exceptions.ValidationError: {text}\n"
    except Exception as error:
        log.exception("sandbox: task %s", task.id)
        return f"{type(error).__name__}: {error}\n"
    return ""


def _create(state: State, task: Task, request: Request) -> None:
    order = media.Order.checked(request.params)
    data = Data(id=state.store.next_id("data"), image_quality=order.image_quality)
    folder = state.media(data.id)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Files are linked, not moved: an interrupted creation can be done again after a restart.
    try:
        names = media.collected(state.incoming(task.id), folder)
        videos = [name for name in names if Path(name).suffix.lower() in media.VIDEO]
        if len(names) > 1 and videos:
            raise media.CreationError("Only one video or many images can be used in a task")
        if videos:
            media.read_video(data, order, folder, videos[0])
        else:
            media.read_pictures(data, order, folder, names)
        segments = _laid_out(data, task, order)
        _store(state, task, data, segments, request.owner_id)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(state.incoming(task.id), ignore_errors=True)
    shutil.rmtree(state.incoming(task.id).with_suffix(".parts"), ignore_errors=True)


def _laid_out(data: Data, task: Task, order: media.Order) -> list[list[int]]:
    """The jobs' first and last frames; sets what the task and data say about segments and validation."""
    params = order.validation_params
    if params and params["mode"] == "gt_pool":
        return _with_pool(data, task, order, params)
    default = 5 if data.kind == "video" else 0
    size = task.segment_size if 0 < task.segment_size < data.size else data.size
    overlap = default if task.overlap is None else task.overlap
    overlap = max(0, min(overlap, size // 2)) if size < data.size else 0
    task.segment_size, task.overlap = size, overlap
    starts = range(0, max(1, data.size - overlap), max(1, size - overlap))
    segments = [[start, min(start + size, data.size) - 1] for start in starts]
    if params:
        names = {frame["name"]: number for number, frame in enumerate(data.frames)}
        ranges = [range(first, last + 1) for first, last in segments]
        chosen = ground_truth_frames(params, list(range(data.size)), names, ranges)
        data.validation = {"mode": "gt", "frames": chosen, "disabled": []}
    return segments


def _with_pool(data: Data, task: Task, order: media.Order, params: JSON) -> list[list[int]]:
    if data.kind == "video" or order.sorting_method != "random":
        raise media.CreationError(
            "validation mode 'gt_pool' can only be used with images and 'sorting_method' = 'random'"
        )
    if params.get("frame_selection_method") == "random_per_job":
        raise media.CreationError("'random_per_job' frame selection cannot be used with 'gt_pool'")
    names = {frame["name"]: number for number, frame in enumerate(data.frames)}
    pool = ground_truth_frames(params, list(range(data.size)), names)
    per_job = int(params.get("frames_per_job_count") or max(1, int(params.get("frames_per_job_share", 0) * len(pool))))
    per_job = min(per_job, len(pool))
    seed = params.get("random_seed")
    arranged = hide_honeypots(data.frames, pool, task.segment_size, per_job, seed)
    data.frames, data.size = arranged["frames"], len(arranged["frames"])
    data.start_frame, data.stop_frame, data.frame_filter = 0, data.size - 1, ""
    honeypots = {
        "frames": arranged["pool"],
        "disabled": [],
        "honeypots": arranged["honeypots"],
        "per_job": per_job,
    }
    data.validation = {"mode": "gt_pool", **honeypots}
    segments: list[list[int]] = arranged["segments"]
    task.segment_size, task.overlap = max((last - first + 1 for first, last in segments), default=0), 0
    return segments


def _store(state: State, task: Task, data: Data, segments: list[list[int]], owner_id: int) -> None:
    call = Call.behind(state, state.users.rows[owner_id])
    before = task_view(call, task)
    made: list[Job] = []
    with state.store.change():
        if state.tasks.get(task.id) is None:
            raise media.CreationError("The task was deleted")
        state.data.save(data)
        task.data_id, task.dimension, task.media_type = data.id, "2d", "image"
        task.mode = "interpolation" if data.kind == "video" else "annotation"
        task.validation_mode = data.validation["mode"] if data.validation else None
        for first, last in segments:
            made.append(state.jobs.add(task_id=task.id, start_frame=first, stop_frame=last))
        if data.validation:
            place = {"start_frame": 0, "stop_frame": data.size - 1, "frames": data.validation["frames"]}
            made.append(state.jobs.add(task_id=task.id, type="ground_truth", **place))
        state.touch(task)
    for job in made:
        announce(call, "create:job", task, {"job": job_routes.view(call, job)})
    after = task_view(call, task)
    announce(call, "update:task", task, {"task": after, **changed(before, after)})


def request_view(state: State, request: Request) -> JSON:
    """A background request as the API tells it."""
    task = state.tasks.get(request.task_id)
    end = datetime.fromisoformat(request.finished_date or now()).astimezone(UTC)
    return {
        "status": request.status,
        "message": request.message,
        "id": request.rq_id,
        "operation": {
            "type": "create:task",
            "target": "task",
            "project_id": task.project_id if task else None,
            "task_id": request.task_id,
            "job_id": None,
            "org_id": task.organization_id if task else None,
            "format": None,
            "lightweight": None,
        },
        "progress": 0.0,
        "created_date": request.created_date,
        "started_date": request.started_date,
        "finished_date": request.finished_date,
        "expiry_date": stamp(end + timedelta(seconds=500)) if request.finished_date else None,
        "owner": {"id": request.owner_id, "username": state.users.rows[request.owner_id].username},
        "result_url": None,
        "result_id": None,
    }


def resume(state: State) -> None:
    """Goes on with what a killed process left: creations that were queued or running begin anew."""
    for request in state.requests.all():
        if request.status in ("queued", "started"):
            state.submit("create", create, state, request)

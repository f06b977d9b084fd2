"""From uploaded files to a task with jobs: the background request `create:task`."""

from __future__ import annotations

import json
import mimetypes
import random
import re
import shutil
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
from PIL import UnidentifiedImageError

from agent.sandbox import jobs as job_routes
from agent.sandbox.exchange import Call, Refusal
from agent.sandbox.pictures import probe
from agent.sandbox.records import JSON, Data, Job, Request, Task, now, stamp
from agent.sandbox.state import State
from agent.sandbox.tasks import view as task_view
from agent.sandbox.validation import ground_truth_frames, hide_honeypots
from agent.sandbox.video import index_video
from agent.sandbox.webhooks import announce, changed

_VIDEO = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"}
_MAX_UNPACKED = 20 << 30
_MAX_MEMBERS = 100_000
_STEP = re.compile(r"step\s*=\s*([1-9]\d*)")
_ORDERS = ("lexicographical", "natural", "predefined", "random")


class CreationError(Exception):
    """The files do not make a task; the text is the request's message."""


@dataclass
class Order:
    """The checked parameters of a data request."""

    image_quality: int = 70
    chunk_size: int = 0
    start_frame: int = 0
    stop_frame: int | None = None
    step: int = 1
    use_zip_chunks: bool = False
    sorting_method: str = "lexicographical"
    upload_file_order: list[str] = field(default_factory=list)
    validation_params: JSON | None = None

    @classmethod
    def checked(cls, sent: JSON) -> Order:
        """The parameters, from JSON or form fields; refuses what makes no sense."""
        if sent.get("server_files") or sent.get("remote_files"):
            raise Refusal(400, {"client_files": ["The sandbox takes uploaded files only"]})
        quality = _whole(sent, "image_quality", 70, 0)
        if not quality <= 100:
            raise Refusal(400, {"image_quality": ["Ensure this value is less than or equal to 100."]})
        step = _STEP.fullmatch(str(sent.get("frame_filter") or "step=1").strip())
        if step is None:
            raise Refusal(400, {"frame_filter": ["'frame_filter' must have the form of 'step=<number>'"]})
        order = str(sent.get("sorting_method") or "lexicographical").lower()
        if order not in _ORDERS:
            raise Refusal(400, {"sorting_method": [f'"{order}" is not a valid choice.']})
        return cls(
            image_quality=quality,
            chunk_size=_whole(sent, "chunk_size", 0, 1),
            start_frame=_whole(sent, "start_frame", 0, 0),
            stop_frame=_whole(sent, "stop_frame", -1, 0) if sent.get("stop_frame") is not None else None,
            step=int(step[1]),
            use_zip_chunks=str(sent.get("use_zip_chunks", "")).lower() in ("true", "1", "on"),
            sorting_method=order,
            upload_file_order=_list(sent.get("upload_file_order")),
            validation_params=_params(sent.get("validation_params")),
        )


def _whole(sent: JSON, name: str, default: int, least: int) -> int:
    value = sent.get(name)
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise Refusal(400, {name: ["A valid integer is required."]}) from error
    if number < least:
        raise Refusal(400, {name: [f"Ensure this value is greater than or equal to {least}."]})
    return number


def _list(value: Any) -> list[str]:
    items = json.loads(value) if isinstance(value, str) and value.startswith("[") else value
    return [str(item) for item in items or []]


def _params(value: Any) -> JSON | None:
    params = json.loads(value) if isinstance(value, str) and value else value
    if not params:
        return None
    if not isinstance(params, dict) or params.get("mode") not in ("gt", "gt_pool"):
        raise Refusal(400, {"validation_params": {"mode": ["This is not a valid choice."]}})
    return params


def order_creation(call: Call, task: Task, sent: JSON) -> str:
    """Starts making a task from its files; returns the request's id."""
    Order.checked(sent)
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
    request.status, request.started_date = "started", now()
    state.requests.save(request)
    try:
        _create(state, task, request)
        request.status = "finished"
    except (CreationError, Refusal) as error:
        text = error.payload if isinstance(error, Refusal) else error
        request.status, request.message = "failed", f"rest_framework.exceptions.ValidationError: {text}\n"
        if str(text).startswith("PIL."):
            request.message = f"{text}\n"
    except Exception as error:
        request.status, request.message = "failed", f"{type(error).__name__}: {error}\n"
    request.finished_date = now()
    with state.store.change():
        if state.requests.get(request.id) is not None:
            state.requests.save(request)


def _create(state: State, task: Task, request: Request) -> None:
    order = Order.checked(request.params)
    data = Data(id=state.store.next_id("data"), image_quality=order.image_quality)
    folder = state.media(data.id)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Files are linked, not moved: an interrupted creation can be done again after a restart.
    try:
        names = _collected(state.incoming(task.id), folder)
        videos = [name for name in names if Path(name).suffix.lower() in _VIDEO]
        if len(names) > 1 and videos:
            raise CreationError("Only one video, archive, pdf or many images can be used simultaneously")
        if videos:
            _read_video(data, order, folder, videos[0])
        else:
            _read_pictures(data, order, folder, names)
        segments = _laid_out(data, task, order)
        _store(state, task, data, segments, request.owner_id)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(state.incoming(task.id), ignore_errors=True)
    shutil.rmtree(state.incoming(task.id).with_suffix(".parts"), ignore_errors=True)


def _collected(source: Path, folder: Path) -> list[str]:
    """Brings the uploaded files (archives unpacked) into the media folder; returns their names."""
    names: list[str] = []
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        if zipfile.is_zipfile(path) and path.suffix.lower() == ".zip":
            names += _unpacked(path, folder)
            continue
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(path)
        names.append(name)
    if not names:
        raise CreationError("No media data found")
    return names


def _unpacked(path: Path, folder: Path) -> list[str]:
    names = []
    with zipfile.ZipFile(path) as archive:
        members = [
            item for item in archive.infolist() if not item.is_dir() and "__MACOSX" not in item.filename
        ]
        if len(members) > _MAX_MEMBERS or sum(item.file_size for item in members) > _MAX_UNPACKED:
            raise CreationError("The archive is too large")
        for item in members:
            kind = mimetypes.guess_type(item.filename)[0] or ""
            if not kind.startswith("image/"):
                continue
            # extract() drops drive letters, leading slashes and `..`, and never leaves the folder.
            names.append(Path(archive.extract(item, folder)).relative_to(folder.absolute()).as_posix())
    return names


def _natural(name: str) -> list[tuple[bool, int | str]]:
    return [
        (not part.isdigit(), int(part) if part.isdigit() else part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _sorted(names: list[str], order: Order) -> list[str]:
    match order.sorting_method:
        case "natural":
            return sorted(names, key=_natural)
        case "predefined":
            place = {name: at for at, name in enumerate(order.upload_file_order)}
            return sorted(names, key=lambda name: place.get(name, len(place))) if place else names
        case "random":
            seed = (order.validation_params or {}).get("random_seed")
            return random.Random(seed).sample(names, len(names))
    return sorted(names)


def _picked(count: int, order: Order) -> range:
    """The source's frame numbers that the task takes."""
    last = count - 1 if order.stop_frame is None else min(order.stop_frame, count - 1)
    picked = range(order.start_frame, last + 1, order.step)
    if not picked:
        raise CreationError("No media data found: the frame range is empty")
    return picked


def _read_pictures(data: Data, order: Order, folder: Path, names: list[str]) -> None:
    ordered = _sorted(names, order)
    picked = _picked(len(ordered), order)
    for number in picked:
        name = ordered[number]
        try:
            info = probe(folder / name)
        except UnidentifiedImageError as error:
            place = f"/home/django/data/data/{data.id}/raw/{name}"
            raise CreationError(
                f"PIL.UnidentifiedImageError: cannot identify image file '{place}'"
            ) from error
        entry = {
            "name": name,
            "width": info.width,
            "height": info.height,
            "file": name,
            "rotated": info.rotated,
        }
        data.frames.append(entry)
    _number(data, order, picked)


def _read_video(data: Data, order: Order, folder: Path, name: str) -> None:
    try:
        index = index_video(folder / name)
    except (av.FFmpegError, ValueError) as error:
        raise CreationError(f"The video cannot be read: {type(error).__name__}") from error
    (folder / "index.json").write_text(json.dumps(index.times))
    data.kind = "video"
    data.frames.append(
        {"name": name, "width": index.width, "height": index.height, "file": name, "rotated": False}
    )
    data.original_chunk_type = "video"
    data.compressed_chunk_type = "imageset" if order.use_zip_chunks else "video"
    _number(data, order, _picked(len(index.times), order))


def _number(data: Data, order: Order, picked: range) -> None:
    data.size = len(picked)
    data.start_frame, data.stop_frame = picked[0], picked[-1]
    data.frame_filter = f"step={order.step}" if order.step > 1 else ""
    area = max(1, data.frames[0]["width"] * data.frames[0]["height"])
    data.chunk_size = order.chunk_size or max(2, min(72, 36 * 1920 * 1080 // area))


def _laid_out(data: Data, task: Task, order: Order) -> list[list[int]]:
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


def _with_pool(data: Data, task: Task, order: Order, params: JSON) -> list[list[int]]:
    if data.kind == "video" or order.sorting_method != "random":
        raise CreationError(
            "validation mode 'gt_pool' can only be used with images and 'sorting_method' = 'random'"
        )
    if params.get("frame_selection_method") == "random_per_job":
        raise CreationError("validation mode 'gt_pool' cannot be used with 'random_per_job' frame selection")
    names = {frame["name"]: number for number, frame in enumerate(data.frames)}
    pool = ground_truth_frames(params, list(range(data.size)), names)
    per_job = int(
        params.get("frames_per_job_count") or max(1, int(params.get("frames_per_job_share", 0) * len(pool)))
    )
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
            raise CreationError("The task was deleted")
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
    done = {"request": request_view(state, state.requests.where(task_id=task.id)[-1])}
    announce(call, "completed:request[create:task]", task, done)


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

"""The data of tasks and jobs: meta, frames, chunks, previews."""

from __future__ import annotations

import math
import mimetypes
import zipfile
from collections.abc import Sequence
from pathlib import Path

from starlette.responses import FileResponse, Response

from agent.sandbox import chunks, pictures, video
from agent.sandbox.exchange import Call, Refusal, forbidden, missing, reply
from agent.sandbox.permissions import may_task, the_job, the_task
from agent.sandbox.records import JSON, Data, Job, Task
from agent.sandbox.state import State

_PIECE = 1 << 20


def _data_of(call: Call, task: Task) -> Data:
    data = call.state.data.get(task.data_id)
    if data is None:
        raise Refusal(404, "No data is attached to the task")
    return data


def _meta(data: Data, job: Job | None = None) -> JSON:
    numbers: Sequence[int] = job.numbers if job else range(data.size)
    frames = data.frames if data.kind == "video" else [data.frames[number] for number in numbers]
    first, last = (job.start_frame, job.stop_frame) if job else (0, data.size - 1)
    inside = set(numbers)
    included = job.frames if job else None
    names = ("width", "height", "name")
    shown = [{**{k: frame[k] for k in names}, "related_files": 0, "has_related_context": False} for frame in frames]
    return {
        "chapters": [] if data.kind == "video" else None,
        "chunks_updated_date": data.updated_date,
        "chunk_size": data.chunk_size,
        "size": len(numbers),
        "image_quality": data.image_quality,
        # Bounds and included frames count in the source; all other frame numbers of the API are the task's.
        "start_frame": data.start_frame + first * data.step,
        "stop_frame": data.start_frame + last * data.step,
        "frame_filter": data.frame_filter,
        "frames": shown,
        "deleted_frames": [number for number in data.deleted_frames if number in inside],
        "included_frames": None if included is None else [data.start_frame + n * data.step for n in included],
        "storage": "local",
        "cloud_storage_id": None,
    }


def task_meta(call: Call) -> Response:
    """GET /api/tasks/{id}/data/meta."""
    return reply(_meta(_data_of(call, the_task(call))))


def job_meta(call: Call) -> Response:
    """GET /api/jobs/{id}/data/meta."""
    job = the_job(call)
    return reply(_meta(_data_of(call, call.state.tasks.rows[job.task_id]), job))


def _delete_frames(call: Call, data: Data, numbers: range | list[int]) -> None:
    """Sets the deleted frames among these numbers."""
    sent = call.object().get("deleted_frames")
    if not isinstance(sent, list) or not all(isinstance(number, int) for number in sent):
        raise Refusal(400, {"deleted_frames": ["Expected a list of integers."]})
    allowed = set(numbers)
    with call.state.store.change():
        kept = {number for number in data.deleted_frames if number not in allowed}
        data.deleted_frames = sorted(kept | (set(sent) & allowed))
        call.state.data.save(data)


def patch_task_meta(call: Call) -> Response:
    """PATCH /api/tasks/{id}/data/meta: deletes and restores frames."""
    task = the_task(call)
    data = _data_of(call, task)
    _delete_frames(call, data, range(data.size))
    call.state.touch(task)
    return reply(_meta(data))


def patch_job_meta(call: Call) -> Response:
    """PATCH /api/jobs/{id}/data/meta: deletes and restores frames of the job."""
    job = the_job(call)
    task = call.state.tasks.rows[job.task_id]
    if not may_task(call, task):
        raise forbidden()
    data = _data_of(call, task)
    _delete_frames(call, data, job.numbers)
    return reply(_meta(data, job))


def task_data(call: Call) -> Response:
    """GET /api/tasks/{id}/data."""
    task = the_task(call)
    data = _data_of(call, task)
    match _kind(call):
        case "chunk":
            number = _number(call, "number")
            last = math.ceil(data.size / data.chunk_size) - 1
            if not 0 <= number <= last:
                raise _no_chunk(number, last)
            first = number * data.chunk_size
            return _chunk(call, data, range(first, min(first + data.chunk_size, data.size)))
        case "frame":
            number = _number(call, "number")
            _check_frame(data, number)
            return _frame(call, data, number)
    return _preview(call, data, 0)


def job_data(call: Call) -> Response:
    """GET /api/jobs/{id}/data."""
    job = the_job(call)
    data = _data_of(call, call.state.tasks.rows[job.task_id])
    numbers = job.numbers
    match _kind(call):
        case "chunk":
            return _chunk(call, data, _job_chunk(call, data, numbers))
        case "frame":
            number = _number(call, "number")
            if number not in set(numbers):
                raise Refusal(400, f"Incorrect requested frame number: {number}")
            return _frame(call, data, number)
    return _preview(call, data, numbers[0])


def task_preview(call: Call) -> Response:
    """GET /api/tasks/{id}/preview."""
    return _preview(call, _data_of(call, the_task(call)), 0)


def job_preview(call: Call) -> Response:
    """GET /api/jobs/{id}/preview."""
    job = the_job(call)
    return _preview(call, _data_of(call, call.state.tasks.rows[job.task_id]), job.numbers[0])


def _kind(call: Call) -> str:
    kind = call.query.get("type", "")
    if kind not in ("chunk", "frame", "preview"):
        if kind == "context_image":
            raise missing("RelatedFile")
        raise Refusal(400, ["Data type not specified or has wrong value"])
    return kind


def _number(call: Call, name: str) -> int:
    text = call.query.get(name)
    if text is None:
        raise Refusal(400, ["Number is not specified"])
    if not text.lstrip("-").isdigit():
        raise Refusal(400, [f"Wrong {name}: {text[:20]}"])
    return int(text)


def _quality(call: Call) -> str:
    quality = call.query.get("quality", "compressed")
    if quality not in chunks.QUALITIES:
        raise Refusal(400, ["Wrong quality"])
    return quality


def _no_chunk(number: int, last: int) -> Refusal:
    text = f"Invalid chunk number '{number}'. The chunk number should be in the [0, {last}] range"
    return Refusal(400, text)


def _check_frame(data: Data, number: int) -> None:
    if not 0 <= number < data.size:
        # Sic: the size itself is outside.
        text = f"Invalid frame '{number}'. The frame number should be in the [0, {data.size}] range"
        raise Refusal(400, text)


def _job_chunk(call: Call, data: Data, numbers: list[int]) -> list[int]:
    """The frames of a job's chunk: by `index` from the job's start, or by `number` as the task counts."""
    last = math.ceil(len(numbers) / data.chunk_size) - 1
    if "index" in call.query:
        index = _number(call, "index")
        if not 0 <= index <= last:
            raise _no_chunk(index, last)
        return numbers[index * data.chunk_size : (index + 1) * data.chunk_size]
    number = _number(call, "number")
    found = [frame for frame in numbers if frame // data.chunk_size == number]
    if not found:
        raise _no_chunk(number, last)
    return found


def _chunk(call: Call, data: Data, numbers: Sequence[int]) -> Response:
    quality = _quality(call)
    path = chunks.build(call.state, data, numbers, quality)
    kind = "video/mp4" if path.suffix == ".mp4" else "application/zip"
    headers = {"X-Checksum": str(chunks.checksum(path)), "X-Updated-Date": data.updated_date}
    response = FileResponse(path, headers=headers, media_type=kind)
    response.chunk_size = _PIECE
    return response


def picture_of(state: State, data: Data, number: int, quality: str) -> tuple[str, bytes]:
    """A frame: media type and content. A video's are decoded from its chunk and encoded at every call."""
    if data.kind == "images":
        suffix, content = chunks.picture(state, data, number, quality)
        return mimetypes.guess_type("x" + suffix)[0] or "image/jpeg", content
    first = number // data.chunk_size * data.chunk_size
    inside = range(first, min(first + data.chunk_size, data.size))
    path = chunks.build(state, data, inside, quality)
    if path.suffix == ".zip":
        return "image/jpeg", _member(path, number - first)
    return "image/png", pictures.png(video.nth_picture(path, number - first))


def _member(path: Path, at: int) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[at])


def _frame(call: Call, data: Data, number: int) -> Response:
    kind, content = picture_of(call.state, data, number, _quality(call))
    return Response(content, media_type=kind)


def _preview(call: Call, data: Data, number: int) -> Response:
    path = call.state.cache(data.id) / f"preview-{number}.jpg"
    if not path.exists():
        if data.kind == "images":
            content = pictures.preview(call.state.media(data.id) / data.frames[number]["file"])
        else:
            first = number // data.chunk_size * data.chunk_size
            inside = range(first, min(first + data.chunk_size, data.size))
            chunk = chunks.build(call.state, data, inside, "original")
            content = pictures.preview(video.nth_picture(chunk, number - first))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Response(path.read_bytes(), media_type="image/jpeg")

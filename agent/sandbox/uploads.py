"""How files come in: one multipart request, several between Upload-Start and Upload-Finish, or TUS in pieces.

Files are written as they arrive, under `incoming/<task>/`; no upload is ever held in memory as a whole.
"""

from __future__ import annotations

import base64
import json
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from agent.sandbox.creation import order_creation
from agent.sandbox.exchange import Call, Refusal, missing, reply
from agent.sandbox.permissions import the_task
from agent.sandbox.records import JSON, Upload

MAX_FILE = 26843545600
_MAX_FIELD = 1 << 20
_MAX_FILES = 100_000
TUS = {
    "Tus-Resumable": "1.0.0",
    "Tus-Version": "1.0.0",
    "Tus-Extension": "",
    "Tus-Max-Size": str(MAX_FILE),
    "Access-Control-Expose-Headers": "Tus-Resumable,upload-length,upload-metadata,Location,Upload-Offset",
}


def safe_name(name: str) -> str:
    """A relative path that cannot leave its folder, whatever the client calls the file."""
    parts = PurePosixPath(name.replace("\\", "/").replace("\0", "")).parts
    kept = [part for part in parts if part not in ("/", "..", ".", "")]
    if not kept:
        raise Refusal(400, {"filename": ["Not a valid file name."]})
    return "/".join(part[:200] for part in kept[-8:])


class _Form:
    """A multipart body, written to disk part by part; `fields` are its texts."""

    def __init__(self, boundary: bytes, folder: Path) -> None:
        self.fields: JSON = {}
        self._folder = folder
        self._headers: dict[str, bytes] = {}
        self._name = self._value = b""
        self._field = ""
        self._text = bytearray()
        self._file: BinaryIO | None = None
        self._files = self._size = 0
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._opened,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def write(self, piece: bytes) -> None:
        """Takes a piece of the body."""
        try:
            self._parser.write(piece)
        except ValueError as error:
            raise Refusal(400, {"detail": f"Multipart form parse error - {error}"}) from error

    def close(self) -> None:
        """Closes what an interrupted body left open."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._headers, self._text, self._size = {}, bytearray(), 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def _opened(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if filename is None:
            return
        self._files += 1
        if self._files > _MAX_FILES:
            raise Refusal(400, {"client_files": ["Too many files."]})
        # Browsers and the SDK send whole paths here; the server keeps the last part only.
        name = safe_name(filename.decode("utf-8", "replace")).rpartition("/")[2]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / name).open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > (MAX_FILE if self._file else _MAX_FIELD):
            raise Refusal(413, {"detail": "The part is too large."})
        if self._file is not None:
            self._file.write(data[start:end])
        else:
            self._text += data[start:end]

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        else:
            self.fields[self._field] = self._text.decode("utf-8", "replace")


async def _received(request: Request, folder: Path) -> JSON:
    """Reads a body: files go to the folder, the fields of the form (or the JSON object) are returned."""
    kind, options = parse_options_header(request.headers.get("content-type", "").encode())
    if kind == b"multipart/form-data":
        form = _Form(options.get(b"boundary", b""), folder)
        try:
            async for piece in request.stream():
                await run_in_threadpool(form.write, piece)
        finally:
            form.close()
        return form.fields
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_FIELD * 64:
            raise Refusal(413, {"detail": "The body is too large."})
    try:
        value = json.loads(body or b"{}")
    except ValueError as error:
        raise Refusal(400, {"detail": f"JSON parse error - {error}"}) from error
    return value if isinstance(value, dict) else {}


async def post_data(call: Call) -> Response:
    """POST /api/tasks/{id}/data: what it does depends on its Upload-* headers."""
    task = await run_in_threadpool(the_task, call)
    headers, folder = call.request.headers, call.state.incoming(task.id)
    if task.data_id is not None:
        raise Refusal(400, "Adding more data is not supported")
    if "upload-length" in headers:
        return await run_in_threadpool(_begin_tus, call)
    if "upload-start" in headers:
        await _received(call.request, folder)
        await run_in_threadpool(shutil.rmtree, folder, True)
        return Response(status_code=202)
    sent = await _received(call.request, folder)
    if "upload-multiple" in headers:
        return Response(status_code=200)
    rq_id = await run_in_threadpool(order_creation, call, task, sent)
    return reply({"rq_id": rq_id}, 202)


def _begin_tus(call: Call) -> Response:
    length = call.request.headers["upload-length"]
    if not length.isdigit() or int(length) > MAX_FILE:
        raise Refusal(413, {"detail": "The file is too large."})
    filename = safe_name(_metadata(call.request.headers.get("upload-metadata", "")).get("filename", ""))
    key = f"{call.user.id}_{uuid.uuid4()}"
    task_id = call.id()
    path = _part(call, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    call.state.uploads.add(task_id=task_id, key=key, filename=filename, length=int(length))
    place = call.link(f"/api/tasks/{task_id}/data/{key}")
    return Response(status_code=201, headers={**TUS, "Location": place, "Upload-Filename": filename})


def _metadata(header: str) -> dict[str, str]:
    found = {}
    for item in filter(None, header.split(",")):
        name, _, value = item.strip().partition(" ")
        found[name] = base64.b64decode(value + "==").decode("utf-8", "replace")
    return found


def _part(call: Call, key: str) -> Path:
    return call.state.incoming(call.id()).with_suffix(".parts") / key


def _the_upload(call: Call) -> Upload:
    the_task(call)
    upload = call.state.uploads.first(task_id=call.id(), key=call.text("key"))
    if upload is None:
        raise missing("Upload")
    return upload


def head_upload(call: Call) -> Response:
    """HEAD /api/tasks/{id}/data/{key}: how much has arrived."""
    upload = _the_upload(call)
    path = _part(call, upload.key)
    offset = path.stat().st_size if path.exists() else upload.length
    return Response(headers={**TUS, "Upload-Offset": str(offset), "Upload-Length": str(upload.length)})


async def patch_upload(call: Call) -> Response:
    """PATCH /api/tasks/{id}/data/{key}: the next piece."""
    upload = await run_in_threadpool(_the_upload, call)
    path = _part(call, upload.key)
    offset = path.stat().st_size if path.exists() else upload.length
    if call.request.headers.get("upload-offset") != str(offset):
        raise Refusal(409, "Upload-Offset does not match", {**TUS, "Upload-Offset": str(offset)})
    if path.exists():
        with path.open("ab") as file:
            async for piece in call.request.stream():
                offset += len(piece)
                if offset > upload.length:
                    raise Refusal(413, "More than announced", TUS)
                await run_in_threadpool(file.write, piece)
    if offset == upload.length and path.exists():
        place = call.state.incoming(upload.task_id) / upload.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    return Response(status_code=204, headers={**TUS, "Upload-Offset": str(offset)})

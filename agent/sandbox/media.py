"""Uploaded files as the frames of a task: what is taken, in which order, how large it is."""

from __future__ import annotations

import json
import mimetypes
import random
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from PIL import UnidentifiedImageError

from agent.sandbox.exchange import Refusal, whole
from agent.sandbox.pictures import probe
from agent.sandbox.records import JSON, Data
from agent.sandbox.video import index_video

VIDEO = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"}
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
        quality = whole(sent, "image_quality", 70, 0)
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
            chunk_size=whole(sent, "chunk_size", 0, 1),
            start_frame=whole(sent, "start_frame", 0, 0),
            stop_frame=whole(sent, "stop_frame", -1, 0) if sent.get("stop_frame") is not None else None,
            step=int(step[1]),
            use_zip_chunks=str(sent.get("use_zip_chunks", "")).lower() in ("true", "1", "on"),
            sorting_method=order,
            upload_file_order=_list(sent.get("upload_file_order")),
            validation_params=_params(sent.get("validation_params")),
        )


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


def collected(source: Path, folder: Path) -> list[str]:
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
        members = [item for item in archive.infolist() if not item.is_dir() and "__MACOSX" not in item.filename]
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
    return [(not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name) if part]


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


def _entry(name: str, width: int, height: int, rotated: bool = False) -> JSON:
    return {"name": name, "width": width, "height": height, "file": name, "rotated": rotated}


def read_pictures(data: Data, order: Order, folder: Path, names: list[str]) -> None:
    """Fills in the frames of pictures."""
    ordered = _sorted(names, order)
    picked = _picked(len(ordered), order)
    for number in picked:
        name = ordered[number]
        try:
            info = probe(folder / name)
        except UnidentifiedImageError as error:
            place = f"/home/django/data/data/{data.id}/raw/{name}"
            raise CreationError(f"PIL.UnidentifiedImageError: cannot identify image file '{place}'") from error
        entry = {
            "name": name,
            "width": info.width,
            "height": info.height,
            "file": name,
            "rotated": info.rotated,
        }
        data.frames.append(entry)
    _number(data, order, picked)


def read_video(data: Data, order: Order, folder: Path, name: str) -> None:
    """Fills in the one entry of a video, and keeps its index beside it."""
    try:
        index = index_video(folder / name)
    except (av.FFmpegError, ValueError) as error:
        raise CreationError(f"The video cannot be read: {type(error).__name__}") from error
    (folder / "index.json").write_text(json.dumps(index.times))
    data.kind = "video"
    data.frames.append({"name": name, "width": index.width, "height": index.height, "file": name, "rotated": False})
    data.original_chunk_type = "video"
    data.compressed_chunk_type = "imageset" if order.use_zip_chunks else "video"
    _number(data, order, _picked(len(index.times), order))


def _number(data: Data, order: Order, picked: range) -> None:
    data.size = len(picked)
    data.start_frame, data.stop_frame = picked[0], picked[-1]
    data.frame_filter = f"step={order.step}" if order.step > 1 else ""
    area = max(1, data.frames[0]["width"] * data.frames[0]["height"])
    data.chunk_size = order.chunk_size or max(2, min(72, 36 * 1920 * 1080 // area))

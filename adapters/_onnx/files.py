"""What a file of weights really is, told before a runtime stumbles over it. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from agent.contract import ModelLoadFailed, ModelNotFound

_EXPORT = "export it to ONNX, e.g. `yolo export model=x.pt format=onnx` or torch.onnx.export"
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it by `git lfs pull`"),
    (0, b"PK\x03\x04", f"a zip archive, as PyTorch saves its pickles; {_EXPORT}"),
    (0, b"\x80\x02", f"a Python pickle, as PyTorch saves them; {_EXPORT}"),
    (0, b"\x80\x03", f"a Python pickle; {_EXPORT}"),
    (0, b"\x80\x04", f"a Python pickle; {_EXPORT}"),
    (0, b"\x80\x05", f"a Python pickle; {_EXPORT}"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it to ONNX, e.g. by tf2onnx --tflite"),
    (0, b"\x89HDF", "an HDF5 file, as Keras saves them; convert it to ONNX, e.g. by tf2onnx"),
    (0, b"ptrt", "a TensorRT engine; give the ONNX file that it was built from"),
    (0, b"ftrt", "a TensorRT engine; give the ONNX file that it was built from"),
    (0, b"GGUF", "a GGUF language model, not a detector"),
    (8, b'{"', "a safetensors file, which has weights but no graph; give its folder as hf:FOLDER"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"<", "XML or a web page; a download may have gone wrong"),
    (0, b"{", "a JSON text"),
)


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file that is whole, as far as its outer structure says."""

    path: Path
    version: str
    """sha256:… of the file, and of its external data where it lies beside it."""
    opset: int | None
    producer: str


def open_onnx(name: str) -> OnnxFile:
    """The file of that name; ModelNotFound or ModelLoadFailed says what was found instead."""
    path = Path(name).expanduser()
    if path.is_dir():
        hint = f"; it holds a config.json: did you mean hf:{name}?" if (path / "config.json").exists() else ""
        raise ModelLoadFailed(f"local:{name}: got a folder, allowed: an .onnx file{hint}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelNotFound(f"local:{name}: there is no such file{_near(path)}") from None
    except OSError as error:
        raise ModelLoadFailed(f"local:{name}: cannot be read: {error.strerror or error}") from error
    if not content:
        raise ModelLoadFailed(f"local:{name}: got an empty file, allowed: an ONNX model")
    for offset, magic, what in _MAGIC:
        if content[offset : offset + len(magic)] == magic:
            raise ModelLoadFailed(f"local:{name}: got {what}; allowed: an ONNX model")
    opset, producer = _outline(content, name)
    return OnnxFile(path, _version(path, content), opset, producer)


def _near(path: Path) -> str:
    import difflib

    folder = path.parent
    files = [file.name for file in folder.glob("*.onnx")] if folder.is_dir() else []
    if not files:
        return f" (nor any .onnx file in {folder})" if folder.is_dir() else f" (nor the folder {folder})"
    near = difflib.get_close_matches(path.name, files, n=1)
    return f"; did you mean {folder / near[0]}?" if near else f"; in {folder} there are: {', '.join(files[:8])}"


def _version(path: Path, content: bytes) -> str:
    digest = hashlib.sha256(content)
    for beside in (path.with_name(path.name + ".data"), path.with_name(path.name + "_data")):
        if beside.is_file():
            with beside.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def _outline(content: bytes, name: str) -> tuple[int | None, str]:
    """The opset and the producer of a ModelProto, by its outermost fields (onnx/onnx.proto) alone."""
    view, place = memoryview(content), 0
    opset, producer, graph = None, "", False
    while place < len(view):
        try:
            key, place = _varint(view, place)
            value, place = _field(view, place, key & 7)
        except (ValueError, IndexError):
            # Up to here the fields were those of a model: the file was cut; else it never was one.
            what = "the file is cut off or damaged" if graph or producer else "got something else"
            raise ModelLoadFailed(f"local:{name}: not a whole ONNX model: {what}") from None
        if key >> 3 == 2 and isinstance(value, memoryview):
            producer = bytes(value).decode("utf-8", "replace")
        elif key >> 3 == 7 and isinstance(value, memoryview):
            graph = True
        elif key >> 3 == 8 and isinstance(value, memoryview):
            opset = _default_opset(value) or opset
    if not graph:
        raise ModelLoadFailed(f"local:{name}: not an ONNX model: there is no graph in it")
    return opset, producer


def _default_opset(message: memoryview) -> int | None:
    place, domain, version = 0, b"", None
    while place < len(message):
        key, place = _varint(message, place)
        value, place = _field(message, place, key & 7)
        if key >> 3 == 1 and isinstance(value, memoryview):
            domain = bytes(value)
        elif key >> 3 == 2 and isinstance(value, int):
            version = value
    return version if domain in (b"", b"ai.onnx") else None


def _field(view: memoryview, place: int, wire: int) -> tuple[int | memoryview, int]:
    """A protobuf field's value and the place after it (protobuf.dev, "Encoding")."""
    if wire == 0:
        return _varint(view, place)
    if wire == 2:
        length, place = _varint(view, place)
    elif wire in (1, 5):
        length = 8 if wire == 1 else 4
    else:
        raise ValueError(f"wire type {wire}")
    if place + length > len(view):
        raise IndexError("cut off")
    return view[place : place + length], place + length


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("varint")

"""What a file of weights really is, told before a runtime stumbles over it. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from adapters._networks.protobuf import outline
from agent.contract import ModelLoadFailed, ModelNotFound

FORMATS = {
    "onnx": "ONNX",
    "torchscript": "TorchScript",
    "exported": "torch.export",
    "openvino": "OpenVINO IR",
    "tflite": "TensorFlow Lite",
    "ultralytics": "a PyTorch pickle by Ultralytics",
}
"""What can be run, and what it is called. Each has a module `in_….py`."""

_ALLOWED = "allowed: an ONNX, TorchScript, torch.export (.pt2), OpenVINO (.xml) or TensorFlow Lite model"
_SUFFIXES = (".onnx", ".torchscript", ".pt2", ".xml", ".tflite", ".pt")
_EXPORT = (
    "export it to ONNX, e.g. `yolo export model=x.pt format=onnx` or torch.onnx.export; pickles can run anything when"
    " opened (Ultralytics' are opened by option allow_pickle = true, where the package ultralytics is installed)"
)
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it by `git lfs pull`"),
    (0, b"\x80\x02", f"a Python pickle, as PyTorch saves them; {_EXPORT}"),
    (0, b"\x80\x03", f"a Python pickle; {_EXPORT}"),
    (0, b"\x80\x04", f"a Python pickle; {_EXPORT}"),
    (0, b"\x80\x05", f"a Python pickle; {_EXPORT}"),
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
_BESIDE = {"onnx": (".data", "_data"), "openvino": (".bin",)}
"""Endings of the files beside a file that hold its weights; for OpenVINO in place of its own ending."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file that is whole, as far as its outer structure says."""

    path: Path
    version: str
    """sha256:… of the file, and of its external data where it lies beside it."""
    format: str
    """One of FORMATS."""
    detail: str
    """The format in words, with what else the file's outer structure tells."""


def open_weights(name: str, *, allow_pickle: bool = False) -> WeightsFile:
    """The file of that name; ModelNotFound or ModelLoadFailed says what was found instead.

    Pickles are refused, unless a person allows them by name; nothing is opened here in any case.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = _inside(path, name)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelNotFound(f"local:{name}: there is no such file{_near(path)}") from None
    except OSError as error:
        raise ModelLoadFailed(f"local:{name}: cannot be read: {error.strerror or error}") from error
    if not content:
        raise ModelLoadFailed(f"local:{name}: got an empty file, {_ALLOWED}")
    kind = _format(path, content, name, allow_pickle)
    detail = FORMATS[kind]
    if kind == "onnx":
        opset, producer = outline(content, name)
        detail = f"ONNX, opset {opset}" + (f", by {producer}" if producer else "")
    return WeightsFile(path, _version(path, content, kind), kind, detail)


def _format(path: Path, content: bytes, name: str, allow_pickle: bool) -> str:
    """Which of FORMATS a file is of."""
    if content[:4] == b"PK\x03\x04":
        kind = _archive(path)
        if kind == "pickle" and allow_pickle:
            return "ultralytics"
        if kind in FORMATS:
            return kind
        what = {
            "pickle": f"a zip archive, as PyTorch saves its pickles; {_EXPORT}",
            "keras": "a Keras model; convert it to ONNX, e.g. by tf2onnx",
        }.get(kind, "a zip archive that is no model, or is damaged")
        raise ModelLoadFailed(f"local:{name}: got {what}; {_ALLOWED}")
    if content[4:8] == b"TFL3":
        return "tflite"
    if content[:1] == b"<" and b"<net " in content[:4096]:
        if not path.with_suffix(".bin").is_file():
            raise ModelLoadFailed(f"local:{name}: its weights are missing: there is no {path.with_suffix('.bin').name}")
        return "openvino"
    for offset, magic, what in _MAGIC:
        if content[offset : offset + len(magic)] == magic:
            raise ModelLoadFailed(f"local:{name}: got {what}; {_ALLOWED}")
    return "onnx"


def _archive(path: Path) -> str:
    """What a zip archive is, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "damaged"
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    if "archive_format" in names and any(name.startswith("models/") for name in names):
        return "exported"
    if "data.pkl" in names:
        return "pickle"
    return "keras" if "model.weights.h5" in names else "other"


def _inside(folder: Path, name: str) -> Path:
    """The one OpenVINO model in a folder, as Ultralytics exports them."""
    found = [path for path in sorted(folder.glob("*.xml")) if b"<net " in path.read_bytes()[:4096]]
    if len(found) == 1:
        return found[0]
    hint = f"; it holds a config.json: did you mean hf:{name}?" if (folder / "config.json").exists() else ""
    raise ModelLoadFailed(f"local:{name}: got a folder, {_ALLOWED}{hint}")


def _near(path: Path) -> str:
    import difflib

    folder = path.parent
    files = [file.name for file in folder.iterdir() if file.suffix in _SUFFIXES] if folder.is_dir() else []
    if not files:
        return f" (nor any model file in {folder})" if folder.is_dir() else f" (nor the folder {folder})"
    near = difflib.get_close_matches(path.name, files, n=1)
    return f"; did you mean {folder / near[0]}?" if near else f"; in {folder} there are: {', '.join(files[:8])}"


def _version(path: Path, content: bytes, kind: str) -> str:
    digest = hashlib.sha256(content)
    for ending in _BESIDE.get(kind, ()):
        beside = path.with_suffix(ending) if kind == "openvino" else path.with_name(path.name + ending)
        if beside.is_file():
            with beside.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"

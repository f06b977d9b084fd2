"""The files of a model: which are wanted, whether they are whole, and what names their content."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from agent.contract import ModelLoadFailed

TEXTS = [
    "config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json", "README.md",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
]  # fmt: skip
SAFE = ["model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"]
PICKLED = ["pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"]

_LFS = b"version https://git-lfs"


def has_safetensors(folder: Path) -> bool:
    """Whether there are weights that hold nothing but numbers."""
    return bool(_found(folder, SAFE))


def check_files(folder: Path, owner: str, allow_pickle: bool) -> None:
    """ModelLoadFailed unless there is a config.json with weights that are whole and may be read."""
    if not (folder / "config.json").exists():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ModelLoadFailed(f"{owner}: has no config.json (found: {found}), allowed: models for transformers")
    safe = _found(folder, SAFE)
    if not safe:
        if not _found(folder, PICKLED):
            hint = "" if allow_pickle else "; pickled weights (pytorch_model.bin) are read with allow_pickle = true"
            raise ModelLoadFailed(f"{owner}: has no model.safetensors{hint}")
        if not allow_pickle:
            raise ModelLoadFailed(f"{owner}: has pickled weights only, which can run code; allow_pickle = true")
    for path in safe:
        if path.suffix == ".json":
            _check_index(path, owner)
        elif problem := _damage(path):
            raise ModelLoadFailed(f"{owner}: {path.name} {problem}")


def digest(folder: Path) -> str:
    """Sixteen digits that name the content of a folder's config and weights."""
    total = hashlib.sha256()
    for path in sorted([folder / "config.json", *_found(folder, [*SAFE, *PICKLED])]):
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:16]


def licence(folder: Path) -> str | None:
    """The licence that the model card names in its front matter."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:20_000]
    except OSError:
        return None
    front = re.match(r"\A---\s*\n(.*?)^---", card, re.DOTALL | re.MULTILINE)
    named = dict(re.findall(r"^(license(?:_name)?):\s*['\"]?([^\s'\"]+)", front[1] if front else "", re.MULTILINE))
    return named.get("license_name") if named.get("license") == "other" else named.get("license")


def drop_damaged(folder: Path, since: float) -> list[str]:
    """The names of files that came after `since` and are not what the Hub said; they are deleted.

    The cache keeps large files under their SHA-256, so that a second attempt would find the same damaged file there.
    """
    dropped = []
    for path in _found(folder, [*SAFE, *PICKLED]):
        blob = path.resolve()
        if blob == path or not re.fullmatch(r"[0-9a-f]{64}", blob.name) or blob.stat().st_mtime < since:
            continue
        with blob.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == blob.name:
                continue
        path.unlink()
        blob.unlink()
        dropped.append(path.name)
    return dropped


def _found(folder: Path, patterns: list[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _check_index(path: Path, owner: str) -> None:
    """ModelLoadFailed where a file that the index of a sharded model names is missing."""
    try:
        named = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelLoadFailed(f"{owner}: {path.name} is no index of weights: {type(error).__name__}") from error
    if missing := [name for name in named if not (path.parent / name).exists()]:
        raise ModelLoadFailed(f"{owner}: lacks {missing[0]}, one of the {len(named)} files that {path.name} names")


def _damage(path: Path) -> str | None:
    """What is wrong with a safetensors file: its head says how long the whole must be."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if (start + stream.read(len(_LFS) - 8)).startswith(_LFS):
            return "is a pointer of Git LFS, not the weights: run `git lfs pull` in the folder"
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            return f"is no safetensors file, or is cut short: it has {size} bytes"
        stream.seek(8)
        try:
            head = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "is no safetensors file: its head cannot be read"
    whole = 8 + length + max(ends, default=0)
    return None if size == whole else f"is damaged: it has {size} bytes, its head says {whole}"

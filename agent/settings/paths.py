"""Files that models of service.toml name: relative paths are relative to it, as everywhere in that file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_OPTIONS = {"local": ("decoder", "labels_file"), "opencv": ("backbone", "head")}
"""By scheme, the options of adapters that name files."""
_FILE_SCHEMES = ("local", "cvat", "hf")
_BUILT_OF = ("of", "then")
"""Options of models that are built of others, which name them."""


def beside(reference: str, options: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """The reference and the options with what lies in the folder named by its whole path; the rest as it was."""
    scheme = reference.partition(":")[0].strip().lower()
    found = dict(options)
    for name in FILE_OPTIONS.get(scheme, ()):
        if isinstance(value := found.get(name), str):
            found[name] = _path(value, folder)
    for name in _BUILT_OF:
        if name in found:
            found[name] = _parts(found[name], folder)
    return _reference(reference, folder), found


def _reference(reference: str, folder: Path) -> str:
    scheme, colon, name = reference.partition(":")
    if not colon or scheme.strip().lower() not in _FILE_SCHEMES or not name:
        return reference
    return f"{scheme}:{_path(name, folder)}"


def _path(name: str, folder: Path) -> str:
    path = Path(name)
    return name if path.is_absolute() or name.startswith("~") or not (folder / path).exists() else str(folder / path)


def _parts(wish: Any, folder: Path) -> Any:
    if isinstance(wish, list | tuple):
        return [_parts(part, folder) for part in wish]
    if isinstance(wish, str):
        return _reference(wish, folder)
    if isinstance(wish, Mapping) and isinstance(wish.get("model"), str):
        options = wish.get("options")
        reference, own = beside(wish["model"], options if isinstance(options, Mapping) else {}, folder)
        return {**wish, "model": reference, **({"options": own} if isinstance(options, Mapping) else {})}
    return wish

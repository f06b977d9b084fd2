"""Files that models of service.toml name: relative paths are relative to it, as everywhere in that file.

Where a path leads does not depend on what is there: weights that come later are looked for at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FILE_OPTIONS = {"local": ("decoder", "labels_file"), "opencv": ("backbone", "head"), "roboflow": ("examples",)}
"""By scheme, the options of adapters that name files."""
_BUILT_OF = ("of", "then")
"""Options of models that are built of others, which name them."""


def beside(reference: str, options: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, Any]]:
    """The reference and the options with each path of theirs from the root; the rest as it was."""
    scheme = reference.partition(":")[0].strip().lower()
    found = dict(options)
    for name in FILE_OPTIONS.get(scheme, ()):
        if isinstance(value := found.get(name), str) and value:
            found[name] = path_from(value, folder)
    for name in _BUILT_OF:
        if name in found:
            found[name] = _parts(found[name], folder)
    return _reference(reference, folder), found


def label_map_from(name: Path, folder: Path) -> Path:
    """A label map's file; a bare name is one of those that come with the program, unless such a file is there."""
    is_file = len(name.parts) > 1 or name.suffix == ".toml" or (folder / name).exists()
    return Path(path_from(str(name), folder)) if is_file else name


def path_from(name: str, folder: Path) -> str:
    """A path as it is meant in a file of this folder."""
    # What begins with ~ is for whoever opens it; the folder in front is for relative ones only.
    return name if name.startswith("~") else str(folder / name)


def _reference(reference: str, folder: Path) -> str:
    scheme, colon, name = reference.partition(":")
    is_path = _IS_PATH.get(scheme.strip().lower())
    if not colon or not name or is_path is None or not is_path(name, folder):
        return reference
    return f"{scheme}:{path_from(name, folder)}"


def _is_folder(name: str, folder: Path) -> bool:
    """Of `hf:`, where OWNER/NAME is a repository unless such a folder is there."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or (folder / name).exists()


def _is_program(name: str, folder: Path) -> bool:
    """Of `cvat:`, where package.module is no path."""
    return name.endswith(".py") or "/" in name or (folder / name).is_file()


_IS_PATH: dict[str, Callable[[str, Path], bool]] = {
    "local": lambda name, folder: True,
    "hf": _is_folder,
    "cvat": _is_program,
}
"""By scheme, whether the name of a reference is a path."""


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

"""What the demo annotates: pictures, and a task's labels made from a model's."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent.domain import Attribute, Label
from agent.errors import ConfigError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise ConfigError(f"--images {folder}: got no pictures, allowed: files that end in {', '.join(PICTURES)}")
    return found


def portraits(folder: Path) -> list[Path]:
    """Grace Hopper's portrait (public domain, in matplotlib's wheel): as it is, mirrored, small, and thrice."""
    from PIL import Image, ImageOps

    spec = find_spec("matplotlib")
    place = Path(spec.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg" if spec and spec.origin else None
    if place is None or not place.exists():
        raise ConfigError("demo: matplotlib's sample portrait is not installed; give your own pictures by --images DIR")
    portrait = Image.open(place).convert("RGB")
    small = portrait.resize((portrait.width // 2, portrait.height // 2))
    row = Image.new("RGB", (small.width * 3, small.height), "white")
    for column, picture in enumerate((small, ImageOps.mirror(small), ImageOps.autocontrast(small))):
        row.paste(picture, (column * small.width, 0))
    pictures = {"portrait": portrait, "mirrored": ImageOps.mirror(portrait), "small": small, "three": row}
    paths = []
    for number, (name, picture) in enumerate(pictures.items()):
        paths.append(folder / f"{number}-{name}.jpg")
        picture.save(paths[-1], quality=92)
    return paths


def task_label(label: Label) -> dict[str, Any]:
    """The task's label for a model's: the same name, type and attributes."""
    made = {
        "name": label.name,
        "type": label.type,
        "attributes": [_task_attribute(a) for a in label.attributes],
    }
    if label.sublabels:
        made |= {
            "sublabels": [{"name": sub.name, "type": "points"} for sub in label.sublabels],
            "svg": _svg(label.sublabels),
        }
    return made


def _task_attribute(attribute: Attribute) -> dict[str, Any]:
    values = list(attribute.values) or [""]
    return {
        "name": attribute.name, "input_type": attribute.input_type, "mutable": False,
        "values": values, "default_value": values[0],
    }  # fmt: skip


def _svg(sublabels: Sequence[Label]) -> str:
    """A column of nodes: CVAT wants a drawing for a skeleton, its places do not matter to the annotations."""
    step = 100 / (len(sublabels) + 1)
    return "".join(
        f'<circle r="1.5" cx="50" cy="{step * number:.1f}" data-type="element node" data-element-id="{number}"'
        f' data-node-id="{number}" data-label-name="{label.name}"></circle>'
        for number, label in enumerate(sublabels, 1)
    )

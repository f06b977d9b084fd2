"""What can be asked of a run, as one value that the ledger can keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from agent.domain import Roi
from agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Target:
    """The task, job or project that a run is for."""

    kind: str
    id: int

    KINDS: ClassVar[tuple[str, ...]] = ("task", "job", "project")

    @classmethod
    def of(cls, **ids: int | None) -> Target:
        """The one of task, job and project that is given."""
        given = [(kind, number) for kind, number in ids.items() if number is not None]
        if len(given) != 1:
            got = ", ".join(f"--{kind} {number}" for kind, number in given) or "none of them"
            raise ConfigError(f"target: got {got}, allowed: one of --task N, --job N, --project N")
        return cls(*given[0])

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that `str` wrote."""
        kind, number = text.split()
        return cls(kind, int(number))

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(frozen=True, slots=True)
class Options:
    """Everything about a run but the server, the target and where reports go."""

    model: str
    params: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    batch_size: int | None = None
    threshold: float | None = None
    mapping: Mapping[str, str | None] = field(default_factory=dict)
    """Model label -> task label; None drops it."""
    label_map: str | None = None
    quality: str = "compressed"
    selection: str = "all"
    seed: int = 0
    roi: tuple[int, int, int, int] | None = None
    masks_as_polygons: bool = False
    tolerance: float = 1.0
    skip_overlapping: float | None = None
    min_area: float = 1.0
    max_per_frame: int | None = None
    replace: str = "none"
    """What makes room: none, own (what runs made and nobody changed), all; rule: own, of runs of the same rule."""
    ground_truth: bool = False
    honeypots: bool = False
    max_bad_frames: int = 50
    rule: str | None = None
    """The rule of service.toml that wanted it; None: a person did."""

    @classmethod
    def of(cls, *, mapping: tuple[str, ...] = (), roi: str | None = None, **values: Any) -> Options:
        """The options as the command line gives them."""
        return cls(mapping=parse_mapping(mapping), roi=parse_roi(roi), **values)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Options:
        """The options as the ledger kept them."""
        roi = values.get("roi")
        return cls(**{**values, "roi": tuple(roi) if roi else None})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def region(self) -> Roi | None:
        return Roi(*self.roi) if self.roi else None


def parse_mapping(pairs: tuple[str, ...]) -> dict[str, str | None]:
    """`A=B` pairs; `A=` drops A."""
    mapping: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, target = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            raise ConfigError(f'--map {pair!r}: got no \'=\', allowed: "model label=task label", or "model label="')
        if name in mapping:
            raise ConfigError(f"--map {pair!r}: {name!r} is mapped twice")
        mapping[name] = target or None
    return mapping


def parse_roi(text: str | None) -> tuple[int, int, int, int] | None:
    """`left,top,right,bottom` in pixels."""
    if text is None:
        return None
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
        Roi(left, top, right, bottom)
    except ValueError as error:
        raise ConfigError(
            f"--roi {text!r}: allowed: left,top,right,bottom, whole pixels, left < right, top < bottom"
        ) from error
    return left, top, right, bottom

"""What a rule may ask of its runs: the options of `annotate`, as service.toml writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agent.compose.named import resolved
from agent.domain import Roi
from agent.errors import ConfigError
from agent.labels.maps import load_label_map
from agent.options import Options
from agent.selection import parse_selection
from agent.settings.paths import label_map_from
from agent.settings.tables import Config, RuleSettings, Share
from agent.settings.toml import read_table

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """`options = {…}` of a rule. The model's own settings are with the model."""

    threshold: Share | None = None
    mapping: Mapping[Text, str] = field(default_factory=dict)
    """Model label -> task label; "" drops it."""
    label_map: Text | None = None
    """A label map by name, or a file, relative to service.toml."""
    quality: Literal["compressed", "original"] = "compressed"
    frames: Text = "all"
    seed: int = 0
    roi: tuple[int, int, int, int] | None = None
    masks_as_polygons: bool = False
    tolerance: NotNegative = 1.0
    skip_overlapping: Share | None = None
    min_area: NotNegative = 1.0
    max_per_frame: Count | None = None
    replace: Literal["rule", "none", "own", "all"] = "rule"
    """What makes room when a job is annotated again: by default what the same rule made and nobody has changed."""
    ground_truth: bool = False
    """Ground truth jobs too."""
    honeypots: bool = False
    max_bad_frames: Annotated[int, Field(ge=0)] = 50


def read_options(table: Mapping[str, object], place: str, folder: Path) -> RuleOptions:
    """The options of a rule; ConfigError with `place` for each that is wrong. Files are looked for in `folder`."""
    options = read_table(RuleOptions, table, place)
    if wrong := [f"{place}: {text}" for text in _wrong(options, folder)]:
        raise ConfigError(*wrong)
    return options


def _wrong(options: RuleOptions, folder: Path) -> Iterator[str]:
    """What is wrong with values that are right by their types."""
    try:
        parse_selection(options.frames, options.seed)
    except ConfigError as error:
        yield str(error)
    try:
        if options.label_map is not None:
            load_label_map(str(label_map_from(Path(options.label_map), folder)))
    except ConfigError as error:
        yield str(error)
    try:
        if options.roi is not None:
            Roi(*options.roi)
    except ValueError:
        allowed = "[left, top, right, bottom] in pixels, left < right, top < bottom"
        yield f"roi: got {list(options.roi or ())}, allowed: {allowed}"


def run_options(rule: RuleSettings, wish: RuleOptions, config: Config) -> Options:
    """All that a run of the rule needs to know, so that the command line can go on with it too."""
    model = config.model(rule.model)
    reference, params = resolved(model.id, config.models)
    folder = config.file.resolve().parent
    label_map = str(label_map_from(Path(wish.label_map), folder)) if wish.label_map is not None else None
    return Options(
        model=reference,
        params=params,
        device=model.device or config.engine.device,
        batch_size=model.batch_size,
        threshold=model.threshold if wish.threshold is None else wish.threshold,
        mapping={name: target or None for name, target in wish.mapping.items()},
        label_map=label_map or (str(model.label_map) if model.label_map else None),
        quality=wish.quality,
        selection=wish.frames,
        seed=wish.seed,
        roi=wish.roi,
        masks_as_polygons=wish.masks_as_polygons,
        tolerance=wish.tolerance,
        skip_overlapping=wish.skip_overlapping,
        min_area=wish.min_area,
        max_per_frame=wish.max_per_frame,
        replace=wish.replace,
        ground_truth=wish.ground_truth,
        honeypots=wish.honeypots,
        max_bad_frames=wish.max_bad_frames,
        rule=rule.name,
    )

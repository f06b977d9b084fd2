"""Models built of others, by configuration: ensembles, tiles for small objects, test-time augmentation, chains.

To the rest of the program they are detectors like any other: `ensemble:`, `tiles:`, `flips:` and `chain:` are schemes
of model references, their parts are options.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from agent.compose.parts import Opener, Parts
from agent.models.loading import LoadedModel, load_model, load_with, parse_reference
from agent.settings.parts import SCHEMES


def open_model(
    reference: str, *, device: str = "auto", options: Mapping[str, Any] | None = None, opener: Opener
) -> LoadedModel:
    """The model that a reference names, whether an adapter loads it or it is built of others.

    `opener` opens the parts. Raises as `load_model` does.
    """
    parsed = parse_reference(reference)
    if parsed.scheme not in SCHEMES:
        return load_model(reference, device=device, options=options)
    module = importlib.import_module(f"agent.compose.{parsed.scheme}")
    parts = Parts(str(parsed).rstrip(":"), device, opener)
    try:
        return load_with(module.load, parsed, device=device, options=options or {}, parts=parts)
    except BaseException:
        parts.close()
        raise

"""The models of service.toml: their adapters, options, files and label maps; loaded and run if that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.doctor.configuration import FILE
from agent.doctor.findings import Check, Finding, counted, failed, ok, skipped, warning
from agent.doctor.limits import usable_memory
from agent.doctor.patient import Patient
from agent.doctor.probe import probe
from agent.doctor.weights import look_at_files
from agent.labels.maps import load_label_map
from agent.models.descriptions import Description
from agent.settings.parts import is_composition, parts_of
from agent.settings.tables import Config, ModelSettings

MIB = 2**20
ADAPTER_SECONDS, LOAD_SECONDS = 120.0, 1800.0
"""Loading may have to fetch weights first."""


def checks(config: Config) -> list[Check]:
    found = [
        Check(f"models.options {model.id}", partial(_options, model=model), needs=(FILE,), seconds=ADAPTER_SECONDS)
        for model in config.models
    ]
    for model in config.models:
        look = partial(look_at_files, model=model)
        found.append(Check(f"models.files {model.id}", look, needs=(f"models.options {model.id}",)))
        if model.label_map is not None:
            map_mend = "a name of ours (`ls label_maps`), or a file relative to service.toml"
            found.append(
                Check(f"models.label_map {model.id}", partial(_map, model=model), needs=(FILE,), mend=map_mend)
            )
    for model in config.models:
        loads, files = partial(_loads, model=model), f"models.files {model.id}"
        found.append(Check(f"models.loads {model.id}", loads, needs=(files,), seconds=LOAD_SECONDS + 5))
    return [*found, Check("models.memory", _memory, needs=(FILE,))] if config.models else []


def _options(patient: Patient, model: ModelSettings) -> Finding:
    """Of all models at once, in a process that imports their adapters."""
    if "adapters" not in patient.libraries:
        asked = [(one.id, one.model, one.options) for one in patient.config.models]
        patient.libraries["adapters"] = probe("adapters", asked, seconds=ADAPTER_SECONDS - 1)
    if problem := patient.libraries["adapters"][model.id]:
        return failed(problem, "put right the model's table in service.toml; docs/models.md tells the options")
    its = (
        "it takes its options, and its parts take theirs" if is_composition(model) else "its adapter takes the options"
    )
    return ok(f"{model.model.rstrip(':')}: {its}")


def _map(patient: Patient, model: ModelSettings) -> Finding:
    found = load_label_map(str(model.label_map))
    if not found.labels:
        mend = "label_map wants a file with [labels], which say what becomes of the model's labels"
        return failed(f"label map {found.name} is a vocabulary only", mend)
    return ok(f"label map {found.name} has {counted(len(found.labels), 'label')}")


# ---------------------------------------------------------------------- loading


def _loads(patient: Patient, model: ModelSettings) -> Finding:
    if not patient.load:
        return skipped("loading takes a while; --load does it, and runs the model on a picture")
    file, device = str(patient.config.file), model.device or patient.config.engine.device
    told = probe("load", file, model.id, device, seconds=LOAD_SECONDS)
    if "error" in told:
        return failed(told["error"], "put right what it says; `cvat-sidecar models show` tells more")
    description = _description(told["description"])
    patient.loaded[model.id], patient.memory[model.id] = description, told["memory"]
    opened, ran = told["seconds"]
    labels = f", {counted(len(description.labels), 'label')}" if description.labels else ""
    text = f"{description.kind}{labels}, {told['memory'] / MIB:.0f} MiB"
    found = f"{text}; loaded in {opened:.1f} s, {told['came']} on a test picture in {ran:.2f} s"
    limit = patient.config.engine.memory_mb
    if limit is not None and told["memory"] > limit * MIB:
        return warning(found, f"raise engine.memory_mb = {limit:g}: alone it takes more")
    return ok(found)


def _memory(patient: Patient) -> Finding:
    """Whether the models fit beside each other, as far as they were loaded just now."""
    if not patient.memory:
        return skipped("known once they are loaded: --load")
    at_start = [model for model in patient.config.models if model.load == "start"]
    together = sum(_own_memory(patient, model) for model in at_start)
    text = f"those that are loaded at the start take {together / MIB:.0f} MiB together"
    limit = patient.config.engine.memory_mb
    if limit is not None and together > limit * MIB:
        mend = 'raise engine.memory_mb, or give models that are rarely used load = "use"'
        return warning(f"{text}, more than engine.memory_mb = {limit:g}: they will take turns", mend)
    whole = usable_memory()
    if limit is None and together > 0.7 * whole:
        mend = f"set engine.memory_mb to some {0.7 * whole / MIB:.0f}, so that models take turns"
        return warning(f"{text}, of {whole / MIB:.0f} MiB that there are", mend)
    return ok(text)


def _own_memory(patient: Patient, model: ModelSettings) -> int:
    """What a model takes beside its parts, as far as these are models by themselves: the service has them once."""
    parts = parts_of(model, patient.memory)
    return max(0, patient.memory.get(model.id, 0) - sum(patient.memory[part] for part in parts))


def _description(values: Mapping[str, Any]) -> Description:
    try:
        return TypeAdapter(Description).validate_python(values)
    except ValidationError as error:
        raise ValueError(f"a description that is none: {error}") from error

"""Where a model's files are: here, in the cache of the Hugging Face Hub, or to be had from there."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

from agent.doctor.findings import Finding, failed, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.models.loading import parse_reference
from agent.settings.parts import is_composition, named_parts
from agent.settings.paths import FILE_OPTIONS
from agent.settings.tables import ModelSettings


def look_at_files(patient: Patient, model: ModelSettings) -> Finding:
    """Whether the weights are here, or can be had, without loading them."""
    reference = parse_reference(model.model)
    if is_composition(model):
        return _of_parts(patient, model)
    named = [(name, model.options.get(name)) for name in FILE_OPTIONS.get(reference.scheme, ())]
    files = [(name, value) for name, value in named if isinstance(value, str)]
    for name, value in files:
        if missing := _missing(value):
            return failed(f"{name}: {missing[0]}", missing[1])
    if reference.scheme == "hf" and not _is_path(reference.name):
        return _on_the_hub(patient, model, reference.name)
    if reference.scheme == "local" or (reference.scheme in ("hf", "cvat") and _is_path(reference.name)):
        missing = _missing(reference.name)
        return failed(*missing) if missing else ok(f"{reference.name} is there, and can be read")
    if files:
        return ok(f"{' and '.join(value for _, value in files)}: there, and can be read")
    return skipped(f"{reference.scheme}: needs no files of its own")


def _of_parts(patient: Patient, model: ModelSettings) -> Finding:
    """Of those parts that are no models by themselves: these are looked at as such."""
    ids = {one.id for one in patient.config.models}
    own = [(name, options) for name, options in named_parts(model.options) if name not in ids]
    for name, options in own:
        found = look_at_files(patient, replace(model, model=name, options=dict(options)))
        if found.state in ("failed", "warning"):
            return replace(found, text=f"its part {name}: {found.text}")
    return ok("the files of its parts are there") if own else skipped("its parts are models by themselves")


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".py") or Path(name).exists()


def _missing(name: str) -> tuple[str, str] | None:
    """What is wrong with a file or folder, and what to do; None where it can be read."""
    path = Path(name).expanduser()
    if path.exists():
        return None if os.access(path, os.R_OK) else (f"{path} cannot be read by this user", f"chmod a+r {path}")
    # Relative names that lie beside service.toml are whole ones by now.
    return f"there is no {path.absolute()}", "put right the reference, or put the file there"


def _on_the_hub(patient: Patient, model: ModelSettings, name: str) -> Finding:
    """Cached, or to be had: asked of the Hub without fetching anything."""
    if any((hub_cache() / f"models--{name.replace('/', '--')}").glob("snapshots/*/config.json")):
        return ok(f"{name} is in the cache {hub_cache()}")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")
    if offline or model.options.get("local_files_only"):
        mend = f"fetch it once: hf download {name}, or take HF_HUB_OFFLINE and local_files_only away"
        return failed(f"{name} is not in the cache {hub_cache()}, and nothing may be fetched", mend)
    end = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    variable = str(model.options.get("token_env") or "HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if (token := os.environ.get(variable)) else {}
    try:
        request = urllib.request.Request(f"{end}/api/models/{name}", headers=headers)
        urllib.request.urlopen(request, timeout=patient.seconds).close()
    except urllib.error.HTTPError as error:
        error.close()
        return _refused(end, name, error.code, variable)
    except OSError as error:
        mend = "let this machine reach it (https_proxy), or fetch the weights elsewhere and set HF_HUB_OFFLINE=1"
        return failed(f"{name} is not in the cache, and {end} cannot be reached: {_reason(error)}", mend)
    return ok(f"{name} is at {end}, and will be fetched")


def _refused(end: str, name: str, status: int, variable: str) -> Finding:
    if status in (401, 403):
        mend = f"accept its terms on its page, and put a token into {variable}; or the name is wrong"
        return failed(f"{end} does not give {name} to us ({status})", mend)
    if status == 404:
        return failed(f"{end} has no {name}", "put right the reference")
    return warning(f"{end} answers {status} when asked for {name}", "try again later")


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", error))


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it has fetched."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()

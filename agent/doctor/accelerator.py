"""What models would run on: whether torch and ONNX Runtime see the device that service.toml asks for."""

from __future__ import annotations

import subprocess
from pathlib import Path

from agent.doctor.findings import Check, Finding, failed, ok, warning
from agent.doctor.installation import IMPORT_SECONDS, TORCH
from agent.doctor.patient import Patient, scheme_of
from agent.doctor.probe import probe
from agent.settings.tables import Config

GIB = 2**30
BUILD = "install the CUDA build of torch: pip install torch --index-url https://download.pytorch.org/whl/cu130"
_DRIVER = Path("/proc/driver/nvidia/version")


def checks(config: Config) -> list[Check]:
    found = [Check("accelerator.torch", _torch, needs=(TORCH,))]
    if any(scheme_of(model) == "local" for model in config.models):
        found.append(Check("accelerator.onnxruntime", _onnxruntime, seconds=IMPORT_SECONDS))
    return found


def _wanted(config: Config) -> str | None:
    """A model or table that wants a CUDA device by name; None where none does."""
    if config.engine.device.startswith("cuda"):
        return f"engine.device = {config.engine.device!r}"
    for model in config.models:
        if (device := model.device or model.options.get("device")) and str(device).startswith("cuda"):
            return f"models {model.id}: device = {device!r}"
    return None


def _torch(patient: Patient) -> Finding:
    told, wanted = patient.libraries["torch"], _wanted(patient.config)
    if told["available"]:
        devices = ", ".join(
            f"{name} ({free / GIB:.0f} of {all_ / GIB:.0f} GiB free)" for name, free, all_ in told["devices"]
        )
        return ok(f"torch sees {devices}")
    driver = _driver()
    if told["cuda"] is None:
        if wanted:
            return failed(f"{wanted}, and torch is built for the processor only", BUILD)
        if driver:
            return warning(
                f"this machine has an NVIDIA GPU ({driver}), and torch is built for the processor only", BUILD
            )
        return ok("models run on the processor")
    why = "; ".join(told["warnings"]) or ("the driver does not answer" if driver else "there is no NVIDIA driver here")
    mend = "update the driver, or install a torch for an older CUDA; in a container, start it with --gpus all"
    if wanted:
        return failed(f"{wanted}, and torch sees no GPU: {why[:200]}", mend)
    return warning(f"torch is built for CUDA {told['cuda']} and sees no GPU: {why[:200]}", mend)


def _driver() -> str | None:
    """What the driver says of itself; None where there is none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
        if done.returncode == 0 and done.stdout.strip():
            return f"{done.stdout.strip().splitlines()[0]}"
    except (OSError, subprocess.TimeoutExpired):
        pass
    return "its driver is loaded" if _DRIVER.exists() else None


def _onnxruntime(patient: Patient) -> Finding:
    told = probe("onnxruntime", seconds=IMPORT_SECONDS - 1)
    text = f"ONNX Runtime {told['version']}: {', '.join(told['providers'])}"
    local = [m for m in patient.config.models if scheme_of(m) == "local"]
    wanting = [m.id for m in local if str(m.device or patient.config.engine.device).startswith("cuda")]
    if wanting and "CUDAExecutionProvider" not in told["providers"]:
        mend = "pip uninstall onnxruntime && pip install onnxruntime-gpu"
        return failed(f"{', '.join(wanting)} on CUDA, and {text}", mend)
    return ok(text)

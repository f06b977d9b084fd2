"""What is installed: our own packages and not somebody else's, versions that go together, libraries that are whole."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import agent
from agent.doctor.findings import Check, Finding, failed, ok, skipped, warning
from agent.doctor.patient import Patient
from agent.doctor.probe import ProbeFailed, probe

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OURS = "cvat-sidecar"
TORCH = "installation.torch"
IMPORT_SECONDS = 120.0
"""The first import of torch from a cold disk takes its time."""
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_GROUND = ("torch", "transformers", "cvat-sdk", "onnxruntime", "numpy")
"""Their versions are told."""
_BUILDS = {"onnxruntime": "onnxruntime-gpu"}
"""Builds of a package that go by another name."""


def checks() -> list[Check]:
    own = "make an environment of its own: python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ."
    return [
        Check("installation.packages", _packages, mend=own),
        Check("installation.adapters", _adapters, mend=own),
        Check("installation.bytecode", _bytecode),
        Check("installation.opencv", _opencv, mend=own, seconds=IMPORT_SECONDS),
        Check(TORCH, _torch, mend=own, seconds=IMPORT_SECONDS),
        Check("installation.torchvision", _torchvision, needs=(TORCH,)),
    ]


def _packages(patient: Patient) -> Finding:
    """Python and our dependencies, held to what our own metadata asks for."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        asked = [Requirement(line) for line in requires(OURS) or ()]
        python = SpecifierSet(distribution(OURS).metadata["Requires-Python"] or "")
    except PackageNotFoundError:
        return skipped(f"{OURS} runs from a bare clone, nobody says which versions it needs")
    if not python.contains(platform.python_version(), prereleases=True):
        mend = "install it with one of these Pythons"
        return failed(f"Python {platform.python_version()}, allowed: {python}", mend)
    wrong = [problem for one in asked if (problem := _problem(one)) is not None]
    if wrong:
        return failed("; ".join(wrong[:6]), "pip install -c constraints.txt . puts them right")
    told = ", ".join(f"{name} {found}" for name in _GROUND if (found := _version(name)))
    return ok(f"{OURS} {version(OURS)}, Python {platform.python_version()}, {told}")


def _problem(asked: Requirement) -> str | None:
    """What is wrong with one dependency."""
    if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
        return None
    found = _version(asked.name) or _version(_BUILDS.get(asked.name, asked.name))
    if found is None:
        return f"{asked.name} is not installed"
    if not asked.specifier.contains(found, prereleases=True):
        return f"{asked.name} {found}, allowed: {asked.specifier}"
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _adapters(patient: Patient) -> Finding:
    """Whether the import packages are ours: unrelated ones of the same names are to be had."""
    home = Path(agent.__file__).resolve().parents[1]
    for name in ("adapters", "label_maps"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return failed(f"there is no package {name!r}", f"install {OURS} again")
        place = Path(spec.origin).resolve().parent
        if place != home / name:
            mend = f"make an environment for {OURS} alone, and take {place.parent} out of PYTHONPATH"
            return failed(f"{name!r} is imported from {place}, ours is {home / name}", mend)
    if strangers := sorted(set(_owners("adapters", "agent")) - {OURS}):
        mend = f"make an environment for {OURS} alone: these packages write into the same folder"
        return failed(f"the installed package {', '.join(strangers)} has import packages of our names", mend)
    return ok(f"agent and adapters are ours, from {home}")


def _owners(*names: str) -> Iterator[str]:
    found = packages_distributions()
    for name in names:
        yield from found.get(name, ())


def _bytecode(patient: Patient) -> Finding:
    """Whether modules are compiled: otherwise transformers alone takes ten seconds longer, at every start."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return skipped("transformers is not there")
    folder = Path(spec.submodule_search_locations[0])
    if (folder / "__pycache__").is_dir():
        return ok("modules are compiled")
    if os.environ.get("PYTHONDONTWRITEBYTECODE") or not os.access(folder, os.W_OK):
        mend = f"python -m compileall -q {folder.parent}, or unset PYTHONDONTWRITEBYTECODE and start once"
        return warning("modules are compiled anew at every start, which takes long", mend)
    return ok("modules will be compiled at the first start")


def _opencv(patient: Patient) -> Finding:
    installed = [name for name in _OPENCV if _version(name)]
    alone = (
        "pip uninstall -y " + " ".join(installed[1:] or installed) + f" && pip install --force-reinstall {_OPENCV[0]}"
    )
    try:
        told = probe("opencv", seconds=IMPORT_SECONDS - 1)
    except ProbeFailed as error:
        text = str(error)
        if ".so" in text:
            return failed(
                f"cv2 cannot be imported: {text}", "apt-get install libgl1 libglib2.0-0, or the headless OpenCV"
            )
        return failed(f"cv2 cannot be imported: {text}", f"pip install --force-reinstall {(installed or _OPENCV)[0]}")
    if not told["whole"]:
        return failed("cv2 is an empty module: another OpenCV was removed, and took its files with it", alone)
    if len(installed) > 1:
        return warning(f"{' and '.join(installed)} share one folder cv2; which one works is chance", alone)
    return ok(f"OpenCV {told['version']}")


def _torch(patient: Patient) -> Finding:
    told = patient.libraries["torch"] = probe("torch", seconds=IMPORT_SECONDS - 1)
    return ok(f"torch {told['version']}, built for {'CUDA ' + told['cuda'] if told['cuda'] else 'the processor only'}")


def _torchvision(patient: Patient) -> Finding:
    """torchvision is not needed; one of another build breaks every picture of transformers."""
    told = patient.libraries["torch"]
    if "torchvision_error" in told:
        what = f"torchvision does not go with torch {told['version']} ({told['torchvision_error']})"
        return failed(f"{what}: hf: models cannot read pictures", "pip uninstall torchvision; nothing of ours needs it")
    if "torchvision" in told:
        return ok(f"torchvision {told['torchvision']} goes with torch")
    return ok("not installed, and not needed")

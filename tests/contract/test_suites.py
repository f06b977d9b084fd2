"""Nothing is left out: every scheme, format, head, task and composition is in a table of the contract's suites."""

from __future__ import annotations

import contextlib

import pytest

from adapters._networks.files import FORMATS
from adapters._networks.heads import FAMILIES
from adapters.huggingface.tasks import TASKS as HUB_TASKS
from adapters.opencv import _MODELS as OPENCV
from adapters.roboflow.forms import TASKS as ROBOFLOW_TASKS
from agent.compose.steps import STEPS
from agent.models.loading import known_schemes, load_model
from agent.settings.parts import SCHEMES
from tests.contract import (
    test_adapters,
    test_huggingface_detectors,
    test_huggingface_interactors,
    test_huggingface_trackers,
    test_interactors,
    test_reid,
    test_trackers,
)
from tests.support.contract_models import Built, Shop, caffe, end2end, labelled, nanodet, retinaface, scrfd, tensorflow

AGPL = {"ultralytics"}
"""Formats whose package is no part of the suite; unit/adapters/test_local_runtimes.py has what can be said of them."""


@pytest.fixture(scope="module")
def built(assets, tmp_path_factory) -> list[Built]:
    """(reference, options) of all models of the suites, without those whose runtime is missing."""
    found: list[Built] = [(case.reference, {}) for case in test_trackers.MODELS.values()]
    shop = Shop(tmp_path_factory.mktemp("models"), assets)
    with shop.stack:
        for suite in (test_adapters, test_interactors):
            for case in suite.MODELS.values():
                if case.build is None:
                    found.append((case.reference, case.options))
                    continue
                with contextlib.suppress(pytest.skip.Exception):
                    found.append(case.build(shop))
    return found


def test_every_scheme(built):
    assert {reference.partition(":")[0] for reference, _ in built} == {*known_schemes(), *SCHEMES}


def test_every_step_of_a_chain(built):
    steps = {step["gives"] for _, options in built for step in options.get("then", ())}
    assert steps == set(STEPS)


def test_every_name_of_opencv(built):
    names = {reference.partition(":")[2] for reference, _ in built if reference.startswith("opencv:")}
    assert names == set(OPENCV)


def test_every_format():
    """By the names of the cases, since some runtimes may be missing here."""
    names = " ".join([*test_adapters.MODELS, *test_interactors.MODELS, *test_reid.MODELS])
    said = {"onnx": "yolov5", "exported": "torch.export"}
    assert all(said.get(kind, kind) in names for kind in FORMATS.keys() - AGPL)


def test_every_head(assets, tmp_path):
    """Told by the models themselves, as far as they are in ONNX."""
    shop = Shop(tmp_path, assets)
    models = [
        (f"local:{shop.weights(case.weights)}", case.options)
        for case in test_adapters.MODELS.values()
        if case.weights.endswith(".onnx")
    ]
    models += [make(shop) for make in (end2end, labelled, nanodet, scrfd, retinaface, tensorflow, caffe)]
    heads = set()
    for reference, options in models:
        loaded = load_model(reference, device="cpu", options=options)
        heads.add(loaded.facts["head"].split()[0].partition("-")[0])
        loaded.close()
    assert heads == {*FAMILIES, "heatmaps"}


def test_every_task_of_the_hub():
    names = {name.removeprefix("hf ") for name in test_adapters.MODELS if name.startswith("hf ")}
    assert names == {task.name for task in HUB_TASKS} - {"interaction", "tracking"}
    tasks = {case.task.replace(" ", "-") for case in test_huggingface_detectors.MODELS.values()}
    assert tasks == {task.name for task in HUB_TASKS} - {"interaction", "tracking"}
    assert set(test_huggingface_interactors.MODELS) <= {
        name.removeprefix("hf ") for name in test_interactors.MODELS if name.startswith("hf ")
    }
    assert set(test_huggingface_trackers.MODELS) == {"sam2", "edgetam", "sam3"}


def test_every_task_of_roboflow():
    names = {name.removeprefix("roboflow ") for name in test_adapters.MODELS if name.startswith("roboflow ")}
    assert names == {*ROBOFLOW_TASKS, "workflow"}

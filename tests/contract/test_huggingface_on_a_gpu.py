"""Every model of `hf:` on a GPU, as far as a machine without one can tell: all its tensors are on the same device.

What it finds is what it finds on the processor in half precision.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from adapters._torch import import_torch
from agent.contract import Context, Detection, Rectangle
from agent.models.loading import load_model
from tests.contract import test_huggingface_detectors, test_huggingface_interactors, test_huggingface_trackers
from tests.support import hub_models
from tests.support.hub_models import pictures
from tests.support.pretended_gpu import pretended_gpu

torch = import_torch()

BOXES = (Rectangle(3, 4, 50, 60), Rectangle(0, 0, 20, 20, 30.0), Rectangle(1, 1, 30, 70))


def all_cases() -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name -> what makes the folder, its arguments, and options."""
    found = {
        name: (case.make, case.arguments, dict(case.options))
        for name, case in test_huggingface_detectors.MODELS.items()
    }
    for name, (make, arguments) in test_huggingface_interactors.MODELS.items():
        found[f"{name}, clicks"] = (make, arguments, {"task": "interaction"})
    for name, (make, arguments) in test_huggingface_trackers.MODELS.items():
        found[f"{name}, tracking"] = (make, arguments, {"task": "tracking"})
    found["sam3, words and clicks"] = ("sam3", {}, {"task": "interaction", "texts": True})
    return found


CASES = all_cases()


def answers(folder: Any, options: dict[str, Any], **how: Any) -> tuple[str, Any, int]:
    """Where the model runs, all that it says of a few pictures, and what it takes of a GPU's memory."""
    loaded = load_model(f"hf:{folder}", options={"batch_size": 2, **options}, **how)
    model, frames = loaded.model, pictures((72, 108), (100, 64), (72, 108))
    if loaded.kind == "detector":
        said = [model.detect(frames, Context())]
        said += [model.estimate(frames[0], BOXES)] if hasattr(model, "estimate") else []
        said += [model.read(frames[0], BOXES)] if hasattr(model, "read") else []
    elif loaded.kind == "interactor":
        embedding = model.embed(frames[0])
        said = [model.segment(embedding, marked) for marked in test_huggingface_interactors.PROMPTS.values()]
    else:
        states, said = model.begin(frames[0], test_huggingface_trackers.SHAPES), []
        for _ in range(3):
            followed = model.follow(frames[0], states)
            states = [state for state, _ in followed]
            said.append([shape for _, shape in followed])
    loaded.close()
    return loaded.facts["runs on"], said, getattr(model, "memory_bytes", 0)


def told(value: Any) -> Any:
    """What is found, without the places and scores, in which half a precision's last digit can show."""
    if isinstance(value, list | tuple):
        return [told(one) for one in value]
    if isinstance(value, Detection):
        return value.label, told(value.shape)
    return value if isinstance(value, str) else getattr(value, "type", None)


@pytest.mark.parametrize("name", CASES)
def test_it_finds_what_it_finds_on_the_processor(name, tmp_path):
    make, arguments, options = CASES[name]
    getattr(hub_models, make)(tmp_path, **arguments)
    where, expected, none = answers(tmp_path, {"precision": "float16", **options}, device="cpu")
    assert (where, none) == ("cpu, float16", 0)
    with pretended_gpu():
        where, found, memory = answers(tmp_path, options, device="cuda")
    assert where == "cuda, float16"
    assert memory > 10_000
    assert told(found) == told(expected)


def test_what_was_stored_in_bfloat16_runs_in_it(tmp_path):
    """Its values may be beyond float16's range."""
    hub_models.vit(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    with pretended_gpu():
        assert answers(tmp_path, {}, device="cuda")[0] == "cuda, bfloat16"
        assert answers(tmp_path, {"precision": "float16"}, device="cuda")[0] == "cuda, float16"
    assert answers(tmp_path, {}, device="cpu")[0] == "cpu, float32"


def test_the_pretence_bites():
    with pretended_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device.type == "cuda"
        assert (there + 1).sum().item() == 6
        assert there.cpu().numpy().tolist() == [1, 1, 1]
        for mistake in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here[there > 0]):
            with pytest.raises(RuntimeError, match="on the same device"):
                mistake()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)

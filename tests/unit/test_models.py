"""Model references, adapters found by scheme, options held to signatures, and what a loaded model must be."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from agent.contract import Label
from agent.errors import ConfigError, ModelLoadFailed, ModelNotFound
from agent.models import loading as models
from agent.models.loading import LoadedModel, ModelReference, known_schemes, load_model, parse_reference


class Detector:
    def __init__(self, *labels, **more):
        self.labels = [Label(name) for name in labels or ("cat",)]
        for name, value in more.items():
            setattr(self, name, value)

    def detect(self, frames, context):
        return [[] for _ in frames]


@pytest.fixture
def plug(monkeypatch):
    """Plugs callables in as adapters, by scheme, as an installed package would."""

    def install(**adapters):
        module = SimpleNamespace(**adapters)
        monkeypatch.setitem(sys.modules, "third_party", module)
        entries = [EntryPoint(name, f"third_party:{name}", models.GROUP) for name in adapters]
        monkeypatch.setattr(models, "_entry_points", lambda: tuple(entries))

    return install


@pytest.mark.parametrize(
    ("text", "scheme", "name"),
    [
        ("hf:facebook/detr-resnet-50", "hf", "facebook/detr-resnet-50"),
        ("local:weights/a:b.onnx", "local", "weights/a:b.onnx"),
        (" LOCAL:x.onnx ", "local", "x.onnx"),
        ("cvat:package.module", "cvat", "package.module"),
    ],
)
def test_references(text, scheme, name):
    assert parse_reference(text) == ModelReference(scheme, name)
    assert str(parse_reference(text)) == f"{scheme}:{name}"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("weights/x.onnx", "did you mean 'local:weights/x.onnx'"),
        ("x.pt", "did you mean 'local:x.pt'"),
        ("facebook/detr", "did you mean 'hf:facebook/detr'"),
        ("tools/func.py", "did you mean 'cvat:tools/func.py'"),
        ("", "got no scheme, allowed: cvat:NAME"),
    ],
)
def test_what_is_no_reference_gets_a_hint(text, hint):
    with pytest.raises(ModelNotFound, match=hint):
        parse_reference(text)


def test_a_scheme_without_a_name_is_no_model():
    with pytest.raises(ModelNotFound, match=r"'hf:': got no name after the scheme, allowed: cvat:NAME"):
        load_model("hf:")


def test_unknown_schemes():
    with pytest.raises(ModelNotFound, match=r"unknown scheme 'locl', allowed: cvat:NAME, .*mean 'local:x'"):
        load_model("locl:x")
    with pytest.raises(ModelNotFound, match="unknown scheme 'zz'"):
        load_model("zz:x")
    assert {"local", "hf", "cvat", "opencv"} <= set(known_schemes())


def test_a_plugged_in_adapter_is_described(plug):
    facts = {"version": "v7", "size": 640}
    model = Detector("cat", "dog", facts=facts, default_threshold=0.3, batch_size=8)
    plug(mine=lambda name, *, device: model)
    loaded = load_model("mine:x")
    assert loaded == LoadedModel(
        reference=ModelReference("mine", "x"),
        model=model,
        kind="detector",
        labels=(Label("cat"), Label("dog")),
        version="v7",
        facts={"version": "v7", "size": "640"},
        default_threshold=0.3,
        batch_size=8,
    )
    bare = load_model("opencv:face") if "opencv" in known_schemes() else None
    assert bare is None or bare.kind == "detector"


def test_a_module_with_load_and_a_class_will_do(plug):
    class Loaded(Detector):
        def __init__(self, name: str, *, device: str, size: int = 3) -> None:
            super().__init__(f"{name}-{device}-{size}")

    plug(cls=Loaded, module=SimpleNamespace(load=Loaded), nothing=SimpleNamespace())
    assert load_model("cls:a", device="cpu", options={"size": 5}).labels[0].name == "a-cpu-5"
    assert load_model("module:a").labels[0].name == "a-auto-3"
    assert load_model("module:a", options={"device": "cuda"}).labels[0].name == "a-cuda-3"
    with pytest.raises(ModelLoadFailed, match=r"third_party:nothing has no load\(name"):
        load_model("nothing:a")


def test_the_four_kinds_and_none(plug):
    interactor = SimpleNamespace(embed=len, segment=len)
    tracker = SimpleNamespace(shape_types=["rectangle"], begin=len, follow=len)
    reid = SimpleNamespace(describe=lambda frame, rectangles: np.zeros((0, 4)))
    for kind, model in (("interactor", interactor), ("tracker", tracker), ("reid", reid)):
        plug(mine=lambda name, *, device, model=model: model)
        assert load_model("mine:x").kind == kind
    plug(mine=lambda name, *, device: 42)
    with pytest.raises(ModelLoadFailed, match="gave a int, which is none of detector, interactor"):
        load_model("mine:x")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Detector("a", "a"), "'a' more than once"),
        (lambda: Detector(default_threshold=3), "default_threshold: got 3, allowed: 0 to 1"),
        (lambda: Detector(batch_size=0), "batch_size: got 0"),
        (lambda: SimpleNamespace(labels=[], detect=len), "labels: got none"),
        (lambda: SimpleNamespace(labels=["cat"], detect=len), "labels: got 'cat'"),
    ],
)
def test_a_model_that_breaks_its_contract_is_refused(plug, model, message):
    plug(mine=lambda name, *, device: model())
    with pytest.raises(ModelLoadFailed, match=message):
        load_model("mine:x")


def test_foreign_errors_keep_their_cause(plug):
    def load(name, *, device):
        raise RuntimeError("no\nmemory")

    plug(mine=load)
    with pytest.raises(ModelLoadFailed, match="mine:x: RuntimeError: no memory") as caught:
        load_model("mine:x")
    assert isinstance(caught.value.__cause__, RuntimeError)
    monkey = EntryPoint("gone", "no_such_package.adapter", models.GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "_entry_points", lambda: (monkey,))
        with pytest.raises(ModelLoadFailed, match=r"no_such_package\.adapter cannot be imported"):
            load_model("gone:x")
        twice = (monkey, EntryPoint("gone", "other.adapter", models.GROUP))
        patch.setattr(models, "_entry_points", lambda: twice)
        with pytest.raises(ModelLoadFailed, match="several packages offer the scheme 'gone'"):
            load_model("gone:x")


def options_of(
    name: str,
    *,
    device: str,
    text: str | None = None,
    number: float = 0.5,
    count: int = 1,
    flag: bool = False,
    names: list[str] | str | None = None,
    sides: Sequence[int | float] = (),
    table: Mapping[str, Any] | None = None,
    mode: Literal["a", "b"] = "a",
    free: Any = None,
) -> Detector:
    return Detector("cat", facts={"version": repr((text, number, count, flag, names, mode, free))})


def test_options_of_the_right_types(plug):
    plug(mine=options_of)
    given = {"number": 1, "names": ["a"], "flag": True, "sides": [1, 2.5], "table": {"k": 1}, "mode": "b", "free": {}}
    assert load_model("mine:x", options=given).version == repr((None, 1.0, 1, True, ["a"], "b", {}))


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("text", 3, "text"),
        ("number", "0.5", "a number"),
        ("count", 1.5, "a whole number"),
        ("count", True, "a whole number"),
        ("flag", 1, "true or false"),
        ("names", [1], "a list of texts or text"),
        ("sides", "12", "a list of whole numbers or numbers"),
        ("table", [], "a table"),
        ("mode", "c", r"'a' \| 'b'"),
    ],
)
def test_options_of_wrong_types(plug, option, value, allowed):
    plug(mine=options_of)
    with pytest.raises(ConfigError, match=f"mine:x: option '{option}': got .*, allowed: {allowed}"):
        load_model("mine:x", options={option: value})


def test_options_that_are_unknown_or_missing(plug):
    plug(
        mine=options_of, needy=lambda name, *, device, token: Detector(), free=lambda name, *, device, **o: Detector(*o)
    )
    with pytest.raises(ConfigError, match=r"unknown option 'cuont', allowed: text, number, .*mean 'count'"):
        load_model("mine:x", options={"cuont": 1})
    for taken_for_one in ("threshold", "thresold"):
        with pytest.raises(ConfigError, match="did you mean --threshold, or `threshold` in the model's table"):
            load_model("mine:x", options={taken_for_one: 0.5})
    with pytest.raises(ConfigError, match="option 'token' is missing"):
        load_model("needy:x")
    assert load_model("free:x", options={"anything": 1}).labels[0].name == "anything"


def test_closing_reaches_the_model(plug):
    closed = []
    plug(
        mine=lambda name, *, device: Detector(close=lambda: closed.append(1)), plain=lambda name, *, device: Detector()
    )
    load_model("mine:x").close()
    load_model("plain:x").close()
    assert closed == [1]


def test_importing_models_imports_no_model_library():
    heavy = ("torch", "transformers", "onnxruntime", "cv2", "cvat_sdk", "numpy", "adapters")
    code = f"import sys, agent.models.loading; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_table_of_built_ins_is_what_the_package_declares():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(models.__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][models.GROUP] == models._BUILT_IN

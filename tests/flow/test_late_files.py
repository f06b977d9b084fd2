"""Files of models that come after the start: they are looked for beside service.toml, wherever we were started."""

import pytest

from agent.errors import ModelNotFound
from agent.pool.pool import RETRY_SECONDS, ModelPool
from agent.settings.service import load_config
from tests.support.doctor import examined
from tests.support.service import written

pytestmark = pytest.mark.usefixtures("passwords")

FUNCTION = """
import cvat_sdk.auto_annotation as cvataa
spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("{label}", 0, type="rectangle")])
def detect(context, image):
    return []
"""


@pytest.fixture
def late(tmp_path, monkeypatch):
    """The folder of a service.toml whose files are not there yet, while other ones lie where we are started."""
    here, elsewhere = tmp_path / "late", tmp_path / "elsewhere"
    for folder in (here, elsewhere / "w"):
        folder.mkdir(parents=True)
    (elsewhere / "w" / "late.py").write_text(FUNCTION.format(label="another"))
    for name in ("late.onnx", "names.txt"):
        (elsewhere / "w" / name).write_text("another")
    (elsewhere / "w" / "deim").mkdir()
    monkeypatch.chdir(elsewhere)
    return here


def of_models(folder, **references):
    """The service.toml with these models, and no others."""
    file = written(folder)
    head = file.read_text().partition("[[models]]")[0]
    rows = [f'[[models]]\nid = "{name}"\nmodel = {line}\n' for name, line in references.items()]
    file.write_text(head + "\n".join(rows))
    return file


def errors(pool):
    found = []
    for name in pool.ids():
        with pytest.raises(ModelNotFound) as caught, pool.use(name):
            pass
        found.append(str(caught.value))
    return found


def test_weights_that_come_later_are_found_by_the_next_try(late):
    file = of_models(late, program='"cvat:w/late.py"', weights='"local:w/late.onnx"', of_hub='"hf:./w/deim"')
    config, now = load_config(file), [0.0]
    pool = ModelPool(config.models, config.engine, late / "state", clock=lambda: now[0])
    try:
        place = late / "w"
        program, weights, of_hub = errors(pool)
        assert f"{place}/late.py: there is no such file" in program
        assert f"{place}/late.onnx: there is no such file (nor the folder {place})" in weights
        assert f"there is no folder {place}/deim" in of_hub
        place.mkdir()
        (place / "late.py").write_text(FUNCTION.format(label="ours"))
        now[0] += RETRY_SECONDS + 1
        assert not pool.preload(), "two of them are missing still"
        with pool.use("program") as hosted:
            assert [label.name for label in hosted.loaded.labels] == ["ours"]
    finally:
        pool.close(2)


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ('"local:w/late.onnx"', "w/late.onnx"),
        ('"hf:./w/deim"', "w/deim"),
        ('"cvat:w/late.py"', "w/late.py"),
        ('"opencv:nanotrack"\noptions = { backbone = "w/late.onnx", head = "w/late.onnx" }', "w/late.onnx"),
        ('"local:there.onnx"\noptions = { labels_file = "w/names.txt" }', "w/names.txt"),
        ('"local:there.onnx"\noptions = { decoder = "w/late.onnx" }', "w/late.onnx"),
        ('"tiles:"\noptions = { of = "local:w/late.onnx" }', "w/late.onnx"),
    ],
)
def test_the_doctor_looks_beside_the_file_and_names_the_place(late, line, missing):
    (late / "there.onnx").write_bytes(b"there")
    found = examined(of_models(late, model=line))
    assert found.state("models.files model") == "failed"
    assert f"there is no {late}/{missing}" in found["models.files model"]

"""What the doctor finds on this machine: packages, files, memory, the device, weights."""

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.doctor.limits import _groups, memory_limit, processor_limit, usable_memory
from agent.doctor.trial import try_model
from agent.errors import BadPrediction
from agent.models.loading import LoadedModel, ModelReference
from tests.support.doctor import examined, written
from tests.support.gateway import Describer
from tests.support.hub import Hub, Repository
from tests.support.models import Clicker, Finder, Follower

ROOT = Path(__file__).resolve().parents[2]
AWAY = "http://127.0.0.1:9"
"""Nobody is there; what is looked at here comes before."""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    monkeypatch.setenv("BOT_PASSWORD", "secret")
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "XDG_CACHE_HOME", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def failed(found):
    """What failed here; that the server is away is known."""
    assert found.state("server.connection") == "failed"
    return found.failed - {"server.connection"}


# ------------------------------------------------------------------- what is installed


SCRIPT = """
import json, sys
from pathlib import Path
from agent.settings.server import ServerSettings
from agent.doctor import installation
from agent.doctor.examination import examine
from agent.doctor.patient import Patient
from agent.settings.tables import Config

patient = Patient(Config(Path("service.toml"), ServerSettings()))
wanted = [check for check in installation.checks() if "torch" not in check.name or "torch" in sys.argv]
print(json.dumps([[line.check, line.finding.state, str(line)] for line in examine(wanted, patient)]))
"""


def unwell(*packages, torch=False, **more):
    """Failures and warnings where these packages come first; `torch`: look at torch too, which takes a while."""
    path = os.pathsep.join([*map(str, packages), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(["torch"] if torch else [])], capture_output=True, text=True, timeout=110,
        check=False, cwd="/", env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "", **more},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {check: text for check, state, text in json.loads(done.stdout) if state in ("failed", "warning")}


def package(folder, name, version, code=None, module=None):
    """An installed package as Python finds it: its metadata, and a module."""
    module = module or name.replace("-", "_")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(f"{module}\n")
    if code is not None:
        (folder / module).mkdir()
        (folder / module / "__init__.py").write_text(code)
    return folder


def test_this_installation_is_right():
    assert unwell(torch=True) == {}


def test_somebody_elses_adapters(tmp_path):
    other = package(tmp_path / "site", "adapters", "1.2.0", "__version__ = '1.2.0'")
    found = unwell(other)
    assert set(found) == {"installation.adapters"}
    assert f"'adapters' is imported from {other}/adapters, ours is {ROOT}/adapters" in found["installation.adapters"]


def test_somebody_who_writes_into_our_folder(tmp_path):
    found = unwell(package(tmp_path / "site", "adapters", "1.2.0"))
    assert set(found) == {"installation.adapters"}
    assert "the installed package adapters has import packages of our names" in found["installation.adapters"]


def test_a_torchvision_of_another_build(tmp_path):
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    found = unwell(package(tmp_path / "site", "torchvision", "0.28.0", code), torch=True)
    assert set(found) == {"installation.torchvision"}
    assert "torchvision::nms does not exist" in found["installation.torchvision"]
    assert "pip uninstall torchvision" in found["installation.torchvision"]


def test_two_opencvs_in_one_folder(tmp_path):
    found = unwell(package(tmp_path / "site", "opencv-python-headless", "5.0.0.93", module="cv2"))
    assert set(found) == {"installation.opencv"}
    assert "opencv-python and opencv-python-headless share one folder cv2" in found["installation.opencv"]


def test_an_opencv_that_was_emptied(tmp_path):
    found = unwell(package(tmp_path / "site", "opencv-python-headless", "5.0.0.93", "", module="cv2"))
    assert set(found) == {"installation.opencv"}
    assert "empty module" in found["installation.opencv"]


def test_an_opencv_without_its_libraries(tmp_path):
    code = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    found = unwell(package(tmp_path / "site", "opencv-python", "4.12.0.88", code, module="cv2"))
    assert set(found) == {"installation.opencv"}
    assert "apt-get install libgl1 libglib2.0-0" in found["installation.opencv"]


def test_modules_that_are_compiled_anew_each_time(tmp_path):
    site = tmp_path / "site"
    (site / "transformers").mkdir(parents=True)
    (site / "transformers" / "__init__.py").write_text("")
    assert unwell(site) == {}
    found = unwell(site, PYTHONDONTWRITEBYTECODE="1")
    assert set(found) == {"installation.bytecode"}
    assert f"compileall -q {site}" in found["installation.bytecode"]


def test_packages_that_are_too_old(tmp_path):
    site = package(tmp_path / "site", "transformers", "4.40.0")
    found = unwell(package(site, "av", "9.0"))
    assert set(found) == {"installation.packages"}
    assert "transformers 4.40.0, allowed: " in found["installation.packages"]
    assert "av 9.0, allowed: >=14.2" in found["installation.packages"]


# ---------------------------------------------------------------- secrets and their files


def test_variables_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_WORD", raising=False)
    gateway = '[gateway]\nport = 0\nsecret_env = "NO_SUCH_WORD"'
    found = examined(written(tmp_path, AWAY, more=gateway, model='options = { token_env = "NO_HUB_TOKEN" }'))
    assert "configuration.secrets" in failed(found)
    assert "NO_SUCH_WORD (gateway.secret_env)" in found["configuration.secrets"]
    assert "NO_HUB_TOKEN (models face: token_env)" in found["configuration.secrets"]
    assert "EnvironmentFile" in found["configuration.secrets"]
    monkeypatch.setenv("NO_SUCH_WORD_FILE", "/run/secrets/word")
    found = examined(written(tmp_path, AWAY, more=gateway))
    assert "by way of entrypoint.sh" in found["configuration.secrets"]


@pytest.mark.parametrize(("mode", "state"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warning"), (0o666, "warning")])
def test_files_with_secrets(tmp_path, mode, state):
    (tmp_path / "token").write_text("very-secret-token\n")
    (tmp_path / "token").chmod(mode)
    found = examined(written(tmp_path, AWAY, cvat='token_file = "token"'))
    assert (failed(found), found.state("configuration.permissions")) == (set(), state)
    assert (f"chmod 600 {tmp_path}/token" in found["configuration.permissions"]) == (state == "warning")
    assert not any("very-secret" in str(line) for line in found.lines.values())


def test_credentials_of_systemd_may_be_readable_to_those_who_see_them(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("very-secret-token\n")
    (tmp_path / "token").chmod(0o444)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found = examined(written(tmp_path, AWAY, cvat='token_file = "token"'))
    assert found.state("configuration.permissions") == "ok"


def test_a_configuration_that_everybody_can_change(tmp_path):
    file = written(tmp_path, AWAY)
    file.chmod(file.stat().st_mode | stat.S_IWOTH)
    found = examined(file)
    assert "names the code that runs" in found["configuration.permissions"]


def test_an_open_gateway(tmp_path):
    more = '[gateway]\nport = 0\nhost = "0.0.0.0"'
    assert "configuration.exposure" in examined(written(tmp_path, AWAY, more=more)).warnings
    found = examined(written(tmp_path, AWAY, more=f'{more}\nallow = ["172.16.0.0/12"]'))
    assert found.state("configuration.exposure") == "ok"


# ------------------------------------------------------------------------------- models


def of(tmp_path, reference, *, model="", **more):
    """What is found where the only model is this one."""
    file = written(tmp_path, AWAY, model=model)
    file.write_text(file.read_text().replace("opencv:face", str(reference)))
    return examined(file, adapters=True, **more)


def test_a_file_that_is_missing(tmp_path):
    found = of(tmp_path, f"local:{tmp_path}/nope.onnx")
    assert failed(found) == {"models.files face"}
    assert f"there is no {tmp_path}/nope.onnx" in found["models.files face"]
    assert found.state("models.loads face") == "skipped"


def test_a_file_beside_service_toml(tmp_path):
    (tmp_path / "yolo.onnx").write_bytes(b"x")
    assert "models.files face" not in failed(of(tmp_path, "local:yolo.onnx"))


def test_a_second_file_that_is_missing(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"x")
    options = f'options = {{ decoder = "{tmp_path}/decoder.onnx" }}'
    found = of(tmp_path, f"local:{tmp_path}/encoder.onnx", model=options)
    assert failed(found) == {"models.files face"}
    assert "decoder: there is no" in found["models.files face"]


def test_a_tracker_whose_files_are_missing(tmp_path):
    (tmp_path / "backbone.onnx").write_bytes(b"x")
    options = f'options = {{ backbone = "{tmp_path}/backbone.onnx", head = "{tmp_path}/head.onnx" }}'
    found = of(tmp_path, "opencv:nano", model=options)
    assert failed(found) == {"models.files face"}
    assert "head: there is no" in found["models.files face"]
    (tmp_path / "head.onnx").write_bytes(b"x")
    assert (
        f"{tmp_path}/head.onnx: there, and can be read"
        in of(tmp_path, "opencv:nano", model=options)["models.files face"]
    )


@pytest.mark.parametrize(
    ("reference", "model", "said"),
    [
        ("opencv:face", "options = { treshold = 1 }", "unknown option 'treshold'"),
        ("onnx:yolo", "", "unknown scheme 'onnx'"),
        ("facebook/detr-resnet-50", "", "did you mean 'hf:facebook/detr-resnet-50'?"),
    ],
)
def test_references_and_options_that_make_no_sense(tmp_path, reference, model, said):
    found = of(tmp_path, reference, model=model)
    assert failed(found) == {"models.options face"}
    assert said in found["models.options face"]


PARTS = """
[[models]]
id = "whole"
model = "chain:"
[models.options]
of = {of}
[[models.options.then]]
model = "{step}"
options = {{ {options} }}
gives = "attribute"
attribute = "age"
"""


@pytest.mark.parametrize(
    ("check", "part", "said"),
    [
        ("options", {"of": '"fase"'}, "its part fase: model 'fase': got no scheme, allowed: "),
        ("options", {"of": '"fase"'}, "; did you mean 'face'?"),
        ("options", {"options": "treshold = 1"}, "its part opencv:face: opencv:face: unknown option 'treshold'"),
        ("options", {"step": "onnx:age"}, "its part onnx:age: model 'onnx:age': unknown scheme 'onnx'"),
        ("files", {"step": "local:age.onnx"}, "its part local:{folder}/age.onnx: there is no "),
        (
            "files",
            {"of": '{ model = "tiles:", options = { of = "local:a.onnx", size = 9 } }'},
            "its part tiles:: its part local:{folder}/a.onnx: there is no ",
        ),
    ],
)
def test_parts_of_models_are_looked_at(tmp_path, check, part, said):
    more = PARTS.format(**{"of": '"face"', "step": "opencv:face", "options": "", **part})
    found = examined(written(tmp_path, AWAY, more=more), adapters=True)
    assert failed(found) == {f"models.{check} whole"}
    assert said.format(folder=tmp_path) in found[f"models.{check} whole"]


def test_parts_that_are_well(tmp_path):
    more = PARTS.format(of='"face"', step="opencv:face", options="eyes = false")
    found = examined(written(tmp_path, AWAY, more=more), adapters=True)
    assert failed(found) == set()
    assert found.state("models.files whole") == "ok"


@pytest.mark.parametrize(("name", "said"), [("nope.toml", "cannot be read"), ("coco-80", "is a vocabulary only")])
def test_label_maps(tmp_path, name, said):
    found = of(tmp_path, "opencv:face", model=f'label_map = "{name}"')
    assert failed(found) == {"models.label_map face"}
    assert said in found["models.label_map face"]
    assert of(tmp_path, "opencv:face", model='label_map = "coco-to-voc"').state("models.label_map face") == "ok"


def test_weights_that_are_no_weights(tmp_path):
    (tmp_path / "yolo.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    found = of(tmp_path, f"local:{tmp_path}/yolo.onnx", load=True)
    assert failed(found) == {"models.loads face"}
    assert "Git LFS pointer" in found["models.loads face"]


def test_a_model_that_takes_more_than_it_may(tmp_path):
    file = written(tmp_path, AWAY, more="[engine]\nmemory_mb = 0.001")
    found = examined(file, load=True)
    assert {"models.loads face", "models.memory"} <= found.warnings
    assert "raise engine.memory_mb = 0.001" in found["models.loads face"]
    assert "they will take turns" in found["models.memory"]
    assert examined(written(tmp_path, AWAY), load=True).state("models.memory") == "ok"


def test_what_models_share_is_counted_once(tmp_path):
    more = '[[models]]\nid = "far"\nmodel = "tiles:"\noptions = { of = "face", size = 320 }'
    found = examined(written(tmp_path, AWAY, more=more), load=True)
    one, other, together = (
        int(re.search(r"(\d+) MiB", found[check])[1])
        for check in ("models.loads face", "models.loads far", "models.memory")
    )
    assert one > 0
    assert together <= max(one, other) + 1 < one + other


def test_weights_of_the_hub(tmp_path, monkeypatch):
    cache, folder = tmp_path / "cache", tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("HF_HOME", str(cache))
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.repositories["owner/model"] = Repository(folder)
        hub.repositories["owner/gated"] = Repository(folder, token="hf_word")
        found = of(tmp_path, "hf:owner/model")
        assert failed(found) == set()
        assert f"is at {hub.url}, and will be fetched" in found["models.files face"]
        found = of(tmp_path, "hf:owner/gated")
        assert failed(found) == {"models.files face"}
        assert "put a token into HF_TOKEN" in found["models.files face"]
        monkeypatch.setenv("HF_TOKEN", "hf_word")
        assert failed(of(tmp_path, "hf:owner/gated")) == set()
        assert failed(of(tmp_path, "hf:owner/nope")) == {"models.files face"}
    found = of(tmp_path, "hf:owner/model")
    assert failed(found) == {"models.files face"}
    assert "cannot be reached" in found["models.files face"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "nothing may be fetched" in of(tmp_path, "hf:owner/model")["models.files face"]
    snapshot = cache / "hub" / "models--owner--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    found = of(tmp_path, "hf:owner/model")
    assert (failed(found), "is in the cache" in found["models.files face"]) == (set(), True)
    assert found.state("machine.weights") in ("ok", "warning")


@pytest.mark.parametrize(
    ("kind", "model", "came"),
    [
        ("detector", Finder(), "1 detection"),
        ("interactor", Clicker(), "1 shape for a click"),
        ("tracker", Follower(), "lost a rectangle at once"),
        ("reid", Describer(), "3 numbers for a rectangle"),
    ],
)
def test_a_model_of_each_kind_is_tried(kind, model, came):
    loaded = LoadedModel(ModelReference("test", kind), model, kind, labels=tuple(getattr(model, "labels", ())))
    assert try_model(loaded) == came


def test_a_model_outside_of_its_contract_is_told():
    class Liar(Finder):
        def detect(self, frames, context):
            return [["a cat"] for _ in frames]

    model = Liar()
    with pytest.raises(BadPrediction, match="got str, allowed: Detection"):
        try_model(LoadedModel(ModelReference("test", "liar"), model, "detector", labels=tuple(model.labels)))


# ------------------------------------------------------------------------ the machine


def test_a_state_that_cannot_be_kept(tmp_path):
    (tmp_path / "state").write_text("a file")
    found = examined(written(tmp_path, AWAY))
    assert failed(found) == {"machine.state"}
    assert f"{tmp_path}/state is a file" in found["machine.state"]
    assert found.state("machine.ledger") == "skipped"


def test_a_damaged_ledger(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ledger.sqlite3").write_bytes(b"not a database at all, but long enough to be one" * 100)
    found = examined(written(tmp_path, AWAY))
    assert failed(found) == {"machine.ledger"}
    assert "not a database" in found["machine.ledger"]


def test_a_ledger_is_only_read(tmp_path):
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "ledger.sqlite3"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE runs (id TEXT)")
    db.close()
    before = file.read_bytes()
    assert "remembers 0 runs" in examined(written(tmp_path, AWAY))["machine.ledger"]
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == {"ledger.sqlite3"}


@pytest.mark.parametrize(("share", "state"), [(10.0, "failed"), (0.9, "warning"), (0.2, "ok")])
def test_the_memory_budget(tmp_path, share, state):
    limit = usable_memory() / 2**20
    if limit < 2048:
        pytest.skip("a small machine is worth a warning anyway")
    found = examined(written(tmp_path, AWAY, more=f"[engine]\nmemory_mb = {share * limit:.0f}"))
    assert found.state("machine.memory") == state


def tree(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2, V1 = "0::/kube/pod\n", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"memory_dot_max": "1073741824\n"}, 2**30),
        (V2, {"memory_dot_max": "max\n"}, None),
        (V2, {"memory_dot_max": "4294967296", "kube__pod__memory_dot_max": "1048576"}, 2**20),
        (V2, {"kube__memory_dot_max": "1048576", "kube__pod__memory_dot_max": "max"}, 2**20),
        (V1, {"memory__memory.limit_in_bytes": "1073741824"}, 2**30),
        (V1, {"memory__memory.limit_in_bytes": "9223372036854771712"}, None),
        (V1, {"memory__docker__abc__memory.limit_in_bytes": "1048576"}, 2**20),
        ("", {}, None),
    ],
)
def test_memory_limits_of_control_groups(tmp_path, monkeypatch, own, files, expected):
    monkeypatch.setattr("agent.doctor.limits._groups", lambda root, name: _groups(root, name, own))
    assert memory_limit(tree(tmp_path, **files)) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"cpu_dot_max": "150000 100000"}, 1.5),
        (V2, {"cpu_dot_max": "max 100000"}, None),
        (V1, {"cpu__cpu.cfs_quota_us": "50000", "cpu__cpu.cfs_period_us": "100000"}, 0.5),
        (V1, {"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_processor_limits_of_control_groups(tmp_path, monkeypatch, own, files, expected):
    monkeypatch.setattr("agent.doctor.limits._groups", lambda root, name: _groups(root, name, own))
    assert processor_limit(tree(tmp_path, **files)) == expected


def test_a_device_that_is_not_there(tmp_path):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    found = examined(written(tmp_path, AWAY, more='[engine]\ndevice = "cuda"'), slow=True)
    assert failed(found) == {"accelerator.torch"}
    assert "engine.device = 'cuda'" in found["accelerator.torch"]


def test_onnx_runtime_without_cuda(tmp_path):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    (tmp_path / "yolo.onnx").write_bytes(b"x")
    found = of(tmp_path, f"local:{tmp_path}/yolo.onnx", model='device = "cuda"')
    assert failed(found) == {"accelerator.onnxruntime"}
    assert "onnxruntime-gpu" in found["accelerator.onnxruntime"]

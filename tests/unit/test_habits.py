"""The house rules that a machine can check: lint, types, imports, and that documents tell the truth."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted([*(ROOT / "agent").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")])


def run(*command):
    return subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_lint(command):
    done = run(sys.executable, "-m", "ruff", *command, "--no-cache", ".")
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(300)
def test_types():
    done = run(sys.executable, "-m", "mypy")
    assert done.returncode == 0, done.stdout


def test_import_contracts():
    done = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()")
    assert done.returncode == 0, done.stdout


def imports_of(path):
    """Top-level packages that a module imports, anywhere in it."""
    text = path.read_text(encoding="utf-8")
    return set(re.findall(r"^\s*(?:from|import) ([a-zA-Z_0-9]+)", text, re.MULTILINE))


def test_the_sdk_is_imported_in_two_places_only():
    allowed = {"agent/cvat", "adapters/cvat_function.py", "adapters/as_function.py", "adapters/_cvat"}
    strays = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if "cvat_sdk" in imports_of(path)
        and not any(str(path.relative_to(ROOT)).startswith(place) for place in allowed)
    ]
    assert strays == []


def test_adapters_know_the_contract_only():
    strays = []
    for path in (ROOT / "adapters").rglob("*.py"):
        found = set(re.findall(r"^\s*from (agent[.\w]*)|^\s*import (agent[.\w]*)", path.read_text(), re.MULTILINE))
        names = {one or other for one, other in found} - {"agent.contract"}
        if path.name == "as_function.py":  # a way in from cvat-cli, which loads models and answers as the doors do
            names -= {"agent.models.loading", "agent.compose.named", "agent.settings.service"}
            names -= {"agent.shapes.editor_masks", "agent.flat_shapes", "agent.cvat.decode"}
        strays += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert strays == []


def test_no_module_has_a_name_that_says_nothing():
    empty = {"utils", "util", "helpers", "common", "base", "manager", "core", "misc"}
    assert [path for path in MODULES if path.stem in empty] == []


def test_ci_runs_the_test_command_of_the_readme():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    (command,) = re.findall(r"^python3 -m venv .*pytest .*$", readme, re.MULTILINE)
    assert command in script.splitlines()


def test_documents_point_to_files_that_exist():
    broken = []
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            if not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert broken == []


def test_the_example_configuration_is_valid():
    from agent.process.service import check
    from agent.settings.server import _SERVER_KEYS
    from agent.settings.service import load_config

    check(load_config(ROOT / "service.toml"))  # it can be served as it stands
    text = (ROOT / "service.toml").read_text()
    assert {key for key in _SERVER_KEYS if key in text} == set(_SERVER_KEYS), "every key there is stands in the example"


def test_the_example_configuration_has_every_key(tmp_path, monkeypatch):
    """With all comments taken away, each table has the keys that the code reads, and their values are allowed."""
    from dataclasses import fields

    from agent.settings import service as code

    text = re.sub(r"^# (\w+ = |\[)", r"\1", (ROOT / "service.toml").read_text(), flags=re.MULTILINE)
    kinds = {
        "engine": code.EngineSettings, "service": code.ServiceSettings, "gateway": code.GatewaySettings,
        "queue": code.QueueSettings, "watch": code.WatchSettings, "models": code.ModelSettings,
        "rules": code.RuleSettings,
    }  # fmt: skip
    tables = tomllib.loads(text)
    assert tables.keys() == {"cvat", *kinds}
    for name, kind in kinds.items():
        (table,) = tables[name] if isinstance(tables[name], list) else [tables[name]]
        assert list(table) == [field.name for field in fields(kind)], f"the keys of {name}, in the code's order"
    one_login = re.sub(r"^(user|profile|port|ca_file) = .*$", "", text.split("[engine]")[0], flags=re.MULTILINE)
    (tmp_path / "service.toml").write_text(one_login + "[engine]" + text.split("[engine]")[1])
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "x")
    code.load_config(tmp_path / "service.toml")

"""What the README promises to a model author: its adapter, installed as a package, works as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from agent.settings.service import load_config

ROOT = Path(__file__).resolve().parents[2]


def test_the_adapter_of_the_readme_works_as_a_plugin(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?class BrightSpots.*?)```", text, re.DOTALL)
    assert len(code.strip().splitlines()) <= 25
    package = tmp_path / "site"
    info = package / "my_package-1.dist-info"
    info.mkdir(parents=True)
    (package / "bright.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cvat_sidecar.adapters]\nbright = bright\n")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "agent.cli", "demo", "--model", "bright:200", "-p", "margin=3"]
    done = subprocess.run(
        [*command, "--report", str(report), "--preview", str(tmp_path / "pictures")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["annotations"] == {"spot": 4}


def test_each_service_toml_of_the_readme_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "a-token-of-nobody")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[cvat]" in block]
    assert len(tables) == 2
    for number, table in enumerate(tables):
        file = tmp_path / f"{number}.toml"
        file.write_text(table, encoding="utf-8")
        config = load_config(file)
        assert (config.server.token, config.models[0].id) == ("a-token-of-nobody", "yolo")

"""The contract kit, recorded at a real CVAT server, over the sandbox."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.sandbox import Sandbox
from tests.support.dashboard import Dashboard

CHECK = Path(__file__).resolve().parents[3] / "shared" / "contract" / "check.py"
pytestmark = pytest.mark.skipif(not CHECK.exists(), reason="needs the contract kit in shared/ beside the project")


@pytest.mark.timeout(180)
def test_every_scenario_of_the_contract_kit_passes():
    # 24 frames have to take half a second: the kit looks at a request while it runs.
    users = {"bot": "secret-1", "alice": "secret-2"}
    with Dashboard(seconds=0.015) as dashboard, Sandbox(users, nuclio=dashboard.url) as sandbox:
        who = ["--user", "bot", "--password", "secret-1", "--user2", "alice", "--password2", "secret-2"]
        command = [sys.executable, str(CHECK), "--url", sandbox.url, *who]
        done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.stdout.splitlines()[-1:] == ["37 passed, 0 failed, 0 skipped"], done.stdout + done.stderr

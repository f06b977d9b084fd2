"""No module needs, by whatever way, the module that needs it: not in a function, and not for types alone either."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.fixture(scope="module")
def needs():
    """By module, the modules of ours that it imports anywhere in its text."""
    paths = {name_of(path): path for root in ("agent", "adapters") for path in (ROOT / root).rglob("*.py")}
    found = {}
    for name, path in paths.items():
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # What is taken from a package may be a module of it.
                parts = [f"{node.module}.{alias.name}" for alias in node.names]
                imported |= {part if part in paths else node.module for part in parts}
        found[name] = (imported & paths.keys()) - {name}
    return found


def test_there_is_none(needs):
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))
    assert len(needs) > 300
    assert "agent.contract" in needs["adapters._networks.boxes"]

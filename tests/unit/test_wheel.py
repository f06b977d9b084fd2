"""What an installed wheel has: the three packages, the label maps, the command and the adapters' entry points."""

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's files in a folder, as an installation lays them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=100)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_label_maps_are_found_by_name(unpacked, tmp_path):
    code = (
        "from agent.labels.maps import load_label_map, known_label_maps as known;"
        "import label_maps; print(label_maps.__file__, len(load_label_map('coco-80').names), len(known()))"
    )
    # -I would ignore PYTHONPATH; an empty folder to stand in keeps the checkout out of sys.path.
    environment = {"PYTHONPATH": str(unpacked), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    place, names, known = done.stdout.split()
    assert Path(place).is_relative_to(unpacked)
    assert (int(names), int(known)) == (80, len(list((ROOT / "label_maps").glob("*.toml"))))


def test_it_brings_the_command_and_the_adapters(unpacked):
    (info,) = unpacked.glob("*.dist-info")
    parser = ConfigParser()
    parser.read(info / "entry_points.txt")
    assert parser["console_scripts"]["cvat-sidecar"] == "agent.cli:main"
    assert set(parser["cvat_sidecar.adapters"]) == {"local", "hf", "cvat", "opencv", "roboflow"}


def test_it_brings_nothing_else(unpacked):
    assert {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"} == {
        "agent", "adapters", "label_maps",
    }  # fmt: skip


def test_it_brings_the_files_of_the_status_page(unpacked):
    ours = {path.name for path in (ROOT / "agent" / "web" / "static").iterdir()}
    assert {path.name for path in (unpacked / "agent" / "web" / "static").iterdir()} == ours >= {"status.js"}

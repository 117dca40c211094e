"""The wheel holds the package alone, with its data, and works from anywhere."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], cwd=folder)
    (built,) = folder.glob("pyg_clusters-*.whl")
    return built


def run(command: list[str], **kwargs) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_holds_one_package_and_the_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"pyg_clusters", f"pyg_clusters-{version}.dist-info"}

    data = {Path(name).name for name in names if name.startswith("pyg_clusters/_data/gallium_clusters/")}
    assert data == {path.name for path in (ROOT / "datasets/gallium_clusters").iterdir() if path.is_file()}
    recipes = {Path(name).name for name in names if name.startswith("pyg_clusters/_recipes/")}
    assert recipes == {path.name for path in (ROOT / "train").iterdir() if path.is_file()}
    assert not {name for name in data | recipes if name.endswith(".py")}


def test_installed_wheel_finds_its_data(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(site),
            str(wheel),
        ]
    )
    code = (
        "import pyg_clusters; from pyg_clusters.datasets import GalliumClusters; "
        "print(pyg_clusters.__file__); print(len(GalliumClusters('gallium')))"
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    origin, length = run([sys.executable, "-c", code], cwd=elsewhere, env=environment).splitlines()[-2:]
    assert Path(origin).is_relative_to(site)
    assert int(length) == 6030

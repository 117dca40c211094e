"""The wheel contains only the package and its data, and works from any folder."""

import os
import shutil
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
    assert "pyg_clusters/py.typed" in names
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"pyg_clusters", f"pyg_clusters-{version}.dist-info"}

    data = {Path(name).name for name in names if name.startswith("pyg_clusters/_data/gallium_clusters/")}
    assert data == {path.name for path in (ROOT / "datasets/gallium_clusters").iterdir() if path.is_file()}
    recipes = {Path(name).name for name in names if name.startswith("pyg_clusters/_recipes/")}
    assert recipes == {path.name for path in (ROOT / "train").iterdir() if path.is_file()}
    assert not {name for name in data | recipes if name.endswith(".py")}


def test_package_page_renders(wheel):
    run([sys.executable, "-m", "twine", "check", "--strict", str(wheel)])


def test_wheel_installs_on_the_newest_python(wheel, tmp_path):
    """All dependencies exist for this version, and every module compiles."""
    python, version = newest_python()
    run([python, "-m", "venv", str(tmp_path / "venv")])
    inside = str(tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = [inside, "-m", "pip", "install", "--quiet"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    if version > sys.version_info[:2]:
        run([*install, "--dry-run", "--only-binary", ":all:", *constraints, str(wheel)])
    run([*install, "--no-deps", "--no-index", str(wheel)])
    (package,) = (tmp_path / "venv").rglob("site-packages/pyg_clusters")
    run([inside, "-W", "error", "-m", "compileall", "-q", "-f", str(package)])
    assert f"Programming Language :: Python :: {version[0]}.{version[1]}\n" in wheel_metadata(wheel)


def newest_python() -> tuple[str, tuple[int, int]]:
    """The newest Python on this machine, on the path or from pyenv."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [sys.executable, *map(str, home.glob("versions/3.*/bin/python"))]
    candidates += [path for minor in range(11, 20) if (path := shutil.which(f"python3.{minor}"))]
    found = {}
    for candidate in candidates:
        code = "import sys; print(*sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.returncode == 0:
            major, minor = map(int, done.stdout.split())
            found.setdefault((major, minor), candidate)
    newest = max(found)
    return found[newest], newest


def wheel_metadata(wheel: Path) -> str:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return archive.read(name).decode()


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

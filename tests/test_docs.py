"""Links in the documentation have targets, and repeated facts agree."""

import re
import tomllib
from pathlib import Path

import pytest

import pyg_clusters

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "train/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)\)", text) + re.findall(r"^```\{literalinclude\} (\S+)", text, re.MULTILINE)
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_reference_has_every_public_part():
    package = ROOT / "pyg_clusters"
    parts = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    private = {"__init__", "__main__", "cli", "concurrency", "files", "terminal"}
    pages = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs/reference").glob("*.md"))]
    listed = {part for page in pages for part in re.findall(r"automodule:: pyg_clusters\.(\w+)", page)}
    assert parts - private == listed


def test_version_is_the_same_everywhere():
    assert f"\nversion: {pyg_clusters.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {pyg_clusters.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_a_tested_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["docs"]]
    pinned = [
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    ]
    assert pinned[0] == "torch"
    assert {normalised(name) for name in wanted} <= {normalised(name) for name in pinned}


CONDA = {
    "torch": "pytorch",
    "torch-geometric": "pytorch_geometric",
    "jsonargparse": "jsonargparse-signatures",
    "matplotlib": "matplotlib-base",
}
"""Names of packages that conda-forge calls otherwise."""


def test_conda_recipe_has_the_dependencies():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    recipe = (ROOT / "conda/meta.yaml").read_text(encoding="utf-8").partition("\n  run:\n")[2].partition("\n\n")[0]
    listed = dict(line.removeprefix("    - ").split() for line in recipe.splitlines())
    assert listed.pop("python") == ">=3.11"
    parts = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?(.*)", each) for each in wanted]
    assert listed == {CONDA.get(part[1], part[1]): part[2] for part in parts if part}


def test_package_page_has_no_link_into_the_repository():
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["metadata"]["hooks"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in hook["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets and all(target.startswith("https://") for target in targets)


def normalised(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", requirement)[0]).lower()


def test_every_recipe_has_its_errors_in_the_table():
    table = (ROOT / "train/README.md").read_text(encoding="utf-8")
    assert not [path.name for path in (ROOT / "train").glob("*.yaml") if f"| `{path.name}`" not in table]

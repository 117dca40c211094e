"""Imports inside the package point downward only, and importing the package is quick and silent."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pyg_clusters

PACKAGE = Path(pyg_clusters.__file__).parent

# Parts of the package, lowest first. A module imports from its own row and from those above it.
LAYERS: list[set[str]] = [
    {
        "composition",
        "concurrency",
        "errors",
        "files",
        "geometry",
        "pairs",
        "positions",
        "strategies",
        "terminal",
        "trusted",
        "units",
    },
    {"options"},
    {"shipped", "transforms"},
    {"nn"},
    {"models"},
    {"losses", "metrics"},
    {"frames"},
    {"structures"},
    {"datasets"},
    {"labels"},
    {"inference"},
    {"analysis"},
    {"evaluation"},
    {"training"},
    {"screening"},
    {"papers"},
    {"testing", "cli", "__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not {"_data", "_recipes"} & set(path.relative_to(PACKAGE).parts)
}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def is_own(name: str | None) -> bool:
    return name is not None and name.split(".")[0] == PACKAGE.name


def own_imports(tree: ast.AST) -> set[str]:
    """Modules of the package that are imported in a syntax tree."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if is_own(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and is_own(node.module):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in FILES else str(node.module))
    return found


def part_of(name: str) -> str | None:
    """Subpackage or top-level module of a module; ``None`` for the package itself."""
    return name.split(".")[1] if "." in name else None


@pytest.mark.parametrize("name", [name for name in FILES if part_of(name)])
def test_imports_point_downward(name):
    part = part_of(name)
    assert part in LEVEL, f"{part} is in no layer: add it to LAYERS in {Path(__file__).name}"
    above = {other for other in own_imports(TREES[name]) if LEVEL.get(part_of(other), 0) > LEVEL[part]}
    assert not above, f"{name} imports from a layer above its own: {sorted(above)}"


def test_no_cycles():
    graph = {name: own_imports(tree) - {name} for name, tree in TREES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("modules import each other: " + " <- ".join(error.args[1]))


@pytest.mark.parametrize("name", FILES)
def test_imports_are_written_out(name):
    """No relative imports, no renamed package, and none inside functions (except for the verbs)."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
        if isinstance(node, ast.Import):
            renamed = [alias.name for alias in node.names if is_own(alias.name)]
            assert not renamed, f"{name}:{node.lineno}: write `from {renamed[0]} import ...`"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and part_of(name) not in ("cli", "__main__"):
            assert not own_imports(node), f"{name}:{node.lineno}: import inside the function {node.name}"


def test_package_does_not_shadow_the_standard_library():
    shadowing = {name for name in FILES if name.split(".")[-1] in sys.stdlib_module_names - {"__main__"}}
    assert not shadowing


def test_importing_the_package_is_quick_and_silent():
    code = (
        "import sys, pyg_clusters; "
        "heavy = {'torch', 'numpy', 'matplotlib', 'pytorch_lightning', 'torch_geometric'} & set(sys.modules); "
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_the_parts_changes_no_global_state():
    """Models and data change neither the default type nor the warning filters nor the plotting back end."""
    code = (
        "import sys, warnings, torch, torch_geometric; before = list(warnings.filters); "
        "import pyg_clusters.models, pyg_clusters.nn, pyg_clusters.transforms, pyg_clusters.geometry; "
        "assert warnings.filters == before, 'warning filters'; "
        "assert torch.get_default_dtype() == torch.float32, 'default dtype'; "
        "import pyg_clusters.inference.predict; "
        "assert not {'matplotlib', 'pytorch_lightning', 'sklearn'} & set(sys.modules), 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""All text files are opened with a stated encoding, so that no result depends on the platform."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("pyg_clusters", "datasets", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]


def unnamed(call: ast.Call) -> bool:
    """Whether a call opens a text file without an encoding."""
    if any(keyword.arg in ("encoding", None) for keyword in call.keywords):
        return False
    match call.func:
        case ast.Attribute(attr="read_text" | "write_text" as name):
            return len(call.args) <= (name == "write_text")
        case ast.Name(id="open"):
            return not binary(call, 1)
        case ast.Attribute(attr="open") if call.args and isinstance(call.args[0], ast.Constant):
            return call.args[0].value in ("r", "w", "a", "x", "rt", "wt", "at")
    return False


def binary(call: ast.Call, position: int) -> bool:
    modes = [*call.args[position : position + 1], *(key.value for key in call.keywords if key.arg == "mode")]
    return any(not isinstance(mode, ast.Constant) or "b" in mode.value for mode in modes)


@pytest.mark.parametrize("code", ["p.read_text()", "p.write_text(x)", "open(p)", "open(p, 'w')", "p.open('w')"])
def test_calls_without_an_encoding_are_found(code):
    assert unnamed(ast.parse(code, mode="eval").body)


@pytest.mark.parametrize(
    "code", ["p.read_text(encoding='utf-8')", "open(p, 'rb')", "p.write_bytes(x)", "Frames.open(p)"]
)
def test_calls_with_an_encoding_are_not(code):
    assert not unnamed(ast.parse(code, mode="eval").body)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_encodings_are_named(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if unnamed(call)]

"""Numbers in tables and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, read_json


def cell(value: float | int) -> str:
    """A number as a table shows it; one that does not exist is a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def print_lines(lines: Sequence[str]):
    """Prints remarks, a line each, above the tables that they belong to."""
    for line in lines:
        print(line)


def for_json(row: dict) -> dict:
    """A value that does not exist is null in JSON."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def read_errors(path: Path) -> dict[str, float | None]:
    """The errors over all clusters in a file of :func:`write_errors`, by their names.

    Raises:
        InputError: If the file is damaged.
    """
    remedy = f"make it again with pyg-clusters evaluate {path.parent}"
    overall = read_json(path, remedy).get("overall")
    if not isinstance(overall, dict) or not all(isinstance(value, int | float | None) for value in overall.values()):
        raise InputError(f"{path}: corrupted (overall is no mapping of numbers); {remedy}")
    return overall


def write_errors(path: Path, overall: dict, by_size: Sequence[dict], more: Mapping[str, dict]):
    """Writes errors as JSON: ``overall``, ``by_size``, and further ones by their names."""
    result = {"overall": for_json(overall), "by_size": [for_json(row) for row in by_size]}
    result |= {name: for_json(row) for name, row in more.items()}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")

"""Numbers in tables and JSON."""

import math
from collections.abc import Sequence
from pathlib import Path

from pyg_clusters.errors import InputError
from pyg_clusters.files import read_json


def cell(value: float | int) -> str:
    """A number as a table shows it; one that does not exist is a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def count_of(number: int, noun: str, plural: str = "") -> str:
    """A number of things.

    Example:
        >>> count_of(1, "frame"), count_of(1200, "frame")
        ('1 frame', '1,200 frames')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def print_lines(lines: Sequence[str]):
    """Prints remarks, a line each, above the tables that they belong to."""
    for line in lines:
        print(line)


def for_json(row: dict) -> dict:
    """A value that does not exist is null in JSON."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def read_errors(path: Path) -> dict[str, float | None]:
    """Errors over all clusters or atoms in ``test_metrics.json``, by name.

    Raises:
        InputError: If the file is damaged.
    """
    remedy = f"make it again with pyg-clusters evaluate {path.parent}"
    overall = read_json(path, remedy).get("overall")
    if not isinstance(overall, dict) or not all(isinstance(value, int | float | None) for value in overall.values()):
        raise InputError(f"{path}: corrupted (overall is no mapping of numbers); {remedy}")
    return overall

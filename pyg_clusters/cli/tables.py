"""Numbers in tables and JSON."""

import math


def cell(value: float | int) -> str:
    """A number as a table shows it; one that does not exist is a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def for_json(row: dict) -> dict:
    """A value that does not exist is null in JSON."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}

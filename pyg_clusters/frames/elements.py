"""Elements by the labels that programs write for atoms."""

import re
from functools import lru_cache

from ase.data import atomic_numbers

LABEL: re.Pattern[str] = re.compile(r"([A-Za-z]{1,2})(?:[-_]?\d*[+-]?\d*[+-]?|_[a-zA-Z][A-Za-z0-9_]*|/[0-9a-f]+)")
"""A symbol, then a number, a charge, or the name of a potential: Ga1, Na_2, Na+, Na_pv."""


LONGEST: int = 60
"""Longer labels stand for no element."""


@lru_cache(maxsize=1000)
def atomic_number(label: str) -> int | None:
    """The atomic number that a label stands for, 0 for the dummy atom X; none if it stands for no element.

    Example:
        >>> [atomic_number(label) for label in ("Ga", "GA", "ga1", "Na_2", "Na+", "Na_pv", "31", "Q7")]
        [31, 31, 31, 11, 11, 11, 31, None]
    """
    if len(label) > LONGEST:
        return None
    if label.isdecimal():
        return int(label) if int(label) < len(atomic_numbers) else None
    match = LABEL.fullmatch(label)
    return atomic_numbers.get(match[1].capitalize()) if match else None


def unknown_label(label: str) -> str:
    """A message about a label that stands for no element."""
    return f"{label[:40]!r} is no symbol of an element; write symbols such as Ga or Ga1"

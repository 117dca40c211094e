"""Compositions of alloy clusters."""

from collections.abc import Iterator, Mapping, Sequence

from ase.data import atomic_numbers
from ase.formula import Formula

from pyg_clusters.errors import InputError

MOST: int = 1_000_000
"""No more compositions are listed."""


def parse_formula(formula: str) -> dict[str, int]:
    """Number of atoms by element.

    Example:
        >>> parse_formula("Cu13Au7")
        {'Cu': 13, 'Au': 7}

    Raises:
        InputError: If it is no chemical formula.
    """
    try:
        counts = Formula(formula).count()
    except ValueError as error:
        raise InputError(f"{formula!r} is no chemical formula; give one such as Cu13Au7") from error
    unknown = [symbol for symbol in counts if symbol not in atomic_numbers]
    if unknown or not counts:
        raise InputError(f"{formula!r} is no chemical formula; give one such as Cu13Au7")
    return counts


def all_compositions(elements: Sequence[str], sizes: Sequence[int], *, mixed: bool = False) -> list[dict[str, int]]:
    """Every composition of clusters of some sizes.

    Args:
        elements: Symbols, each once.
        sizes: Numbers of atoms.
        mixed: Only those with an atom of each element.

    Example:
        >>> all_compositions(["Cu", "Au"], [2])
        [{'Au': 2}, {'Cu': 1, 'Au': 1}, {'Cu': 2}]

    Raises:
        InputError: If an element is unknown or named twice, or there are more than a million compositions, or none.
    """
    for element in elements:
        if element not in atomic_numbers:
            raise InputError(f"{element!r} is no chemical element")
    if len(set(elements)) < len(elements):
        raise InputError(f"an element is named twice in {' '.join(elements)}")
    compositions = []
    for size in sizes:
        for counts in _partitions(size, len(elements), 1 if mixed else 0):
            compositions.append({element: n for element, n in zip(elements, counts, strict=True) if n})
            if len(compositions) > MOST:
                raise InputError(f"there are more than {MOST:,} compositions; give fewer sizes or elements")
    if not compositions:
        raise InputError(f"no size is large enough for all of {' '.join(elements)}; give a larger one")
    return compositions


def formula_of(composition: Mapping[str, int]) -> str:
    """A composition as it is written.

    Example:
        >>> formula_of({"Cu": 12, "Au": 1})
        'Cu12Au'
    """
    return "".join(f"{element}{n if n > 1 else ''}" for element, n in composition.items())


def _partitions(total: int, parts: int, least: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        if total >= least:
            yield (total,)
        return
    for first in range(least, total + 1):
        for rest in _partitions(total - first, parts - 1, least):
            yield (first, *rest)

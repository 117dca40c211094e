"""Compositions of clusters: formulas, and the groups within which energies are compared."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

from pyg_clusters.errors import InputError


def compositions(z: np.ndarray, ptr: np.ndarray, elements: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Number of atoms of each element in each cluster.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        elements: Atomic numbers of the elements to count; by default those that occur.

    Returns:
        The elements ``[num_elements]``, and the numbers ``[num_graphs, num_elements + 1]``, of which the last is that
        of the atoms of all other elements.

    Example:
        >>> compositions(np.array([79, 29, 79, 79, 79]), np.array([0, 3, 5]))[1].tolist()
        [[1, 2, 0], [0, 2, 0]]
    """
    z, num = np.asarray(z), len(ptr) - 1
    elements = np.flatnonzero(np.bincount(z)) if elements is None else elements
    width = len(elements) + 1
    column = np.full(len(chemical_symbols), width - 1)
    column[elements] = np.arange(width - 1)
    key = np.repeat(np.arange(num) * width, np.diff(ptr)) + column[z]
    return elements, np.bincount(key, minlength=num * width).astype(np.int32).reshape(num, width)


def composition_names(z: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Formula of each cluster, ``[num_graphs]``, with ASE's order of elements, from atomic numbers and offsets.

    Example:
        >>> composition_names(np.array([79, 29, 79, 79, 79]), np.array([0, 3, 5])).tolist()
        ['Au2Cu', 'Au2']
    """
    elements, counts = compositions(z, ptr)
    kinds, kind_of_cluster = np.unique(counts[:, :-1], axis=0, return_inverse=True)
    symbols = [chemical_symbols[number] for number in elements]
    names = [formula_of({symbol: n for symbol, n in zip(symbols, kind, strict=True) if n}) for kind in kinds.tolist()]
    return np.array(names, dtype=str)[kind_of_cluster.ravel()]


def comparable(names: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Group of each cluster within which energies are compared, ``[num_graphs]``: its size, or its formula for alloys.

    Args:
        names: Formulas ``[num_graphs]`` from :func:`composition_names`.
        sizes: Numbers of atoms ``[num_graphs]``.

    Example:
        >>> comparable(np.array(["Ga31", "Ga46"]), np.array([31, 46])).tolist()
        [31, 46]
        >>> comparable(np.array(["Au20", "Cu13", "Au7Cu13"]), np.array([20, 13, 20])).tolist()
        ['Au20', 'Cu13', 'Au7Cu13']
    """
    elements = {name.rstrip("0123456789") for name in np.unique(names).tolist()}
    return np.asarray(sizes) if len(elements) <= 1 else np.asarray(names)


def above_element_mean(values: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Subtract from values of atoms ``[num_atoms]`` the mean over all atoms of the same element ``z [num_atoms]``.

    Energies of atoms of different elements have different zeros and are not comparable.

    Example:
        >>> above_element_mean(np.array([-3.0, -4.0, -7.5]), np.array([29, 29, 79])).tolist()
        [0.5, -0.5, 0.0]
    """
    _, element = np.unique(z, return_inverse=True)
    return values - (np.bincount(element, weights=values) / np.bincount(element))[element]


def kind_label(kind: int | str) -> str:
    """Name of a group of clusters in tables and figures, for example ``46 atoms`` or ``Au7Cu13``."""
    return kind if isinstance(kind, str) else f"{kind} atoms"


MOST: int = 1_000_000  # maximum number of compositions


def parse_formula(formula: str) -> dict[str, int]:
    """Parse a formula and return the number of atoms of each element.

    Example:
        >>> parse_formula("Cu13Au7")
        {'Cu': 13, 'Au': 7}

    Raises:
        InputError: If the text is not a chemical formula.
    """
    counts: dict[str, int] = {}
    with suppress(ValueError):
        counts = Formula(formula).count()
    if not counts or not counts.keys() <= atomic_numbers.keys():
        raise InputError(f"{formula!r} is not a chemical formula; give one such as Cu13Au7")
    return counts


def all_compositions(elements: Sequence[str], sizes: Sequence[int], *, mixed: bool = False) -> list[dict[str, int]]:
    """All compositions of clusters of the given sizes.

    Args:
        elements: Different element symbols.
        sizes: Numbers of atoms.
        mixed: Whether to return only compositions with at least one atom of each element.

    Example:
        >>> all_compositions(["Cu", "Au"], [2])
        [{'Au': 2}, {'Cu': 1, 'Au': 1}, {'Cu': 2}]

    Raises:
        InputError: If an element is unknown or repeated, or there is no composition or more than a million.
    """
    for element in elements:
        if element not in atomic_numbers:
            raise InputError(f"there is no chemical element {element!r}")
    if len(set(elements)) < len(elements):
        raise InputError(f"an element is repeated in {' '.join(elements)}; give each once")
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
    """Formula of a composition, with ASE's order of elements as in :func:`composition_names`.

    Example:
        >>> formula_of({"Cu": 12, "Au": 1})
        'AuCu12'
    """
    return Formula.from_dict(dict(composition)).format("hill")


def _partitions(total: int, parts: int, least: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        if total >= least:
            yield (total,)
        return
    for first in range(least, total + 1):
        for rest in _partitions(total - first, parts - 1, least):
            yield (first, *rest)

"""Checks of what a user asks a data set to keep and to subtract."""

from collections.abc import Iterable, Mapping, Sequence

from ase.data import atomic_numbers, chemical_symbols

from pyg_clusters.errors import InputError

RESERVED: frozenset[str] = frozenset({"z", "pos", "y", "idx", "cluster_size", "group", "force", "x", "size"})
"""What a data set calls something else."""


def check_kept_names(names: Sequence[str]):
    """Checks the names that further values get in the data.

    Raises:
        InputError: If one cannot be used, or is there twice.
    """
    for key in names:
        if key in RESERVED or "index" in key or "batch" in key or not key.isidentifier():
            raise InputError(f"a value called {key!r} cannot be kept: the name has a meaning of its own in a batch")
    if len(set(names)) < len(names):
        raise InputError(f"values to keep must have different names, got {', '.join(names)}")


def check_references(asked: Mapping[str, float] | str | None, per_atom: bool):
    """Checks the reference energies that are asked for: ``"fit"``, or values by element symbol.

    Raises:
        InputError: If they are something else, or the target is one per atom.
    """
    if per_atom and asked is not None:
        raise InputError("reference energies belong to a target per cluster; this one is per atom")
    if isinstance(asked, str) and asked != "fit":
        raise InputError(f"references must be 'fit' or energies by element symbol, got {asked!r}")
    if isinstance(asked, Mapping) and (unknown := [symbol for symbol in asked if symbol not in atomic_numbers]):
        raise InputError(f"references: {unknown[0]!r} is no element symbol")


def given_references(asked: Mapping[str, float], numbers: Iterable[int]) -> dict[str, float]:
    """Reference energies by element symbol, if there is one for each of the atomic numbers.

    Raises:
        InputError: If one is missing.
    """
    missing = {chemical_symbols[number] for number in numbers} - set(asked)
    if missing:
        raise InputError(f"no reference energy for {', '.join(sorted(missing))}; given are {', '.join(asked)}")
    return {symbol: float(value) for symbol, value in asked.items()}

"""Compositions of clusters, within which energies are compared."""

import numpy as np
from ase.data import chemical_symbols
from ase.symbols import Symbols


def compositions(z: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Number of atoms of each element in each cluster, ``[num_graphs, 119]``.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
    """
    num = len(ptr) - 1
    row = np.repeat(np.arange(num), np.diff(ptr))
    width = len(chemical_symbols)
    return np.bincount(row * width + np.asarray(z), minlength=num * width).reshape(num, width)


def composition_names(z: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Formula of each cluster, ``[num_graphs]`` (str), in the order that ASE writes it.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.

    Example:
        >>> composition_names(np.array([79, 29, 79, 79, 79]), np.array([0, 3, 5])).tolist()
        ['Au2Cu', 'Au2']
    """
    z = np.asarray(z)
    elements, place = np.unique(z, return_inverse=True)
    num = len(ptr) - 1
    row = np.repeat(np.arange(num), np.diff(ptr))
    counts = np.bincount(row * len(elements) + place.ravel(), minlength=num * len(elements)).reshape(num, len(elements))
    kinds, kind_of_cluster = np.unique(counts, axis=0, return_inverse=True)
    names = [Symbols(np.repeat(elements, kind)).get_chemical_formula() for kind in kinds]
    return np.array(names, dtype=str)[kind_of_cluster.ravel()]


def comparable(names: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Kind of each cluster, ``[num_graphs]``: energies are compared within one kind only.

    Args:
        names: Formulas ``[num_graphs]``, of :func:`composition_names`.
        sizes: Numbers of atoms ``[num_graphs]``.

    Returns:
        The sizes where all clusters are of one element, else the formulas.

    Example:
        >>> comparable(np.array(["Ga31", "Ga46"]), np.array([31, 46])).tolist()
        [31, 46]
        >>> comparable(np.array(["Au20", "Cu13", "Au7Cu13"]), np.array([20, 13, 20])).tolist()
        ['Au20', 'Cu13', 'Au7Cu13']
    """
    elements = {name.rstrip("0123456789") for name in np.unique(names).tolist()}
    return np.asarray(sizes) if len(elements) <= 1 else np.asarray(names)


def kind_label(kind: int | str) -> str:
    """Name of a kind of clusters in tables and figures: ``46 atoms``, ``Au7Cu13``."""
    return kind if isinstance(kind, str) else f"{kind} atoms"

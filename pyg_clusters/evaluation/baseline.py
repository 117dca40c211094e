"""Mean energy per composition, the baseline of every model, and energies that count from another zero.

Energies are in eV per cluster. A batch of clusters is ``z [num_atoms]`` and the offsets ``ptr [num_graphs + 1]``.
"""

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from pyg_clusters.composition import compositions

MUCH_LARGER: float = 5.0
"""Energies have another zero if they are off by so many times what varies among them."""

SMALLEST_SHIFT: float = 0.1
"""Difference of two zeros in eV per atom that is told from an error of the model."""

SHIFT_OF_FEW: float = 1.0
"""The same where there are too few clusters to see what varies among them."""


class CompositionMean:
    """Mean energy of the clusters of a composition: what is predicted without looking at a structure.

    A composition that did not occur has the sum of energies per atom that fit all clusters best.

    Args:
        z: Atomic numbers ``[num_atoms]`` of the clusters that it is taken from.
        ptr: Their offsets.
        energy: Their energies ``[num_graphs]`` in eV.

    Example:
        >>> mean = CompositionMean(np.full(6, 31), np.array([0, 2, 4, 6]), np.array([-1.0, -3.0, -2.0]))
        >>> mean(np.full(5, 31), np.array([0, 2, 5]))
        array([-2., -3.])
    """

    def __init__(self, z: np.ndarray, ptr: np.ndarray, energy: np.ndarray):
        counts = compositions(z, ptr)
        self.known, of_cluster, numbers = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
        self.mean = np.bincount(of_cluster.reshape(-1), weights=energy) / numbers
        self.per_atom = np.linalg.lstsq(counts.astype(float), energy, rcond=None)[0]

    def __call__(self, z: np.ndarray, ptr: np.ndarray) -> np.ndarray:
        """Energies ``[num_graphs]`` in eV of other clusters."""
        counts = compositions(z, ptr)
        found = counts @ self.per_atom
        place_of = {row.tobytes(): place for place, row in enumerate(self.known)}
        asked, of_cluster = np.unique(counts, axis=0, return_inverse=True)
        places = np.array([place_of.get(row.tobytes(), -1) for row in asked])[of_cluster.reshape(-1)]
        return np.where(places >= 0, self.mean[places], found)


@dataclass(frozen=True)
class OtherZero:
    """Energies that count from another zero than those of a model."""

    per_atom: dict[str, float]
    """Difference of the zeros, labels less predictions, in eV per atom by element symbol."""
    spread: float
    """What varies among the labels of a composition, in eV (root mean square)."""
    without: np.ndarray
    """Predictions ``[num_graphs]`` in eV, brought to the zero of the labels."""

    def __str__(self) -> str:
        shifts = ", ".join(f"{symbol} {shift:+.4g}" for symbol, shift in self.per_atom.items())
        return (
            f"the labels count from another zero than the model: they differ from its energies by {shifts} eV per "
            f"atom, where they vary by {self.spread:.3g} eV among themselves; is this the label (and the unit) that "
            "the model was trained on?"
        )


def other_zero(z: np.ndarray, ptr: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> OtherZero | None:
    """The difference between the zeros of labels and predictions, if it explains their errors.

    It does if energies per atom of the elements, fitted to the errors, are far larger than what remains of the errors
    and than what varies among the labels.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        predicted: Energies ``[num_graphs]`` in eV.
        labels: Energies ``[num_graphs]`` in eV.

    Example:
        >>> z, ptr = np.full(12, 31), np.array([0, 4, 8, 12])
        >>> predicted = np.array([-8.0, -8.1, -8.3])
        >>> round(other_zero(z, ptr, predicted, predicted - 400.0).per_atom["Ga"], 6)
        -100.0
        >>> other_zero(z, ptr, predicted, predicted - 0.2) is None
        True
    """
    if not len(labels):
        return None
    counts = compositions(z, ptr)
    elements = np.flatnonzero(counts.any(axis=0))
    counts, sizes = counts[:, elements].astype(float), np.diff(ptr)
    error = labels - predicted
    shifts = np.linalg.lstsq(counts, error, rcond=None)[0]
    offset = counts @ shifts
    spread = _root_mean_square(labels - CompositionMean(z, ptr, labels)(z, ptr))
    few = len(labels) <= 2 * len(np.unique(counts, axis=0))
    per_atom = _root_mean_square(offset / sizes)
    if per_atom < (SHIFT_OF_FEW if few else SMALLEST_SHIFT):
        return None
    if _root_mean_square(offset) < MUCH_LARGER * max(spread, _root_mean_square(error - offset)):
        return None
    named = {chemical_symbols[number]: float(shift) for number, shift in zip(elements, shifts, strict=True)}
    return OtherZero(named, spread, predicted + offset)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))

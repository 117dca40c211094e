"""Context for errors of energies: the baseline, another zero of the labels, and copies of training structures.

Energies are in eV per cluster. A batch of clusters is ``z [num_atoms]`` and the offsets ``ptr [num_graphs + 1]``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols

from pyg_clusters.composition import comparable, composition_names, compositions
from pyg_clusters.datasets.data_module import MAX_TRAINING_CLUSTERS, ClusterDataModule
from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import offsets
from pyg_clusters.inference.run import Run
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.structures.duplicates import copies

MUCH_LARGER: float = 5.0
"""Energies have another zero if their errors are larger by this factor than their variation."""

SMALLEST_SHIFT: float = 0.1
"""Smallest difference of two zeros in eV per atom that is distinguished from an error of the model."""

SHIFT_OF_FEW: float = 1.0
"""The same for too few clusters to see their variation, and the smallest one that no model of the labels is off by."""


class CompositionMean:
    """Mean energy of the clusters of a composition: the best prediction that ignores the structure.

    The energy of a new composition is a sum of energies per atom, fitted to all clusters.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        energy: Energies ``[num_graphs]`` in eV.

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
        index_of = {row.tobytes(): index for index, row in enumerate(self.known)}
        present, of_cluster = np.unique(counts, axis=0, return_inverse=True)
        index = np.array([index_of.get(row.tobytes(), -1) for row in present])[of_cluster.reshape(-1)]
        return np.where(index >= 0, self.mean[index], counts @ self.per_atom)


@dataclass(frozen=True)
class OtherZero:
    """Labels with another zero of energy than a model."""

    per_atom: dict[str, float]
    """Difference of the zeros, labels minus predictions, in eV per atom by element symbol."""
    size: float
    """The same as one number (root mean square over the clusters)."""
    spread: float
    """Variation of the labels of a composition in eV (root mean square)."""
    without: np.ndarray
    """Predictions ``[num_graphs]`` in eV, shifted to the zero of the labels."""

    def __str__(self) -> str:
        shifts = ", ".join(f"{symbol} {shift:+.4g}" for symbol, shift in self.per_atom.items())
        return (
            f"the labels count from another zero than the model: they differ from its energies by {shifts} eV per "
            f"atom, where they vary by {self.spread:.3g} eV among themselves; is this the label (and the unit) that "
            "the model was trained on?"
        )


def other_zero(z: np.ndarray, ptr: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> OtherZero | None:
    """Difference between the zeros of labels and predictions, if it explains the errors.

    It does if energies per atom of the elements, fitted to the errors, are far larger than both the remaining errors
    and the variation of the labels.

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
    return OtherZero(named, per_atom, spread, predicted + offset)


def check_truth(z: np.ndarray, ptr: np.ndarray, predicted: np.ndarray, truth: np.ndarray, name: str) -> list[str]:
    """Compare the zeros of true and predicted energies, whose differences are printed.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        predicted: Energies ``[num_graphs]`` in eV.
        truth: Energies ``[num_graphs]`` in eV.
        name: Name of the true energy in the frames.

    Returns:
        A warning if the zeros seem to differ.

    Raises:
        InputError: If they differ by 1 eV per atom or more.
    """
    zero = other_zero(z, ptr, predicted, truth)
    if zero is None:
        return []
    if zero.size < SHIFT_OF_FEW:
        return [f"warning: --truth {name}: {zero}"]
    raise InputError(
        f"--truth {name}: {zero} Name the label of the training, give the unit of this one by --energy-unit, or write "
        "it minus the energies of the isolated atoms into the frames; compare-dft compares energies on any zero"
    )


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


class Clusters(NamedTuple):
    """Structures as flat arrays."""

    z: np.ndarray
    """Atomic numbers ``[num_atoms]``."""
    pos: np.ndarray
    """Positions ``[num_atoms, 3]`` in Å."""
    ptr: np.ndarray
    """Offsets ``[num_graphs + 1]``."""


@dataclass
class TrainingSet:
    """Clusters and labels that a model was trained on.

    Attributes:
        mean: Mean energy per composition.
        clusters: Structures; none if there are too many.
    """

    mean: CompositionMean
    clusters: Clusters | None

    @classmethod
    def of(cls, data: ClusterDataModule) -> "TrainingSet":
        """Training set of a data module of energies."""
        few = data.split.train.numel() <= MAX_TRAINING_CLUSTERS
        z, pos, sizes, energy = [], [], [], []
        for block in data.batches.blocks(data.split.train, positions=few):
            z.append(block.z.numpy())
            sizes.append(block.ptr.diff().numpy())
            energy.append(data.labels(block).double().numpy())
            if few and "pos" in block:
                pos.append(block.pos.numpy())
        numbers, ptr = np.concatenate(z), offsets(np.concatenate(sizes))
        clusters = Clusters(numbers, np.concatenate(pos), ptr) if pos else None
        return cls(CompositionMean(numbers, ptr, np.concatenate(energy)), clusters)

    @classmethod
    def of_run(cls, run: Run) -> "TrainingSet | None":
        """Training set of a run, if its data are available."""
        if not run.has_data:
            return None
        try:
            return cls.of(run.data)
        except InputError:
            return None

    def copies(self, clusters: Clusters) -> np.ndarray:
        """Whether each cluster is a copy of a training cluster, ``[num_graphs]``."""
        if self.clusters is None:
            return np.zeros(len(clusters.ptr) - 1, dtype=bool)
        return copies(*clusters, self.clusters) >= 0


def energy_context(
    predicted: np.ndarray,
    target: np.ndarray,
    z: np.ndarray,
    pos: np.ndarray | None,
    ptr: np.ndarray,
    training_set: TrainingSet | None,
) -> tuple[dict[str, dict], list[str]]:
    """Errors to compare those of a model with, and remarks on the clusters that it was evaluated on.

    Args:
        predicted: Energies ``[num_graphs]`` in eV.
        target: Labels ``[num_graphs]`` in eV.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å; without them there is no search for copies.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        training_set: Training set of the model, if available.

    Returns:
        Rows of errors by name, and lines to print.
    """
    sizes = np.diff(ptr)
    kinds = comparable(composition_names(z, ptr), sizes)
    rows: dict[str, dict] = {}
    lines: list[str] = []
    if zero := other_zero(z, ptr, predicted, target):
        lines.append(f"warning: {zero}")
        rows["on_the_zero_of_the_labels"] = energy_metrics(zero.without, target, sizes, kinds)
    if training_set is None:
        lines.append("the training set of the model is not available: these clusters may have been part of it")
        mean = CompositionMean(z, ptr, target)
        rows["baseline_of_these_labels"] = energy_metrics(mean(z, ptr), target, sizes, kinds)
        return rows, lines
    rows["baseline"] = energy_metrics(training_set.mean(z, ptr), target, sizes, kinds)
    known = np.zeros(len(sizes), bool) if pos is None else training_set.copies(Clusters(z, pos, ptr))
    if known.any():
        count = "all" if known.all() else f"{int(known.sum())}"
        lines.append(
            f"warning: {count} of these {len(known)} clusters are copies of structures that the model was trained on: "
            "their errors do not show how it predicts new ones"
        )
        if not known.all():
            new = ~known
            rows["new_structures"] = energy_metrics(predicted[new], target[new], sizes[new], kinds[new])
    return rows, lines

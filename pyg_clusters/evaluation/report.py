"""Errors of a model as JSON, tables and figures, with baselines for comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots
from pyg_clusters.composition import comparable, composition_names, compositions
from pyg_clusters.datasets.training_data import MAX_TRAINING_CLUSTERS, TrainingData
from pyg_clusters.errors import InputError
from pyg_clusters.files import write_json
from pyg_clusters.frames.block import offsets
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference.run import HISTORY
from pyg_clusters.metrics import energy_metrics, metrics_by_size, mixed_zeros
from pyg_clusters.structures.duplicates import copies
from pyg_clusters.terminal import cell, print_table

MUCH_LARGER: float = 5.0  # energies have a different zero if their errors exceed their variation by this factor

SMALLEST_SHIFT: float = 0.1
"""Smallest difference between two zeros in eV per atom that is distinguished from an error of the model."""

SHIFT_OF_FEW: float = 1.0  # the same if there are too few clusters to estimate their variation

PROVEN_SHIFT: float = 5.0
"""Shift in eV per atom that proves different zeros: the error of an untrained model is about the cohesive energy, 3
to 4 eV for most metals."""


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
        self.elements, counts = compositions(z, ptr)
        self.known, of_cluster, numbers = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
        self.mean = np.bincount(of_cluster.reshape(-1), weights=energy) / numbers
        self.per_atom = np.linalg.lstsq(counts.astype(float), energy, rcond=None)[0]

    def __call__(self, z: np.ndarray, ptr: np.ndarray) -> np.ndarray:
        """Energies ``[num_graphs]`` in eV of other clusters."""
        _, counts = compositions(z, ptr, self.elements)
        index_of = {row.tobytes(): index for index, row in enumerate(self.known)}
        present, of_cluster = np.unique(counts, axis=0, return_inverse=True)
        index = np.array([index_of.get(row.tobytes(), -1) for row in present])[of_cluster.reshape(-1)]
        return np.where(index >= 0, self.mean[index], counts @ self.per_atom)


@dataclass(frozen=True)
class OtherZero:
    """Labels whose zero of energy differs from that of a model."""

    #: Difference between the zeros, labels minus predictions, in eV per atom by element symbol.
    per_atom: dict[str, float]
    size: float  #: The same as one number (root mean square over the clusters).
    spread: float  #: Variation of the labels of a composition in eV (root mean square).
    without: np.ndarray  #: Predictions ``[num_graphs]`` in eV, shifted to the zero of the labels.

    def __str__(self) -> str:
        shifts = ", ".join(f"{symbol} {shift:+.4g}" for symbol, shift in self.per_atom.items())
        return (
            f"the labels have a different zero from the model: they differ from its energies by {shifts} eV per atom, "
            f"but vary by only {self.spread:.3g} eV among themselves; is this the label (and the unit) that the model "
            "was trained on?"
        )


def zero_remarks(zero: OtherZero | None, name: str, advice: str) -> list[str]:
    """Warning that the zeros of labels and predictions seem to differ, if they do.

    Args:
        zero: The difference, from :func:`other_zero`.
        name: Option that names the labels or the model.
        advice: Remedy.

    Raises:
        InputError: If they differ by more than the error of any model.
    """
    if zero is None:
        return []
    if zero.size < PROVEN_SHIFT:
        return [f"warning: {name}: {zero}"]
    raise InputError(f"{name}: {zero} {advice}")


def other_zero(z: np.ndarray, ptr: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> OtherZero | None:
    """Difference between the zeros of labels and predictions, if it explains the errors.

    It does if energies per atom of each element, fitted to the errors, are far larger than both the remaining errors
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
    elements, counts = compositions(z, ptr)
    counts, sizes = counts[:, :-1].astype(float), np.diff(ptr)
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


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


Structures = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and offsets ``[num_graphs + 1]`` of clusters."""


@dataclass
class TrainingSet:
    """Clusters and labels that a model was trained on."""

    mean: CompositionMean  #: Mean energy per composition.
    clusters: Structures | None  #: Structures; ``None`` if there are too many.

    @classmethod
    def of(cls, data: TrainingData) -> "TrainingSet":
        """Training set of training data with energies."""
        few = data.split.train.numel() <= MAX_TRAINING_CLUSTERS
        z, pos, sizes, energy = [], [], [], []
        for block in data.batches.blocks(data.split.train, positions=few):
            z.append(block.z.numpy())
            sizes.append(block.ptr.diff().numpy())
            energy.append(data.labels(block).double().numpy())
            if few and "pos" in block:
                pos.append(block.pos.numpy())
        numbers, ptr = np.concatenate(z), offsets(np.concatenate(sizes))
        clusters = (numbers, np.concatenate(pos), ptr) if pos else None
        return cls(CompositionMean(numbers, ptr, np.concatenate(energy)), clusters)

    def copies(self, z: np.ndarray, pos: np.ndarray, ptr: np.ndarray) -> np.ndarray:
        """Whether each cluster is a copy of a training cluster, ``[num_graphs]``."""
        if self.clusters is None:
            return np.zeros(len(ptr) - 1, dtype=bool)
        return copies(z, pos, ptr, self.clusters) >= 0


def energy_context(
    predicted: np.ndarray,
    target: np.ndarray,
    z: np.ndarray,
    pos: np.ndarray | None,
    ptr: np.ndarray,
    training_set: TrainingSet | None,
) -> tuple[dict[str, dict], list[str]]:
    """Baselines for the errors of a model, and remarks on the clusters that it was evaluated on.

    Args:
        predicted: Energies ``[num_graphs]`` in eV.
        target: Labels ``[num_graphs]`` in eV.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å; without them, copies are not searched for.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        training_set: Training set of the model, if available.

    Returns:
        Rows of errors by name, and lines to print.
    """
    sizes = np.diff(ptr)
    kinds = comparable(composition_names(z, ptr), sizes)
    rows: dict[str, dict] = {}
    lines: list[str] = []
    if mixed := mixed_zeros(target, sizes, kinds):
        lines.append(f"warning: {mixed}")
    elif zero := other_zero(z, ptr, predicted, target):
        lines.append(f"warning: {zero}")
        rows["on_the_zero_of_the_labels"] = energy_metrics(zero.without, target, sizes, kinds)
    if training_set is None:
        lines.append("the training set of the model is not available: these clusters may have been part of it")
        mean = CompositionMean(z, ptr, target)
        rows["baseline_of_these_labels"] = energy_metrics(mean(z, ptr), target, sizes, kinds)
        return rows, lines
    rows["baseline"] = energy_metrics(training_set.mean(z, ptr), target, sizes, kinds)
    known = np.zeros(len(sizes), bool) if pos is None else training_set.copies(z, pos, ptr)
    if known.any():
        count = "all" if known.all() else f"{int(known.sum())}"
        lines.append(
            f"warning: {count} of these {len(known)} clusters are copies of structures that the model was trained on: "
            "their errors do not show how well it predicts new structures"
        )
        if not known.all():
            new = ~known
            rows["new_structures"] = energy_metrics(predicted[new], target[new], sizes[new], kinds[new])
    return rows, lines


ENERGY_LABELS = {
    "num_clusters": "clusters",
    "mae_kcal_mol": "MAE (kcal/mol)",
    "rmse_kcal_mol": "RMSE (kcal/mol)",
    "mae_mev_per_atom": "MAE (meV/atom)",
    "rmse_mev_per_atom": "RMSE (meV/atom)",
    "spearman_within_size": "Spearman within a size",
    "spearman": "Spearman",
    "size": "atoms",
    "composition": "composition",
    "coverage": "requested coverage",
    "coverage_reached": "observed coverage",
    "standard_error": "standard error",
    "mean_width_kcal_mol": "mean width (kcal/mol)",
    "num_groups": "groups",
    "mae_mev_per_angstrom": "MAE (meV/Å)",
    "rmse_mev_per_angstrom": "RMSE (meV/Å)",
}
SHIELDING_LABELS = {
    "mae_ppm": "MAE (ppm)",
    "rmse_ppm": "RMSE (ppm)",
    "wasserstein_ppm": "Wasserstein distance (ppm)",
    "kolmogorov_smirnov": "Kolmogorov-Smirnov",
    "peak_ppm": "peak (ppm)",
    "target_peak_ppm": "peak, DFT (ppm)",
    "skewness": "skewness",
    "target_skewness": "skewness, DFT",
    "num_atoms": "atoms",
}
TITLES = {
    "on_the_zero_of_the_labels": "the model, shifted to the zero of the labels",
    "baseline": "baseline, mean per composition of the training set",
    "baseline_of_these_labels": "baseline, mean per composition of these labels",
    "new_structures": "clusters that are not copies of training structures",
}
"""Titles of further errors by name."""


@dataclass
class Evaluation:
    """Errors of a model."""

    title: str  #: Model and data.
    per_atom: bool  #: Whether they are errors of shieldings, not of energies.
    overall: dict[str, Any]  #: Errors over all clusters or atoms, by name and unit.
    by_size: list[dict[str, Any]]  #: Errors of each cluster size, or of each composition for alloys.
    further: dict[str, dict[str, Any]]  #: ``baseline``, ``intervals``, ``forces``, those of each file or element.
    remarks: list[str]  #: Remarks on the data.

    def write(self, path: Path):
        """Write the errors as JSON: ``overall``, ``by_size``, and further ones by name; NaN becomes null."""
        result = {"overall": _for_json(self.overall), "by_size": [_for_json(row) for row in self.by_size]}
        write_json(path, result | {name: _for_json(row) for name, row in self.further.items()}, allow_nan=False)

    def print(self, by_size: bool = True):
        """Print tables of the errors, by default also those of each size."""
        for line in self.remarks:
            print(line)
        if self.per_atom:
            elements = {name: row for name, row in self.further.items() if row.keys() >= SHIELDING_LABELS.keys()}
            sets = {"all": self.overall} | elements
            sets |= {f"{errors['size']} atoms": errors for errors in (self.by_size if by_size else [])}
            rows = [[label, *(errors[key] for errors in sets.values())] for key, label in SHIELDING_LABELS.items()]
            print_table(f"Errors per atom: {self.title}", ["", *sets], rows)
            for row in (row for name, row in self.further.items() if name not in elements):
                print("  ".join(f"{name} {cell(value)}" for name, value in row.items()))
            return
        within = "composition" if "composition" in self.by_size[0] else "size"
        if by_size:
            kind = "composition" if within == "composition" else "cluster size"
            _print_energy_table(f"Errors by {kind}: {self.title}", self.by_size, within)
        _print_energy_table(f"Errors: {self.title}", [self.overall], within)
        for name, row in self.further.items():
            _print_energy_table(f"Errors: {TITLES.get(name, name)}", [row], within)


def _print_energy_table(title: str, rows: Sequence[Mapping[str, Any]], within: str):
    columns = [ENERGY_LABELS[key].replace("within a size", f"within a {within}") for key in rows[0]]
    print_table(title, columns, [list(row.values()) for row in rows], words=())


def _for_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def run_figures(folder: Path, predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray) -> dict[str, Figure]:
    """Learning curve, parity plot and errors by size of a run of energies.

    Args:
        folder: Folder of the run.
        predicted: Energies ``[num_graphs]`` in eV.
        target: Labels ``[num_graphs]`` in eV.
        sizes: Number of atoms of each cluster ``[num_graphs]``.
    """
    figures = {
        "parity": plots.parity(target, predicted, sizes),
        "error_by_size": plots.error_by_size(metrics_by_size(predicted, target, sizes)),
    }
    if (folder / HISTORY).is_file():
        names = ("epoch", "train_mae", "val_mae")
        history = read_columns(folder / HISTORY, names, "restore it, or remove it to omit the learning curve")
        figures["learning_curve"] = plots.learning_curve(*(history[name] for name in names))
    return figures

"""Predictions beside labels: errors of energies, shieldings and forces, baselines, and zeros of energies."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from pyg_clusters.composition import comparable, composition_names, compositions
from pyg_clusters.datasets.label_reading import RELATED, SAME_UNIT
from pyg_clusters.datasets.training_data import MAX_TRAINING_CLUSTERS, TrainingData
from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.result import Evaluation
from pyg_clusters.frames.block import FrameBlock, offsets
from pyg_clusters.frames.checks import atom_numbers
from pyg_clusters.geometry import ptr_to_batch, whole_clusters
from pyg_clusters.inference.calibration import Calibration
from pyg_clusters.inference.predictor import Predictor
from pyg_clusters.metrics import (
    SHIFTS,
    energy_metrics,
    interval_metrics,
    look_like_shifts,
    metrics_by_size,
    mixed_zeros,
    shielding_metrics,
)
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.structures.duplicates import copies
from pyg_clusters.units import MEV

MUCH_LARGER: float = 5.0  # energies have a different zero if their errors exceed their variation by this factor

SMALLEST_SHIFT: float = 0.1
"""Smallest difference between two zeros in eV per atom that is distinguished from an error of the model."""

ATOMS_AT_ONCE: int = 4096  # approximate number of atoms whose forces are calculated together

SHIFT_OF_FEW: float = 1.0  # the same if there are too few clusters to estimate their variation

PROVEN_SHIFT: float = 5.0
"""Shift in eV per atom that proves different zeros: the error of an untrained model is about the cohesive energy, 3
to 4 eV for most metals."""


@dataclass
class Compared:
    """Predictions and labels: energies ``[num_graphs]`` in eV, or shieldings ``[num_atoms]`` in ppm."""

    predicted: np.ndarray
    target: np.ndarray
    spread: np.ndarray | None  # standard deviations of the predictions, if the model has them
    z: np.ndarray  # atomic numbers [num_atoms]
    pos: np.ndarray | None  # positions [num_atoms, 3] in Å, if known
    ptr: np.ndarray  # offsets of the clusters [num_graphs + 1]
    groups: np.ndarray  # groups of related clusters [num_graphs]
    per_atom: bool

    @property
    def sizes(self) -> np.ndarray:
        """Number of atoms of each cluster ``[num_graphs]``."""
        return np.diff(self.ptr)

    @cached_property
    def kinds(self) -> np.ndarray:
        """Size or composition of each cluster ``[num_graphs]``, within which ranks are compared."""
        return comparable(composition_names(self.z, self.ptr), self.sizes)

    @property
    def intervals_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of atoms and group of each prediction, for intervals."""
        if self.per_atom:
            return np.ones(len(self.predicted)), self.groups.repeat(self.sizes)
        return self.sizes, self.groups

    @property
    def error(self) -> np.ndarray:
        """Predictions minus labels, in double precision."""
        return self.predicted.astype(float) - self.target


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


def mean_of_others(z: np.ndarray, ptr: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Mean energy ``[num_graphs]`` in eV of the other clusters of the composition; NaN for the only one.

    Example:
        >>> mean_of_others(np.full(9, 31), np.array([0, 2, 4, 6, 9]), np.array([-1.0, -3.0, -2.0, -4.0]))
        array([-2.5, -1.5, -2. ,  nan])
    """
    _, kind, numbers = np.unique(composition_names(z, ptr), return_inverse=True, return_counts=True)
    total, number = np.bincount(kind, weights=energy)[kind], numbers[kind]
    return np.where(number > 1, (total - energy) / np.maximum(number - 1, 1), np.nan)


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

    mean: CompositionMean | None  #: Mean energy per composition; ``None`` for values per atom.
    clusters: Structures | None  #: Structures; ``None`` if there are too many.

    @classmethod
    def of(cls, data: TrainingData) -> "TrainingSet":
        """Training set of training data."""
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
        return cls(None if data.per_atom else CompositionMean(numbers, ptr, np.concatenate(energy)), clusters)


def training_copies(compared: Compared, training_set: TrainingSet | None) -> tuple[np.ndarray, list[str]]:
    """Whether each cluster is a copy of a training cluster ``[num_graphs]``, and remarks to print."""
    known = np.zeros(len(compared.sizes), dtype=bool)
    if training_set is None:
        return known, ["the training set of the model is not available: these clusters may have been part of it"]
    if compared.pos is not None and training_set.clusters is not None:
        known = copies(compared.z, compared.pos, compared.ptr, training_set.clusters) >= 0
    if not known.any():
        return known, []
    count = "all" if known.all() else f"{int(known.sum()):,}"
    return known, [
        f"warning: {count} of these {len(known):,} clusters are copies of structures that the model was trained on: "
        "their errors do not show how well it predicts new structures"
    ]


def energy_context(compared: Compared, training_set: TrainingSet | None) -> tuple[dict[str, dict], list[str]]:
    """Baselines for the errors of a model, and remarks on the clusters that it was evaluated on.

    Args:
        compared: Energies and their predictions; without positions, copies are not searched for.
        training_set: Training set of the model, if available.

    Returns:
        Rows of errors by name, and lines to print.
    """
    z, ptr, predicted, target = compared.z, compared.ptr, compared.predicted, compared.target
    sizes, kinds = compared.sizes, compared.kinds
    rows: dict[str, dict] = {}
    lines: list[str] = []
    if mixed := mixed_zeros(target, sizes, kinds):
        lines.append(f"warning: {mixed}")
    elif zero := other_zero(z, ptr, predicted, target):
        lines.append(f"warning: {zero}")
        rows["on_the_zero_of_the_labels"] = energy_metrics(zero.without, target, sizes, kinds)
    known, remarks = training_copies(compared, training_set)
    if training_set is not None and training_set.mean is not None:
        rows["baseline"] = energy_metrics(training_set.mean(z, ptr), target, sizes, kinds)
    elif (others := ~np.isnan(mean := mean_of_others(z, ptr, target))).any():
        row = energy_metrics(mean[others], target[others], sizes[others], kinds[others])
        rows["baseline_of_these_labels"] = row | {"spearman_within_size": float("nan")}  # -1 for any labels
    if known.any() and not known.all():
        new = ~known
        rows["new_structures"] = energy_metrics(predicted[new], target[new], sizes[new], kinds[new])
    return rows, lines + remarks


def evaluation_of(
    title: str,
    compared: Compared,
    training_set: TrainingSet | None = None,
    calibration: Calibration | None = None,
    coverage: float | None = None,
) -> Evaluation:
    """Errors of predictions; of energies with the baselines of :func:`energy_context`."""
    predicted, target, sizes = compared.predicted, compared.target, compared.sizes
    intervals = {}
    if calibration is not None and coverage is not None:
        atoms, groups = compared.intervals_of
        unit = ("ppm", 1.0) if compared.per_atom else ()
        half_width = calibration.half_width(coverage, atoms, compared.spread)
        intervals = {"intervals": interval_metrics(compared.error, half_width, coverage, groups, *unit)}
    if compared.per_atom:
        size_of_atom = sizes.repeat(sizes)
        masks = {size: size_of_atom == size for size in np.unique(sizes).tolist()}
        by_size = [{"size": size, **shielding_metrics(predicted[mask], target[mask])} for size, mask in masks.items()]
        elements = np.unique(compared.z) if len(np.unique(compared.z)) > 1 else ()  # no common distribution
        parts = {chemical_symbols[number]: compared.z == number for number in elements}
        known, remarks = training_copies(compared, training_set)
        if known.any() and not known.all():
            parts["new_structures"] = ~known.repeat(sizes)
        further = {name: shielding_metrics(predicted[mask], target[mask]) for name, mask in parts.items()}
        remarks += ["warning: " + SHIFTS] if look_like_shifts(predicted, target) else []
        return Evaluation(title, True, shielding_metrics(predicted, target), by_size, further | intervals, remarks)
    context, remarks = energy_context(compared, training_set)
    overall = energy_metrics(predicted, target, sizes, compared.kinds)
    by_size = metrics_by_size(predicted, target, sizes, compared.kinds)
    return Evaluation(title, False, overall, by_size, context | intervals, remarks)


def force_labels(block: FrameBlock, name: str) -> np.ndarray:
    """Forces of the frames of a block ``[num_atoms, 3]``."""
    forces = atom_numbers(block, name, single=False)
    if forces.shape != block.pos.shape:
        raise InputError(f"{block.file}: {name!r} is not three numbers per atom; name the forces with --forces")
    return forces


def forces_of(predictor: Predictor, z: Tensor, pos: Tensor, ptr: Tensor) -> np.ndarray:
    """Forces of a model on clusters, ``[num_atoms, 3]`` in eV/Å."""
    forces = []
    for atoms, part in whole_clusters(ptr, ATOMS_AT_ONCE):
        inputs = (values.to(predictor.device) for values in (z[atoms], pos[atoms], ptr_to_batch(part)))
        forces.append(energy_and_forces(predictor.model, *inputs)[1].cpu())
    return torch.cat(forces).numpy()


def force_errors(predicted: np.ndarray, forces: np.ndarray) -> dict[str, float]:
    """Errors of the force components in meV/Å."""
    error = MEV * (predicted - forces)
    return {
        "mae_mev_per_angstrom": float(np.abs(error).mean()),
        "rmse_mev_per_angstrom": float(np.sqrt(np.square(error).mean())),
    }


def force_remarks(predicted: np.ndarray, forces: np.ndarray) -> list[str]:
    """Warning about forces that are proportional to those of the model, but of another sign or unit."""
    squares, product = np.square(predicted).sum(), (predicted * forces).sum()
    size = np.sqrt(squares * np.square(forces).sum())
    if not size > 0 or abs(product) < RELATED * size or 1 / SAME_UNIT < product / squares < SAME_UNIT:
        return []
    return [
        f"warning: the forces of the frames are {product / squares:.3g} times those of the model (correlation "
        f"{product / size:.2f}): check their sign and their unit (the unit of the energies per Å)"
    ]

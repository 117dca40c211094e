"""Training set of a run, beside which its errors are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pyg_clusters.composition import comparable, composition_names
from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.baseline import CompositionMean, other_zero
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.models.checkpoint import is_ensemble
from pyg_clusters.structures.duplicates import copies
from pyg_clusters.training import ClusterDataModule
from pyg_clusters.training.copies import copies_among
from pyg_clusters.training.run import CONFIGURATION, data_of_run

MOST_CLUSTERS: int = 100_000
"""Copies are not looked for in larger training sets."""

TITLES = {
    "on_the_zero_of_the_labels": "the model, brought to the zero of the labels",
    "baseline": "mean per composition of the training set, the baseline",
    "baseline_of_these_labels": "mean per composition of these labels, the baseline",
    "new_structures": "clusters that are no copies of structures trained on",
}
"""Titles of rows of errors by their names."""


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
        mean: Their mean energy per composition.
        clusters: Their structures; none where there are too many.
    """

    mean: CompositionMean
    clusters: Clusters | None

    @classmethod
    def of(cls, data: ClusterDataModule) -> "TrainingSet":
        """The training set of a data module of energies."""
        few = data.split.train.numel() <= MOST_CLUSTERS
        z, pos, sizes, energy = [], [], [], []
        for block in data.batches.blocks(data.split.train, positions=few):
            z.append(block.z.numpy())
            sizes.append(block.ptr.diff().numpy())
            energy.append(data.labels(block).double().numpy())
            if few and "pos" in block:
                pos.append(block.pos.numpy())
        numbers, ptr = np.concatenate(z), np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        clusters = Clusters(numbers, np.concatenate(pos), ptr) if pos else None
        return cls(CompositionMean(numbers, ptr, np.concatenate(energy)), clusters)

    @classmethod
    def of_run(cls, folder: Path) -> "TrainingSet | None":
        """The training set of a run, if the folder is that of a run and its data are at hand."""
        if not (is_ensemble(folder) or (folder / CONFIGURATION).is_file()):
            return None
        try:
            return cls.of(data_of_run(folder))
        except InputError:
            return None

    def copies(self, clusters: Clusters) -> np.ndarray:
        """Whether each cluster is a copy of one of the training set, ``[num_graphs]``."""
        if self.clusters is None:
            return np.zeros(len(clusters.ptr) - 1, dtype=bool)
        return copies(*clusters, self.clusters) >= 0


def copies_in_split(data: ClusterDataModule) -> list[str]:
    """Warning of clusters to be judged on that are copies of some to train on, a line; none if there are none."""
    if data.split.train.numel() > MOST_CLUSTERS:
        return [f"copies across the split were not looked for: more than {MOST_CLUSTERS:,} clusters to train on"]
    if "pos" not in data.batches.stored(data.split.train[:1].tolist()):
        return []
    parts = {"validation": data.split.val, "test": data.split.test}
    found = {name: copies_among(data.batches, part, data.split.train) for name, part in parts.items() if part.numel()}
    if not any(number for number, _ in found.values()):
        return []
    counts = " and ".join(f"{number} of {compared} {name} clusters" for name, (number, compared) in found.items())
    return [
        f"warning: {counts} are copies of structures in the training part: their errors do not tell how the model "
        "predicts new structures; --data.copies_together true (with --data.split group or random) holds copies together"
    ]


def energy_context(
    predicted: np.ndarray,
    target: np.ndarray,
    z: np.ndarray,
    pos: np.ndarray | None,
    ptr: np.ndarray,
    trained: TrainingSet | None,
) -> tuple[dict[str, dict], list[str]]:
    """Errors to read those of a model beside, and remarks on the clusters that it was evaluated on.

    Args:
        predicted: Energies ``[num_graphs]`` in eV.
        target: Labels ``[num_graphs]`` in eV.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å; without them copies are not looked for.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        trained: The training set of the model, where it is at hand.

    Returns:
        Further rows of errors by their names, and lines to print.
    """
    sizes = np.diff(ptr)
    kinds = comparable(composition_names(z, ptr), sizes)
    rows: dict[str, dict] = {}
    lines: list[str] = []
    if zero := other_zero(z, ptr, predicted, target):
        lines.append(f"warning: {zero}")
        rows["on_the_zero_of_the_labels"] = energy_metrics(zero.without, target, sizes, kinds)
    if trained is None:
        mean, name = CompositionMean(z, ptr, target), "baseline_of_these_labels"
        lines.append("the training set of the model is not at hand: whether these clusters were in it is not known")
    else:
        mean, name = trained.mean, "baseline"
    rows[name] = energy_metrics(mean(z, ptr), target, sizes, kinds)
    if trained is not None and pos is not None:
        known = trained.copies(Clusters(z, pos, ptr))
        lines += _copies_line(known)
        if known.any() and not known.all():
            rest = ~known
            rows["new_structures"] = energy_metrics(predicted[rest], target[rest], sizes[rest], kinds[rest])
    return rows, lines


def _copies_line(known: np.ndarray) -> Sequence[str]:
    if not known.any():
        return []
    how = "all" if known.all() else f"{int(known.sum())}"
    return [
        f"warning: {how} of these {len(known)} clusters are copies of structures that the model was trained on: their "
        "errors do not tell how it predicts new ones"
    ]

"""What the labels of sodium clusters hold, atom by atom, beside the figures of Kaneko et al. 2023."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from pyg_clusters.datasets import POPULATIONS, ClusterDataset
from pyg_clusters.training.data import ClusterBatches
from pyg_clusters.transforms.running_coordination import SODIUM_RADII, running_coordination

RADIUS: float = 4.0
"""Neighbours are counted within this distance (in Å) in Fig. 2 and 6 of the paper."""

STEP: float = 0.01
"""Standard deviation of the step of a coordination number in Å."""


@dataclass(frozen=True)
class Labels:
    """Values of all atoms of a set of clusters, ``[num_atoms]`` each.

    Attributes:
        shielding: In ppm.
        sizes: Size of the cluster of each atom.
        coordination: Neighbours within 4.0 Å.
        populations: Gross orbital population of each function, in electrons.
        clusters: How many clusters there are.
    """

    shielding: np.ndarray
    sizes: np.ndarray
    coordination: np.ndarray
    populations: dict[str, np.ndarray]
    clusters: int

    @classmethod
    def of(cls, dataset: ClusterDataset) -> "Labels":
        """Those of a data set of shieldings and populations."""
        batch = ClusterBatches(dataset).stored(range(len(dataset)))
        sizes = batch.ptr.diff()
        return cls(
            batch.y.numpy(),
            sizes.repeat_interleave(sizes).numpy(),
            running_coordination(batch.pos, batch.ptr, [RADIUS], STEP).squeeze(-1).numpy(),
            dict(zip(POPULATIONS, batch.populations.numpy().T, strict=True)),
            len(dataset),
        )


@dataclass(frozen=True)
class LabelledCluster:
    """A cluster with its shieldings.

    Attributes:
        name: Size and origin.
        atoms: The structure.
        shielding: In ppm ``[num_atoms]``.
        running: Running coordination numbers at :data:`~pyg_clusters.transforms.running_coordination.SODIUM_RADII`
            ``[num_atoms, num_radii]``.
    """

    name: str
    atoms: Atoms
    shielding: np.ndarray
    running: np.ndarray

    @property
    def coordination(self) -> np.ndarray:
        """Neighbours within 4.0 Å ``[num_atoms]``."""
        return self.running[:, SODIUM_RADII.index(RADIUS)]


def labelled_cluster(dataset: ClusterDataset, place: int, kind: str) -> LabelledCluster:
    """A cluster of a data set.

    Args:
        dataset: With shieldings.
        place: Number of the cluster in it.
        kind: What is said of it in its name.
    """
    batch = ClusterBatches(dataset).stored([place])
    running = running_coordination(batch.pos, batch.ptr, SODIUM_RADII, STEP).numpy()
    atoms = Atoms(batch.z.numpy(), batch.pos.numpy())
    return LabelledCluster(f"Na{len(atoms)}, {kind}", atoms, batch.y.numpy(), running)


def relaxed_pairs(dataset: ClusterDataset) -> list[tuple[LabelledCluster, LabelledCluster]]:
    """Random clusters beside what they were relaxed to, as far as both are labelled.

    Args:
        dataset: With ``relaxed`` for each cluster; those made from one random cluster are of one group.
    """
    relaxed, groups = ClusterBatches(dataset).stored(range(len(dataset))).relaxed.flatten() > 0, dataset.groups
    pairs = []
    for place in (~relaxed).nonzero().flatten().tolist():
        partners = (relaxed & (groups == groups[place])).nonzero().flatten().tolist()
        pairs += [
            (labelled_cluster(dataset, place, "as grown"), labelled_cluster(dataset, partner, "relaxed"))
            for partner in partners
        ]
    return pairs


def clusters_of_figure_7(
    dataset: ClusterDataset,
    pairs: Sequence[tuple[LabelledCluster, LabelledCluster]],
    every: ClusterDataset,
) -> list[LabelledCluster]:
    """The clusters that Fig. 7 of the paper is made of, as far as there are such.

    Of the largest size of which there is a random cluster beside what it relaxes to: the cluster of the lowest energy,
    the random one of the lowest shielding, and the same relaxed. Without such pairs two random ones of one size: that
    of the lowest shielding of all, and that whose lowest shielding is the highest.

    Args:
        dataset: Random clusters.
        pairs: Random clusters beside what they were relaxed to.
        every: Random and relaxed clusters, with their ``energy``.
    """
    if pairs:
        grown, relaxed = min(pairs, key=lambda pair: (-len(pair[0].atoms), float(pair[0].shielding.min())))
        energy = ClusterBatches(every).stored(range(len(every))).energy.flatten()
        place = int(energy.where(every.sizes == len(grown.atoms), torch.inf).argmin())
        return [labelled_cluster(every, place, "the lowest energy"), grown, relaxed]
    batch = ClusterBatches(dataset).stored(range(len(dataset)))
    lowest = np.array([values.min() for values in batch.y.split(batch.ptr.diff().tolist())])
    worst = int(lowest.argmin())
    same_size = (dataset.sizes == dataset.sizes[worst]).numpy()
    best = int(np.where(same_size, lowest, -np.inf).argmax())
    kinds = {worst: "as grown, with the lowest shielding", best: "as grown, without low shieldings"}
    return [labelled_cluster(dataset, place, kind) for place, kind in kinds.items()]

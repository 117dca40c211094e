"""What the topological atomic descriptor (TAD) tells of a set of clusters, and what it cannot tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

from pyg_clusters.units import KCAL_PER_MOL

DISTINCT_ENERGY: float = 1e-3
"""Two isomers are distinct if their energies differ by more than this, in eV per cluster."""

DISTINCT_STRUCTURE: float = 0.05
"""Two isomers are distinct if their sorted pair distances differ by more than this, root mean square in Å."""

SHELL_LETTERS = "JKLMNOPQRSTUVWXYZ"


def shell_name(shell: int) -> str:
    """J, K, L of shells 0, 1, 2, and so on through the alphabet; behind Z the number of the shell."""
    return SHELL_LETTERS[shell] if shell < len(SHELL_LETTERS) else str(shell)


def empty_shells(counts: np.ndarray) -> list[int]:
    """Shells in which no atom has a neighbour.

    Args:
        counts: Shell counts ``[num_atoms, num_shells]``.
    """
    return np.flatnonzero(~np.asarray(counts).any(axis=0)).tolist()


def mean_counts_by_size(counts: np.ndarray, ptr: np.ndarray) -> list[dict[str, float | int]]:
    """Mean number of neighbours of an atom in each shell, by cluster size (Modee et al. 2021, section 2.2 and Fig. 2).

    Args:
        counts: Shell counts ``[num_atoms, num_shells]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.

    Returns:
        A row per size: ``size``, ``num_clusters``, and ``mean_J``, ``mean_K``, ...; the means add up to the size less
        one.
    """
    counts, sizes = np.asarray(counts), np.diff(ptr)
    size_of_atom = np.repeat(sizes, sizes)
    rows = []
    for size in np.unique(sizes):
        means = counts[size_of_atom == size].mean(axis=0)
        row = {"size": int(size), "num_clusters": int((sizes == size).sum())}
        rows.append(row | {f"mean_{shell_name(shell)}": float(mean) for shell, mean in enumerate(means)})
    return rows


@dataclass
class SharedDescriptor:
    """Distinct isomers whose atoms have the same descriptors, in another order.

    Attributes:
        size: Number of atoms of each.
        frames: Places of the isomers in the set, the lowest energy first, ``num_isomers`` of them.
        energies: Their energies in eV ``[num_isomers]``, where they are known.
    """

    size: int
    frames: tuple[int, ...]
    energies: np.ndarray | None

    @property
    def spread(self) -> float:
        """Highest less lowest energy in kcal/mol; not-a-number if they are not known."""
        return float(np.ptp(self.energies) * KCAL_PER_MOL) if self.energies is not None else float("nan")


@dataclass
class Collisions:
    """How many distinct isomers share one multiset of descriptors, and how far apart in energy they are.

    Attributes:
        num_frames: Number of structures that were compared.
        num_isomers: Number of distinct isomers among them.
        num_multisets: Number of distinct multisets of descriptors.
        shared: The multisets of more than one isomer, the largest spread of energies first.
        error_floor: Smallest mean absolute error, in kcal/mol over all isomers, that any energy which depends on the
            multiset alone can have on this set: isomers that share one get its median. Not-a-number without energies.
            DART also sees which atom is in which shell of which other one, so that this is no bound for it.
    """

    num_frames: int
    num_isomers: int
    num_multisets: int
    shared: list[SharedDescriptor]
    error_floor: float

    @property
    def num_colliding(self) -> int:
        """Number of isomers that share their multiset with another one."""
        return sum(len(group.frames) for group in self.shared)

    @property
    def rate(self) -> float:
        """Fraction of the isomers that share their multiset with another one."""
        return self.num_colliding / self.num_isomers

    @property
    def mean_spread(self) -> float:
        """Mean over the shared multisets of the highest less the lowest energy, in kcal/mol."""
        return float(np.mean([group.spread for group in self.shared])) if self.shared else float("nan")

    @property
    def largest_spread(self) -> float:
        """Largest difference of two energies of one multiset, in kcal/mol."""
        return float(np.max([group.spread for group in self.shared])) if self.shared else float("nan")


def collisions(
    z: np.ndarray,
    pos: np.ndarray,
    ptr: np.ndarray,
    counts: np.ndarray,
    energy: np.ndarray | None = None,
    energy_tolerance: float = DISTINCT_ENERGY,
    structure_tolerance: float = DISTINCT_STRUCTURE,
) -> Collisions:
    """Finds the distinct isomers that a set of descriptors does not tell apart.

    Two structures share a multiset if each descriptor (with the element of its atom) occurs equally often in both.
    Structures of different multisets are different isomers. Structures of one multiset are the same isomer if neither
    their energies differ by more than 1 meV per cluster, nor their pair distances, sorted, by more than 0.05 Å (root
    mean square). Sorted distances do not depend on the position, the orientation or the order of the atoms, nor on
    reflection: mirror images are one isomer, as they have one energy. Without energies, the distances decide alone.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        counts: Shell counts ``[num_atoms, num_shells]``.
        energy: Energies ``[num_graphs]`` in eV.
        energy_tolerance: In eV per cluster.
        structure_tolerance: In Å.
    """
    tolerances = energy_tolerance, structure_tolerance
    multisets = same_multiset(z, ptr, counts)
    groups = [_distinct(frames, pos, ptr, energy, tolerances) for frames in multisets]
    sharing = [group for group in groups if len(group) > 1]
    energies = [None if energy is None else energy[group] for group in sharing]
    shared = [
        SharedDescriptor(int(np.diff(ptr)[group[0]]), tuple(group), values)
        for group, values in zip(sharing, energies, strict=True)
    ]
    num_isomers = sum(map(len, groups))
    deviations = [np.abs(values - np.median(values)).sum() for values in energies if values is not None]
    floor = float("nan") if energy is None else float(sum(deviations) / num_isomers * KCAL_PER_MOL)
    if energy is not None:
        shared.sort(key=lambda group: -group.spread)
    return Collisions(len(ptr) - 1, num_isomers, len(multisets), shared, floor)


def same_multiset(z: np.ndarray, ptr: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Clusters by their multiset of descriptors and elements; the arguments are those of :func:`collisions`."""
    rows = np.column_stack([z, counts]).astype(np.int32)
    cluster = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    rows = rows[np.lexsort((*rows.T, cluster))]  # within each cluster in one order
    groups: dict[bytes, list[int]] = {}
    for number, (first, last) in enumerate(zip(ptr[:-1], ptr[1:], strict=True)):
        groups.setdefault(rows[first:last].tobytes(), []).append(number)
    return list(groups.values())


def _distinct(
    frames: Sequence[int],
    pos: np.ndarray,
    ptr: np.ndarray,
    energy: np.ndarray | None,
    tolerances: tuple[float, float],
) -> list[int]:
    """The first structure of each isomer among structures of one multiset, by energy."""
    if len(frames) == 1:
        return list(frames)
    values = np.zeros(len(frames)) if energy is None else energy[list(frames)]
    isomers: list[tuple[int, float, np.ndarray]] = []
    for place in np.argsort(values, kind="stable"):
        frame, value = frames[place], float(values[place])
        distances = np.sort(pdist(pos[ptr[frame] : ptr[frame + 1]]))
        if not any(_same(value, distances, known, others, tolerances) for _, known, others in isomers):
            isomers.append((frame, value, distances))
    return [frame for frame, _, _ in isomers]


def _same(a: float, distances_a: np.ndarray, b: float, distances_b: np.ndarray, tolerances: tuple[float, float]):
    energy_tolerance, structure_tolerance = tolerances
    if abs(a - b) > energy_tolerance:
        return False
    return not distances_a.size or np.sqrt(np.square(distances_a - distances_b).mean()) <= structure_tolerance

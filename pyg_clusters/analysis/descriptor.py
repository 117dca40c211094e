"""Shell counts, suggested radii and collisions of the topological atomic descriptor (TAD) in a set of clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from pyg_clusters.analysis.frame_set import FrameSet
from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.pairs import shell_counts
from pyg_clusters.positions import centred
from pyg_clusters.structures.superposition import distances_by_elements
from pyg_clusters.terminal import count_of, span
from pyg_clusters.units import KCAL_PER_MOL

BIN_WIDTH: float = 0.05  # width of a bin of g(r) in Å

MAX_RANGE: float = 60.0
"""Maximum distance of g(r) in Å."""

FALLBACK: tuple[float, ...] = (1.25, 2.2)
"""Shell radii in bond lengths if g(r) suggests none: about those of gallium, gold and copper."""

DISTINCT_ENERGY: float = 1e-3
"""Two isomers are distinct if their energies differ by more than this, in eV per cluster."""

DISTINCT_STRUCTURE: float = 0.05
"""Two isomers are distinct if their pair distances, sorted within each pair of elements, differ by more than this, root
mean square in Å."""

SHELL_LETTERS = "JKLMNOPQRSTUVWXYZ"


def shell_name(shell: int) -> str:
    """Name shells 0, 1, 2, ... by letters J, K, L, ..., Z, and later shells by their index."""
    return SHELL_LETTERS[shell] if shell < len(SHELL_LETTERS) else str(shell)


def shell_text(shell: int, radii: Sequence[float]) -> str:
    """Letter and distances of a shell."""
    inner = f"{radii[shell - 1]:g}" if shell else ""
    outer = f"{radii[shell]:g}" if shell < len(radii) else ""
    limits = f"{inner} to {outer}" if inner and outer else f"below {outer}" if outer else f"beyond {inner}"
    return f"{shell_name(shell)}: {limits} Å"


def lengths(values: Sequence[float]) -> str:
    """Lengths in Å as text."""
    return " and ".join(f"{value:.4g}" for value in values) + " Å" if values else "none"


def empty_shells(counts: np.ndarray) -> list[int]:
    """Shells in which no atom has a neighbour, from counts ``[num_atoms, num_shells]``."""
    return np.flatnonzero(~np.asarray(counts).any(axis=0)).tolist()


def mean_counts_by_size(counts: np.ndarray, ptr: np.ndarray) -> list[dict[str, float | int]]:
    """Average the shell counts over atoms by cluster size (Modee et al. 2021, section 2.2 and Fig. 2).

    Args:
        counts: Shell counts ``[num_atoms, num_shells]``.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.

    Returns:
        A row per size: ``size``, ``num_clusters``, and ``mean_J``, ``mean_K``, ...; the means add up to the size minus
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
    """Distinct isomers with the same multiset of descriptors."""

    size: int  #: Number of atoms.
    frames: tuple[int, ...]  #: Indices of the isomers in the set by increasing energy ``[num_isomers]``.
    energies: np.ndarray | None  #: Their energies in eV ``[num_isomers]``, if known.

    @property
    def spread(self) -> float:
        """Highest minus lowest energy in kcal/mol; NaN if they are not known."""
        return float(np.ptp(self.energies) * KCAL_PER_MOL) if self.energies is not None else float("nan")


@dataclass
class Collisions:
    """Distinct isomers that share a multiset of descriptors, and their differences in energy."""

    num_frames: int  #: Number of structures compared.
    num_isomers: int  #: Number of distinct isomers among them.
    num_multisets: int  #: Number of distinct multisets of descriptors.
    shared: list[SharedDescriptor]  #: Multisets of more than one isomer, by decreasing spread of energies.
    #: Lower bound of the mean absolute error in kcal/mol, over all isomers of this set, of any function of the
    #: multiset. (The best such function predicts the median energy of the isomers that share a multiset.) NaN without
    #: energies. It is not a bound for DART, which also uses the shell relations between atoms.
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
        """Mean spread of the shared multisets in kcal/mol."""
        return float(np.mean([group.spread for group in self.shared])) if self.shared else float("nan")

    @property
    def largest_spread(self) -> float:
        """Largest spread of a shared multiset in kcal/mol."""
        return float(np.max([group.spread for group in self.shared])) if self.shared else float("nan")


def collisions(
    z: np.ndarray,
    pos: np.ndarray,
    ptr: np.ndarray,
    counts: np.ndarray,
    energy: np.ndarray | None = None,
    charge: np.ndarray | None = None,
) -> Collisions:
    """Find distinct isomers that share a multiset of descriptors.

    Two structures share a multiset if each descriptor (with the element of its atom) occurs the same number of times in
    both. Structures with different multisets are different isomers. Structures with the same multiset are the same
    isomer if their energies agree within 1 meV per cluster and their pair distances, sorted within each pair of
    elements, within 0.05 Å (root mean square). Sorted distances are invariant to translation, rotation, reflection and
    permutation of atoms; mirror images are therefore the same isomer. Without energies, only the distances are
    compared. Clusters of different charge are not isomers.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        counts: Shell counts ``[num_atoms, num_shells]``.
        energy: Energies ``[num_graphs]`` in eV.
        charge: Charges ``[num_graphs]`` in e; equal by default.
    """
    multisets = same_multiset(z, ptr, counts, charge)
    groups = [_distinct(frames, z, pos, ptr, energy) for frames in multisets]
    sizes, num_isomers = np.diff(ptr), sum(map(len, groups))
    shared = [
        SharedDescriptor(int(sizes[group[0]]), tuple(group), None if energy is None else energy[group])
        for group in groups
        if len(group) > 1
    ]
    floor = float("nan")
    if energy is not None:
        values = [energy[list(group.frames)] for group in shared]
        floor = float(sum(np.abs(each - np.median(each)).sum() for each in values) / num_isomers * KCAL_PER_MOL)
        shared.sort(key=lambda group: -group.spread)
    return Collisions(len(ptr) - 1, num_isomers, len(multisets), shared, floor)


def same_multiset(
    z: np.ndarray, ptr: np.ndarray, counts: np.ndarray, charge: np.ndarray | None = None
) -> list[list[int]]:
    """Group clusters by their charge and their multiset of descriptors and elements; see :func:`collisions`."""
    rows = np.column_stack([z, counts]).astype(np.int32)
    cluster = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    rows = rows[np.lexsort((*rows.T, cluster))]  # a canonical order within each cluster
    groups: dict[tuple[int, bytes], list[int]] = {}
    for index, (first, last) in enumerate(pairwise(ptr)):
        of_cluster = 0 if charge is None else int(charge[index])
        groups.setdefault((of_cluster, rows[first:last].tobytes()), []).append(index)
    return list(groups.values())


def _distinct(
    frames: Sequence[int], z: np.ndarray, pos: np.ndarray, ptr: np.ndarray, energy: np.ndarray | None
) -> list[int]:
    """Lowest-energy structure of each isomer among structures of one multiset."""
    if len(frames) == 1:
        return list(frames)
    values = np.zeros(len(frames)) if energy is None else energy[list(frames)]
    isomers: list[tuple[int, float, np.ndarray]] = []
    for index in np.argsort(values, kind="stable"):
        frame, value = frames[index], float(values[index])
        atoms = slice(ptr[frame], ptr[frame + 1])
        distances = distances_by_elements(Atoms(z[atoms], pos[atoms]))
        if not any(_same(value, distances, known, others) for _, known, others in isomers):
            isomers.append((frame, value, distances))
    return [frame for frame, _, _ in isomers]


def _same(a: float, distances_a: np.ndarray, b: float, distances_b: np.ndarray) -> bool:
    if abs(a - b) > DISTINCT_ENERGY:
        return False
    return not distances_a.size or np.sqrt(np.square(distances_a - distances_b).mean()) <= DISTINCT_STRUCTURE


@dataclass
class Description:
    """Pair-distance distribution, shell counts and collisions of a set of clusters."""

    frames: FrameSet  #: The clusters.
    distribution: PairDistribution  #: Pair-distance distribution.
    suggested: tuple[float, ...]  #: Shell radii in Å suggested from it; empty if it has too few peaks.
    radii: tuple[float, ...]  #: Shell radii in Å that were used.
    origin: str  #: Source of these radii.
    counts: np.ndarray  #: Shell counts ``[num_atoms, num_shells]``.
    shells: list[dict[str, float | int]]  #: Mean counts by size.
    collisions: Collisions  #: Isomers with the same counts.
    target: str | None  #: Key of the energy, if any.
    out: str | None = None  #: Folder of the results, if they were written.

    @property
    def bad(self) -> list[BadFrame]:
        """Frames that were left out."""
        return self.frames.bad

    @property
    def lines(self) -> list[str]:
        """Summary as text."""
        frames, distribution, same = self.frames, self.distribution, self.collisions
        rows = len(np.unique(np.column_stack([frames.z, self.counts]), axis=0))
        elements = ", ".join(chemical_symbols[z] for z in np.unique(frames.z))
        means = ", ".join(f"{shell_name(shell)} {mean:.2f}" for shell, mean in enumerate(self.counts.mean(axis=0)))
        colliding = (
            f"isomers that share all counts: {same.num_colliding:,} of {same.num_isomers:,} ({same.rate:.2%}), in "
            f"{count_of(len(same.shared), 'multiset')}"
        )
        if self.target is None:
            colliding += " (--target NAME compares their energies)"
        elif same.shared:
            colliding += (
                f"; energies of a multiset are {same.mean_spread:.2f} kcal/mol apart on average, "
                f"{same.largest_spread:.2f} at most"
            )
        return [
            f"clusters: {len(frames):,} of {span(frames.sizes)} atoms ({elements}), {len(frames.z):,} atoms",
            f"shortest distance: {distribution.smallest_distance:.3f} Å, bond length: {distribution.bond_length:.2f} Å",
            f"suggested shell radii: {lengths(self.suggested)}",
            f"shell radii used: {lengths(self.radii)} ({self.origin})",
            f"mean counts per atom: {means}",
            f"distinct descriptors: {rows:,}",
            f"distinct isomers: {same.num_isomers:,} of {same.num_frames:,} structures",
            colliding,
        ]

    def __str__(self) -> str:
        written = [] if self.out is None else [f"tables, figures and report in {self.out}"]
        return "\n".join([*self.lines, *written])


def description_of(frames: FrameSet, radii: tuple[float, ...] | None = None, target: str | None = None) -> Description:
    """Describe a set of clusters.

    Args:
        frames: The clusters.
        radii: Shell radii in Å; by default those of gallium, for other elements those suggested from g(r), or else
            multiples of the bond length.
        target: Key of the energy (eV) among the properties of the frames.

    Raises:
        InputError: If no two atoms are within :data:`MAX_RANGE`, or no atom has a neighbour in one of the shells of
            ``radii``.
    """
    energy = None if target is None else frames.properties[target]
    radius = np.linalg.norm(centred(frames.pos, frames.ptr), axis=1).max()
    longest = float(2 * radius)  # an upper bound of all pair distances in Å
    distribution = pair_distribution(frames.pos, frames.ptr, min(longest + BIN_WIDTH, MAX_RANGE), BIN_WIDTH)
    if not distribution.g.any():
        raise InputError(f"no two atoms of a cluster are within {MAX_RANGE:g} Å of each other: give connected clusters")
    try:
        suggested = distribution.suggested_radii()
    except ValueError:
        suggested = ()
    if radii is not None:
        origin = "--radii"
    elif set(frames.z.tolist()) == {31}:
        radii, origin = GALLIUM_RADII, "Modee et al. 2021, for gallium"
    elif suggested:
        radii, origin = suggested, "suggested from g(r)"
    else:
        radii = tuple(round(share * distribution.bond_length, 2) for share in FALLBACK)
        shares = " and ".join(f"{share:g}" for share in FALLBACK)
        origin = f"fallback of {shares} bond lengths, as g(r) suggests none: choose others with --radii"
    pos, ptr = torch.from_numpy(frames.pos), torch.from_numpy(frames.ptr)
    counts = shell_counts(pos, ptr, radii).numpy()
    if origin == "--radii" and (empty := empty_shells(counts)):
        raise InputError(
            f"no atom of the set has a neighbour in shell {shell_text(empty[0], radii)}; the clusters "
            f"are at most {longest:.2f} Å across: choose other --radii"
        )
    return Description(
        frames=frames,
        distribution=distribution,
        suggested=suggested,
        radii=radii,
        origin=origin,
        counts=counts,
        shells=mean_counts_by_size(counts, frames.ptr),
        collisions=collisions(frames.z, frames.pos, frames.ptr, counts, energy, frames.charges),
        target=target,
    )

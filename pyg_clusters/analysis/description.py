"""What the descriptor sees of a set of clusters."""

from dataclasses import dataclass

import numpy as np
import torch

from pyg_clusters.analysis import plots_descriptor
from pyg_clusters.analysis.descriptor import (
    Collisions,
    collisions,
    empty_shells,
    mean_counts_by_size,
)
from pyg_clusters.analysis.pair_distribution import PairDistribution, pair_distribution
from pyg_clusters.datasets.frame_sets import FrameSet, energies_of
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import GALLIUM_RADII, shell_counts

MOST_RANGE = 60.0
"""Largest distance of g(r) in Å, where the clusters are longer."""

FALLBACK: tuple[float, ...] = (1.25, 2.2)
"""Shell radii in bond lengths where g(r) suggests none: about those of gallium, gold and copper."""


@dataclass
class Description:
    """What ``describe`` finds in a set of clusters.

    Attributes:
        frames: The clusters.
        distribution: Pair-distance distribution.
        minima: Its first two minima in Å; none where there are not so many.
        suggested: Shell radii in Å suggested from it; none where it has too few peaks.
        radii: The shell radii in Å that were used.
        origin: Where those come from.
        counts: Shell counts ``[num_atoms, num_shells]``.
        shells: Mean counts by size.
        shared: By the number of radii, from one to all, what the counts of those shells do not tell apart.
        target: Name of the energy, if there is one.
    """

    frames: FrameSet
    distribution: PairDistribution
    minima: tuple[float, ...]
    suggested: tuple[float, ...]
    radii: tuple[float, ...]
    origin: str
    counts: np.ndarray
    shells: list[dict[str, float | int]]
    shared: list[Collisions]
    target: str | None


def describe(
    frames: FrameSet,
    radii: tuple[float, ...] | None = None,
    target: str | None = None,
    r_max: float | None = None,
    bin_width: float = 0.05,
) -> Description:
    """Describes a set of clusters.

    Args:
        frames: The clusters.
        radii: Shell radii in Å; by default those of gallium, or those that g(r) suggests for other elements, or, where
            it suggests none, multiples of the bond length.
        target: Name of the energy (eV) among the properties of the frames.
        r_max: Largest distance of g(r) in Å; by default all distances.
        bin_width: Of g(r) in Å.

    Raises:
        InputError: If no two atoms are within ``r_max``, or no atom has a neighbour in one of the shells of ``radii``.
    """
    energy = None if target is None else energies_of(frames, target)
    longest = _longest(frames)
    r_max = r_max or min(longest + bin_width, MOST_RANGE)
    distribution = pair_distribution(frames.pos, frames.ptr, r_max, bin_width)
    if not distribution.g.any():
        raise InputError(f"no two atoms of a cluster are within --r-max {r_max:g} Å of each other; choose a larger one")
    minima, suggested = _minima(distribution)
    chosen = radii is not None
    if radii is not None:
        origin = "--radii"
    elif set(frames.z.tolist()) == {31}:
        radii, origin = GALLIUM_RADII, "Modee et al. 2021, for gallium"
    elif suggested:
        radii, origin = suggested, "suggested from g(r)"
    else:
        radii = tuple(round(share * distribution.bond_length, 2) for share in FALLBACK)
        shares = " and ".join(f"{share:g}" for share in FALLBACK)
        origin = f"fallback of {shares} bond lengths, as g(r) suggests none: --radii chooses others"
    pos, ptr = torch.from_numpy(frames.pos), torch.from_numpy(frames.ptr)
    counts = shell_counts(pos, ptr, radii).numpy()
    if chosen:
        _check_shells(counts, radii, longest)
    nested = [radii[:number] for number in range(1, len(radii) + 1)]
    return Description(
        frames=frames,
        distribution=distribution,
        minima=minima,
        suggested=suggested,
        radii=radii,
        origin=origin,
        counts=counts,
        shells=mean_counts_by_size(counts, frames.ptr),
        shared=[
            collisions(frames.z, frames.pos, frames.ptr, shell_counts(pos, ptr, inner).numpy(), energy)
            for inner in nested
        ],
        target=target,
    )


def _longest(frames: FrameSet) -> float:
    """Twice the distance of the outermost atom from the centre of its cluster in Å: no pair is further apart."""
    cluster = np.repeat(np.arange(len(frames)), frames.sizes)
    centres = np.add.reduceat(frames.pos, frames.ptr[:-1]) / frames.sizes[:, None]
    return float(2 * np.linalg.norm(frames.pos - centres[cluster], axis=1).max())


def _minima(distribution: PairDistribution) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Minima of g and the suggested radii; empty where there are none."""
    minima: tuple[float, ...] = ()
    for count in (2, 1):
        try:
            minima = minima or distribution.minima(count=count)
        except ValueError:
            continue
    try:
        return minima, distribution.suggested_radii()
    except ValueError:
        return minima, ()


def _check_shells(counts: np.ndarray, radii: tuple[float, ...], longest: float):
    empty = empty_shells(counts)
    if empty:
        raise InputError(
            f"no atom of the set has a neighbour in shell {plots_descriptor.shell_text(empty[0], radii)}; the clusters "
            f"are at most {longest:.2f} Å across: choose other --radii"
        )

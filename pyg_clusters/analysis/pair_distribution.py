"""Pair-distance distribution of isolated clusters."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from torch import Tensor

from pyg_clusters.geometry import radius_pairs

PAIRS_AT_ONCE: int = 250_000
"""Candidate pairs of a block of clusters: few enough to stay in the cache of a processor."""

PROMINENCE: float = 0.02
"""Smallest prominence of a peak, as a fraction of the highest value."""


@dataclass
class PairDistribution:
    r"""Mean density of neighbours at a distance r from an atom.

    .. math::
        g(r) = \frac{1}{N} \frac{n(r)}{4 \pi r^2 \, \mathrm{d}r}

    where n(r) counts the ordered pairs of atoms of the same cluster in the bin at r, and N all atoms. The integral of
    :math:`4 \pi r^2 g(r)` up to R is the mean number of neighbours within R (:meth:`neighbors_within`). A cluster has
    no bulk density to divide by, so g has the unit of a density, Å⁻³, and falls to zero at the diameter.

    Attributes:
        r: Centres of the bins in Å, ``[num_bins]``; the first bin begins at zero.
        g: Density of neighbours in Å⁻³, ``[num_bins]``.
        smallest_distance: Shortest distance of two atoms in Å; infinite if no pair is within the range.
    """

    r: np.ndarray
    g: np.ndarray
    smallest_distance: float

    @property
    def bin_width(self) -> float:
        """Width of a bin in Å."""
        return float(2 * self.r[0])

    def neighbors_within(self) -> np.ndarray:
        """Mean number of neighbours of an atom up to the outer edge of each bin, ``[num_bins]``."""
        return np.cumsum(self.g * _bin_volumes(len(self.r), self.bin_width))

    def minima(self, smoothing: float = 0.1, count: int = 2) -> tuple[float, ...]:
        """Radii of the minima after the first, second, ... peak: what shell radii are taken from.

        Args:
            smoothing: Standard deviation in Å of the Gaussian that g is smoothed with. Large enough to remove the
                noise, small against the width of a peak: 0.1 Å for tens of clusters and more. A wider one moves the
                minima outwards.
            count: Number of minima. Each lies between two peaks.

        Returns:
            Radii in Å, ``count`` of them.

        Raises:
            ValueError: If there are too few peaks.
        """
        smooth = gaussian_filter1d(self.g, smoothing / self.bin_width)
        peaks, _ = find_peaks(smooth, prominence=PROMINENCE * smooth.max())
        if len(peaks) <= count:
            raise ValueError(
                f"{count} minima need {count + 1} peaks of g(r), found {len(peaks)}: "
                "change the smoothing, the largest distance, or give more clusters"
            )
        between = pairwise(peaks[: count + 1])
        return tuple(_vertex(self.r, smooth, first + int(smooth[first:last].argmin())) for first, last in between)


def pair_distribution(
    pos: Tensor | np.ndarray, ptr: Tensor | np.ndarray, r_max: float = 12.0, bin_width: float = 0.05
) -> PairDistribution:
    """Distribution of the distances of all pairs of atoms within a cluster.

    Clusters are taken in blocks, so that memory does not grow with their number.

    Args:
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        r_max: Largest distance in Å (exclusive), rounded up to a whole number of bins.
        bin_width: Width of a bin in Å.

    Returns:
        Its normalisation is described at :class:`PairDistribution`.

    Raises:
        ValueError: If there are no atoms, or ``r_max`` or ``bin_width`` is not positive.

    Example:
        >>> dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.52]])
        >>> distribution = pair_distribution(dimer, torch.tensor([0, 2]))
        >>> float(distribution.neighbors_within()[-1])
        1.0
    """
    pos, ptr = torch.as_tensor(pos), torch.as_tensor(ptr)
    if pos.size(0) == 0:
        raise ValueError("a pair distribution needs at least one atom")
    if not (bin_width > 0 and r_max > 0):
        raise ValueError(f"r_max and bin_width must be positive (in Å), got {r_max} and {bin_width}")
    num_bins = int(np.ceil(r_max / bin_width - 1e-9))
    counts = np.zeros(num_bins)
    smallest = float("inf")
    for block_pos, block_ptr in _cluster_blocks(pos, ptr):
        _, distances = radius_pairs(block_pos, block_ptr, num_bins * bin_width)
        if distances.numel():
            smallest = min(smallest, float(distances.min()))
            bins = (distances.double() / bin_width).long().clamp(max=num_bins - 1)
            counts += torch.bincount(bins, minlength=num_bins).cpu().numpy()
    r = (np.arange(num_bins) + 0.5) * bin_width
    return PairDistribution(r, counts / pos.size(0) / _bin_volumes(num_bins, bin_width), smallest)


def _cluster_blocks(pos: Tensor, ptr: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and offsets of whole clusters with at most about ``PAIRS_AT_ONCE`` pairs together."""
    block_of_cluster = ptr.diff().square().cumsum(0) // PAIRS_AT_ONCE
    sizes = torch.unique_consecutive(block_of_cluster, return_counts=True)[1]
    first = 0
    for size in sizes.tolist():
        block_ptr = ptr[first : first + size + 1]
        yield pos[int(block_ptr[0]) : int(block_ptr[-1])], block_ptr - block_ptr[0]
        first += size


def _bin_volumes(num_bins: int, bin_width: float) -> np.ndarray:
    """Volumes of the spherical layers of the bins in Å³: exact, where 4πr²dr is the thin-layer limit."""
    edges = np.arange(num_bins + 1) * bin_width
    return 4 / 3 * np.pi * np.diff(edges**3)


def _vertex(r: np.ndarray, values: np.ndarray, lowest: int) -> float:
    """Minimum of the parabola through the lowest point and its two neighbours."""
    left, middle, right = values[lowest - 1 : lowest + 2]
    curvature = left - 2 * middle + right
    shift = 0.5 * (left - right) / curvature if curvature > 0 else 0.0
    return float(r[lowest] + shift * (r[1] - r[0]))

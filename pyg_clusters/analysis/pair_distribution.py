"""Pair-distance distribution of isolated clusters."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from torch import Tensor

from pyg_clusters.geometry import whole_clusters
from pyg_clusters.pairs import radius_pairs

PAIRS_AT_ONCE: int = 250_000  # candidate pairs of a block of clusters, which fit into the cache of a processor
PROMINENCE: float = 0.02  # smallest prominence of a peak, as a fraction of the highest value

SMOOTHING: float = 0.037
"""Initial smoothing width for suggested radii, as a fraction of the bond length: 0.1 Å for gallium."""

WIDEST_SMOOTHING: float = 0.25
"""Maximum smoothing width, as a fraction of the bond length; a larger one would merge the first two shells."""

WIDENING: float = 1.1  # factor between successive smoothing widths

SPHERE_USED: float = 0.85
"""Range of the correction for the boundary, as a fraction of the diameter; it diverges at the diameter."""

SHELL_SEPARATION: float = 0.5  # smallest distance of the peaks of two shells, as a fraction of the bond length


@dataclass
class PairDistribution:
    r"""Mean density of neighbours at a distance r from an atom.

    .. math::
        g(r) = \frac{1}{N} \frac{n(r)}{4 \pi r^2 \, \mathrm{d}r}

    where n(r) is the number of ordered pairs of atoms of the same cluster in the bin at r, and N is the number of all
    atoms. The integral of :math:`4 \pi r^2 g(r)` up to R is the mean number of neighbours within R
    (:meth:`neighbors_within`). Since a cluster has no bulk density for normalisation, g is a density in Å⁻³; it
    decreases to zero at the diameter.
    """

    r: np.ndarray  #: Centres of the bins in Å, ``[num_bins]``; the first bin starts at zero.
    g: np.ndarray  #: Density of neighbours in Å⁻³, ``[num_bins]``.
    smallest_distance: float  #: Shortest distance of two atoms in Å; infinite if no pair is within the range.

    @property
    def bin_width(self) -> float:
        """Width of a bin in Å."""
        return float(2 * self.r[0])

    @property
    def bond_length(self) -> float:
        """Most frequent nearest-neighbour distance in Å: the maximum of g, smoothed by two bins.

        Raises:
            ValueError: If no pair of atoms is within the range.
        """
        if not self.g.any():
            raise ValueError("no two atoms of a cluster are within the largest distance: g(r) is zero everywhere")
        return float(self.r[gaussian_filter1d(self.g, 2.0).argmax()])

    def neighbors_within(self) -> np.ndarray:
        """Mean number of neighbours of an atom up to the outer edge of each bin, ``[num_bins]``."""
        return np.cumsum(self.g * _bin_volumes(len(self.r), self.bin_width))

    def without_boundary(self) -> np.ndarray:
        r"""Divide g by the pair distribution of a uniform sphere of the same size, which leaves only the shells.

        The density of neighbours decreases towards the boundary of the cluster; for a uniform sphere of radius R the
        factor is :math:`1 - 3r/4R + r^3/16R^3`. R is obtained from the mean squared pair distance of g,
        :math:`6R^2/5`.

        Returns:
            Corrected distribution ``[num_inner_bins]``, up to 0.85 of the diameter of the sphere.
        """
        neighbors = np.diff(self.neighbors_within(), prepend=0.0)
        x = self.r / np.sqrt(5 / 6 * (neighbors * self.r**2).sum() / neighbors.sum())
        inside = x < 2 * SPHERE_USED
        return self.g[inside] / (1 - 3 / 4 * x[inside] + x[inside] ** 3 / 16)

    def suggested_radii(self) -> tuple[float, ...]:
        """Suggest two shell radii in Å, in increasing order: the minima between the peaks of the first three shells.

        The procedure uses the bond length b (the maximum of g) as unit of length and applies to any element:

        1. g is corrected for the boundary of the clusters (:meth:`without_boundary`) and smoothed with a Gaussian of
           standard deviation 0.037 b.
        2. Peaks are maxima with a prominence of at least 2 % of the highest value. If two of the first three peaks are
           closer than 0.5 b, they belong to one shell (the second neighbours of a solid are at 1.41, 1.73
           and 2 b, those of a liquid at about 1.8 b) or are noise. The smoothing width is then increased in steps of
           10 %, up to 0.25 b, until all peaks are separated.
        3. A radius is the lowest point between two successive peaks, refined by a parabola and rounded to 0.01 Å.

        The range of g should cover whole clusters.

        Raises:
            ValueError: If there are fewer than three such peaks: clusters too small, too few or too loose.
        """
        bond = self.bond_length
        g = self.without_boundary()
        smoothing = SMOOTHING * bond
        while smoothing <= WIDEST_SMOOTHING * bond:
            smooth = gaussian_filter1d(g, smoothing / self.bin_width)
            peaks = find_peaks(smooth, prominence=PROMINENCE * smooth.max())[0]
            if len(peaks) > 2 and np.diff(self.r[peaks[:3]]).min() >= SHELL_SEPARATION * bond:
                between = pairwise(peaks[:3])
                lowest = [first + int(smooth[first:last].argmin()) for first, last in between]
                return tuple(round(_vertex(self.r, smooth, index), 2) for index in lowest)
            smoothing *= WIDENING
        raise ValueError(
            f"g(r) has fewer than 3 peaks that are {SHELL_SEPARATION * bond:.2f} Å or more apart: give "
            "larger or more clusters, or choose the radii"
        )


def pair_distribution(
    pos: Tensor | np.ndarray, ptr: Tensor | np.ndarray, r_max: float = 12.0, bin_width: float = 0.05
) -> PairDistribution:
    """Compute the distribution of the pair distances within clusters.

    Clusters are processed in blocks; memory does not grow with their number.

    Args:
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        r_max: Maximum distance in Å (exclusive), rounded up to a whole number of bins.
        bin_width: Width of a bin in Å.

    Returns:
        Distribution with the normalisation of :class:`PairDistribution`.

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
    for atoms, offsets in whole_clusters(ptr, PAIRS_AT_ONCE, power=2):
        _, distances = radius_pairs(pos[atoms], offsets, num_bins * bin_width)
        if distances.numel():
            smallest = min(smallest, float(distances.min()))
            bins = (distances.double() / bin_width).long().clamp(max=num_bins - 1)
            counts += torch.bincount(bins, minlength=num_bins).cpu().numpy()
    r = (np.arange(num_bins) + 0.5) * bin_width
    return PairDistribution(r, counts / pos.size(0) / _bin_volumes(num_bins, bin_width), smallest)


def _bin_volumes(num_bins: int, bin_width: float) -> np.ndarray:
    """Exact volumes of the spherical layers of the bins in Å³."""
    edges = np.arange(num_bins + 1) * bin_width
    return 4 / 3 * np.pi * np.diff(edges**3)


def _vertex(r: np.ndarray, values: np.ndarray, lowest: int) -> float:
    """Minimum of the parabola through the lowest point and its two neighbours."""
    left, middle, right = values[lowest - 1 : lowest + 2]
    curvature = left - 2 * middle + right
    shift = 0.5 * (left - right) / curvature if curvature > 0 else 0.0
    return float(r[lowest] + shift * (r[1] - r[0]))

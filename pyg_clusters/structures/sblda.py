"""Random clusters by the second-order bond-length-distribution algorithm (S-BLDA)."""

import numpy as np

from pyg_clusters.errors import InputError

SHORTEST: float = 4.0
"""No distance is drawn that is more than this many standard deviations below its mean."""

PAIRS_AT_ONCE: int = 32
"""Pairs of atoms that are tried together: any number gives the same distribution, this one is fast."""

ANGLES: int = 5
"""Places around a pair of atoms that are tried before another pair is drawn."""

PAIRS_BEFORE_RESTART: int = 2048
"""A cluster that none of this many pairs lets grow is started again."""

MAX_RESTARTS: int = 100
"""Restarts after which the parameters are taken for impossible."""


def sblda(
    n: int,
    *,
    mu1: float = 3.50,
    mu2: float = 3.60,
    sigma1: float = 0.1,
    sigma2: float = 0.1,
    rng: np.random.Generator,
) -> np.ndarray:
    r"""A random cluster whose atoms were added one at a time at given distances from their two nearest neighbours.

    The second-order bond-length-distribution algorithm of Zhai & Alexandrova (J. Chem. Theory Comput. 2016, 12, 6213),
    with the parameters that Kaneko et al. (J. Mater. Inf. 2023, 3, 8, section "Data set") took for sodium.

    The papers say that the distances of a new atom to its nearest and next-nearest neighbours follow
    :math:`N(\mu_1, \sigma_1)` and :math:`N(\mu_2, \sigma_2)`, and no more. It is read here as:

    1. The second atom lies :math:`l_1 \sim N(\mu_1, \sigma_1)` from the first, in a random direction.
    2. For each further atom two different atoms i and j are drawn, :math:`l_1 \sim N(\mu_1, \sigma_1)`, and
       :math:`l_2 \sim N(\mu_2, \sigma_2)`, again until :math:`l_2 \ge l_1`. Where the triangle exists, the new atom is
       put on the circle at :math:`l_1` from i and :math:`l_2` from j, at a random angle.
    3. It stays if it lies further from every other atom m than a distance :math:`l_m \sim N(\mu_1, \sigma_1)` drawn
       for that atom, so that i and j are in the main its nearest and next-nearest neighbours. Otherwise another angle
       is tried, at most five, and then another pair.
    4. A cluster that can no longer grow is started again.

    A length more than four standard deviations below its mean :math:`\mu_1` is taken as that far below: no two atoms
    are closer than :math:`\mu_1 - 4 \sigma_1`, 3.1 Å for sodium. As later atoms may come closer than the first two
    neighbours of an atom, the mean distances to the first and second neighbour *in the finished cluster* lie about
    0.04 Å below :math:`\mu_1` and :math:`\mu_2`.

    Args:
        n: Number of atoms.
        mu1: Mean distance of a new atom to its nearest neighbour in Å, more than four times ``sigma1``.
        mu2: Mean distance to its next-nearest neighbour in Å, not below ``mu1``.
        sigma1: Standard deviation of the nearest distance in Å.
        sigma2: Standard deviation of the next-nearest distance in Å.
        rng: Source of random numbers; the same state gives the same cluster.

    Returns:
        Positions ``[n, 3]`` in Å, with their mean at the origin.

    Raises:
        InputError: If a parameter is out of range, or none of 100 attempts reaches ``n`` atoms.

    Example:
        >>> sblda(20, rng=np.random.default_rng(0)).shape
        (20, 3)
    """
    _check(n, mu1, mu2, sigma1, sigma2)
    growth = _Growth(mu1, mu2, sigma1, sigma2, rng)
    for _ in range(MAX_RESTARTS):
        pos = growth.cluster(n)
        if pos is not None:
            return pos - pos.mean(axis=0)
    raise InputError(
        f"no cluster of {n} atoms could be grown with mu1 {mu1}, mu2 {mu2}, sigma1 {sigma1}, sigma2 {sigma2}; "
        "take a mu2 that is closer to mu1"
    )


class _Growth:
    """Adds atoms to a cluster."""

    def __init__(self, mu1: float, mu2: float, sigma1: float, sigma2: float, rng: np.random.Generator):
        self.mu1, self.mu2 = mu1, mu2
        self.sigma1, self.sigma2 = sigma1, sigma2
        self.rng = rng

    def cluster(self, n: int) -> np.ndarray | None:
        """Positions ``[n, 3]``, or nothing if it got stuck."""
        pos = np.zeros((n, 3))
        if n > 1:
            pos[1] = self.nearest(()) * _unit(self.rng.normal(size=3))
        for size in range(2, n):
            place = self.place(pos[:size])
            if place is None:
                return None
            pos[size] = place
        return pos

    def place(self, pos: np.ndarray) -> np.ndarray | None:
        """Where the next atom can be, beside ``pos [num_atoms, 3]``."""
        for _ in range(0, PAIRS_BEFORE_RESTART, PAIRS_AT_ONCE):
            i, j, candidates = self.candidates(pos)  # [num_pairs, ANGLES, 3]
            apart = np.sqrt(((candidates[:, :, None] - pos) ** 2).sum(axis=-1))  # [num_pairs, ANGLES, num_atoms]
            pair = np.arange(len(i))
            apart[pair, :, i] = np.inf
            apart[pair, :, j] = np.inf
            free = (apart >= self.nearest(apart.shape)).all(axis=-1)
            if free.any():
                return candidates[np.unravel_index(free.argmax(), free.shape)]  # of the first pair that has one
        return None

    def candidates(self, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of atoms and places at the wanted distances from both."""
        num_atoms = len(pos)
        i = self.rng.integers(num_atoms, size=PAIRS_AT_ONCE)
        j = (i + self.rng.integers(1, num_atoms, size=PAIRS_AT_ONCE)) % num_atoms
        l1 = self.nearest(PAIRS_AT_ONCE)
        l2 = self.next_nearest(l1)
        axis = pos[j] - pos[i]
        base = np.sqrt((axis**2).sum(axis=1))
        triangle = (l2 >= l1) & (base < l1 + l2) & (l2 < base + l1)
        i, j, l1, l2, base = i[triangle], j[triangle], l1[triangle], l2[triangle], base[triangle]
        axis = axis[triangle] / base[:, None]
        along = (base**2 + l1**2 - l2**2) / (2 * base)
        radius = np.sqrt(np.maximum(l1**2 - along**2, 0))
        direction = self.rng.normal(size=(len(i), ANGLES, 3))
        direction -= (direction * axis[:, None]).sum(axis=-1, keepdims=True) * axis[:, None]
        center = pos[i] + along[:, None] * axis
        return i, j, center[:, None] + radius[:, None, None] * _unit(direction)

    def nearest(self, shape) -> np.ndarray:
        shortest = self.mu1 - SHORTEST * self.sigma1
        return np.maximum(self.rng.normal(self.mu1, self.sigma1, shape), shortest)

    def next_nearest(self, l1: np.ndarray) -> np.ndarray:
        """Second distances, not below the first (but for a few where twenty draws were)."""
        l2 = self.rng.normal(self.mu2, self.sigma2, l1.shape)
        for _ in range(20):
            short = l2 < l1
            if not short.any():
                break
            l2[short] = self.rng.normal(self.mu2, self.sigma2, int(short.sum()))
        return l2


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(axis=-1, keepdims=True))


def _check(n: int, mu1: float, mu2: float, sigma1: float, sigma2: float):
    if n < 1:
        raise InputError(f"a cluster has at least one atom, got n = {n}")
    for name, value in (("mu1", mu1), ("mu2", mu2), ("sigma1", sigma1), ("sigma2", sigma2)):
        if not 0 < value < np.inf:
            raise InputError(f"{name} must be a positive length in Å, got {value}")
    if mu2 < mu1:
        raise InputError(f"mu2 (of the next-nearest distance) must not be below mu1, got {mu2} and {mu1}")
    if mu1 <= SHORTEST * sigma1:
        raise InputError(f"sigma1 must be less than a quarter of mu1, got {sigma1} and {mu1}")

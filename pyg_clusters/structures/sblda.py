"""Random clusters by the second-order bond-length-distribution algorithm (S-BLDA)."""

import numpy as np

from pyg_clusters.errors import InputError

SHORTEST: float = 4.0  # lower bound of the drawn distances, in standard deviations below the mean
PAIRS_AT_ONCE: int = 32  # number of pairs of atoms tried together; it affects only the speed, not the distribution
ANGLES: int = 5  # number of positions around a pair of atoms that are tried before another pair is drawn
PAIRS_BEFORE_RESTART: int = 2048  # number of pairs tried for an atom before the cluster is restarted
MAX_RESTARTS: int = 100  # number of restarts after which an error is raised


def sblda(
    n: int, *, mu1: float = 3.50, mu2: float = 3.60, sigma1: float = 0.1, sigma2: float = 0.1, rng: np.random.Generator
) -> np.ndarray:
    r"""Generate a random cluster by adding atoms at drawn distances from their two nearest neighbours.

    Implements the second-order bond-length-distribution algorithm of Zhai & Alexandrova (J. Chem. Theory Comput. 2016,
    12, 6213). The default parameters are those of Kaneko et al. (J. Mater. Inf. 2023, 3, 8, section "Data set") for
    sodium.

    The papers state only that the distances of a new atom to its nearest and next-nearest neighbours follow
    :math:`N(\mu_1, \sigma_1)` and :math:`N(\mu_2, \sigma_2)`. This implementation interprets them as follows:

    1. The second atom is placed at a distance :math:`l_1 \sim N(\mu_1, \sigma_1)` from the first, in a random
       direction.
    2. For each further atom, two different atoms i and j are drawn, and the distances
       :math:`l_1 \sim N(\mu_1, \sigma_1)` and :math:`l_2 \sim N(\mu_2, \sigma_2)`; :math:`l_2` is redrawn until
       :math:`l_2 \ge l_1`. If the triangle exists, the new atom is placed on the circle at a distance :math:`l_1` from
       i and :math:`l_2` from j, at a random angle.
    3. The position is accepted if its distance to every other atom m is at least a distance
       :math:`l_m \sim N(\mu_1, \sigma_1)` drawn for that atom; i and j are then mostly its nearest and next-nearest
       neighbours. Otherwise up to four other angles are tried, and then another pair.
    4. A cluster that can no longer grow is restarted.

    Distances drawn from :math:`N(\mu_1, \sigma_1)` are clipped at four standard deviations below the mean, so no two
    atoms are closer than :math:`\mu_1 - 4 \sigma_1` (3.1 Å for sodium). Later atoms may come closer than the first two
    neighbours of an atom. The mean distances to the first and second neighbour *in the finished cluster* are therefore
    about 0.04 Å below :math:`\mu_1` and :math:`\mu_2`.

    Args:
        n: Number of atoms.
        mu1: Mean distance of a new atom to its nearest neighbour in Å; must exceed four times ``sigma1``.
        mu2: Mean distance to its next-nearest neighbour in Å; at least ``mu1``.
        sigma1: Standard deviation of the nearest distance in Å.
        sigma2: Standard deviation of the next-nearest distance in Å.
        rng: Random number generator; the same state gives the same cluster.

    Returns:
        Positions ``[n, 3]`` in Å, centred at the origin.

    Raises:
        InputError: If a parameter is out of range, or no cluster of ``n`` atoms is obtained in 100 attempts.

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
        "use a mu2 closer to mu1"
    )


class _Growth:
    """Growth of a cluster atom by atom."""

    def __init__(self, mu1: float, mu2: float, sigma1: float, sigma2: float, rng: np.random.Generator):
        self.mu1, self.mu2 = mu1, mu2
        self.sigma1, self.sigma2 = sigma1, sigma2
        self.rng = rng

    def cluster(self, n: int) -> np.ndarray | None:
        """Grow a cluster; return its positions ``[n, 3]``, or ``None`` if an atom cannot be placed."""
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
        """Return a position for the next atom near ``pos [num_atoms, 3]``, or ``None`` if none was found."""
        for _ in range(0, PAIRS_BEFORE_RESTART, PAIRS_AT_ONCE):
            i, j, candidates = self.candidates(pos)  # [num_pairs, ANGLES, 3]
            apart = np.sqrt(((candidates[:, :, None] - pos) ** 2).sum(axis=-1))  # [num_pairs, ANGLES, num_atoms]
            pair = np.arange(len(i))
            apart[pair, :, i] = np.inf
            apart[pair, :, j] = np.inf
            free = (apart >= self.nearest(apart.shape)).all(axis=-1)
            if free.any():
                return candidates[np.unravel_index(free.argmax(), free.shape)]  # of the first pair with a free position
        return None

    def candidates(self, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw pairs of atoms, and positions at the drawn distances from both."""
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
        """Draw the second distances, redrawing up to 20 times those below the first."""
        l2 = self.rng.normal(self.mu2, self.sigma2, l1.shape)
        for _ in range(20):
            if not (short := l2 < l1).any():
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
        raise InputError(f"mu2 (the mean next-nearest distance) must be at least mu1, got {mu2} and {mu1}")
    if mu1 <= SHORTEST * sigma1:
        raise InputError(f"sigma1 must be less than a quarter of mu1, got {sigma1} and {mu1}")

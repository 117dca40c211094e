"""Leaving out clusters that were relaxed."""

from torch_geometric.data import Data


class UnrelaxedOnly:
    """Keeps the random clusters of :class:`SodiumShielding` and leaves out those that were relaxed with a potential.

    Kaneko et al. 2023 train on random clusters alone. To be given as ``pre_filter``.

    Example:
        >>> from pyg_clusters.datasets import SodiumShielding
        >>> dataset = SodiumShielding(pre_filter=UnrelaxedOnly())
        >>> int(dataset._data.relaxed.sum())
        0
    """

    def __call__(self, cluster: Data) -> bool:
        return not cluster.relaxed.any()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}()"

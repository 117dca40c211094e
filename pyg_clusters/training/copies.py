"""Copies of structures on both sides of a split."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch_geometric.data import Data

from pyg_clusters.errors import InputError
from pyg_clusters.structures.duplicates import copies, copy_groups

MOST_COMPARED: int = 1000
"""Clusters of a validation or test part that are compared with the training part."""


class Batches(Protocol):
    """Clusters of a data set by their indices."""

    def blocks(self, clusters: Tensor, positions: bool = True) -> Iterable[Data]:
        """Clusters in blocks."""
        ...


def structures_of(batches: Batches, clusters: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Structures of some clusters of a data set.

    Args:
        batches: Of the data set.
        clusters: Indices of the clusters.

    Returns:
        Atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and offsets ``[num_graphs + 1]``.

    Raises:
        InputError: If the data set has no positions.
    """
    z, pos, sizes = [np.zeros(0, int)], [np.zeros((0, 3), np.float32)], [np.zeros(1, int)]
    for block in batches.blocks(clusters):
        if "pos" not in block:
            raise InputError("the data set has no positions: copies cannot be found in it; leave out copies_together")
        z.append(block.z.numpy())
        pos.append(block.pos.numpy())
        sizes.append(block.ptr.diff().numpy())
    return np.concatenate(z), np.concatenate(pos), np.concatenate(sizes).cumsum()


def copies_among(batches: Batches, clusters: Tensor, training: Tensor) -> tuple[int, int]:
    """Number of clusters that are copies of one of the training part, and of those that were compared.

    Args:
        batches: Of the data set.
        clusters: Indices of the clusters of another part; of more than :data:`MOST_COMPARED` evenly spaced ones are
            compared.
        training: Indices of the clusters of the training part.
    """
    compared = clusters[:: -(-max(clusters.numel(), 1) // MOST_COMPARED)]
    found = copies(*structures_of(batches, compared), structures_of(batches, training)) >= 0
    return int(found.sum()), compared.numel()


def groups_with_copies(batches: Batches, clusters: Tensor, groups: np.ndarray | None = None) -> np.ndarray:
    """Groups that hold copies together, none of which is a copy of a cluster of another group.

    Args:
        batches: Of the data set.
        clusters: Indices of the clusters.
        groups: Group of each cluster ``[num_graphs]`` that is to stay together as well; groups that share a structure
            become one.

    Returns:
        ``[num_graphs]``.
    """
    of_copies = copy_groups(*structures_of(batches, clusters))
    if groups is None:
        return of_copies
    names, numbers = np.unique(groups, return_inverse=True)
    num = len(of_copies)
    links = coo_array((np.ones(num), (of_copies, num + numbers)), shape=(num + len(names),) * 2)
    return connected_components(links, directed=False)[1][of_copies]

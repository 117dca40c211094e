"""Batches of data sets in memory and on disk, by lists of clusters."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data import Dataset as GraphDataset

from pyg_clusters.datasets.on_disk import OnDiskClusters
from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import atoms_of
from pyg_clusters.geometry import ptr_to_batch


class ClusterBatches(Dataset):
    """Batches of an in-memory data set, indexed by lists of clusters.

    Values per atom and per cluster are sliced from the flat tensors of the data set, which is many times faster than
    collating single graphs. If the data set has a transform or contains edges, single graphs are transformed and
    collated as in PyG.

    Args:
        dataset: Clusters with ``z``, ``pos`` and a target ``y`` per cluster or per atom.
    """

    def __init__(self, dataset: InMemoryDataset):
        self.dataset = dataset
        self.indices = torch.as_tensor(list(dataset.indices()), dtype=torch.long)  # of a subset in the full data set
        content = dataset._data
        self.values = {key: value for key, value in content.items() if _is_flat(content, key, value)}

    @property
    def collated(self) -> bool:
        """Whether single graphs are collated, because the data set has a transform or contains edges."""
        return self.dataset.transform is not None or len(self.values) < len(self.dataset._data.keys())

    def __len__(self) -> int:
        return self.indices.numel()

    def __getitem__(self, clusters: Sequence[int]) -> Data:
        if self.collated:
            return Batch.from_data_list([self.dataset[cluster] for cluster in clusters])
        return self.stored(clusters)

    def blocks(self, clusters: Tensor, positions: bool = True) -> Iterable[Data]:
        """Return all clusters as a single block, since they are already in memory."""
        return [self.stored(clusters.tolist())]

    def stored(self, clusters: Sequence[int]) -> Data:
        """Batch of the stored values per atom and per cluster, without edges and before any transform."""
        chosen = self.indices[torch.as_tensor(clusters, dtype=torch.long)]
        slices = self.dataset.slices
        batch = Data(idx=chosen)
        for key, values in self.values.items():
            elements, offsets = map(torch.from_numpy, atoms_of(slices[key].numpy(), chosen.numpy()))
            batch[key] = values[elements]
            if key == "z":
                batch.ptr, batch.batch = offsets, ptr_to_batch(offsets)
        return batch


class DiskBatches(Dataset):
    """Batches of an on-disk data set, indexed by lists of clusters like :class:`ClusterBatches`."""

    def __init__(self, dataset: OnDiskClusters):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, clusters: Sequence[int]) -> Data:
        if self.dataset.transform is not None:
            return Batch.from_data_list(self.dataset.__getitems__(list(clusters)))
        return self.dataset.read(clusters)

    def stored(self, clusters: Sequence[int]) -> Data:
        """Batch of the stored values, before any transform."""
        return self.dataset.read(clusters)

    def blocks(self, clusters: Tensor, positions: bool = True) -> Iterable[Data]:
        """Read clusters in blocks, one in memory at a time.

        Args:
            clusters: Indices of the clusters.
            positions: Whether to read the positions; otherwise only ``z``, ``ptr``, the target and values per cluster.
        """
        return _Repeatable(partial(self.dataset.blocks, clusters, positions))


class _Repeatable(Iterable[Data]):
    """Batches that can be iterated over more than once."""

    def __init__(self, make: Callable[[], Iterator[Data]]):
        self.make = make

    def __iter__(self) -> Iterator[Data]:
        return self.make()


def batches_of(dataset: GraphDataset) -> ClusterBatches | DiskBatches:
    """Create the batches of a data set, in memory or on disk."""
    if isinstance(dataset, OnDiskClusters):
        return DiskBatches(dataset)
    if isinstance(dataset, InMemoryDataset):
        return ClusterBatches(dataset)
    raise InputError(f"training needs a data set in memory or OnDiskClusters, got a {type(dataset).__name__}")


def _is_flat(content: Data, key: str, value: object) -> bool:
    """Whether the values of all clusters are concatenated along the first axis, as in a batch."""
    return isinstance(value, Tensor) and content.__cat_dim__(key, value) == 0 and "index" not in key

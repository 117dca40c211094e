"""Batches of clusters, from a data set in memory or on disk."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data import Dataset as GraphDataset

from pyg_clusters.datasets.on_disk import OnDiskClusters
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch, sizes_to_ptr


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
        self.collated = dataset.transform is not None or len(self.values) < len(content.keys())

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
            elements, offsets = _ranges(slices[key], chosen)
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


def _ranges(ptr: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Elements of the chosen segments of ``ptr`` and their new offsets."""
    sizes = ptr.diff()[chosen]
    new_ptr = sizes_to_ptr(sizes)
    shift = torch.repeat_interleave(ptr[chosen] - new_ptr[:-1], sizes)
    return torch.arange(shift.numel()) + shift, new_ptr


class EpochSampler(Sampler[list[int]]):
    """Sampler of batches, in an order that depends only on the seed and the epoch.

    A resumed run therefore continues exactly as an uninterrupted one. In distributed training, each process takes its
    share of every batch; together they process the same batches as a single process. (A last batch with fewer clusters
    than processes is dropped.)

    Args:
        clusters: Indices of the clusters.
        batch_size: Number of clusters in a batch, over all processes.
        shuffle: Whether to shuffle the clusters in each epoch.
        seed: Seed of the shuffling.
        rank: Index of this process.
        world_size: Number of processes.
        sizes: Number of atoms of each of the clusters, for ``max_pairs``.
        max_pairs: Limit on the pairs of atoms in a batch, see :func:`bounded_batches`. The number of batches then
            depends on the order, and the sampler has no length.
    """

    def __init__(
        self,
        clusters: Tensor,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sizes: Tensor | None = None,
        max_pairs: int | None = None,
    ):
        self.clusters = clusters
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.sizes = sizes
        self.max_pairs = max_pairs
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Set the epoch; called by the trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.clusters.numel())
        if self.shuffle:
            generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
            order = torch.randperm(order.numel(), generator=generator)
        parts: Iterable[Tensor] = order.split(self.batch_size)
        if self.max_pairs is not None and self.sizes is not None:
            parts = bounded_batches(order, self.sizes, self.batch_size, self.max_pairs, self.world_size)
        for part in parts:
            if part.numel() >= self.world_size:
                yield self.clusters[part[self.rank :: self.world_size]].tolist()

    def __len__(self) -> int:
        if self.max_pairs is not None:
            raise TypeError("the number of batches depends on the order of the clusters")
        full, rest = divmod(self.clusters.numel(), self.batch_size)
        return full + (rest >= self.world_size)


def bounded_batches(
    order: Tensor, sizes: Tensor, max_clusters: int, max_pairs: int, min_clusters: int = 1
) -> Iterator[Tensor]:
    """Divide a sequence of clusters into batches with limits on the number of clusters and of pairs of atoms.

    The pairs are counted as for dense operations on padded clusters: the number of clusters in the batch times the
    square of the number of atoms of the largest one.

    Args:
        order: Indices of the clusters, in order.
        sizes: Number of atoms of each cluster.
        max_clusters: Maximum number of clusters in a batch.
        max_pairs: Maximum number of pairs of atoms in a batch.
        min_clusters: Minimum number of clusters in a batch, regardless of their pairs.

    Example:
        >>> parts = bounded_batches(torch.arange(5), torch.tensor([10, 10, 20, 10, 10]), 4, 800)
        >>> [part.tolist() for part in parts]
        [[0, 1], [2, 3], [4]]
    """
    start = largest = 0
    for end, size in enumerate(sizes[order].tolist()):
        widest = max(largest, size)
        num = end - start
        if num >= min_clusters and (num == max_clusters or (num + 1) * widest**2 > max_pairs):
            yield order[start:end]
            start, widest = end, size
        largest = widest
    if start < order.numel():
        yield order[start:]

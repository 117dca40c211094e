"""Batches of clusters for training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data import Dataset as GraphDataset

from pyg_clusters.datasets.on_disk import OnDiskClusters
from pyg_clusters.datasets.splits import Split, fold_split, group_split, random_split, size_split
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.nn.energy_scale import shift_of_references
from pyg_clusters.training.copies import groups_with_copies


class ClusterBatches(Dataset):
    """Batches of an in-memory data set, by the numbers of their clusters.

    Values per atom and per cluster are cut out of the flat tensors of the data set, many times faster than by
    collating single graphs. Where the data set has a transform or holds edges, single graphs are transformed and
    collated as PyG does it.

    Args:
        dataset: Clusters with ``z``, ``pos`` and a target ``y`` per cluster or per atom.
    """

    def __init__(self, dataset: InMemoryDataset):
        self.dataset = dataset
        self.places = torch.as_tensor(list(dataset.indices()), dtype=torch.long)  # a subset's, in the whole
        content = dataset._data
        self.values = {key: value for key, value in content.items() if _is_flat(content, key, value)}
        self.collated = dataset.transform is not None or len(self.values) < len(content.keys())

    def __len__(self) -> int:
        return self.places.numel()

    def __getitem__(self, clusters: Sequence[int]) -> Data:
        if self.collated:
            return Batch.from_data_list([self.dataset[cluster] for cluster in clusters])
        return self.stored(clusters)

    def blocks(self, clusters: Tensor, positions: bool = True) -> Iterable[Data]:
        """Clusters as :meth:`stored` gives them, in one block: they are in memory already."""
        return [self.stored(clusters.tolist())]

    def stored(self, clusters: Sequence[int]) -> Data:
        """A batch of the values that are stored per atom and per cluster, without edges and before any transform."""
        chosen = self.places[torch.as_tensor(clusters, dtype=torch.long)]
        slices = self.dataset.slices
        batch = Data(idx=chosen)
        for key, values in self.values.items():
            elements, offsets = _ranges(slices[key], chosen)
            batch[key] = values[elements]
            if key == "z":
                batch.ptr, batch.batch = offsets, ptr_to_batch(offsets)
        return batch


class DiskBatches(Dataset):
    """Batches of an on-disk data set, by the numbers of their clusters, like :class:`ClusterBatches`.

    Args:
        dataset: Clusters in a file.
    """

    def __init__(self, dataset: OnDiskClusters):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, clusters: Sequence[int]) -> Data:
        if self.dataset.transform is not None:
            return Batch.from_data_list(self.dataset.__getitems__(list(clusters)))
        return self.dataset.read(clusters)

    def stored(self, clusters: Sequence[int]) -> Data:
        """A batch of the values that are stored, before any transform."""
        return self.dataset.read(clusters)

    def blocks(self, clusters: Tensor, positions: bool = True) -> Iterable[Data]:
        """Clusters in blocks, of which no more than one is held.

        Args:
            clusters: Their numbers.
            positions: Whether to read the positions; without them only ``z``, ``ptr``, the target, and what is there
                per cluster.
        """
        return Blocks(partial(self.dataset.blocks, clusters, positions))


class Blocks(Iterable[Data]):
    """Batches that are made anew each time one goes through them.

    Args:
        make: Makes them.
    """

    def __init__(self, make: Callable[[], Iterator[Data]]):
        self.make = make

    def __iter__(self) -> Iterator[Data]:
        return self.make()


def references_of(dataset: object) -> dict[str, float]:
    """Energy in eV of an atom by element symbol that a data set subtracts from its targets, if it does."""
    return getattr(dataset, "references", None) or {}


def batches_of(dataset: GraphDataset) -> ClusterBatches | DiskBatches:
    """Batches of a data set, in memory or on disk.

    Raises:
        InputError: If it is of another kind.
    """
    if isinstance(dataset, OnDiskClusters):
        return DiskBatches(dataset)
    if isinstance(dataset, InMemoryDataset):
        return ClusterBatches(dataset)
    raise InputError(f"a data set in memory or OnDiskClusters is needed to train on, got a {type(dataset).__name__}")


def _is_flat(content: Data, key: str, value: object) -> bool:
    """Whether the values of clusters lie one after the other, as they are in a batch."""
    return isinstance(value, Tensor) and content.__cat_dim__(key, value) == 0 and "index" not in key


def _ranges(ptr: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Elements of the chosen segments of ``ptr``, one after the other, and their new offsets."""
    sizes = ptr.diff()[chosen]
    new_ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    shift = torch.repeat_interleave(ptr[chosen] - new_ptr[:-1], sizes)
    return torch.arange(shift.numel()) + shift, new_ptr


class EpochSampler(Sampler[list[int]]):
    """Batches of an epoch in an order that depends on the seed and the epoch alone.

    A resumed run therefore goes on as if it had not stopped. Of several processes each takes its share of every
    batch, so that together they see the batches that one process sees. (A remainder of fewer clusters than processes
    is left out of the epoch.)

    Args:
        clusters: Numbers of the clusters.
        batch_size: Clusters in a batch, all processes together.
        shuffle: Whether to shuffle anew in each epoch.
        seed: Of the shuffling.
        rank: Number of this process.
        world_size: Number of processes.
        sizes: Number of atoms of each of the clusters, for ``max_pairs``.
        max_pairs: Bound on the pairs of atoms of a batch, :func:`bounded_batches`. How many batches there are then
            depends on the order; the sampler has no length.
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
        """Called by the trainer before each epoch."""
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
    """Cuts an order of clusters into batches that are bounded in clusters and in pairs of atoms.

    The pairs of a batch are its number of clusters times the square of the atoms of the largest, what dense products
    over padded clusters hold; the sum of the squares of the sizes is never more.

    Args:
        order: Places of the clusters.
        sizes: Number of atoms of the cluster of each place.
        max_clusters: Bound on the clusters of a batch.
        max_pairs: Bound on the pairs.
        min_clusters: So many clusters are taken whatever their pairs.

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


class ClusterDataModule(pl.LightningDataModule):
    """Data set, split and loaders of a training.

    Args:
        dataset: Clusters with a target, in memory or on disk (:class:`~pyg_clusters.datasets.OnDiskClusters`).
        split: ``group`` keeps related structures (``dataset.groups``) on one side, ``random`` does not, ``size``
            holds out ``held_out_sizes``, ``fold`` is one of a cross-validation by group, ``paper`` is that of the
            paper the data set follows; or the folder of a saved split.
        fractions: Shares of the training, validation and test set.
        held_out_sizes: Cluster sizes of the test set, for ``size``.
        left_out_sizes: Cluster sizes that are in none of the parts.
        split_seed: Seed of the split.
        batch_size: Clusters in a batch, over all processes.
        shuffle_seed: Seed of the order of the training set.
        folds: Number of folds, for ``fold``.
        fold: Which of them is the test set, from 0; the next one is the validation set.
        max_train_clusters: Use no more than so many clusters of the training set, the first ones of a random order.
        max_pairs: Bound on a batch in pairs of atoms, over all processes: its number of clusters times the square of
            the atoms of the largest. ``batch_size`` then is the largest number of clusters.
        num_workers: Processes that read batches ahead; worth it for a data set on disk.
        copies_together: Whether copies of one structure (see :mod:`pyg_clusters.structures.duplicates`) are kept on
            one side as well: with ``group`` and ``fold`` groups that share a structure become one. A saved split stays
            as it is.

    Raises:
        InputError: If the split cannot be made.
    """

    def __init__(
        self,
        dataset: GraphDataset,
        split: Literal["random", "group", "size", "fold", "paper"] | Path = "group",
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        held_out_sizes: Sequence[int] = (),
        left_out_sizes: Sequence[int] = (),
        split_seed: int = 0,
        batch_size: int = 32,
        shuffle_seed: int = 0,
        max_train_clusters: int | None = None,
        folds: int = 5,
        fold: int = 0,
        max_pairs: int | None = None,
        num_workers: int = 0,
        copies_together: bool = False,
    ):
        super().__init__()
        at_least_one = {"batch_size": batch_size, "max_train_clusters": max_train_clusters, "max_pairs": max_pairs}
        if num_workers < 0:
            raise InputError(f"num_workers must not be negative, got {num_workers}")
        for name, number in at_least_one.items():
            if (number is None and name == "batch_size") or (number is not None and number < 1):
                raise InputError(f"{name} must be at least 1, got {number}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.max_pairs = max_pairs
        self.num_workers = num_workers
        self.batches = batches_of(dataset)
        made_here = split in ("random", "group", "size", "fold", "paper")
        groups = _groups(dataset, self.batches, split) if copies_together and made_here else None
        if split == "fold":
            self.split = fold_split(dataset.groups if groups is None else groups, folds, fold, split_seed)
        else:
            self.split = _make_split(dataset, split, groups, fractions, held_out_sizes, split_seed)
        if left_out_sizes:
            kept_sizes = ~torch.isin(dataset.sizes, torch.tensor(left_out_sizes))
            parts = (self.split.train, self.split.val, self.split.test)
            self.split = Split(*(part[kept_sizes[part]] for part in parts))
        if max_train_clusters is not None and max_train_clusters < self.split.train.numel():
            generator = torch.Generator().manual_seed(split_seed)
            kept = torch.randperm(self.split.train.numel(), generator=generator)[:max_train_clusters]
            self.split = Split(self.split.train[kept.sort().values], self.split.val, self.split.test)
        everything = torch.cat([self.split.train, self.split.val, self.split.test])
        if everything.numel() and int(everything.max()) >= len(self.batches):
            raise InputError(
                f"the split {split} names cluster {int(everything.max())}, but the data set has {len(self.batches)} "
                "only: it was made for another one"
            )
        for name in ("train", "val"):
            if getattr(self.split, name).numel() == 0:
                raise InputError(f"the {name} part of the split is empty: {len(self.batches)} clusters are too few")

    def training_set(self) -> Data:
        """The whole training set as one batch, without edges and before any transform."""
        return self.batches.stored(self.split.train.tolist())

    def training_blocks(self) -> Iterable[Data]:
        """The training set without edges and before any transform: one batch, or many of a data set on disk."""
        return self.batches.blocks(self.split.train)

    def labels(self, batch: Data) -> Tensor:
        """Targets of a batch on the scale of the labels: ``y`` and the reference energies that it lacks.

        Args:
            batch: As :attr:`batches` and their blocks give it.

        Returns:
            ``[num_graphs]`` in eV, in double precision if there are references; or ``y`` as it is.
        """
        references = references_of(self.dataset)
        if not references:
            return batch.y
        numbered = {atomic_numbers[symbol]: energy for symbol, energy in references.items()}
        return batch.y + shift_of_references(batch.z, batch.ptr, numbered)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.split.val, 4 * self.batch_size, shuffle=False)

    def _loader(self, clusters: Tensor, batch_size: int, shuffle: bool) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sizes = None if self.max_pairs is None else self.dataset.sizes[clusters]
        sampler = EpochSampler(
            clusters, batch_size, shuffle, self.shuffle_seed, rank, world_size, sizes, self.max_pairs
        )
        return DataLoader(
            self.batches,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


def _groups(dataset: GraphDataset, batches: ClusterBatches | DiskBatches, split: str | Path) -> np.ndarray:
    """Groups ``[num_graphs]`` for a split that holds copies together."""
    if split == "paper":
        raise InputError("the split of a paper stays as it is: leave out copies_together, or choose group or random")
    own = dataset.groups.numpy() if split in ("group", "fold") else None
    return groups_with_copies(batches, torch.arange(len(batches)), own)


def _make_split(
    dataset: GraphDataset,
    split: str | Path,
    groups: np.ndarray | None,
    fractions: tuple[float, float, float],
    held_out_sizes: Sequence[int],
    seed: int,
) -> Split:
    if split == "size":
        return size_split(dataset.sizes, held_out_sizes, seed=seed, groups=groups)
    if groups is not None:
        return group_split(groups, fractions, seed)
    if split == "random":
        return random_split(len(dataset), fractions, seed)
    if split == "group":
        own = getattr(dataset, "group_split", None)
        return group_split(dataset.groups, fractions, seed) if own is None else own(fractions, seed)
    if split == "paper":
        if not hasattr(dataset, "paper_split"):
            raise InputError(f"{type(dataset).__name__} follows no paper's split; choose group, size, fold or random")
        return dataset.paper_split(seed=seed)
    return Split.load(split)

"""Batches of clusters for training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import Batch, Data, InMemoryDataset

from pyg_clusters.datasets.splits import Split, fold_split, group_split, random_split, size_split
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch


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
    """

    def __init__(
        self, clusters: Tensor, batch_size: int, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1
    ):
        self.clusters = clusters
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int):
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.clusters.numel())
        if self.shuffle:
            generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
            order = torch.randperm(order.numel(), generator=generator)
        for batch in self.clusters[order].split(self.batch_size):
            share = batch[self.rank :: self.world_size].tolist()
            if batch.numel() >= self.world_size:
                yield share

    def __len__(self) -> int:
        full, rest = divmod(self.clusters.numel(), self.batch_size)
        return full + (rest >= self.world_size)


class ClusterDataModule(pl.LightningDataModule):
    """Data set, split and loaders of a training.

    Args:
        dataset: Clusters with a target.
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

    Raises:
        InputError: If the split cannot be made.
    """

    def __init__(
        self,
        dataset: InMemoryDataset,
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
    ):
        super().__init__()
        for name, number in (("batch_size", batch_size), ("max_train_clusters", max_train_clusters)):
            if number is not None and number < 1:
                raise InputError(f"{name} must be at least 1, got {number}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.batches = ClusterBatches(dataset)
        if split == "fold":
            self.split = fold_split(dataset.groups, folds, fold, split_seed)
        else:
            self.split = _make_split(dataset, split, fractions, held_out_sizes, split_seed)
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

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.split.val, 4 * self.batch_size, shuffle=False)

    def _loader(self, clusters: Tensor, batch_size: int, shuffle: bool) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(clusters, batch_size, shuffle, self.shuffle_seed, rank, world_size)
        return DataLoader(self.batches, sampler=sampler, batch_size=None)


def _make_split(
    dataset: InMemoryDataset,
    split: str | Path,
    fractions: tuple[float, float, float],
    held_out_sizes: Sequence[int],
    seed: int,
) -> Split:
    if split == "random":
        return random_split(len(dataset), fractions, seed)
    if split == "group":
        own = getattr(dataset, "group_split", None)
        return group_split(dataset.groups, fractions, seed) if own is None else own(fractions, seed)
    if split == "size":
        return size_split(dataset.sizes, held_out_sizes, seed=seed)
    if split == "paper":
        if not hasattr(dataset, "paper_split"):
            raise InputError(f"{type(dataset).__name__} follows no paper's split; choose group, size, fold or random")
        return dataset.paper_split(seed=seed)
    return Split.load(split)

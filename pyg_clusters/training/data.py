"""Batches of clusters for training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import Batch, Data, InMemoryDataset

from pyg_clusters.datasets.splits import Split, group_split, random_split, size_split
from pyg_clusters.errors import InputError
from pyg_clusters.geometry import ptr_to_batch


class ClusterBatches(Dataset):
    """Batches of an in-memory data set, by the numbers of their clusters.

    Without a transform a batch is cut out of the flat tensors of the data set, many times faster than by collating
    single graphs; with one, single graphs are transformed and collated as PyG does it.

    Args:
        dataset: Clusters with ``z``, ``pos`` and a target ``y`` per cluster or per atom.
    """

    def __init__(self, dataset: InMemoryDataset):
        self.dataset = dataset
        content, slices = dataset._data, dataset.slices
        self.z, self.pos, self.y = content.z, content.pos, content.y
        self.ptr, self.y_ptr = slices["z"], slices["y"]
        self.places = torch.as_tensor(list(dataset.indices()), dtype=torch.long)  # a subset's, in the whole

    def __len__(self) -> int:
        return self.places.numel()

    def __getitem__(self, clusters: Sequence[int]) -> Data:
        if self.dataset.transform is not None:
            return Batch.from_data_list([self.dataset[cluster] for cluster in clusters])
        chosen = self.places[torch.as_tensor(clusters, dtype=torch.long)]
        atoms, ptr = _ranges(self.ptr, chosen)
        targets, _ = _ranges(self.y_ptr, chosen)
        return Data(
            z=self.z[atoms], pos=self.pos[atoms], y=self.y[targets], idx=chosen, ptr=ptr, batch=ptr_to_batch(ptr)
        )


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
            holds out ``held_out_sizes``; or the folder of a saved split.
        fractions: Shares of the training, validation and test set.
        held_out_sizes: Cluster sizes of the test set, for ``size``.
        split_seed: Seed of the split.
        batch_size: Clusters in a batch, over all processes.
        shuffle_seed: Seed of the order of the training set.
        max_train_clusters: Use no more than so many clusters of the training set, the first ones of a random order.

    Raises:
        InputError: If the split cannot be made.
    """

    def __init__(
        self,
        dataset: InMemoryDataset,
        split: Literal["random", "group", "size"] | Path = "group",
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        held_out_sizes: Sequence[int] = (),
        split_seed: int = 0,
        batch_size: int = 32,
        shuffle_seed: int = 0,
        max_train_clusters: int | None = None,
    ):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.batches = ClusterBatches(dataset)
        self.split = _make_split(dataset, split, fractions, held_out_sizes, split_seed)
        if max_train_clusters is not None and max_train_clusters < self.split.train.numel():
            generator = torch.Generator().manual_seed(split_seed)
            kept = torch.randperm(self.split.train.numel(), generator=generator)[:max_train_clusters]
            self.split = Split(self.split.train[kept.sort().values], self.split.val, self.split.test)
        for name in ("train", "val"):
            if getattr(self.split, name).numel() == 0:
                raise InputError(f"the {name} part of the split is empty: {len(self.batches)} clusters are too few")

    def training_set(self) -> Data:
        """The whole training set as one batch."""
        return self.batches[self.split.train.tolist()]

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
        return group_split(dataset.groups, fractions, seed)
    if split == "size":
        return size_split(dataset.sizes, held_out_sizes, seed=seed)
    return Split.load(split)

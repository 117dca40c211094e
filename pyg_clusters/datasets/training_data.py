"""Data set, split and batches of a training run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data import Dataset as GraphDataset

from pyg_clusters.datasets.on_disk import OnDiskClusters
from pyg_clusters.datasets.splits import KINDS, Split, make_split
from pyg_clusters.errors import InputError
from pyg_clusters.frames.block import atoms_of
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.metrics import PER_ATOM, look_per_atom
from pyg_clusters.nn.output_scale import shift_of_references
from pyg_clusters.structures.duplicates import copies, copy_groups, merge_groups

MAX_COMPARED: int = 200
"""Maximum number of clusters of a part of the split from which warnings about the data are derived."""

MAX_TRAINING_CLUSTERS: int = 100_000
"""Maximum size of a training set that is searched for copies."""


class TrainingData:
    """Data set and split of a training run.

    Args:
        dataset: Clusters with a target, in memory or on disk (:class:`~pyg_clusters.datasets.OnDiskClusters`).
        split: Kind of split, or the folder of a saved split. ``group`` keeps related structures (``dataset.groups``) in
            one part, ``random`` does not, ``size`` holds out ``held_out_sizes``, ``fold`` is one fold of a
            cross-validation by group, and ``paper`` is the split used in the paper of the data set.
        fractions: Fractions of the training, validation and test set.
        held_out_sizes: Cluster sizes of the test set, for ``size``.
        left_out_sizes: Cluster sizes that are excluded from all parts.
        split_seed: Seed of the split.
        batch_size: Number of clusters in a batch, over all processes.
        shuffle_seed: Seed of the order of the training set.
        folds: Number of folds, for ``fold``.
        fold: Index of the test fold, from 0; the next fold is the validation set.
        max_train_clusters: Maximum number of training clusters; a random subset is taken from larger training sets.
        max_pairs: Limit on the pairs of atoms in a batch over all processes, see
            :func:`~pyg_clusters.training.trainer_parts.bounded_batches`. ``batch_size`` is then the maximum number
            of clusters.
        num_workers: Number of processes that prefetch batches; useful for a data set on disk.
        copies_together: Whether to keep copies of a structure (see :mod:`pyg_clusters.structures.duplicates`) in one
            part, and to count them as one group in coverages. With ``group`` and ``fold``, groups that share a
            structure are merged. A saved split is not changed.

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
        by_size = split == "size" or bool(left_out_sizes) or max_pairs is not None
        for name, needed, options in (
            ("groups", split in ("group", "fold"), "split='random'"),
            ("sizes", by_size, "split='random' without left_out_sizes and max_pairs"),
        ):
            if needed and not hasattr(dataset, name):
                owner = type(dataset).__name__
                raise InputError(f"{owner} has no property {name} [num_graphs]: add it, or choose {options}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.max_pairs = max_pairs
        self.num_workers = num_workers
        self.batches = batches_of(dataset)
        self.copies_together = copies_together
        groups = None
        if copies_together and split == "paper":
            raise InputError("the split of a paper is fixed: leave out copies_together, or choose group or random")
        if copies_together and split in KINDS:
            known = dataset.groups if split in ("group", "fold") else torch.arange(len(dataset))
            groups = self._with_copies(torch.arange(len(dataset)), known)
        self.split = make_split(dataset, split, groups, fractions, held_out_sizes, split_seed, folds, fold)
        if left_out_sizes:
            used = ~torch.isin(dataset.sizes, torch.tensor(left_out_sizes))
            parts = (self.split.train, self.split.val, self.split.test)
            self.split = Split(*(part[used[part]] for part in parts))
        if max_train_clusters is not None and max_train_clusters < self.split.train.numel():
            generator = torch.Generator().manual_seed(split_seed)
            chosen = torch.randperm(self.split.train.numel(), generator=generator)[:max_train_clusters]
            self.split = Split(self.split.train[chosen.sort().values], self.split.val, self.split.test)
        everything = torch.cat([self.split.train, self.split.val, self.split.test])
        if everything.numel() and int(everything.max()) >= len(self.batches):
            raise InputError(
                f"the split {split} names cluster {int(everything.max())}, but the data set has only "
                f"{len(self.batches)}: it belongs to another data set"
            )
        for name in ("train", "val"):
            if getattr(self.split, name).numel() == 0:
                raise InputError(f"the {name} part of the split is empty: {len(self.batches)} clusters are too few")

    @property
    def per_atom(self) -> bool:
        """Whether the target is a value per atom."""
        return getattr(self.dataset, "per_atom", False)

    @property
    def references(self) -> dict[str, float]:
        """Energies in eV of isolated atoms by element symbol that the data set subtracts from its targets, if any."""
        return getattr(self.dataset, "references", None) or {}

    @property
    def electronic_state(self) -> tuple[int, bool]:
        """Charge of the clusters in e, and whether one of them is in a state other than the lowest spin."""
        return getattr(self.dataset, "electronic_state", (0, False))

    def labels(self, batch: Data) -> Tensor:
        """Targets of a batch on the scale of the labels: ``y`` plus the reference energies.

        Returns:
            ``[num_graphs]`` in eV, in double precision if there are references; otherwise ``y`` as it is.
        """
        if not self.references:
            return batch.y
        of_number = {atomic_numbers[symbol]: energy for symbol, energy in self.references.items()}
        return batch.y + shift_of_references(batch.z, batch.ptr, of_number)

    def groups(self, clusters: Tensor) -> np.ndarray:
        """Groups of related clusters of a part of the split, ``[num_graphs]``.

        Where the split is not by group, each cluster is a group of its own, with its copies if they are kept together.
        """
        groups = getattr(self.dataset, "groups", None)
        if groups is None or bool(torch.isin(groups[clusters], groups[self.split.train]).any()):
            groups = torch.arange(len(self.batches))
        known = groups[clusters]
        return self._with_copies(clusters, known) if self.copies_together else known.numpy()

    def _with_copies(self, clusters: Tensor, groups: Tensor) -> np.ndarray:
        """Groups of some clusters ``[num_graphs]``, merged where they share a structure."""
        return merge_groups(copy_groups(*self._structures(clusters)), groups.numpy())

    def sample(self) -> list[int]:
        """Evenly spaced clusters of the training set, at most :data:`MAX_COMPARED`."""
        train = self.split.train
        return train[:: -(-train.numel() // MAX_COMPARED)].tolist()

    def remarks(self) -> list[str]:
        """Warnings about labels that are probably energies per atom, and about :meth:`copies_in_split`."""
        lines = self.copies_in_split()
        if not self.per_atom:
            batch = self.batches.stored(self.sample())
            if look_per_atom(self.labels(batch).double(), batch.ptr.diff()):
                lines.insert(0, f"warning: {PER_ATOM}")
        return lines

    def copies_in_split(self) -> list[str]:
        """Warning about validation and test clusters that are copies of training clusters, in at most one line.

        At most :data:`MAX_COMPARED` of each part are compared, drawn at random, each with its
        :data:`~pyg_clusters.structures.duplicates.NEAREST` nearest training clusters.
        """
        if self.split.train.numel() > MAX_TRAINING_CLUSTERS:
            return [f"more than {MAX_TRAINING_CLUSTERS:,} training clusters: not searched for copies across the split"]
        if "pos" not in self.batches.stored(self.split.train[:1].tolist()):
            return []
        training = self._structures(self.split.train)
        counts = []
        for name, part in {"validation": self.split.val, "test": self.split.test}.items():
            if part.numel():
                drawn = torch.randperm(part.numel(), generator=torch.Generator().manual_seed(0))[:MAX_COMPARED]
                number = int((copies(*self._structures(part[drawn.sort().values]), training) >= 0).sum())
                at_random = f" (drawn at random from {part.numel():,})" if drawn.numel() < part.numel() else ""
                counts.append((number, f"{number} of {drawn.numel()} {name} clusters{at_random}"))
        if not any(number for number, _ in counts):
            return []
        return [
            f"warning: {' and '.join(text for _, text in counts)} are copies of structures in the training part: their "
            "errors do not show how the model predicts new structures; --data.copies_together true (with --data.split "
            "group or random) keeps copies together"
        ]

    def _structures(self, clusters: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and offsets of some clusters."""
        z, pos, sizes = [np.zeros(0, int)], [np.zeros((0, 3), np.float32)], [np.zeros(1, int)]
        for block in self.batches.blocks(clusters):
            if "pos" not in block:
                raise InputError("the data set has no positions to find copies with; leave out copies_together")
            z.append(block.z.numpy())
            pos.append(block.pos.numpy())
            sizes.append(block.ptr.diff().numpy())
        return np.concatenate(z), np.concatenate(pos), np.concatenate(sizes).cumsum()


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

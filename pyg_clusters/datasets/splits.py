"""Training, validation and test splits.

To split by trajectory, so that the frames of a run are in one part, call :func:`group_split` with the index of the
trajectory of each frame, by default :attr:`ClusterDataset.groups <pyg_clusters.datasets.ClusterDataset.groups>`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch_geometric.data import Dataset

from pyg_clusters.errors import InputError, one_line
from pyg_clusters.files import write_text
from pyg_clusters.options.parsing import nearest
from pyg_clusters.terminal import count_of

KINDS: tuple[str, ...] = ("group", "random", "size", "fold", "paper")  # kinds of splits

PARTS: tuple[str, str, str] = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Indices in a data set, ``[num_train]``, ``[num_val]`` and ``[num_test]`` (long, ascending, without duplicates).

    Example:
        >>> split = random_split(10, seed=1)
        >>> split
        Split(train=8, val=1, test=1)
    """

    train: Tensor
    val: Tensor
    test: Tensor

    def __post_init__(self):
        everything = torch.cat([self.train, self.val, self.test])
        if everything.unique().numel() != everything.numel():
            raise InputError("a split has a cluster twice, or in two parts")

    def save(self, folder: str | Path):
        """Write ``train.txt``, ``val.txt`` and ``test.txt``, with an index per line."""
        for part in PARTS:
            lines = "".join(f"{number}\n" for number in getattr(self, part).tolist())
            write_text(Path(folder) / f"{part}.txt", lines)

    @classmethod
    def load(cls, folder: str | Path) -> "Split":
        """Read the files written by :meth:`save`.

        Raises:
            InputError: If a file is missing or has a line that is not an index from 0.
        """
        return cls(**{part: _read_numbers(Path(folder) / f"{part}.txt") for part in PARTS})

    def __repr__(self) -> str:
        counts = ", ".join(f"{part}={getattr(self, part).numel()}" for part in PARTS)
        return f"{self.__class__.__name__}({counts})"


def random_split(num: int, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
    """Split clusters at random.

    Clusters of the same trajectory or search segment are similar, and a random split then underestimates the error; use
    :func:`group_split` for them.

    Args:
        num: Number of clusters.
        fractions: Fractions of training, validation and test set; they sum to 1.
        seed: Seed of the split, independent of global seeds.

    Raises:
        InputError: If there are too few clusters for the fractions.
    """
    counts = _share(num, fractions)
    order = np.random.default_rng(seed).permutation(num)
    val, test, train = np.split(order, [counts[1], counts[1] + counts[2]])
    return _split_of([train, val, test], fractions)


def group_split(groups: ArrayLike, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
    """Split clusters at random by whole groups.

    Groups are drawn in random order; groups that are too large for the remaining number of clusters are skipped. The
    size of a part deviates by at most half of the smallest group not drawn. A part with a nonzero fraction contains at
    least one group.

    Args:
        groups: Group of each cluster ``[num_graphs]``: numbers or strings (the segment of a search, a trajectory).
        fractions: Fractions of training, validation and test set, counted in clusters; they sum to 1.
        seed: Seed of the split, independent of global seeds.

    Raises:
        InputError: If there are fewer groups than parts.
    """
    _, group_of_cluster, group_sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    counts = _share(group_of_cluster.size, fractions)
    num_parts = sum(fraction > 0 for fraction in fractions)
    if group_sizes.size < num_parts:
        raise InputError(
            f"{count_of(group_sizes.size, 'group')} cannot be split into {num_parts} parts; name the value that "
            "distinguishes related frames (--data.dataset.group), or split at random (--data.split random)"
        )
    left = np.random.default_rng(seed).permutation(group_sizes.size)
    spare = num_parts  # number of groups reserved for the remaining parts, one each
    part_of_group = np.zeros(group_sizes.size, dtype=np.int64)
    for part in (2, 1):
        spare -= fractions[part] > 0
        drawn = _draw_groups(left, group_sizes, counts[part], spare)
        part_of_group[drawn] = part
        left = left[~np.isin(left, drawn)]
    part_of_cluster = part_of_group[group_of_cluster]
    return _split_of([np.flatnonzero(part_of_cluster == part) for part in range(3)], fractions)


def size_split(
    sizes: ArrayLike, held_out: Sequence[int], val_fraction: float = 0.1, seed: int = 0, groups: ArrayLike | None = None
) -> Split:
    """Hold out cluster sizes as the test set, and split the other clusters at random into training and validation sets.

    Args:
        sizes: Number of atoms of each cluster ``[num_graphs]``.
        held_out: Sizes of the test set.
        val_fraction: Fraction of the other clusters in the validation set.
        seed: Seed of the split, independent of global seeds.
        groups: Group of each cluster ``[num_graphs]``, to split the others by whole groups.

    Raises:
        InputError: If there are no clusters of a held-out size, or of other sizes.
    """
    sizes = np.asarray(sizes)
    missing = sorted(set(held_out) - set(sizes.tolist()))
    if missing or not len(held_out):
        there = f"there are clusters of {sizes.min()} to {sizes.max()} atoms" if sizes.size else "there are no clusters"
        raise InputError(f"no cluster has one of the held-out sizes {missing}; {there}")
    is_test = np.isin(sizes, list(held_out))
    others = np.flatnonzero(~is_test)
    if not others.size:
        raise InputError("no cluster is left for the train part: all have a held-out size; hold out fewer sizes")
    fractions = (1 - val_fraction, val_fraction, 0.0)
    if groups is None:
        inner = random_split(others.size, fractions, seed)
    else:
        inner = group_split(np.asarray(groups)[others], fractions, seed)
    # NumPy takes a tensor of one element for a number.
    train, val = others[inner.train.numpy()], others[inner.val.numpy()]
    return _split_of([train, val, np.flatnonzero(is_test)], fractions)


def fold_split(groups: ArrayLike | int, folds: int = 5, fold: int = 0, seed: int = 0) -> Split:
    """Split of a cross-validation; over all folds, each cluster is in one test set and in one validation set.

    Groups are assigned at random to folds with nearly equal numbers of groups. One fold is the test set, the next one
    (cyclically) is the validation set, and the others form the training set.

    Args:
        groups: Group of each cluster ``[num_graphs]``, numbers or strings, to split by whole groups; or the number of
            clusters, each a group of its own.
        folds: Number of folds, at least three.
        fold: Index of the test fold, from 0.
        seed: Seed of the folds; the same for all splits of a cross-validation.

    Raises:
        InputError: If there are fewer groups than folds, or no such fold.

    Example:
        >>> fold_split(50, folds=5, fold=4)
        Split(train=30, val=10, test=10)
    """
    groups = np.arange(groups) if isinstance(groups, int) else np.asarray(groups)
    _, group_of_cluster, group_sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if folds < 3:
        raise InputError(f"training, validation and test set need at least 3 folds, got {folds}")
    if not 0 <= fold < folds:
        raise InputError(f"there is no fold {fold}: the {folds} folds are counted from 0")
    if group_sizes.size < folds:
        raise InputError(f"{group_sizes.size} clusters or groups of them cannot be divided into {folds} folds")
    fold_of_group = np.random.default_rng(seed).permutation(np.arange(group_sizes.size) % folds)
    offset = (fold_of_group[group_of_cluster] - fold) % folds  # 0: test, 1: validation
    parts = [np.flatnonzero(chosen) for chosen in (offset > 1, offset == 1, offset == 0)]
    return _split_of(parts, (1 - 2 / folds, 1 / folds, 1 / folds))


def make_split(
    dataset: Dataset,
    split: str | Path,
    groups: np.ndarray | None,
    fractions: tuple[float, float, float],
    held_out_sizes: Sequence[int],
    seed: int,
    folds: int,
    fold: int,
) -> Split:
    """Split a data set as ``split`` says: one of :data:`KINDS`, or the folder of a saved split.

    Args:
        dataset: Data set to divide.
        split: Kind or folder.
        groups: Groups of clusters to keep together, if they are not those of the data set.
        fractions: Shares of the parts.
        held_out_sizes: Sizes to test on, for ``"size"``.
        seed: Random seed.
        folds: Number of folds, for ``"fold"``.
        fold: Index of the test fold, for ``"fold"``.

    Raises:
        InputError: If there is no such kind or folder, or the data set has no such split.
    """
    if split == "fold":
        return fold_split(dataset.groups if groups is None else groups, folds, fold, seed)
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
            raise InputError(f"{type(dataset).__name__} has no split of a paper; choose group, size, fold or random")
        return dataset.paper_split(seed=seed)
    if not Path(split).is_dir():
        raise InputError(
            f"--data.split {split}: neither the folder of a saved split nor a kind of split ({', '.join(KINDS)})"
            f"{nearest(str(split), KINDS)}"
        )
    return Split.load(split)


def largest_sizes(sizes: ArrayLike, at_least: int = 10) -> list[int]:
    """Select the largest cluster sizes to hold out, as many as needed for a minimum number of clusters.

    Args:
        sizes: Number of atoms of each cluster ``[num_graphs]``.
        at_least: Minimum number of clusters of these sizes.

    Returns:
        Sizes in increasing order; never all of them.

    Raises:
        InputError: If no smaller clusters would remain.

    Example:
        >>> largest_sizes([14] * 20 + [16] * 12 + [18] * 6 + [20] * 5)
        [18, 20]
    """
    values, counts = np.unique(np.asarray(sizes), return_counts=True)
    enough = np.flatnonzero(counts[::-1].cumsum() >= at_least)
    if not enough.size or enough[0] + 1 == values.size:
        raise InputError(f"{counts.sum()} clusters of {values.size} size(s) leave no smaller ones to train on")
    return values[-(enough[0] + 1) :].tolist()


def _share(num: int, fractions: Sequence[float]) -> list[int]:
    """Check the fractions, and return the numbers of clusters of the three parts."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        raise InputError(f"fractions of training, validation and test set must sum to 1, got {list(fractions)}")
    val, test = (round(num * fraction) for fraction in fractions[1:])
    return [num - val - test, val, test]


def _draw_groups(order: np.ndarray, group_sizes: np.ndarray, wanted: int, spare: int) -> list[int]:
    """Draw groups in order until their sizes add up to nearly ``wanted``, leaving at least ``spare`` groups."""
    drawn: list[int] = []
    missing = wanted
    for group in order:
        if group_sizes[group] <= missing and len(order) - len(drawn) > spare:
            drawn.append(int(group))
            missing -= group_sizes[group]
    taken = set(drawn)
    left = [int(group) for group in order if int(group) not in taken]
    smallest = min(left, key=lambda group: group_sizes[group])
    if len(left) > spare and (group_sizes[smallest] < 2 * missing or (wanted and not drawn)):
        drawn.append(smallest)
    return drawn


def _split_of(parts: Sequence[np.ndarray], fractions: Sequence[float]) -> Split:
    for name, numbers, fraction in zip(PARTS, parts, fractions, strict=True):
        if fraction > 0 and not numbers.size:
            total = sum(part.size for part in parts)
            raise InputError(f"no cluster is left for the {name} part: {total} are too few for {list(fractions)}")
    return Split(*(torch.from_numpy(np.sort(numbers).astype(np.int64)) for numbers in parts))


def _read_numbers(path: Path) -> Tensor:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the split ({one_line(error)})") from error
    for line, text in enumerate(lines, start=1):
        if not text.strip().isdecimal():
            raise InputError(f"{path}, line {line}: expected an index from 0, got {text[:40]!r}")
    return torch.tensor([int(text) for text in lines], dtype=torch.long)

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset

from pyg_clusters.datasets import Split, fold_split, group_split, largest_sizes, random_split, size_split
from pyg_clusters.datasets.training_data import TrainingData
from pyg_clusters.errors import InputError


def everything(split):
    return torch.cat([split.train, split.val, split.test]).sort().values


def test_random_split_has_each_cluster_once_in_the_requested_fractions():
    split = random_split(1000, (0.7, 0.2, 0.1), seed=3)
    assert [split.train.numel(), split.val.numel(), split.test.numel()] == [700, 200, 100]
    assert everything(split).equal(torch.arange(1000))
    assert str(split) == "Split(train=700, val=200, test=100)"


def test_splits_follow_their_own_seed_only():
    first = random_split(100, seed=1)
    torch.manual_seed(5)
    np.random.seed(5)
    assert random_split(100, seed=1).test.equal(first.test)
    assert not random_split(100, seed=2).test.equal(first.test)
    groups = np.arange(300) // 3
    assert group_split(groups, seed=1).test.equal(group_split(groups, seed=1).test)
    assert not group_split(groups, seed=1).test.equal(group_split(groups, seed=2).test)


def test_own_data_sets_of_pyg_need_groups_or_a_random_split():
    dataset = InMemoryDataset()
    clusters = [
        Data(z=torch.full((2,), 31), pos=torch.tensor([[0.0, 0, 0], [0, 0, d]]), y=-torch.ones(1)) for d in (2, 3)
    ]
    dataset.data, dataset.slices = dataset.collate(clusters)
    assert len(TrainingData(dataset, "random", (0.5, 0.5, 0.0)).split.train) == 1
    for arguments in ({}, {"split": "fold"}, {"copies_together": True}):
        with pytest.raises(InputError, match=r"InMemoryDataset has no property groups .* choose split='random'$"):
            TrainingData(dataset, **arguments)
    for arguments in ({"split": "size"}, {"split": "random", "max_pairs": 8}):
        with pytest.raises(InputError, match="InMemoryDataset has no property sizes"):
            TrainingData(dataset, **arguments)


@pytest.mark.parametrize("seed", range(20))
def test_group_split_keeps_groups_whole_and_fractions_close(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 40, size=60)
    groups = generator.permutation(np.repeat(np.arange(60) * 7, sizes))
    split = group_split(groups, (0.6, 0.25, 0.15), seed=seed)
    assert everything(split).equal(torch.arange(len(groups)))
    parts = [set(groups[part.numpy()]) for part in (split.train, split.val, split.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    # No remaining group would bring the test set closer to its share.
    smallest = min(sizes[group // 7] for group in parts[0])
    assert abs(split.test.numel() - 0.15 * len(groups)) <= smallest / 2 + 1


def test_group_split_of_few_large_groups_fills_every_part():
    split = group_split(["a"] * 10 + ["b"] * 10 + ["c"] * 10)
    assert [split.train.numel(), split.val.numel(), split.test.numel()] == [10, 10, 10]
    without_val = group_split(["a"] * 10 + ["b"] * 10, (0.5, 0.0, 0.5))
    assert [without_val.train.numel(), without_val.val.numel(), without_val.test.numel()] == [10, 0, 10]


def test_size_split_holds_out_whole_sizes():
    sizes = torch.tensor([31, 32, 33, 34] * 25)
    split = size_split(sizes, held_out=[32, 34], val_fraction=0.2, seed=1)
    assert sizes[split.test].unique().tolist() == [32, 34]
    assert [split.train.numel(), split.val.numel(), split.test.numel()] == [40, 10, 50]
    assert everything(split).equal(torch.arange(100))
    assert str(size_split([14] * 10 + [16] * 3, [16])) == "Split(train=9, val=1, test=3)"


@pytest.mark.parametrize("num", [10, 49, 50])
def test_folds_test_and_validate_each_cluster_once(num):
    splits = [fold_split(num, folds=5, fold=fold, seed=3) for fold in range(5)]
    for split in splits:
        assert everything(split).equal(torch.arange(num))
    for part in ("val", "test"):
        together = torch.cat([getattr(split, part) for split in splits])
        assert together.sort().values.equal(torch.arange(num))
    counts = [split.test.numel() for split in splits]
    assert max(counts) - min(counts) <= 1
    assert splits[1].test.equal(splits[0].val) and splits[0].test.equal(splits[4].val)
    assert not fold_split(num, seed=4).test.equal(splits[0].test)


def test_folds_keep_groups_whole():
    groups = np.array(["a", "b", "c", "d", "e", "f"])[np.arange(60) % 6]
    for fold in range(4):
        split = fold_split(groups, folds=4, fold=fold)
        parts = [set(groups[part.numpy()]) for part in (split.train, split.val, split.test)]
        assert sum(len(part) for part in parts) == 6 and set.union(*parts) == set("abcdef")


def test_largest_sizes():
    sizes = [14] * 20 + [16] * 12 + [18] * 6 + [20] * 5
    assert largest_sizes(sizes, at_least=5) == [20]
    assert largest_sizes(sizes, at_least=6) == [18, 20]
    assert largest_sizes(torch.tensor(sizes), at_least=12) == [16, 18, 20]


def test_split_survives_its_files(tmp_path):
    split = random_split(20, (0.5, 0.5, 0.0), seed=4)
    split.save(tmp_path / "run")
    again = Split.load(tmp_path / "run")
    assert again.train.equal(split.train) and again.val.equal(split.val) and again.test.equal(split.test)
    assert again.test.dtype == torch.long
    assert (tmp_path / "run" / "train.txt").read_text().splitlines() == [str(number) for number in split.train.tolist()]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["test.txt", "train.txt", "val.txt"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: random_split(10, (0.8, 0.1, 0.2)), "must sum to 1, got [0.8, 0.1, 0.2]"),
        (lambda: random_split(10, (0.0, 0.5, 0.5)), "must sum to 1"),
        (lambda: random_split(3), "no cluster is left for the val part: 3 are too few"),
        (lambda: group_split(["run"] * 100), "1 group cannot be split into 3 parts; name the value"),
        (lambda: size_split([31, 33], [33, 40]), "held-out sizes [40]; there are clusters of 31 to 33 atoms"),
        (lambda: size_split([33, 33], [33]), "no cluster is left for the train part"),
        (lambda: size_split([33, 33], [33], groups=[0, 1]), "hold out fewer sizes"),
        (lambda: fold_split(10, folds=2), "at least 3 folds, got 2"),
        (lambda: fold_split(10, fold=5), "no fold 5: the 5 folds are counted from 0"),
        (lambda: fold_split(["a", "b"] * 10), "2 clusters or groups of them cannot be divided into 5 folds"),
        (lambda: largest_sizes([14] * 20), "20 clusters of 1 size(s) leave no smaller ones"),
        (lambda: largest_sizes([14] * 9 + [16] * 9), "18 clusters of 2 size(s) leave no smaller ones"),
        (lambda: Split(torch.tensor([1, 2]), torch.tensor([2]), torch.tensor([0])), "twice"),
    ],
)
def test_impossible_splits_are_refused(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_split_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"train\.txt: cannot read the split"):
        Split.load(tmp_path)
    random_split(10).save(tmp_path)
    (tmp_path / "val.txt").write_text("3\n-4\n")
    with pytest.raises(InputError, match=r"val\.txt, line 2: expected an index from 0, got '-4'"):
        Split.load(tmp_path)

import errno
import functools
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron
from helpers import assert_refused, half_saved, kill, status_of
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform

from pyg_clusters.datasets import ClusterDataset, GalliumClusters, group_split
from pyg_clusters.datasets.cluster_dataset import fingerprint_of
from pyg_clusters.frames import write_extxyz
from pyg_clusters.pairs import shell_counts

NA, K = -4400.123456789, -16000.987654321


def alloy(num_sodium, num_potassium, **info):
    """A chain with 0.25 eV per bond above the energy of its free atoms, and the index of each atom."""
    num_atoms = num_sodium + num_potassium
    positions = np.zeros((num_atoms, 3))
    positions[:, 0] = 3.5 * np.arange(num_atoms)
    atoms = Atoms(f"Na{num_sodium}K{num_potassium}", positions=positions)
    energy = NA * num_sodium + K * num_potassium - 0.25 * (num_atoms - 1)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.arange(3.0 * num_atoms).reshape(-1, 3))
    atoms.info.update(total=energy, group="even" if num_atoms % 2 == 0 else "odd", temperature=100.0 * num_atoms)
    atoms.info.update(info)
    atoms.arrays["nmr_shielding"] = 500.0 + np.arange(num_atoms)
    return atoms


ALLOYS = [(2, 1), (1, 1), (3, 2), (2, 4), (5, 1)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "alloys.extxyz"
    write_extxyz(path, [alloy(*counts) for counts in ALLOYS])
    return path


@pytest.fixture(scope="module")
def gallium_root(tmp_path_factory):
    return tmp_path_factory.mktemp("gallium")


def processed(root):
    return sorted((Path(root) / "processed").iterdir())


# --- the shipped clusters


def test_gallium_minima_are_those_of_the_card(gallium_root):
    dataset = GalliumClusters(gallium_root)
    assert len(dataset) == 6030
    counts = torch.bincount(dataset.sizes)
    assert counts[:31].sum() == 0 and counts.numel() == 71
    assert counts[31:].min() == 132 and counts[31:].max() == 162
    assert dict(enumerate(counts.tolist()[31:], 31)) == dataset.card.files["gallium_minima.extxyz"].sizes

    per_atom = dataset._data.y / dataset.sizes
    assert -2.5 < per_atom.mean() < -2.4 and per_atom.isfinite().all()
    assert (dataset._data.z == 31).all() and dataset._data.pos.isfinite().all()
    first = dataset[0]
    assert first.y.item() == pytest.approx(-70.620383, abs=1e-5)
    assert first.pos[0].tolist() == pytest.approx([-0.04187, -0.49651, 0.60290], abs=1e-5)
    assert dataset.group_names[0] == "31-1-1" and len(dataset.group_names) == 241
    assert dataset._data.idx.equal(torch.arange(6030))


def test_gallium_groups_never_mix_sizes_and_split_well(gallium_root):
    dataset = GalliumClusters(gallium_root)
    for group, name in enumerate(dataset.group_names):
        assert (dataset.sizes[dataset.groups == group] == int(name.split("-")[0])).all()
    split = group_split(dataset.groups, seed=0)
    assert split.train.numel() == pytest.approx(4824, abs=15) and split.test.numel() == pytest.approx(603, abs=10)
    assert not set(dataset.groups[split.train].tolist()) & set(dataset.groups[split.test].tolist())


def test_gallium_trajectory_and_its_minima_belong_together(gallium_root):
    hot = GalliumClusters(gallium_root, subset="md_46")
    quenched = GalliumClusters(gallium_root, subset="md_46_quenched")
    truth = GalliumClusters(gallium_root, subset="md_46", target="quench_binding_energy")
    assert len(hot) == len(quenched) == 1000
    torch.testing.assert_close(hot._data.quench_binding_energy, quenched._data.y)
    torch.testing.assert_close(truth._data.y, quenched._data.y)
    assert (hot._data.y > quenched._data.y).all()
    assert hot[3].time_fs.item() == 1600 and hot[3].temperature.item() == 900


def test_gallium_arguments_are_checked(gallium_root):
    assert_refused(lambda: GalliumClusters(gallium_root, subset="md"), "no subset 'md'", "minima, md_46")
    assert_refused(
        lambda: GalliumClusters(gallium_root, target="quench_binding_energy"),
        "'minima' has no target",
        "binding_energy",
    )


def test_gallium_default_root_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = GalliumClusters(subset="md_46")
    assert Path(dataset.processed_paths[0]).is_relative_to(tmp_path / "pyg_clusters" / "gallium_clusters")
    assert Path(dataset.processed_paths[0]).exists()


def test_gallium_forces_sum_to_nothing(gallium_root):
    dataset = GalliumClusters(gallium_root, subset="forces")
    assert len(dataset) == 3500 and dataset[0].force.shape == (31, 3)
    assert dataset[0].force[0].tolist() == pytest.approx([0.33961, 0.10586, 0.28177])
    for number in (0, 1700, 3499):  # there is no net force on a free cluster
        assert dataset[number].force.sum(dim=0).abs().max() < 1e-3


def test_pair_distances_of_gallium_have_their_gaps(gallium_root):
    dataset = GalliumClusters(gallium_root)[::60]
    pos = torch.cat([cluster.pos for cluster in dataset])
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), dataset.sizes.cumsum(0)])
    edges = [0.1 * step for step in range(20, 70)]
    cumulative = shell_counts(pos, ptr, edges).sum(dim=0).double()  # pairs between successive distances
    middle = torch.tensor(edges[:-1], dtype=torch.double) + 0.05
    density = cumulative[1:-1] / middle**2
    assert 2.6 < middle[density[:15].argmax()] < 3.0
    around = (middle > 3.0) & (middle < 4.0)
    assert middle[around][density[around].argmin()] == pytest.approx(3.4, abs=0.11)


# --- data sets of any files


def test_clusters_batch_like_any_graph(tmp_path, file):
    dataset = ClusterDataset(tmp_path, file, group="group", keep=["temperature"], forces=True)
    assert len(dataset) == 5 and dataset.sizes.tolist() == [3, 2, 5, 6, 6]
    assert dataset.group_names == ["odd", "even"] and dataset.groups.tolist() == [0, 1, 0, 1, 1]
    for key in dataset[0].keys():
        assert "index" not in key and "batch" not in key
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch.num_graphs == 5 and batch.ptr.tolist() == [0, 3, 5, 10, 16, 22]
    assert batch.z.dtype == batch.idx.dtype == batch.group.dtype == torch.long
    assert batch.pos.dtype == batch.force.dtype == torch.float32
    assert batch.y.dtype == torch.double  # single precision would round these totals
    assert batch.idx.tolist() == [0, 1, 2, 3, 4] and batch.cluster_size.tolist() == [3, 2, 5, 6, 6]
    assert batch.temperature.tolist() == [300, 200, 500, 600, 600]
    assert batch.force[:3].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert batch.z[:3].tolist() == [11, 11, 19]


def test_sizes_and_groups_follow_a_selection(tmp_path, file):
    dataset = ClusterDataset(tmp_path, file, group="group")
    assert dataset[[4, 1, 0]].sizes.tolist() == [6, 2, 3]
    assert dataset[torch.tensor([4, 1, 0])].groups.tolist() == [1, 1, 0]


@pytest.mark.parametrize("target", ["energy", "total"])
def test_references_are_subtracted_before_precision_is_lost(tmp_path, file, target):
    dataset = ClusterDataset(tmp_path, file, target, references={"Na": NA, "K": K})
    expected = [-0.25 * (sum(counts) - 1) for counts in ALLOYS]
    assert dataset._data.y.tolist() == pytest.approx(expected, abs=1e-6)  # 60,000 eV to 0.004 in single precision
    assert dataset.references == {"Na": NA, "K": K}


def test_references_are_fitted(tmp_path, file):
    dataset = ClusterDataset(tmp_path, file, references="fit")
    composition = np.array(ALLOYS, dtype=float)
    energy = composition @ [NA, K] - 0.25 * (composition.sum(axis=1) - 1)
    expected, *_ = np.linalg.lstsq(composition, energy, rcond=None)
    assert dataset.references == pytest.approx({"Na": expected[0], "K": expected[1]}, rel=1e-12)
    np.testing.assert_allclose(dataset._data.y, energy - composition @ expected, atol=1e-6)
    again = ClusterDataset(tmp_path, file, references="fit")
    assert again.references == dataset.references


def test_target_per_atom(tmp_path, file):
    dataset = ClusterDataset(tmp_path, file, "nmr_shielding", per_atom=True)
    assert dataset[1].y.tolist() == [500, 501]
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch.y.shape == batch.z.shape


def test_arrays_of_atoms_are_kept(tmp_path, file):
    frames = [alloy(*counts) for counts in ALLOYS]
    for number, atoms in enumerate(frames):
        atoms.arrays["tensor"] = np.arange(9.0 * len(atoms)).reshape(-1, 9) + 1000 * number
    write_extxyz(file, frames)
    dataset = ClusterDataset(tmp_path, file, "total", keep_atoms={"tensor": "sigma", "nmr_shielding": "shielding"})
    assert dataset[2].sigma.shape == (5, 9) and dataset[2].sigma[1].tolist() == list(range(2009, 2018))
    assert dataset[1].shielding.tolist() == [500, 501] and dataset[1].y.shape == (1,)
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch.sigma.shape == (22, 9) and batch.sigma.dtype == torch.float32
    assert ClusterDataset(tmp_path, file, "total", keep_atoms=["tensor"])[0].tensor.equal(dataset[0].sigma)


def test_groups_are_files_where_none_is_named(tmp_path, file):
    other = tmp_path / "other.xyz.xz"
    write_extxyz(other, [alloy(1, 2), alloy(2, 2)])
    dataset = ClusterDataset(tmp_path, [file, other])
    assert dataset.group_names == ["alloys.extxyz", "other.xyz.xz"]
    assert dataset.groups.tolist() == [0] * 5 + [1] * 2 and dataset._data.idx.tolist() == list(range(7))


def test_one_cluster_is_a_data_set(tmp_path):
    write_extxyz(tmp_path / "one.xyz", [alloy(2, 1)])
    dataset = ClusterDataset(tmp_path, tmp_path / "one.xyz")
    assert len(dataset) == 1 and dataset.sizes.tolist() == [3] and dataset.groups.tolist() == [0]
    assert len(ClusterDataset(tmp_path, tmp_path / "one.xyz")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": "REF_energy"}, "alloys.extxyz, frame 0: no property 'REF_energy'; found per frame: energy"),
        ({"target": "nmr_shielding"}, "per atom: forces, nmr_shielding"),
        ({"target": "shielding", "per_atom": True}, "no property 'shielding' per atom; found"),
        ({"target": "forces", "per_atom": True}, "'forces' is not one number per atom"),
        ({"target": "group"}, "frame 0: 'group' must be a number, got"),
        ({"group": "segment"}, "no property 'segment'"),
        ({"references": {"Na": NA}}, "no reference energy for K, only for Na"),
        ({"references": {"Nax": NA}}, "'Nax' is not an element symbol"),
        (
            {"references": "free"},
            "references must be 'fit', 'isolated_atoms' or energies by element symbol, got 'free'",
        ),
        ({"target": "nmr_shielding", "per_atom": True, "references": "fit"}, "belong to a target per cluster"),
        ({"keep": ["frame_index"]}, "'frame_index' cannot be kept"),
        ({"keep": ["y"]}, "'y' cannot be kept"),
        ({"keep_atoms": {"nmr_shielding": "x"}}, "'x' cannot be kept"),
        ({"keep_atoms": ["tensor"]}, "no property 'tensor' per atom; found"),
        ({"keep": ["temperature"], "keep_atoms": {"nmr_shielding": "temperature"}}, "must have different names"),
        ({"pre_filter": lambda cluster: False}, "pre_filter removes all clusters"),
    ],
)
def test_wrong_keys_and_references_are_refused(tmp_path, file, arguments, words):
    assert_refused(lambda: ClusterDataset(tmp_path, file, **arguments), words)
    assert not (tmp_path / "processed").exists() or not processed(tmp_path)


def test_bad_frames_and_labels_are_refused(tmp_path):
    def refused(atoms, words):
        write_extxyz(tmp_path / "bad.xyz", [alloy(2, 1), atoms])
        assert_refused(lambda: ClusterDataset(tmp_path, tmp_path / "bad.xyz", "total"), "bad.xyz, frame 1: ", words)

    refused(alloy(2, 1, total=np.nan), "'total' is nan")
    refused(alloy(1, 0), "number of atoms is 1")
    overlapping = alloy(2, 1)
    overlapping.positions[1] = overlapping.positions[0]
    overlapping.calc = None
    refused(overlapping, "two atoms (0 and 1) are 0.00 Å apart")
    boxed = alloy(2, 1)
    boxed.set_cell([4, 4, 30])
    boxed.set_pbc(True)
    refused(boxed, "is connected to its own image along a and b: a slab")
    assert_refused(lambda: ClusterDataset(tmp_path, tmp_path / "none.xyz"), "none.xyz: no such file")
    assert_refused(lambda: ClusterDataset(tmp_path, []), "no files given")


# --- files on disk


class Shift(BaseTransform):
    """Moves a cluster; its repr does not contain the distance."""

    def __init__(self, by):
        self.by = by

    def forward(self, data):
        data.pos = data.pos + self.by
        return data


def test_processed_file_is_used_again(tmp_path, file, capfd):
    ClusterDataset(tmp_path, file)
    (path,) = processed(tmp_path)
    before = path.stat().st_mtime_ns
    ClusterDataset(tmp_path, file)
    assert processed(tmp_path) == [path] and path.stat().st_mtime_ns == before
    ClusterDataset(tmp_path, file, force_reload=True)
    assert processed(tmp_path) == [path] and path.stat().st_mtime_ns > before
    assert isinstance(torch.load(path, weights_only=True), dict)
    assert capfd.readouterr() == ("", "")


def test_changes_are_noticed(tmp_path, file):
    def y(**arguments):
        return ClusterDataset(tmp_path, file, **arguments)._data.y.tolist()

    first = y(target="total", references={"Na": NA, "K": K})
    assert y(target="temperature") == [300, 200, 500, 600, 600]
    assert y(target="total", references={"Na": NA - 1, "K": K}) == pytest.approx(
        [value + counts[0] for value, counts in zip(first, ALLOYS, strict=True)]
    )
    write_extxyz(file, [alloy(*counts) for counts in reversed(ALLOYS)])
    assert y(target="total", references={"Na": NA, "K": K}) == first[::-1]


def test_changed_transforms_and_filters_are_noticed(tmp_path, file):
    for by in (0.0, 1.0, 2.0, 1.0):
        moved = ClusterDataset(tmp_path, file, pre_transform=Shift(by))[0].pos - ClusterDataset(tmp_path, file)[0].pos
        assert moved[0, 0] == by
    assert len(processed(tmp_path)) == 4
    for smallest in (3, 6, 5, 3):  # functions that look the same
        dataset = ClusterDataset(tmp_path, file, pre_filter=lambda data, n=smallest: data.num_nodes >= n)
        assert dataset.sizes.tolist() == [size for size in (3, 2, 5, 6, 6) if size >= smallest]
    assert len(processed(tmp_path)) == 5


def test_filter_comes_before_transform_and_keeps_the_numbers(tmp_path, file):
    dataset = ClusterDataset(
        tmp_path, file, pre_filter=lambda data: data.pos[0, 0] < 0.5 and data.num_nodes > 3, pre_transform=Shift(1.0)
    )
    assert dataset._data.idx.tolist() == [2, 3, 4]


def test_sizes_are_those_after_the_transform(tmp_path, file):
    def without_potassium(data):
        return Data(**{key: value[data.z == 11] if key in ("z", "pos") else value for key, value in data})

    dataset = ClusterDataset(tmp_path, file, pre_transform=without_potassium)
    assert dataset.sizes.tolist() == [sodium for sodium, _ in ALLOYS]
    assert [int(cluster.cluster_size) for cluster in dataset] == [cluster.num_nodes for cluster in dataset]


def test_corrupted_processed_file_is_named(tmp_path, file):
    ClusterDataset(tmp_path, file)
    (path,) = processed(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    assert_refused(lambda: ClusterDataset(tmp_path, file), path, "delete it or pass force_reload=True")
    assert len(ClusterDataset(tmp_path, file, force_reload=True)) == 5


def test_full_disk_leaves_nothing(tmp_path, file, monkeypatch):
    def full(content, stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert_refused(lambda: ClusterDataset(tmp_path, file), "cannot write", "No space left on device")
    assert processed(tmp_path) == []


@pytest.mark.parametrize(
    ("module", "name", "killer"), [(torch, "save", half_saved), (os, "replace", kill), (None, "pre_filter", kill)]
)
def test_kill_in_a_first_load_breaks_nothing(tmp_path, file, monkeypatch, module, name, killer):
    kwargs = {} if module else {name: killer}
    with monkeypatch.context() as patch:
        if module:
            patch.setattr(module, name, killer)
        assert status_of(lambda: len(ClusterDataset(tmp_path, file, **kwargs))) == signal.SIGKILL
    assert not list((tmp_path).glob("processed/clusters_*"))
    assert len(ClusterDataset(tmp_path, file)) == 5


def test_transforms_that_differ_in_depth_are_distinguished():
    from torch_geometric.transforms import Compose

    class Shift:
        def __init__(self, by):
            self.by = by

        def __repr__(self):
            return "Shift()"

        def __call__(self, data):
            return data

    long = torch.arange(3000.0)
    for one, other in [(1.0, 2.0), (long, long + (long == 1500)), ([1, [2]], [1, [3]])]:
        assert fingerprint_of(Compose([Shift(one)])) != fingerprint_of(Compose([Shift(other)]))
        assert fingerprint_of(Compose([Shift(one)])) == fingerprint_of(Compose([Shift(one)]))


class Scale(torch.nn.Module):
    """Its representation shows neither the weight nor the factor."""

    def __init__(self, weight=1.0, factor=1.0):
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight), persistent=False)
        self.factor = factor

    def forward(self, data):
        data.pos = data.pos * self.weight * self.factor
        return data


@pytest.mark.parametrize("wrap", [lambda scale: scale, lambda scale: scale.forward, functools.partial])
def test_modules_are_identified_by_their_values(tmp_path, file, wrap):
    pos = ClusterDataset(tmp_path, file)[0].pos
    for arguments in ((1.0, 2.0), (1.0, 3.0), (4.0, 1.0), (1.0, 2.0)):
        dataset = ClusterDataset(tmp_path, file, pre_transform=wrap(Scale(*arguments)))
        torch.testing.assert_close(dataset[0].pos, pos * math.prod(arguments))
    assert len(processed(tmp_path)) == 4  # one of the original positions


def test_transforms_that_contain_themselves_are_identified(tmp_path, file):
    def linked(factor):
        scale = Scale(factor=factor)
        object.__setattr__(scale, "parts", [scale])
        return scale

    assert fingerprint_of(linked(2.0)) == fingerprint_of(linked(2.0)) != fingerprint_of(linked(3.0))
    pos = ClusterDataset(tmp_path, file)[0].pos
    torch.testing.assert_close(ClusterDataset(tmp_path, file, pre_transform=linked(2.0))[0].pos, 2 * pos)


def test_the_order_of_a_set_does_not_count():
    assert list({0, 8}) != list({8, 0})
    assert fingerprint_of({0, 8}) == fingerprint_of({8, 0}) != fingerprint_of({0, 9})


def test_files_of_one_name_are_different_groups(tmp_path):
    for folder in ("d1", "d2"):
        atoms = Icosahedron("Na", 2)
        atoms.info["e"] = 1.0
        write_extxyz(tmp_path / folder / "md.extxyz", [atoms])
    dataset = ClusterDataset(tmp_path, [tmp_path / "d1/md.extxyz", tmp_path / "d2/md.extxyz"], target="e")
    assert dataset.group_names == ["d1/md.extxyz", "d2/md.extxyz"]
    assert dataset.groups.tolist() == [0, 1]

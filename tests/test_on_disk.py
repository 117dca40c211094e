"""Training from a frame store: the same clusters, batches, metrics and weights as from memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from helpers import atoms_of
from safetensors.torch import load_file
from torch.utils.data import DataLoader as TorchLoader
from torch_geometric.loader import DataLoader

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, OnDiskClusters
from pyg_clusters.datasets.on_disk import StoreIndex
from pyg_clusters.datasets.training_data import batches_of
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, StoreReader, write_extxyz, write_store
from pyg_clusters.models import AlloyDART
from pyg_clusters.nn.output_scale import ReferenceFit
from pyg_clusters.testing import random_clusters
from pyg_clusters.training import ClusterDataModule, EnergyTraining
from pyg_clusters.training.trainer_parts import EpochSampler, bounded_batches
from pyg_clusters.transforms import ShellGraph

LABELS = {"properties": ["binding", "segment", "temperature"], "atom_properties": ["forces", "softness"]}
KEYS = {"group": "segment", "keep": ["temperature"], "keep_atoms": {"softness": "q"}, "forces": True}


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """60 small clusters of gallium and sodium with energies, forces and other values."""
    generator = torch.Generator().manual_seed(5)
    sizes = tuple(torch.randint(5, 12, (60,), generator=generator).tolist())
    clusters = atoms_of(*random_clusters(sizes, 31, generator))
    random = np.random.default_rng(0)
    for number, atoms in enumerate(clusters):
        atoms.numbers = z = random.choice([11, 31], size=len(atoms))
        atoms.info = {"segment": f"s{number // 5}", "temperature": 300.0 + number}
        bonds = (atoms.get_all_distances()[np.triu_indices(len(atoms), 1)] < 3.49).sum()
        atoms.info["binding"] = -0.3 * float(bonds) - 1000.0 * float((z == 31).sum()) - 400.0 * float((z == 11).sum())
        atoms.arrays["forces"] = random.normal(size=(len(atoms), 3))
        atoms.arrays["softness"] = random.normal(size=len(atoms))
    path = tmp_path_factory.mktemp("frames") / "clusters.extxyz"
    write_extxyz(path, clusters)
    return path


@pytest.fixture(scope="module")
def store(frames) -> Path:
    path = frames.with_name("clusters.h5")
    write_store(path, Frames.open(frames, **LABELS, block_size=7), compressed=False)
    return path


@pytest.fixture(scope="module")
def in_memory(frames, tmp_path_factory) -> ClusterDataset:
    return ClusterDataset(tmp_path_factory.mktemp("root"), frames, "binding", references="fit", **KEYS)


@pytest.fixture(scope="module")
def on_disk(store) -> OnDiskClusters:
    return OnDiskClusters(store, "binding", references="fit", **KEYS)


def assert_same(found, expected):
    assert set(found.keys()) == set(expected.keys())
    for key in expected.to_dict():
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0, msg=key)


def test_clusters_and_batches_are_those_in_memory(on_disk, in_memory):
    assert len(on_disk) == len(in_memory) == 60
    assert on_disk.references == in_memory.references and on_disk.group_names == in_memory.group_names
    assert torch.equal(on_disk.sizes, in_memory.sizes) and torch.equal(on_disk.groups, in_memory.groups)
    for place in (0, 41):
        assert_same(on_disk[place], in_memory[place])
    clusters = [17, 3, 59, 4, 5, 3]
    assert_same(batches_of(on_disk)[clusters], batches_of(in_memory)[clusters])


def test_parts_and_loaders_of_pyg_work(on_disk, in_memory):
    part, same = on_disk[torch.tensor([40, 2, 9])], in_memory[torch.tensor([40, 2, 9])]
    assert len(part) == 3 and torch.equal(part.sizes, same.sizes) and torch.equal(part.groups, same.groups)
    assert_same(part[1], same[1])
    assert_same(batches_of(part)[[2, 0]], batches_of(same)[[2, 0]])
    for found, expected in zip(DataLoader(part, batch_size=2), DataLoader(same, batch_size=2), strict=True):
        assert_same(found, expected)
    assert torch.equal(on_disk[10:20].sizes, in_memory.sizes[10:20])
    assert_same(on_disk.multi_get([-1])[0], in_memory[59])


def test_transform_is_applied(store):
    dataset = OnDiskClusters(store, "binding", transform=ShellGraph())
    batch = batches_of(dataset)[[0, 5]]
    sizes = batch.ptr.diff()
    assert batch.edge_index.size(1) == int((sizes * (sizes - 1)).sum()) == dataset[0].num_edges + dataset[5].num_edges


def test_target_of_atoms(store, frames, tmp_path):
    theirs = ClusterDataset(tmp_path, frames, "softness", per_atom=True)
    ours = OnDiskClusters(store, "softness", per_atom=True, root=tmp_path)
    assert torch.equal(ours[8].y, theirs[8].y)
    assert torch.equal(batches_of(ours)[[8, 1]].y, batches_of(theirs)[[8, 1]].y)


@pytest.mark.parametrize("compressed", [False, True])
def test_reader_gives_any_frames_in_any_order(frames, tmp_path, monkeypatch, compressed):
    monkeypatch.setattr("pyg_clusters.frames.store_writer.CHUNK", 16)  # so that frames lie in several chunks
    write_store(tmp_path / "s.h5", Frames.open(frames, **LABELS, block_size=11), compressed=compressed)
    reader = StoreReader(tmp_path / "s.h5")
    assert reader.direct is not compressed
    (whole,) = Frames.open(frames, **LABELS)
    for chosen in ([59, 0, 7, 8, 9, 7], [], list(range(60))):
        expected = whole.select(np.array(chosen, dtype=int))
        np.testing.assert_array_equal(reader.atoms("pos", chosen), expected.pos)
        np.testing.assert_array_equal(reader.atoms("z", chosen), expected.z)
        forces = reader.atoms("atom_properties/forces", chosen)
        np.testing.assert_array_equal(forces, expected.atom_properties["forces"].reshape(-1, 3))


def test_workers_and_the_first_process_read_the_same_file(on_disk):
    batches = batches_of(on_disk)
    numbers = [[3, 1], [2], [59, 7, 8]]
    before = batches[numbers[0]]
    found = list(TorchLoader(batches, sampler=numbers, batch_size=None, num_workers=2))
    for batch, clusters in zip(found, numbers, strict=True):
        assert_same(batch, batches[clusters])
    assert_same(batches[numbers[0]], before)


@pytest.fixture(scope="module")
def recipe(frames, store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    labels = {"target": "binding", "group": "segment", "references": "fit"}
    datasets = {
        "memory": ("ClusterDataset", {"root": str(folder), "files": [str(frames)], **labels}),
        "disk": ("OnDiskClusters", {"file": str(store), **labels}),
    }
    for name, (kind, arguments) in datasets.items():
        dataset = {"class_path": f"pyg_clusters.datasets.{kind}", "init_args": arguments}
        data = {"dataset": dataset, "split": "group", "fractions": [0.6, 0.2, 0.2], "batch_size": 8}
        model = {"model": {"class_path": "pyg_clusters.models.AlloyDART", "init_args": {"elements": [11, 31]}}}
        configuration = {"data": data, "model": model, "trainer": {"max_epochs": 3, "accelerator": "cpu"}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(configuration))
    return folder


def test_training_from_disk_equals_training_from_memory(recipe, tmp_path):
    runs = {name: tmp_path / name for name in ("memory", "disk")}
    workers = {"memory": [], "disk": ["--data.num_workers", "1"]}
    for name, run in runs.items():
        assert main(["train", "--config", str(recipe / f"{name}.yaml"), "--out", str(run), *workers[name]]) == 0
    metrics = [(run / "metrics.csv").read_text() for run in runs.values()]
    assert metrics[0] == metrics[1] and metrics[0].count("\n") == 4
    weights = [load_file(run / "best" / "model.safetensors") for run in runs.values()]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (runs["memory"] / "test_predictions.csv").read_text() == (runs["disk"] / "test_predictions.csv").read_text()
    for run in runs.values():
        assert main(["calibrate", str(run)]) == 0
    calibrations = [json.loads((run / "calibration.json").read_text()) for run in runs.values()]
    assert calibrations[0].pop("groups") == calibrations[1].pop("groups")
    assert calibrations[0] == calibrations[1]


@pytest.mark.slow
def test_two_processes_train_from_one_file(recipe, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ["train", "--config", str(recipe / "disk.yaml"), "--data.max_pairs", "1000"]
    assert main([*arguments, "--out", str(one)]) == 0
    several = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    command = [sys.executable, "-m", "pyg_clusters", *arguments, "--out", str(two), *several]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [np.loadtxt(run / "metrics.csv", delimiter=",", skiprows=1)[:, 1:4] for run in (one, two)]
    np.testing.assert_allclose(rows[1], rows[0], rtol=2e-3)


def test_batches_are_bounded_in_pairs():
    sizes = torch.randint(5, 70, (500,), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    parts = list(bounded_batches(order, sizes, 32, 20_000))
    assert torch.equal(torch.cat(parts), order)
    pairs = [part.numel() * int(sizes[part].max()) ** 2 for part in parts]
    assert max(part.numel() for part in parts) <= 32 and max(pairs) <= 20_000
    for part, after in zip(parts, parts[1:], strict=False):  # no batch could have contained the next cluster
        longer = torch.cat([part, after[:1]])
        assert longer.numel() > 32 or longer.numel() * int(sizes[longer].max()) ** 2 > 20_000
    alone = bounded_batches(torch.arange(3), torch.tensor([9, 100, 9]), 32, 200)
    assert [part.tolist() for part in alone] == [[0], [1], [2]]
    shared = bounded_batches(torch.arange(4), torch.tensor([100] * 4), 32, 200, min_clusters=2)
    assert [part.tolist() for part in shared] == [[0, 1], [2, 3]]


def test_an_epoch_of_bounded_batches_has_every_cluster_once(on_disk):
    """The trainer does not use the length of the loader: the number of batches may change between epochs."""
    data = ClusterDataModule(on_disk, split="random", batch_size=8, max_pairs=300)
    loader = data.train_dataloader()
    numbers = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        batches = [batch.idx.tolist() for batch in loader]
        assert sorted(cluster for batch in batches for cluster in batch) == data.split.train.tolist()
        numbers.append(len(batches))
    assert len(set(numbers)) > 1 and min(numbers) > 6
    ranks = [EpochSampler(torch.arange(60), 8, True, 0, rank, 2, on_disk.sizes, 300) for rank in (0, 1)]
    shares = list(zip(*ranks, strict=True))
    assert all(abs(len(a) - len(b)) <= 1 and b for a, b in shares)
    seen = [cluster for share in shares for part in share for cluster in part]
    assert len(seen) == len(set(seen)) >= 59  # the last batch may be one cluster, too few for two processes


class Counted(pl.Callback):
    def __init__(self):
        self.clusters = []

    def on_train_epoch_start(self, *_):
        self.clusters.append(0)

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        self.clusters[-1] += batch.y.numel()


def test_every_epoch_of_the_trainer_has_every_cluster(on_disk):
    data = ClusterDataModule(on_disk, split="random", batch_size=8, max_pairs=300)
    counted = Counted()
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=4, callbacks=[counted], enable_model_summary=False, **options)
    trainer.fit(EnergyTraining(AlloyDART((11, 31), hidden_channels=8)), data)
    assert counted.clusters == [48] * 4
    assert trainer.callback_metrics["val_mae"] > 0


def test_offsets_of_blocks_are_those_of_all_clusters():
    generator = torch.Generator().manual_seed(2)
    sizes = torch.randint(5, 60, (3000,), generator=generator)
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    z = torch.tensor([29, 79])[torch.randint(0, 2, (int(ptr[-1]),), generator=generator)]
    composition = torch.stack([torch.bincount(torch.repeat_interleave(sizes), z == n) for n in (29, 79)], 1).double()
    energy = composition @ torch.tensor([-3.5, -3.8]).double() + torch.randn(3000, generator=generator).double()
    expected = torch.linalg.lstsq(composition, energy[:, None]).solution.flatten().tolist()
    fit = ReferenceFit()
    for first in range(0, 3000, 700):
        ends = ptr[first : first + 701]
        fit.add(z[ends[0] : ends[-1]], ends - ends[0], energy[first : first + 700])
    assert list(fit.solution()) == [29, 79]
    np.testing.assert_allclose(list(fit.solution().values()), expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*different zeros")
def test_index_is_kept_and_rebuilt_for_another_file(store, tmp_path, monkeypatch):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(store.read_bytes())
    first = OnDiskClusters(copy, "binding")
    assert len(list(tmp_path.glob("copy.*.index.pt"))) == 1
    with monkeypatch.context() as patched:
        patched.setattr(StoreIndex, "_build", None)  # the second time, nothing is read
        assert OnDiskClusters(copy, "binding").fingerprint == first.fingerprint
    with h5py.File(copy, "a") as file:
        file["properties/binding"][3] = -1.0
    os.utime(copy, ns=(1, 1))
    again = OnDiskClusters(copy, "binding")
    assert again.fingerprint != first.fingerprint and again[3].y == -1.0
    (kept,) = tmp_path.glob("copy.*.index.pt")
    kept.write_bytes(kept.read_bytes()[:100])
    assert OnDiskClusters(copy, "binding").fingerprint == again.fingerprint


def test_a_compressed_store_works_and_gives_a_warning(frames, tmp_path, in_memory):
    write_store(tmp_path / "small.h5", Frames.open(frames, **LABELS))
    with pytest.warns(UserWarning, match="convert --uncompressed"):
        dataset = OnDiskClusters(tmp_path / "small.h5", "binding", references="fit", **KEYS)
    assert_same(batches_of(dataset)[[5, 2]], batches_of(in_memory)[[5, 2]])


def test_unusable_input_is_reported_in_one_line(store, frames, tmp_path):
    whole = store.read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("no frames")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1.0
    with h5py.File(tmp_path / "lacks.h5", "w") as file, h5py.File(store) as source:
        file.attrs.update(source.attrs)
        for name in ("ptr", "z", "properties"):
            source.copy(name, file)
    broken = tmp_path / "nan.h5"
    broken.write_bytes(whole)
    with h5py.File(broken, "a") as file:
        file["properties/binding"][7] = np.nan
    for path, words, arguments in (
        (store, r"no property 'energy'; found per frame: binding, segment, temperature", {}),
        (store, r"no property 'stress' per atom; .* per atom: forces, softness", {"keep_atoms": ["stress"]}),
        (store, r"no reference energy for Na, only for Ga", {"references": {"Ga": -1.0}}),
        (broken, r"frame 7: 'binding' is nan", {}),
        (tmp_path / "half.h5", r"cannot be read .*truncated", {}),
        (tmp_path / "text.h5", r"cannot be read", {}),
        (tmp_path / "other.h5", r"not a frame store of version 1", {}),
        (tmp_path / "lacks.h5", r"not a valid frame store, 'pos' is missing", {}),
        (tmp_path / "none.h5", r"no such file", {}),
        (frames, r"create one with pyg-clusters convert", {}),
    ):
        target = "energy" if "'energy'" in words else "binding"
        with pytest.raises(InputError, match=words) as error:
            OnDiskClusters(path, target, root=tmp_path, **arguments)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value) or "reference" in words
    later = tmp_path / "later.h5"
    later.write_bytes(whole)
    dataset = OnDiskClusters(later, "binding")
    with open(dataset.file, "r+b") as stream:
        stream.truncate(len(whole) // 20)
    with pytest.raises(InputError, match=r"later.h5: cannot be read \(OSError: it ends early\); is it corrupted"):
        dataset[59]


def test_convert_writes_a_store_to_train_from(frames, tmp_path):
    out = tmp_path / "out.h5"
    assert main(["convert", str(frames), "--out", str(out), "--uncompressed", "--properties", "binding"]) == 0
    (block,) = Frames.open(frames, properties=["binding"])
    assert OnDiskClusters(out, "binding")[2].y == pytest.approx(block.properties["binding"][2])

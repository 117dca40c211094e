import importlib.util
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_clusters.datasets import POPULATIONS, Card, SodiumShielding, UnrelaxedOnly, group_split
from pyg_clusters.datasets.splits import make_split
from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.errors import InputError
from pyg_clusters.shipped import shipped_folder
from pyg_clusters.structures.duplicates import copy_groups
from pyg_clusters.training import ClusterDataModule

FOLDER = shipped_folder("sodium_shielding")


@pytest.fixture(scope="module")
def stable(tmp_path_factory) -> SodiumShielding:
    return SodiumShielding(tmp_path_factory.mktemp("sodium"))


FILES = {file for files in SodiumShielding.SUBSETS.values() for file in files}


def test_card_matches_its_files():
    card = Card.load(FOLDER / "card.yaml")
    assert set(card.files) == {file.name for file in FOLDER.glob("*.extxyz")} == FILES
    assert card.licence == "CC-BY-4.0" and "GIAO" in card.level_of_theory
    for name, file in card.files.items():
        lines = card.verify(FOLDER, name).read_text(encoding="utf-8").splitlines()
        assert Counter(int(line) for line in lines if " " not in line) == file.sizes


def test_stable_clusters_are_those_of_the_card(stable):
    counts = torch.bincount(stable.sizes)
    assert {size: count for size, count in enumerate(counts.tolist()) if count} == stable.card.files[
        "sodium_shielding.extxyz"
    ].sizes
    assert len(stable) >= 150
    assert len({tuple(cluster.y.sort().values.tolist()) for cluster in stable}) == len(stable)  # no duplicates
    assert (stable._data.z == 11).all() and (stable._data.lambda_triplet > 0).all()
    assert (stable._data.homo_lumo_gap > 0.5).all() and (stable._data.homo_lumo_gap < 2).all()  # eV
    assert (stable._data.lambda_triplet < 1).all() and (stable._data.s2 == 0).all()
    assert set(stable._data.relaxed.tolist()) == {0, 1}
    energy = stable._data.energy / stable.sizes
    assert energy.mean() == pytest.approx(-4416.5, abs=1) and energy.std() < 0.2  # eV per atom, with 11 electrons each


def test_shieldings_are_those_of_the_paper_in_shape(stable):
    first = stable._data.y[:494]  # of the first 32 clusters of the data set
    assert first.mean() == pytest.approx(579.4, abs=0.1) and first.std() == pytest.approx(41, abs=2)
    y = stable._data.y
    assert y.mean() == pytest.approx(580, abs=8) and y.std() == pytest.approx(41, abs=6)
    skewness = ((y - y.mean()) / y.std()).pow(3).mean()
    assert -2 < skewness < -0.8  # the tail is at lower values
    assert y.min() > 380 and y.max() < 720  # the highest are inner atoms of relaxed clusters


def test_values_of_atoms_agree_with_each_other(stable):
    data = stable._data
    torch.testing.assert_close(data.tensor[:, [0, 4, 8]].mean(dim=1), data.y, atol=1e-3, rtol=0)
    for cluster in stable:
        assert cluster.populations.sum() == pytest.approx(11 * cluster.num_nodes, abs=1e-2)
        assert cluster.pos.mean(dim=0).abs().max() < 1e-5
        nearest = torch.cdist(cluster.pos, cluster.pos).fill_diagonal_(9).min(dim=1).values
        assert nearest.min() > 3 and nearest.max() < 4
    assert len(POPULATIONS) == 19
    populations = dict(zip(POPULATIONS, data.populations.T, strict=True))
    assert populations["1S"].mean() == pytest.approx(2, abs=0.001)
    assert populations["2PX"].mean() == pytest.approx(1.99, abs=0.01)

    def correlation(name):
        return torch.corrcoef(torch.stack([populations[name], data.y]))[0, 1]

    # A finding of the paper (Fig. 2): 3S increases with the shielding, 3P decreases.
    assert correlation("3S") > 0.2
    assert all(correlation(name) < -0.2 for name in ("3PX", "3PY", "3PZ"))


def test_batches_and_splits(stable):
    batch = next(iter(DataLoader(stable, batch_size=4)))
    assert batch.y.shape == batch.z.shape
    assert batch.populations.shape == (batch.num_nodes, 19) and batch.tensor.shape == (batch.num_nodes, 9)
    split = group_split(stable.groups, seed=0)
    assert split.train.numel() + split.val.numel() + split.test.numel() == len(stable)
    assert stable.group_names[0] == "Na14-10007"


def test_split_of_the_paper(stable, monkeypatch):
    """The largest sizes with at least ten clusters are held out while those of the paper are missing."""
    split, sizes = stable.paper_split(), stable.sizes
    held_out = sizes[split.test].unique().tolist()
    assert split.test.numel() >= 10 and min(held_out) > max(sizes[split.train].max(), sizes[split.val].max())
    assert split.train.numel() + split.val.numel() + split.test.numel() == len(stable)
    assert ClusterDataModule(stable, split="paper").split.test.equal(split.test)

    all_sizes = torch.tensor([14, 26, 28, 30, 40, 20, 40])
    monkeypatch.setattr(SodiumShielding, "sizes", property(lambda self: all_sizes))
    split = stable.paper_split()
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[0, 1, 5], [2, 3], [4, 6]]


def test_large_clusters_have_the_sizes_of_the_paper(tmp_path, stable):
    large = SodiumShielding(tmp_path, subset="large")
    assert {26, 30, 40} <= set(large.sizes.tolist()) <= {24, 26, 28, 30, 40}
    whole = SodiumShielding(tmp_path, subset="all_sizes")
    assert len(whole) == len(stable) + len(large)
    assert (large._data.lambda_triplet > 0).all() and (large._data.s2 == 0).all()
    assert large._data.y.mean() == pytest.approx(580, abs=10) and large._data.y.std() == pytest.approx(38, abs=10)
    energy = large._data.energy / large.sizes
    assert energy.mean() == pytest.approx(-4416.5, abs=1) and energy.std() < 0.2
    split = whole.paper_split()
    train, val, test = (whole.sizes[part] for part in (split.train, split.val, split.test))
    assert train.max() == 26 and set(val.tolist()) <= {28, 30} and set(test.tolist()) == {40}
    assert len(train) + len(val) + len(test) == len(whole)


def test_folds_by_cluster(stable):
    tested = [ClusterDataModule(stable, split="fold", fold=fold).split.test for fold in range(5)]
    assert torch.cat(tested).sort().values.equal(torch.arange(len(stable)))
    gallium_like = SimpleNamespace(transform=None)
    with pytest.raises(InputError, match="SimpleNamespace has no split of a paper"):
        make_split(gallium_like, "paper", None, (0.8, 0.1, 0.1), (), 0, 5, 0)


def test_unstable_clusters_are_separate(tmp_path):
    unstable = SodiumShielding(tmp_path, subset="unstable")
    assert (unstable._data.lambda_triplet < 0).all() and (unstable._data.s2[:4] > 0.05).all()  # limit of the paper
    assert unstable._data.y[:58].mean() == pytest.approx(548.2, abs=0.1)
    assert unstable._data.y[:58].std() == pytest.approx(91.5, abs=0.1)


def test_filter_of_unrelaxed_clusters_needs_the_shipped_data():
    with pytest.raises(InputError, match="new-recipe, or omit the filter"):
        UnrelaxedOnly()(Data(z=torch.tensor([11])))


def test_wrong_subset(tmp_path):
    with pytest.raises(InputError, match="no subset 'all'; choose one of stable, large, all_sizes, unstable"):
        SodiumShielding(tmp_path, subset="all")


# --- merging new frames


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "sodium_shielding"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


COLUMNS = " ".join(POPULATIONS)


def labelled(seed=90000, stable="T", columns=COLUMNS, trace=600.0, electrons=11.0) -> str:
    """A frame of a sodium dimer as written by the labeller."""
    header = (
        "Properties=species:S:1:pos:R:3:nmr_shielding:R:1:nmr_tensor:R:9:gop:R:19 "
        f'pbc="F F F" n=2 seed={seed} energy=-324.50000000 energy_unit=Hartree s2=0.0000 lambda_t=0.010000 '
        f'rks_stable={stable} gap=0.040000 wall=9.9 sel=random shielding_unit=ppm gop_columns="{columns}" method="x y"'
    )
    populations = " ".join(["0.500000"] * 18 + [f"{electrons - 9:.6f}"])
    atoms = [
        f"Na 0.00000000 0.00000000 {z:.8f} 600.0000 {trace:.4f} 0 0 0 600.0000 0 0 0 600.0000 {populations}"
        for z in (1, 4.1)
    ]
    return "\n".join(["2", header, *atoms]) + "\n"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("append", FOLDER / "append.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_frames_of_the_command_are_as_those_of_the_labeller(script):
    frame = labelled()
    for before, after in (
        ("energy=-324.50000000 energy_unit=Hartree", f"energy={-324.5 * script.HARTREE} label_key=Na2-5f"),
        ("lambda_t=0.010000", f"lambda_triplet={0.01 * script.HARTREE}"),
        ("s2=0.0000", "s2=0.0"),
        ("gap=0.040000 wall=9.9 sel=random shielding_unit=ppm", f"homo_lumo_gap={0.04 * script.HARTREE}"),
    ):
        assert before in frame
        frame = frame.replace(before, after)
    expected, found = (script.converted(*next(script.frames_of(text))) for text in (labelled(), frame))
    assert found == expected and "energy=-8830.094837" in found.text
    for told, family, selection in (
        ("gupta_energy=-1.2", "sblda_gupta", "random"),
        ("gupta_energy=-1.2 tblite_energy=-16.0 valence_lambda_triplet=0.3", "sblda_xtb", "screened"),
    ):
        by_commands = frame.replace("seed=90000", f"seed=90000 {told}")  # whatever its stated family
        assert by_commands != frame
        found = script.converted(*next(script.frames_of(by_commands)))
        assert found.key[1] == family and f"selection={selection} family={family} relaxed=1" in found.text


def test_new_frames_are_merged_once(script, copied, tmp_path):
    before = Card.load(copied / "card.yaml")
    file = tmp_path / "new.extxyz"
    cut_off = labelled(seed=90002)[:-40]
    file.write_text(labelled() + labelled(seed=90001, stable="F") + cut_off)
    names = script.STABLE, script.UNSTABLE
    for added in (1, 0):
        assert script.append([file], copied) == {**dict.fromkeys(names, added), script.LARGE: 0}
        card = Card.load(copied / "card.yaml")
        for name in names:
            path = card.verify(copied, name)
            assert card.files[name].frames == before.files[name].frames + 1 and card.files[name].sizes[2] == 1
        text = path.read_text(encoding="utf-8")
    assert text.splitlines()[-3:-1] == [
        "Properties=species:S:1:pos:R:3:nmr_shielding:R:1:nmr_tensor:R:9:gop:R:19 energy=-8830.094837 "
        "lambda_triplet=0.272114 rks_stable=F s2=nan homo_lumo_gap=1.088455 seed=90001 selection=random family=sblda "
        'relaxed=0 pbc="F F F"',
        "Na 0.000000 0.000000 -1.550000 600.0000 600.0000 0 0 0 600.0000 0 0 0 600.0000 "
        + " ".join(["0.500000"] * 18 + ["2.000000"]),
    ]
    assert not any(path.name.startswith(".partial") for path in copied.iterdir())


def test_a_relaxed_cluster_is_merged_once(script, copied, tmp_path):
    """Relaxations of many random clusters end in the same minimum, up to their convergence."""
    relaxed = labelled(seed=90003).replace("seed=", "family=sblda_gupta seed=")
    again = relaxed.replace("seed=90003", "seed=90004").replace("4.10000000", "4.14000000")
    longer = relaxed.replace("seed=90003", "seed=90005").replace("4.10000000", "4.80000000")
    assert len({relaxed, again, longer}) == 3
    file = tmp_path / "new.extxyz"
    file.write_text(relaxed + again + longer)
    assert script.append([file], copied) == {script.STABLE: 2, script.UNSTABLE: 0, script.LARGE: 0}
    assert "seed=90004" not in (copied / script.STABLE).read_text(encoding="utf-8")


def test_the_shipped_relaxed_clusters_of_more_than_22_atoms_are_distinct():
    clusters = SodiumShielding(subset="large", pre_filter=None)
    relaxed = torch.arange(len(clusters))[torch.cat([data.relaxed for data in clusters]).flatten() > 0]
    part = ClusterBatches(clusters).stored(relaxed.tolist())
    kind = copy_groups(part.z.numpy(), part.pos.numpy(), part.ptr.numpy())
    assert np.array_equal(kind, np.arange(len(relaxed)))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (labelled(columns="1S 3S 2S"), "gop_columns must be '1S 2S 2PX"),
        (labelled(trace=610.0), "not a third of the trace"),
        (labelled(electrons=10.0), "add up to 20.0000 electrons, not 22"),
        (labelled().replace("energy_unit=Hartree", "energy_unit=eV"), "energy_unit must be 'Hartree', got 'eV'"),
        (labelled().replace("lambda_t=", "lambda="), "'lambda_t'"),
    ],
)
def test_wrong_frames_change_nothing(script, copied, tmp_path, frame, words):
    file = tmp_path / "new.extxyz"
    file.write_text(labelled() + frame.replace("seed=90000", "seed=90009"))
    before = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    with pytest.raises(InputError) as caught:
        script.append([file], copied)
    assert words in str(caught.value) and "new.extxyz, frame 1" in str(caught.value)
    assert {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()} == before

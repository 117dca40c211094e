"""Strategies: each selects the frames of its definition, and a new one is a class."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import atoms_of

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.models import DART, Ensemble, LastLayerPosterior, SmoothDART, save_model
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.screening import BenchmarkScreeningOptions, ScreenOptions, benchmark_screening, screen
from pyg_clusters.screening.pool import FramePool, cluster_features, mean_shell_counts, radii_of
from pyg_clusters.strategies import (
    STRATEGIES,
    Bins,
    DescriptorBins,
    Pool,
    Rank,
    Selection,
    Strategy,
    Unique,
    farthest_point_sampling,
    register,
)
from pyg_clusters.structures.superposition import SAME_STRUCTURE
from pyg_clusters.testing import random_clusters


@pytest.fixture
def energy() -> np.ndarray:
    return np.random.default_rng(0).normal(-110, 0.5, 500)


def test_lowest_takes_the_earlier_of_equal_energies():
    selection = Rank(3).select(FramePool(np.array([-1.0, -3.0, -2.0, -3.0, -2.5])))
    assert selection.index.tolist() == [1, 3, 4]
    assert selection.reason == ["lowest 1", "lowest 2", "lowest 3"]


def test_bins_are_of_equal_width_and_each_gives_its_lowest(energy):
    """Written again from section 3.5: equal bins from the lowest to the highest, from each the lowest frame."""
    edges = np.linspace(energy.min(), energy.max(), 41)
    expected = []
    for number, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        inside = np.flatnonzero((energy >= low) & ((energy < high) | (number == 39)))
        if inside.size:
            expected.append(int(inside[np.argmin(energy[inside])]))
    selection = Bins(40).select(FramePool(energy))
    assert selection.index.tolist() == expected
    assert selection.index[0] == np.argmin(energy)
    assert len(expected) < 40, "some bins must be empty for this test to say something"


def test_bins_name_their_edges():
    selection = Bins(4).select(FramePool(np.array([-9.0, -8.9, -8.4, -8.2, -8.0])))
    assert selection.index.tolist() == [0, 2, 3]  # none from -8.75 to -8.5; the highest belongs to the last bin
    assert selection.reason[1] == "lowest of bin 3 from -8.500 to -8.250 eV"


@pytest.mark.parametrize("values", [[], [-1.0], [-2.0, -2.0, -2.0]])
def test_bins_of_no_width(values):
    energy = np.array(values)
    index = [0] if values else []
    assert Bins(10).select(FramePool(energy)).index.tolist() == index
    pool = FramePool(energy, counts=np.zeros((len(values), 3)))
    assert DescriptorBins(10).select(pool).index.tolist() == index


def test_cells_of_the_descriptor():
    features = np.array([[0.0, 0.0], [0.1, 0.2], [0.9, 0.1], [0.8, 0.3], [1.0, 1.0], [0.2, 0.1]])
    pool = FramePool(np.array([-1.0, -3.0, -2.0, -4.0, -0.5, -2.5]), counts=features)
    selection = DescriptorBins(4).select(pool)
    assert selection.index.tolist() == [3, 1, 4]  # the cell of low first and high second feature is empty
    assert selection.reason[0] == "lowest of the cell 2/1 of the descriptor"


def test_mean_shell_counts_by_hand():
    """A dimer and three atoms in a row, 3 Å apart: neighbours closer than 3.49 Å, up to 6.3 Å, beyond."""
    pos = np.array([[0, 0, 0], [0, 0, 2.7], [0, 0, 0], [0, 0, 3], [0, 0, 6]], dtype=float)
    np.testing.assert_allclose(mean_shell_counts(pos, np.array([0, 2, 5])), [[1, 0, 0], [4 / 3, 2 / 3, 0]])
    assert mean_shell_counts(np.zeros((0, 3)), np.array([0])).shape == (0, 3)


def test_farthest_order():
    """Always the point whose nearest chosen one is farthest; compared with a search written down plainly."""
    rng = np.random.default_rng(1)
    energy, features = rng.normal(size=60), rng.normal(size=(60, 5))
    expected = [int(np.argmin(energy))]
    while len(expected) < 12:
        left = [place for place in range(60) if place not in expected]
        gap = [min(np.linalg.norm(features[place] - features[other]) for other in expected) for place in left]
        expected.append(left[int(np.argmax(gap))])
    assert farthest_point_sampling(energy, features, 12).index.tolist() == expected


def test_farthest_of_few_and_of_equal_frames():
    assert farthest_point_sampling(np.zeros(0), np.zeros((0, 2)), 3).index.tolist() == []
    assert sorted(farthest_point_sampling(np.zeros(4), np.zeros((4, 2)), 9).index.tolist()) == [0, 1, 2, 3]


def test_unique_takes_the_lowest_of_copies():
    rng = np.random.default_rng(2)
    clusters = [rng.uniform(0, 12, (20, 3)) for _ in range(3)]
    order = [0, 1, 0, 2, 1, 0]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pos = np.concatenate([(clusters[number] @ turn)[rng.permutation(20)] for number in order])
    energy = np.array([-5.0, -4.0, -5.5, -3.0, -4.5, -5.2])
    pool = FramePool(energy, z=np.full((6, 20), 31), pos=pos.reshape(6, 20, 3))
    selection = Unique(top=2, tolerance=SAME_STRUCTURE).select(pool)
    assert selection.index.tolist() == [2, 4]
    assert selection.reason == ["distinct structure 1 (3 frames)", "distinct structure 2 (2 frames)"]


def test_features_of_dart_do_not_depend_on_orientation_order_or_origin(generator):
    torch.manual_seed(0)
    model = DART(hidden_channels=16)
    z, pos, _ = random_clusters((40,) * 70, 31, generator)
    z, pos = z.view(70, 40).numpy(), pos.view(70, 40, 3).double().numpy()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    features = cluster_features(model, z, pos)
    assert features.shape == (70, 32)
    np.testing.assert_allclose(
        cluster_features(model, z, (pos @ turn)[:, ::-1] + 1000.0), features, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(cluster_features(model, z[65:], pos[65:]), features[65:], rtol=1e-4, atol=1e-4)


def test_features_of_other_models_are_their_distances():
    pos = np.random.default_rng(0).uniform(0, 9, (4, 13, 3))
    features = cluster_features(torch.nn.Linear(1, 1), np.full((4, 13), 31), pos)
    np.testing.assert_allclose(cluster_features(torch.nn.Linear(1, 1), np.full((4, 13), 31), -pos), features, rtol=1e-5)
    assert np.linalg.norm(features[0] - features[1]) > 0.1


def test_radii_are_those_of_the_model_or_of_its_element():
    """Sodium bonds are 1.36 times as long as those of gallium, by their covalent radii of 1.66 and 1.22 Å."""
    members = [SmoothDART(radii=(5.0, 8.4)), SmoothDART(radii=(5.0, 8.4))]
    assert radii_of(Ensemble(members)) == radii_of(members[0]) == (5.0, 8.4)
    assert radii_of(LastLayerPosterior(DART(radii=(3.3, 5.7)), torch.zeros(0, 0))) == (3.3, 5.7)
    assert radii_of(torch.nn.Linear(1, 1)) == GALLIUM_RADII
    without = torch.nn.Linear(1, 1)
    without.domain = TrainingDomain()
    without.domain.fit(torch.tensor([11, 11]), torch.tensor([0, 2]))
    assert radii_of(without) == pytest.approx([radius * 1.66 / 1.22 for radius in GALLIUM_RADII])


def test_distances_of_an_alloy_distinguish_its_homotops():
    """Gold in the middle of a chain of copper, the same in another order of the atoms, and gold at the end."""
    chain = np.array([[0.0, 0.0, 2.5 * n] for n in range(3)])
    z, pos = np.array([[29, 79, 29], [79, 29, 29], [79, 29, 29]]), np.stack([chain, chain[[1, 0, 2]], chain])
    middle, same, end = cluster_features(torch.nn.Linear(1, 1), z, pos)
    np.testing.assert_allclose(same, middle)
    # Cu-Cu is 5.0 and 2.5 Å, Cu-Au 2.5 and 2.5 or 2.5 and 5.0 Å
    assert np.linalg.norm(end - middle) == pytest.approx(np.sqrt((2.5**2 + 2.5**2) / 3))


# Registration


@pytest.fixture
def highest():
    """A new strategy: the highest energies, by which shell counts and structures are at hand."""

    @register
    @dataclass
    class Highest(Strategy):
        name = "highest"
        purpose = "the highest predicted energies of the pool"
        pool = 4
        by_energy = False
        top: int

        def select(self, frames: Pool) -> Selection:
            assert frames.copies(0.01).shape == frames.energy.shape and frames.shell_counts().shape[1] == 3
            index = np.argsort(-frames.energy)[: self.top]
            return Selection(index, ["highest"] * len(index))

    yield Highest
    del STRATEGIES["highest"]


def test_a_new_strategy_is_a_class(highest, tmp_path, capsys):
    """It is in the help, on the command line, in Python, in the report and in the benchmark."""
    z, pos, ptr = random_clusters((13,) * 12, 31, torch.Generator().manual_seed(1))
    frames = atoms_of(z, pos, ptr)
    for energy, atoms in enumerate(frames):
        atoms.info["truth"] = 0.1 * energy  # near the energies of an untrained model
    write_extxyz(tmp_path / "md.extxyz", frames)
    torch.manual_seed(0)
    model = DART(hidden_channels=8)
    model.domain.fit(torch.full((13,), 31), torch.tensor([0, 13]))
    save_model(model, tmp_path / "model")
    inputs = [str(tmp_path / "model"), str(tmp_path / "md.extxyz")]
    with pytest.raises(SystemExit):
        main(["screen", "--help"])
    assert "highest: the highest predicted energies of the pool" in " ".join(capsys.readouterr().out.split())
    assert main(["screen", *inputs, "--choose", "highest", "--top", "2", "--out", str(tmp_path / "command")]) == 0
    options = ScreenOptions(
        model=inputs[0], frames=inputs[1:], choose="highest", top=2, pool=12, out=str(tmp_path / "python")
    )
    screening = screen(options)
    assert [candidate.rank for candidate in screening.candidates] == [12, 11]
    rows = (tmp_path / "command/candidates.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows] == ['"pred_rank"', "8", "7"]
    assert "the highest predicted energies of the pool" in (tmp_path / "command/report.html").read_text()
    benchmark = benchmark_screening(
        BenchmarkScreeningOptions(model=inputs[0], frames=inputs[1:], truth="truth", top=2, bins=2)
    )
    assert [score.runs for score in benchmark.scores if score.strategy == "highest"] == [2]
    assert main(["screen", *inputs, "--choose", "highest", "--bins", "2", "--out", str(tmp_path / "no")]) == 2
    assert "--bins requires --choose bins or descriptor-bins, not highest" in capsys.readouterr().err


def test_names_are_unique():
    with pytest.raises(ValueError, match="a strategy 'rank' is already registered"):
        register(Rank)


def test_strategies_in_python_and_in_the_documentation():
    with pytest.raises(
        InputError, match="--choose must be one of rank, bins, descriptor-bins, unique, diverse, uncertain; got"
    ):
        ScreenOptions(model="gallium", frames=["md.xyz"], choose="best", out="out")
    assert ScreenOptions(model="gallium", frames=["md.xyz"], out="out").tolerance == SAME_STRUCTURE
    page = (Path(__file__).parents[1] / "docs/how_to/screening.md").read_text(encoding="utf-8")
    table = page.partition("| strategy | candidates |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", table, flags=re.MULTILINE)
    assert dict(rows) == {name: strategy.purpose for name, strategy in STRATEGIES.items()}

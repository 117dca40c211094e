"""Structures that leave the geometries of the training set are stopped there and marked."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from ase.optimize import BFGS

from pyg_clusters import pairs
from pyg_clusters.cli import main
from pyg_clusters.frames import ExtrapolationWarning, read_atoms, write_extxyz
from pyg_clusters.inference import Predictor
from pyg_clusters.models import Ensemble, SmoothDART, TrainingDomain, load_model, save_model
from pyg_clusters.models.training_domain import GeometryRange
from pyg_clusters.pairs import bond_measures
from pyg_clusters.screening.candidates import Candidate, Screening, relax_candidates
from pyg_clusters.screening.pool import select_of_pool
from pyg_clusters.shipped import shipped_folder
from pyg_clusters.strategies import Rank
from pyg_clusters.structures import ClusterEMT, ModelCalculator, local_minimum, relax

SUM = 2 * covalent_radii[31]  # 2.44 Å


class Holed(torch.nn.Module):
    """Pair potential with a minimum at 2.6 Å that diverges below 2.3 Å; trained on 2.5 to 3 Å."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.double))
        self.domain = TrainingDomain()
        for distance in (2.5, 3.0):
            pair = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
            self.domain.add(torch.tensor([31, 31]), torch.tensor([0, 2]), pair)

    def forward(self, z, pos, batch):
        ends = pos.view(-1, 2, 3)
        distance = (ends[:, 0] - ends[:, 1]).norm(dim=1)
        return self.weight * torch.where(distance > 2.3, (distance - 2.6).square() - 1, 4 * (distance - 2.3) - 0.91)


def pair(distance: float) -> Atoms:
    return Atoms("Ga2", [[0, 0, 0], [0, 0, distance]])


def relaxed(*distances: float):
    pos = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, distance]] for distance in distances], dtype=torch.double)
    number = len(distances)
    batch = torch.arange(number).repeat_interleave(2)
    return relax(Holed(), torch.full((2 * number,), 31), pos.view(-1, 3), batch, fmax=1e-3)


def test_measures_of_an_icosahedron_and_an_alloy():
    """13 atoms: the centre has 12 neighbours and is the nearest to all; a Cu-Au pair in units of its radii."""
    ico = Icosahedron("Ga", 2, latticeconstant=3.8)
    edge = 3.8 / np.sqrt(2)
    z, pos = torch.from_numpy(ico.numbers), torch.from_numpy(ico.positions)
    z = torch.cat([z, torch.tensor([29, 79, 31])])
    pos = torch.cat([pos, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.68], [1.0, 1.0, 1.0]])])
    found = bond_measures(z, pos, torch.tensor([0] * 13 + [1, 1, 2]))
    nearest = ico.get_all_distances()[0, 1] / SUM
    assert nearest == pytest.approx(0.951057 * edge / SUM, rel=0.1)
    torch.testing.assert_close(found[0], torch.tensor([nearest, 12, nearest], dtype=torch.double))
    assert found[1].tolist() == pytest.approx([2.68 / (1.32 + 1.36)] * 1 + [1, 2.68 / 2.68])
    assert found[2].tolist() == [float("inf"), 0, 0]


def test_a_domain_keeps_what_was_seen_block_by_block(tmp_path):
    """Extremes over all blocks; saved with the model, and absent from weights that lack them."""
    model = Holed()
    assert model.domain.geometry.tolist() == pytest.approx([2.5 / SUM, 1, 3.0 / SUM])
    assert TrainingDomain().geometry_range == GeometryRange()
    smooth = SmoothDART(degree=1)
    smooth.domain.fit(torch.tensor([31, 31]), torch.tensor([0, 2]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.6]]))
    save_model(smooth, tmp_path / "model")
    assert load_model(tmp_path / "model").domain.geometry_range == smooth.domain.geometry_range
    state = {name: value for name, value in smooth.state_dict().items() if "geometry" not in name}
    older = SmoothDART(degree=1)
    older.load_state_dict(state)
    assert older.domain.geometry_range == GeometryRange()
    other = SmoothDART(degree=1)
    other.domain.fit(torch.tensor([31, 31]), torch.tensor([0, 2]), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.9]]))
    both = Ensemble([smooth, other]).domain.geometry_range
    assert (both.shortest, both.farthest) == pytest.approx((2.9 / SUM, 2.6 / SUM))


def test_relax_stops_collapsing_clusters():
    """The limit is a tenth below 2.5 Å: 2.4 Å relaxes to 2.6 Å, 2.28 Å collapses and is stopped; others continue."""
    found = relaxed(2.4, 2.28, 2.9, 2.75)
    assert found.converged.tolist() == [True, False, True, True]
    assert found.left_range.tolist() == [False, True, False, False]
    ends = found.pos.view(-1, 2, 3)
    distance = (ends[:, 0] - ends[:, 1]).norm(dim=1)
    assert distance[[0, 2, 3]].tolist() == pytest.approx([2.6] * 3, abs=1e-3)
    assert 1.8 < distance[1] < 2.25  # one step beyond
    assert found.steps[1] < 20


def test_relax_may_start_outside_the_range():
    """3.4 Å is beyond the training distances and relaxes into them; 2.2 Å is below them and continues to shrink."""
    found = relaxed(3.4, 2.2)
    assert found.converged.tolist() == [True, False] and found.left_range.tolist() == [False, True]


def test_without_a_range_atoms_are_not_closer_than_is_possible():
    """A model without a range stops at half the sum of the covalent radii, 1.22 Å."""
    model = Holed()
    model.domain.reset_parameters()
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.2]], dtype=torch.double)
    found = relax(model, torch.tensor([31, 31]), pos, torch.tensor([0, 0]))
    assert found.left_range.tolist() == [True]
    assert 0.8 < float((found.pos[0] - found.pos[1]).norm()) < 1.22


def test_any_optimiser_of_ase_is_warned_and_results_are_marked():
    atoms = pair(2.25)
    atoms.calc = ModelCalculator(Holed())
    with pytest.warns(ExtrapolationWarning, match=r"atoms 0 and 1 are .* Å apart, below what the model was trained on"):
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=1)
    assert "below" in atoms.calc.results["outside_training"]
    atoms.positions[1, 2] = 2.7
    atoms.get_potential_energy()
    assert "outside_training" not in atoms.calc.results


def test_local_minimum_of_models_and_other_calculators():
    found = local_minimum(pair(2.28), ModelCalculator(Holed()))
    assert not found.converged and "below what the model was trained on (2.25 Å)" in found.left_range
    assert 0.5 < found.atoms.get_distance(0, 1) < 2.25
    inside = local_minimum(pair(2.4), ModelCalculator(Holed()))
    assert inside.converged and inside.left_range is None
    emt = local_minimum(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.8]]), ClusterEMT())
    assert emt.converged and emt.left_range is None


def test_reasons_name_atoms_and_values():
    ico = Icosahedron("Ga", 2, latticeconstant=3.8)
    few = GeometryRange(shortest=0.9, coordination=6, farthest=1.3)
    assert few.reason(ico) == "atom 0 has 12 neighbours, above what the model was trained on (7)"
    apart = pair(4.0)
    assert "atom 0 is 4.00 Å from its nearest neighbour, above" in few.reason(apart)
    assert few.reason(pair(2.5)) is None and few.reason(Atoms("Ga")) is None
    assert "below what is physically possible (1.22 Å)" in GeometryRange().reason(pair(1.0))


@pytest.mark.parametrize("large", [False, True])
def test_pairs_of_elements_have_their_own_shortest_distance(large, monkeypatch):
    """Cu-Cu of 2.2 Å and Au-Au of 2.6 Å: 2.3 Å is within the tolerance of a tenth for copper, not for gold (2.34 Å)."""
    if large:
        monkeypatch.setattr(pairs, "LARGE", 1)
    domain = TrainingDomain()
    z, ptr = torch.tensor([29, 29, 79, 79]), torch.tensor([0, 4])
    pos = torch.tensor([[0.0, 0, 0], [2.2, 0, 0], [4.8, 0, 0], [7.4, 0, 0]], dtype=torch.double)
    domain.fit(z, ptr, pos)
    trained = domain.geometry_range
    assert trained.closest == pytest.approx({(29, 29): 2.2 / 2.64, (29, 79): 2.6 / 2.68, (79, 79): 2.6 / 2.72})
    short = pos.clone()
    short[3, 0] = 7.1
    measured = bond_measures(z.repeat(2), torch.cat([pos, short]), torch.arange(8) // 4, trained.scale)
    assert trained.outside(measured).tolist() == [False, True]
    alone = bond_measures(z, short, torch.zeros_like(z), trained.scale)
    assert trained.outside(alone, measured[1:]).tolist() == [False]
    expected = "atoms 2 and 3 are 2.30 Å apart, below what the model was trained on (2.34 Å)"
    assert trained.reason(Atoms(z.numpy(), short.numpy())) == expected
    assert trained.reason(Atoms(z.flip(0).numpy(), pos.numpy()[::-1])) is None
    older = SmoothDART(elements=(29, 79), degree=1)
    older.domain.load_state_dict({name: value for name, value in domain.state_dict().items() if name != "closest"})
    older.domain.widen(z, ptr, short)  # the distances of the first training set remain unknown
    assert (
        not older.domain.geometry_range.closest
        and older.domain.geometry_range.reason(Atoms(z.numpy(), short.numpy())) is None
    )


def test_shipped_alloys_know_the_distances_of_gold():
    assert load_model("copper-gold").domain.geometry_range.reason(Atoms("Au2", [[0, 0, 0], [0, 0, 1.95]]))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """Three gallium minima, and a model with forces whose range excludes all of them as too dense."""
    model = load_model("gallium-forces")
    model.domain.geometry.copy_(torch.tensor([1.3, 12.0, 1.5]))
    folder = tmp_path_factory.mktemp("narrow")
    save_model(model, folder / "model")
    frames = read_atoms([str(shipped_folder("gallium_clusters") / "gallium_minima.extxyz")])
    write_extxyz(folder / "frames.extxyz", [Atoms(next(frames).atoms.symbols, next(frames).atoms.positions)] * 2)
    return folder


def test_relax_reports_frames_that_left_the_range(narrow, tmp_path, capsys):
    out = tmp_path / "out.extxyz"
    command = ["relax", str(narrow / "frames.extxyz"), "--calculator", str(narrow / "model"), "--steps", "5"]
    assert main([*command, "--out", str(out)]) == 0
    assert "2 of these left the geometries of the training set" in capsys.readouterr().out
    for atoms in ase.io.read(out, ":"):
        assert not atoms.info["converged"]
        assert "below what the model was trained on (2.85 Å)" in atoms.info["left_range"]


def test_screening_ranks_them_last():
    """Ranked after all others despite a lower energy; selected only if there are no others."""
    distances = (2.7, 2.28, 2.45)
    candidates = [Candidate("md.xyz", n, -1.0, 1, pair(d), index=n) for n, d in enumerate(distances)]
    screening = Screening(np.array(["md.xyz"] * 3), np.arange(3), np.full(3, 2), -np.ones(3), {}, candidates, [])
    assert str(screening) == "Screening(3 frames, 3 candidates)"
    with pytest.warns(UserWarning, match=r"1 of 3 frames left the geometries .* md.xyz, frame 1: atoms 0 and 1 are"):
        found = relax_candidates(screening, Predictor(Holed()), fmax=1e-3, steps=100)
    assert [one.frame for one in found.candidates][-1] == 1 and found.num_left_range == 1
    assert found.candidates[-1].rank == 3 and found.candidates[-1].energy < found.candidates[0].energy
    assert {one.frame for one in select_of_pool(found, Rank(3), Holed(), count=10).candidates} == {0, 2}
    with pytest.warns(UserWarning, match="1 of 1 frames"):
        alone = relax_candidates(
            Screening(
                *(getattr(screening, name)[1:2] for name in ("file", "frame", "size", "energy")),
                {},
                [replace(candidates[1], index=0)],
                [],
            ),
            Predictor(Holed()),
            fmax=1e-3,
            steps=100,
        )
    assert "below" in alone.candidates[0].relaxation["left_range"]


def test_large_clusters_are_measured_by_near_pairs(monkeypatch):
    """Two clusters of two elements, one with a distant atom, have the same measures and reasons."""
    generator = torch.Generator().manual_seed(0)
    pos = torch.cat([torch.rand(60, 3, generator=generator), torch.rand(30, 3, generator=generator)]) * 9
    pos[70] += 40.0
    z, batch = torch.tensor([13, 55]).repeat(45), torch.arange(90).ge(60).long()
    few = [GeometryRange(), GeometryRange(0.1, 40, 1.5), GeometryRange(0.1, 3, 1.5)]

    def found() -> list:
        atoms = Atoms(z[60:].numpy(), pos[60:].numpy())
        return [bond_measures(z, pos, batch).tolist(), *(each.reason(atoms) for each in few)]

    expected = found()
    monkeypatch.setattr(pairs, "LARGE", 1)
    assert found() == expected and all(expected)

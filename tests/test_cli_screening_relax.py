"""``screen --relax`` and ``screen --choose uncertain``."""

import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers import atoms_of, rows_of

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import read_blocks, write_extxyz
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, Ensemble, load_model, save_ensemble, save_model
from pyg_clusters.screening.benchmark import relaxed
from pyg_clusters.screening.candidates import Candidate, Screening, relax_candidates
from pyg_clusters.screening.pool import FramePool
from pyg_clusters.screening.scores import SizeFrames
from pyg_clusters.shipped import shipped_folder
from pyg_clusters.strategies import Uncertain
from pyg_clusters.structures import ModelCalculator, energy_and_forces, relaxation
from pyg_clusters.testing import random_clusters
from pyg_clusters.units import KCAL_PER_MOL

pytestmark = pytest.mark.usefixtures("no_report")

COPIES = 2


@pytest.fixture(scope="module")
def perturbed(tmp_path_factory) -> Path:
    """Three minima of Ga31, each twice, rattled by 0.02 Å; ``dft_energy`` belongs to the frame."""
    block = next(iter(read_blocks([shipped_folder("gallium_clusters") / "gallium_minima.extxyz"])))
    frames = []
    for number in (2, 14, 24):
        rng = np.random.default_rng(number)
        atoms = slice(block.ptr[number], block.ptr[number + 1])
        for _ in range(COPIES):
            perturbed = block.pos[atoms] + rng.normal(0, 0.02, (31, 3))
            frames.append(Atoms(block.z[atoms], perturbed, info={"dft_energy": -70.0 - number}))
    path = tmp_path_factory.mktemp("perturbed") / "perturbed.extxyz"
    write_extxyz(path, frames)
    return path


def run_relaxed(frames: Path, out: Path, *more: str) -> list[dict[str, str]]:
    assert main(["screen", "gallium-forces", str(frames), "--relax", "--top", "6", *more, "--out", str(out)]) == 0
    return rows_of(out / "candidates.csv")


def test_copies_are_found_after_relaxing(perturbed, tmp_path):
    """All six frames are distinct unrelaxed, and relax to three minima with energies and forces of the model."""
    model, start = load_model("gallium-forces"), ase.io.read(perturbed, ":")
    truth = ("--truth", "dft_energy")
    rows = run_relaxed(perturbed, tmp_path / "s", "--choose", "unique", "--fmax", "0.01", *truth)
    assert sorted({int(row["source_frame"]) // COPIES for row in rows}) == [0, 1, 2] and len(rows) == 3
    assert [row["pred_reason"].endswith("(2 frames)") for row in rows] == [True] * 3
    relaxed = ase.io.read(tmp_path / "s/candidates.extxyz", ":")
    for atoms, row in zip(relaxed, rows, strict=True):
        before = start[int(row["source_frame"])]
        assert Path(atoms.info["source_file"]).name == "perturbed.extxyz" and atoms.info["source_frame"] == int(
            row["source_frame"]
        )
        assert float(row["initial_dft_energy"]) == before.info["dft_energy"] and "dft_energy" not in atoms.info
        assert row["converged"].lower() == "true" and atoms.info["converged"]
        assert 0 < atoms.info["model_steps"] == int(row["model_steps"]) < 500
        assert not any(name.startswith("earlier_") for name in atoms.info)
        info = atoms.info.copy()
        for cluster in (atoms, before):
            cluster.calc = ModelCalculator(model)
        assert atoms.get_potential_energy() == pytest.approx(info["model_energy"], abs=1e-4)
        assert float(row["pred_energy"]) == info["pred_energy"] == info["model_energy"]
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() == pytest.approx(info["model_fmax"], abs=1e-3)
        assert info["model_fmax"] <= 0.01
        assert before.get_potential_energy() == pytest.approx(float(row["initial_pred_energy"]), abs=1e-4)
        assert float(row["initial_pred_energy"]) > float(row["pred_energy"]) + 0.02
    energies = [float(row["pred_energy"]) for row in rows]
    assert energies == sorted(energies)


def test_ranks_are_those_after_relaxing(perturbed, tmp_path):
    rows = run_relaxed(perturbed, tmp_path / "s", "--steps", "3")
    assert [int(row["pred_rank"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["converged"].lower() == "false" and row["model_steps"] == "3" for row in rows)
    energies = [float(row["pred_energy"]) for row in rows]
    assert energies == sorted(energies)
    few = run_relaxed(perturbed, tmp_path / "few", "--steps", "3", "--pool", "2", "--top", "2")
    lowest = sorted(rows, key=lambda row: float(row["initial_pred_energy"]))[:2]
    assert {row["source_frame"] for row in few} == {row["source_frame"] for row in lowest}


def test_benchmark_after_relaxing(perturbed, tmp_path):
    """After the relaxation copies have the energy of their common minimum."""
    arguments = [
        "benchmark-screening",
        "gallium-forces",
        str(perturbed),
        "--truth",
        "dft_energy",
        "--top",
        "3",
        "--bins",
        "3",
    ]
    assert main([*arguments, "--out", str(tmp_path / "hot")]) == 0
    assert main([*arguments, "--relax", "--fmax", "0.01", "--out", str(tmp_path / "relaxed")]) == 0
    block = next(iter(read_blocks([perturbed], properties=["dft_energy"])))
    z, pos = block.z.reshape(6, 31), block.pos.reshape(6, 31, 3)
    predictor = Predictor(load_model("gallium-forces"))
    hot = predictor(torch.from_numpy(z), torch.from_numpy(pos)).energy.numpy()
    frames = SizeFrames(31, z, pos, hot, block.properties["dft_energy"], np.arange(6))
    found = relaxed(frames, predictor, 0.01, 500)
    assert (found.predicted < hot - 0.02).all()
    np.testing.assert_allclose(found.predicted[::2], found.predicted[1::2], atol=2e-3)
    (told,) = rows_of(tmp_path / "relaxed/ranking.csv")
    assert float(told["mae_kcal_mol"]) == pytest.approx(
        np.abs(found.predicted - frames.truth).mean() * KCAL_PER_MOL, rel=1e-3
    )
    assert told != rows_of(tmp_path / "hot/ranking.csv")[0]
    assert np.array_equal(found.initial, hot) and found.inside.all()
    assert main([*arguments, "--relax", "--fmax", "0", "--out", str(tmp_path / "not")]) == 2


def test_diverse_after_relaxing(perturbed, tmp_path):
    rows = run_relaxed(perturbed, tmp_path / "s", "--choose", "diverse", "--top", "3", "--fmax", "0.05", "--pool", "6")
    assert sorted(int(row["source_frame"]) // COPIES for row in rows) == [0, 1, 2]


class Hole(torch.nn.Module):
    """A potential that diverges if the first atom is far from the second."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, z, pos, batch):
        ends = pos.view(-1, 2, 3)
        distance = (ends[:, 0] - ends[:, 1]).norm(dim=1)
        return self.weight * torch.where(distance < 4.0, (distance - 2.0).square(), torch.nan)


def pairs(*distances: float) -> Screening:
    """Candidates of two atoms, one for each distance in Å."""
    found = [
        Candidate("pairs.xyz", number, -1.0, 1, Atoms("Ga2", [[0, 0, 0], [0, 0, distance]]), index=number)
        for number, distance in enumerate(distances)
    ]
    count = len(found)
    files = np.array(["pairs.xyz"] * count)
    return Screening(files, np.arange(count), np.full(count, 2), -np.ones(count), {}, found, [])


def test_frames_without_a_finite_energy_are_omitted():
    predictor = Predictor(Hole())
    with pytest.warns(UserWarning, match="omitted 1 frame without a finite energy after the relaxation"):
        found = relax_candidates(pairs(2.5, 5.0, 2.2), predictor, fmax=1e-4, steps=200)
    assert [candidate.frame for candidate in found.candidates] in ([0, 2], [2, 0])
    for candidate in found.candidates:
        assert candidate.atoms.get_distance(0, 1) == pytest.approx(2.0, abs=1e-3)
        assert candidate.relaxation["initial_pred_energy"] == -1.0 and candidate.energy == pytest.approx(0.0, abs=1e-6)
    with (
        pytest.raises(InputError, match="no frame has a finite energy after the relaxation"),
        pytest.warns(UserWarning, match="omitted"),
    ):
        relax_candidates(pairs(5.0), predictor, fmax=0.1, steps=5)


def test_a_large_pool_is_relaxed_in_parts(monkeypatch):
    """No batch exceeds the limit, and the division into batches does not change the relaxed structures."""
    distances = tuple(np.linspace(1.7, 2.6, 50))
    predictor = Predictor(Hole())
    whole = relax_candidates(pairs(*distances), predictor, fmax=0.05, steps=50)
    sizes = []

    def watched(energy, z, pos, batch):
        sizes.append(len(z))
        return energy_and_forces(energy, z, pos, batch)

    monkeypatch.setattr(sys.modules["pyg_clusters.structures.relaxation"], "energy_and_forces", watched)
    monkeypatch.setattr(relaxation, "PAIRS_AT_ONCE", 40)
    parts = relax_candidates(pairs(*distances), predictor, fmax=0.05, steps=50)
    assert max(sizes) == 20
    for one, other in zip(whole.candidates, parts.candidates, strict=True):
        assert one.frame == other.frame
        np.testing.assert_allclose(one.atoms.positions, other.atoms.positions, atol=1e-5)


# Uncertain


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    """Three untrained DARTs."""
    folder = tmp_path_factory.mktemp("ensemble")
    for seed in range(3):
        torch.manual_seed(seed)
        member = DART(hidden_channels=16)
        member.domain.fit(torch.full((71,), 31), torch.tensor([0, 31, 71]))
        save_model(member, folder / f"member_{seed}")
    save_ensemble(folder, [folder / f"member_{seed}" for seed in range(3)])
    return folder


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory) -> Path:
    """25 clusters each of 31 and 40 atoms."""
    z, pos, ptr = random_clusters((31, 40) * 25, 31, torch.Generator().manual_seed(1))
    frames = atoms_of(z, pos, ptr)
    for number, atoms in enumerate(frames):
        atoms.info["dft_energy"] = -50.0 + number
    path = tmp_path_factory.mktemp("md") / "md.extxyz"
    write_extxyz(path, frames)
    return path


def test_uncertain_ranks_by_energy_and_spread(ensemble, trajectory, tmp_path):
    """Candidates are in the order of E - k s, with the ranks of E; k = 0 equals ``rank``."""
    frames = ase.io.read(trajectory, ":")
    found = Predictor(load_model(ensemble))(frames)
    energy, spread = found.energy.double().numpy(), found.spread.double().numpy()
    arguments = ["screen", str(ensemble), str(trajectory), "--top", "6", "--choose"]
    assert main([*arguments, "uncertain", "--spread-weight", "5", "--out", str(tmp_path / "s")]) == 0
    rows = rows_of(tmp_path / "s/candidates.csv")
    for size in (31, 40):
        of_size = np.array([number for number, atoms in enumerate(frames) if len(atoms) == size])
        order = of_size[np.argsort(energy[of_size] - 5 * spread[of_size])]
        assert list(order[:6]) != list(of_size[np.argsort(energy[of_size])][:6])
        chosen = [row for row in rows if row["size"] == str(size)]
        assert [int(row["source_frame"]) for row in chosen] == order[:6].tolist()
        for row in chosen:
            number = int(row["source_frame"])
            assert int(row["pred_rank"]) == 1 + (energy[of_size] < energy[number]).sum()
            assert float(row["pred_energy_spread"]) == pytest.approx(spread[number], rel=1e-4)
            assert f"{energy[number] - 5 * spread[number]:.3f} eV, the energy - 5 spread" in row["pred_reason"]
    assert ase.io.read(tmp_path / "s/candidates.extxyz", 0).info["pred_energy_spread"] == pytest.approx(
        float(rows[0]["pred_energy_spread"])
    )
    assert main([*arguments, "uncertain", "--spread-weight", "0", "--out", str(tmp_path / "zero")]) == 0
    assert main([*arguments, "rank", "--out", str(tmp_path / "rank")]) == 0
    kept = [
        [
            (row["source_frame"], row["pred_rank"], row["pred_energy_spread"])
            for row in rows_of(tmp_path / f"{name}/candidates.csv")
        ]
        for name in ("zero", "rank")
    ]
    assert kept[0] == kept[1]


def test_benchmark_of_uncertain(ensemble, trajectory, tmp_path):
    frames = ase.io.read(trajectory, ":")
    labelled = tmp_path / "labelled.extxyz"
    for number, atoms in enumerate(frames):
        atoms.info["truth"] = 0.01 * number  # close to the energies of untrained models
    write_extxyz(labelled, frames)
    arguments = ["benchmark-screening", str(ensemble), str(labelled), "--truth", "truth", "--top", "2"]
    assert main([*arguments, "--out", str(tmp_path / "benchmark")]) == 0
    rows = [row for row in rows_of(tmp_path / "benchmark/strategies.csv") if row["strategy"] == "uncertain"]
    assert [row["size"] for row in rows] == sorted({str(len(atoms)) for atoms in frames}, key=int)
    assert all(row["runs"] == "2" for row in rows)


@pytest.mark.parametrize("way", ["bins", "unique"])
def test_spreads_of_an_ensemble_are_always_written(ensemble, trajectory, tmp_path, way):
    arguments = ["screen", str(ensemble), str(trajectory), "--choose", way, "--out", str(tmp_path)]
    assert main(arguments) == 0
    spread = Predictor(load_model(ensemble))(ase.io.read(trajectory, ":")).spread
    for row in rows_of(tmp_path / "candidates.csv"):
        assert float(row["pred_energy_spread"]) == pytest.approx(float(spread[int(row["source_frame"])]), rel=1e-4)


def test_spreads_are_those_of_the_relaxed_structures():
    torch.manual_seed(0)
    member, other = Hole(), Hole()
    other.weight.data.fill_(3.0)
    found = relax_candidates(pairs(2.5), Predictor(Ensemble([member, other])), fmax=1e-3, steps=200)
    assert found.candidates[0].spread == pytest.approx(0.0, abs=1e-5)


def test_spreads_of_relaxed_frames_in_pieces():
    """Two atoms 8 Å apart, which --fragments keep lets pass."""

    class Apart(Hole):
        def forward(self, z, pos, batch):
            return self.weight * (pos[0] - pos[1]).norm().view(1)

    member, other = Apart(), Apart()
    other.weight.data.fill_(3.0)
    pos, energy = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 8.0]]]), np.zeros(1)
    frames = SizeFrames(2, np.full((1, 2), 31), pos, energy, energy, np.zeros(1, int), spread=energy)
    assert relaxed(frames, Predictor(Ensemble([member, other])), fmax=10.0, steps=5).spread == pytest.approx(8 * 2**0.5)


def test_equal_bounds_keep_their_order():
    pool = FramePool(np.array([-1.0, -1.5, -1.0]), np.array([0.5, 0.0, 0.5]))
    assert Uncertain(top=2, spread_weight=1.0).select(pool).index.tolist() == [0, 1]


def test_a_true_energy_named_as_a_column(ensemble, trajectory, tmp_path):
    """Values named ``size`` or ``energy`` in the file do not replace those of the frame."""
    frames = ase.io.read(trajectory, ":")
    for number, atoms in enumerate(frames):
        atoms.info["size"] = float(-number)
    write_extxyz(tmp_path / "md.extxyz", frames)
    arguments = ["screen", str(ensemble), str(tmp_path / "md.extxyz"), "--top", "2", "--truth", "size"]
    assert main([*arguments, "--choose", "bins", "--bins", "2", "--out", str(tmp_path / "s")]) == 0
    found = ase.io.read(tmp_path / "s/candidates.extxyz", ":")
    assert [len(atoms) for atoms in found] == [31, 31, 40, 40]

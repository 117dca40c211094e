"""``screen`` with all strategies, and ``benchmark-screening``."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers import atoms_of, refused, rows_of, save_dart

from pyg_clusters.cli import main
from pyg_clusters.frames import write_extxyz
from pyg_clusters.frames.provenance import at_new_positions
from pyg_clusters.inference import Predictor
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.screening.dft import Comparison, boxed, write_folders
from pyg_clusters.screening.pool import FramePool
from pyg_clusters.strategies import Bins
from pyg_clusters.testing import random_clusters
from pyg_clusters.units import KCAL_PER_MOL

pytestmark = pytest.mark.usefixtures("no_report")

COPIES = 3


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    """30 clusters of 31 and 40 atoms, and two copies of each, rotated and with another order of the atoms."""
    rng = np.random.default_rng(0)
    clusters = atoms_of(*random_clusters((31, 40) * 15, 31, torch.Generator().manual_seed(1)))
    frames = []
    for number, cluster in enumerate(clusters):
        for _ in range(COPIES):
            turn, order = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.permutation(len(cluster))
            atoms = Atoms(cluster.numbers, cluster.positions[order] @ turn)
            atoms.info |= {"quenched": -2.4 * len(atoms) - 0.1 * number, "own": -2.3 * len(atoms)}
            frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained DART whose domain is Ga31 to Ga70 and whose stated error is 4 kcal/mol."""
    notes = {"test_mae_kcal_mol": 4.0}
    return save_dart(tmp_path_factory.mktemp("model"), 31, 70, hidden_channels=16, notes=notes)


@pytest.fixture
def trajectory(frames, tmp_path) -> Path:
    write_extxyz(tmp_path / "md.extxyz", frames)
    return tmp_path / "md.extxyz"


@pytest.mark.filterwarnings("default")
def test_frames_without_a_finite_label_are_left_out(model, frames, tmp_path, capsys):
    """The first file has no other frames; results are those of the other frames."""
    whole, part, invalid = (tmp_path / f"{name}.extxyz" for name in ("whole", "part", "invalid"))
    write_extxyz(whole, frames[:10])
    wrong = [frames[number].copy() for number in (20, 10, 11)]
    for atoms, value in zip(wrong, (np.nan, np.inf), strict=False):
        atoms.info["quenched"] = value
    del wrong[2].info["quenched"]
    write_extxyz(invalid, wrong[:1])
    write_extxyz(part, [*frames[:4], wrong[1], *frames[4:10], wrong[2]])
    for verb, label in (("screen", "--truth"), ("benchmark-screening", "--truth"), ("evaluate", "--target")):
        options = [label, "quenched", "--out"]
        assert main([verb, str(model), str(whole), *options, str(tmp_path / f"{verb}.json")]) == 0
        expected = capsys.readouterr().out.splitlines()
        command = [verb, str(model), str(invalid), str(part), *options, str(tmp_path / f"skip-{verb}.json")]
        assert main(command) == 2
        reasons = "frame 0: 'quenched' must be a number, got nan", "frame 11: no property 'quenched'"
        error = capsys.readouterr().err
        assert any(reason in error for reason in reasons)
        assert main([*command, "--on-bad", "skip"]) == 0
        found = capsys.readouterr()
        for line in ("invalid.extxyz, frame 0: 'quenched' is nan", "part.extxyz, frame 4: 'quenched' is inf"):
            assert line in found.err
        assert "part.extxyz, frame 11: no property 'quenched'" in found.err
        if verb == "benchmark-screening":
            assert found.out.splitlines()[:-1] == expected[:-1]
    assert (tmp_path / "evaluate.json").read_text() == (tmp_path / "skip-evaluate.json").read_text()
    first, second = (rows_of(tmp_path / f"{part}screen.json" / "candidates.csv") for part in ("", "skip-"))
    assert [row["pred_energy"] for row in first] == [row["pred_energy"] for row in second]


@pytest.mark.filterwarnings("default:joined", "default:the bins of")
def test_candidates_keep_the_energy_and_forces_of_their_frames(model, frames, tmp_path):
    labelled = [atoms.copy() for atoms in frames[::COPIES]]
    for atoms in labelled:  # in a box, cut by its faces
        atoms.set_cell(np.eye(3) * 40.0)
        atoms.pbc = True
        atoms.wrap()
    for number, atoms in enumerate(labelled):
        forces = np.full((len(atoms), 3), 0.1 * number)
        atoms.calc = SinglePointCalculator(atoms, energy=-80.0 - number, forces=forces)
    write_extxyz(tmp_path / "labelled.extxyz", labelled)
    for choose in ("rank", "bins"):
        out = tmp_path / choose
        argv = ["screen", model, tmp_path / "labelled.extxyz", "--choose", choose, "--out", out]
        assert main([str(part) for part in argv]) == 0
        for atoms in ase.io.read(out / "candidates.extxyz", ":"):
            number = atoms.info["source_frame"]
            assert atoms.get_potential_energy() == -80.0 - number
            np.testing.assert_allclose(atoms.get_forces(), 0.1 * number)


@pytest.mark.filterwarnings("default:the bins of")
def test_bins(model, frames, trajectory, tmp_path):
    arguments = ["screen", model, trajectory, "--choose", "bins", "--bins", "6", "--truth", "quenched"]
    assert main([str(argument) for argument in [*arguments, "--out", tmp_path / "s"]]) == 0
    energy = Predictor(load_model(model))(frames).energy.numpy()
    of_40 = np.flatnonzero([len(atoms) == 40 for atoms in frames])
    rows = [row for row in rows_of(tmp_path / "s/candidates.csv") if row["size"] == "40"]
    assert [int(row["source_frame"]) for row in rows] == of_40[Bins(6).select(FramePool(energy[of_40])).index].tolist()
    assert rows[0]["pred_rank"] == "1" and rows[0]["pred_reason"].startswith("lowest of bin 1 from ")
    picked = [atoms for atoms in ase.io.read(tmp_path / "s/candidates.extxyz", ":") if len(atoms) == 40]
    for atoms, row in zip(picked, rows, strict=True):
        original = frames[int(row["source_frame"])]
        np.testing.assert_allclose(atoms.positions, original.positions, atol=1e-6)
        assert atoms.info["quenched"] == float(row["quenched"]) == original.info["quenched"]


@pytest.mark.filterwarnings("default:the bins of")
def test_bins_narrower_than_the_error_of_the_model(model, trajectory, tmp_path, capsys):
    arguments = ["screen", str(model), str(trajectory), "--choose", "bins", "--out", str(tmp_path / "s")]
    assert main(arguments) == 0
    assert "narrower than the error of the model on its test set (4.00 kcal/mol)" in capsys.readouterr().err


def test_descriptor_bins(model, trajectory, tmp_path):
    arguments = ["screen", model, trajectory, "--choose", "descriptor-bins", "--bins", "9", "--out", tmp_path / "s"]
    assert main([str(argument) for argument in arguments]) == 0
    rows = rows_of(tmp_path / "s/candidates.csv")
    assert 2 < len(rows) <= 18
    assert next(row["pred_rank"] for row in rows if row["size"] == "31") == "1"
    assert len(ase.io.read(tmp_path / "s/candidates.extxyz", ":")) == len(rows)


def test_unique(model, frames, trajectory, tmp_path):
    """Each of the 15 clusters of a size is selected once, though it occurs in three frames."""
    arguments = ["screen", model, trajectory, "--choose", "unique", "--top", "20", "--out", tmp_path / "s"]
    assert main([str(argument) for argument in arguments]) == 0
    rows = rows_of(tmp_path / "s/candidates.csv")
    assert sorted(int(row["source_frame"]) // COPIES for row in rows) == list(range(30))
    assert rows[3]["pred_reason"] == "distinct structure 4 (3 frames)"
    energies = [float(row["pred_energy"]) for row in rows if row["size"] == "31"]
    assert energies == sorted(energies)


@pytest.mark.filterwarnings("default:2 distinct structures")
def test_a_pool_with_too_few_distinct_structures_gives_a_warning(model, trajectory, tmp_path, capsys):
    arguments = ["screen", model, trajectory, "--choose", "unique", "--top", "5", "--pool", "6"]
    assert main([str(argument) for argument in [*arguments, "--out", tmp_path / "s"]]) == 0
    assert "2 distinct structures among the 6 lowest frames of 31 atoms, fewer than 5" in capsys.readouterr().err


def test_diverse(model, trajectory, tmp_path):
    """No copy of a selected frame is selected while there are other frames."""
    arguments = ["screen", model, trajectory, "--choose", "diverse", "--top", "10", "--pool", "45"]
    assert main([str(argument) for argument in [*arguments, "--out", tmp_path / "s"]]) == 0
    rows = rows_of(tmp_path / "s/candidates.csv")
    assert len({int(row["source_frame"]) // COPIES for row in rows}) == len(rows) == 20
    assert [row["pred_reason"] for row in rows if row["pred_rank"] == "1"] == ["lowest 1", "lowest 1"]


def test_bad_options_of_strategies(model, trajectory, tmp_path, capsys):
    arguments = ["screen", model, trajectory, "--out", tmp_path / "s"]
    for options, message in (
        (["--bins", "9"], "--bins requires --choose bins or descriptor-bins, not rank"),
        (
            ["--choose", "rank", "--pool", "9"],
            "--pool requires --choose unique or diverse, or --relax, not rank",
        ),
        (["--choose", "unique", "--pool", "9", "--top", "10"], "--pool 9 is smaller than --top 10"),
        (["--choose", "diverse", "--tolerance", "1"], "--tolerance requires --choose unique, not diverse"),
        (["--choose", "bins", "--bins", "0"], "--bins must be at least 1, got 0"),
        (["--choose", "unique", "--tolerance", "0"], "--tolerance must be positive (in Å), got 0"),
        (["--top", "-3"], "--top must be at least 1, got -3"),
        (["--choose", "best"], "best"),
    ):
        assert message in refused([*arguments, *options], capsys)
    assert not (tmp_path / "s").exists()


def test_write_folders_for_vasp(model, frames, trajectory, tmp_path, capsys):
    """One POSCAR per candidate in a cubic box with 8 Å of vacuum, in the same order; never overwritten."""
    arguments = ["screen", model, trajectory, "--top", "2", "--write", "vasp", "--vacuum", "8", "--out", tmp_path / "s"]
    assert main([str(argument) for argument in arguments]) == 0
    rows = rows_of(tmp_path / "s/candidates.csv")
    folders = sorted((tmp_path / "s/vasp").iterdir())
    assert [folder.name for folder in folders] == ["0001_Ga31", "0002_Ga31", "0003_Ga40", "0004_Ga40"]
    for folder, row in zip(folders, rows, strict=True):
        atoms, original = ase.io.read(folder / "POSCAR"), frames[int(row["source_frame"])]
        assert atoms.pbc.all() and (atoms.cell.lengths() == atoms.cell.lengths()[0]).all()
        assert atoms.cell.lengths()[0] == pytest.approx(np.ptp(original.positions, axis=0).max() + 16)
        assert (atoms.positions.min() > 7.99) and (atoms.positions.max() < atoms.cell.lengths()[0] - 7.99)
        np.testing.assert_allclose(atoms.get_all_distances(), original.get_all_distances(), atol=1e-6)
    assert "move it away" in refused([*arguments, "--overwrite"], capsys)


def test_write_other_formats(model, trajectory, tmp_path, capsys):
    arguments = ["screen", model, trajectory, "--top", "1", "--out", tmp_path / "s"]
    assert "ASE cannot write the format 'poscar'" in refused([*arguments, "--write", "poscar"], capsys)
    assert "ASE cannot write format 'espresso-in'" in refused([*arguments, "--write", "espresso-in"], capsys)
    assert "--vacuum must be" in refused([*arguments, "--write", "vasp", "--vacuum", "-1"], capsys)
    assert not (tmp_path / "s").exists()
    arguments += ["--write", "gaussian-in", "--vacuum", "0"]
    assert main([str(argument) for argument in arguments]) == 0
    text = (tmp_path / "s/gaussian-in/0002_Ga40/candidate.com").read_text()
    assert text.count("\nGa ") == 40 and "TV" not in text


@pytest.fixture
def screened(model, trajectory, tmp_path) -> tuple[Path, list[Atoms]]:
    """A screening with folders, and a finished calculation in each of them except the second."""
    arguments = ["screen", model, trajectory, "--choose", "unique", "--top", "4", "--write", "vasp"]
    assert main([str(argument) for argument in [*arguments, "--out", tmp_path / "s"]]) == 0
    candidates = ase.io.read(tmp_path / "s/candidates.extxyz", ":")
    for number, folder in enumerate(sorted((tmp_path / "s/vasp").iterdir())):
        if number == 1:
            continue
        steps = [candidates[number].copy(), candidates[number].copy()]
        for step, atoms in enumerate(steps):
            found = atoms.info["pred_energy"] * 2 - 100 * len(atoms)  # with another zero, and twice the differences
            atoms.calc = SinglePointCalculator(atoms, energy=found + 5 * (1 - step))
        ase.io.write(folder / "relaxed.traj", steps)
    return tmp_path / "s", candidates


@pytest.mark.figures
def test_compare_dft_with_numbered_folders(screened, capsys):
    """Energy offsets of a size do not matter, the last step counts, and a calculation may be missing."""
    folder, candidates = screened
    files = sorted((folder / "vasp").glob("*/relaxed.traj"), reverse=True)
    assert main(["compare-dft", str(folder), *map(str, files)]) == 0
    assert "7 of 8 candidates" in capsys.readouterr().out
    rows = rows_of(folder / "dft.csv")
    assert [int(row["candidate"]) for row in rows] == [1, 3, 4, 5, 6, 7, 8]
    assert [int(row["source_frame"]) for row in rows] == [
        candidates[int(row["candidate"]) - 1].info["source_frame"] for row in rows
    ]
    for row in rows:
        assert float(row["dft_above_mean"]) == pytest.approx(2 * float(row["pred_above_mean"]), abs=1e-5)
    of_31 = [float(row["dft_above_mean"]) for row in rows if row["size"] == "31"]
    assert np.mean(of_31) == pytest.approx(0, abs=1e-6) and max(of_31) > 0
    assert (folder / "dft.png").stat().st_size > 1000
    assert "--overwrite" in refused(["compare-dft", folder, *files], capsys)


def test_compare_dft_matches_by_structure(screened, tmp_path, capsys):
    """Files in any order (run10 before run2); atoms in another order, rotated, wrapped into a box."""
    folder, candidates = screened
    files = []
    for number, atoms in enumerate(candidates):
        start = boxed(atoms)[::-1]
        start.rotate(90, "z", rotate_cell=True)
        start.positions += 0.5 * start.cell.lengths()[2] * np.array([0, 0, 1])
        start.wrap()
        end = start.copy()
        end.positions += np.random.default_rng(number).normal(scale=0.1, size=end.positions.shape)
        for step, energy in ((start, 0.0), (end, 3 * atoms.info["pred_energy"] - 50)):
            step.calc = SinglePointCalculator(step, energy=energy)
        files.append(tmp_path / f"run{(7 * number) % 8 + 3}/final.traj")
        files[-1].parent.mkdir()
        ase.io.write(files[-1], [start, end])
    assert main(["compare-dft", str(folder), *sorted(map(str, files))]) == 0
    rows = rows_of(folder / "dft.csv")
    assert [row["output"] for row in rows] == [str(file) for file in files]
    for row in rows:
        assert float(row["dft_above_mean"]) == pytest.approx(3 * float(row["pred_above_mean"]), abs=1e-5)


def test_compare_dft_with_one_file(screened, tmp_path, capsys):
    """Several candidates in one file, in any order, also if they were relaxed by this package."""
    folder, candidates = screened
    shuffled = [candidates[number] for number in (3, 0, 7, 1, 2, 6, 5, 4)]
    write_extxyz(
        tmp_path / "all.extxyz", [Atoms(a.numbers, a.positions, info={"e": a.info["pred_energy"]}) for a in shuffled]
    )
    assert "name the energy with --key" in refused(["compare-dft", folder, tmp_path / "all.extxyz"], capsys)
    ase.io.write(tmp_path / "POSCAR", boxed(candidates[0]))
    assert "give the output of the calculation" in refused(["compare-dft", folder, tmp_path / "POSCAR"], capsys)
    assert main(["compare-dft", str(folder), str(tmp_path / "all.extxyz"), "--key", "e"]) == 0
    rows = rows_of(folder / "dft.csv")
    assert len(rows) == 8 and all(row["pred_energy"] == row["dft_energy"] for row in rows)
    moved = []
    for atoms in shuffled:
        moved.append(at_new_positions(atoms, atoms.positions * 1.05))
        moved[-1].info["e"] = atoms.info["pred_energy"]
    write_extxyz(tmp_path / "relaxed.extxyz", moved)
    assert main(["compare-dft", str(folder), str(tmp_path / "relaxed.extxyz"), "--key", "e", "--overwrite"]) == 0
    rows = rows_of(folder / "dft.csv")
    assert len(rows) == 8 and all(row["pred_energy"] == row["dft_energy"] for row in rows)


@pytest.mark.filterwarnings("always:energies of Ga31 differ")
def test_compare_dft_warns_of_results_in_two_units(screened, tmp_path, capsys):
    folder, candidates = screened
    results = [Atoms(a.numbers, a.positions, info={"e": -2.4 * len(a)}) for a in candidates]
    results[1].info["e"] /= 27.2114  # a hartree in eV
    write_extxyz(tmp_path / "all.extxyz", results)
    assert main(["compare-dft", str(folder), str(tmp_path / "all.extxyz"), "--key", "e"]) == 0
    assert "energies of Ga31 differ by up to 2.312 eV per atom" in capsys.readouterr().err


def test_compare_dft_without_the_first_structure(screened, tmp_path, capsys):
    folder, candidates = screened
    for name, result in (("end", 2), ("0003_Ga31", 0), ("0005_Ga31", 2)):
        end = Atoms(candidates[2].numbers, candidates[2].positions * 1.3)
        end.calc = SinglePointCalculator(end, energy=-1.0)
        (tmp_path / name).mkdir(exist_ok=True)
        ase.io.write(tmp_path / name / "end.traj", end)
        assert main(["compare-dft", str(folder), str(tmp_path / name / "end.traj"), "--overwrite"]) == result
        line = capsys.readouterr().err
        if not result:
            assert [row["candidate"] for row in rows_of(folder / "dft.csv")] == ["3"]
        elif name == "end":
            assert "end.traj, frame 0: does not start from a candidate" in line and "put it into a folder" in line
        else:
            assert "Ga31, but candidate 5 is Ga40" in line


def test_compare_dft_refuses(screened, tmp_path, capsys):
    folder, candidates = screened
    one = folder / "vasp/0001_Ga31/relaxed.traj"
    copied = tmp_path / "0009_Ga31/end.traj"
    copied.parent.mkdir()
    end = Atoms("Ga31", candidates[0].positions * 1.3)
    end.calc = SinglePointCalculator(end, energy=-1.0)
    ase.io.write(copied, end)
    assert "candidate 1 already has the result in" in refused(["compare-dft", folder, one, one], capsys)
    assert "candidates, not 9" in refused(["compare-dft", folder, copied], capsys)
    write_extxyz(tmp_path / "other.extxyz", [Atoms("Ga2", [[0, 0, 0], [0, 0, 2.5]], info={"energy": -1.0})])
    ion = Atoms("Ga31", candidates[0].positions, info={"energy": -1.0, "charge": 1})
    write_extxyz(tmp_path / "ion.extxyz", [ion])
    line = refused(["compare-dft", folder, tmp_path / "ion.extxyz"], capsys)
    assert "ion.extxyz: its charge is 1, that of candidate 1 is 0; omit the file" in line
    for value in ("failed", np.nan):
        ion.info = {"energy": value}
        write_extxyz(tmp_path / "failed.extxyz", [ion])
        line = refused(["compare-dft", folder, tmp_path / "failed.extxyz"], capsys)
        assert f"failed.extxyz, frame 0: 'energy' must be a number, got {value!r}" in line
    assert "no candidate is Ga2" in refused(["compare-dft", folder, tmp_path / "other.extxyz"], capsys)
    assert "no candidates.extxyz" in refused(["compare-dft", tmp_path, one], capsys)
    (tmp_path / "other.extxyz").rename(tmp_path / "candidates.extxyz")
    assert "candidates.extxyz, frame 0: no property 'pred_energy'" in refused(["compare-dft", tmp_path, one], capsys)
    assert not (folder / "dft.csv").exists()


def test_benchmark_screening(model, frames, trajectory, tmp_path, capsys):
    arguments = ["benchmark-screening", model, trajectory, "--truth", "quenched", "--own", "own", "--top", "5"]
    arguments += ["--minima", trajectory, "--bins", "4", "--out", tmp_path / "benchmark"]
    assert main([str(argument) for argument in arguments]) == 0
    assert "frames of 31 atoms" in capsys.readouterr().out
    energy = Predictor(load_model(model))(frames).energy.numpy().astype(float)
    ranks = rows_of(tmp_path / "benchmark/ranking.csv")
    assert [(row["size"], row["num_frames"]) for row in ranks] == [("31", "45"), ("40", "45")]
    of_31 = [number for number, atoms in enumerate(frames) if len(atoms) == 31]
    error = np.abs(energy[of_31] - [frames[number].info["own"] for number in of_31]).mean() * 23.060548
    assert float(ranks[0]["mae_own_kcal_mol"]) == pytest.approx(error, rel=1e-6)
    scores = {row["strategy"]: row for row in rows_of(tmp_path / "benchmark/strategies.csv") if row["size"] == "31"}
    names = ["rank", "bins", "descriptor-bins", "unique", "diverse", "every 3rd", "every 4th", "random"]
    assert list(scores) == [*names, "random, as bins"]
    assert scores["unique"]["distinct"] == scores["unique"]["distinct_structures"] == "1"
    assert float(scores["rank"]["distinct"]) == pytest.approx(2 / 5)  # the lowest five are copies of two structures
    assert scores["every 3rd"]["runs"] == "15" and scores["every 4th"]["runs"] == "12"
    assert {path.name for path in (tmp_path / "benchmark/figures").iterdir()} == {"recall.png", "strategies.png"}
    assert "overwrite" in refused(arguments, capsys)


def test_benchmark_screening_refuses(model, frames, trajectory, tmp_path, capsys):
    arguments = ["benchmark-screening", model, trajectory, "--truth", "quenched"]
    assert "no property 'wrong'" in refused([*arguments[:-1], "wrong"], capsys)
    assert "--top must be at least 1" in refused([*arguments, "--top", "0"], capsys)
    assert "--fmax requires --relax" in refused([*arguments, "--fmax", "0.1"], capsys)
    write_extxyz(tmp_path / "few.extxyz", frames[:5])
    message = refused([*arguments, "--minima", tmp_path / "few.extxyz"], capsys)
    assert "--minima has 5 structures for 90 frames" in message
    write_extxyz(tmp_path / "other.extxyz", [*frames[1:], frames[0]])
    assert "--minima: structure 2 (40 atoms) does not" in refused(
        [*arguments, "--minima", tmp_path / "other.extxyz"], capsys
    )


def test_a_single_result_has_no_error_without_the_mean():
    columns = {
        "candidate": [1, 2, 3],
        "composition": ["Ga31", "Ga31", "Ga40"],
        "size": [31, 31, 40],
        "pred_above_mean": [-0.1, 0.1, 0.0],
        "dft_above_mean": [0.1, -0.1, 0.0],
    }
    (_, number, error, _, lowest, rank), (formula, single, unknown, *_) = Comparison(columns, 3, Path()).rows()
    assert (number, lowest, rank) == (2, "candidate 2", 2) and error == pytest.approx(0.2 * KCAL_PER_MOL)
    assert (formula, single) == ("Ga40", 1) and np.isnan(unknown)


def test_inputs_state_charge_and_spin_or_give_a_warning(tmp_path):
    """A cation and a triplet of sodium; Gaussian writes charge and multiplicity before the atoms, VASP neither."""
    tetramer = [[0.0, 0.0, 0.0], [3.3, 0.0, 0.0], [1.65, 2.86, 0.0], [1.65, 1.0, 3.0]]
    cation = Atoms("Na3", tetramer[:3], info={"charge": 1, "multiplicity": 1})
    frames = [cation, Atoms("Na4", tetramer), Atoms("Na4", tetramer, info={"multiplicity": 3})]
    write_folders(tmp_path / "g", frames, "gaussian-in", vacuum=0)
    files = sorted((tmp_path / "g").glob("*/candidate.com"))
    assert [path.read_text().splitlines()[4] for path in files] == ["1 1", "0 1", "0 3"]
    with pytest.warns(UserWarning, match=r"format vasp do not state the charge \(\+1\) of candidate 1: set it"):
        write_folders(tmp_path / "v", frames, "vasp")
    with pytest.warns(UserWarning, match=r"format nwchem-in do not state the charge \(\+1\) of candidate 1"):
        write_folders(tmp_path / "n", frames, "nwchem-in", vacuum=0)
    write_folders(tmp_path / "m", frames[1:], "nwchem-in", vacuum=0)
    assert "charge" not in cation.arrays and "initial_charges" not in cation.arrays

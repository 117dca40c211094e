"""The verbs that generate and relax structures."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from helpers import refused

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import ExtrapolationWarning, write_extxyz
from pyg_clusters.labels import shielding
from pyg_clusters.labels.label import KEY, REASON
from pyg_clusters.options.parsing import parse_sizes
from pyg_clusters.options.structures import RelaxOptions
from pyg_clusters.structures import GuptaCalculator, sblda
from pyg_clusters.structures.quench import random_compact
from pyg_clusters.structures.relax_frames import relax_frames
from pyg_clusters.structures.relaxation import PAIRS_AT_ONCE


@pytest.fixture
def clusters(tmp_path):
    path = tmp_path / "na.extxyz"
    frames = [Atoms([11] * n, sblda(n, rng=np.random.default_rng(n)), info={"name": f"Na{n}"}) for n in (8, 5, 8)]
    frames[1].calc = SinglePointCalculator(frames[1], energy=-1.0, forces=np.ones((5, 3)))
    frames[2].numbers[:] = 29
    frames[2].positions *= 2.55 / 3.5
    write_extxyz(path, frames)
    return path


def test_generated_clusters_can_be_reproduced(tmp_path, capsys):
    out = tmp_path / "na.extxyz"
    arguments = ["generate", "sblda", "--element", "Na", "--sizes", "6:10:2,13", "--count", "3", "--seed", "5"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert "12 clusters of Na" in capsys.readouterr().out
    frames = ase.io.read(out, ":")
    assert [len(atoms) for atoms in frames] == 3 * [6] + 3 * [8] + 3 * [10] + 3 * [13]
    assert len({atoms.info["seed"] for atoms in frames}) == 12
    for atoms in frames:
        assert atoms.info["generator"] == "sblda" and atoms.symbols[0] == "Na" and not atoms.pbc.any()
        lengths = {name: atoms.info[name] for name in ("mu1", "mu2", "sigma1", "sigma2")}
        again = sblda(len(atoms), **lengths, rng=np.random.default_rng(int(atoms.info["seed"])))
        np.testing.assert_allclose(atoms.positions, again, atol=1e-7)
    again = tmp_path / "again.extxyz.xz"
    assert main(["generate", "sblda", "--sizes=13,8", "--count=2", "--seed=5", "--out", str(again)]) == 0
    of_13 = ase.io.read(again, ":")[0]
    np.testing.assert_allclose(of_13.positions, frames[9].positions, atol=1e-7)


def test_generate_of_another_element(tmp_path):
    out = tmp_path / "cu.extxyz"
    arguments = ["generate", "sblda", "--element", "Cu", "--sizes", "13", "--count", "1", "--out", str(out)]
    assert main([*arguments, "--mu1", "2.5", "--mu2", "2.6", "--sigma1", "0.05"]) == 0
    cluster = ase.io.read(out)
    assert cluster.symbols[0] == "Cu" and 2.3 <= cluster.get_all_distances()[np.triu_indices(13, 1)].min() < 2.6


def test_sizes():
    assert parse_sizes("14:30:2,40") == [14, 16, 18, 20, 22, 24, 26, 28, 30, 40]
    assert parse_sizes("3:5, 4, 2") == [3, 4, 5, 2]
    for text in ("", "a", "4:2", "0", "3:9:0", "-3", "1:2:3:4", "2.5"):
        with pytest.raises(InputError, match="--sizes"):
            parse_sizes(text)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--sizes", "14:a"], "14:a"),
        (["--element", "Xx"], "Xx"),
        (["--element", "Cu"], "--mu1"),
        (["--count", "0"], "--count"),
        (["--seed", "-1"], "--seed"),
        (["--mu1", "-2"], "mu1"),
        (["--out", "na.txt"], ".txt"),
    ],
)
def test_generate_refuses(changed, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in refused(["generate", "sblda", "--sizes", "8", "--out", "na.extxyz", *changed], capsys)
    assert not list(tmp_path.iterdir())


def test_generate_refuses_another_algorithm(tmp_path, capsys):
    line = refused(["generate", "blda", "--sizes", "8", "--out", tmp_path / "na.extxyz"], capsys)
    assert "sblda" in line


def test_relax_keeps_the_info_and_adds_its_results(clusters, tmp_path, capsys):
    out = tmp_path / "relaxed.extxyz"
    arguments = ["relax", str(clusters), str(clusters), "--calculator", "gupta", "--fmax", "0.01", "--out", str(out)]
    assert main(arguments) == 0
    assert "6 frames" in capsys.readouterr().out
    before, after = 2 * ase.io.read(clusters, ":"), ase.io.read(out, ":")
    assert [atoms.info["name"] for atoms in after] == [atoms.info["name"] for atoms in before]
    for old, new in zip(before, after, strict=True):
        assert new.calc is None and "forces" not in new.arrays
        assert new.info["converged"] and new.info["gupta_fmax"] <= 0.01 and new.info["gupta_steps"] > 0
        for atoms in (old, new):
            atoms.calc = GuptaCalculator(atoms.get_chemical_symbols()[0])
        assert new.info["gupta_energy"] == pytest.approx(new.get_potential_energy(), abs=1e-6)
        assert new.get_potential_energy() < old.get_potential_energy()
        assert np.linalg.norm(new.get_forces(), axis=1).max() <= 0.01 + 1e-5


def test_relax_keeps_no_label_of_the_old_positions(tmp_path):
    start, once, twice = (tmp_path / f"{name}.extxyz" for name in ("start", "once", "twice"))
    atoms = Atoms("Na2", [[0, 0, 0], [0, 0, 3.6]], info={"seed": 3, "Name": "a", "total_charge": 0, "multiplicity": 1})
    per_atom = {"nmr_shielding", "nmr_tensor", "gop", "mulliken_charge"}
    labels = {*shielding.WRITTEN, *shielding.STABILITY_WRITTEN, KEY, REASON, "relaxed", "point_group"} - per_atom
    labels |= {"E", "REF_Energy", "etot", "E_dft", "dft_energy", "energy_per_atom", "converged", "gupta_energy"}
    atoms.info |= dict.fromkeys(labels, "of the old positions")
    atoms.arrays |= {name: np.full(2, -1.0) for name in per_atom | {"REF_forces", "momenta"}}
    atoms.set_tags([1, 2])
    atoms.set_initial_charges([0.5, -0.5])
    results = {"energy": -7.0, "free_energy": -8.0, "dipole": np.ones(3), "forces": np.ones((2, 3)), "charges": [1, -1]}
    atoms.calc = SinglePointCalculator(atoms, **results)
    write_extxyz(start, [atoms])
    assert main(["relax", str(start), "--out", str(once)]) == 0
    assert main(["relax", str(once), "--out", str(twice)]) == 0
    old = {f"initial_{name}" for name in labels | {"energy", "free_energy", "dipole"}}
    lasting = {"seed", "Name", "total_charge", "multiplicity", "source_file", "source_frame"}
    result = {"gupta_energy", "gupta_fmax", "gupta_steps", "converged"}
    again = {f"initial_{name}" for name in result}
    for path, more in ((once, set()), (twice, again)):
        found = ase.io.read(path)
        assert found.calc is None and set(found.info) == old | lasting | result | more
        arrays = {f"initial_{name}" for name in per_atom | {"REF_forces", "momenta", "forces"}}
        assert set(found.arrays) == {"numbers", "positions", "tags", "initial_charges"} | arrays
        assert found.info["initial_energy"] == -7.0 and found.info["initial_gupta_energy"] == "of the old positions"
        assert found.info["source_file"] == str(start) and found.get_initial_charges().tolist() == [0.5, -0.5]


def test_relax_warns_that_it_ignores_constraints(tmp_path):
    dimer = Atoms("Na2", [[0, 0, 0], [0, 0, 3.2]], constraint=FixAtoms([0]))
    ase.io.write(tmp_path / "a.traj", [dimer, Atoms("Na2", dimer.positions)])
    options = RelaxOptions(frames=[str(tmp_path / "a.traj")], calculator="gupta", out=str(tmp_path / "r.extxyz"))
    with pytest.warns(UserWarning, match="the constraints of 1 frame were ignored: all atoms were relaxed"):
        relax_frames(options)


def test_relax_in_parts_is_the_same(clusters, tmp_path, monkeypatch):
    results = []
    for pairs in (PAIRS_AT_ONCE, 1):
        monkeypatch.setattr("pyg_clusters.structures.relaxation.PAIRS_AT_ONCE", pairs)
        out = tmp_path / f"{pairs}.extxyz"
        assert main(["relax", str(clusters), "--steps", "30", "--out", str(out)]) == 0
        results.append(ase.io.read(out, ":"))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-6)


def test_relax_counts_what_did_not_converge(clusters, tmp_path, capsys):
    out = tmp_path / "relaxed.extxyz"
    assert main(["relax", str(clusters), "--steps", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 of them not converged" in said and "3 of these need more steps (--steps)" in said
    assert not any(atoms.info["converged"] for atoms in ase.io.read(out, ":"))


def test_relax_warns_of_sizes_outside_the_training_set(tmp_path):
    frames = [Atoms([31] * n, sblda(n, mu1=2.7, mu2=2.8, rng=np.random.default_rng(n))) for n in (14, 40)]
    write_extxyz(tmp_path / "ga.extxyz", frames)
    paths = {"frames": [str(tmp_path / "ga.extxyz")], "out": str(tmp_path / "relaxed.extxyz")}
    with pytest.warns(ExtrapolationWarning, match="clusters of 14 atoms are far outside the 31 to 70 atoms"):
        relax_frames(RelaxOptions(calculator="gallium-forces", steps=1, **paths))


def test_relax_with_another_calculator(tmp_path, capsys):
    start, out = tmp_path / "alloy.extxyz", tmp_path / "relaxed.extxyz"
    frames = [random_compact(Atoms("Cu6Au4").numbers, np.random.default_rng(seed)) for seed in range(4)]
    for number, atoms in enumerate(frames):
        atoms.info |= {"name": f"frame {number}", "binding_energy": -1.0, "energy": -1.0}
    write_extxyz(start, frames)
    arguments = ["relax", str(start), "--calculator", "emt", "--fmax", "0.005", "--out", str(out)]
    assert main(arguments) == 0
    assert "4 frames" in capsys.readouterr().out
    for old, new in zip(frames, ase.io.read(out, ":"), strict=True):
        new.calc = EMT()
        assert new.info["name"] == old.info["name"] and new.info["converged"] and new.info["emt_steps"] > 10
        assert "binding_energy" not in new.info  # it belonged to the old positions
        assert new.info["emt_energy"] == pytest.approx(new.get_potential_energy(), abs=1e-5)
        assert np.linalg.norm(new.get_forces(), axis=1).max() <= 0.005 + 1e-5
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) * 6 // 10])  # as after a kill
    assert main(arguments) == 0 and out.read_bytes() == whole
    assert "fmax = 0.005, not 0.1" in refused([*arguments, "--fmax", "0.1"], capsys)
    before = start.read_bytes()
    write_extxyz(start, frames[::-1])  # another input of the same name
    assert f"input 0 = '{start}, " in refused(arguments, capsys)
    assert out.read_bytes() == whole
    start.write_bytes(before)
    assert main(arguments) == 0 and out.read_bytes() == whole
    assert main([*arguments, "--fmax", "0.1", "--overwrite"]) == 0
    own = ["relax", str(start), "--calculator", "ase.calculators.emt:EMT", "--steps", "3", "--out", str(start) + ".xyz"]
    assert main(own) == 0
    assert "4 of them not converged" in capsys.readouterr().out
    assert ase.io.read(own[-1], 0).info["emt_steps"] == 3


class Failing(EMT):
    """Calculator that fails for clusters with silver."""

    error: type[Exception] = CalculationFailed

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        if "Ag" in atoms.get_chemical_symbols():
            raise self.error("the field is not\nself-consistent")
        super().calculate(atoms, properties, system_changes)


@pytest.mark.parametrize("error", [CalculationFailed, RuntimeError])
def test_relax_marks_a_frame_on_which_the_calculator_fails(error, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Failing, "error", error)
    monkeypatch.setattr("pyg_clusters.structures.relax_frames.named_calculator", lambda name, elements: Failing())
    start, out = tmp_path / "start.extxyz", tmp_path / "relaxed.extxyz"
    dimers = [Atoms(symbols, [[0, 0, 0], [0, 0, 2.5]], info={"gupta_energy": -1.0}) for symbols in ("CuAu", "CuAg")]
    write_extxyz(start, dimers[:1])
    assert main(["relax", str(start), "--calculator", "emt", "--out", str(tmp_path / "one.extxyz")]) == 0
    assert "1 frame in" in (said := capsys.readouterr().out) and "all converged" in said
    write_extxyz(start, dimers)
    assert main(["relax", str(start), "--calculator", "emt", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 of them not converged" in said and "the calculator failed on 1 of these" in said
    assert "--steps" not in said
    failed = ase.io.read(out, 1)
    assert failed.info["emt_error"] == "the field is not self-consistent" and "emt_energy" not in failed.info
    assert failed.get_distance(0, 1) == pytest.approx(2.5) and failed.info["gupta_energy"] == -1.0  # still true of it
    assert "gupta_energy" not in ase.io.read(out, 0).info


def test_results_of_a_gap_are_not_named_after_the_path_of_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_clusters.structures.relax_frames.named_calculator", lambda name, elements: EMT())
    monkeypatch.setattr("pyg_clusters.structures.relax_frames.calculator_problem", lambda name, atoms: None)
    write_extxyz(tmp_path / "start.extxyz", [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])])
    out = tmp_path / "relaxed.extxyz"
    options = ["--calculator", f"gap:{tmp_path}/Ga.xml", "--out", str(out)]
    assert main(["relax", str(tmp_path / "start.extxyz"), *options]) == 0
    assert {"gap_energy", "gap_fmax", "gap_steps"} < set(ase.io.read(out).info)


def test_relax_overwrites_nothing_without_a_request(clusters, tmp_path, capsys):
    before = clusters.read_bytes()
    for calculator in ("gupta", "emt"):
        arguments = ["relax", clusters, "--calculator", calculator, "--overwrite", "--out", clusters]
        assert "one of the inputs" in refused(arguments, capsys)
    assert "exists already" in refused(["relax", tmp_path / "na.extxyz", "--out", _other(tmp_path)], capsys)
    assert clusters.read_bytes() == before


def _other(folder):
    path = folder / "other.extxyz"
    path.touch()
    return path


def test_relax_refuses(clusters, tmp_path, capsys):
    out = tmp_path / "relaxed.extxyz"
    arguments = ["relax", clusters, "--out", out]
    assert "--fmax" in refused([*arguments, "--fmax", "0"], capsys)
    assert "--steps" in refused([*arguments, "--steps", "0"], capsys)
    assert "gupta" in refused([*arguments, "--calculator", "gutpa"], capsys)
    assert "none.xyz" in refused(["relax", tmp_path / "none.xyz", "--out", out], capsys)
    assert not out.exists()


def test_relax_of_bad_frames(clusters, tmp_path, capsys):
    good = ase.io.read(clusters, 0)
    gallium, mixed, close = good.copy(), good.copy(), good.copy()
    gallium.numbers[:] = 31
    mixed.numbers[3] = 29
    close.positions[1] = close.positions[0]
    out = tmp_path / "relaxed.extxyz"
    for frame, told in ((gallium, "atom 0 is Ga"), (mixed, "atom 3 is Cu"), (close, "0 and 1"), (Atoms("Na"), "two")):
        path = tmp_path / "bad.extxyz"
        write_extxyz(path, [good, frame, good])
        line = refused(["relax", path, "--out", out], capsys)
        assert f"{path}, frame 1" in line and told in line and not out.exists()
        assert main(["relax", str(path), "--on-bad", "skip", "--out", str(out)]) == 0
        assert f"{path}, frame 1" in capsys.readouterr().err
        assert len(ase.io.read(out, ":")) == 2
        out.unlink()

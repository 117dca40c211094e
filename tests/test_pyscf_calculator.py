"""Energies and forces by density functional theory."""

import numpy as np
import pytest
from ase import Atoms

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.frames import write_extxyz
from pyg_clusters.labels import EnergyLabeller
from pyg_clusters.structures import PySCFCalculator, local_minimum, named_calculator
from pyg_clusters.structures.calculators import calculator_problem


def dimer(symbols: str = "Na2", distance: float = 3.1, **info) -> Atoms:
    return Atoms(symbols, [[0, 0, 0], [0, 0, distance]], info=info)


def test_the_sodium_dimer_has_its_bond_length_and_energy(capfd):
    """By this functional in a triple-zeta basis 3.095 Å and 0.776 eV, by experiment 3.079 Å and 0.747 eV."""
    pytest.importorskip("pyscf", reason="needs the extra dft")
    found = local_minimum(dimer(), PySCFCalculator(), fmax=0.02)
    atom = Atoms("Na", calculator=PySCFCalculator(multiplicity=2))
    assert found.converged and np.linalg.norm(np.ptp(found.atoms.positions, axis=0)) == pytest.approx(3.095, abs=0.03)
    assert 2 * atom.get_potential_energy() - found.energy == pytest.approx(0.776, abs=0.03)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "atoms",
    [
        dimer(distance=3.4, charge=1, multiplicity=2),
        pytest.param(dimer("NaLi", 2.6), marks=pytest.mark.slow),
        pytest.param(dimer("Ag2", 2.8), marks=pytest.mark.slow),
    ],
    ids=["cation", "two elements", "core potentials"],
)
def test_forces_are_the_gradient_of_the_energy(atoms):
    pytest.importorskip("pyscf", reason="needs the extra dft")
    labelled = EnergyLabeller("pyscf")(atoms)
    assert labelled.reason is None and "pyscf PBE/def2-svp" in labelled.atoms.info["calculator"]
    step, energies = 0.01, []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[1, 2] += sign * step
        energies.append(EnergyLabeller("pyscf")(moved).atoms.get_potential_energy())
    forces = labelled.atoms.get_forces()
    assert forces[1, 2] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-3)
    assert np.allclose(forces.sum(axis=0), 0.0, atol=1e-4) and abs(forces[1, 2]) > 0.02


def test_frames_that_cannot_be_calculated_are_refused_in_one_line(tmp_path, capsys):
    pytest.importorskip("pyscf", reason="needs the extra dft")
    assert calculator_problem("pyscf", dimer()) is None
    assert calculator_problem("pyscf", dimer(charge=1, multiplicity=2)) is None
    assert "odd number of electrons (21)" in calculator_problem("pyscf", dimer(charge=1))
    assert "no basis functions def2-svp for U" in calculator_problem("pyscf", dimer("NaU"))
    write_extxyz(tmp_path / "ion.extxyz", [dimer(charge=1)])
    out = str(tmp_path / "out.extxyz")
    assert main(["label", "energy", str(tmp_path / "ion.extxyz"), "--calculator", "pyscf", "--out", out]) == 2
    assert "state multiplicity=2" in (error := capsys.readouterr().err) and error.strip().count("\n") == 0
    with pytest.raises(InputError, match="multiplicity 2 is impossible with 22 electrons"):
        PySCFCalculator(multiplicity=2).get_potential_energy(dimer())
    with pytest.raises(InputError, match="b3lyp has exact exchange"):
        PySCFCalculator(xc="b3lyp").get_potential_energy(dimer())
    with pytest.raises(InputError, match="no parameter base; it has charge"):
        PySCFCalculator(base="def2-svp")


def test_changed_parameters_are_used():
    pytest.importorskip("pyscf", reason="needs the extra dft")
    atoms = dimer()
    atoms.calc = PySCFCalculator()
    neutral = atoms.get_potential_energy()
    atoms.calc.set(charge=1, multiplicity=2)
    assert atoms.get_potential_energy() - neutral == pytest.approx(4.9, abs=0.5)  # ionisation by experiment
    atoms.calc.set(charge=0, multiplicity=None, basis="def2-tzvp")  # the last density matrix has another size
    assert atoms.get_potential_energy() < neutral - 1.0
    with pytest.raises(InputError, match="no parameter base"):
        atoms.calc.set(base="def2-svp")


def test_transition_metals_have_the_larger_basis():
    pytest.importorskip("pyscf", reason="needs the extra dft")
    mol = PySCFCalculator()._mean_field(dimer("CuAl", 2.4)).mol
    assert {mol.atom_symbol(i): mol.aoslice_by_atom()[i, 3] - mol.aoslice_by_atom()[i, 2] for i in range(2)} == {
        "Cu": 45,  # (6s 4p 4d 1f) of def2-TZVP
        "Al": 18,  # (4s 3p 1d) of def2-SVP
    }
    assert "transition metals def2-tzvp" in PySCFCalculator().level
    assert PySCFCalculator(basis="def2-svp").level.startswith("PBE/def2-svp, def2-universal-jfit")


def test_without_pyscf_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyscf", None)
    with pytest.raises(MissingExtra, match=r"pyg-clusters\[dft\]"):
        named_calculator("pyscf", ["Na"])

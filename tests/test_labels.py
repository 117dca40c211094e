"""Labels: shieldings compared with published and exact values, the spin filter, resuming, energies."""

import json
import multiprocessing
import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from pyg_clusters.cli import main
from pyg_clusters.datasets import POPULATIONS
from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.frames import read_atoms, write_extxyz
from pyg_clusters.frames.electronic_state import electronic_state
from pyg_clusters.labels import (
    EnergyLabeller,
    LabelFiles,
    LabelResult,
    ShieldingLabeller,
    ShieldingLevel,
    StabilityLabeller,
    dft,
    frame_keys,
    tight_binding_gap,
)
from pyg_clusters.labels.dft import kohn_sham, shielding_tensor
from pyg_clusters.labels.dft.shielding_tensor import shielding_tensors
from pyg_clusters.options.structures import LabelPrescreenOptions, LabelShieldingOptions
from pyg_clusters.shipped import shipped_folder
from pyg_clusters.structures import ClusterEMT, GuptaCalculator
from pyg_clusters.units import SODIUM_ION_PPM, SODIUM_REFERENCE_PPM

needs_pyscf = pytest.mark.skipif(dft.gto is None, reason="PySCF is not installed (extra dft)")
try:
    import cupy

    gpus = cupy.cuda.runtime.getDeviceCount()
    import gpu4pyscf  # noqa: F401
except Exception:  # CuPy without a driver raises its own errors
    gpus = 0

WATER = Atoms("OH2", [[0, 0, 0.1174], [-0.757, 0, -0.4696], [0.757, 0, -0.4696]])


def dimer(symbol: str, distance: float) -> Atoms:
    return Atoms(f"{symbol}2", [[0, 0, 0], [0, 0, distance]])


def shieldings(atoms: Atoms, **options) -> np.ndarray:
    labelled = ShieldingLabeller(**options)(atoms)
    assert labelled.reason is None
    return labelled.atoms.arrays["nmr_shielding"]


# Published values


@needs_pyscf
def test_water_agrees_with_another_program():
    """Q-Chem, B3LYP/def2-TZVPP with density fitting (test values of gpu4pyscf, properties/tests/test_shielding.py)."""
    level = ShieldingLevel(basis="def2-tzvpp", cartesian=False, grid=3, scf_tolerance=1e-8, response_tolerance=1e-5)
    labelled = ShieldingLabeller(level)(WATER).atoms
    np.testing.assert_allclose(labelled.arrays["nmr_shielding"], [332.0796, 31.3925, 31.3916], atol=0.02)
    assert labelled.info["energy"] / units.Hartree == pytest.approx(-76.46668, abs=5e-5)
    assert labelled.arrays["mulliken_charge"].sum() == pytest.approx(0, abs=1e-6)
    assert labelled.arrays["mulliken_charge"][0] < -0.3 and "gop" not in labelled.arrays


@needs_pyscf
@pytest.mark.slow
def test_tetramethylsilane_agrees_with_gaussian():
    """B3LYP/6-31G(d) at the geometry of that level: 189.6621 (C) and 32.1833 ppm (H), Gaussian's reference values."""
    values = shieldings(tetramethylsilane(), level=ShieldingLevel(grid=3, scf_tolerance=1e-8))
    np.testing.assert_allclose(values[1:5], 189.66, atol=0.1)
    np.testing.assert_allclose(values[5:], 32.18, atol=0.05)


def tetramethylsilane(length: float = 1.8961, bond: float = 1.0969, angle: float = 111.4) -> Atoms:
    """Si-C and C-H in Å, Si-C-H in degrees; symmetry T_d."""
    axes = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
    hydrogens = []
    for axis in axes:
        for other in axes[axes @ axis < 0.9]:
            across = -(other - (other @ axis) * axis)
            across /= np.linalg.norm(across)
            angle_ = np.radians(angle)
            hydrogens.append(length * axis + bond * (np.sin(angle_) * across - np.cos(angle_) * axis))
    return Atoms("SiC4H12", [np.zeros(3), *(length * axes), *hydrogens])


@needs_pyscf
def test_ion_follows_lambs_formula():
    """A closed-shell atom: σ = α²/3 Σ ⟨1/r⟩ (Lamb 1941), and the documented value of Na⁺."""
    ion = Atoms("Na")
    mol = ShieldingLevel().molecule(ion, 1)
    solution = kohn_sham.solve_closed_shell(mol, ShieldingLevel())
    with mol.with_rinv_origin([0, 0, 0]):
        inverse = np.vdot(mol.intor("int1e_rinv"), solution.density)
    lamb = inverse / 3 / 137.035999**2 * 1e6
    assert lamb == pytest.approx(SODIUM_ION_PPM, abs=0.05)
    assert shieldings(ion, charge=1)[0] == pytest.approx(lamb, abs=1e-3)


@needs_pyscf
@pytest.mark.slow
def test_reference_of_shifts():
    assert shieldings(hydrated_sodium(), charge=1)[0] == pytest.approx(SODIUM_REFERENCE_PPM, abs=0.05)


def hydrated_sodium(distance: float = 2.358, bond: float = 0.9684, angle: float = 105.64) -> Atoms:
    """[Na(H2O)6]⁺ of symmetry T_h: Na-O and O-H in Å, H-O-H in degrees."""
    axes = np.eye(3)
    positions = [np.zeros(3)]
    for number, axis in enumerate(axes):
        across = axes[(number + 1) % 3]
        for sign in (1, -1):
            oxygen = sign * distance * axis
            outward, sideways = np.cos(np.radians(angle / 2)) * sign * axis, np.sin(np.radians(angle / 2)) * across
            positions += [oxygen, oxygen + bond * (outward + sideways), oxygen + bond * (outward - sideways)]
    return Atoms("Na" + 6 * "OH2", positions)


@needs_pyscf
def test_fitted_shieldings_are_the_exact_ones():
    """Density-fitted equations compared with corrected pyscf-properties with exact integrals."""
    atoms = dimer("Na", 3.08)
    atoms.rotate(40, (1, 2, 3))
    fitted, exact = (
        ShieldingLabeller(ShieldingLevel(fitting=name, grid=0))(atoms).atoms for name in ("def2-universal-jkfit", None)
    )
    np.testing.assert_allclose(fitted.arrays["nmr_shielding"], exact.arrays["nmr_shielding"], atol=0.02)
    np.testing.assert_allclose(fitted.arrays["nmr_tensor"], exact.arrays["nmr_tensor"], atol=0.05)
    np.testing.assert_allclose(fitted.arrays["gop"], exact.arrays["gop"], atol=1e-3)
    assert fitted.info["energy"] == pytest.approx(exact.info["energy"], abs=0.01)
    assert fitted.info["lambda_triplet"] == pytest.approx(exact.info["lambda_triplet"], abs=1e-3)


@needs_pyscf
@pytest.mark.slow
def test_fitted_shieldings_of_a_cluster_are_the_exact_ones():
    """Na8 by pyscf-properties: exact integrals, grid 3, energy to 1e-9 hartree, response to 1e-6 (15 minutes)."""
    positions = [[-1.791, -1.322, 1.985], [-0.004, 0.597, -0.345], [-2.562, -1.315, -1.563], [-1.952, 2.446, 1.791]]
    positions += [[0.515, -1.637, -3.317], [1.865, -1.275, 2.596], [0.664, 4.087, -0.309], [3.266, -1.581, -0.839]]
    labelled = ShieldingLabeller()(Atoms("Na8", positions)).atoms
    exact = [606.459, 607.181, 605.853, 592.098, 605.977, 615.877, 618.619, 610.317]
    np.testing.assert_allclose(labelled.arrays["nmr_shielding"], exact, atol=0.05)
    assert labelled.info["lambda_triplet"] == pytest.approx(0.36735, abs=1e-3)
    assert labelled.info["energy"] == pytest.approx(-35330.8665, abs=0.01)


@needs_pyscf
def test_corrected_release_supports_hydrogen():
    """Few grid points, and field directions that converge separately: the release fails in both cases."""
    level = ShieldingLevel(fitting=None, grid=0)
    assert shieldings(dimer("H", 0.74), level=level) == pytest.approx(shieldings(dimer("H", 0.74)), abs=0.1)


@needs_pyscf
@pytest.mark.slow
@pytest.mark.parametrize("size", [14, 16, 20])
def test_shipped_clusters_are_labelled_again(size):
    """The shipped labels were computed in double precision, with a fifth more fitting functions."""
    clusters = read_atoms([shipped_folder("sodium_shielding") / "sodium_shielding.extxyz"])
    shipped = next(frame.atoms for frame in clusters if len(frame.atoms) == size)
    labelled = ShieldingLabeller()(shipped).atoms
    np.testing.assert_allclose(labelled.arrays["nmr_shielding"], shipped.arrays["nmr_shielding"], atol=0.1)
    np.testing.assert_allclose(labelled.arrays["nmr_tensor"], shipped.arrays["nmr_tensor"], atol=0.3)
    np.testing.assert_allclose(labelled.arrays["gop"], shipped.arrays["gop"], atol=1e-3)
    for key, tolerance in (("lambda_triplet", 1e-3), ("homo_lumo_gap", 1e-3)):
        assert labelled.info[key] == pytest.approx(shipped.info[key], abs=tolerance)
    assert labelled.info["energy"] == pytest.approx(shipped.get_potential_energy(), abs=1e-2)


# Properties


@needs_pyscf
def test_columns_are_those_of_the_shipped_data():
    labelled = ShieldingLabeller()(dimer("Na", 3.08)).atoms
    assert list(labelled.arrays)[2:] == ["nmr_shielding", "nmr_tensor", "gop"]
    assert labelled.info["gop_columns"].split() == list(POPULATIONS)
    assert labelled.arrays["gop"].shape == (2, 19)
    assert labelled.arrays["gop"].sum() == pytest.approx(22, abs=1e-6)
    tensor = labelled.arrays["nmr_tensor"].reshape(2, 3, 3)
    np.testing.assert_allclose(np.trace(tensor, axis1=1, axis2=2) / 3, labelled.arrays["nmr_shielding"])
    populations = dict(zip(POPULATIONS, labelled.arrays["gop"][0], strict=True))
    assert populations["3PZ"] + populations["4PZ"] > 3 * abs(populations["3PX"] + populations["4PX"])  # along the bond
    assert populations["5DXX"] == pytest.approx(populations["5DYY"], abs=1e-6)
    assert abs(populations["5DXY"]) < 1e-6


@needs_pyscf
def test_shieldings_do_not_depend_on_the_gauge():
    """With GIAOs the result does not depend on the origin, to which each cluster is moved."""
    values, level = [], ShieldingLevel(scf_tolerance=1e-10)
    for shift in ([0, 0, 0], [15, -4, 2]):
        mol = level.molecule(WATER)
        mol.set_geom_(WATER.positions + shift)
        solution = kohn_sham.solve_closed_shell(mol, level)
        values.append(shielding_tensors(solution, 1e-7))
    np.testing.assert_allclose(*values, atol=5e-3)


@needs_pyscf
@pytest.mark.slow
def test_shieldings_do_not_depend_on_place_and_orientation_of_a_cluster():
    here = Atoms("Na4", [[0, 0, 1.6], [0, 0, -1.6], [0, 3.2, 0], [0, -3.2, 0]])
    there = here.copy()
    there.rotate(50, (1, 2, 3))
    there.translate([12, 3, -7])
    there = there[[2, 0, 3, 1]]
    np.testing.assert_allclose(shieldings(there), shieldings(here)[[2, 0, 3, 1]], atol=0.05)


@needs_pyscf
def test_a_bond_that_breaks_is_set_aside():
    labels = {distance: ShieldingLabeller()(dimer("H", distance)) for distance in (0.74, 1.8, 4.0)}
    assert labels[0.74].reason is None and labels[0.74].atoms.info["s2"] == 0
    assert labels[0.74].atoms.info["rks_stable"] and labels[0.74].atoms.info["lambda_triplet"] > 0
    for distance in (1.8, 4.0):
        labelled = labels[distance]
        assert "<S^2>" in labelled.reason and "not below 0.05" in labelled.reason
        assert "nmr_shielding" not in labelled.atoms.arrays and not labelled.atoms.info["rks_stable"]
        assert labelled.atoms.info["broken_symmetry_lowering"] > 0
    assert 0.1 < labels[1.8].atoms.info["s2"] < 0.7
    assert labels[4.0].atoms.info["s2"] == pytest.approx(1, abs=0.02)  # two atoms, half of a triplet


def test_tight_binding_gap_of_known_shapes():
    """In Hückel's picture, with the hopping between all atoms: one bond, a degenerate ring, a chain of two bonds."""
    assert tight_binding_gap(dimer("Na", 3.6).positions) == pytest.approx(2)
    assert tight_binding_gap(dimer("Na", 4.6).positions) == pytest.approx(2 * np.exp(-0.15))
    ring = 3.6 * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert tight_binding_gap(ring) == pytest.approx(0, abs=1e-12)
    one_by_one = ring * [1, 1.5, 1]  # a rectangle: the degenerate pair splits into the bonds of its longer sides
    short, long, across = (np.exp(-0.15 * 3.6 * (d - 1)) for d in (1, 1.5, np.hypot(1, 1.5)))
    assert tight_binding_gap(one_by_one) == pytest.approx(2 * (short - long)) and across < long


@needs_pyscf
def test_valence_electrons_determine_the_stability():
    """The closed shell is stable near a minimum and unstable at long distances; both calculations agree."""
    for distance in (3.08, 5.5):
        all_electrons = ShieldingLabeller(spin_test="stability")(dimer("Na", distance))
        valence = StabilityLabeller()(dimer("Na", distance))
        found = valence.atoms.info["valence_lambda_triplet"]
        assert found == pytest.approx(all_electrons.atoms.info["lambda_triplet"], abs=0.3)
        assert (valence.reason is None) == (all_electrons.reason is None) == (distance < 4)


@needs_pyscf
@pytest.mark.slow
def test_shipped_clusters_pass_the_cheap_test():
    (shipped,) = shipped_folder("sodium_shielding").glob("sodium_shielding.extxyz")
    clusters = [frame.atoms for frame in read_atoms([shipped])]
    grown = [atoms for atoms in clusters if len(atoms) == 14 and not atoms.info["relaxed"]][:6]
    for atoms in grown:
        tested = StabilityLabeller(min_gap=0.1)(atoms)
        assert tested.reason is None
        assert tested.atoms.info["valence_lambda_triplet"] == pytest.approx(atoms.info["lambda_triplet"], abs=0.15)


@needs_pyscf
def test_options_of_the_spin_filter():
    broken = dimer("H", 1.8)
    cheap = ShieldingLabeller(spin_test="stability")(broken)
    assert "triplet-unstable" in cheap.reason and "s2" not in cheap.atoms.info
    anyway = ShieldingLabeller(label_unstable=True)(broken)
    assert anyway.reason and np.isfinite(anyway.atoms.arrays["nmr_shielding"]).all()
    assert ShieldingLabeller(max_s2=0.9)(broken).reason is None


@needs_pyscf
def test_frames_state_the_charge_of_their_labels():
    """Otherwise the shieldings of a cation would be taken for those of the neutral cluster."""
    hydride = dimer("H", 0.8)
    for labeller, atoms in ((ShieldingLabeller(charge=-2), hydride), (StabilityLabeller(charge=-2), dimer("Na", 3.6))):
        atoms.info["multiplicity"] = 1
        labelled = labeller(atoms).atoms
        assert electronic_state(labelled).charge == -2 and "charge" not in atoms.info
        atoms.info["total_charge"] = 0
        assert electronic_state(labeller(atoms).atoms).charge == 0


@needs_pyscf
def test_nothing_is_kept_of_an_earlier_label():
    once = ShieldingLabeller(label_unstable=True)(dimer("H", 1.8)).atoms
    once.info |= {"set_aside": "for its spin", "seed": 3, "calculator": "gupta"}
    again = ShieldingLabeller()(once)
    assert set(again.atoms.arrays) == {"numbers", "positions"} and "nmr_shielding" in once.arrays
    assert again.atoms.info["seed"] == 3 and {"set_aside", "calculator"}.isdisjoint(again.atoms.info)
    assert "nmr_shielding" in EnergyLabeller("ase.calculators.lj:LennardJones")(once).atoms.arrays  # still true of it


@needs_pyscf
def test_no_convergence_is_no_label(monkeypatch):
    monkeypatch.setattr(kohn_sham, "CYCLES", (1, 1, 1))
    labelled = ShieldingLabeller()(dimer("H", 0.74))
    assert "did not converge" in labelled.reason
    assert set(labelled.atoms.arrays) == {"numbers", "positions"} and "energy" not in labelled.atoms.info


@needs_pyscf
def test_response_that_is_not_exact_enough_is_corrected(monkeypatch):
    whole = shieldings(WATER)
    monkeypatch.setattr(shielding_tensor, "ENOUGH", 0.01)
    np.testing.assert_allclose(shieldings(WATER), whole, atol=0.02)
    monkeypatch.setattr(shielding_tensor, "CORRECTIONS", 0)
    labelled = ShieldingLabeller()(WATER)
    assert "coupled-perturbed equations did not converge: residual" in labelled.reason
    assert "nmr_shielding" not in labelled.atoms.arrays
    monkeypatch.setattr(shielding_tensor, "MAX_CYCLES", 2)
    assert "coupled-perturbed equations did not converge in 2 cycles" in ShieldingLabeller()(WATER).reason


@needs_pyscf
def test_potential_of_cached_values_is_that_of_pyscf():
    """Coulomb, exchange and exchange-correlation matrices of this package, closed-shell and spin-polarised."""
    mol = ShieldingLevel(cartesian=False).molecule(WATER)
    for spin in (0, 1):
        mf = (dft.dft.UKS if spin else dft.dft.RKS)(mol, xc="b3lyp").density_fit("def2-universal-jkfit")
        mf.grids.level = 1
        guess = np.asarray(mf.get_init_guess(key="1e"))
        if spin:
            guess[1] *= 0.8
        expected = mf.get_veff(dm=guess)
        integrals = kohn_sham.FittedIntegrals(mol, "def2-universal-jkfit")
        with kohn_sham.fitted_potential(mf, integrals, kohn_sham.IntegrationGrid(mf)):
            found = mf.get_veff(dm=guess)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found.exc == pytest.approx(expected.exc, abs=1e-5) and found.ecoul == pytest.approx(expected.ecoul)


@needs_pyscf
@pytest.mark.skipif(not gpus, reason="gpu4pyscf finds no GPU")
def test_gpu_gives_the_same():
    atoms = Atoms("Na4", [[0, 0, 1.6], [0, 0, -1.6], [0, 3.2, 0], [0, -3.2, 0]])
    expected = ShieldingLabeller()(atoms).atoms
    found = ShieldingLabeller(ShieldingLevel(fitting=None), device="cuda")(atoms).atoms
    np.testing.assert_allclose(found.arrays["nmr_shielding"], expected.arrays["nmr_shielding"], atol=0.1)
    assert list(found.arrays) == list(expected.arrays)


# Frames that cannot be labelled


@needs_pyscf
@pytest.mark.parametrize(
    ("atoms", "options", "told"),
    [
        (Atoms("Na3", [[0, 0, 0], [0, 0, 3], [0, 3, 0]]), {}, "33 electrons (Na3, charge 0) cannot be a singlet"),
        (dimer("Na", 3.0), {"charge": 1}, "21 electrons"),
        (Atoms("Na2", dimer("Na", 3.0).positions, info={"charge": -1}), {}, "23 electrons"),
        (Atoms("Na2", dimer("Na", 3.0).positions, info={"charge": "x"}), {}, "whole number, got 'x'"),
        (dimer("Ag", 2.6), {}, "no basis 6-31g* for Ag"),
        (dimer("Na", 3.0), {"memory": 1e8}, "the limit is 0.1"),
    ],
)
def test_problems_are_reported(atoms, options, told):
    assert told in ShieldingLabeller(**options).problem(atoms)


@needs_pyscf
def test_valid_frames_have_no_problem():
    ion = Atoms("Na3", [[0, 0, 0], [0, 0, 3], [0, 3, 0]], info={"charge": 1})
    assert ShieldingLabeller().problem(ion) is None and ShieldingLabeller().problem(WATER) is None


@needs_pyscf
def test_wrong_settings():
    for make, told in (
        (lambda: ShieldingLevel(grid=10), "0 to 9"),
        (lambda: ShieldingLevel(scf_tolerance=0), "scf_tolerance"),
        (lambda: ShieldingLabeller(max_s2=0), "must be positive"),
        (lambda: ShieldingLabeller(ShieldingLevel(basis="lanl2dz", core_potential="lanl2dz")), "all core electrons"),
        (lambda: ShieldingLabeller(max_s2=np.nan), "must be positive"),
        (lambda: StabilityLabeller(min_gap=-1), "must not be negative"),
        (lambda: StabilityLabeller(min_gap=np.nan), "must not be negative"),
        (lambda: StabilityLabeller(least=np.nan), "must be a number"),
        (lambda: ShieldingLabeller(device="tpu"), "cpu or cuda"),
        (lambda: ShieldingLabeller(ShieldingLevel(xc="lda"))(dimer("H", 0.7)), "lda"),
    ):
        with pytest.raises(InputError, match=told):
            make()


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(MissingExtra, match=r"pyg-clusters\[dft\]"):
        ShieldingLabeller()
    with pytest.raises(MissingExtra, match="label prescreen"):
        StabilityLabeller()


@needs_pyscf
@pytest.mark.skipif(gpus > 0, reason="there is a GPU")
def test_without_a_gpu():
    with pytest.raises((MissingExtra, InputError), match="cuda"):
        ShieldingLabeller(device="cuda")


# Energies


def test_energies_and_forces_are_those_of_the_calculator():
    rng = np.random.default_rng(0)
    atoms = Atoms(
        "Cu3Au", rng.normal(size=(4, 3)) * 1.5, info={"seed": 5, "binding_energy": -1.0}, pbc=True, cell=[30] * 3
    )
    atoms.info["REF_energy"] = -7.0  # of another level of theory
    atoms.set_array("REF_forces", np.ones((4, 3)))
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((4, 3)))
    found = EnergyLabeller("emt")(atoms)
    expected = Atoms(atoms.numbers, atoms.positions, calculator=ClusterEMT())
    assert found.reason is None and found.atoms.get_potential_energy() == expected.get_potential_energy()
    np.testing.assert_array_equal(found.atoms.get_forces(), expected.get_forces())
    assert found.atoms.info == {"seed": 5, "calculator": "emt"} and not found.atoms.pbc.any()
    assert "REF_forces" not in found.atoms.arrays
    assert atoms.info["binding_energy"] == -1.0 and atoms.get_potential_energy() == 0.0  # the input is unchanged


def test_one_calculator_for_several_elements():
    label = EnergyLabeller("gupta")
    for symbol in ("Na", "Cu", "Na"):
        expected = dimer(symbol, 3.0)
        expected.calc = GuptaCalculator(symbol)
        assert label(dimer(symbol, 3.0)).atoms.get_potential_energy() == expected.get_potential_energy()
    assert "not Ga" in label.problem(dimer("Ga", 2.7)) and label.problem(dimer("Na", 3)) is None


class Moody(LennardJones):
    """Calculator that fails for long dimers and diverges for short ones."""

    def calculate(self, atoms=None, *arguments, **options):
        distance = atoms.get_distance(0, 1)
        if distance > 5:
            raise CalculationFailed("no self-consistency")
        super().calculate(atoms, *arguments, **options)
        if distance < 1:
            self.results["energy"] = np.inf


MOODY = f"{__name__}:Moody"


def test_failures_are_set_aside():
    label = EnergyLabeller(MOODY)
    assert label(dimer("Ar", 3.0)).reason is None
    assert label(dimer("Ar", 6.0)).reason == "no self-consistency"
    assert "not finite" in label(dimer("Ar", 0.9)).reason


def test_gap_requires_its_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        EnergyLabeller(f"gap:{tmp_path / 'ga.xml'}")(dimer("Ga", 2.7))


# Files and resuming


@pytest.fixture
def frames(tmp_path):
    path = tmp_path / "ar.extxyz"
    distances = (3.0, 3.5, 6.0, 4.0, 3.0, 4.5)  # the third fails, the fifth is the first again
    clusters = [dimer("Ar", distance) for distance in distances]
    for number, atoms in enumerate(clusters):
        atoms.info["name"] = f"n{number}"
    write_extxyz(path, clusters)
    return path


def label(frames, out, *options) -> int:
    arguments = ["label", "energy", str(frames), "--calculator", MOODY, "--out", str(out)]
    return main([*arguments, *options])


def test_energies_of_files(frames, tmp_path, capsys):
    out = tmp_path / "labelled.extxyz"
    assert label(frames, out) == 0
    told = capsys.readouterr()
    assert "5 frames in" in told.out and "1 rejected" in told.out
    assert "6/6 Ar2" in told.err and "rejected: no self-consistency" in told.err
    labelled = ase.io.read(out, ":")
    assert [atoms.info["name"] for atoms in labelled] == ["n0", "n1", "n3", "n4", "n5"]
    expected = dimer("Ar", 3.5)
    expected.calc = LennardJones()
    assert labelled[1].get_potential_energy() == pytest.approx(expected.get_potential_energy())
    np.testing.assert_allclose(labelled[1].get_forces(), expected.get_forces(), atol=1e-7)
    (aside,) = ase.io.read(tmp_path / "labelled.set_aside.extxyz", ":")
    assert aside.info["name"] == "n2" and aside.info["set_aside"] == "no self-consistency"
    log = [json.loads(line) for line in (tmp_path / "labelled.log.jsonl").read_text().splitlines()]
    assert [line["source_frame"] for line in log] == list(range(6)) and all(line["seconds"] >= 0 for line in log)
    assert label(out, tmp_path / "again.extxyz") == 0  # the origin is that of the first file
    log = [json.loads(line) for line in (tmp_path / "again.log.jsonl").read_text().splitlines()]
    origins = [(line["source_file"], line["source_frame"]) for line in log]
    assert origins == [(str(frames), number) for number in (0, 1, 3, 4, 5)]


def test_resumed_equals_uninterrupted(frames, tmp_path):
    whole, parts = tmp_path / "whole.extxyz", tmp_path / "parts.extxyz"
    assert label(frames, whole) == 0 and label(frames, parts) == 0
    text, aside = whole.read_bytes(), tmp_path / "parts.set_aside.extxyz"
    for cut in (10, len(text) // 3, len(text) // 2, len(text) - 1, len(text)):  # killed while writing
        parts.write_bytes(text[:cut])
        aside.unlink(missing_ok=True)
        assert label(frames, parts) == 0
        assert parts.read_bytes() == text
        assert aside.read_bytes() == (tmp_path / "whole.set_aside.extxyz").read_bytes()


def test_only_new_frames_are_computed(frames, tmp_path, capsys):
    out = tmp_path / "labelled.extxyz"
    some = tmp_path / "some.extxyz"
    clusters = [frame.atoms for frame in read_atoms([frames])]
    write_extxyz(some, clusters[1:4])
    assert label(some, out) == 0
    capsys.readouterr()
    assert label(frames, out) == 0
    told = capsys.readouterr().err
    assert "3 of 6 frames are done" in told and "6/6" in told and told.count("Ar2") == 3
    assert [atoms.info["name"] for atoms in ase.io.read(out, ":")] == ["n0", "n1", "n3", "n4", "n5"]  # in order


def test_labels_of_frames_that_left_the_input_are_kept_apart(frames, tmp_path, capsys):
    out, old, given = (tmp_path / name for name in ("labelled.extxyz", "labelled.old.extxyz", "given.extxyz"))
    clusters = [frame.atoms for frame in read_atoms([frames])]
    write_extxyz(given, clusters)
    assert label(given, out) == 0
    whole, aside = out.read_bytes(), (tmp_path / "labelled.set_aside.extxyz").read_bytes()
    changed = [*clusters[:2], clusters[5].copy()]
    changed[2].positions *= 1.01
    write_extxyz(given, changed)
    capsys.readouterr()
    for _ in range(2):
        assert label(given, out) == 0
        told = capsys.readouterr()
        assert "4 labelled frames are no longer in the input" in told.out and told.err.count("Ar2") <= 1
        assert [atoms.info["name"] for atoms in ase.io.read(out, ":")] == ["n0", "n1", "n5"]
        assert {atoms.info["name"] for atoms in ase.io.read(old, ":")} == {"n2", "n3", "n4", "n5"}
    assert not (tmp_path / "labelled.set_aside.extxyz").exists()
    write_extxyz(given, clusters)
    assert label(given, out) == 0  # they come back
    assert "6 of 6 frames are done" in capsys.readouterr().err
    assert out.read_bytes() == whole and (tmp_path / "labelled.set_aside.extxyz").read_bytes() == aside
    assert len(ase.io.read(old, ":")) == 1


@pytest.mark.slow
def test_workers_give_the_same(frames, tmp_path):
    one, two = tmp_path / "one.extxyz", tmp_path / "two.extxyz"
    assert label(frames, one) == 0 and label(frames, two, "--workers", "2", "--threads", "1") == 0
    assert one.read_bytes() == two.read_bytes()
    assert not multiprocessing.active_children()


def test_shards_make_up_the_whole(frames, tmp_path):
    whole, parts = tmp_path / "whole.extxyz", [tmp_path / f"part{number}.extxyz" for number in (1, 2)]
    assert label(frames, whole) == 0
    for number, part in enumerate(parts, start=1):
        assert label(frames, part, "--shard", f"{number}/2") == 0
    expected = ase.io.read(whole, ":")
    first, second = (ase.io.read(part, ":") for part in parts)
    assert [atoms.info["name"] for atoms in first] == ["n0", "n4"]  # the third was rejected
    assert [atoms.info["name"] for atoms in second] == ["n1", "n3", "n5"]
    both = sorted([*first, *second], key=lambda atoms: atoms.info["name"])
    assert [atoms.get_potential_energy() for atoms in both] == [atoms.get_potential_energy() for atoms in expected]


@needs_pyscf
def test_shieldings_of_files(tmp_path, capsys):
    frames, whole, parts = (tmp_path / f"{name}.extxyz" for name in ("h2", "whole", "parts"))
    write_extxyz(frames, [dimer("H", distance) for distance in (0.74, 2.0, 0.8)])
    command = ["label", "shielding", str(frames), "--threads", "1", "--out"]
    assert main([*command, str(whole)]) == 0
    assert "2 frames in" in capsys.readouterr().out
    first = whole.read_text().splitlines(keepends=True)[:4]
    parts.write_text("".join(first)[:-5])
    (tmp_path / "parts.extxyz.settings.json").write_text((tmp_path / "whole.extxyz.settings.json").read_text())
    assert main([*command, str(parts)]) == 0
    assert parts.read_bytes() == whole.read_bytes()
    (aside,) = ase.io.read(tmp_path / "parts.set_aside.extxyz", ":")
    assert aside.info["s2"] > 0.5 and "<S^2>" in aside.info["set_aside"]
    assert main([*command, str(parts), "--grid", "2"]) == 2
    assert "grid = 1, not 2" in capsys.readouterr().err


@needs_pyscf
def test_stability_of_files(tmp_path, capsys):
    frames, out = tmp_path / "na.extxyz", tmp_path / "stable.extxyz"
    square = Atoms("Na4", 3.6 * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]))
    write_extxyz(frames, [dimer("Na", 3.1), square, dimer("Na", 6.0)])
    command = ["label", "prescreen", str(frames), "--min-gap", "0.1", "--threads", "1", "--out", str(out)]
    assert main(command) == 0
    assert "1 frame in" in (told := capsys.readouterr()).out and "2 rejected" in told.out
    (kept,) = ase.io.read(out, ":")
    assert kept.info["tight_binding_gap"] > 0.1 and kept.info["valence_lambda_triplet"] > 0
    flat, stretched = ase.io.read(tmp_path / "stable.set_aside.extxyz", ":")
    assert flat.info["set_aside"] == "the tight-binding gap is 0.000, below 0.1"
    assert "valence_lambda_triplet" not in flat.info
    assert "triplet-unstable" in stretched.info["set_aside"] and stretched.info["valence_lambda_triplet"] < -0.04
    assert main(command) == 0 and "3 of 3 frames are done" in capsys.readouterr().err
    write_extxyz(frames, [dimer("Na", 6.0)])
    assert main([*command[:-1], str(tmp_path / "none.extxyz")]) == 0
    assert "none.extxyz is not written; 1 rejected in" in capsys.readouterr().out
    assert main([*command, "--charge", "2"]) == 2
    assert "no electron is left outside the cores (Na2, charge 2)" in capsys.readouterr().err
    write_extxyz(frames, [dimer("K", 4.0)])
    assert main(command) == 2 and "for Na alone, not for K" in capsys.readouterr().err


@needs_pyscf
def test_an_odd_frame_stops_before_anything_is_computed(tmp_path, capsys):
    frames = tmp_path / "na.extxyz"
    write_extxyz(frames, [dimer("H", 0.74), Atoms("H3", [[0, 0, 0], [0, 0, 0.8], [0, 0.8, 0]])])
    out = tmp_path / "out.extxyz"
    assert main(["label", "shielding", str(frames), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "na.extxyz, frame 1: 3 electrons (H3, charge 0)" in line and not out.exists()
    assert main(["label", "shielding", str(frames), "--on-bad", "skip", "--out", str(out)]) == 0
    assert "1 frame in" in (told := capsys.readouterr()).out and "frame 1: 3 electrons" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["label", "colour"], "shielding, prescreen, energy"),
        (["label", "energy", "x.extxyz", "--calculator", "vasp", "--out", "o.extxyz"], "no calculator 'vasp'"),
        (["label", "energy", "x.extxyz", "--calculator", "emt", "--out", "o.extxyz", "--workers", "0"], "--workers"),
        (
            ["label", "energy", "x.extxyz", "--calculator", "emt", "--out", "o.extxyz", "--shard", "3/2"],
            "shards are 1/2 to 2/2",
        ),
        (
            ["label", "energy", "x.extxyz", "--calculator", "emt", "--out", "o.extxyz", "--address", "head:6379"],
            "requires --engine ray",
        ),
        (["label", "energy", "none.xyz", "--calculator", "emt", "--out", "o.extxyz"], "no such file"),
    ],
)
def test_bad_arguments_are_one_line(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_extxyz("x.extxyz", [dimer("Cu", 2.3)])
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line


def test_another_file_is_not_added_to(frames, tmp_path):
    out = tmp_path / "other.extxyz"
    (tmp_path / "other.extxyz.settings.json").write_text("{}")
    write_extxyz(out, [dimer("Ar", 3.0)])
    with pytest.raises(InputError, match="label_key"):
        LabelFiles(out, {})


def test_names_of_frames(tmp_path):
    clusters = [dimer("Ar", 3.0), dimer("Ar", 3.0000001), dimer("Ar", 3.001), dimer("Kr", 3.0), dimer("Ar", 3.0)]
    clusters[4].info["charge"] = 2
    keys = list(frame_keys(clusters))
    assert len(set(keys)) == 5 and keys[1] == f"{keys[0]}-2" and keys[3].startswith("Kr2-")
    files = LabelFiles(tmp_path / "out.extxyz", {})
    for key, atoms in zip(keys, clusters, strict=True):
        files.add(key, LabelResult(atoms, None, ""), 0.0)
    assert list(LabelFiles(tmp_path / "out.extxyz", {}).done) == keys


def test_options_have_the_defaults_of_the_labellers():
    options = LabelShieldingOptions(frames=["na.extxyz"], out="out.extxyz")
    level = ShieldingLevel()
    for name in ("grid", "scf_tolerance", "response_tolerance"):
        assert getattr(options, name) == getattr(level, name)
    prescreen = LabelPrescreenOptions(frames=["na.extxyz"], out="out.extxyz")
    assert (prescreen.min_gap, prescreen.least) == (StabilityLabeller.min_gap, StabilityLabeller.least)

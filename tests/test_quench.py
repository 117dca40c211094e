"""Sampling local minima: potential, quench, moves, search, and the growing file."""

import os
import signal
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from ase.optimize import BFGS
from helpers import in_child, refused
from scipy.spatial.distance import pdist

from pyg_clusters.cli import main
from pyg_clusters.composition import all_compositions, parse_formula
from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.frames import FrameLog, write_extxyz
from pyg_clusters.labels import EnergyLabeller
from pyg_clusters.structures import (
    ClusterEMT,
    QuenchSettings,
    isolated_energies,
    local_minimum,
    named_calculator,
    quench,
)
from pyg_clusters.structures.quench import (
    SAME_DISTANCES,
    _is_sound,
    displaced,
    heated,
    random_compact,
    relocated,
    swapped,
)
from pyg_clusters.structures.superposition import distances_by_elements

ARGON_BOND = 2 * covalent_radii[18]
CU10 = Atoms("Cu6Au4").numbers
SHORT = QuenchSettings(md_steps=20, per_segment=2)


class PairPotential(Calculator):
    """Lennard-Jones potential in units of the well depth, with bonds of twice the covalent radius of argon."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        apart = self.atoms.positions[:, None] - self.atoms.positions
        square = (apart**2).sum(axis=-1)
        np.fill_diagonal(square, np.inf)
        sixth = (ARGON_BOND**2 / square) ** 3
        self.results["energy"] = 0.5 * (sixth**2 - 2 * sixth).sum()
        self.results["forces"] = (12 * ((sixth**2 - sixth) / square)[..., None] * apart).sum(axis=1)


# Potential and quench


@pytest.mark.parametrize("symbols", ["Cu", "CuAu", "Cu12Au8", "Al3Ni4Cu5Pd6Ag7Pt8Au9"])
def test_cluster_emt_is_that_of_ase(symbols):
    cluster = random_compact(Atoms(symbols).numbers, np.random.default_rng(0))
    if len(cluster) > 2:
        cluster.positions[0] += 40.0  # alone
    found = []
    for calculator in (EMT(), ClusterEMT()):
        cluster.calc = calculator
        found.append((cluster.get_potential_energy(), cluster.get_potential_energies(), cluster.get_forces()))
        cluster.calc = None
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_cluster_emt_is_for_clusters():
    crystal = Atoms("Cu", cell=[3, 3, 3], pbc=True, calculator=ClusterEMT())
    with pytest.raises(InputError, match="isolated"):
        crystal.get_potential_energy()


def test_quench_to_the_minimum_that_ase_finds():
    cluster = Icosahedron("Cu", 3)
    cluster.rattle(0.15, seed=0)
    before = cluster.positions.copy()
    found = local_minimum(cluster, ClusterEMT(), fmax=1e-3)
    np.testing.assert_array_equal(cluster.positions, before)
    cluster.calc = EMT()
    BFGS(cluster, logfile=None).run(fmax=1e-3)
    assert found.converged and found.fmax <= 1e-3
    assert found.energy == pytest.approx(cluster.get_potential_energy(), abs=1e-4)


def test_quench_does_not_depend_on_the_past_of_the_calculator():
    cluster = random_compact(CU10, np.random.default_rng(0))
    calculator = EMT()
    first = local_minimum(cluster, calculator)
    local_minimum(random_compact(CU10, np.random.default_rng(1)), calculator)
    again = local_minimum(cluster, calculator)
    np.testing.assert_array_equal(first.atoms.positions, again.atoms.positions)
    assert first.energy == again.energy


def test_a_cluster_cut_by_its_cell_is_joined():
    free = Icosahedron("Cu", 2)
    free.center(vacuum=8.0)
    cut = free.copy()
    cut.pbc = True
    cut.positions += cut.cell.lengths() / 2
    cut.wrap()
    expected = local_minimum(free, ClusterEMT()).energy
    assert local_minimum(cut, ClusterEMT()).energy == pytest.approx(expected)
    labelled = EnergyLabeller("emt")(cut).atoms
    bare = Atoms(labelled.numbers, labelled.positions, calculator=ClusterEMT())
    assert labelled.get_potential_energy() == pytest.approx(bare.get_potential_energy())
    apart = Atoms("Cu4", [[0, 0, 0], [2.4, 0, 0], [9, 0, 0], [11.4, 0, 0]], cell=[30, 30, 30], pbc=True)
    with pytest.raises(InputError, match="2 pieces of 2 and 2 atoms"):
        local_minimum(apart, ClusterEMT())


def test_a_cluster_that_breaks_is_no_minimum(tmp_path, capsys):
    """Two stretched tetrahedra of copper contract beyond the reach of their attraction."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 3.2 / np.sqrt(8)
    pair = Atoms("Cu8", [*corners, *(corners + np.array([3.2 / np.sqrt(2) + 4.0, 0, 0]))])
    calculator = LennardJones(sigma=2.2, epsilon=0.4, rc=4.0, smooth=True)
    found = local_minimum(pair, calculator, fmax=0.01)
    assert found.fmax <= 0.01 and not found.converged
    assert "it broke into 2 pieces of 4 and 4 atoms" in (found.left_range or "")
    write_extxyz(tmp_path / "cu.extxyz", [pair])
    command = ["relax", str(tmp_path / "cu.extxyz"), "--calculator", "gupta", "--fmax", "0.05"]
    assert main([*command, "--out", str(tmp_path / "relaxed.extxyz")]) == 0
    assert "1 frame in" in (out := capsys.readouterr().out) and "1 of them not converged" in out
    assert "broke into pieces: their energies are not meaningful (the reasons are in left_range)" in out
    pair.positions[4:, 0] += 10.0  # in pieces from the start
    assert local_minimum(pair, calculator, fmax=0.01).converged


def test_quench_that_is_stopped_says_so():
    cluster = random_compact(CU10, np.random.default_rng(0))
    stopped = local_minimum(cluster, ClusterEMT(), max_steps=5)
    assert not stopped.converged and stopped.steps == 5 and stopped.fmax > 0.01
    overlapping = local_minimum(Atoms("Cu2", np.zeros((2, 3))), LennardJones())
    assert not overlapping.converged


# Moves


@pytest.mark.parametrize("seed", range(5))
def test_moves_keep_the_atoms(seed):
    rng = np.random.default_rng(seed)
    start = random_compact(CU10, rng)
    assert pdist(start.positions).min() > 1.9
    minimum = local_minimum(start, ClusterEMT()).atoms
    hot = heated(minimum, ClusterEMT(), rng, temperature=1000, steps=20, timestep=4.0)
    for moved in (displaced(minimum, rng), relocated(minimum, rng), swapped(minimum, rng), hot):
        np.testing.assert_array_equal(moved.numbers, start.numbers)
        assert np.abs(moved.positions - minimum.positions).max() > 0.05


def test_swapped_atoms_are_of_two_elements_at_the_same_positions():
    minimum = random_compact(CU10, np.random.default_rng(0))
    moved = swapped(minimum, np.random.default_rng(1))
    places = {tuple(place) for place in minimum.positions}
    assert {tuple(place) for place in moved.positions} == places
    changed = (moved.positions != minimum.positions).any(axis=1)
    assert (moved.numbers[changed] == 29).sum() == (moved.numbers[changed] == 79).sum() > 0


def test_relocated_atom_touches_the_others():
    cluster = Icosahedron("Cu", 2, latticeconstant=3.7)
    moved = relocated(cluster, np.random.default_rng(0))
    [atom] = np.flatnonzero(np.linalg.norm(moved.positions - (cluster.positions - cluster.positions.mean(0)), axis=1))
    others = np.delete(moved.positions, atom, axis=0)
    nearest = np.linalg.norm(others - moved.positions[atom], axis=1).min()
    assert nearest == pytest.approx(2 * covalent_radii[29])


def test_sound_clusters():
    assert _is_sound(Icosahedron("Cu", 2, latticeconstant=3.7))
    far, near = Icosahedron("Cu", 2, latticeconstant=3.7), Icosahedron("Cu", 2, latticeconstant=3.7)
    far.positions[1] *= 3
    near.positions[1] = near.positions[2] + [1.0, 0, 0]
    assert not _is_sound(far) and not _is_sound(near)


def test_arrangements_of_elements_are_distinct_minima_and_mirror_images_are_not():
    cluster = random_compact(CU10, np.random.default_rng(0))
    other = swapped(cluster, np.random.default_rng(0))
    here, there = distances_by_elements(cluster), distances_by_elements(other)
    np.testing.assert_allclose(np.sort(here), np.sort(there))
    assert np.sqrt(np.mean((here - there) ** 2)) > SAME_DISTANCES
    mirrored = Atoms(cluster.numbers, cluster.positions * [1, 1, -1])
    np.testing.assert_allclose(distances_by_elements(mirrored), here)


# Search


def test_the_four_minima_of_seven_lennard_jones_atoms(monkeypatch):
    """There are exactly four minima (Hoare, Pal, Adv. Phys. 1971, 20, 161); the search ends by itself."""
    monkeypatch.setattr(sys.modules[quench.__module__], "BARREN", 6)
    settings = QuenchSettings(per_segment=1, temperature=3000.0, md_steps=20)
    found = list(quench([{"Ar": 7}], PairPotential(), 100, settings=settings))
    energies = sorted(atoms.info["energy"] for atoms in found)
    np.testing.assert_allclose(energies, [-16.50538, -15.93504, -15.59321, -15.53306], atol=1e-4)


def test_the_icosahedron_of_thirteen_copper_atoms():
    """The global minimum is among the first minima."""
    icosahedron = pytest.approx(local_minimum(Icosahedron("Cu", 2), ClusterEMT()).energy, abs=1e-3)
    assert any(atoms.info["energy"] == icosahedron for atoms in quench([{"Cu": 13}], ClusterEMT(), 20))


def test_frames_say_what_they_are():
    calculator = ClusterEMT()
    isolated = isolated_energies(calculator, ["Cu", "Au"])
    found = list(
        quench([{"Cu": 6, "Au": 4}, {"Cu": 9}], calculator, 14, settings=QuenchSettings(md_steps=20), isolated=isolated)
    )
    assert {atoms.get_chemical_formula() for atoms in found} == {"Au4Cu6", "Cu9"}
    assert found[0].info["source"] == "random" and {"swap", "relocation"} <= {atoms.info["source"] for atoms in found}
    for atoms in found:
        info = atoms.info
        assert info["group"] in (f"Au4Cu6-{info['segment']}", f"Cu9-{info['segment']}")
        copy = Atoms(atoms.numbers, atoms.positions, calculator=EMT())
        assert copy.get_potential_energy() == pytest.approx(info["energy"], abs=1e-9)
        assert np.linalg.norm(copy.get_forces(), axis=1).max() <= 0.01 + 1e-6
        apart = Atoms(atoms.numbers, 100.0 * np.arange(len(atoms))[:, None] * [1, 0, 0], calculator=EMT())
        binding = info["energy"] - apart.get_potential_energy()
        assert info["binding_energy"] == pytest.approx(binding) and binding < -2 * len(atoms)
    for number, atoms in enumerate(found):
        for other in found[:number]:
            if len(other) == len(atoms):
                apart = np.sqrt(np.mean((distances_by_elements(atoms) - distances_by_elements(other)) ** 2))
                assert abs(atoms.info["energy"] - other.info["energy"]) > 0.005 or apart > SAME_DISTANCES


def test_a_composition_in_two_orders_has_the_same_minima():
    """The trimer is a triangle or a chain."""
    found = list(quench([{"Cu": 2, "Au": 1}, {"Au": 1, "Cu": 2}], ClusterEMT(), 3, settings=SHORT))
    assert sorted(round(atoms.get_all_distances().max(), 1) for atoms in found) == [2.4, 4.4]


def test_a_search_resumes_from_its_file(tmp_path):
    compositions, count = all_compositions(["Cu", "Au"], [7, 8]), 6
    whole = FrameLog(tmp_path / "whole.extxyz", {})
    for atoms in quench(compositions, ClusterEMT(), count, settings=SHORT):
        whole.append(atoms)
    for stop in (1, 2, 3):  # in the first segment, at its end, and in the second
        for number in (stop, count):
            log = FrameLog(tmp_path / f"until_{stop}.extxyz", {})
            for atoms in quench(compositions, ClusterEMT(), number, settings=SHORT, known=log.frames):
                log.append(atoms)
        assert (tmp_path / f"until_{stop}.extxyz").read_bytes() == (tmp_path / "whole.extxyz").read_bytes(), stop


class Failing(ClusterEMT):
    """Calculator that fails for some clusters."""

    error: type[Exception] = CalculationFailed

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        if self.results["energy"] > 12:
            raise self.error("not converged")


@pytest.mark.parametrize("error", [CalculationFailed, RuntimeError])
def test_a_calculator_that_fails_costs_only_one_attempt(error, monkeypatch):
    monkeypatch.setattr(Failing, "error", error)
    assert len(list(quench([{"Cu": 6, "Au": 4}], Failing(), 4))) == 4


def test_impossible_searches():
    for compositions in ([], [{"Cu": 1}]):
        with pytest.raises(InputError, match="two atoms"):
            next(quench(compositions, ClusterEMT(), 1))
    with pytest.raises(InputError, match="fmax"):
        QuenchSettings(fmax=0.0)
    with pytest.raises(InputError, match="seed"):
        QuenchSettings(seed=-1)


def test_compositions():
    assert parse_formula("Cu13Au7") == {"Cu": 13, "Au": 7}
    assert len(all_compositions(["Cu", "Au"], range(20, 61))) == sum(n + 1 for n in range(20, 61)) == 1681
    assert all_compositions(["Cu", "Au"], [3], mixed=True) == [{"Cu": 1, "Au": 2}, {"Cu": 2, "Au": 1}]
    assert len(all_compositions(["Cu", "Ag", "Au"], [5])) == 21
    for wrong in ("", "Cu13Xx", "13", "Cu-3", "cu"):
        with pytest.raises(InputError, match="formula"):
            parse_formula(wrong)
    with pytest.raises(InputError, match="'Xx'"):
        all_compositions(["Xx"], [3])
    with pytest.raises(InputError, match="repeated"):
        all_compositions(["Cu", "Cu"], [3])
    with pytest.raises(InputError, match="larger"):
        all_compositions(["Cu", "Au"], [1], mixed=True)


def test_calculators_by_name():
    assert isinstance(named_calculator("emt", ["Cu", "Au"]), ClusterEMT)
    assert isinstance(named_calculator("ase.calculators.lj:LennardJones", ["Ar"]), LennardJones)
    for name, elements, told in (
        ("emt", ["Na"], "not Na"),
        ("emt", ["Cu", "O"], "supports only Al, Cu, Ag, Au, Ni, Pd, Pt, not O"),
        ("gupta", ["Cu", "Au"], "one element"),
        ("gupta", ["Ga"], "not Ga"),
        ("vasp", ["Cu"], "gupta, emt"),
        ("no.module:Class", ["Cu"], "cannot be created"),
        ("ase.calculators.lj:Nothing", ["Cu"], "cannot be created"),
        ("collections:OrderedDict", ["Cu"], "not an ASE calculator"),
    ):
        with pytest.raises(InputError, match=told):
            named_calculator(name, elements)


def test_without_tblite_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(MissingExtra, match="tblite"):
        named_calculator("tblite", ["Cu"])


# Growing file


def test_log_recovers_complete_frames_and_removes_the_rest(tmp_path):
    path = tmp_path / "frames.extxyz"
    frames = [Atoms("CuAu", np.random.default_rng(n).normal(size=(2, 3)), info={"name": f"ü{n}"}) for n in range(3)]
    log = FrameLog(path, {"seed": 0})
    for atoms in frames:
        log.append(atoms)
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 3, 7):
        path.write_bytes(whole[:-cut])
        log = FrameLog(path, {"seed": 0})
        assert [atoms.info["name"] for atoms in log.frames] == ["ü0", "ü1"]
        log.append(frames[2])
        assert path.read_bytes() == whole


def test_log_refuses_another_file(tmp_path):
    path = tmp_path / "frames.extxyz"
    FrameLog(path, {"seed": 0, "count": 3}).append(Atoms("Cu"))
    with pytest.raises(InputError, match=r"seed = 0, not 1"):
        FrameLog(path, {"seed": 1, "count": 3})
    assert len(FrameLog(path, {"seed": 0, "count": 4}, free=["count"]).frames) == 1
    assert len(FrameLog(path, {"seed": 1, "count": 4}, overwrite=True).frames) == 0
    other = tmp_path / "other.xyz"
    other.write_text("1\n\nCu 0 0 0\n")
    with pytest.raises(InputError, match="overwrite"):
        FrameLog(other, {})
    for name in ("frames.extxyz.xz", "frames.txt"):
        with pytest.raises(InputError, match="extxyz"):
            FrameLog(tmp_path / name, {})
    path.write_text("1\nProperties=species:S:1:pos:R:3\nCu 0 0 0\nnothing\nof ours\n")
    with pytest.raises(InputError, match="frame 1"):
        FrameLog(path, {"seed": 1, "count": 4})


# Command


def search(out, *more: str) -> list[str]:
    arguments = ["generate", "quench", "--elements", "Cu", "Au", "--sizes", "7:8", "--calculator", "emt"]
    return [*arguments, "--count", "8", "--md-steps", "20", "--per-segment", "2", "--out", str(out), *more]


@pytest.fixture(scope="module")
def minima(tmp_path_factory) -> Path:
    """Minima of an uninterrupted search."""
    out = tmp_path_factory.mktemp("minima") / "minima.extxyz"
    assert main(search(out)) == 0
    return out


def test_search_reports_its_progress(minima, tmp_path, capsys):
    assert main(search(tmp_path / "minima.extxyz", "--count", "3")) == 0
    output = capsys.readouterr()
    found = {atoms.get_chemical_formula() for atoms in ase.io.read(tmp_path / "minima.extxyz", ":")}
    assert f"3 minima of {len(found)} of 17 compositions" in output.out
    assert "3/3 " in output.err  # a line for each
    assert minima.read_bytes().startswith((tmp_path / "minima.extxyz").read_bytes())


def test_killed_search_ends_in_the_same_file(minima, tmp_path, capsys):
    killed = tmp_path / "killed.extxyz"
    child = in_child(lambda: main(search(killed)))
    while not killed.exists() or killed.read_bytes().count(b"Properties") < 4:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert main(search(killed)) == 0
    assert "resuming" in capsys.readouterr().err
    assert killed.read_bytes() == minima.read_bytes()
    assert main(search(killed)) == 0  # already done
    assert killed.read_bytes() == minima.read_bytes()


def test_search_of_formulas(tmp_path, capsys):
    out = tmp_path / "minima.extxyz"
    arguments = ["generate", "quench", "--formula", "Na8", "--calculator", "gupta", "--count", "3", "--fmax", "0.003"]
    assert main([*arguments, "--out", str(out)]) == 0
    frames = ase.io.read(out, ":")
    assert len(frames) == 3 and all(atoms.get_chemical_formula() == "Na8" for atoms in frames)
    assert all(atoms.info["fmax"] <= 0.003 and atoms.info["binding_energy"] < -4 for atoms in frames)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--formula", "Cu3"], "either"),
        (["--calculator", "gupta"], "one element"),
        (["--calculator", "emd"], "'emd'"),
        (["--elements", "Cu", "Na"], "not Na"),
        (["--sizes", "1"], "one atom"),
        (["--sizes", "a"], "--sizes"),
        (["--count", "0"], "--count"),
        (["--fmax", "-1"], "fmax"),
        (["--out", "minima.extxyz.xz"], ".extxyz"),
    ],
)
def test_search_refuses(changed, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in refused([*search("minima.extxyz"), *changed], capsys)
    assert not list(tmp_path.iterdir())


def test_search_refuses_another_seed_in_the_same_file(tmp_path, capsys):
    out = tmp_path / "minima.extxyz"
    assert main(search(out, "--count", "2")) == 0
    capsys.readouterr()
    assert "seed = 0, not 1" in refused(search(out, "--seed", "1"), capsys)
    assert main(search(out, "--seed", "1", "--count", "2", "--overwrite")) == 0


def test_hot_frames_have_the_forces_of_their_positions_and_the_group_of_their_minimum(minima, tmp_path):
    command = [
        "generate",
        "hot",
        str(minima),
        "--calculator",
        "emt",
        "--min-temperature",
        "600",
        "--max-temperature",
        "900",
    ]
    assert main([*command, "--count", "5", "--out", str(tmp_path / "hot.extxyz")]) == 0
    starts, frames = ase.io.read(minima, ":"), ase.io.read(tmp_path / "hot.extxyz", ":")
    isolated = isolated_energies(ClusterEMT(), ["Au", "Cu"])
    for atoms in frames:
        start = starts[atoms.info["minimum"]]
        assert atoms.info["group"] == start.info["group"] and (atoms.numbers == start.numbers).all()
        assert 600 <= atoms.info["temperature"] <= 900
        bare = Atoms(atoms.numbers, atoms.positions, calculator=ClusterEMT())
        assert np.allclose(atoms.get_forces(), bare.get_forces(), atol=1e-7)
        atoms_alone = sum(isolated[symbol] for symbol in atoms.get_chemical_symbols())
        assert atoms.info["binding_energy"] == pytest.approx(bare.get_potential_energy() - atoms_alone)
        assert bare.get_potential_energy() > start.get_potential_energy() + 0.1
    assert len({atoms.info["minimum"] for atoms in frames}) == 5
    # Resumed, a longer run begins with the frames of the shorter one.
    assert main([*command, "--count", "7", "--out", str(tmp_path / "hot.extxyz")]) == 0
    assert main([*command, "--count", "7", "--out", str(tmp_path / "at_once.extxyz")]) == 0
    assert (tmp_path / "hot.extxyz").read_bytes() == (tmp_path / "at_once.extxyz").read_bytes()


def test_dynamics_that_diverge_give_no_frame(tmp_path, capsys):
    """A step of 1 ps moves an atom through the others."""
    write_extxyz(tmp_path / "na.extxyz", [Icosahedron("Na", 2, latticeconstant=5.2)])
    command = ["generate", "hot", str(tmp_path / "na.extxyz"), "--calculator", "gupta", "--timestep", "1000"]
    assert main([*command, "--count", "1", "--out", str(tmp_path / "hot.extxyz")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/na.extxyz, frame 0: molecular dynamics at 1064 K failed" in error
    assert "decrease --timestep (now 1000 fs)" in error and not (tmp_path / "hot.extxyz").exists()


class Never(ClusterEMT):
    """Calculator of isolated atoms only."""

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        if len(self.atoms) > 1:
            raise CalculationFailed("no licence")


def test_a_search_that_finds_nothing_raises_an_error(tmp_path, capsys):
    command = ["generate", "quench", "--formula", "Cu4", "--calculator", f"{__name__}:Never", "--count", "1"]
    assert "no minimum was found: the calculator failed" in refused([*command, "--out", tmp_path / "q.xyz"], capsys)
    assert not (tmp_path / "q.xyz").exists()


class Moody(ClusterEMT):
    """Calculator that fails for the rounded positions of frames, or has no energy of them."""

    results_of_rounded = np.nan

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        pos = self.atoms.positions
        if len(pos) > 1 and np.allclose(pos, pos.round(4), atol=1e-12):
            if self.results_of_rounded is None:
                raise RuntimeError("the field does not\nconverge")
            self.results["energy"] = self.results_of_rounded


@pytest.mark.parametrize(("energy", "reason"), [(np.nan, "is not finite"), (None, "the field does not converge")])
def test_a_hot_frame_without_an_energy_is_not_written(energy, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Moody, "results_of_rounded", energy)
    write_extxyz(tmp_path / "cu.extxyz", [Atoms("Cu3", [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0]])])
    command = ["generate", "hot", tmp_path / "cu.extxyz", "--calculator", f"{__name__}:Moody", "--count", "1"]
    assert reason in refused([*command, "--out", tmp_path / "hot.extxyz"], capsys)
    assert not (tmp_path / "hot.extxyz").exists()


def test_hot_frames_refuse_more_than_there_are_clusters(minima, tmp_path, capsys):
    command = ["generate", "hot", str(minima), "--calculator", "emt", "--out", str(tmp_path / "hot.extxyz")]
    assert main([*command, "--count", "9"]) == 2
    assert "8 clusters to start from" in capsys.readouterr().err
    assert main([*command, "--min-temperature", "1600"]) == 2
    assert "at most --max-temperature, got 1600" in capsys.readouterr().err


def test_frames_from_which_no_dynamics_can_start_are_listed(tmp_path, capsys):
    dimers = [Atoms(symbols, [[0, 0, 0], [0, 0, 2.5]]) for symbols in ("Cu2", "CuNa")]
    write_extxyz(tmp_path / "cu.extxyz", dimers)
    command = ["generate", "hot", tmp_path / "cu.extxyz", "--on-bad", "skip", "--out", tmp_path / "hot.extxyz"]
    line = refused([*command, "--calculator", "vasp"], capsys)
    assert "there is no calculator 'vasp'" in line and "frame" not in line
    assert main([*map(str, command), "--calculator", "emt", "--count", "1"]) == 0
    assert "frame 1: atom 1 is Na" in capsys.readouterr().err
    write_extxyz(tmp_path / "cu.extxyz", dimers[1:])
    line = refused([*command, "--calculator", "emt", "--overwrite"], capsys)
    assert "can be used; the first: " in line and "frame 0: atom 1 is Na" in line


def test_generated_clusters_have_a_state_and_hot_ones_that_of_their_start(tmp_path):
    """A calculator with charge and spin needs the spin of odd electrons, and the charge of an ion is kept."""
    pytest.importorskip("tblite", reason="needs the extra tblite")
    found, hot, start = (str(tmp_path / name) for name in ("found.extxyz", "hot.extxyz", "start.extxyz"))
    search = ["generate", "quench", "--formula", "Na3", "Na4", "--per-segment", "1", "--count", "2"]
    assert main([*search, "--calculator", "tblite", "--out", found]) == 0
    assert {len(atoms): atoms.info["multiplicity"] for atoms in ase.io.read(found, ":")} == {3: 2, 4: 1}
    cation = Atoms("Na3", [[0, 0, 0], [3.4, 0, 0], [1.7, 2.9, 0]], info={"charge": 1})
    write_extxyz(start, [cation])
    run = ["--min-steps", "2", "--max-steps", "2", "--count", "1", "--out", hot]
    assert main(["generate", "hot", start, "--calculator", "tblite", *run]) == 0
    (frame,) = ase.io.read(hot, ":")
    calculator = named_calculator("tblite", ["Na"])
    energy = calculator.get_potential_energy(Atoms("Na3", frame.positions))
    calculator.set(charge=1)
    assert frame.info["charge"] == 1
    assert frame.get_potential_energy() == pytest.approx(calculator.get_potential_energy(frame), abs=1e-5)
    assert frame.get_potential_energy() > energy + 3.0

"""Clusters cut by the faces of a periodic cell are joined; crystals and structures in pieces are refused."""

import warnings

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron
from ase.io import read, write
from ase.units import Bohr

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, OnDiskClusters
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, join_atoms, read_atoms, read_blocks, to_data, write_extxyz, write_store
from pyg_clusters.frames.join import join_frames
from pyg_clusters.inference import Predictor
from pyg_clusters.models import load_model
from pyg_clusters.structures import ModelCalculator

JOINED = r"joined \d+ of \d+ frames across the faces of their cells"
OBLIQUE = [[24.0, 0.0, 0.0], [9.0, 22.0, 0.0], [-5.0, 6.0, 23.0]]
CELLS = {
    "cube": ([22.0, 22.0, 22.0], (True, True, True)),
    "box": ([21.0, 25.0, 33.0], (True, True, True)),
    "oblique": (OBLIQUE, (True, True, True)),
    "left-handed": (OBLIQUE[::-1], (True, True, True)),
    "skewed by ten cells": ([[22.0, 0.0, 0.0], [220.0, 22.0, 0.0], [-66.0, 150.0, 23.0]], (True, True, True)),
    "two directions": (OBLIQUE, (True, False, True)),
    "one direction": (OBLIQUE, (False, False, True)),
    "two vectors": ([[22.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 24.0]], (True, False, True)),
    "two vectors, all periodic": ([[22.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 24.0]], (True, True, True)),
    "one vector": ([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 22.0]], (True, True, True)),
}


def gallium() -> Atoms:
    """Perturbed Ga13."""
    cluster = Icosahedron("Ga", 2, latticeconstant=4.0)
    cluster.rattle(0.1, seed=1)
    return cluster


def torn(cluster: Atoms, cell, pbc, seed: int) -> Atoms:
    """The cluster somewhere in a cell, each atom moved by lattice vectors of its own."""
    rng = np.random.default_rng(seed)
    boxed = cluster.copy()
    boxed.set_cell(cell)
    boxed.pbc = pbc
    boxed.positions += rng.uniform(-30, 30, 3)
    by = rng.integers(-3, 4, (len(cluster), 3)) * (np.array(pbc) & boxed.cell.any(axis=1))
    boxed.positions += by @ boxed.cell.array
    return boxed


@pytest.mark.parametrize("name", CELLS)
def test_cluster_is_joined_in_any_cell(name):
    cluster = gallium()
    for seed in range(5):
        cut = torn(cluster, *CELLS[name], seed)
        joined = join_atoms(cut)
        np.testing.assert_allclose(joined.get_all_distances(), cluster.get_all_distances(), rtol=0, atol=1e-9)
        np.testing.assert_array_equal(joined.positions[0], cut.positions[0])  # the first atom stays
        moved = (joined.positions - cut.positions) @ np.linalg.pinv(cut.cell.array)
        np.testing.assert_allclose(moved, moved.round(), atol=1e-9)  # by lattice vectors only
        assert not joined.pbc.any() and cut.pbc.any()


def test_cluster_that_is_not_cut_does_not_move():
    cluster = gallium()
    cluster.set_cell(OBLIQUE)
    cluster.pbc = True
    cluster.positions += [-0.1, 7.3, 11.0]  # over a face, but in one piece
    np.testing.assert_array_equal(join_atoms(cluster).positions, cluster.positions)


def test_cluster_around_every_corner_of_a_small_cell():
    """A rod longer than its cell, along the diagonal, and an L without a slab of vacuum are found by their bonds."""
    rod = Atoms("Na9", [[3.2 * n, 0, 0] for n in range(9)])
    corner = Atoms("Na9", [[3.2 * n, 0, 0] for n in range(5)] + [[0, 3.2 * n, 0] for n in range(1, 5)])
    rod.rotate([1, 0, 0], [1, 1, 1])
    for cluster, cell in ((rod, [[20, 0, 0], [0, 20, 0], [0, 0, 20]]), (corner, [[18, 0, 0], [0, 18, 0], [0, 0, 9]])):
        for seed in range(5):
            joined = join_atoms(torn(cluster, cell, (True, True, True), seed))
            np.testing.assert_allclose(joined.get_all_distances(), cluster.get_all_distances(), atol=1e-9)


def boxed(cluster: Atoms, cell, pbc=True) -> Atoms:
    copy = cluster.copy()
    copy.set_cell(cell)
    copy.pbc = pbc
    return copy


def dimers(apart: float) -> Atoms:
    """Two dimers in a box of 30 Å, wrapped so that a face is between them."""
    pair = boxed(Atoms("Ga4", [[0, 0, 0], [2.5, 0, 0], [0, apart, 0], [2.5, apart, 0]]), [30, 30, 30])
    pair.positions += [10, 28, 10]
    pair.wrap()
    return pair


def slab() -> Atoms:
    """Three layers of silver; the vectors of the cell are chosen askew."""
    layers = fcc111("Ag", (2, 2, 3), a=4.1, vacuum=10)
    a, b, c = layers.cell.array
    return boxed(layers, [a + 3 * c, b, c])


def reason_of(atoms: Atoms, **kwargs) -> str | None:
    cell, pbc = atoms.cell.array[None], atoms.pbc[None]
    return join_frames(atoms.numbers, atoms.positions, np.array([0, len(atoms)]), cell, pbc, **kwargs).problems.get(0)


REFUSED = {
    "is connected to its own image along a, b and c: a crystal": bulk("Au", cubic=True),
    "is connected to its own image along [1 0 -3] and b: a slab": slab(),
    "is connected to its own image along c: a wire": boxed(
        Atoms("Ga4", [[0, 0, 2.7 * n] for n in range(4)]), [20, 20, 10.8]
    ),
    "is connected to its own image along [1 1 0]: a wire": boxed(
        Atoms("Ga", [[0, 0, 0]]), [[2, 9, 0], [0, -9, 0], [0, 0, 9]]
    ),
    "stays in 2 pieces of 2 and 2 atoms, 9.0 Å apart": dimers(9.0),
    "is only 4.5 Å from its periodic image, less than 5.0 Å": boxed(
        Atoms("Ga2", [[0, 0, 0], [2.5, 0, 0]]), [7, 20, 20]
    ),
    "has a periodic cell whose vectors are not independent": boxed(gallium(), [[20, 0, 0], [40, 0, 0], [0, 0, 20]]),
    "which is not finite": boxed(gallium(), [[20, 0, 0], [0, np.inf, 0], [0, 0, 20]]),
    "has an atom 1e+09 Å away from the origin": boxed(Atoms("Ga2", [[0, 0, 0], [1e9, 0, 0]]), [20, 20, 20]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_structures_that_are_not_isolated_clusters_are_refused(reason):
    found = reason_of(REFUSED[reason])
    assert found is not None and reason in found


def test_pieces_are_kept_at_their_nearest_images_on_request():
    pair = dimers(9.0)
    kept = join_atoms(pair, fragments="keep")
    assert kept.get_distance(0, 2) == pytest.approx(9.0) and pair.get_distance(0, 2) == pytest.approx(21.0)
    close = boxed(Atoms("Ga4", [[0, 0, 0], [2.5, 0, 0], [0, 4, 0], [2.5, 4, 0]]), [30, 8.2, 30])
    assert reason_of(close, fragments="keep") == (
        "is only 4.2 Å from its periodic image, less than 5.0 Å of vacuum: not a cluster"
    )
    assert "a crystal" in str(reason_of(bulk("Au", cubic=True), fragments="keep"))


def test_cell_that_is_not_periodic_is_left_alone_unless_it_would_join():
    cluster = boxed(gallium(), [7, 7, 7], pbc=False)
    assert reason_of(cluster) is None
    apart = boxed(dimers(9.0), [90, 90, 90], pbc=False)
    assert reason_of(apart) is None
    cut = torn(gallium(), [22, 22, 22], True, 0)
    cut.pbc = False
    assert "but would be one piece if joined along a, b and c, where pbc is F" in str(reason_of(cut))
    cut.pbc = (True, True, False)
    assert "but would be one piece if joined along c, where pbc is F" in str(reason_of(cut))
    assert reason_of(cut, fragments="keep") is None


@pytest.fixture
def frames(tmp_path) -> tuple[list[Atoms], list[Atoms]]:
    """Free gallium clusters, and the same cut by the faces of a box, with energy and forces."""
    free, cut = [], []
    for seed in range(6):
        cluster = Icosahedron("Ga", 3, latticeconstant=4.0)[:40]
        cluster.rattle(0.1, seed=seed)
        cluster.calc = SinglePointCalculator(cluster, energy=float(seed), forces=cluster.positions.copy())
        free.append(cluster)
        cut.append(torn(cluster, *CELLS["oblique"], seed))
        cut[-1].calc = SinglePointCalculator(cut[-1], energy=float(seed), forces=cluster.positions.copy())
    return free, cut


@pytest.mark.parametrize("name", ["a.extxyz", "a.extxyz.gz", "a.traj", "XDATCAR", "a.h5"])
def test_predictions_are_those_of_the_free_clusters(frames, tmp_path, name):
    free, cut = frames
    path = tmp_path / name
    if name == "a.h5":
        write_extxyz(tmp_path / "a.extxyz", cut)
        with pytest.warns(UserWarning, match="joined 6 of 6 frames"):
            write_store(path, Frames.open(tmp_path / "a.extxyz"))
    elif "extxyz" in name:
        write_extxyz(path, cut)
    else:
        write(path, cut, format="vasp-xdatcar" if name == "XDATCAR" else None)
    predictor = Predictor(load_model("gallium-forces").double())
    expected = predictor(free).energy
    files = Frames.open(path)
    if name == "a.h5":
        found = predictor(files).energy
    else:
        with pytest.warns(UserWarning, match="joined 6 of 6 frames across the faces of their cells"):
            found = predictor(files).energy
    digits = {"a.traj": 1e-9, "XDATCAR": 1e-5}.get(name, 1e-7)  # texts hold eight decimals, of Å or of the cell
    np.testing.assert_allclose(found, expected, rtol=0, atol=digits)
    with pytest.warns(UserWarning, match=JOINED):
        np.testing.assert_allclose(predictor(cut).energy, expected, rtol=0, atol=1e-9)


def write_outcar(path, frames: list[Atoms]):
    """The parts of a VASP output that state elements, cell, positions and energy."""
    elements = list(dict.fromkeys(frames[0].get_chemical_symbols()))
    counts = [str(frames[0].get_chemical_symbols().count(element)) for element in elements]
    lines = [" vasp.6.3.0", *(f" POTCAR:    PAW_PBE {element} 06Sep2000" for element in elements * 2)]
    lines += [f"   ions per type =  {' '.join(counts)}", f"   NIONS = {len(frames[0])}", "   ISPIN  =      1"]
    rule = " " + 83 * "-"
    for number, atoms in enumerate(frames, start=1):
        lines += [f"--------------------------------------- Iteration {number}(   1)  ----"]
        lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
        lines += ["".join(f" {x:12.8f}" for x in row) + "  0.0 0.0 0.0" for row in atoms.cell]
        lines += ["", " POSITION                                       TOTAL-FORCE (eV/Angst)", rule]
        lines += ["".join(f" {x:12.5f}" for x in row) + "  0.0 0.0 0.0" for row in atoms.positions]
        lines += [
            rule,
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
            rule,
            "  free  energy   TOTEN  =  -3.5 eV",
            "",
        ]
        lines += ["  energy  without entropy= -3.5  energy(sigma->0) = -3.5"]
    path.write_text("\n".join([*lines, " Voluntary context switches: 1", ""]))


def write_oblique_dump(path, frames: list[Atoms]):
    """A LAMMPS dump with a triclinic box and wrapped positions."""
    text = ""
    for atoms in frames:
        (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell
        bounds = (
            (min(0, xy, xz, xy + xz), lx + max(0, xy, xz, xy + xz), xy),
            (min(0, yz), ly + max(0, yz), xz),
            (0, lz, yz),
        )
        text += f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(atoms)}\nITEM: BOX BOUNDS xy xz yz pp pp pp\n"
        text += "".join(f"{low} {high} {tilt}\n" for low, high, tilt in bounds) + "ITEM: ATOMS id element x y z\n"
        rows = zip(atoms.symbols, atoms.positions, strict=True)
        text += "".join(
            f"{n} {symbol} {x:.6f} {y:.6f} {z:.6f}\n" for n, (symbol, (x, y, z)) in enumerate(rows, start=1)
        )
    path.write_text(text)


@pytest.mark.filterwarnings("ignore:joined")
@pytest.mark.parametrize("formula", ["Na13", "Au7Cu6", "Cs13", "Al2"])
@pytest.mark.parametrize("cell", ["cube", "oblique"])
def test_every_reader_gives_the_free_clusters(tmp_path, formula, cell):
    """Of other elements, bonds and numbers of atoms; by blocks, one by one and in a data set."""
    symbols = Atoms(formula).get_chemical_symbols()
    bond = {"Na": 3.7, "Au": 2.8, "Cs": 5.0, "Al": 2.7}[symbols[0]]
    free, cut = [], []
    for seed in range(3):
        shape = Icosahedron("Au", 2, latticeconstant=bond * 2**0.5).positions[: len(symbols)]
        cluster = Atoms(symbols, shape + np.random.default_rng(seed).normal(0, 0.05, shape.shape))
        free.append(cluster.get_all_distances())
        cut.append(torn(cluster, np.array(CELLS[cell][0]) * (np.eye(3) if cell == "cube" else 1.0) * 1.3, True, seed))
        cut[-1].wrap()
    write(tmp_path / "XDATCAR", cut, format="vasp-xdatcar")
    write(tmp_path / "POSCAR", cut[0], format="vasp")
    write(tmp_path / "a.traj", cut)
    write_outcar(tmp_path / "OUTCAR", cut)
    write_oblique_dump(tmp_path / "a.lammpstrj", cut)
    for file in sorted(tmp_path.iterdir()):
        blocks = list(read_blocks(file))
        in_blocks = [part for block in blocks for part in np.split(block.pos, block.ptr[1:-1])]
        sets = [in_blocks, [frame.atoms.positions for frame in read_atoms([file])]]
        if file.name == "OUTCAR":
            sets.append([data.pos.double().numpy() for data in ClusterDataset(tmp_path / "set", file)])
        for positions in sets:
            assert len(positions) == (1 if file.name == "POSCAR" else 3)
            for expected, pos in zip(free, positions, strict=False):
                np.testing.assert_allclose(Atoms(symbols, pos).get_all_distances(), expected, atol=5e-5)


def test_calculator_joins_and_leaves_the_atoms_where_they_are(frames):
    free, cut = frames
    calculator = ModelCalculator(load_model("gallium-forces").double())
    before = cut[0].positions.copy()
    for atoms in (free[0], cut[0]):
        atoms.calc = calculator
    assert cut[0].get_potential_energy() == pytest.approx(free[0].get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(cut[0].get_forces(), free[0].get_forces(), atol=1e-9)
    np.testing.assert_array_equal(cut[0].positions, before)


def test_frames_of_ase_are_joined_and_keep_all_else(frames, tmp_path):
    _, cut = frames
    cut[1].info["name"], cut[1].arrays["tag"] = "second", np.arange(40)
    write_extxyz(tmp_path / "a.extxyz", cut[:2])
    with pytest.warns(UserWarning, match="joined 2 of 2"):
        blocks = list(read_blocks(tmp_path / "a.extxyz", with_atoms=True))
    with pytest.warns(UserWarning, match="joined 2 of 2"):
        single = [frame.atoms for frame in read_atoms([tmp_path / "a.extxyz"])]
    assert blocks[0].atoms is not None
    for atoms in (blocks[0].atoms[1], single[1]):
        np.testing.assert_array_equal(atoms.positions, blocks[0].pos[40:])
        assert (
            not atoms.pbc.any() and atoms.info["name"] == "second" and atoms.arrays["tag"].tolist() == list(range(40))
        )
        np.testing.assert_allclose(atoms.cell.array, OBLIQUE)
        assert atoms.get_potential_energy() == 1.0  # the results belong to the new positions, too
        np.testing.assert_allclose(atoms.get_forces(), cut[1].calc.results["forces"], atol=1e-8)


def run(capsys, *arguments: str) -> str:
    """Standard error of a command."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(list(arguments)) == 0
    return capsys.readouterr().err


def test_store_states_that_its_frames_are_joined(frames, tmp_path, capsys):
    _, cut = frames
    write_extxyz(tmp_path / "a.extxyz", cut)
    assert "joined 6 of 6 frames" in run(capsys, "convert", str(tmp_path / "a.extxyz"), "--out", str(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["joined"] and file["pbc"][:].all()
        np.testing.assert_allclose(file["cell"][3], OBLIQUE)
    (block,) = Frames.open(tmp_path / "a.h5")  # without a word: they were joined when it was made
    assert block.periodic.all() and block.joined is not None and not block.joined.any()


def test_store_with_cells_made_by_others_is_joined(frames, tmp_path):
    free, cut = frames
    for atoms in free:
        atoms.cell, atoms.pbc = OBLIQUE, True
    write_extxyz(tmp_path / "a.extxyz", free)
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.extxyz", properties=["energy"]), compressed=False)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file.attrs["joined"]
        file["pos"][:] = np.concatenate([atoms.positions for atoms in cut])
    with pytest.warns(UserWarning, match="joined 6 of 6"):
        (block,) = Frames.open(tmp_path / "a.h5")
    expected = free[2].get_all_distances()
    pos = block.pos[80:120]
    np.testing.assert_allclose(np.linalg.norm(pos[:, None] - pos, axis=2), expected, atol=1e-7)
    with pytest.raises(InputError, match="frame 0: is cut by the faces of its cell; convert the store again"):
        OnDiskClusters(tmp_path / "a.h5")  # which reads single frames, unseen by what joins


def test_data_sets_hold_the_joined_clusters(frames, tmp_path):
    free, cut = frames
    for name, some in {"free": free, "cut": cut}.items():
        write_extxyz(tmp_path / f"{name}.extxyz", some)
    expected = ClusterDataset(tmp_path, tmp_path / "free.extxyz", forces=True)
    with pytest.warns(UserWarning, match="joined 6 of 6"):
        found = ClusterDataset(tmp_path, tmp_path / "cut.extxyz", forces=True)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(torch.pdist(one.pos), torch.pdist(other.pos), rtol=0, atol=1e-4)
        torch.testing.assert_close(one.force, other.force)


def test_verbs_join_refuse_and_keep(frames, tmp_path, capsys):
    free, cut = frames
    write_extxyz(tmp_path / "free.extxyz", free)
    write_extxyz(tmp_path / "cut.extxyz", [cut[0], free[1], *cut[2:]])
    write_extxyz(tmp_path / "pieces.extxyz", [dimers(9.0)])

    cut_file, pieces, out = str(tmp_path / "cut.extxyz"), str(tmp_path / "pieces.extxyz"), str(tmp_path / "p.csv")
    screen = ["--top", "3", "--write", "vasp", "--out"]
    assert not run(capsys, "predict", "gallium", str(tmp_path / "free.extxyz"), "--out", str(tmp_path / "free.csv"))
    assert not run(capsys, "screen", "gallium", str(tmp_path / "free.extxyz"), *screen, str(tmp_path / "free"))
    for verb, out_of_cut in (("predict", [str(tmp_path / "cut.csv")]), ("screen", [str(tmp_path / "cut")])):
        options = ["--out"] if verb == "predict" else screen
        err = run(capsys, verb, "gallium", cut_file, *options, *out_of_cut)
        assert err == "warning: joined 5 of 6 frames across the faces of their cells\n"
    one, other = ((tmp_path / f"{name}.csv").read_text().replace(f"{name}.extxyz", "") for name in ("free", "cut"))
    assert one == other
    for folder in sorted((tmp_path / "free" / "vasp").iterdir()):
        one, other = (read(tmp_path / name / "vasp" / folder.name / "POSCAR") for name in ("free", "cut"))
        np.testing.assert_allclose(one.get_all_distances(), other.get_all_distances(), atol=1e-6)
    assert main(["predict", "gallium", pieces, "--out", out]) == 2
    assert "frame 0: stays in 2 pieces of 2 and 2 atoms, 9.0 Å apart; pass --fragments keep" in capsys.readouterr().err
    assert "joined 1 of 1 frames" in run(capsys, "predict", "gallium", pieces, "--fragments", "keep", "--out", out)


@pytest.mark.parametrize("suffix", ["xyz", "mol"])
def test_pieces_without_a_cell_are_refused(tmp_path, suffix):
    """A cluster cut by a cell that the file does not state is not taken as it is; with the cell it is whole."""
    cut = boxed(gallium(), [22.0] * 3)
    cut.positions += [-1.0, 6.0, 6.0]
    cut.wrap()
    free = Atoms(cut.numbers, cut.positions)
    write(tmp_path / f"a.{suffix}", free)
    with pytest.raises(InputError, match=r"0: has no periodic cell, but is in 2 pieces of .* --fragments keep"):
        list(read_atoms([tmp_path / f"a.{suffix}"]))
    (kept,) = read_atoms([tmp_path / f"a.{suffix}"], fragments="keep")
    np.testing.assert_allclose(kept.atoms.positions, cut.positions, atol=1e-3)
    write_extxyz(tmp_path / "b.extxyz", [cut])
    with pytest.warns(UserWarning, match=JOINED):
        (whole,) = Frames.open(tmp_path / "b.extxyz")
    distances = np.linalg.norm(whole.pos[:, None] - whole.pos, axis=2)
    np.testing.assert_allclose(distances, gallium().get_all_distances(), atol=1e-7)


def test_an_atom_that_leaves_a_cluster_is_accepted(tmp_path):
    """Hot sodium clusters lose atoms: the gap is a bond and a half, and two and a half later."""
    cluster = Icosahedron("Na", 2)
    outermost = cluster.positions[:, 2].argmax()
    for gap, accepted in ((5.5, True), (8.0, False)):
        frame = Atoms(cluster.numbers, cluster.positions)
        frame.positions[outermost] = [0, 0, np.delete(cluster.positions[:, 2], outermost).max() + gap]
        write(tmp_path / "a.xyz", frame)
        if accepted:
            assert len(list(read_atoms([tmp_path / "a.xyz"]))) == 1
        else:
            with pytest.raises(InputError, match="in 2 pieces of 12 and 1 atoms"):
                list(read_atoms([tmp_path / "a.xyz"]))


def test_positions_in_bohr_are_not_taken_for_angstrom(tmp_path):
    for symbol, bond in (("Cu", 2.4), ("Fe", 2.3), ("Ti", 2.6), ("W", 2.7)):  # short for their covalent radii
        cluster = Icosahedron(symbol, 2, latticeconstant=bond * 2**0.5)
        write(tmp_path / "a.xyz", Atoms(cluster.numbers, cluster.positions / Bohr))
        with pytest.raises(InputError, match=r"in 13 pieces of 1, .* atoms, .* length_unit=bohr"):
            list(read_atoms([tmp_path / "a.xyz"]))
    write(tmp_path / "a.xyz", Atoms("Ga13", gallium().positions / Bohr))
    with pytest.raises(InputError, match=r"frame 0: .* in 13 pieces of 1, .* atoms, .* length_unit=bohr"):
        list(read_atoms([tmp_path / "a.xyz"]))
    first, _, *atoms = (tmp_path / "a.xyz").read_text().splitlines(keepends=True)
    (tmp_path / "a.xyz").write_text("".join([first, "length_unit=bohr\n", *atoms]))
    (frame,) = read_atoms([tmp_path / "a.xyz"])
    np.testing.assert_allclose(frame.atoms.positions, gallium().positions, atol=1e-6)


def test_pieces_without_a_cell_are_refused_in_python():
    """Atoms in pieces far apart are refused like frames of files, but a cluster may dissociate step by step."""
    whole = gallium()
    apart = whole.copy()
    apart.positions[:5] += [20.0, 0.0, 0.0]
    far = "has no periodic cell, but is in 2 pieces of 8 and 5 atoms"
    predictor = Predictor(load_model("gallium-forces").double())
    with pytest.raises(InputError, match=f'frame 1: {far}.*fragments="keep"'):
        predictor([whole, apart])
    for call in (predictor.atomic_energies, lambda frames: to_data(frames[0])):
        with pytest.raises(InputError, match=far):
            call([apart])
    energies = predictor([whole, apart], fragments="keep").energy
    assert torch.isfinite(energies).all()

    calculator = ModelCalculator(predictor.model)
    for _ in range(2):  # also after a whole cluster of the same atoms
        with pytest.raises(InputError, match=far):
            calculator.get_potential_energy(apart)
        assert calculator.get_potential_energy(whole) == pytest.approx(float(energies[0]))
    moving = whole.copy()
    for _ in range(20):
        moving.positions[:5] += [1.0, 0.0, 0.0]
        energy = calculator.get_potential_energy(moving)
    assert energy == pytest.approx(float(energies[1]))
    kept = ModelCalculator(predictor.model, fragments="keep").get_potential_energy(apart)
    assert kept == pytest.approx(float(energies[1]))


def test_atomic_energies_of_a_cut_cluster_are_those_of_the_whole(frames):
    free, cut = frames
    predictor = Predictor(load_model("gallium-forces").double())
    expected, found = predictor.atomic_energies([free[0], cut[0]])
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_large_clusters_are_joined():
    cluster = Icosahedron("Ag", 7)
    assert len(cluster) == 923
    cut = torn(cluster, [60, 60, 60], True, 1)
    np.testing.assert_allclose(join_atoms(cut).get_all_distances(), cluster.get_all_distances(), atol=1e-9)

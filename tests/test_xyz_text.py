"""Variants of XYZ text: counts, comments, labels, units, encodings."""

import lzma

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import write
from ase.units import Bohr
from helpers import only_block

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, read_atoms, write_extxyz

LONG = ["Ga      0.00000000      0.00000000      0.00000000", "Ga      0.00000000      0.00000000      2.60000000"]
SHORT = ["Ga 0 0 0", "Ga 0 0 2.6"]


def frame(atoms=SHORT, comment="energy=-1.5", count=None):
    return f"{len(atoms) if count is None else count}\n{comment}\n" + "".join(f"{line}\n" for line in atoms)


def write_text(path, text):
    path.write_bytes(lzma.compress(text.encode()) if path.suffix == ".xz" else text.encode())
    return path


# --- wrong numbers of atoms


@pytest.mark.parametrize("atoms", [LONG * 3, SHORT * 3], ids=["long", "short"])
@pytest.mark.parametrize("name", ["a.xyz", "a.xyz.xz"])
@pytest.mark.parametrize("count", [5, 7, 1, 14, 15, 400, 0, "six", "6 atoms", "-6", ""])
def test_reading_continues_after_a_wrong_number_of_atoms(tmp_path, atoms, name, count):
    """Only frame 2 is lost, whether its number of atoms is too small, too large, that of two frames, or missing."""
    frames = [frame(atoms)] * 6
    frames[2] = frame(atoms, count=count)
    path = write_text(tmp_path / name, "".join(frames))
    block = only_block(path, on_bad="skip")
    assert block.number.tolist() == [0, 1, 3, 4, 5] and [bad.number for bad in block.unreadable] == [2]
    reason = block.unreadable[0].reason
    assert "its first line states" in reason or "expected a line with the number of atoms" in reason
    with pytest.raises(InputError, match=f"{name}, frame 2: "):
        list(Frames.open(path))


def test_unreadable_text_is_counted_in_lines(tmp_path):
    path = write_text(tmp_path / "a.xyz", frame() * 2 + "2\n\nGa 0 0 0\nGa 0 0 2.6\nGa 0 0 5\n" + "words\n" * 30)
    block = only_block(path, on_bad="skip")
    assert len(block) == 2
    (bad,) = block.unreadable
    assert (
        "states 2 atoms, but it has more; no further frame is found in the 35 lines from there to the end" in bad.reason
    )


def test_lines_that_are_missing_within_a_frame(tmp_path):
    lines = (frame(LONG) * 5).splitlines(keepends=True)
    del lines[6]  # an atom of frame 1
    lines.insert(11, "\n")  # within frame 3
    path = write_text(tmp_path / "a.xyz", "".join(lines))
    block = only_block(path, on_bad="skip")
    assert [bad.number for bad in block.unreadable] == [1] and block.number.tolist() == [0, 2, 3, 4]


# --- comments


COMMENTS = {
    "": {},
    "-1557.209": {"comment": -1557.209},
    "  12 ": {"comment": 12.0},
    "Properties of Ga": {"comment": "Properties of Ga"},
    "Lattice constant, relaxed by hand": {"comment": "Lattice constant, relaxed by hand"},
    "Properties of Ga energy=-118.36": {"of": True, "Ga": True, "energy": -118.36},
    "Lattice constant energy = -3.2 eV": {"constant": True, "energy": -3.2, "eV": True},
    'note="Lattice and Properties of it" energy=2': {"note": "Lattice and Properties of it", "energy": 2},
    "pbc energy=2": {"energy": 2},
    "it's 5 o'clock": {"comment": "it's 5 o'clock"},
}


@pytest.mark.parametrize("comment", COMMENTS)
def test_a_comment_is_a_comment(tmp_path, comment):
    path = write_text(tmp_path / "a.xyz", frame(comment=comment) * 2)
    atoms, _ = only_block(path, with_atoms=True).atoms
    found = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
    assert found == COMMENTS[comment] and not atoms.pbc.any()
    block = only_block(path, properties=[key for key in ("comment", "energy") if key in COMMENTS[comment]])
    assert not block.periodic.any()
    for key, values in block.properties.items():
        assert values.tolist() == [COMMENTS[comment][key]] * 2


def test_a_lone_number_is_a_property(tmp_path):
    path = write_text(tmp_path / "a.xyz", frame(comment="-3.25") + frame(comment="-4"))
    assert only_block(path, properties=["comment"]).properties["comment"].tolist() == [-3.25, -4.0]
    write_extxyz(tmp_path / "b.xyz", [item.atoms for item in read_atoms([path])])
    assert only_block(tmp_path / "b.xyz", properties=["comment"]).properties["comment"].tolist() == [-3.25, -4.0]
    with pytest.raises(InputError, match="frame 1: no property 'comment'; found per frame: none"):
        only_block(write_text(tmp_path / "c.xyz", frame(comment="-3") + frame(comment="")), properties=["comment"])


@pytest.mark.parametrize("comment", ["energy=-1.23D+01 state=3d10", "-1.23D+01", 'a="1 2" energy=-.123d2 Lattice="{}"'])
@pytest.mark.parametrize("atoms", [SHORT, ["Cd 0.D0 0.0d+00 0.0D+00", "Pd 0 -0.0d00 2.6D+00"]])
def test_exponents_of_fortran(tmp_path, comment, atoms):
    """Numbers as 1.0D+00 are those of 1.0e+00, and words that resemble them are left alone."""
    comment = comment.format(" ".join(["3.0D+01", "0.D0", "0.D0", "0.D0"] * 2 + ["30.0"]))
    path = write_text(tmp_path / "a.xyz", frame(atoms, comment))
    key = "energy" if "energy" in comment else "comment"
    block = only_block(path, properties=[key])
    np.testing.assert_allclose(block.pos, [[0, 0, 0], [0, 0, 2.6]])
    assert block.properties[key].tolist() == [-12.3]
    assert block.cell.diagonal(axis1=1, axis2=2).tolist() == [[30.0] * 3 if "Lattice" in comment else [0.0] * 3]
    if "state" in comment:
        assert next(read_atoms([path])).atoms.info["state"] == "3d10"


@pytest.mark.parametrize("key", ["Lattice", "lattice", "LATTICE", "cell", "Cell", "unit_cell", "box"])
def test_a_cell_in_upper_or_lower_case(tmp_path, key):
    path = write_text(tmp_path / "a.xyz", frame(comment=f'{key}="20 0 0 0 20 0 0 0 20" energy=1'))
    assert only_block(path).periodic.tolist() == [True]


def test_a_cell_of_another_name_joins_and_yields_to_the_lattice(tmp_path):
    """Atoms on both sides of a face are 2.6 Å apart under ``cell=``; a text or a box of three numbers is no cell."""
    atoms = ["Ga 0.1 5 5", "Ga 17.5 5 5"]
    text = lambda comment: "\n".join(["2", comment, *atoms, ""])  # noqa: E731
    path = write_text(tmp_path / "a.xyz", text('cell="20 0 0 0 20 0 0 0 20"'))
    with pytest.warns(UserWarning, match="joined 1 of 1"):
        block = only_block(path)
    assert abs(block.pos[1, 0] - block.pos[0, 0]) == pytest.approx(2.6)
    both = 'Lattice="60 0 0 0 60 0 0 0 60" cell="20 0 0 0 20 0 0 0 20"'
    for comment in (both, "box=large cell=none", 'box="20 20 20"'):
        block = only_block(write_text(tmp_path / "a.xyz", text(comment)), fragments="keep")
        assert block.pos[1, 0] == 17.5


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252"])
def test_comments_in_any_encoding(tmp_path, encoding):
    text = frame(comment='Lattice="20 0 0 0 20 0 0 0 20" note=5Å energy=-2') + frame(comment="gemessen in Köln")
    (tmp_path / "a.xyz").write_bytes(text.encode(encoding))
    first, second = Frames.open(tmp_path / "a.xyz", block_size=1, with_atoms=True)
    assert first.periodic[0] and first.atoms[0].info["note"] == "5Å" and not second.periodic[0]
    assert second.atoms[0].info == {"comment": "gemessen in Köln"}
    assert len(list(read_atoms([tmp_path / "a.xyz"], on_bad="skip"))) == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_wide_characters_are_refused(tmp_path, encoding):
    (tmp_path / "a.xyz").write_bytes(frame().encode(encoding))
    with pytest.raises(InputError, match=r"a\.xyz: is UTF-16 or not text; save it as UTF-8"):
        list(Frames.open(tmp_path / "a.xyz"))


# --- labels


LABELS = {"Ga": 31, "GA": 31, "ga": 31, "Ga1": 31, "Na_2": 11, "Na+": 11, "Na-1": 11, "Cu2+": 29, "Au_pv": 79, "31": 31}


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("columns", ["", "Properties=species:S:1:pos:R:3", "Properties=id:I:1:pos:R:3:species:S:1"])
def test_labels_stand_for_elements(tmp_path, label, columns):
    lines = [f"{label} 0 0 {z}" if "id" not in columns else f"{n} 0 0 {z} {label}" for n, z in enumerate((0, 2.6))]
    path = write_text(tmp_path / "a.xyz", frame(lines, columns))
    block = only_block(path, with_atoms=True)
    assert block.z.tolist() == [LABELS[label]] * 2 == block.atoms[0].numbers.tolist()
    np.testing.assert_allclose(block.pos[:, 2], [0, 2.6])


@pytest.mark.parametrize(
    ("atom", "word"), [("Ga 0,1 0,2 2,6", "0,1"), ("7 Ga 0 0 2.6", "Ga"), ("Ga 0 oops 2.6", "oops")]
)
def test_a_word_in_place_of_a_number_is_named_with_a_remedy(tmp_path, atom, word):
    path = write_text(tmp_path / "a.xyz", frame() + frame([SHORT[0], atom]))
    words = rf"frame 1: cannot be read \('{word}' in '{atom}' is not a number .* Properties=.*; fix or remove .* skip"
    with pytest.raises(InputError, match=words):
        list(Frames.open(path))


def test_labels_that_stand_for_none(tmp_path):
    for label in ("Ga*", "Q7", "Gallium", "300"):
        path = write_text(tmp_path / "a.xyz", frame([f"{label} 0 0 0", "Ga 0 0 2.6"]))
        with pytest.raises(InputError, match=r"frame 0: .* is not an element symbol; write symbols such as"):
            list(Frames.open(path))


@pytest.mark.parametrize(
    ("columns", "atom", "words"),
    [
        (
            "type:S:1:pos:R:3",
            "Ga 0 0",
            "its columns name no elements; call that of the symbols 'species' in Properties=",
        ),
        ("id:I:1:pos:R:3", "1 0 0", "its columns name no elements"),
        (
            "species:S:1:Z:I:1:pos:R:3",
            "Ga 13 0 0",
            "an atom is Ga in the column of symbols, but of atomic number 13; rem",
        ),
    ],
)
def test_columns_that_name_no_element_or_two(tmp_path, columns, atom, words):
    path = write_text(tmp_path / "a.xyz", frame([f"{atom} 0", f"{atom} 2.6"], f"Properties={columns}"))
    with pytest.raises(InputError, match=f"frame 0: {words}"):
        list(Frames.open(path))


@pytest.mark.parametrize(
    ("labels", "comment"), [(("1", "1"), ""), (("1", "2"), "made by hand"), (("29", "79"), "Atoms. Timestep: 0")]
)
def test_types_of_lammps_are_not_elements(tmp_path, labels, comment):
    path = write_text(tmp_path / "a.xyz", frame([f"{labels[0]} 0 0 0", f"{labels[1]} 0 0 2.6"], comment))
    with pytest.raises(InputError, match=r"frame 0: its atoms are labelled .*, which may be LAMMPS types"):
        list(Frames.open(path))


# --- units of length


I_PI = "# CELL(abcABC): 56.69 56.69 56.69 90.0 90.0 90.0 Step: 4 Bead: 0 {} {}"
STATED = {
    I_PI.format("positions{atomic_unit}", "cell{atomic_unit}"): (Bohr, Bohr),
    I_PI.format("positions{angstrom}", "cell{atomic_unit}"): (1, Bohr),
    I_PI.format("positions{angstrom}", "cell{angstrom}"): (1, 1),
    I_PI.format("x_centroid{nanometer}", "cell{angstrom}"): (10, 1),
    "# CELL(H): 56.69 0 0 0 56.69 0 0 0 56.69 Step: 4 Bead: 0 positions{atomic_unit} cell{atomic_unit}": (Bohr, Bohr),
    'length_unit=bohr Lattice="56.69 0 0 0 56.69 0 0 0 56.69"': (Bohr, Bohr),
    'Lattice="56.69 0 0 0 56.69 0 0 0 56.69" pos_unit="Angstrom" unit=eV': (1, 1),
    "length_unit: Bohr energy=2": (Bohr, 0),
    "units=Angstrom energy=2": (1, 0),
}


@pytest.mark.parametrize("comment", STATED)
def test_units_that_a_comment_states(tmp_path, comment):
    length, of_cell = STATED[comment]
    path = write_text(tmp_path / "a.xyz", frame(comment=comment) * 2)
    block = only_block(path, with_atoms=True, fragments="keep")
    np.testing.assert_allclose(block.pos[:, 2], [0, 2.6 * length] * 2)
    np.testing.assert_allclose(block.cell[1].diagonal(), [56.69 * of_cell] * 3)
    assert block.periodic.tolist() == [of_cell > 0] * 2
    write_extxyz(tmp_path / "b.xyz", block.atoms)
    np.testing.assert_allclose(only_block(tmp_path / "b.xyz").pos, block.pos, atol=1e-7)  # not converted again


REFUSED = {
    I_PI.format("", ""): "without a unit of positions",
    I_PI.format("forces{atomic_unit}", "cell{atomic_unit}"): "holds forces written by i-PI, not positions",
    I_PI.format("positions{furlong}", "cell{atomic_unit}"): "positions are in 'furlong'",
    "coordinates in bohr": "contains 'bohr'; write length_unit",
    "Coordinates (a.u.) of Ga2": "contains 'Coordinates .a.u.'",
    "energy=2 units=bohr": "contains 'units=bohr'",
    "energy=2 length_unit=ell": "its unit of length is 'ell'",
}


@pytest.mark.parametrize("comment", REFUSED)
def test_ambiguous_units_are_refused(tmp_path, comment):
    path = write_text(tmp_path / "a.xyz", frame(comment=comment))
    for read in (lambda: list(Frames.open(path)), lambda: list(read_atoms([path]))):
        with pytest.raises(InputError, match=f"frame 0: .*{REFUSED[comment]}"):
            read()


@pytest.mark.parametrize(
    "comment",
    ["source_file=runs/bohr/md.xyz", 'earlier_forces_unit="Ha/Bohr"', "initial_forces_unit=Ha/bohr energy=-1"],
)
def test_a_unit_of_other_values_is_not_that_of_the_positions(tmp_path, comment):
    """These are written by this package, for input in units of bohr or in a folder of this name."""
    assert len(only_block(write_text(tmp_path / "a.xyz", frame(comment=comment)))) == 1


@pytest.mark.parametrize(
    "name", ["gatheredPOSCARS", "a.gen", "a.sdf", "a.mol", "coord", "a.car", "a.cell", "a.lmp", "a.gro"]
)
@pytest.mark.filterwarnings("ignore")  # CASTEP's keywords
def test_further_structures_of_a_file_are_not_lost(tmp_path, name):
    """ASE reads only the first structure of these formats."""
    cluster = Atoms("Ga2", [[5, 5, 5], [5, 5, 7.6]], cell=[12, 12, 12], pbc=True)
    kinds = {"gatheredPOSCARS": "vasp", "coord": "turbomole", "a.car": "dmol-car", "a.cell": "castep-cell"}
    kind = {**kinds, "a.lmp": "lammps-data"}.get(name)
    write(tmp_path / name, cluster, format=kind, **({"masses": True} if name == "a.lmp" else {}))
    assert only_block(tmp_path / name).z.tolist() == [31, 31]
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text + text)
    with pytest.raises(InputError, match=f"{name}: contains 2 structures, but ASE reads only the first"):
        list(Frames.open(tmp_path / name))


def test_formats_of_ase_in_other_units_are_refused(tmp_path):
    texts = {
        "coord": "$coord angs\n 0 0 0 ga\n 0 0 2.6 ga\n$end\n",
        "a.com": "# HF/6-31G units=au\n\nGa2\n\n0 1\nGa 0 0 0\nGa 0 0 5\n\n",
        "a.lmp": "LAMMPS data file via write_data, units = lj\n\n2 atoms\n1 atom types\n0 9 xlo xhi\n0 9 ylo yhi\n"
        "0 9 zlo zhi\n\nAtoms # atomic\n\n1 1 0 0 0\n2 1 0 0 2\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"{name}: is in units that ASE does not convert"):
            list(Frames.open(tmp_path / name))
    (tmp_path / "b.lmp").write_text(texts["a.lmp"].replace("units = lj", "units = metal"))
    with pytest.raises(InputError, match=r"b\.lmp: names no elements, only LAMMPS types"):
        list(Frames.open(tmp_path / "b.lmp"))
    (tmp_path / "coord").write_text("$coord\n 0 0 0 ga\n 0 0 5 ga\n$end\n")
    assert only_block(tmp_path / "coord").pos[1, 2] == pytest.approx(5 * Bohr)


@pytest.mark.parametrize(
    ("title", "counts", "symbols"),
    [
        ("Au Cu", "1 1", "AuCu"),
        ("AuCu relaxed", "1 1", "AuCu"),
        ("Ga2 no 5", "2", "Ga2"),
        *[(title, "2", None) for title in ("In a box", "No 5", "relaxed", "", "He-shaped: Ga2")],
    ],
)
def test_titles_of_vasp_4_name_elements_or_are_refused(tmp_path, title, counts, symbols):
    text = f"{title}\n1\n9 0 0\n0 9 0\n0 0 9\n{counts}\nCartesian\n0 0 0\n0 0 2.6\n"
    (tmp_path / "POSCAR").write_text(text)
    if symbols:
        assert only_block(tmp_path / "POSCAR").z.tolist() == Atoms(symbols).numbers.tolist()
    else:
        with pytest.raises(InputError, match=f"POSCAR: names no elements, .*above the counts '{counts}'"):
            list(Frames.open(tmp_path / "POSCAR"))


def test_labels_of_gromacs_in_capitals(tmp_path):
    write(tmp_path / "a.gro", Atoms("Au2", [[0, 0, 0], [0, 0, 2.6]]))
    text = (tmp_path / "a.gro").read_text()
    for label, number in (("Au", 79), ("AU", 79), ("NA", 11), ("G1", None)):
        (tmp_path / "a.gro").write_text(text.replace("Au", label))
        if number:
            assert only_block(tmp_path / "a.gro").z.tolist() == [number] * 2
        else:
            with pytest.raises(InputError, match="frame 0: 'G1' is not an element symbol"):
                list(Frames.open(tmp_path / "a.gro"))


@pytest.mark.parametrize(("label", "number"), [("Cu", 29), ("CU", 29), ("Cu_s", 29), ("PT", 78), ("CO2", 27)])
def test_labels_of_dl_poly_in_capitals(tmp_path, label, number):
    """ASE reads CU as carbon; a HISTORY has records of equal length."""
    atoms = [line for x in (0, 2.6) for line in (f"{label:8}{1:10}  63.546  0.0  0.0", f"{x:.6f} 0.0 0.0")]
    (tmp_path / "CONFIG").write_text("\n".join(["a dimer", "0 0 2", *atoms, ""]))
    assert only_block(tmp_path / "CONFIG").z.tolist() == [number] * 2
    cell = ["20.0 0.0 0.0", "0.0 20.0 0.0", "0.0 0.0 20.0"]
    lines = ["a dimer", "0 1 2 1 7", "timestep 0 2 0 1 0.001 0.0", *cell, *atoms]
    (tmp_path / "HISTORY").write_text("".join(f"{line:<72}\n" for line in lines))
    assert only_block(tmp_path / "HISTORY").z.tolist() == [number] * 2


@pytest.mark.filterwarnings("ignore:joined")
def test_models_of_pdb(tmp_path):
    """The cell is stated once, one of 1 Å means none, and END after the last model is no frame."""
    write(tmp_path / "a.pdb", [Atoms("Ga2", [[0, 0, z], [0, 0, 2.6]]) for z in (0, 19.5)])
    for length, distance in ((20, 3.1), (1, 16.9)):
        cell = f"CRYST1{length:9.3f}{length:9.3f}{length:9.3f}  90.00  90.00  90.00 P 1\n"
        (tmp_path / "b.pdb").write_text(f"{cell}{(tmp_path / 'a.pdb').read_text()}END\n")
        block = only_block(tmp_path / "b.pdb")
        assert len(block) == 2 and block.periodic.tolist() == [length > 1] * 2
        assert abs(block.pos[3, 2] - block.pos[2, 2]) == pytest.approx(distance)


@pytest.mark.parametrize("name", ["a.pdb", "a.gro"])
def test_blank_names_of_residues_are_left_out(tmp_path, name):
    write(tmp_path / name, Atoms("Au2", [[0, 0, 0], [0, 0, 2.6]]))
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("MOL ", "    ").replace("1DUM", "    "))
    write_extxyz(tmp_path / "a.xyz", [frame.atoms for frame in read_atoms([tmp_path / name])])
    assert "residuenames" not in (tmp_path / "a.xyz").read_text()


def test_large_integers_of_atoms_keep_their_value(tmp_path):
    lines = [f"Ga 0 0 {z} {number}" for z, number in ((0, 3_000_000_000), (2.6, 5))]
    path = write_text(tmp_path / "a.xyz", frame(lines, "Properties=species:S:1:pos:R:3:id:I:1"))
    assert only_block(path, atom_properties=["id"]).atom_properties["id"].tolist() == [3_000_000_000, 5]


# --- databases


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_values_of_databases(tmp_path, name):
    (atoms,) = only_block(write_text(tmp_path / "a.xyz", frame(comment="")), with_atoms=True).atoms
    with connect(tmp_path / name) as database:
        for energy in (-1.5, -2.5):
            database.write(atoms, dft_energy=energy, group="a", data={"note": 7, "forces": np.ones((2, 3))})
    block = only_block(tmp_path / name, properties=["dft_energy", "group", "note"], atom_properties=["forces"])
    assert block.properties["dft_energy"].tolist() == [-1.5, -2.5]
    assert block.properties["group"].tolist() == ["a", "a"] and block.properties["note"].tolist() == [7, 7]
    assert block.atom_properties["forces"].shape == (4, 3)
    with pytest.raises(InputError, match="no property 'energy'; found per frame: dft_energy, group, note"):
        only_block(tmp_path / name, properties=["energy"])

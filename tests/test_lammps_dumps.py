"""LAMMPS dumps: elements, order, boxes, units and truncated frames."""

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, kcal, mol
from helpers import only_block

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, read_atoms, write_extxyz

POS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.6], [2.6, 0.0, 0.0], [2.6, 0.0, 2.6]])
SYMBOLS = ["Cu", "Cu", "Au", "Ag"]
BOX = "ITEM: BOX BOUNDS ff ff ff\n-20 20\n-20 20\n-20 20\n"


def dump(rows, columns="id type x y z", box=BOX, step=0, before="", count=None):
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    count = len(rows) if count is None else count
    head = f"{before}ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{count}\n"
    return f"{head}{box}ITEM: ATOMS {columns}\n{lines}"


def rows(pos=POS, order=(3, 0, 2, 1), elements=False):
    types = dict(zip(SYMBOLS, (1, 1, 2, 3), strict=True))
    return [(n + 1, types[SYMBOLS[n]], *([SYMBOLS[n]] if elements else []), *pos[n]) for n in order]


@pytest.fixture
def topology(tmp_path):
    write_extxyz(tmp_path / "topology.xyz", [Atoms(SYMBOLS, POS)])
    return tmp_path / "topology.xyz"


@pytest.mark.parametrize("name", ["md.lammpstrj", "dump.0", "MD.DUMP", "a.lammps", "none", "md.lammpstrj.gz"])
def test_types_are_not_elements(tmp_path, topology, name):
    text = (dump(rows()) + dump(rows(POS * 1.1, (1, 2, 3, 0)), step=10)).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    for read in (lambda: list(Frames.open(tmp_path / name)), lambda: list(read_atoms([tmp_path / name]))):
        with pytest.raises(InputError, match=f"{name}, frame 0: the atoms have types, but .* give --topology FILE"):
            read()
    block = only_block(tmp_path / name, topology=topology, with_atoms=True)
    assert block.z.tolist() == [29, 29, 79, 47] * 2 and not block.periodic.any()
    np.testing.assert_allclose(block.pos, np.concatenate([POS, POS * 1.1]))
    assert block.atoms[1].info["timestep"] == 10 and block.atoms[1].arrays["type"].tolist() == [1, 1, 2, 3]
    assert block.states is None
    write_extxyz(topology, [Atoms(SYMBOLS, POS, info={"charge": 1})])
    assert [state.charge for state in only_block(tmp_path / name, topology=topology).states] == [1, 1]


def test_the_column_of_elements_wins_or_the_dump_is_refused(tmp_path, topology):
    path = tmp_path / "alloy.dump"
    path.write_text(dump(rows(elements=True), "id type element x y z"))
    assert only_block(path).z.tolist() == [29, 29, 79, 47]
    assert only_block(path, topology=topology).z.tolist() == [29, 29, 79, 47]
    write_extxyz(tmp_path / "other.xyz", [Atoms(SYMBOLS[::-1], POS)])
    message = "frame 0: the atom of id 1 is Cu in the column 'element', but Ag in .*other.xyz"
    with pytest.raises(InputError, match=message):
        only_block(path, topology=tmp_path / "other.xyz")
    path.write_text(dump([(1, 1, "Q7", 0, 0, 0)], "id type element x y z"))
    with pytest.raises(InputError, match="frame 0: 'Q7' is not an element symbol"):
        only_block(path)


def test_elements_that_were_not_set(tmp_path, topology):
    """LAMMPS writes C for all atoms unless dump_modify names their elements."""
    carbon = lambda scale: dump([(n + 1, "C", *scale * POS[n]) for n in range(4)], "id element x y z")  # noqa: E731
    (tmp_path / "a.dump").write_text(carbon(1))
    with pytest.raises(InputError, match=r"frame 0: the atoms have types, but no elements; .* \(dump_modify element\)"):
        only_block(tmp_path / "a.dump")
    assert only_block(tmp_path / "a.dump", topology=topology).z.tolist() == [29, 29, 79, 47]
    (tmp_path / "a.dump").write_text(carbon(1.4 / 2.6))
    assert only_block(tmp_path / "a.dump").z.tolist() == [6] * 4


def test_a_topology_with_ids_is_matched_by_them(tmp_path):
    order = [2, 0, 3, 1]
    frame = Atoms([SYMBOLS[n] for n in order], POS[order])
    frame.set_array("id", np.array(order) + 1)
    write_extxyz(tmp_path / "ids.xyz", [frame])
    (tmp_path / "all.dump").write_text(dump(rows(), "id type x y z"))
    assert only_block(tmp_path / "all.dump", topology=tmp_path / "ids.xyz").z.tolist() == [29, 29, 79, 47]
    (tmp_path / "some.dump").write_text(dump(rows(order=(3, 1)), "id type x y z"))
    assert only_block(tmp_path / "some.dump", topology=tmp_path / "ids.xyz").z.tolist() == [29, 47]
    (tmp_path / "first.dump").write_text(dump(rows(elements=True), "id type element x y z"))
    assert only_block(tmp_path / "some.dump", topology=tmp_path / "first.dump").z.tolist() == [29, 47]
    (tmp_path / "more.dump").write_text(dump([*rows(), (9, 1, 5, 5, 5)], "id type x y z"))
    with pytest.raises(InputError, match="the atom of id 9 is not in"):
        only_block(tmp_path / "more.dump", topology=tmp_path / "ids.xyz")


def test_a_topology_in_another_order_gives_a_type_two_elements(tmp_path, topology):
    write_extxyz(tmp_path / "other.xyz", [Atoms(["Cu", "Au", "Cu", "Ag"], POS)])
    (tmp_path / "a.dump").write_text(dump(rows()))
    message = r"frame 0: atom 1 is Au in .*other\.xyz, but other atoms of its type 1 are Cu; give a topology with"
    with pytest.raises(InputError, match=message):
        only_block(tmp_path / "a.dump", topology=tmp_path / "other.xyz")
    text = dump([row[1:] for row in rows(order=(0, 1, 2, 3))], "type x y z")
    (tmp_path / "b.dump").write_text(text + dump([row[1:] for row in rows(order=(3, 1, 2, 0))], "type x y z"))
    with pytest.raises(InputError, match=r"frame 1: atom 0 is Cu in .*, but other atoms of its type 3 are Ag"):
        only_block(tmp_path / "b.dump", topology=topology)  # without ids the order of the atoms may change


def test_another_number_of_atoms_than_the_topology(tmp_path, topology):
    (tmp_path / "a.dump").write_text(dump(rows()[:3]))
    with pytest.raises(InputError, match=r"frame 0: 3 atoms, but .*topology\.xyz has 4"):
        only_block(tmp_path / "a.dump", topology=topology)
    with pytest.raises(InputError, match=r"none\.xyz: no such file, given as the topology"):
        only_block(tmp_path / "a.dump", topology=tmp_path / "none.xyz")
    with pytest.raises(InputError, match=r"a\.dump, frame 0: the atoms have types"):
        only_block(tmp_path / "a.dump", topology=tmp_path / "a.dump")


TRICLINIC = np.array([[20.0, 0, 0], [4.0, 18, 0], [-3.0, 2.0, 16]])
CORNER = np.array([1.0, -2.0, 3.0])


@pytest.mark.parametrize("columns", ["xs ys zs", "xsu ysu zsu", "x y z", "xu yu zu", "x y z xu yu zu"])
@pytest.mark.parametrize("general", [False, True])
def test_boxes_and_kinds_of_coordinates(tmp_path, topology, columns, general):
    """The bounds of a triclinic box are those of the smallest rectangular one around it."""
    pos = CORNER + np.array([[0.2, 0.3, 0.4], [0.3, 0.3, 0.4], [0.2, 0.4, 0.4], [0.2, 0.3, 0.5]]) @ TRICLINIC
    scaled = np.linalg.solve(TRICLINIC.T, (pos - CORNER).T).T
    if general:
        lines = [" ".join(map(str, [*vector, x])) for vector, x in zip(TRICLINIC, CORNER, strict=True)]
        box = "ITEM: BOX BOUNDS abc origin pp pp ff\n" + "\n".join(lines) + "\n"
    else:
        box = "ITEM: BOX BOUNDS xy xz yz pp pp ff\n-2 25 4\n-2 18 -3\n3 19 2\n"
    values = scaled if "s" in columns else pos
    if columns == "x y z xu yu zu":
        values = np.concatenate([pos - TRICLINIC[0], pos], axis=1)
    (tmp_path / "a.dump").write_text(dump(rows(values), f"id type {columns}", box))
    block = only_block(tmp_path / "a.dump", topology=topology)
    np.testing.assert_allclose(block.pos, pos, atol=1e-10)
    np.testing.assert_allclose(block.cell[0], TRICLINIC, atol=1e-10)
    assert block.pbc.tolist() == [[True, True, False]]


UNITS = {"metal": 1, "real": 1, "si": 1e10, "cgs": 1e8, "electron": Bohr, "nano": 10, "micro": 1e4}


@pytest.mark.parametrize("units", UNITS)
def test_units_that_the_dump_names(tmp_path, topology, units):
    """Units are stated once, for all later frames."""
    values = POS / UNITS[units]
    box = "ITEM: BOX BOUNDS pp pp pp\n" + f"0 {30 / UNITS[units]}\n" * 3
    text = dump(rows(values), box=box, before=f"ITEM: UNITS\n{units}\nITEM: TIME\n0.5\n") + dump(rows(values), box=box)
    (tmp_path / "a.dump").write_text(text)
    block = only_block(tmp_path / "a.dump", topology=topology, with_atoms=True)
    np.testing.assert_allclose(block.pos, np.concatenate([POS, POS]), rtol=1e-6)
    np.testing.assert_allclose(block.atoms[1].cell.lengths(), 30, rtol=1e-6)


def test_units_of_lennard_jones_are_refused(tmp_path, topology):
    (tmp_path / "a.dump").write_text(dump(rows(), before="ITEM: UNITS\nlj\n"))
    with pytest.raises(InputError, match="uses LAMMPS units 'lj', which cannot be converted to Å"):
        only_block(tmp_path / "a.dump", topology=topology)


def test_forces_are_converted_and_no_energy_is_made_up(tmp_path, topology):
    forces = np.arange(12.0).reshape(4, 3)
    text = dump(rows(np.concatenate([POS, forces], axis=1)), "id type x y z fx fy fz", before="ITEM: UNITS\nreal\n")
    (tmp_path / "a.dump").write_text(text)
    block = only_block(tmp_path / "a.dump", topology=topology, atom_properties=["forces"])
    np.testing.assert_allclose(block.atom_properties["forces"], forces * kcal / mol, rtol=1e-6)
    with pytest.raises(InputError, match="no property 'energy'; found per frame: timestep"):
        only_block(tmp_path / "a.dump", topology=topology, properties=["energy"])


def test_a_dump_that_is_still_being_written(tmp_path, topology):
    text = dump(rows()) + dump(rows(), step=1)
    begin = text.rindex("ITEM: TIMESTEP")
    for cut in (begin + 3, begin + 40, len(text) - 30, len(text) - 10):
        (tmp_path / "a.dump").write_text(text[:cut])
        with pytest.warns(UserWarning, match="the file ends within frame 1 .*; the complete frames before it"):
            assert len(only_block(tmp_path / "a.dump", topology=topology)) == 1


def test_broken_frames_are_named_and_the_others_used(tmp_path, topology):
    good = dump(rows())
    cut = good[: good.index("ITEM: ATOMS") + 30]  # of a run that was killed and restarted
    fewer, more = dump(rows()[:3], count=4), dump(rows(), count=3)
    twice = dump([*rows()[:3], rows()[0]])
    words = dump([(1, 1, "a", 0, 0), *rows()[1:]])
    text = "\n".join([good, cut, good, fewer, good, more, good, twice, words, good, "ITEM: NONSENSE\n", good, dump([])])
    (tmp_path / "a.dump").write_text(text)
    block = only_block(tmp_path / "a.dump", topology=topology, on_bad="skip")
    reasons = [str(bad).partition("frame ")[2] for bad in block.unreadable]
    assert block.number.tolist() == [0, 2, 4, 6, 9, 11]
    assert [reason.partition(":")[0] for reason in reasons] == ["1", "3", "5", "7", "8", "10", "12"]
    assert reasons[-1] == "12: has no atoms"
    assert "fewer than 4 lines" in reasons[0] and "more than 3 lines" in reasons[2] and "id occurs twice" in reasons[3]
    with pytest.raises(InputError, match="frame 1: has fewer than 4 lines"):
        list(Frames.open(tmp_path / "a.dump", topology=topology))

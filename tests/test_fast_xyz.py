"""The block parser gives the same frames as ASE."""

import lzma

import numpy as np
import pytest

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, xyz_reader
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import ReadOptions
from pyg_clusters.frames.xyz_frame import frame_by_ase
from pyg_clusters.frames.xyz_reader import text_frames

PLAIN = 'Properties=species:S:1:pos:R:3 energy=-1.25 step=7 pbc="F F F"'
FORCES = "Properties=species:S:1:pos:R:3:forces:R:3:tag:I:1 energy=-3e1"

USUAL = {
    "single spaces": (PLAIN, ["Ga 0 0 0", "Ga -1.5 0.25 2.75"]),
    "columns of fixed width": (
        PLAIN,
        ["Ga      0.00000000       0.00000000      -0.00000001", "Na  1.0 12345.678  1e-3"],
    ),
    "indented, tabs, trailing blanks": (PLAIN, ["  Ga 0 0 0  ", "\tNa\t1\t2\t3"]),
    "Windows line ends": (PLAIN + "\r", ["Ga 0 0 0\r", "Na 1 2 3\r"]),
    "no word on columns": ("made by hand", ["Ga 0 0 0", "Na 1 2 3"]),
    "empty comment": ("", ["Ga 0 0 0", "Na 1 2 3"]),
    "symbols in other cases": (PLAIN, ["GA 0 0 0", "na 1 2 3"]),
    "columns in another order": ("Properties=id:I:1:pos:R:3:species:S:1:name:S:1", ["4 0 0 0 Ga a", "5 0 0 3 Na b"]),
    "not a number": (PLAIN, ["Ga 0 0 0", "Na nan 2 3"]),
    "a plus sign": (PLAIN, ["Ga 0 0 +1", "Na 1 2 3"]),
    "a box, open": ('Lattice="20 0 0 0 20 0 0 0 20" ' + PLAIN, ["Ga 0 0 0", "Na 1 2 3"]),
    "a box, closed": ('Properties=species:S:1:pos:R:3 Lattice="20 0 0 0 20 0 0 0 20"', ["Ga 0 0 0", "Na 1 2 3"]),
    "a box in one direction": ('Lattice="20 0 0 0 20 0 0 0 20" pbc="F T F"', ["Ga 0 0 0", "Na 1 2 3"]),
    "a box of no size": ('Lattice="0 0 0 0 0 0 0 0 0" pbc="T T T"', ["Ga 0 0 0", "Na 1 2 3"]),
}

UNUSUAL = {
    "columns beyond those named": (PLAIN, ["Ga 0 0 0 9", "Na 1 2 3 8"]),
    "atomic numbers": ("Properties=Z:I:1:pos:R:3", ["31 0 0 0", "11 1 2 3"]),
    "quoted columns": ('Properties="species:S:1:pos:R:3" energy=2', ["Ga 0 0 0", "Na 1 2 3"]),
    "a box in brackets": ("Lattice={20 0 0 0 20 0 0 0 20} " + PLAIN, ["Ga 0 0 0", "Na 1 2 3"]),
    "charges": ("Properties=species:S:1:pos:R:3:initial_charges:R:1", ["Ga 0 0 0 0.5", "Na 1 2 3 -0.5"]),
    "no atoms": (PLAIN, []),
}


def text_of(*frames) -> str:
    return "".join(f"{len(atoms)}\n{comment}\n" + "".join(f"{line}\n" for line in atoms) for comment, atoms in frames)


def both(path, **wanted):
    """The block as read by this package and by ASE."""
    (ours,) = Frames.open(path, **wanted).blocks(ahead=0)
    by_ase = block_of_frames(
        path,
        {n: frame_by_ase(path, n, text) for n, text in enumerate(text_frames(path))},
        ReadOptions(tuple(wanted.get("properties", ())), tuple(wanted.get("atom_properties", ())), with_atoms=True),
    )
    return ours, by_ase


def assert_equal(ours, by_ase):
    for name in ("number", "z", "pos", "ptr", "periodic"):
        found, expected = getattr(ours, name), getattr(by_ase, name)
        np.testing.assert_array_equal(found, expected, err_msg=name, strict=True)
    for found, expected in ((ours.properties, by_ase.properties), (ours.atom_properties, by_ase.atom_properties)):
        assert list(found) == list(expected)
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name, strict=True)


@pytest.fixture
def no_ase(monkeypatch):
    """Make reading a frame with ASE fail."""

    def refuse(*arguments):
        raise AssertionError("ASE was asked")

    def forbid():
        monkeypatch.setattr(xyz_reader, "frame_by_ase", refuse)

    return forbid


@pytest.mark.parametrize("name", USUAL)
def test_usual_text(name, tmp_path, no_ase):
    (tmp_path / "a.xyz").write_text(text_of(USUAL[name], USUAL[name]), newline="")
    assert_equal(*both(tmp_path / "a.xyz"))
    no_ase()
    assert len(next(iter(Frames.open(tmp_path / "a.xyz").blocks(ahead=0)))) == 2


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_text_goes_through_ase(name, tmp_path, no_ase):
    (tmp_path / "a.xyz").write_text(text_of(UNUSUAL[name], UNUSUAL[name]))
    assert_equal(*both(tmp_path / "a.xyz"))
    no_ase()
    with pytest.raises(AssertionError, match="ASE was asked"):
        list(Frames.open(tmp_path / "a.xyz").blocks(ahead=0))


def test_frames_of_all_kinds_in_one_file(tmp_path):
    frames = [frame for pair in zip(USUAL.values(), [*UNUSUAL.values()] * 2, strict=False) for frame in pair]
    (tmp_path / "a.xyz").write_text(text_of(*frames), newline="")
    assert_equal(*both(tmp_path / "a.xyz"))


VALUES = {
    "energy=-3.5": float,
    "energy=12": int,
    "energy=1e5": float,
    "energy=nan": float,
    "energy=T": bool,
    "energy=57-md": str,
    'energy="-3.5"': float,
    'energy="1 2 3"': int,
    "energy=[1.5, 2]": float,
    "binding_energy=1 energy=2 energy_of=3": int,
    'note="energy=9" energy=2': int,
    'note="a b"energy=9 energy=2': int,
    "energy = 4": int,
    "energy=2 energy=2": int,
    "energy=a=b": str,
    "energy": bool,
}


@pytest.mark.parametrize("value", VALUES)
def test_values_per_frame(value, tmp_path):
    comment = f'Properties=species:S:1:pos:R:3 {value} pbc="F F F"'
    (tmp_path / "a.xyz").write_text(text_of((comment, ["Ga 0 0 0"]), (comment, ["Ga 0 0 1"])))
    ours, by_ase = both(tmp_path / "a.xyz", properties=["energy"])
    assert_equal(ours, by_ase)
    assert isinstance(ours.properties["energy"].ravel()[0].item(), VALUES[value])


def test_values_per_atom(tmp_path, no_ase):
    lines = [f"Ga 0 0 {n} 0.1 -0.2 {n}e-3 {n}" for n in range(3)]
    (tmp_path / "a.xyz").write_text(text_of((FORCES, lines), (FORCES, lines[:2])))
    ours, by_ase = both(tmp_path / "a.xyz", atom_properties=["forces", "tag"], properties=["energy"])
    assert_equal(ours, by_ase)
    assert ours.atom_properties["forces"].shape == (5, 3) and ours.properties["energy"].tolist() == [-30.0, -30.0]
    no_ase()
    next(iter(Frames.open(tmp_path / "a.xyz", atom_properties=["forces", "tag"]).blocks(ahead=0)))


def test_one_broken_line_spoils_one_frame(tmp_path):
    frames = [(PLAIN, [f"Ga 0 0 {n}", "Na 1 2 3"]) for n in range(5)]
    frames[3] = (PLAIN, ["Ga 0 0", "Na 1 2 3 0"])  # as many words, at the wrong positions
    (tmp_path / "a.xyz").write_text(text_of(*frames))
    (block,) = Frames.open(tmp_path / "a.xyz", on_bad="skip")
    assert block.number.tolist() == [0, 1, 2, 4] and [bad.number for bad in block.unreadable] == [3]
    assert block.pos[::2, 2].tolist() == [0, 1, 2, 4]


def test_ase_objects_are_made_when_asked_for(tmp_path, no_ase):
    (tmp_path / "a.xyz").write_text(text_of(*[(FORCES, ["Ga 0 0 0 1 2 3 4"])] * 3))
    (block,) = Frames.open(tmp_path / "a.xyz", with_atoms=True)
    assert len(block.atoms) == 3 and len(block.select([2, 0]).atoms) == 2
    atoms = block.select([2]).atoms[0]
    assert atoms.get_potential_energy() == -30.0 and atoms.arrays["tag"].tolist() == [4]
    assert atoms.get_forces().tolist() == [[1.0, 2.0, 3.0]]
    no_ase()
    with pytest.raises(AssertionError):
        block.atoms[1]


def test_text_is_cut_where_frames_end(tmp_path, monkeypatch):
    """The size of a read does not matter, for compressed or plain text."""
    frames = [(PLAIN, [f"Ga 0 0 {n}"] * (n % 4 + 1)) for n in range(30)]
    text = text_of(*frames).replace("4\nProp", "\n \n4\nProp")
    (tmp_path / "a.xyz").write_text(text)
    (tmp_path / "a.xyz.xz").write_bytes(lzma.compress(text.encode()))
    for size in (1, 7, 100, 1 << 20):
        monkeypatch.setattr("pyg_clusters.frames.text.BYTES_AT_ONCE", size)
        for name in ("a.xyz", "a.xyz.xz"):
            found = list(text_frames(tmp_path / name))
            assert [frame.num_atoms for frame in found] == [n % 4 + 1 for n in range(30)]
            assert [frame.atoms.decode() for frame in found] == [
                "".join(f"{a}\n" for a in atoms) for _, atoms in frames
            ]


def test_a_label_in_some_frames_only(tmp_path):
    (tmp_path / "a.xyz").write_text(text_of((PLAIN, ["Ga 0 0 0"]), ("Properties=species:S:1:pos:R:3", ["Ga 0 0 0"])))
    with pytest.raises(InputError, match="frame 1: no property 'energy'; found per frame: none; per atom: none"):
        list(Frames.open(tmp_path / "a.xyz", properties=["energy"]))

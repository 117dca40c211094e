"""Files that are corrupted, or meant to exhaust the memory: one line, quickly, and never a traceback."""

import gzip
import json
import lzma
import os
import random

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import write

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.files import read_json
from pyg_clusters.frames import Frames, check_block, read_atoms, to_data, write_extxyz, write_store
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference.calibration import Calibration

CLUSTER = Atoms("Au4", [[0, 0, 0], [0, 0, 2.6], [2.6, 0, 0], [2.6, 0, 2.6]], info={"energy": -7.25, "note": "a b"})


def refused(path, words):
    with pytest.raises(InputError, match=words):
        list(Frames.open(path))


@pytest.fixture
def small_bounds(monkeypatch):
    """A frame may have 50 atoms: 10 kB a line, 100 kB in all."""
    monkeypatch.setenv("PYG_CLUSTERS_MAX_ATOMS", "50")


ENDLESS = {
    "a.xyz": b"4\n" + b"a" * 2_000_000,
    "b.xyz": b"4" * 2_000_000,
    "c.xyz": b"40000000\n\n" + b"Au 0 0 0\n" * 4,
    "d.xyz": b"\n" * 2_000_000,
    "e.xyz": b"4\n\n" + b"words\n" * 500_000,
    "f.xyz": b"50\n\n" + (b"Au 0 0 0" + b" " * 9000 + b"\n") * 500,
    "dump.0": b"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n" + b"4" * 2_000_000,
    "dump.1": b"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n51\nITEM: ATOMS id element x y z\n",
    "XDATCAR": b"Au\n1\n9 0 0\n0 9 0\n0 0 9\nAu\n4\nDirect configuration= 1\n" + b"0" * 2_000_000,
    "XDATCAR_1": b"Au\n1\n9 0 0\n0 9 0\n0 0 9\nAu\n51\nDirect configuration= 1\n",
    "POSCAR": b"Au\n1\n9 0 0\n0 9 0\n0 0 9\nAu\n2000000000\nDirect\n0 0 0\n",
}


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz"])
@pytest.mark.parametrize("name", ENDLESS)
def test_bounds_on_a_frame(tmp_path, small_bounds, name, suffix):
    pack = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress}[suffix]
    (tmp_path / (name + suffix)).write_bytes(pack(ENDLESS[name]))
    refused(
        tmp_path / (name + suffix), "if the file is correct, set the environment variable PYG_CLUSTERS_MAX_ATOMS hig"
    )


def test_bounds_can_be_lifted(tmp_path, monkeypatch):
    positions = np.arange(60.0)[:, None] * [2.6, 0, 0]
    write_extxyz(tmp_path / "a.xyz", [Atoms("Au60", positions)])
    write(tmp_path / "a.traj", Atoms("Au60", positions))
    monkeypatch.setenv("PYG_CLUSTERS_MAX_ATOMS", "59")
    refused(tmp_path / "a.xyz", "60 atoms in a frame; if the file is correct")
    (block,) = Frames.open(tmp_path / "a.traj")
    with pytest.raises(InputError, match="frame 0: number of atoms is 60; if the file is correct, set the environment"):
        check_block(block)
    monkeypatch.setenv("PYG_CLUSTERS_MAX_ATOMS", "60")
    assert len(check_block(block)[0]) == len(next(iter(Frames.open(tmp_path / "a.xyz")))) == 1
    monkeypatch.setenv("PYG_CLUSTERS_MAX_ATOMS", "many")
    refused(tmp_path / "a.xyz", "PYG_CLUSTERS_MAX_ATOMS must be a positive number of atoms, got 'many'")


def test_other_formats_unpack_to_a_limited_size(tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_clusters.frames.paths.ALWAYS_UNPACKED", 1000)
    (tmp_path / "a.cif.xz").write_bytes(lzma.compress(b"0" * 3_000_000))
    refused(tmp_path / "a.cif.xz", "unpacks to more than 200 times its size; unpack it yourself if you trust it")
    write(tmp_path / "a.traj", CLUSTER)
    (tmp_path / "a.traj.gz").write_bytes(gzip.compress((tmp_path / "a.traj").read_bytes()))
    assert len(next(iter(Frames.open(tmp_path / "a.traj.gz")))) == 1


@pytest.mark.parametrize("columns", ["a:R:2000000000", "a:R:9999", "a:R:1e9", "a:Q:1", "a:R:-1"])
def test_columns_that_cannot_be(tmp_path, columns):
    text = f"2\nProperties=species:S:1:pos:R:3:{columns} energy=1\nAu 0 0 0\nAu 0 0 2.6\n"
    (tmp_path / "a.xyz").write_text(text)
    refused(tmp_path / "a.xyz", r"a\.xyz, frame 0: ")


UNUSABLE = {
    "1e200 0 0": "the position of atom 1 is [1e+200, 0.0, 0.0]",
    "0 -2e7 0": "the position of atom 1 is [0.0, -20000000.0, 0.0]",
    "nan 0 0": "the position of atom 1 is [nan, 0.0, 0.0]",
}


@pytest.mark.parametrize("position", UNUSABLE)
def test_absurd_positions(tmp_path, position):
    (tmp_path / "a.xyz").write_text(f"2\n\nAu 0 0 0\nAu {position}\n" + "2\n\nAu 0 0 0\nAu 0 0 2.6\n")
    good, bad = read_atoms([tmp_path / "a.xyz"], on_bad="skip"), UNUSABLE[position]
    assert [getattr(frame, "reason", "") for frame in good] == [bad, ""]


def test_dummy_atoms(tmp_path):
    (tmp_path / "a.xyz").write_text("2\n\nAu 0 0 0\nX 0 0 2.6\n")
    with pytest.raises(InputError, match="frame 0: atom 1 is a dummy of atomic number 0; remove it"):
        list(read_atoms([tmp_path / "a.xyz"]))


@pytest.mark.parametrize("lattice", ["", 'Lattice="20 0 0 0 20 0 0 0 20" '])
@pytest.mark.parametrize("number", [119, 2000, -1])
def test_atomic_numbers_without_an_element(tmp_path, number, lattice):
    (tmp_path / "a.xyz").write_text(f"2\n{lattice}Properties=Z:I:1:pos:R:3\n79 0 0 0\n{number} 0 0 2.6\n")
    with pytest.raises(InputError, match=f"frame 0: has an atom of atomic number {number}, which is not an element"):
        list(read_atoms([tmp_path / "a.xyz"]))
    atoms = Atoms([79, number], [[0, 0, 0], [0, 0, 2.6]], cell=[20, 20, 20], pbc=bool(lattice))
    with pytest.raises(InputError, match=f"structure has an atom of atomic number {number}, which is not an element"):
        to_data(atoms)


@pytest.mark.parametrize("vector", ["inf 0 0", "nan 0 0", "1e300 0 0"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_impossible_cells(tmp_path, vector):
    (tmp_path / "POSCAR").write_text(f"Au\n1\n{vector}\n0 20 0\n0 0 20\nAu\n2\nDirect\n0 0 0\n0 0 0.1\n")
    with pytest.raises(InputError, match="POSCAR"):
        list(read_atoms([tmp_path / "POSCAR"]))


def test_an_error_while_prefetching_ends_the_command(tmp_path, capsys):
    """Also if the corrupted value is a property that is read in a thread."""
    frames = [Atoms("Au2", [[0, 0, 0], [0, 0, 2.6]], info={"energy": -0.001 * n}) for n in range(3000)]
    write_extxyz(tmp_path / "a.xyz", frames)
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.xyz", properties=["energy"]))
    content = bytearray((tmp_path / "a.h5").read_bytes())
    generator = random.Random(0)
    for _ in range(300):
        content[generator.randrange(3000, len(content))] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(content)
    command = ["convert", str(tmp_path / "a.h5"), "--out", str(tmp_path / "b.h5"), "--properties", "energy"]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "a.h5" in line and not (tmp_path / "b.h5").exists()


def test_names_that_are_not_utf8(tmp_path, capsys):
    path = os.fsdecode(bytes(tmp_path) + b"/a\xff.xyz")
    for verb in (["info", path], ["convert", path, "--out", str(tmp_path / "a.h5")]):
        assert main(verb) == 2
        assert capsys.readouterr().err.endswith("a\\udcff.xyz': the name is not UTF-8; rename the file\n")


# --- mutations


def originals(folder):
    """A small file of each format."""
    (folder / "dump.0").write_text(
        "".join(
            f"ITEM: TIMESTEP\n{n}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 30\n0 30\n0 30\n"
            f"ITEM: ATOMS id element xs ys zs\n2 Au 0.1 0.1 0.{n + 2}\n1 Au 0.1 0.1 0.1\n"
            for n in range(3)
        )
    )
    frames = [CLUSTER.copy() for _ in range(3)]
    write_extxyz(folder / "a.xyz", frames)
    for atoms in frames:
        atoms.set_cell([20.0, 20.0, 20.0])
        atoms.pbc = True
    write_extxyz(folder / "b.xyz", frames)
    for name in ("XDATCAR", "POSCAR", "a.traj", "a.pdb", "a.cif", "a.gen"):
        write(folder / name, frames if name in ("XDATCAR", "a.traj", "a.pdb") else frames[0])
    for name in ("a.json", "a.db"):
        with connect(folder / name) as database:
            database.write(CLUSTER, energy_of=1.0)
    (folder / "a.xyz.gz").write_bytes(gzip.compress((folder / "a.xyz").read_bytes()))
    return sorted(path.name for path in folder.iterdir())


def mutated(content: bytes, generator: random.Random) -> bytes:
    """The content with bytes, words or lines changed, moved, duplicated or removed."""
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(content) + 1)
        end = min(len(content), start + generator.choice([1, 1, 8, 100]))
        middle = generator.choice(
            [
                b"",
                bytes([generator.randrange(256)]),
                content[start:end] * 2,
                b"\n",
                b" ",
                b"-1",
                b"nan",
                b"1e308",
                b"9" * 12,
            ]
        )
        content = content[:start] + middle + content[generator.choice([start, end]) :]
    return content


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_give_frames_or_one_line(tmp_path):
    (tmp_path / "good").mkdir()
    names = originals(tmp_path / "good")
    generator = random.Random(12)
    refusals = 0
    for number in range(260):
        name = names[number % len(names)]
        path = tmp_path / name
        path.write_bytes(mutated((tmp_path / "good" / name).read_bytes(), generator))
        try:
            for on_bad in ("skip", "stop"):
                for block in Frames.open(path, on_bad=on_bad, with_atoms=True).blocks(ahead=0):
                    kept, _ = check_block(block, on_bad=on_bad)
                    assert np.isfinite(kept.pos).all()
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error), (number, name, error)
            refusals += 1
    assert refusals > 50


def test_frames_without_atoms(tmp_path):
    (tmp_path / "a.xyz").write_text("0\nenergy=1\n0\nenergy=1\n")
    with pytest.raises(InputError, match="frame 0: number of atoms is 0, a cluster has at least two"):
        list(read_atoms([tmp_path / "a.xyz"]))


CALIBRATIONS = [
    ("spread", "some"),
    ("noise", -0.1),
    ("noise", None),
    ("scores", []),
    ("scores", 0.5),
    ("scores", {}),
    ("scores", ["x", 1.0]),
    ("scores", [-0.5, 1.0]),
    ("groups", [0]),
    ("groups", "01"),
    ("groups", [None, 1]),
    ("weights", 3),
    ("covariance", [[1.0, 0.0]]),
    ("covariance", [["x"]]),
    ("notes", []),
    ("range", {"sizes": 3}),
    ("speed", 3),
]


@pytest.mark.parametrize(("name", "value"), CALIBRATIONS)
def test_edited_calibrations(tmp_path, name, value):
    file = tmp_path / "calibration.json"
    Calibration("none", 0.1, [0.5, 0.7], [0, 1], "0123").save(file)
    assert Calibration.load(file).quantile(0.5) == 0.7
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(InputError, match=r"calibration\.json: corrupted .*; recreate it with pyg-clusters calibrate"):
        Calibration.load(file)


@pytest.mark.parametrize("text", ["", "epoch", "epoch,mae\n1", "epoch,mae\n1,x\n", "mae\n1\n", "epoch,mae\n\xff"])
def test_truncated_tables(tmp_path, text):
    file = tmp_path / "metrics.csv"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"metrics\.csv: corrupted .*; restore it"):
        read_columns(file, ["epoch", "mae"], "restore it")


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"a": 1', "[" * 100_000, '{"a": "\udc80"}', "{}\0"])
def test_truncated_json(tmp_path, text):
    file = tmp_path / "model.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"model\.json: corrupted .*; restore it"):
        read_json(file, "restore it")

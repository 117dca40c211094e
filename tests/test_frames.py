import errno
import gzip
import itertools
import lzma
import tarfile
import warnings

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from helpers import assert_refused, only_block

from pyg_clusters.files import atomic_write
from pyg_clusters.frames import (
    BadFrame,
    ExtrapolationWarning,
    check_block,
    read_atoms,
    read_blocks,
    write_extxyz,
    write_table,
)
from pyg_clusters.frames.checks import close_pairs, listed
from pyg_clusters.pairs import radius_pairs
from pyg_clusters.shipped import shipped_folder


def cluster(num_atoms, seed=0, symbol="Ga"):
    """Atoms on a grid of 2.7 Å, each slightly displaced, with an energy, forces and labels."""
    generator = np.random.default_rng([num_atoms, seed])
    grid = np.array(list(itertools.product(range(5), repeat=3))[:num_atoms]) * 2.7
    atoms = Atoms([symbol] * num_atoms, positions=grid + generator.normal(scale=0.05, size=grid.shape))
    energy, forces = -2.4 * num_atoms + generator.normal(), generator.normal(size=grid.shape)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    atoms.info["group"] = f"{num_atoms}-{seed}"
    atoms.arrays["nmr_shielding"] = generator.normal(580, 40, size=num_atoms)
    return atoms


@pytest.fixture
def frames():
    return [cluster(size, seed) for seed, size in enumerate([5, 2, 9, 4, 7])]


def test_shared_advice_is_printed_once():
    """Frames that are left out for similar reasons have the same advice."""
    advice = "; pass --fragments keep"
    bad = [BadFrame("a.xyz", 0, f"in 2 pieces{advice}"), BadFrame("a.xyz", 3, f"in 5 pieces{advice}")]
    bad.append(BadFrame("b.xyz", 1, "no atoms"))
    pieces = ["a.xyz, frame 0: in 2 pieces", "a.xyz, frame 3: in 5 pieces", "pass --fragments keep"]
    assert list(listed(bad)) == [*pieces, "b.xyz, frame 1: no atoms"]
    assert list(listed(bad[1:])) == [f"a.xyz, frame 3: in 5 pieces{advice}", "b.xyz, frame 1: no atoms"]


# --- reading


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.extxyz.xz", "a.xyz.gz", "a.xyz.bz2", "a.traj", "a.json"])
def test_blocks_hold_what_was_written(tmp_path, frames, name):
    path = tmp_path / name
    if name.startswith("a.traj") or name.endswith("json"):
        write(path, [Atoms(f.symbols, f.positions, calculator=f.calc) for f in frames])
    else:
        write_extxyz(path, frames)
    blocks = list(read_blocks(path, properties=["energy"], atom_properties=["forces"], block_size=2))
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert np.concatenate([block.number for block in blocks]).tolist() == [0, 1, 2, 3, 4]
    assert np.concatenate([block.sizes for block in blocks]).tolist() == [5, 2, 9, 4, 7]
    pos = np.concatenate([block.pos for block in blocks])
    forces = np.concatenate([block.atom_properties["forces"] for block in blocks])
    energy = np.concatenate([block.properties["energy"] for block in blocks])
    np.testing.assert_allclose(pos, np.concatenate([f.positions for f in frames]), atol=1e-8)
    np.testing.assert_allclose(forces, np.concatenate([f.get_forces() for f in frames]), atol=1e-8)
    np.testing.assert_allclose(energy, [f.get_potential_energy() for f in frames], rtol=1e-12)
    assert pos.dtype == np.float64 and not any(block.periodic.any() for block in blocks)


def test_a_block_never_spans_two_files(tmp_path, frames):
    write_extxyz(tmp_path / "a.xyz", frames[:2])
    write_extxyz(tmp_path / "b.xyz", frames[2:])
    blocks = list(read_blocks([tmp_path / "a.xyz", str(tmp_path / "b.xyz")], properties=["group"]))
    assert [(block.file, len(block)) for block in blocks] == [(f"{tmp_path}/a.xyz", 2), (f"{tmp_path}/b.xyz", 3)]
    assert blocks[1].number.tolist() == [0, 1, 2]
    assert blocks[0].properties["group"].tolist() == ["5-0", "2-1"]


def test_plain_xyz_and_blank_lines_between_frames(tmp_path):
    (tmp_path / "a.xyz").write_text("2\nno keys here\nGa 0 0 0\nGa 0 0 2.7\n\n2\n\nGa 0 0 0\nGa 0 0 2.8\n\n\n")
    block = only_block(tmp_path / "a.xyz")
    assert block.pos[:, 2].tolist() == [0, 2.7, 0, 2.8]


def test_missing_labels_list_those_found(tmp_path, frames):
    write_extxyz(tmp_path / "a.xyz", frames)
    found = "found per frame: energy, group; per atom: forces, nmr_shielding"
    message = f"{tmp_path}/a.xyz, frame 0: no property 'REF_energy'; {found}"
    assert_refused(lambda: only_block(tmp_path / "a.xyz", properties=["REF_energy"]), message)
    assert_refused(lambda: only_block(tmp_path / "a.xyz", atom_properties=["energy"]), "no property 'energy' per atom")
    del frames[3].info["group"]
    write_extxyz(tmp_path / "b.xyz", frames)
    assert_refused(lambda: only_block(tmp_path / "b.xyz", properties=["group"]), "b.xyz, frame 3: no property 'group'")


def test_files_without_frames(tmp_path):
    assert_refused(lambda: only_block(tmp_path / "none.xyz"), tmp_path / "none.xyz: no such file")
    for name in ("a.xyz", "a.traj"):
        (tmp_path / name).touch()
        assert_refused(lambda name=name: only_block(tmp_path / name), name, "no frames, the file is empty")
    (tmp_path / "b.xyz").write_text("\n\n")
    assert_refused(lambda: only_block(tmp_path / "b.xyz"), "b.xyz: no frames")
    with lzma.open(tmp_path / "c.xyz.xz", "wt"):
        pass
    assert_refused(lambda: only_block(tmp_path / "c.xyz.xz"), "c.xyz.xz: no frames")


def test_unreadable_formats(tmp_path):
    (tmp_path / "notes.doc").write_text("nothing")
    (tmp_path / "a.traj").write_bytes(b"no trajectory" * 10)
    (tmp_path / "a.xyz.xz").write_bytes(b"not compressed")
    (tmp_path / "b.xyz.gz").write_bytes(b"not compressed")
    (tmp_path / "c.xyz").write_bytes(b"\xff\xfe\x00")
    assert_refused(lambda: only_block(tmp_path / "notes.doc"), "notes.doc: neither content nor name identifies a")
    assert_refused(lambda: only_block(tmp_path / "a.traj"), "a.traj: ASE cannot read it")
    assert_refused(
        lambda: only_block(tmp_path / "a.xyz.xz"), "expected a line with the number of atoms, got 'not compr"
    )
    assert_refused(lambda: only_block(tmp_path / "b.xyz.gz"), "b.xyz.gz, frame 0: expected a line with")
    assert_refused(lambda: only_block(tmp_path / "c.xyz"), "c.xyz: is UTF-16 or not text; save it as UTF-8")
    (tmp_path / "d.xyz.gz").write_bytes(gzip.compress(b"2\n\nGa 0 0 0\nGa 0 0 3\n")[:-12] + bytes(12))
    assert_refused(lambda: only_block(tmp_path / "d.xyz.gz"), "d.xyz.gz: cannot be read at frame 0", "corrupted?")
    assert_refused(lambda: only_block(tmp_path), tmp_path)


@pytest.mark.parametrize("lost", [1, 20, 60, 170, 330])
def test_truncated_last_frame(tmp_path, frames, lost):
    path = tmp_path / "a.xyz"
    write_extxyz(path, frames)
    text = path.read_text()
    last = text.rindex("7\nProperties")
    lines_lost = text[last:].count("\n") - text[last:-lost].count("\n")
    assert lines_lost >= 1
    path.write_text(text[:-lost] if lost > 1 else text[: text.rindex(" ")])
    for on_bad in ("stop", "skip"):
        with pytest.warns(UserWarning, match="the file ends within frame 4.*; the complete frames before it are used"):
            block = only_block(path, on_bad=on_bad)
        assert len(block) == 4 and not block.unreadable
    with pytest.warns(UserWarning, match="the file ends within frame 4"):
        assert len(list(read_atoms([path]))) == 4


@pytest.mark.parametrize("opener", [lzma, gzip])
def test_truncated_compression(tmp_path, opener):
    name = "a.xyz.xz" if opener is lzma else "a.xyz.gz"
    write_extxyz(tmp_path / "a.xyz", [cluster(50, seed) for seed in range(60)])
    whole = opener.compress((tmp_path / "a.xyz").read_bytes())
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert_refused(lambda: list(read_blocks(tmp_path / name)), f"{name}, frame ", "the file ends within this frame")


def test_malformed_frames_in_the_middle(tmp_path, frames):
    write_extxyz(tmp_path / "a.xyz", frames)
    lines = (tmp_path / "a.xyz").read_text().splitlines(keepends=True)
    broken = lines.copy()
    broken[9] = "Ga 0.0 zero 0.0 0 0 0 0\n"  # an atom of frame 1
    (tmp_path / "b.xyz").write_text("".join(broken))
    assert_refused(lambda: list(read_blocks(tmp_path / "b.xyz")), "b.xyz, frame 1: cannot be read (")
    block = only_block(tmp_path / "b.xyz", on_bad="skip")
    assert block.number.tolist() == [0, 2, 3, 4] and [bad.number for bad in block.unreadable] == [1]
    (tmp_path / "c.xyz").write_text("".join([*lines[:7], "seven\n", *lines[8:]]))
    assert_refused(lambda: list(read_blocks(tmp_path / "c.xyz")), "c.xyz, frame 1: expected a line with the number")
    (tmp_path / "d.xyz").write_text("-3\n\n")
    assert_refused(lambda: list(read_blocks(tmp_path / "d.xyz")), "d.xyz, frame 0: expected a line with the number")


# --- checks


def block_of(tmp_path, *clusters):
    write(tmp_path / "checked.traj", list(clusters))
    return only_block(tmp_path / "checked.traj")


def test_shipped_frames_are_good():
    block = only_block(shipped_folder("gallium_clusters") / "gallium_md_46_quenched.extxyz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept, bad = check_block(block, atomic_numbers=[31], size_range=(31, 70))
    assert kept is block and not bad


def spoilt(change):
    atoms = cluster(8, seed=1)
    change(atoms)
    return atoms


BAD = {
    "the position of atom 3 is [nan, ": lambda a: a.positions.__setitem__((3, 0), np.nan),
    "the position of atom 0 is [": lambda a: a.positions.__setitem__((0, 2), -np.inf),
    "number of atoms is 1, a cluster has at least two": lambda a: a.__delitem__(slice(1, None)),
    "two atoms (3 and 7) are 0.12 Å apart": lambda a: a.positions.__setitem__(7, a.positions[3] + [0, 0.12, 0]),
    "two atoms (0 and 1) are 0.00 Å apart": lambda a: a.positions.__setitem__(1, a.positions[0]),
    "atom 2 is Na, but the model knows only Al, Ga": lambda a: a.numbers.__setitem__(2, 11),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_frames_stop_the_run_or_are_listed(tmp_path, reason):
    bad_one = spoilt(BAD[reason])
    block = block_of(tmp_path, cluster(4), cluster(6), bad_one, cluster(5), bad_one)
    known = {"atomic_numbers": [31, 13]}
    assert_refused(lambda: check_block(block, **known), "checked.traj, frame 2: " + reason, "--on-bad skip")
    kept, bad = check_block(block, on_bad="skip", **known)
    assert kept.number.tolist() == [0, 1, 3] and kept.sizes.tolist() == [4, 6, 5]
    assert [frame.number for frame in bad] == [2, 4] and all(frame.reason.startswith(reason) for frame in bad)
    np.testing.assert_array_equal(kept.pos[-5:], cluster(5).positions)


def test_a_box_with_vacuum_is_not_a_crystal_and_no_pbc_means_no_cell(tmp_path):
    boxed = cluster(5)
    boxed.set_cell([20, 20, 20])
    boxed.pbc = True
    open_box = cluster(5)
    open_box.set_cell([20, 20, 20])
    block = block_of(tmp_path, boxed, open_box)
    assert block.periodic.tolist() == [True, False]
    kept, bad = check_block(block)
    assert len(kept) == 2 and not bad


def test_all_frames_bad_leaves_an_empty_block(tmp_path):
    block = block_of(tmp_path, Atoms("Ga"), Atoms("Ga"))
    kept, bad = check_block(block, on_bad="skip", size_range=(31, 70))
    assert len(kept) == 0 and len(bad) == 2
    assert check_block(kept, atomic_numbers=[31])[1] == []


def test_close_pairs_are_those_of_the_exact_pair_list(tmp_path):
    generator = np.random.default_rng(1)
    dense = [Atoms("Ga30", positions=generator.uniform(0, 4, size=(30, 3))) for _ in range(20)]
    flat = Atoms("Ga30", positions=generator.uniform(0, 4, size=(30, 3)) * [0, 1, 1])  # one x: all pairs are compared
    block = block_of(tmp_path, *dense, flat)
    first, second, distance = close_pairs(block, 0.5)
    pairs, distances = radius_pairs(torch.from_numpy(block.pos), torch.from_numpy(block.ptr), 0.5)
    expected = {(i, j) for i, j in pairs.T.tolist() if i < j}
    found = [(min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert len(found) > 50 and len(found) == len(set(found)) and set(found) == expected
    np.testing.assert_allclose(np.sort(distance), distances.sort().values[::2].numpy())


@pytest.mark.parametrize(
    ("size_range", "words"),
    [
        ((5, 9), None),
        ((6, 9), "clusters of 5 atoms are outside the 6 to 9 atoms that the model was trained on"),
        ((5, 8), "clusters of 9 atoms are outside the 5 to 8 atoms"),
        ((11, 20), "clusters of 5 atoms are far outside the 11 to 20 atoms"),
        ((3, 4), "clusters of 9 atoms are far outside the 3 to 4 atoms"),
    ],
)
def test_sizes_outside_the_training_set_give_a_warning(tmp_path, size_range, words):
    block = block_of(tmp_path, cluster(5), cluster(9), cluster(7))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(10):
            assert len(check_block(block, size_range=size_range)[0]) == 3
    assert len(caught) == (words is not None)
    if words:
        assert caught[0].category is ExtrapolationWarning and words in str(caught[0].message)
        assert caught[0].filename == __file__


# --- writing


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_tables_hold_their_columns(tmp_path, name):
    columns = {"file": ["a", "b"], "frame": np.array([3, 4]), "pred_energy": torch.tensor([-1.5, 0.1])}
    write_table(tmp_path / name, columns)
    reader = pyarrow.csv.read_csv if name.endswith("csv") else pyarrow.parquet.read_table
    table = reader(tmp_path / name).to_pydict()
    assert list(table) == list(columns) and table["file"] == ["a", "b"] and table["frame"] == [3, 4]
    assert table["pred_energy"] == pytest.approx([-1.5, 0.1], rel=1e-6)


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.xyz.xz", "a.xyz.gz"])
def test_frames_are_read_by_ase_again(tmp_path, frames, name):
    write_extxyz(tmp_path / name, (frame for frame in frames))
    again = read(tmp_path / name, ":", format="extxyz")
    assert [len(frame) for frame in again] == [5, 2, 9, 4, 7]
    assert again[2].get_potential_energy() == pytest.approx(frames[2].get_potential_energy())


def test_other_types_are_refused_with_the_list(tmp_path, frames):
    assert_refused(lambda: write_table(tmp_path / "a.xls", {"a": [1]}), "a.xls", "'.xls'", "use one of .csv, .parquet")
    assert_refused(lambda: write_extxyz(tmp_path / "a.pdb", frames), "a.pdb", "use one of .xyz, .extxyz")
    assert not list(tmp_path.iterdir())


def test_replacing_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
        assert temporary.parent == path.parent and temporary.suffix == ".txt" and not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, frames, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    def fill(path):
        with atomic_write(path):
            full()

    (tmp_path / "a.txt").write_text("old")
    assert_refused(
        lambda: fill(tmp_path / "a.txt"), f"cannot write {tmp_path}/a.txt: No space left on device; make room"
    )
    assert (tmp_path / "a.txt").read_text() == "old"

    monkeypatch.setattr("pyg_clusters.frames.writing.extxyz_text", full)
    monkeypatch.setitem(write_table.__globals__["TABLE_WRITERS"], ".csv", full)
    assert_refused(lambda: write_extxyz(tmp_path / "b.xyz", frames), "b.xyz: No space left on device")
    assert_refused(lambda: write_table(tmp_path / "b.csv", {"a": [1]}), "b.csv: No space left on device")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert_refused(lambda: write_table(tmp_path / "file" / "a.csv", {"a": [1]}), "cannot write", "file/a.csv")


def test_a_last_line_without_an_end_gives_a_warning(tmp_path):
    path = tmp_path / "md.xyz"
    path.write_text("2\n\nGa 0 0 0\nGa 0 0 2.75")
    with pytest.warns(UserWarning, match="frame 0: the last line has no newline"):
        assert len(list(read_blocks(path))) == 1


@pytest.mark.parametrize("name", ["a.dat", "a.out", "a.log", "a.pdb", "POSCAR"])
def test_xyz_is_known_by_its_content_under_any_name(tmp_path, frames, name):
    lines = [f"Ga {x} {y} {z}" for x, y, z in frames[0].positions]
    (tmp_path / name).write_text("\n".join([str(len(lines)), "a comment", *lines, ""]) * 2)
    assert len(only_block(tmp_path / name)) == 2


def test_other_compressions_are_named(tmp_path):
    (tmp_path / "md.xyz.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(30))
    assert_refused(lambda: only_block(tmp_path / "md.xyz.zst"), "md.xyz.zst", "zstd", "unpack it")
    with tarfile.open(tmp_path / "md.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "md.xyz.zst")
    assert_refused(lambda: only_block(tmp_path / "md.tar.gz"), "md.tar.gz: is packed by tar", "unpack it")

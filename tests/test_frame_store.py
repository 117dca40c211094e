"""Frames are read back unchanged from the HDF5 store, also with h5py alone."""

from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers import assert_refused as refused

from pyg_clusters.cli import main
from pyg_clusters.frames import Frames, write_extxyz, write_store

SIZES = (5, 2, 9, 4, 7, 5, 30)
LABELS = {"properties": ["energy", "group"], "atom_properties": ["forces", "nmr_shielding"]}


def cluster(num_atoms: int, seed: int) -> Atoms:
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)[:num_atoms] * 2.8
    atoms = Atoms([31] * (num_atoms - 1) + [13], positions=grid + generator.normal(scale=0.1, size=grid.shape))
    forces = generator.normal(size=grid.shape)
    atoms.calc = SinglePointCalculator(atoms, energy=generator.normal(), forces=forces)
    atoms.info["group"] = f"{num_atoms}-{seed}"
    atoms.arrays["nmr_shielding"] = generator.normal(580, 40, size=num_atoms)
    return atoms


@pytest.fixture
def paths(tmp_path):
    """Two text files."""
    frames = [cluster(size, seed) for seed, size in enumerate(SIZES)]
    write_extxyz(tmp_path / "a.extxyz", frames[:4])
    write_extxyz(tmp_path / "b.extxyz", frames[4:])
    return [tmp_path / "a.extxyz", tmp_path / "b.extxyz"]


def joined(blocks, name):
    return np.concatenate([getattr(block, name) for block in blocks])


@pytest.mark.parametrize("block_size", [1, 3, 1000])
def test_frames_come_out_as_they_went_in(paths, tmp_path, block_size):
    store = tmp_path / "store.h5"
    assert write_store(store, Frames.open(paths, **LABELS, block_size=2)) == len(SIZES)
    before = list(Frames.open(paths, **LABELS))
    after = list(Frames.open(store, **LABELS, block_size=block_size))
    assert [len(block) for block in after] == [1] * 7 if block_size == 1 else True
    for name in ("z", "pos", "sizes", "periodic"):
        np.testing.assert_array_equal(joined(after, name), joined(before, name), strict=True)
    for key in LABELS["properties"]:
        values = [np.concatenate([block.properties[key] for block in blocks]) for blocks in (after, before)]
        np.testing.assert_array_equal(*values)
    for key in LABELS["atom_properties"]:
        values = [np.concatenate([block.atom_properties[key] for block in blocks]) for blocks in (after, before)]
        np.testing.assert_array_equal(*values)
    origin = [(str(file), int(number)) for block in after for file, number in zip(*block.origin, strict=True)]
    assert origin == [(str(paths[0]), n) for n in range(4)] + [(str(paths[1]), n) for n in range(3)]
    assert joined(after, "number").tolist() == list(range(7)) and {block.file for block in after} == {str(store)}


def test_h5py_alone_reads_it(paths, tmp_path):
    write_store(tmp_path / "store.h5", Frames.open(paths, **LABELS))
    with h5py.File(tmp_path / "store.h5") as file:
        assert np.diff(file["ptr"]).tolist() == list(SIZES)
        third = slice(*file["ptr"][2:4])
        expected = cluster(9, 2)
        np.testing.assert_allclose(file["pos"][third], expected.positions, atol=1e-8)
        np.testing.assert_array_equal(file["z"][third], expected.numbers)
        np.testing.assert_allclose(file["atom_properties/forces"][third], expected.get_forces(), atol=1e-8)
        assert file["properties/energy"][2] == pytest.approx(expected.get_potential_energy())
        assert file["properties/group"][2] == b"9-2"
        units = {name: file[name].attrs["units"] for name in ("pos", "properties/energy", "atom_properties/forces")}
        assert units == {"pos": "Å", "properties/energy": "eV", "atom_properties/forces": "eV/Å"}
        assert file["atom_properties/nmr_shielding"].attrs["units"] == "ppm"
        assert all(file[name].compression == "gzip" and file[name].chunks for name in ("pos", "z", "ptr"))


def test_a_store_of_stores_knows_the_first_origin(paths, tmp_path):
    write_store(tmp_path / "one.h5", Frames.open(paths))
    write_store(tmp_path / "two.h5", Frames.open([tmp_path / "one.h5", paths[0]]))
    (block,) = Frames.open(tmp_path / "two.h5")
    assert block.origin[0][[0, 4, 7]].tolist() == [str(paths[0]), str(paths[1]), str(paths[0])]
    assert block.origin[1].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3]


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_single_precision_rounds_by_the_extent_of_a_cluster(tmp_path, offset):
    frames = [cluster(size, seed) for seed, size in enumerate(SIZES)]
    for atoms in frames:
        atoms.positions += offset
    write_extxyz(tmp_path / "far.extxyz", frames)
    write_store(tmp_path / "single.h5", Frames.open(tmp_path / "far.extxyz"), single=True)
    (block,), (before,) = Frames.open(tmp_path / "single.h5"), Frames.open(tmp_path / "far.extxyz")
    assert block.pos.dtype == np.float64
    for start, end in pairwise(before.ptr):
        expected = before.pos[start:end] - before.pos[start:end].mean(axis=0)
        np.testing.assert_allclose(block.pos[start:end], expected, rtol=0, atol=1e-6)


def labelled(path, *labels, atom_type="R"):
    """A file of two-atom frames with text labels, per frame or per atom."""
    frames = []
    for label in labels:
        per_atom, per_frame = (f":q:{atom_type}:1", "") if isinstance(label, tuple) else ("", f" e={label}")
        q = label if per_atom else ("", "")
        lines = [f"Na 0.0 0.0 {z} {value}" for z, value in zip((0.0, 3.1), q, strict=True)]
        frames.append("\n".join(["2", f"Properties=species:S:1:pos:R:3{per_atom}{per_frame}", *lines]) + "\n")
    path.write_text("".join(frames))
    return path


@pytest.mark.parametrize("block_size", [1, 1000])
def test_numbers_are_stored_in_double_precision_whatever_the_first_is(tmp_path, block_size):
    first = labelled(tmp_path / "a.xyz", "0", "9007199254740992")
    second = labelled(tmp_path / "b.xyz", "0.73", "-1.99", "-3.1415")
    frames = Frames.open([first, second], properties=["e"], block_size=block_size)
    write_store(tmp_path / "s.h5", frames)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["properties/e"].dtype == np.float64
        assert file["properties/e"][:].tolist() == [0, 2**53, 0.73, -1.99, -3.1415]
    first = labelled(tmp_path / "qa.xyz", ("1", "-1"), atom_type="I")
    second = labelled(tmp_path / "qb.xyz", ("0.4", "-0.4"))
    write_store(tmp_path / "q.h5", Frames.open([first, second], atom_properties=["q"]))
    (block,) = Frames.open(tmp_path / "q.h5", atom_properties=["q"])
    assert block.atom_properties["q"].tolist() == [1, -1, 0.4, -0.4]


def test_texts_and_truth_values_stay_what_they_are(tmp_path):
    texts = Frames.open(labelled(tmp_path / "a.xyz", "md", '"a b"', "Ü"), properties=["e"])
    write_store(tmp_path / "texts.h5", texts)
    (block,) = Frames.open(tmp_path / "texts.h5", properties=["e"])
    assert block.properties["e"].tolist() == ["md", "a b", "Ü"]
    write_store(tmp_path / "truth.h5", Frames.open(labelled(tmp_path / "b.xyz", "T", "F"), properties=["e"]))
    (block,) = Frames.open(tmp_path / "truth.h5", properties=["e"])
    assert block.properties["e"].dtype == bool and block.properties["e"].tolist() == [True, False]


@pytest.mark.parametrize("block_size", [1, 1000])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("1", "a"), "b.xyz, frame 0: 'e' is 'a', a text, but a number in the frames before"),
        (("a", "1.5"), "b.xyz, frame 0: 'e' is 1.5, a number, but a text in the frames before"),
        (("1.5", "T"), "b.xyz, frame 0: 'e' is True, true or false, but a number in the frames before"),
        (("1.5", "9007199254740993"), "'e' is 9007199254740993, which double precision would round"),
        (("1.5", '"1 2"'), "b.xyz, frame 0: 'e' is [1, 2], which differs in shape from ()"),
        (("1.5", '"_JSON {}"'), "b.xyz"),
    ],
)
def test_values_of_different_kinds_are_named(tmp_path, labels, words, block_size):
    paths = [labelled(tmp_path / f"{name}.xyz", label) for name, label in zip("ab", labels, strict=True)]
    frames = Frames.open(paths, properties=["e"], block_size=block_size)
    refused(lambda: write_store(tmp_path / "s.h5", frames), words)
    both = labelled(tmp_path / "both.xyz", *labels)  # in one block, too
    frames = Frames.open(both, properties=["e"], block_size=block_size)
    refused(lambda: write_store(tmp_path / "s.h5", frames), "both.xyz, frame 1: 'e' is ")
    assert not (tmp_path / "s.h5").exists()


def test_values_of_atoms_of_several_kinds_are_named(tmp_path):
    numbers = labelled(tmp_path / "a.xyz", ("1.5", "2.5")).read_text()
    texts = labelled(tmp_path / "b.xyz", ("core", "shell"), atom_type="S").read_text()
    (tmp_path / "both.xyz").write_text(numbers + texts)
    frames = Frames.open(tmp_path / "both.xyz", atom_properties=["q"])
    refused(lambda: write_store(tmp_path / "s.h5", frames), "both.xyz, frame 1: 'q' is 'core', a text, but a number")


def test_a_label_missing_in_later_blocks_is_named(tmp_path):
    path = labelled(tmp_path / "a.xyz", "1.5")
    blocks = [*Frames.open(path, properties=["e"]), *Frames.open(path)]
    refused(lambda: write_store(tmp_path / "s.h5", blocks), "a.xyz, frame 0: has no label 'e'")
    refused(lambda: write_store(tmp_path / "s.h5", blocks[::-1]), "a.xyz, frame 0: has label 'e'")


def test_frames_of_a_store_as_ase_has_them(paths, tmp_path):
    write_store(tmp_path / "store.h5", Frames.open(paths, **LABELS))
    (block,) = Frames.open(tmp_path / "store.h5", with_atoms=True)
    atoms = block.select([2]).atoms[0]
    assert atoms.info["group"] == "9-2" and atoms.info["energy"] == pytest.approx(cluster(9, 2).get_potential_energy())
    np.testing.assert_allclose(atoms.arrays["nmr_shielding"], cluster(9, 2).arrays["nmr_shielding"], atol=1e-8)


def test_bad_stores(paths, tmp_path):
    store = tmp_path / "store.h5"
    write_store(store, Frames.open(paths, properties=["energy"]))
    found = "store.h5: no property 'REF_energy'; found per frame: energy; per atom: none"
    refused(lambda: list(Frames.open(store, properties=["REF_energy"])), found)
    refused(lambda: list(Frames.open(store, atom_properties=["forces"])), "no property 'forces' per atom")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["positions"] = np.zeros((3, 3))
    refused(lambda: list(Frames.open(tmp_path / "other.h5")), "other.h5", "not a frame store", "convert")
    (tmp_path / "cut.h5").write_bytes(store.read_bytes()[:2000])
    refused(lambda: list(Frames.open(tmp_path / "cut.h5")), "cut.h5: cannot be read", "corrupted?")
    refused(lambda: write_store(tmp_path / "a.npz", []), "a.npz", ".h5")
    refused(lambda: write_store(tmp_path / "none.h5", []), "no frames to write")
    assert not (tmp_path / "none.h5").exists()


def test_a_store_is_complete_or_absent(paths, tmp_path):
    def blocks():
        yield from Frames.open(paths[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store.h5", blocks())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.extxyz", "b.extxyz"]


def test_convert(paths, tmp_path, capsys):
    out = tmp_path / "store.h5"
    assert main(["convert", *map(str, paths), "--out", str(out), "--properties", "energy"]) == 0
    assert f"7 frames in {out}" in capsys.readouterr().out
    assert main(["convert", *map(str, paths), "--out", str(out)]) == 2 and "--overwrite" in capsys.readouterr().err
    assert main(["convert", "--out", str(out)]) == 2 and "FRAMES missing" in capsys.readouterr().err
    assert main(["convert", str(paths[0]), "--out", str(paths[1])]) == 2
    with h5py.File(out) as file:
        assert list(file["properties"]) == ["energy"] and "atom_properties" not in file


def test_convert_leaves_bad_frames_out_on_request(paths, tmp_path, capsys):
    boxed = cluster(5, 9)
    boxed.set_cell([20, 20, 3])
    boxed.pbc = True
    write_extxyz(tmp_path / "c.extxyz", [cluster(4, 1), boxed])
    out = tmp_path / "store.h5"
    assert main(["convert", str(tmp_path / "c.extxyz"), "--out", str(out)]) == 2
    assert "frame 1: is connected to its own image along c" in capsys.readouterr().err and not out.exists()
    assert main(["convert", str(tmp_path / "c.extxyz"), "--out", str(out), "--on-bad", "skip"]) == 0
    assert "1 frame in" in capsys.readouterr().out


def test_positions_are_those_of_the_text_to_the_last_bit(tmp_path):
    pos = torch.rand(40, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0)).numpy() * 1000
    write_extxyz(tmp_path / "a.xyz", [Atoms("Ga40", positions=pos)])
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.xyz"))
    text, store = (next(iter(Frames.open(tmp_path / name))).pos for name in ("a.xyz", "a.h5"))
    assert text.tobytes() == store.tobytes()

"""Frames written as extended XYZ are read back unchanged by ASE and by the block parser, or refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, write_extxyz
from pyg_clusters.frames.resume import FrameLog
from pyg_clusters.frames.writing import extxyz_text

TEXTS = (
    "two\nlines",
    "dos\r\nlines",
    "old\rmac",
    "form\x0cfeed",
    "next\x85line",
    "line\u2028separator",
    'double "quotes"',
    "single 'quotes'",
    '"',
    "back\\slash",
    "\\n",
    "end\\",
    "",
    " ",
    "  padded  ",
    "tab\tbed",
    "a=b",
    "a=b c=d",
    "{braces}",
    "[brackets]",
    "a, b",
    "1",
    "1.0",
    "-3.14e5",
    "1 2 3",
    "1_000",
    "nan",
    "inf",
    "T",
    "False",
    "T F T",
    "_JSON",
    '_JSON {"a": 1}',
    "_JSON nonsense",
    "Ünïcödé 金",
    "µ Å",
    "🜚",
    "zero\x00byte",
    "Properties=species:S:1",
    'Lattice="1 0 0 0 1 0 0 0 1"',
    "x" * 5000,
)


def cluster(**info):
    return Atoms("NaGa", positions=[[0, 0, 0], [0, 0, 2.8]], info=info)


def random_texts(number):
    generator = np.random.default_rng(0)
    alphabet = list("ab1 .,=:\"'\\{}[]()\n\r\t\x0b\x85\u2029_JSON TF-é金")
    return ["".join(generator.choice(alphabet, generator.integers(1, 9))) for _ in range(number)]


def test_texts_are_read_back_as_they_were(tmp_path):
    texts = [*TEXTS, *random_texts(300)]
    frames = [cluster(before=1.5, note=text, after="md") for text in texts]
    write_extxyz(tmp_path / "a.extxyz", frames)
    assert [atoms.info["note"] for atoms in read(tmp_path / "a.extxyz", ":")] == texts
    assert all(atoms.info["after"] == "md" for atoms in read(tmp_path / "a.extxyz", ":"))
    (block,) = Frames.open(tmp_path / "a.extxyz", properties=["note", "before"], with_atoms=True)
    assert block.properties["note"].tolist() == texts and set(block.properties["before"]) == {1.5}
    assert [atoms.info["note"] for atoms in block.atoms] == texts


def test_a_log_recovers_frames_of_any_text(tmp_path):
    log = FrameLog(tmp_path / "log.extxyz", {"seed": 0})
    for text in TEXTS:
        log.append(cluster(note=text))
    assert [atoms.info["note"] for atoms in FrameLog(tmp_path / "log.extxyz", {"seed": 0}).frames] == list(TEXTS)


@pytest.mark.parametrize(
    "value",
    [
        None,
        ["a\nb", 'c"d'],
        {"a": "b\nc", "d": [1, {"e": "\\"}]},
        np.array(["x y", "z\n"]),
        [1, "a"],
        np.array([[1.5, 2.5], [3.5, 4.5]]),
        True,
        3,
        -2.5e-30,
        np.array([1.5, 2.5, 3.5]),
    ],
)
def test_other_values_are_read_back_as_they_were(tmp_path, value):
    write_extxyz(tmp_path / "a.extxyz", [cluster(value=value, after="md")])
    (block,) = Frames.open(tmp_path / "a.extxyz", with_atoms=True)
    for found in (read(tmp_path / "a.extxyz"), block.atoms[0]):
        expected = value.tolist() if isinstance(value, np.ndarray) else value
        given = found.info["value"]
        assert (given.tolist() if isinstance(given, np.ndarray) else given) == expected
        assert found.info["after"] == "md"


@pytest.mark.parametrize("key", ["with space", "ünï", "a.b-c/d", "it's", 'say "so"', "a,b", "{a}"])
def test_keys_are_read_back_or_refused(tmp_path, key):
    atoms = cluster(after="md")
    atoms.info[key] = "x y"
    try:
        write_extxyz(tmp_path / "a.extxyz", [atoms])
    except InputError as error:
        assert repr(key) in str(error) and "rename" in str(error)
        return
    assert read(tmp_path / "a.extxyz").info == {key: "x y", "after": "md"}


@pytest.mark.parametrize("key", ["a=b", "two\nlines", "Lattice", "properties", "pbc", "", 5])
def test_keys_that_would_change_the_frame_are_refused(key):
    atoms = cluster()
    atoms.info[key] = "1 0 0 0 1 0 0 0 1"
    with pytest.raises(InputError, match=r"a frame: the key .* rename it"):
        extxyz_text(atoms)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("tag", ["a b", "c"], "'tag' of an atom is 'a b'"),
        ("tag", ["", "c"], "'tag' of an atom is ''"),
        ("tag", ["a", "b\n"], "'tag' of an atom is"),
        ("a b", [1.0, 2.0], "the name 'a b'"),
        ("a:R:1", [1.0, 2.0], "the name 'a:R:1'"),
        ("tensor", np.zeros((2, 3, 3)), "cannot be columns"),
        ("phase", np.zeros(2, complex), "cannot be columns"),
        ("count", [2**40, 1], "too large an integer"),
    ],
)
def test_impossible_columns_are_named(name, values, words):
    atoms = cluster()
    atoms.arrays[name] = np.array(values)
    with pytest.raises(InputError, match=words):
        extxyz_text(atoms, "md.xyz, frame 3")


def test_results_of_a_calculator_belong_to_their_positions():
    """An energy is written once, and not with positions to which it does not belong; a cluster may be shifted."""
    atoms = cluster()
    atoms.info["energy"] = -1.25
    atoms.calc = SinglePointCalculator(atoms, energy=-1.25, forces=np.zeros((2, 3)))
    atoms.positions += 7.0
    assert "energy=-1.25" in extxyz_text(atoms)
    atoms.cell, atoms.pbc = [20.0, 20.0, 8.0], True
    atoms.wrap()
    assert atoms.positions[0, 2] > atoms.positions[1, 2] and "energy=-1.25" in extxyz_text(atoms)
    atoms.info["energy"] = -2.0
    with pytest.raises(InputError, match=r"frame 3: 'energy' is -2\.0, but -1\.25 in the results of its calculator"):
        extxyz_text(atoms, "md.xyz, frame 3")
    del atoms.info["energy"]
    atoms.positions[1, 2] += 0.1
    with pytest.raises(InputError, match="frame 3: 'energy' was calculated at other positions; calculate it again"):
        extxyz_text(atoms, "md.xyz, frame 3")


def test_unsigned_integers_and_texts_of_atoms(tmp_path):
    atoms = cluster()
    atoms.arrays |= {"count": np.array([7, 200], dtype=np.uint8), "site": np.array(["core", "Ü"])}
    write_extxyz(tmp_path / "a.extxyz", [atoms])
    found = read(tmp_path / "a.extxyz")
    assert found.arrays["count"].tolist() == [7, 200] and found.arrays["site"].tolist() == ["core", "Ü"]

"""Frames of any format: order, parts, prefetching, and files that are still being written."""

import gc
import os
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.geometry import cellpar_to_cell, wrap_positions
from ase.io import write
from helpers import in_child
from scipy.spatial.distance import pdist

from pyg_clusters.concurrency import read_ahead
from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.frames import Frames, Shard, mdanalysis_reader, read_atoms, write_extxyz, write_store
from pyg_clusters.structures import sblda


def dimers(first: int, number: int) -> list[Atoms]:
    """Clusters that differ in size and in a distance."""
    return [
        Atoms(f"Na{2 + n % 3}", [[0, 0, 3.0 * k + 0.01 * n] for k in range(2 + n % 3)])
        for n in range(first, first + number)
    ]


@pytest.fixture
def files(tmp_path):
    """Text, compressed text, ASE's own format, and a store."""
    write_extxyz(tmp_path / "a.xyz", dimers(0, 11))
    write_extxyz(tmp_path / "b.xyz.gz", dimers(11, 3))
    write(tmp_path / "c.traj", dimers(14, 7))
    write_extxyz(tmp_path / "d.xyz", dimers(21, 9))
    write_store(tmp_path / "d.h5", Frames.open(tmp_path / "d.xyz"))
    return [tmp_path / name for name in ("a.xyz", "b.xyz.gz", "c.traj", "d.h5")]


def first_z(blocks):
    """Values that identify each frame."""
    return [round(float(block.pos[start, 2]) * 100) for block in blocks for start in block.ptr[:-1]]


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_formats_mix(files, ahead):
    frames = Frames.open(files, block_size=4)
    assert first_z(frames.blocks(ahead=ahead)) == list(range(30))
    places = [block.position for block in frames.blocks(ahead=ahead)]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert [len(list(read_atoms([path]))) for path in files] == [11, 3, 7, 9]


def test_reading_starts_at_any_block(files):
    frames = Frames.open(files, block_size=4)
    blocks = list(frames)
    for number, block in enumerate(blocks):
        assert first_z(frames.blocks(start=block.position)) == first_z(blocks[number:])
    assert first_z(frames.blocks(start=(0, 3))) == list(range(11, 30))  # the first file has no block 3
    assert first_z(frames.blocks(start=(3, 3))) == []


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_parts_hold_each_frame_once(files, count):
    frames = Frames.open(files, block_size=4)
    parts = [first_z(frames.blocks(shard=Shard(number, count))) for number in range(1, count + 1)]
    assert sorted(z for part in parts for z in part) == list(range(30))
    assert all(part == sorted(part) for part in parts)
    many = Frames.open([files[1]] * 12)
    assert {len(list(many.blocks(shard=Shard(number, 4)))) for number in range(1, 5)} == {3}


def test_nothing_is_read_before_it_is_asked_for(files):
    missing = Frames.open([files[0], "none.xyz"], block_size=4)
    blocks = missing.blocks()
    assert [len(next(blocks)) for _ in range(3)] == [4, 4, 3]
    with pytest.raises(InputError, match=r"none\.xyz: no such file"):
        next(blocks)


def test_prefetching_is_bounded_and_ends_with_its_reader():
    made = []

    def slow():
        for number in range(1000):
            made.append(number)
            yield number

    ahead = read_ahead(slow(), depth=3)
    assert next(ahead) == 0
    time.sleep(0.2)
    assert len(made) <= 1 + 3 + 1
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]

    def failing():
        yield 1
        yield 2
        raise KeyError("three")

    found = []
    with pytest.raises(KeyError, match="three"):
        found.extend(read_ahead(failing(), depth=5))
    assert list(read_ahead([], depth=2)) == []


def test_an_abandoned_reader_may_be_collected_at_any_moment():
    """The garbage collector may close a reader within any call of another one, and must not wait for its locks."""

    def cycle():
        ahead = read_ahead((number for number in range(9)), depth=2)
        next(ahead)
        objects = [ahead]
        objects.append(objects)
        return objects

    def work():
        abandoned = [cycle() for _ in range(100)]

        def collect(frame, event, argument):
            if event == "call" and abandoned:
                abandoned.pop()
                gc.collect()

        sys.setprofile(collect)
        found = list(read_ahead(range(20), depth=3))
        sys.setprofile(None)
        return int(found != list(range(20)) or len(abandoned) == 100)

    child, deadline = in_child(work), time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


def test_a_trajectory_that_is_still_being_written(tmp_path):
    path = tmp_path / "md.xyz"
    write_extxyz(path, dimers(0, 6))
    text = path.read_text()
    starts = [
        0,
        *(
            place + 1
            for place in range(len(text))
            if text[place] == "\n" and text[place + 1 : place + 3] in ("2\n", "3\n", "4\n")
        ),
    ]
    for cut in range(starts[4] + 1, starts[5] - 18, 5):  # a truncated last number cannot be recognised
        path.write_text(text[:cut])
        with pytest.warns(UserWarning, match="frame 4 and is perhaps still being .*; the complete frames before it"):
            (block,) = Frames.open(path)
        assert block.number.tolist() == [0, 1, 2, 3] and not block.unreadable
    path.write_text(text[: starts[1] - 20])
    with pytest.raises(InputError, match="frame 0: the file ends within this frame"):
        list(Frames.open(path))


def test_a_compressed_file_that_breaks_off_is_damaged(tmp_path):
    write_extxyz(tmp_path / "md.xyz.gz", dimers(0, 600))
    whole = (tmp_path / "md.xyz.gz").read_bytes()
    (tmp_path / "md.xyz.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="the file ends within this frame"):
        list(Frames.open(tmp_path / "md.xyz.gz"))


# MDAnalysis


@pytest.fixture
def topology(tmp_path):
    write_extxyz(tmp_path / "first.xyz", [Atoms("Ga4Al", np.zeros((5, 3)))])
    return tmp_path / "first.xyz"


def test_positions_alone_need_a_topology(tmp_path, monkeypatch, topology):
    (tmp_path / "md.dcd").write_bytes(b"nothing")
    monkeypatch.setattr(mdanalysis_reader, "_opener", lambda path: None)
    with pytest.raises(InputError, match=r"md\.dcd: DCD holds positions only; .* --topology FILE"):
        Frames.open(tmp_path / "md.dcd")


def test_without_mdanalysis_the_extra_is_named(tmp_path, monkeypatch, topology):
    (tmp_path / "md.dcd").write_bytes(b"nothing")
    monkeypatch.setitem(sys.modules, "MDAnalysis.coordinates.DCD", None)
    with pytest.raises(MissingExtra, match=r"needs MDAnalysis; install it with: pip install 'pyg-clusters\[traj\]'"):
        Frames.open(tmp_path / "md.dcd", topology=topology)


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "trr"])
@pytest.mark.filterwarnings("ignore")  # MDAnalysis warns of time steps and units when it writes
def test_binary_trajectories(tmp_path, suffix, topology):
    mda = pytest.importorskip("MDAnalysis", reason="needs the extra traj")
    pos = np.random.default_rng(0).uniform(0, 20, size=(9, 5, 3)).astype(np.float32)
    universe = mda.Universe.empty(5, trajectory=True)
    path = tmp_path / f"md.{suffix}"
    with mda.Writer(str(path), n_atoms=5) as writer:
        for frame in pos:
            universe.atoms.positions = frame
            universe.dimensions = None
            writer.write(universe.atoms)
    frames = Frames.open([path, topology], topology=topology, block_size=4, with_atoms=True)
    blocks = list(frames)
    assert [len(block) for block in blocks] == [4, 4, 1, 1]
    found = np.concatenate([block.pos for block in blocks[:3]]).reshape(9, 5, 3)
    np.testing.assert_allclose(found, pos, atol=0.006 if suffix == "xtc" else 1e-5)
    assert all(block.z.tolist() == [31, 31, 31, 31, 13] * len(block) for block in blocks)
    assert not any(block.periodic.any() for block in blocks)
    np.testing.assert_allclose(blocks[1].atoms[2].positions, found[6], atol=1e-6)
    assert [len(block) for block in frames.blocks(start=(0, 2))] == [1, 1]
    with pytest.raises(InputError, match=r"no property 'energy'; .* holds positions only"):
        list(Frames.open(path, topology=topology, properties=["energy"]))
    write_extxyz(tmp_path / "other.xyz", [Atoms("Ga3", np.zeros((3, 3)))])
    with pytest.raises(InputError, match=rf"md\.{suffix}: "):
        list(Frames.open(path, topology=tmp_path / "other.xyz"))
    write_extxyz(tmp_path / "ion.xyz", [Atoms("Ga4Al", np.zeros((5, 3)), info={"charge": 1})])
    block = next(iter(Frames.open(path, topology=tmp_path / "ion.xyz", with_atoms=True)))
    assert {state.charge for state in block.states} == {1} and block.atoms[0].info == {"charge": 1}


def test_frames_of_gromacs_without_positions(tmp_path, topology):
    """GROMACS may write velocities more often than positions, which are then arbitrary numbers in the reader."""
    module = pytest.importorskip("MDAnalysis.lib.formats.libmdaxdr", reason="needs the extra traj")
    pos = np.random.default_rng(0).uniform(0, 2, size=(5, 5, 3)).astype(np.float32)
    with module.TRRFile(str(tmp_path / "md.trr"), "w") as file:
        for number, frame in enumerate(pos):
            positions = frame if number % 2 else None
            file.write(positions, frame, None, np.zeros((3, 3), np.float32), number, float(number), 0.0, 5)
    with pytest.raises(InputError, match=r"md.trr, frame 0: holds velocities or forces, but no positions"):
        list(Frames.open(tmp_path / "md.trr", topology=topology))
    frames = Frames.open(tmp_path / "md.trr", topology=topology, on_bad="skip", block_size=2)
    blocks = list(frames)
    assert [block.number.tolist() for block in blocks] == [[1], [3], []]
    assert [bad.number for block in blocks for bad in block.unreadable] == [0, 2, 4]
    assert blocks[1].pos == pytest.approx(10 * pos[3], abs=1e-5)


@pytest.mark.parametrize("suffix", ["dcd", "xtc", "trr"])
@pytest.mark.filterwarnings("ignore")  # MDAnalysis warns of time steps and units when it writes
def test_binary_trajectories_over_the_faces_of_a_cell(tmp_path, suffix):
    """A cube of 27 atoms about a corner of a triclinic cell has the distances of the cube in one piece."""
    mda = pytest.importorskip("MDAnalysis", reason="needs the extra traj")
    cube = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), axis=1) * 2.8
    write_extxyz(tmp_path / "first.xyz", [Atoms("Ga27", cube)])
    dimensions = [30, 28, 26, 70, 80, 100]
    universe = mda.Universe.empty(27, trajectory=True)
    with mda.Writer(str(tmp_path / f"md.{suffix}"), n_atoms=27) as writer:
        for shift in ([-3, -3, -3], [5, -4, 1]):
            universe.atoms.positions = wrap_positions(cube + shift, cellpar_to_cell(dimensions))
            universe.dimensions = dimensions
            writer.write(universe.atoms)
    (block,) = Frames.open(tmp_path / f"md.{suffix}", topology=tmp_path / "first.xyz")
    assert len(block) == 2
    for pos in block.pos.reshape(2, 27, 3):
        np.testing.assert_allclose(pdist(pos), pdist(cube), atol=0.02 if suffix == "xtc" else 1e-4)


@pytest.mark.filterwarnings("ignore")  # MDAnalysis warns of time steps and units when it writes
def test_a_topology_in_another_order_than_a_binary_trajectory(tmp_path):
    """It is known from the distances of the atoms, however the cluster is turned, unless atoms are equivalent."""
    mda = pytest.importorskip("MDAnalysis", reason="needs the extra traj")
    rng = np.random.default_rng(0)
    cluster = sblda(20, mu1=2.7, mu2=2.8, rng=rng)
    symbols = np.array(["Cu"] * 12 + ["Au"] * 8)
    turned = cluster @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 5
    universe = mda.Universe.empty(20, trajectory=True)
    with mda.Writer(str(tmp_path / "md.dcd"), n_atoms=20) as writer:
        universe.atoms.positions = turned + rng.normal(scale=0.03, size=(20, 3))
        writer.write(universe.atoms)
    order = rng.permutation(20)
    copper = np.concatenate([rng.permutation(12), np.arange(12, 20)])
    for name, of_atoms in (("same", np.arange(20)), ("copper", copper), ("other", order)):
        write_extxyz(tmp_path / f"{name}.xyz", [Atoms(symbols[of_atoms], cluster[of_atoms])])
    for name in ("same", "copper"):
        (block,) = Frames.open(tmp_path / "md.dcd", topology=tmp_path / f"{name}.xyz")
        assert block.z.tolist() == [29] * 12 + [79] * 8
    with pytest.raises(InputError, match=r"md\.dcd: the atoms are in another order than in .*other\.xyz: atom \d+ has"):
        list(Frames.open(tmp_path / "md.dcd", topology=tmp_path / "other.xyz"))
    write_extxyz(tmp_path / "melted.xyz", [Atoms(symbols[order], cluster[order] * [1, 1, 2])])  # nothing is known
    list(Frames.open(tmp_path / "md.dcd", topology=tmp_path / "melted.xyz"))


@pytest.mark.parametrize("num_atoms", [5, 40])
@pytest.mark.parametrize("cell", [None, [60, 60, 60, 90, 90, 90]])
@pytest.mark.parametrize("suffix", ["dcd", "xtc", "trr"])
@pytest.mark.filterwarnings("ignore")  # MDAnalysis warns of time steps and units when it writes
def test_truncated_binary_trajectories(tmp_path, suffix, cell, num_atoms):
    """Complete frames are used and the rest is reported, wherever the file ends."""
    mda = pytest.importorskip("MDAnalysis", reason="needs the extra traj")
    grid = np.stack(np.unravel_index(np.arange(num_atoms), (4, 4, 4)), axis=1) * 2.7
    write_extxyz(tmp_path / "first.xyz", [Atoms(f"Ga{num_atoms}", grid)])
    universe = mda.Universe.empty(num_atoms, trajectory=True)
    path, ends = tmp_path / f"md.{suffix}", []
    for number in range(1, 5):
        with mda.Writer(str(path), n_atoms=num_atoms) as writer:
            for frame in range(number):
                universe.atoms.positions = (grid + 0.01 * frame).astype(np.float32)
                universe.dimensions = cell
                writer.write(universe.atoms)
        ends.append(path.stat().st_size)
    content = path.read_bytes()
    for number, end in enumerate(ends, start=1):
        for rest in (0, 1, 7, 60):
            if end + rest > len(content):
                continue
            part = tmp_path / f"{number}_{rest}.{suffix}"
            part.write_bytes(content[: end + rest])
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                (block,) = Frames.open(part, topology=tmp_path / "first.xyz")
            assert len(block) == number
            said = [str(w.message) for w in caught if "the complete frames before it are used" in str(w.message)]
            assert len(said) == (rest > 0)
    (tmp_path / f"none.{suffix}").write_bytes(content[: ends[0] - 1])
    with pytest.raises(InputError, match="ends within its first frame"):
        list(Frames.open(tmp_path / f"none.{suffix}", topology=tmp_path / "first.xyz"))
    (tmp_path / f"twice.{suffix}").write_bytes(2 * content)
    twice = Frames.open(tmp_path / f"twice.{suffix}", topology=tmp_path / "first.xyz")
    if suffix == "dcd":
        with pytest.raises(
            InputError, match="it consists of several DCD files, one after the other; give each as a fi"
        ):
            list(twice)
    else:
        assert sum(map(len, twice)) == 8

"""Files read in parts, by any reader, give the same frames as files read as a whole."""

import lzma

import ase.io
import numpy as np
import pytest
from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock, Frames, write_extxyz, write_store
from pyg_clusters.frames.reader import Piece

FRAMES, BLOCK, BLOCKS = 60, 7, 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    rng = np.random.default_rng(0)
    frames = [Atoms(f"Ga{size}", rng.normal(scale=5, size=(size, 3))) for size in rng.integers(3, 30, FRAMES)]
    for number, frame in enumerate(frames):
        frame.info["step"] = 10**number  # lines of all lengths
    write_extxyz(folder / "a.extxyz", frames)
    text = (folder / "a.extxyz").read_bytes()
    (folder / "blank.xyz").write_bytes(b"\n" + text.replace(b"\nProperties", b"\r\nProperties") + b"\n\n")
    (folder / "half.xyz").write_bytes(text[:-20])
    (folder / "a.extxyz.xz").write_bytes(lzma.compress(text))
    ase.io.write(folder / "a.traj", frames)
    write_store(folder / "a.h5", Frames.open(folder / "a.extxyz"))
    return folder


def same(found: FrameBlock, expected: FrameBlock):
    assert found.position == expected.position and found.unreadable == expected.unreadable
    for name in ("number", "z", "pos", "ptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.filterwarnings("ignore:.*the complete frames before it")
@pytest.mark.parametrize("name, number", [("a.extxyz", 5), ("blank.xyz", 5), ("half.xyz", 5), ("a.h5", 5)])
def test_pieces_in_any_order(files, name, number, monkeypatch):
    monkeypatch.setattr("pyg_clusters.frames.text.BYTES_AT_ONCE", 1000)  # frames extend over several reads
    frames = Frames.open([files / "a.h5", files / name], block_size=BLOCK, on_bad="skip")
    pieces = [piece for file in (0, 1) for piece in frames.pieces(BLOCKS, file)]
    assert len(pieces) == 5 + number
    found = {block.position: block for piece in reversed(pieces) for block in frames.blocks(ahead=0, piece=piece)}
    whole = list(frames.blocks(ahead=0))
    assert sorted(found) == [block.position for block in whole]
    for block in whole:
        same(found[block.position], block)


def test_pieces_from_a_block_on(files):
    frames = Frames.open([files / "a.extxyz", files / "a.h5"], block_size=BLOCK)
    found = []
    for file in (0, 1):
        for piece in frames.pieces(BLOCKS, file):
            found += [block.position for block in frames.blocks(ahead=0, piece=piece, start=(0, 5))]
    assert found == [(0, number) for number in range(5, 9)] + [(1, number) for number in range(9)]


def test_files_that_cannot_be_divided_are_one_piece(files):
    frames = Frames.open([files / "a.extxyz.xz", files / "a.traj"], block_size=BLOCK)
    assert [frames.pieces(BLOCKS, file) for file in (0, 1)] == [[Piece(0)], [Piece(1)]]


def test_files_that_cannot_be_read(files, tmp_path):
    (tmp_path / "not.h5").write_text("no store")
    (tmp_path / "empty.xyz").write_text("")
    for name, reason in (("not.h5", "cannot be read"), ("empty.xyz", "is empty"), ("missing.xyz", "no such file")):
        with pytest.raises(InputError, match=reason):
            Frames.open(tmp_path / name).pieces(BLOCKS, 0)

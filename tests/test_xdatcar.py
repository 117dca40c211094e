"""Variants of VASP's XDATCAR, complete and truncated."""

import gzip

import numpy as np
import pytest
from helpers import only_block

from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, read_atoms

POS = np.array([[0.1, 0.1, 0.1], [0.1, 0.1, 0.2], [0.22, 0.1, 0.1]])
CELL = np.array([[20.0, 0, 0], [2.0, 21, 0], [0, 0, 22]])


def header(cell=CELL, symbols="Cu Au", counts="2 1", scale="1.0", comment="unknown system"):
    vectors = "".join("  ".join(f"{x:.6f}" for x in vector) + "\n" for vector in cell)
    return f"{comment}\n  {scale}\n{vectors}" + (f"  {symbols}\n" if symbols else "") + f"  {counts}\n"


def frame(number=1, pos=POS):
    return f"Direct configuration= {number:5d}\n" + "".join("".join(f"{x:12.8f}" for x in p) + "\n" for p in pos)


def check(path, cells, shifts):
    block = only_block(path, with_atoms=True)
    assert block.number.tolist() == list(range(len(cells))) and block.z.tolist() == [29, 29, 79] * len(cells)
    for atoms, cell, shift in zip(block.atoms, cells, shifts, strict=True):
        np.testing.assert_allclose(atoms.cell.array, cell, atol=1e-5)
        np.testing.assert_allclose(atoms.positions, (POS + shift) @ cell, atol=1e-5)
    assert block.pbc.all() and len(list(read_atoms([path], on_bad="skip"))) == len(cells)


FORMS = {
    "one cell": (header() + "".join(frame(n, POS + 0.1 * n) for n in range(3)), [CELL] * 3),
    "a cell for each": (
        "".join(header(CELL * (1 + 0.01 * n)) + frame(n, POS + 0.1 * n) for n in range(3)),
        [CELL, CELL * 1.01, CELL * 1.02],
    ),
    "blank lines, counts that begin again": (
        header() + frame(1) + "\n" + frame(2, POS + 0.1) + "\n \n" + header() + frame(1, POS + 0.2) + "\n\n",
        [CELL] * 3,
    ),
    "scale": (header(CELL / 2, scale="2.0") + "".join(frame(n, POS + 0.1 * n) for n in range(3)), [CELL] * 3),
    "volume": (
        header(CELL / 7, scale=f"{-np.linalg.det(CELL):.8f}") + "".join(frame(n, POS + 0.1 * n) for n in range(3)),
        [CELL] * 3,
    ),
    "three scales, labels, Windows": (
        (
            header(CELL / [1, 2, 4], "Cu_pv/6a2f546d Au/1a2b", scale="1 2 4", comment="")
            + "".join(frame(n, POS + 0.1 * n) for n in range(3))
        ).replace("\n", "\r\n"),
        [CELL] * 3,
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["XDATCAR", "XDATCAR.gz", "run7"])
def test_forms(tmp_path, form, name):
    text, cells = FORMS[form]
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    check(tmp_path / name, cells, [0, 0.1, 0.2])


def test_vasp_4_names_no_elements(tmp_path):
    (tmp_path / "XDATCAR").write_text(header(symbols="") + frame())
    with pytest.raises(InputError, match="frame 0: the header names no elements, as written by VASP 4; add a"):
        only_block(tmp_path / "XDATCAR")
    (tmp_path / "XDATCAR").write_text("   3   3   1\n  1 2 3\n\n" + frame().partition("\n")[2])
    with pytest.raises(InputError, match="has no line 'Direct configuration='; an XDATCAR of VASP 4"):
        only_block(tmp_path / "XDATCAR")


def test_vasp_is_still_writing(tmp_path):
    text = header() + frame(1) + frame(2)
    for cut in (3, 20, 40, 80, len(frame()) - 1, len(frame()) + 3):
        path = tmp_path / "XDATCAR"
        path.write_text((text + frame(3))[: len(text) + cut])
        if cut == len(frame()) - 1:  # all except the last line end
            assert len(only_block(path)) == 3
            continue
        if cut > len(frame()):
            path.write_text(text + frame(3) + header()[:40])
        with pytest.warns(UserWarning, match="the file ends within frame [23] and is perhaps still being"):
            assert len(only_block(path)) == 2 + (cut > len(frame()))


def test_a_run_that_was_killed_and_started_again(tmp_path):
    cut = frame(2)[:90]
    (tmp_path / "XDATCAR").write_text(header() + frame(1) + cut + "\n" + header() + frame(1) + cut + "\n" + frame(3))
    block = only_block(tmp_path / "XDATCAR", on_bad="skip")
    assert block.number.tolist() == [0, 2, 4] and [bad.number for bad in block.unreadable] == [1, 3]
    with pytest.raises(InputError, match="XDATCAR, frame 1: does not have 3 lines of three numbers"):
        list(Frames.open(tmp_path / "XDATCAR"))


def test_impossible_headers(tmp_path):
    for text, words in {
        header(symbols="Cu Qq"): "frame 0: 'Qq' is not an element symbol",
        header(symbols="Cu"): "frame 0: 1 elements, 2 counts; fix the header",
        header(counts="2 99999999"): "frame 0: 100,000,001 atoms in a frame; if the file is correct, set",
        header(scale="one"): "frame 0: expected a header of an XDATCAR, got",
    }.items():
        (tmp_path / "XDATCAR").write_text(text + frame())
        with pytest.raises(InputError, match=words):
            only_block(tmp_path / "XDATCAR")

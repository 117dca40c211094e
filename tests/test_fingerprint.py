"""Fingerprints of files depend on their content."""

import os
import sys
from pathlib import Path

from ase import Atoms

from pyg_clusters import files
from pyg_clusters.cli import main
from pyg_clusters.files import file_fingerprint
from pyg_clusters.frames import write_extxyz
from pyg_clusters.structures.calculators import calculator_identity


def test_content_counts_not_name_or_date(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1\n\nNa 0 0 0\n")
    b.write_bytes(a.read_bytes())
    os.utime(b, ns=(0, 1))
    assert file_fingerprint(a) == file_fingerprint(b)
    b.write_bytes(b"1\n\nNa 0 0 1\n")
    assert file_fingerprint(a) != file_fingerprint(b)


def test_pieces_of_large_files(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE", 1000)
    monkeypatch.setattr(files, "PIECES", 4)
    monkeypatch.setattr(files, "PIECE", 10)
    path = tmp_path / "large"
    content = bytearray(os.urandom(2000))
    found = set()
    for place in (None, 0, 1999, 1000):  # beginning, end, and between the pieces, where the date shows the change
        if place is not None:
            content[place] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(0, 1 if place is None else place + 2))
        found.add(file_fingerprint(path))
    assert len(found) == 4 and all(text.startswith("2000 bytes, sha256 of pieces ") for text in found)


def test_a_potential_is_known_by_its_content(tmp_path):
    file = tmp_path / "gap.xml"
    file.write_text("<a/>")
    before = calculator_identity(f"gap:{file}")
    file.write_text("<b/>")
    assert calculator_identity(f"gap:{file}") != before and calculator_identity("emt") == "emt"


def test_a_calculator_is_known_by_its_module(tmp_path, monkeypatch, capsys):
    """A relaxation with a changed calculator of the same name does not return the minima of the earlier one."""
    monkeypatch.chdir(tmp_path)
    write_extxyz("cu.extxyz", [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])])
    arguments = ["relax", "cu.extxyz", "--calculator", "own_potential:Own", "--out", "out.extxyz"]
    for number, base in enumerate(("ClusterEMT", "LennardJones")):
        Path("own_potential.py").write_text(
            "from ase.calculators.lj import LennardJones\nfrom pyg_clusters.structures import ClusterEMT\n\n\n"
            f"class Own({base}):\n    pass\n"
        )
        sys.modules.pop("own_potential", None)
        assert main(arguments) == 2 * number
    assert "out.extxyz was started with calculator = 'own_potential:Own, " in capsys.readouterr().err
    assert calculator_identity("none:Own") == "none:Own"


def test_a_missing_input_is_named(tmp_path, capsys):
    out = tmp_path / "out.extxyz"
    assert main(["relax", str(tmp_path / "none.xyz"), "--calculator", "emt", "--out", str(out)]) == 2
    assert "none.xyz: no such file" in capsys.readouterr().err and not out.exists()

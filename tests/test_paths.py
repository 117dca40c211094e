"""Files, folders and patterns of frames, and their formats."""

import gzip
import os
from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, expand_paths, read_atoms, write_extxyz
from pyg_clusters.frames.paths import file_format
from pyg_clusters.frames.writing import check_output

DIMER = Atoms("Au2", [[0, 0, 0], [0, 0, 2.6]])


@pytest.fixture
def folder(tmp_path):
    """Twelve files of one frame each, among other files."""
    runs = tmp_path / "runs"
    runs.mkdir()
    for number in range(12):
        write_extxyz(runs / f"au{number}.xyz", [Atoms("Au2", [[0, 0, 0], [0, 0, 2.6 + 0.01 * number]])])
    return runs


def lengths(frames) -> list[int]:
    return [round(float(block.pos[1, 2]) * 100) - 260 for block in frames]


def test_a_folder_is_its_structures_in_natural_order(folder):
    assert lengths(Frames.open(folder)) == list(range(12))
    assert [path.name for path in expand_paths([folder / "au3.xyz", folder])][:3] == ["au3.xyz", "au0.xyz", "au1.xyz"]
    assert [frame.atoms.positions[1, 2] for frame in read_atoms([folder])][10] == pytest.approx(2.7)


def test_folders_on_the_command_line(folder, tmp_path, capsys):
    """Files with a single number in each comment line as a label."""
    for number, path in enumerate(sorted(folder.iterdir())):
        path.write_text(f"2\n{-1.5 - number}\nAu 0 0 0\nAu 0 0 2.6\n")
    assert main(["info", str(folder)]) == 0
    assert "12 frames" in capsys.readouterr().out
    assert main(["convert", str(folder), "--out", str(tmp_path / "a.h5"), "--properties", "comment"]) == 0
    (block,) = Frames.open(tmp_path / "a.h5", properties=["comment"])
    assert sorted(block.properties["comment"], reverse=True) == [-1.5 - number for number in range(12)]
    assert block.origin is not None and block.origin[0][10].endswith("au10.xyz")


def test_files_without_structures_are_left_out_and_counted(folder):
    (folder / ".hidden.xyz").write_text("1\n\nAu 0 0 0\n")
    (folder / "README.md").write_text("# Gold\n")
    (folder / "energies.csv").write_text("file,energy\nau0.xyz,1\n")
    (folder / "settings.json").write_text('{"seed": 0}')
    for name in ("energies.dat", "job.log", "job.out"):
        (folder / name).write_text("1 -0.5\n")
    (folder / "more").mkdir()
    with pytest.warns(UserWarning, match="left out 7 entries that are not structures: README.md, energies.csv, ener"):
        assert len(expand_paths(folder)) == 12


def test_patterns(folder, tmp_path):
    assert lengths(Frames.open(f"{folder}/au*.xyz")) == list(range(12))
    assert lengths(Frames.open([f"{folder}/au?.xyz", folder / "au11.xyz"])) == [*range(10), 11]
    assert lengths(Frames.open(f"{tmp_path}/**/au1*.xyz")) == [1, 10, 11]
    (tmp_path / "a[1].xyz").write_text("2\n\nAu 0 0 0\nAu 0 0 2.6\n")
    assert lengths(Frames.open(tmp_path / "a[1].xyz")) == [0]  # a name of an existing file is not a pattern
    with pytest.raises(InputError, match=r"none\*\.xyz: no file matches"):
        Frames.open(f"{folder}/none*.xyz")


def test_folders_that_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no files of structures in the folder"):
        Frames.open(tmp_path / "empty")
    write(folder / "POSCAR", Atoms("Au2", DIMER.positions, cell=[20, 20, 20], pbc=True))
    with pytest.raises(InputError, match=r"several formats in the folder: POSCAR \(vasp\), au11.xyz \(xyz\)"):
        Frames.open(folder)


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"a\xff.xyz")
    (tmp_path / name).write_text("1\n\nAu 0 0 0\n")
    for given in (tmp_path / name, tmp_path, f"{tmp_path}/*.xyz"):
        with pytest.raises(InputError, match=r"a\\udcff.xyz': the name is not UTF-8; rename the file"):
            Frames.open(given)


def test_a_file_counts_once(folder, tmp_path, capsys):
    """Its frames would count twice in ranks, means and spectra; also through a folder, a pattern or a link."""
    first, link = folder / "au1.xyz", folder / "linked.xyz"

    def describe(*files) -> str:
        assert main(["describe", *map(str, files)]) == 2
        return capsys.readouterr().err

    assert f"{first}: is named twice; name each file once" in describe(folder, first)
    other = folder / ".." / "runs" / "au1.xyz"
    assert f"{other}: is the same file as {first}; name each file once" in describe(folder / "*.xyz", other)
    link.symlink_to(first.name)
    assert f"{link}: is the same file as {first}; name each file once" in describe(folder)
    for verb in ("screen", "benchmark-screening", "evaluate", "spectrum", "analyse core-surface"):
        assert main([*verb.split(), "gallium", str(first), str(link), "--out", str(tmp_path / "out")]) == 2
        assert f"{link}: is the same file as {first}; name each file once" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"linked.xyz: is the same file as .*au1.xyz; name each file once"):
        ClusterDataset(tmp_path, [first, link])


def test_an_output_is_never_among_the_inputs(folder):
    for given in (folder / "au1.xyz", folder, f"{folder}/*.xyz"):
        with pytest.raises(InputError, match=r"au1\.xyz is one of the inputs"):
            check_output(folder / "au1.xyz", [given], overwrite=True)
    (folder / "energies.csv").touch()
    check_output(folder / "energies.csv", [folder], overwrite=True)


FORMATS = {
    "a.xyz": "xyz",
    "A.XYZ": "xyz",
    "a.ExtXYZ": "xyz",
    "frames": "xyz",
    "a.txt": "xyz",
    "a.xyz.0001": "xyz",
    "XDATCAR_1": "xdatcar",
    "xdatcar.old": "xdatcar",
    "md.out_of_vasp": "xdatcar",
    "dump.0": "lammps-dump",
    "a.lammps": "lammps-dump",
    "a.LAMMPSTRJ": "lammps-dump",
    "poscar_2": "vasp",
    "a.vasp": "vasp",
    "A.CIF": "cif",
    "a.GRO": "gromacs",
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_formats_by_content_then_name(tmp_path, name, compressed):
    text = {
        "xyz": "2\nenergy=1\nAu 0 0 0\nAu 0 0 2.6\n",
        "xdatcar": "Au2\n1\n9 0 0\n0 9 0\n0 0 9\nAu\n2\nDirect configuration=  1\n0 0 0\n0 0 0.3\n",
        "lammps-dump": "ITEM: TIMESTEP\n0\n",
    }.get(FORMATS[name], "Au\n1\n9 0 0\n0 9 0\n0 0 9\nAu\n2\nDirect\n0 0 0\n0 0 0.3\n")
    path = tmp_path / (f"{name}.gz" if compressed else name)
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert file_format(path) == FORMATS[name]
    path = path.rename(tmp_path / name)  # compressed, but not by its name
    assert file_format(path) == FORMATS[name]


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.out", " Program PWSCF v.7.2 starts on", "espresso-out"),
        ("a.log", " Entering Gaussian System", "gaussian-out"),
        ("b.out", "          Invoking FHI-aims ...", "aims-output"),
        ("c.out", "   Northwest Computational Chemistry Package (NWChem) 7.2.0", "nwchem-out"),
    ],
)
def test_outputs_below_messages_of_a_queue(tmp_path, name, text, kind):
    (tmp_path / name).write_text("loading a module\n" * 1000 + text)
    assert file_format(tmp_path / name) == kind


@pytest.mark.parametrize("comment", ["2 atoms of gold", "ITEM: TIMESTEP", "1.0"])
def test_a_comment_of_xyz_identifies_no_other_format(tmp_path, comment):
    (tmp_path / "a.xyz").write_text(f"2\n{comment}\nAu 0 0 0\nAu 0 0 2.6\n")
    assert file_format(tmp_path / "a.xyz") == "xyz"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "words"),
        ("b", "12\n"),
        ("c.png", "\x89PNG"),
        ("d.md", "# A"),
        ("e.data", "0.1 0.2\n"),
        *((name, "run 1\n0.5 2\n") for name in ("job.log", "slurm-1.out", "energies.dat", "config", "nwchem.restart")),
    ],
)
def test_unknown_formats(tmp_path, name, text):
    Path(tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="neither content nor name identifies a format of structures"):
        file_format(tmp_path / name)

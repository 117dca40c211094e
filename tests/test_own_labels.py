"""Labels are read in the forms in which users have them; missing and ambiguous ones are named."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron
from ase.db import connect
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from helpers import assert_refused as refused
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, OnDiskClusters
from pyg_clusters.datasets.label_arguments import has_meaning
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, to_data, write_extxyz, write_store
from pyg_clusters.frames.checks import numbers
from pyg_clusters.structures import ClusterEMT
from pyg_clusters.units import unit_in_name


def cluster(size=3, symbol="Ga", offset=0.0, **info):
    positions = np.array([[0, 0, 2.8 * n] for n in range(size)]) + offset
    return Atoms(f"{symbol}{size}", positions=positions, info=info)


@pytest.fixture
def folder(tmp_path):
    """A folder of single-frame files, each with its energy as comment: -10, -11, -12, ..."""
    (tmp_path / "gold").mkdir()
    for number in range(12):
        lines = [f"Au 0 0 {2.8 * n}" for n in range(3)]
        text = "\n".join(["3", f"  {-10.0 - number} ", *lines, ""])
        (tmp_path / "gold" / f"{number}.xyz").write_text(text)
    return tmp_path / "gold"


def energies(dataset):
    return dataset._data.y.tolist()


ALL = [-10.0 - number for number in range(12)]


def test_a_folder_or_pattern_with_lone_numbers_as_comments(tmp_path, folder):
    assert energies(ClusterDataset(tmp_path / "a", folder, target="comment")) == ALL
    pattern = ClusterDataset(tmp_path / "b", f"{folder}/1*.xyz", target="comment")
    assert energies(pattern) == [-11.0, -20.0, -21.0] and pattern.group_names == ["1.xyz", "10.xyz", "11.xyz"]
    refused(lambda: ClusterDataset(tmp_path / "c", folder), "0.xyz, frame 0: no property 'energy'", "target='comment'")
    (folder / "3.xyz").write_text("1\nrelaxed, -13 eV\nAu 0 0 0\n")
    with pytest.raises(InputError, match="the comment is 'relaxed, -13 eV': write energy=VALUE there; or leave"):
        ClusterDataset(tmp_path / "c", folder / "3.xyz")
    refused(lambda: ClusterDataset(tmp_path / "d", folder, target="comment"), "3.xyz, frame 0", "'relaxed, -13 eV'")


TABLES = {
    "csv": ("file,energy\n", "{n}.xyz,{e}\n"),
    "names without suffix": ("name,energy\n", "{n},{e}\n"),
    "paths of another machine": ("path,energy\n", "/home/me/gold/{n}.xyz,{e}\n"),
    "windows": ("\ufefffile;energy\r\n", "runs\\gold\\{n}.xyz;{e}\r\n"),
    "tabs": ("energy\tstructure\n", "{e}\t{n}.xyz\n"),
    "columns": ("", "{n}.xyz   {e}\n"),
    "columns with a comment": ("# file energy\n# ---- \n", "{n}.xyz {e}\n"),
    "unit column": ("file,energy,unit\n", "{n}.xyz,{kcal},kcal/mol\n"),
    "unit in the name": ("file,energy (kJ/mol)\n", "{n}.xyz,{kj}\n"),
    "chemists": ("file,E/kcal mol⁻¹\n", "{n}.xyz,{kcal}\n"),
    "unit and comment": ("# converted from Hartree\nfile,energy (eV)\n", "{n}.xyz,{e}\n"),
    "a neutral cluster": ("file,energy,charge\n", "{n}.xyz,{e},0\n"),
    "atomic units": ("file,energy (a.u.)\n", "{n}.xyz,{ha}\n"),
    "unit at the end of the name": ("file,energy_kcal_mol\n", "{n}.xyz,{kcal}\n"),
    "unit column without names": ("", "{n} {kcal} kcal/mol\n"),
    "other columns": ("id,time,energy,note\n", '{n},3.5,{e},"a, b"\n'),
    "frames": ("file,frame,energy\n", "{n}.xyz,0,{e}\n"),
    "frames without names": ("", "{n}.xyz 0 {e}\n"),
}


@pytest.mark.parametrize("name", TABLES)
def test_energies_in_a_table(tmp_path, folder, name):
    head, row = TABLES[name]
    rows = [row.format(n=n, e=e, kcal=e * 23.060548, kj=e * 96.485332, ha=e / 27.211386) for n, e in enumerate(ALL)]
    (tmp_path / "energies.csv").write_text(head + "".join(rows[::-1]))
    dataset = ClusterDataset(tmp_path / "a", folder, labels=tmp_path / "energies.csv")
    assert energies(dataset) == pytest.approx(ALL, rel=1e-6)


def test_a_table_of_frames_counts_from_zero(tmp_path):
    write_extxyz(tmp_path / "md.xyz", [cluster(size) for size in (2, 3, 4)])
    table = tmp_path / "e.csv"
    table.write_text("frame,dft,xtb\n2,-3,1\n0,-1,1\n1,-2,1\n")
    dataset = ClusterDataset(tmp_path, tmp_path / "md.xyz", target="dft", labels=table)
    assert energies(dataset) == [-1, -2, -3] and dataset.sizes.tolist() == [2, 3, 4]
    table.write_text("0 -1\n1 -2\n2 -3\n")
    assert energies(ClusterDataset(tmp_path, tmp_path / "md.xyz", labels=table)) == [-1, -2, -3]
    table.write_text("1 -1\n2 -2\n3 -3\n")  # counted from 1
    refused(
        lambda: ClusterDataset(tmp_path, tmp_path / "md.xyz", labels=table, on_missing="skip"),
        "line 3: names frame 3, which does not exist (frames count from 0)",
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            "0.xyz,-1\n",
            "1.xyz, frame 0: ",
        ),
        ("0.xyz,-1\n0,-2\n", "line 2: has the same structure as line 1 (0.xyz)"),
        ("0.xyz,-1\nother.xyz,-2\n", "line 2: 'other.xyz' is not one of the 12 files"),
        ("0.xyz,low\n1.xyz,-2\n", "line 2: 'low' is not one of"),
        ("file,energy\n0.xyz,low\n", "line 2: the energy is 'low', not a finite number"),
        ("file,energy\n0.xyz,nan\n", "line 2: the energy is 'nan'"),
        ("file,energy\n0.xyz,-1,5\n", "line 2: has 3 columns, not 2"),
        ("file,energy,unit\n0.xyz,-1,volt\n", "line 2: the unit is 'volt'"),
        ("file,dft,xtb\n0.xyz,-1,-2\n", "no column 'energy' among file, dft, xtb"),
        ("file,energy,energy\n0.xyz,-1,-2\n", "two columns have the same name"),
        ("file,frame,energy\n0.xyz,1.5,-2\n", "line 2: the frame is '1.5'"),
        ("file,frame,energy\n0.xyz,1,-2\n", "line 2: names frame 1, which does not exist"),
        ("1 2 3 4 5\n", "5 columns without a header"),
        ("file,energy_per_atom\n0.xyz,-1\n", "'energy_per_atom' is an energy per atom"),
        *[
            (f"file,{name}\n0.xyz,-1\n", f"{name!r} is an energy per atom")
            for name in ("energy (eV/atom)", "energy (eV/at.)", "energy (per atom)", "energy (eV) per atom")
        ],
        (
            "# energies in Hartree\n0.xyz -1\n",
            "line 1: names Hartree, but the energies are read as totals in units of 1 eV",
        ),
        ("# in kcal mol-1\nfile,energy\n0.xyz,-1\n", "write their unit in the header, such as 'energy (kcal/mol)'"),
        ("# in au\n0.xyz -1\n", "line 1: names au, but the energies are read as totals"),
        ("file,e_au\n0.xyz,-1\n", "'e_au' may be in atomic units, or that of gold; name its unit in the header"),
        ("# Au, eV per atom\n0.xyz -1\n", "line 1: names eV/atom, but the energies are read as totals"),
        ("file,energy,charge\n0.xyz,-1,1\n", "the column 'charge' states charges, which are read from the structures"),
        ("", "no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, folder, table, words):
    path = tmp_path / "energies.csv"
    if words.startswith("line 2: 'low'"):
        table, words = "low,-1\n0.xyz,-2\n", "line 1: 'low' is not one of"
    path.write_text(table)
    on_missing = "skip" if "not exist" in words else "stop"
    refused(lambda: ClusterDataset(tmp_path, folder, labels=path, on_missing=on_missing), words)


def test_structures_without_a_row_are_listed_on_request(tmp_path, folder):
    (tmp_path / "e.csv").write_text("".join(f"{n}.xyz,{e}\n" for n, e in enumerate(ALL) if n != 7))
    refused(
        lambda: ClusterDataset(tmp_path, folder, labels=tmp_path / "e.csv"), "7.xyz, frame 0", "no row", "on_missing"
    )
    with pytest.warns(UserWarning, match=r"1 frame is left out .*7\.xyz, frame 0"):
        dataset = ClusterDataset(tmp_path, folder, labels=tmp_path / "e.csv", on_missing="skip")
    assert energies(dataset) == ALL[:7] + ALL[8:] and [bad.file for bad in dataset.skipped] == [str(folder / "7.xyz")]


def test_files_of_one_name_are_distinguished_by_their_folders(tmp_path):
    for number in range(3):
        (tmp_path / f"run{number}").mkdir()
        write_extxyz(tmp_path / f"run{number}" / "final.xyz", [cluster(3 + number)])
    files = [tmp_path / f"run{number}" / "final.xyz" for number in range(3)]
    (tmp_path / "e.csv").write_text("run2/final.xyz,-3\nrun0,-1\nrun1/final,-2\n")
    assert energies(ClusterDataset(tmp_path, files, labels=tmp_path / "e.csv")) == [-1, -2, -3]
    (tmp_path / "e.csv").write_text("final.xyz,-3\nrun0,-1\nrun1,-2\n")
    refused(lambda: ClusterDataset(tmp_path, files, labels=tmp_path / "e.csv"), "line 1: 'final.xyz' may be")


def test_a_changed_table_is_noticed(tmp_path, folder):
    (tmp_path / "e.csv").write_text("".join(f"{n}.xyz,{e}\n" for n, e in enumerate(ALL)))
    ClusterDataset(tmp_path, folder, labels=tmp_path / "e.csv")
    (tmp_path / "e.csv").write_text("".join(f"{n}.xyz,{2 * e}\n" for n, e in enumerate(ALL)))
    assert energies(ClusterDataset(tmp_path, folder, labels=tmp_path / "e.csv")) == [2 * e for e in ALL]


def test_key_value_pairs_and_data_of_a_database(tmp_path):
    with connect(tmp_path / "a.db") as database:
        for number in range(3):
            data = {"e0": -5.0 - number, "f0": np.full((3, 3), 0.5)}
            database.write(cluster(), dft_energy=-1.5 - number, run=f"r{number % 2}", data=data)
    dataset = ClusterDataset(tmp_path, tmp_path / "a.db", target="dft_energy", group="run", forces="f0")
    assert energies(dataset) == [-1.5, -2.5, -3.5] and dataset.groups.tolist() == [0, 1, 0]
    assert (dataset[0].force == 0.5).all()
    assert energies(ClusterDataset(tmp_path, tmp_path / "a.db", target="e0")) == [-5, -6, -7]


@pytest.mark.parametrize("key", ["energy", "forces"])
def test_labels_that_contradict_the_results_of_a_calculator(tmp_path, key):
    """The message names an old label that differs from the result of a calculation, and both values."""
    frames = [cluster() for _ in range(2)]
    for frame in frames:
        frame.calc = SinglePointCalculator(frame, energy=-2.0, forces=np.zeros((3, 3)))
    frames[0].info["energy"], frames[0].arrays["forces"] = -2.0, np.zeros((3, 3))
    holder, old = (frames[1].info, -3.0) if key == "energy" else (frames[1].arrays, np.full((3, 3), -3.0))
    holder[key] = old
    write(tmp_path / "a.traj", frames)
    with connect(tmp_path / "b.db") as database:
        for frame in frames:
            database.write(frame, data={key: holder[key] if frame is frames[1] else frame.calc.results[key]})
    for file in [tmp_path / "b.db", *([tmp_path / "a.traj"] if key == "energy" else [])]:  # .traj has no other arrays
        arguments = {"root": tmp_path, "files": file, "forces": True}
        with pytest.raises(InputError, match=rf"frame 1: '{key}' is -3.0 in its .*, but -?[02].0 among the results"):
            ClusterDataset(**arguments)
        with pytest.warns(UserWarning, match="1 frame is left out"):
            assert energies(ClusterDataset(**arguments, on_bad="skip")) == [-2.0]
    refused(lambda: to_data(frames[1]), f"{key!r} is -3.0 in its ")


def test_total_energies_that_differ_little_contradict_each_other():
    frame = cluster(energy=-52000.0)
    frame.calc = SinglePointCalculator(frame, energy=-52000.3)
    refused(lambda: to_data(frame), "'energy' is -52000.0 in its info, but -52000.3 among the results")


def test_forces_of_any_name(tmp_path):
    atoms = cluster(REF_energy=-3.0)
    atoms.arrays["REF_forces"] = np.arange(9.0).reshape(3, 3)
    write_extxyz(tmp_path / "a.extxyz", [atoms])
    dataset = ClusterDataset(tmp_path, tmp_path / "a.extxyz", target="REF_energy", forces="REF_forces")
    assert dataset[0].force.flatten().tolist() == list(range(9))
    refused(
        lambda: ClusterDataset(tmp_path, tmp_path / "a.extxyz", target="REF_energy", forces=True),
        "no property 'forces' per atom",
        "forces='REF_forces' selects that one",
    )
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "a.extxyz"), "target='REF_energy' selects that one")
    arguments = {"target": "REF_energy", "forces": "REF_forces"}
    labels = {"properties": ["REF_energy"], "atom_properties": ["REF_forces"]}
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.extxyz", **labels), compressed=False)
    assert torch.equal(OnDiskClusters(tmp_path / "a.h5", **arguments)[0].force, dataset[0].force)


@pytest.mark.filterwarnings("ignore:joined 1 of 1 frames:UserWarning")
@pytest.mark.parametrize(("energy_unit", "length_unit"), [("eV", "Angstrom"), ("hartree", "Bohr"), ("kcal/mol", "nm")])
def test_units_of_labels_and_positions(tmp_path, energy_unit, length_unit):
    energy = {"eV": 1.0, "hartree": 27.211386, "kcal/mol": 0.0433641}[energy_unit]
    length = {"Angstrom": 1.0, "Bohr": 0.5291772, "nm": 10.0}[length_unit]
    force = np.arange(9.0).reshape(3, 3)
    atom, trimer = cluster(1, REF_energy=-0.5 / energy), cluster(3, REF_energy=-6.0 / energy)
    trimer.positions /= length
    for atoms, values in ((atom, np.zeros((1, 3))), (trimer, force * length / energy)):
        atoms.arrays["dft"] = values
        atoms.set_cell([20 / length] * 3)
        atoms.pbc = True
    trimer.positions[0, 2] += 20 / length  # over the face of the cell
    path = _text(tmp_path, [atom, trimer])
    arguments = {"target": "REF_energy", "forces": "dft", "references": "isolated_atoms", "energy_unit": energy_unit}
    dataset = ClusterDataset(tmp_path, path, length_unit=length_unit, **arguments)
    assert dataset.references == {"Ga": pytest.approx(-0.5, rel=1e-5)}
    assert energies(dataset) == pytest.approx([-4.5], rel=1e-5)
    np.testing.assert_allclose(dataset[0].force, force, rtol=1e-5, atol=1e-5)
    assert dataset[0].pos[:, 2].sort().values.tolist() == pytest.approx([-2.8, 0.0, 2.8], abs=1e-5)
    if length_unit == "Angstrom":
        return
    refused(lambda: ClusterDataset(tmp_path, path, energy_unit="volt"), "energy_unit is 'volt'", "Hartree", "kJ/mol")
    refused(lambda: ClusterDataset(tmp_path, path, length_unit="eV"), "length_unit is 'eV'", "Bohr")


def test_a_unit_of_length_is_stated_once(tmp_path):
    """By the file or by the user: positions would otherwise be converted twice."""
    lines = [f"Ga 0 0 {2.8 * n / units.Bohr}\n" for n in range(3)]
    call = partial(ClusterDataset, tmp_path, tmp_path / "a.xyz", length_unit="Bohr")
    for comment in ("length_unit=bohr energy=-1", "energy=-1 pos_unit=Angstrom"):
        (tmp_path / "a.xyz").write_text("".join([f"3\n{comment}\n", *lines]))
        refused(call, "a.xyz, frame 0: states its unit of length", "leave length_unit out")
    for comment in ("energy=-1 units=bohr", "in bohr, energy=-1"):  # refused without length_unit
        (tmp_path / "a.xyz").write_text("".join([f"3\n{comment}\n", *lines]))
        assert call()[0].pos[2, 2] == pytest.approx(2.8)
    dump = "ITEM: UNITS\nelectron\nITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n3\nITEM: ATOMS element x y z\n"
    (tmp_path / "a.xyz").write_text("".join([dump, *lines]))
    refused(call, "a.xyz: states LAMMPS units 'electron'", "leave length_unit out")


@pytest.mark.parametrize("key", ["forces", "REF_forces"])
def test_forces_are_converted_from_the_unit_of_length_that_a_file_states(tmp_path, key):
    lines = [f"Ga 0 0 {2.8 * n / units.Bohr} 0 0 {n - 1}\n" for n in range(3)]
    comment = f"Properties=species:S:1:pos:R:3:{key}:R:3 energy=-1 length_unit=bohr energy_unit=Hartree"
    (tmp_path / "a.xyz").write_text("".join(["3\n", comment, "\n", *lines]))
    arguments = {"forces": key, "energy_unit": "Hartree"}
    dataset = ClusterDataset(tmp_path, tmp_path / "a.xyz", **arguments)
    expected = [[0, 0, n * units.Hartree / units.Bohr] for n in (-1, 0, 1)]
    np.testing.assert_allclose(dataset[0].force, expected, rtol=1e-6)
    frames = Frames.open(tmp_path / "a.xyz", properties=["energy"], atom_properties=[key])
    write_store(tmp_path / "a.h5", frames, compressed=False, energy_unit="Hartree")
    np.testing.assert_allclose(OnDiskClusters(tmp_path / "a.h5", **arguments)[0].force, expected, rtol=1e-6)


def test_units_of_a_store_and_of_a_table(tmp_path, folder):
    write_extxyz(tmp_path / "a.xyz", [cluster(energy=-1.0)])
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.xyz", properties=["energy"]), compressed=False)
    assert OnDiskClusters(tmp_path / "a.h5", energy_unit="Hartree")[0].y.item() == pytest.approx(-27.211386)
    assert OnDiskClusters(tmp_path / "a.h5")[0].y.item() == -1.0
    (tmp_path / "e.csv").write_text("".join(f"{n},{e / 27.211386}\n" for n, e in enumerate(ALL)))
    dataset = ClusterDataset(tmp_path, folder, labels=tmp_path / "e.csv", energy_unit="Ha")
    assert energies(dataset) == pytest.approx(ALL, rel=1e-6)


def with_isolated_atoms(path):
    frames = [cluster(1, "Ga", REF_energy=-0.2), cluster(4, "Ga", REF_energy=-9.0)]
    frames += [cluster(1, "Al", REF_energy=-0.5), Atoms("GaAl", [[0, 0, 0], [0, 0, 2.7]], info={"REF_energy": -3.0})]
    write_extxyz(path, frames)
    return path


def test_isolated_atoms_are_references_on_request(tmp_path):
    path = with_isolated_atoms(tmp_path / "a.extxyz")
    dataset = ClusterDataset(tmp_path, path, target="REF_energy", references="isolated_atoms")
    assert dataset.references == {"Ga": -0.2, "Al": -0.5} and dataset.skipped == []
    assert energies(dataset) == pytest.approx([-9.0 + 0.8, -3.0 + 0.7])
    refused(
        lambda: ClusterDataset(tmp_path, path, target="REF_energy"),
        "frame 0: number of atoms is 1",
        "references='isolated_atoms'",
        "on_bad='skip'",
    )
    with pytest.warns(UserWarning, match="2 frames are left out"):
        skipping = ClusterDataset(tmp_path, path, target="REF_energy", on_bad="skip")
    assert energies(skipping) == [-9.0, -3.0] and [bad.number for bad in skipping.skipped] == [0, 2]
    with warnings.catch_warnings(record=True) as caught:  # said again when it is read from the processed file
        warnings.simplefilter("always")
        ClusterDataset(tmp_path, path, target="REF_energy", on_bad="skip")
    assert len(caught) == 1
    write_store(tmp_path / "a.h5", Frames.open(path, properties=["REF_energy"]), compressed=False)
    for _ in range(2):  # the second time from the index
        on_disk = OnDiskClusters(tmp_path / "a.h5", "REF_energy", references="isolated_atoms")
        assert on_disk.references == dataset.references and len(on_disk) == 2
        for ours, other in zip(on_disk, dataset, strict=True):
            assert torch.equal(ours.y, other.y) and torch.equal(ours.pos, other.pos) and torch.equal(ours.z, other.z)
            assert torch.equal(ours.idx, other.idx)


def test_isolated_ions_are_not_references(tmp_path):
    path = with_isolated_atoms(tmp_path / "a.extxyz")
    write_extxyz(path, [cluster(1, "Ga", REF_energy=5.8, charge=1), *read(path, ":")])
    arguments = {"target": "REF_energy", "references": "isolated_atoms"}
    refused(lambda: ClusterDataset(tmp_path, path, **arguments), "frame 0", "an isolated ion, which is no reference")
    with pytest.warns(UserWarning, match="an isolated ion"):
        assert ClusterDataset(tmp_path, path, **arguments, on_bad="skip").references == {"Ga": -0.2, "Al": -0.5}


def test_isolated_atoms_need_no_other_labels(tmp_path):
    cluster_frame, atom = cluster(3, energy=-5.0), cluster(1, energy=-0.25)
    cluster_frame.calc = SinglePointCalculator(cluster_frame, energy=-5.0, forces=np.ones((3, 3)))
    cluster_frame.info.clear()
    write_extxyz(tmp_path / "a.extxyz", [atom, cluster_frame])
    dataset = ClusterDataset(tmp_path, tmp_path / "a.extxyz", references="isolated_atoms", forces=True)
    assert energies(dataset) == [-4.25] and dataset[0].force.shape == (3, 3)


def test_a_key_with_two_values_is_refused(tmp_path):
    for values, accepted in (
        ("energy=-1.0 energy=-2.0", False),
        ('energy="-1.0" energy="-2.0"', False),
        ('energy=-1.0 T=300 energy=-1.0 a="b=1" c="b=2"', True),
    ):
        (tmp_path / "a.xyz").write_text(f"2\n{values}\nGa 0 0 0\nGa 0 0 2.7\n")
        call = lambda: ClusterDataset(tmp_path / "root", tmp_path / "a.xyz", "energy")  # noqa: E731
        if accepted:
            assert energies(call()) == [-1.0]
        else:
            refused(call, "a.xyz, frame 0: ", " and energy=", "-2.0", "; remove one of them")


def test_isolated_atoms_that_contradict_or_lack(tmp_path):
    frames = [cluster(1, energy=-0.2), cluster(1, energy=-0.3), cluster(3, energy=-5.0)]
    write_extxyz(tmp_path / "a.xyz", frames)
    arguments = {"references": "isolated_atoms"}
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "a.xyz", **arguments), "frame 1", "-0.3", "-0.2", "frame 0")
    write_extxyz(tmp_path / "b.xyz", frames[2:])
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "b.xyz", **arguments), "no isolated atom of Ga", "'fit'")
    write_extxyz(tmp_path / "c.xyz", frames[:1])
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "c.xyz", **arguments), "there are only isolated atoms")


@pytest.mark.parametrize("suffix", [".extxyz", ".extxyz.gz", ".traj"])
def test_frames_without_a_label(tmp_path, suffix):
    frames = [cluster(3, dft=-1.0), cluster(4), cluster(5, dft=float("nan")), cluster(6, dft=-4.0)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".traj":
        for atoms in frames:  # info is not kept in this format: the energy is
            atoms.calc = SinglePointCalculator(atoms, **({"energy": atoms.info["dft"]} if atoms.info else {}))
        write(path, frames)
    else:
        write_extxyz(path, frames)
    target = "energy" if suffix == ".traj" else "dft"
    refused(lambda: ClusterDataset(tmp_path, path, target=target), "frame 1: no property", "on_missing='skip'")
    with pytest.warns(UserWarning, match="2 frames are left out"):
        dataset = ClusterDataset(tmp_path, path, target=target, on_missing="skip")
    assert energies(dataset) == [-1, -4] and dataset.sizes.tolist() == [3, 6]
    assert [bad.number for bad in dataset.skipped] == [1, 2]


def test_frames_that_cannot_be_used_are_left_out_on_request(tmp_path):
    text = "3\nenergy=-1\nGa 0 0 0\nGa 0 0 2.8\nGa 0 0 5.6\n2\nenergy=-2\nGa 0 0 0\nGa 0 0 0.1\n"
    (tmp_path / "a.xyz").write_text(text + "2\nenergy=-3\nGa 0 0 0\nGa 0 0 oops\n2\nenergy=-4\nGa 0 0 0\nGa 0 0 3\n")
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "a.xyz"), "frame 1", "on_bad='skip'")
    with pytest.warns(UserWarning, match="2 frames are left out"):
        dataset = ClusterDataset(tmp_path, tmp_path / "a.xyz", on_bad="skip")
    assert energies(dataset) == [-1, -4] and [bad.number for bad in dataset.skipped] == [1, 2]
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "a.xyz", on_bad="ignore"), "on_bad must be 'stop' or 'skip'")


@pytest.mark.parametrize("on_bad", ["on_bad", "on_missing"])
def test_values_that_are_not_numbers_are_left_out_on_request(tmp_path, on_bad):
    """NaN forces of one atom, a failed energy, an infinite charge: each frame is counted, and no other is lost."""
    frames = [cluster(3, energy=-float(number), t=300.0) for number in range(6)]
    for frame in frames:
        frame.arrays |= {"forces": np.zeros((3, 3)), "q": np.zeros(3)}
    frames[1].arrays["forces"][2, 1] = np.nan
    frames[2].info["energy"] = "failed"
    frames[3].arrays["q"][0] = np.inf
    frames[4].info["t"] = float("nan")
    write_extxyz(tmp_path / "a.xyz", frames)
    arguments = {"forces": True, "keep": ["t"], "keep_atoms": ["q"]}
    refused(
        lambda: ClusterDataset(tmp_path, tmp_path / "a.xyz", **arguments), "frame 1: 'forces' of atom 2 is [0.0, nan"
    )
    with pytest.warns(UserWarning, match="4 frames are left out"):
        dataset = ClusterDataset(tmp_path, tmp_path / "a.xyz", **arguments, **{on_bad: "skip"})
    assert energies(dataset) == [0, -5] and [bad.number for bad in dataset.skipped] == [1, 2, 3, 4]
    assert dataset._data.force.shape == (6, 3)


@pytest.mark.parametrize("odd", ["-3,25", "[[1, 2]]", "***", "T"])
def test_one_odd_value_does_not_affect_other_frames(tmp_path, odd):
    rows = "Ga 0 0 0\nGa 0 0 2.8\n"
    (tmp_path / "a.xyz").write_text("".join(f"2\nenergy={value}\n{rows}" for value in ("-1.5", odd, "-2")))
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "a.xyz"), "a.xyz, frame 1: 'energy' must be a number, got ")
    with pytest.warns(UserWarning, match="1 frame is left out"):
        dataset = ClusterDataset(tmp_path, tmp_path / "a.xyz", on_bad="skip")
    assert energies(dataset) == [-1.5, -2] and [bad.number for bad in dataset.skipped] == [1]


def test_numbers_beside_a_large_integer(tmp_path):
    write_extxyz(tmp_path / "a.xyz", [cluster(energy=value) for value in (-1.5, 2**60)])
    (block,) = Frames.open(tmp_path / "a.xyz", properties=["energy"])
    assert numbers(block, "energy").tolist() == [-1.5, 2.0**60]


def test_forces_of_a_store_must_belong_to_its_energies(dynamics, tmp_path):
    """A store is checked by the files it was converted from, of which the second has the gradient."""
    for name, sign in (("good", 1.0), ("gradient", -1.0)):
        frames = [frame.copy() for frame in dynamics]
        for frame, labelled in zip(frames, dynamics, strict=True):
            forces = sign * labelled.get_forces()
            frame.calc = SinglePointCalculator(frame, energy=labelled.get_potential_energy(), forces=forces)
        write_extxyz(tmp_path / f"{name}.extxyz", frames)
        files = [tmp_path / "good.extxyz", *([tmp_path / "gradient.extxyz"] if sign < 0 else [])]
        opened = Frames.open(files, properties=["energy"], atom_properties=["forces"])
        write_store(tmp_path / f"{name}.h5", opened, compressed=False)
    assert len(OnDiskClusters(tmp_path / "good.h5", forces=True)) == len(dynamics)
    reason = "gradient.h5, from .*gradient.extxyz: the forces do not belong .* by -1"
    with pytest.raises(InputError, match=reason):
        OnDiskClusters(tmp_path / "gradient.h5", forces=True)


def test_frames_of_a_store_are_left_out_on_request(tmp_path):
    frames = [cluster(size, energy=-float(size)) for size in (3, 4, 5, 6)]
    frames[1].info["energy"] = float("nan")
    frames[2].positions[1] = frames[2].positions[0]
    write_extxyz(tmp_path / "a.xyz", frames)
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.xyz", properties=["energy"]), compressed=False)
    refused(lambda: OnDiskClusters(tmp_path / "a.h5"), "frame 1: 'energy' is nan", "on_missing='skip'")
    refused(lambda: OnDiskClusters(tmp_path / "a.h5", on_missing="skip"), "frame 2: two atoms", "on_bad='skip'")
    with pytest.warns(UserWarning, match="2 frames are left out"):
        dataset = OnDiskClusters(tmp_path / "a.h5", on_missing="skip", on_bad="skip", references="fit")
    assert len(dataset) == 2 and dataset.sizes.tolist() == [3, 6]
    assert [data.num_nodes for data in dataset] == [3, 6] and dataset.references == {"Ga": pytest.approx(-1.0)}
    assert dataset[1].pos[:, 2].diff().tolist() == pytest.approx([2.8] * 5, abs=1e-6)


def test_a_group_is_the_same_however_its_number_is_written(tmp_path):
    write_extxyz(tmp_path / "a.xyz", [cluster(energy=-1.0, group=group) for group in (1, 2, "md")])
    write_extxyz(tmp_path / "b.xyz", [cluster(energy=-1.0, group=group) for group in (1.0, 2.5, "1", True)])
    dataset = ClusterDataset(tmp_path, [tmp_path / "a.xyz", tmp_path / "b.xyz"], group="group")
    assert dataset.group_names == ["1", "2", "md", "2.5", "True"]
    assert dataset.groups.tolist() == [0, 1, 2, 0, 3, 0, 4]
    write_extxyz(tmp_path / "c.xyz", [cluster(energy=-1.0, group=group) for group in (1, float("nan"))])
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "c.xyz", group="group"), "frame 1: the group 'group' is nan")


PYG_NAMES = "face num_nodes ptr num_graphs batch my_index batch_no edge_attr adj_t x z pos keys size to update".split()
PYG_NAMES += ["num_edges", "n_id", "node_charge", "_store", "class", "a b"]


def named(size, name):
    atoms = cluster(size, energy=-1.0)
    atoms.info[name] = size
    return atoms


@pytest.mark.parametrize("name", PYG_NAMES)
def test_names_with_a_meaning_are_refused_or_renamed(tmp_path, name):
    write_extxyz(tmp_path / "a.xyz", [named(size, name) for size in (3, 5)])
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "a.xyz", keep=[name]), f"{name!r} cannot be kept", "keep={")
    dataset = ClusterDataset(tmp_path, tmp_path / "a.xyz", keep={name: "value"})
    (batch,) = DataLoader(dataset, batch_size=2)
    assert batch.value.tolist() == [3, 5] and batch.num_nodes == 8


@pytest.mark.parametrize("name", ["temperature", "dft_energy", "charge", "dipole", "run", "label"])
def test_names_without_a_meaning_come_through_a_batch_unchanged(name):
    assert not has_meaning(name)
    data = [Data(pos=torch.zeros(2, 3), **{name: torch.tensor([value])}) for value in (5, 7)]
    assert Batch.from_data_list(data)[name].tolist() == [5, 7]


@pytest.mark.parametrize("single", [False, True])
def test_positions_far_from_the_origin_are_exact(tmp_path, single):
    near, far = cluster(9, energy=-1.0), cluster(9, offset=1e4, energy=-1.0)
    for atoms in (near, far):
        atoms.rattle(0.1, seed=0)
    write_store(tmp_path / "a.h5", Frames.open(_text(tmp_path, [near, far]), properties=["energy"]), compressed=False,
                single=single)  # fmt: skip
    expected = near.positions - near.positions.mean(axis=0)
    for dataset in (ClusterDataset(tmp_path, tmp_path / "a.extxyz"), OnDiskClusters(tmp_path / "a.h5")):
        for data in dataset:
            np.testing.assert_allclose(data.pos.numpy(), expected, rtol=0, atol=1e-6)


def _text(folder, frames):
    write_extxyz(folder / "a.extxyz", frames)
    return folder / "a.extxyz"


def test_several_that_start_at_once_process_once(tmp_path, monkeypatch):
    write_extxyz(tmp_path / "a.xyz", [cluster(energy=-1.0 - number / 200) for number in range(200)])
    processed = []
    process = ClusterDataset.process
    monkeypatch.setattr(ClusterDataset, "process", lambda self: (processed.append(1), process(self)))
    with ThreadPoolExecutor(4) as threads:
        datasets = list(threads.map(lambda _: ClusterDataset(tmp_path / "root", tmp_path / "a.xyz"), range(4)))
    assert len(processed) == 1 and all(len(dataset) == 200 for dataset in datasets)
    assert [path.suffix for path in (tmp_path / "root" / "processed").iterdir()] == [".pt"]


def test_a_store_of_other_content_under_the_same_name_and_date_is_noticed(tmp_path):
    for name, energy in (("a", -1.5), ("b", -2.5)):
        write_extxyz(tmp_path / f"{name}.xyz", [cluster(energy=energy)])
        write_store(tmp_path / f"{name}.h5", Frames.open(tmp_path / f"{name}.xyz", properties=["energy"]),
                    compressed=False)  # fmt: skip
    assert OnDiskClusters(tmp_path / "a.h5")[0].y == -1.5
    times = (tmp_path / "a.h5").stat()
    content = (tmp_path / "b.h5").read_bytes()
    assert len(content) == times.st_size
    (tmp_path / "a.h5").write_bytes(content)
    os.utime(tmp_path / "a.h5", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert OnDiskClusters(tmp_path / "a.h5")[0].y == -2.5


def test_every_column_of_total_energies_is_held_without_rounding(tmp_path):
    """Not the target alone: kept values and arrays of atoms differ by 0.0001 at a million, too."""
    totals = [-1000000.0001, -1000000.0002, -1000000.0005]
    frames = [cluster(energy=-1.0, E_total=total, T=300.0) for total in totals]
    for frame, total in zip(frames, totals, strict=True):
        frame.set_array("share", np.full(3, total))
        frame.set_array("small", np.arange(3.0))
    write_extxyz(tmp_path / "a.extxyz", frames)
    keep = {"keep": ["E_total", "T"], "keep_atoms": ["share", "small"]}
    dataset = ClusterDataset(tmp_path / "root", tmp_path / "a.extxyz", **keep)
    assert [data.E_total.item() for data in dataset] == totals
    assert [data.share[0].item() for data in dataset] == totals
    assert dataset[0].T.dtype == dataset[0].y.dtype == torch.float32
    labels = {"properties": ["energy", "E_total", "T"], "atom_properties": ["share", "small"]}
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.extxyz", **labels), compressed=False)
    on_disk = OnDiskClusters(tmp_path / "a.h5", **keep)
    assert [data.E_total.item() for data in on_disk] == totals and on_disk[0].T.dtype == torch.float32
    assert [data.share[0].item() for data in on_disk] == totals
    assert on_disk[0].small.dtype == dataset[0].small.dtype == torch.float32


STATED_UNITS = {
    "i = 0, time = 0.000, E = -1.0": ("E", "Hartree"),  # CP2K
    "i = 0, E = -1.0, a = 20.0, b = 20.0, c = 20.0": ("E", "Hartree"),
    " energy: -1.000000 gnorm: 0.000434 xtb: 6.4.1 (unknown)": ("energy", "Hartree"),
    " RKS-SCF000/def2-SVP  ENERGY=-1.0": ("ENERGY", "Hartree"),
    "Coordinates from ORCA-job ga3 E -1.000000": ("energy", "Hartree"),
    "energy=-1.0 kcal/mol": ("energy", "kcal/mol"),
    "energy=-1.0 energy_unit=a.u.": ("energy", "Hartree"),
    "ORCA AIMD Position Step 1, t=0.50 fs, E_Pot=-1.0 Hartree, Unit is Angstrom": ("E_Pot", "Hartree"),
    "energy=-1.0 (kcal/mol) a=1": ("energy", "kcal/mol"),
    "energy=-1.0 kcal/mol.": ("energy", "kcal/mol"),
    "energy=-1.0 a.u. ; a=1": ("energy", "Hartree"),
    "energy=-1.0 Energy_Unit:hartree": ("energy", "Hartree"),
    'energy=-1.0 units="kcal/mol, Angstrom"': ("energy", "kcal/mol"),
    "E_dft=-1.0 E_dft_units=kcal/mol": ("E_dft", "kcal/mol"),
    "E_kJ_mol=-1.0": ("E_kJ_mol", "kJ/mol"),
    "energy_in_Ry=-1.0": ("energy_in_Ry", "Ry"),
    "dft_total_energy_Hartree=-1.0": ("dft_total_energy_Hartree", "Hartree"),
    "e_au=-1.0": ("e_au", "Hartree"),
    "totalEnergyHa=-1.0": ("totalEnergyHa", "Ha"),
    "energy_kcal_per_mol=-1.0": ("energy_kcal_per_mol", "kcal/mol"),
    "energy=-1.0 energy_unit=Ryd": ("energy", "Rydberg"),
    "total_energy_mEh=-1.0": ("total_energy_mEh", "mHa"),
    "energy_milli_hartree=-1.0": ("energy_milli_hartree", "mHa"),
    "energy_kcal_mol-1=-1.0": ("energy_kcal_mol-1", "kcal/mol"),
    "total_energy_Eh=-1.0": ("total_energy_Eh", "Hartree"),
    "free.energy.kcal=-1.0": ("free.energy.kcal", "kcal/mol"),
}


@pytest.mark.parametrize("comment", STATED_UNITS)
def test_units_that_programs_and_people_state(tmp_path, comment):
    target, unit = STATED_UNITS[comment]
    (tmp_path / "a.xyz").write_text(f"3\n{comment}\nGa 0 0 0\nGa 0 0 2.8\nGa 0 0 5.6\n")
    call = lambda **kwargs: ClusterDataset(tmp_path / "root", tmp_path / "a.xyz", target, **kwargs)  # noqa: E731
    refused(call, "a.xyz, frame 0: states ", f"energy_unit={unit!r}")
    energy = {"Ha": -27.211386, "mH": -0.027211386, "kc": -0.0433641, "kJ": -0.0103643, "Ry": -13.605693}[unit[:2]]
    assert energies(call(energy_unit=unit)) == pytest.approx([energy], rel=1e-5)
    recipe = tmp_path / "recipe.yaml"
    assert main(["new-recipe", str(tmp_path / "a.xyz"), "--target", target, "--out", str(recipe)]) == 0
    assert f"energy_unit: {unit}" in recipe.read_text()
    assert main(["convert", str(tmp_path / "a.xyz"), "--out", str(tmp_path / "a.h5"), "--properties", target]) == 0
    stored = lambda **kwargs: OnDiskClusters(tmp_path / "a.h5", target, **kwargs)  # noqa: E731
    stated = target if unit_in_name(target) else f"energy_unit={unit}"
    refused(stored, f"a.h5: states {stated}", f"energy_unit={unit!r}")
    with pytest.warns(UserWarning, match="is compressed"):
        assert stored(energy_unit=unit)[0].y.item() == pytest.approx(energy, rel=1e-5)


STATED_FORCE_UNITS = {  # and the units of energy and length with which they agree
    "energy=-1 forces_unit=eV/Å": ("eV", "Angstrom"),
    'energy=-1 force_unit="kcal/mol/A"': ("kcal/mol", "Angstrom"),
    'energy=-1 unit_of_forces="Ha/Bohr"': ("Hartree", "Bohr"),
    'energy=-1 length_unit=bohr forces_unit="hartree/bohr"': ("Hartree", "Angstrom"),
    "energy=-1 length_unit=bohr forces_unit=au energy_unit=Hartree": ("Hartree", "Angstrom"),
    "energy=-1 length_unit=bohr forces_unit=eV/Å": ("eV", "Angstrom"),
    "energy=-1 forces_unit=foe": None,
}


@pytest.mark.parametrize("comment", STATED_FORCE_UNITS)
def test_units_of_forces_that_a_file_states(tmp_path, comment):
    lines = [f"Ga 0 0 {5 * n} 0 0 {n - 1}\n" for n in range(3)]
    (tmp_path / "a.xyz").write_text(f"3\nProperties=species:S:1:pos:R:3:forces:R:3 {comment}\n{''.join(lines)}")
    arguments = {"root": tmp_path, "files": tmp_path / "a.xyz", "forces": True, "fragments": "keep"}
    for energy, length in [("eV", "Angstrom"), ("kcal/mol", "Angstrom"), ("Hartree", "Bohr"), ("Hartree", "Angstrom")]:
        call = partial(ClusterDataset, energy_unit=energy, length_unit=length, **arguments)
        if STATED_FORCE_UNITS[comment] == (energy, length):
            force = call()[0].force[2, 2].item()
            assert force == pytest.approx(1) if "eV/Å" in comment else force > 0
        elif "energy_unit" not in comment or energy == "Hartree":
            refused(call, "a.xyz, frame 0: states ", "but the forces are read in units of", "convert them")
    argv = ["convert", str(tmp_path / "a.xyz"), "--out", str(tmp_path / "a.h5"), "--fragments", "keep"]
    code = main([*argv, "--properties", "energy", "--atom-properties", "forces"])
    assert code == (0 if "Å" in comment or "energy_unit" in comment else 2)


FORCE_NAMES = {  # and the units of energy and length with which they agree
    "forces_eV_per_A": ("eV", "Angstrom"),
    "REF_forces(eV/Å)": ("eV", "Angstrom"),
    "f_kcal_mol_A": ("kcal/mol", "Angstrom"),
    "forces_Ha_bohr": ("Hartree", "Bohr"),
    "dft_forces_au": ("Hartree", "Bohr"),
    "forces_Ha": ("Hartree", "Bohr"),
    "forces_kcal": ("kcal/mol", "Angstrom"),
    "forces_cm-1": ("unknown", "unknown"),
    "forces_kJ_mol-1_nm-1": ("kJ/mol", "nm"),
    "forces_of_Au": None,
    "neg_grad": None,
    "dft_gradient": None,
    "dE_dx": None,
}


@pytest.mark.parametrize("name", FORCE_NAMES)
def test_units_of_forces_in_their_name(tmp_path, name):
    frame = Atoms("Ga3", [[0, 0, 5 * n] for n in range(3)], info={"E": -1.0})
    frame.arrays[name] = np.eye(3)
    write_extxyz(tmp_path / "a.xyz", [frame])
    labels = {"properties": ["E"], "atom_properties": [name]}
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.xyz", fragments="keep", **labels), compressed=False)
    arguments = {"target": "E", "forces": name, "fragments": "keep"}
    for energy, length in [("eV", "Angstrom"), ("kcal/mol", "Angstrom"), ("Hartree", "Bohr"), ("kJ/mol", "nm")]:
        call = partial(ClusterDataset, tmp_path, energy_unit=energy, length_unit=length, **arguments)
        if FORCE_NAMES[name] == (energy, length):
            force = {"eV": 1, "kcal/mol": 0.0433641, "Hartree": 51.4221, "kJ/mol": 0.00103643}[energy]
            assert call(tmp_path / "a.xyz")[0].force[0, 0].item() == pytest.approx(force, rel=1e-4)
        elif FORCE_NAMES[name]:
            refused(lambda call=call: call(tmp_path / "a.xyz"), f"a.xyz: states {name}, but the forces are read")
        elif name not in ("forces_of_Au", "neg_grad"):
            refused(lambda call=call: call(tmp_path / "a.xyz"), f"a.xyz: {name!r} is a gradient by its name")
    if name == "f_kcal_mol_A":
        refused(lambda: OnDiskClusters(tmp_path / "a.h5", **arguments), f"a.h5: states {name}, but the forces")


def test_forces_with_a_unit_in_their_name_stay_as_they_are(tmp_path):
    comment = "length_unit=bohr energy=-1 Properties=species:S:1:pos:R:3:forces_eV_A:R:3"
    (tmp_path / "a.xyz").write_text(f"3\n{comment}\nGa 0 0 0 0 0 1\nGa 0 0 5.3 0 0 0\nGa 0 0 10.6 0 0 -1\n")
    dataset = ClusterDataset(tmp_path / "root", tmp_path / "a.xyz", forces="forces_eV_A")
    assert dataset[0].force[0, 2].item() == 1
    assert dataset[0].pos[1, 2] - dataset[0].pos[0, 2] == pytest.approx(5.3 * units.Bohr)


def test_forces_per_another_unit_of_length_than_the_positions_stay_as_they_are(tmp_path):
    comment = 'length_unit=Angstrom force_unit="Ha/Bohr" energy=-1 Properties=species:S:1:pos:R:3:forces:R:3'
    (tmp_path / "a.xyz").write_text(f"2\n{comment}\nGa 0 0 0 0 0 1\nGa 0 0 2.8 0 0 -1\n")
    (block,) = Frames.open(tmp_path / "a.xyz", with_atoms=True)
    assert block.atoms[0].info["force_unit"] == "Ha/Bohr" and block.atoms[0].get_forces()[0, 2] == 1
    call = partial(ClusterDataset, tmp_path, tmp_path / "a.xyz", energy_unit="Hartree", forces=True)
    refused(call, "a.xyz, frame 0: states force_unit=Ha/Bohr, but the forces are read in units of 27.2114 eV/Å")


def test_forces_of_a_structure_in_another_unit_are_refused():
    frame = cluster(energy=-1.0, force_unit="Ha/Bohr")
    frame.arrays["forces"] = np.eye(3)
    refused(lambda: to_data(frame), "the structure states force_unit=Ha/Bohr, but the forces are read in units of 1 eV")
    frame.info["force_unit"] = "eV/Å"
    assert to_data(frame).force[0, 0] == 1


def test_the_unit_of_forces_is_converted_with_them(tmp_path):
    comment = (
        'length_unit=bohr energy_unit=Ha forces_unit="Ha/Bohr" energy=-1 Properties=species:S:1:pos:R:3:forces:R:3'
    )
    (tmp_path / "a.xyz").write_text(f"3\n{comment}\nGa 0 0 0 0 0 1\nGa 0 0 5.3 0 0 0\nGa 0 0 10.6 0 0 -1\n")
    (block,) = Frames.open(tmp_path / "a.xyz", with_atoms=True)
    write_extxyz(tmp_path / "copy.extxyz", list(block.atoms))
    for name in ("a.xyz", "copy.extxyz"):
        dataset = ClusterDataset(tmp_path / "root", tmp_path / name, energy_unit="Ha", forces=True)
        assert dataset[0].force[0, 2].item() == pytest.approx(units.Hartree / units.Bohr)
        assert dataset[0].pos[1, 2] - dataset[0].pos[0, 2] == pytest.approx(5.3 * units.Bohr)


@pytest.mark.parametrize(
    "info", [{"dft": -1.0, "energy_unit": "Ha"}, {"dft": -1.0, "dft_unit": "Ha", "energy": -30.0, "pred_energy": -29.0}]
)
def test_labels_of_a_store_keep_their_units(tmp_path, info):
    """Also beside others in eV, and in frames that are read from the store."""
    write_extxyz(tmp_path / "a.extxyz", [cluster(**info)])
    labels = [key for key in info if not key.endswith("unit")]
    argv = ["convert", str(tmp_path / "a.extxyz"), "--out", str(tmp_path / "a.h5"), "--uncompressed", "--properties"]
    assert main([*argv, *labels]) == 0
    (block,) = Frames.open(tmp_path / "a.h5", with_atoms=True)
    write_extxyz(tmp_path / "b.extxyz", list(block.atoms))
    for dataset in (
        partial(OnDiskClusters, tmp_path / "a.h5"),
        partial(ClusterDataset, tmp_path, tmp_path / "b.extxyz"),
    ):
        refused(lambda dataset=dataset: dataset("dft"), "states ", "_unit=Ha", "energy_unit='Ha'")
        assert dataset("dft", energy_unit="Ha")[0].y.item() == pytest.approx(-27.211386)
        for label in labels[1:]:
            assert dataset(label)[0].y.item() == info[label]


def test_a_unit_in_a_name_is_that_of_no_other_energy_of_a_store(tmp_path):
    (tmp_path / "a.xyz").write_text("3\ndft=-27.211386 dft_Ha=-1.0\nGa 0 0 0\nGa 0 0 2.8\nGa 0 0 5.6\n")
    argv = ["convert", str(tmp_path / "a.xyz"), "--out", str(tmp_path / "a.h5"), "--uncompressed"]
    assert main([*argv, "--properties", "dft", "dft_Ha"]) == 0
    energy = OnDiskClusters(tmp_path / "a.h5", "dft")[0].y.item()
    assert energy == pytest.approx(-27.211386)
    refused(lambda: OnDiskClusters(tmp_path / "a.h5", "dft_Ha"), "a.h5: states dft_Ha", "energy_unit='Ha'")
    assert OnDiskClusters(tmp_path / "a.h5", "dft_Ha", energy_unit="Hartree")[0].y.item() == pytest.approx(energy)


@pytest.mark.parametrize(
    "comment",
    [
        "energy_per_atom=-1.0",
        "per_atom_energy=-1.0",
        "E/N=-1.0",
        "energy_pa=-1.0",
        "energy_per_atom_eV=-1.0",
        "E_eV_atom=-1.0",
        "energy=-1.0 eV/ion",
        "energy_per_atom_eV=-1.0",
        "energy=-1.0 eV/atom",
        "energy=-1.0 eV per atom, a=1",
        "energy=-1.0 unit=eV/atom",
        "energy=-1.0 energy_unit=foe",
        "energy=-1.0 cm-1",
        "energy=-1.0 K",
        "E_mRy=-1.0",
        "E_milliRy=-1.0",
        "E_microHartree=-1.0",
    ],
)
def test_energies_per_atom_or_in_unknown_units_are_refused(tmp_path, comment):
    (tmp_path / "a.xyz").write_text(f"3\n{comment}\nGa 0 0 0\nGa 0 0 2.8\nGa 0 0 5.6\n")
    target = comment.partition("=")[0]
    words = ("energy_unit=foe", "cm-1", "K", "E_mRy", "E_milliRy", "E_microHartree")
    unknown = next((word for word in words if word in comment), None)
    reason = f"unknown unit of energies, {unknown!r}" if unknown else "is an energy per atom"
    refused(lambda: ClusterDataset(tmp_path, tmp_path / "a.xyz", target), "a.xyz, frame 0: ", reason)
    if "atom" in target or unknown == target:
        write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.xyz", properties=[target]))
        refused(lambda: OnDiskClusters(tmp_path / "a.h5", target), "a.h5: ", reason)
    write_extxyz(tmp_path / "b.xyz", [cluster(E_Au=-1.0)])  # of gold, not in atomic units
    assert energies(ClusterDataset(tmp_path, tmp_path / "b.xyz", "E_Au")) == [-1.0]


def test_energies_that_separate_the_atoms_give_a_warning(tmp_path):
    """The opposite sign would make the least stable cluster the lowest."""
    for name, sign in (("bound", -1), ("separating", 1)):
        write_extxyz(tmp_path / f"{name}.xyz", [cluster(atomization_energy=sign * value) for value in (2.0, 2.5)])
    assert energies(ClusterDataset(tmp_path, tmp_path / "bound.xyz", "atomization_energy")) == [-2.0, -2.5]
    with pytest.warns(UserWarning, match=r"separating.xyz: 'atomization_energy' is positive .* give its negative"):
        ClusterDataset(tmp_path, tmp_path / "separating.xyz", "atomization_energy", references="fit")
    (tmp_path / "t.csv").write_text("frame,binding_energy\n0,2.0\n1,2.5\n")
    with pytest.warns(UserWarning, match=r"bound.xyz: 'binding_energy' is positive"):
        ClusterDataset(tmp_path, tmp_path / "bound.xyz", labels=tmp_path / "t.csv")
    write_store(
        tmp_path / "s.h5", Frames.open(tmp_path / "separating.xyz", properties=["atomization_energy"]), compressed=False
    )
    with pytest.warns(UserWarning, match="s.h5: 'atomization_energy' is positive"):
        OnDiskClusters(tmp_path / "s.h5", "atomization_energy")


@pytest.mark.parametrize("key", ["energy_unit", "units", "unit"])
def test_energies_are_not_taken_for_ev_where_the_file_states_another_unit(tmp_path, key):
    write_extxyz(tmp_path / "a.extxyz", [cluster(energy=-1.0, **{key: "Hartree"})])
    call = lambda root, **kwargs: ClusterDataset(tmp_path / root, tmp_path / "a.extxyz", **kwargs)  # noqa: E731
    refused(lambda: call("a"), "frame 0", f"{key}=Hartree", "energy_unit='Hartree'")
    assert energies(call("b", energy_unit="Ha")) == pytest.approx([-27.2114], abs=1e-4)
    write_extxyz(tmp_path / "a.extxyz", [cluster(energy=-1.0, **{key: "eV"})])
    assert energies(call("c")) == [-1.0]
    refused(lambda: call("d", energy_unit=27.2), "energy_unit is 27.2")
    (tmp_path / "a.xyz").write_text("2\nT=300.0 kelvin energy=-1.0 K=5\nGa 0 0 0\nGa 0 0 2.8\n")
    assert energies(ClusterDataset(tmp_path / "e", tmp_path / "a.xyz")) == [-1.0]


@pytest.mark.filterwarnings("ignore:1 frame is left out")
@pytest.mark.parametrize(
    ("comments", "words"),
    [
        (
            ["energy=-30 energy_unit=eV", "energy=-1.1 energy_unit=Ha"],
            r"frame 1: states both 'energy_unit=eV' .*frame 0",
        ),
        (["energy=-30", "energy=-31", "energy=-1 unit=Ha"], "frame 2: states unit=Ha, but .* frame 0 states no unit"),
        (
            [" energy: -1.123456 gnorm: 0.0001 xtb: 6.6", "energy=-30"],
            "frame 0: states .*, but .* frame 1 states no unit",
        ),
        (["energy=-30 energy_unit=eV", "energy=-31"], None),
        (["energy=-30", "name=a unit=eV", "energy=-31"], None),
    ],
)
def test_energies_of_a_file_have_one_unit(tmp_path, comments, words):
    """A unit that only another frame than the first states is not overlooked."""
    text = "".join(f"3\n{comment}\nGa 0 0 0\nGa 0 0 2.8\nGa 0 0 5.6\n" for comment in comments)
    (tmp_path / "a.xyz").write_text(text)
    if words is None:
        dataset = ClusterDataset(tmp_path, tmp_path / "a.xyz", on_missing="skip")
        assert energies(dataset) == [-30, -31]
    for unit in ("eV", "Hartree") if words else ("Hartree",):
        with pytest.raises(InputError, match=words or "states energy_unit=eV|states unit=eV"):
            ClusterDataset(tmp_path, tmp_path / "a.xyz", energy_unit=unit)


def test_a_unit_is_found_in_a_frame_without_a_label(tmp_path):
    frames = [cluster(energy_unit="Ha"), cluster(energy_unit="Ha", E=-3.0, offset=0.1)]
    write_extxyz(tmp_path / "a.extxyz", frames)
    arguments = {"root": tmp_path / "processed", "files": tmp_path / "a.extxyz", "target": "E", "on_missing": "skip"}
    with pytest.raises(InputError, match=r"frame 0: states energy_unit=Ha, .* pass energy_unit='Ha'"):
        ClusterDataset(**arguments)


@pytest.mark.parametrize("suffix", ["traj", "db", "json"])
def test_a_unit_in_a_later_frame_of_any_format_is_not_overlooked(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    frames = [cluster(offset=0.1 * number) for number in range(3)]
    for atoms, energy in zip(frames, (-30.0, -31.0, -1.1), strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    frames[2].info["energy_unit"] = "Hartree"
    if suffix == "traj":
        write(file, frames)
    else:
        with connect(file) as database:
            for atoms in frames:
                database.write(atoms, data=atoms.info)
    refused(lambda: ClusterDataset(tmp_path, file), "frame 2: states energy_unit=Hartree", "frame 0 states no unit")


def test_a_unit_is_that_of_the_value_before_it(tmp_path):
    def energy(comment: str, target: str = "energy", **kwargs) -> list[float]:
        (tmp_path / "a.xyz").write_text(f"3\n{comment}\nGa 0 0 0\nGa 0 0 2.8\nGa 0 0 5.6\n")
        return energies(ClusterDataset(tmp_path / "root", tmp_path / "a.xyz", target, **kwargs))

    unclear = "'Ha' follows 'E', so the unit of 'energy' is unclear; write it after 'energy'"
    for other in ("energy=-100.0 E=-3.5 Ha", "E=-3.5 Ha energy=-100.0"):
        refused(lambda other=other: energy(other), "a.xyz, frame 0: ", unclear)
        assert energy(other, "E", energy_unit="Hartree") == pytest.approx([-95.23985])
    assert energy("energy=-100.0 eV E=-3.5 Ha") == energy("E=-3.5 Ha energy=-100.0 eV") == [-100]
    assert energy("energy=-100.0 E=-3.5 Ha energy_unit=eV") == [-100]
    refused(lambda: energy("energy=-3.5 step=7 Ha"), "states Ha", "energy_unit='Ha'")


@pytest.fixture(scope="module")
def dynamics():
    """Frames of Cu13 in steps of 4 fs, with energies and forces."""
    atoms = Icosahedron("Cu", 2)
    atoms.calc = ClusterEMT()
    atoms.rattle(0.2, seed=0)
    frames = []
    run = VelocityVerlet(atoms, 4 * units.fs)
    for _ in run.irun(14):
        frames.append(Atoms(atoms.numbers, atoms.positions))
        frames[-1].calc = SinglePointCalculator(
            frames[-1], energy=atoms.get_potential_energy(), forces=atoms.get_forces()
        )
    return frames


@pytest.mark.parametrize(
    ("of_energy", "of_force", "ratio"),
    [
        (1.0, 1.0, None),
        (1.0, -1.0, "-1"),  # the gradient
        (1.0, units.Bohr / units.Hartree, "51."),
        (1.0, units.Bohr, "1.89"),  # per Bohr, read as per Å
        (1 / 13, 1.0, "0.07"),  # energies per atom
        (units.eV / (units.kcal / units.mol), 1.0, "23"),
    ],
)
def test_forces_must_belong_to_the_energies(dynamics, tmp_path, of_energy, of_force, ratio):
    """Sign and units of the forces of a trajectory follow from the change of its energies."""
    frames = [frame.copy() for frame in dynamics]
    for frame, labelled in zip(frames, dynamics, strict=True):
        energy, forces = of_energy * labelled.get_potential_energy(), of_force * labelled.get_forces()
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    write_extxyz(tmp_path / "md.extxyz", frames)
    arguments = {"root": tmp_path / "processed", "files": tmp_path / "md.extxyz", "forces": True}
    if ratio is None:
        assert len(ClusterDataset(**arguments)) == len(frames)
        return
    with pytest.raises(InputError, match=rf"md.extxyz: the forces do not belong .* by {ratio}[0-9.]* times the work"):
        ClusterDataset(**arguments)


@pytest.mark.parametrize(
    ("comment", "target"),
    [
        ("energy=-1 unit=Ha", "energy"),
        ("energy=-1.0 Ha", "energy"),
        ("dft=-1 energy_unit=Ha", "dft"),
        ("i = 0, E = -1", "E"),
    ],
)
def test_a_relaxation_keeps_the_unit_of_earlier_energies(tmp_path, comment, target):
    (tmp_path / "a.xyz").write_text(f"3\n{comment}\nCu 0 0 0\nCu 0 0 2.2\nCu 0 1.9 1.1\n")
    relaxed = tmp_path / "a.extxyz"
    assert main(["relax", str(tmp_path / "a.xyz"), "--calculator", "emt", "--out", str(relaxed)]) == 0
    refused(lambda: ClusterDataset(tmp_path, relaxed, f"initial_{target}"), "frame 0: states", "energy_unit='Ha")
    own = read(relaxed)
    own.info["initial_pred_energy"] = -2.0
    write_extxyz(relaxed, [own])
    assert energies(ClusterDataset(tmp_path, relaxed, "initial_pred_energy")) == [-2.0]
    assert energies(ClusterDataset(tmp_path, relaxed, "emt_energy")) == pytest.approx(
        [read(relaxed).info["emt_energy"]]
    )
    again = tmp_path / "again.extxyz"  # the energy of the first relaxation is in eV, too
    assert main(["relax", str(relaxed), "--calculator", "emt", "--out", str(again)]) == 0
    earlier = read(again).info["initial_emt_energy"]
    assert energies(ClusterDataset(tmp_path, again, "initial_emt_energy")) == pytest.approx([earlier])
    refused(lambda: ClusterDataset(tmp_path, again, f"initial_{target}"), "frame 0: states", "energy_unit='Ha")


def test_new_energies_are_in_ev_beside_earlier_ones_in_other_units(tmp_path):
    """Labels and predictions keep the values of a frame, but not the unit of its energy as that of their own."""
    frame = "Cu 0 0 0\nCu 0 0 2.2\nCu 0 1.9 1.1\n"
    comments = ["i = 0, E = -1.0", " energy: -1.0 gnorm: 0.0004 xtb: 6.6", "dft=-1.0 Ha", "dft=-1 unit=Ha energy=-1"]
    for number, comment in enumerate(comments):
        file, labelled = tmp_path / f"{number}.xyz", tmp_path / f"{number}.extxyz"
        file.write_text(f"3\n{comment}\n{frame}")
        assert main(["label", "energy", str(file), "--calculator", "emt", "--out", str(labelled)]) == 0
        atoms = read(labelled)
        atoms.calc = ClusterEMT()
        assert energies(ClusterDataset(tmp_path / "a", labelled)) == pytest.approx([atoms.get_potential_energy()])
        target = {0: "E", 1: None}.get(number, "dft")
        if target:
            refused(lambda: ClusterDataset(tmp_path / "b", labelled, target), "energy_unit='Ha")  # noqa: B023
        predicted = [cluster(pred_energy=-3.0, energy=-1.0, energy_unit="Ha")]
        write_extxyz(tmp_path / "predicted.extxyz", predicted)
        assert energies(ClusterDataset(tmp_path / "c", tmp_path / "predicted.extxyz", "pred_energy")) == [-3.0]
    (block,) = Frames.open(tmp_path / "1.xyz", with_atoms=True)
    with pytest.raises(InputError, match="states energy_unit=Hartree; convert 'energy' and the forces to eV"):
        to_data(block.atoms[0])

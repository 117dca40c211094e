import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from helpers import assert_refused, half_saved, kill, status_of
from torch_geometric.loader import DataLoader

from pyg_clusters.datasets import GNC, GalliumClusters
from pyg_clusters.frames.atoms import join_atoms

PART = "ignore:.*GNC_31-70 has 6,851:UserWarning"
KCAL, HARTREE = 23.060548, 27.211386
pytestmark = pytest.mark.filterwarnings(PART)


@pytest.fixture(scope="module")
def clusters():
    """Nine shipped clusters of five sizes, with energies rounded as in a file."""
    chosen = GalliumClusters()[[0, 1, 2, 1500, 1501, 3000, 4500, 5900, 6029]]
    return [(Atoms("Ga" * c.num_nodes, positions=c.pos.double().numpy()), round(c.y.item(), 4)) for c in chosen]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def xyz(atoms, comment):
    lines = [f"{s} {x:.8f} {y:.8f} {z:.8f}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)]
    return "\n".join([str(len(atoms)), comment, *lines, ""])


def poscar(atoms):
    """A cluster in a box of 30 Å, centred on a corner and therefore cut into eight pieces."""
    boxed = atoms.copy()
    boxed.set_cell([30, 30, 30])
    boxed.set_pbc(True)
    boxed.wrap()
    stream = io.StringIO()
    write(stream, boxed, format="vasp")
    return stream.getvalue()


def put(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def assert_same(dataset, clusters):
    """The same energies and interatomic distances, in any order of the clusters."""
    assert len(dataset) == len(clusters)
    by_energy = {round(data.y.item(), 3): data for data in dataset}
    for atoms, energy in clusters:
        data = by_energy[round(float(np.float32(energy)), 3)]
        assert (data.z == 31).all() and data.cluster_size == len(atoms)
        expected = np.sort(atoms.get_all_distances(), axis=None)
        found = torch.cdist(data.pos.double(), data.pos.double(), compute_mode="donot_use_mm_for_euclid_dist")
        np.testing.assert_allclose(np.sort(found.numpy(), axis=None), expected, atol=2e-5)


# --- accepted formats


def in_comments(raw, clusters, key="energy"):
    put(raw, {f"Ga{len(a)}/{n}.xyz": xyz(a, f"isomer={n} {key}={e}") for n, (a, e) in enumerate(clusters)})


def in_files_of_sizes(raw, clusters):
    box = 'Lattice="40.5 0.0 0.0 0.0 40.5 0.0 0.0 0.0 40.5" pbc="T T T"'
    for size in {len(atoms) for atoms, _ in clusters}:
        own = [xyz(a, f"{box} energy={e}") for a, e in clusters if len(a) == size]
        put(raw, {f"GNC/Ga{size}.xyz": "".join(own), f"__MACOSX/GNC/._Ga{size}.xyz": "junk", "README.txt": "See GNC."})


def in_poscars_and_a_table(raw, clusters):
    put(raw, {f"{len(a)}/{n:03}/CONTCAR": poscar(a) for n, (a, e) in enumerate(clusters)})
    rows = "".join(f"{len(a)}/{n:03}/CONTCAR,{e}\n" for n, (a, e) in enumerate(clusters))
    put(raw, {"energies.csv": "file,energy (eV)\n" + rows})


def in_a_table_of_frames(raw, clusters):
    put(raw, {"all.xyz": "".join(xyz(a, "") for a, _ in clusters)})
    put(raw, {"energies.csv": "frame,energy\n" + "".join(f"{n},{e}\n" for n, (_, e) in enumerate(clusters))})


@pytest.mark.filterwarnings("ignore:joined 9 of 9 frames:UserWarning")
@pytest.mark.parametrize("form", [in_comments, in_files_of_sizes, in_poscars_and_a_table, in_a_table_of_frames])
def test_every_form_gives_the_same_clusters(raw, clusters, form):
    form(raw, clusters)
    assert_same(GNC(raw.parent), clusters)


def test_energy_has_any_name(raw, clusters):
    put(raw, {f"{n}.xyz": xyz(a, f"Ga{len(a)} U={e + 2} E_b = {e} eV") for n, (a, e) in enumerate(clusters)})
    assert_refused(lambda: GNC(raw.parent), "0.xyz, frame 0: no property 'energy'", "E_b")
    assert_same(GNC(raw.parent, "E_b"), clusters)
    put(raw, {f"{n}.xyz": xyz(a, f"  {e}  ") for n, (a, e) in enumerate(clusters)})
    assert_same(GNC(raw.parent, "comment"), clusters)


def test_clusters_batch_and_know_where_they_are_from(raw, clusters):
    in_files_of_sizes(raw, clusters)
    dataset = GNC(raw.parent)
    assert dataset.group_names[:2] == ["GNC/Ga31.xyz 0", "GNC/Ga31.xyz 1"]
    assert dataset.groups.tolist() == list(range(9))
    batch = next(iter(DataLoader(dataset, batch_size=9)))
    assert batch.y.shape == (9,) and batch.ptr.diff().tolist() == dataset.sizes.tolist()


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"energy_unit": "kcal/mol"}, lambda energy, size: energy * KCAL),
        ({"energy_unit": "Hartree"}, lambda energy, size: energy / HARTREE),
        ({"references": {"Ga": -0.9}}, lambda energy, size: energy - 0.9 * size),
    ],
)
def test_units_are_converted_and_a_wrong_one_is_reported(raw, clusters, arguments, value):
    put(raw, {f"{n}.xyz": xyz(a, f"energy={value(e, len(a)):.9f}") for n, (a, e) in enumerate(clusters)})
    assert_same(GNC(raw.parent, **arguments), clusters)
    advice = ", ".join(f"{key}={content!r}" for key, content in arguments.items() if key == "energy_unit")
    words = ("median of", "eV per atom", "bound by -3.0 to -2.0; try", advice or "references")
    assert_refused(lambda: GNC(raw.parent), raw, *words)


@pytest.mark.parametrize("value", [lambda energy, size: -energy, lambda energy, size: energy / size])
def test_energies_that_no_unit_explains_are_refused(raw, clusters, value):
    put(raw, {f"{n}.xyz": xyz(a, f"energy={value(e, len(a)):.9f}") for n, (a, e) in enumerate(clusters)})
    assert_refused(lambda: GNC(raw.parent), raw, "bound by -3.0 to -2.0; try energy_unit, target or references")


def test_cluster_is_joined_wherever_the_box_cuts_it(clusters):
    atoms, _ = clusters[-1]
    rng = np.random.default_rng(0)
    cell = [[32.0, 0, 0], [9.0, 30.0, 0], [-5.0, 6.0, 31.0]]  # oblique
    for shift in rng.uniform(-50, 50, (20, 3)):
        boxed = Atoms(atoms.symbols, positions=atoms.positions + shift, cell=cell, pbc=True)
        boxed.wrap()
        joined = join_atoms(boxed)
        np.testing.assert_allclose(joined.get_all_distances(), atoms.get_all_distances(), atol=1e-9)
        assert not joined.pbc.any()


# --- the splits


def test_split_of_the_paper(raw):
    shipped = GalliumClusters()
    some = shipped[[*range(0, 1400), *range(5900, 6030)]]
    blocks = [f"{c.num_nodes}\nenergy={c.y.item():.6f}\n" + positions(c.pos) for c in some]
    (raw / "all.xyz").write_text("".join(blocks))
    dataset = GNC(raw.parent)
    is_largest = dataset.sizes == 70
    assert dataset.largest.equal(is_largest.nonzero().flatten()) and dataset.largest.numel() == 130
    split = dataset.paper_split()
    assert (split.val.numel(), split.test.numel(), split.train.numel()) == (656, 656, 1400 - 1312)
    together = torch.cat([split.train, split.val, split.test])
    assert not is_largest[together].any() and together.unique().numel() == 1400
    assert split.test.equal(dataset.paper_split(0).test) and not split.test.equal(dataset.paper_split(1).test)
    assert_refused(dataset[:1312].paper_split, "1312 clusters of other sizes than 70", "use random_split")


def positions(pos):
    return "".join(f"Ga {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in pos.tolist())


# --- missing or invalid data


def test_missing_files_name_the_download(tmp_path):
    words = (
        tmp_path / "raw",
        "GNC_31-70",
        "figshare",
        "6,851",
        "https://doi.org/10.1039/d1cp02956h",
        "unpack it there",
    )
    assert_refused(lambda: GNC(tmp_path), *words)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / ".DS_Store").touch()
    assert_refused(lambda: GNC(tmp_path), *words)
    (tmp_path / "raw" / "paper.pdf").write_text("no data")
    assert_refused(lambda: GNC(tmp_path), "no XYZ or POSCAR files, but paper.pdf", "figshare")
    assert not (tmp_path / "processed").exists() or not list((tmp_path / "processed").iterdir())


@pytest.mark.filterwarnings("default:.*GNC_31-70 has 6,851:UserWarning")
def test_an_incomplete_data_set_is_reported(raw, clusters):
    in_comments(raw, clusters)
    with pytest.warns(UserWarning, match="9 structures of 31 to 70 atoms; GNC_31-70 has 6,851 of 31 to 70"):
        GNC(raw.parent)


def test_archive_has_to_be_unpacked(raw):
    (raw / "GNC.zip").write_bytes(b"PK\x03\x04")
    assert_refused(lambda: GNC(raw.parent), raw, "no XYZ or POSCAR files, but GNC.zip", "unpack it there")


def test_one_frame_without_energy_among_many(raw, clusters):
    texts = [xyz(a, f"energy={e}" if n != 5 else "relaxed=no") for n, (a, e) in enumerate(clusters)]
    (raw / "all.xyz").write_text("".join(texts))
    assert_refused(lambda: GNC(raw.parent), f"{raw / 'all.xyz'}, frame 5: no property 'energy'", "on_missing='skip'")
    with pytest.warns(UserWarning, match="1 frame is left out .*all.xyz, frame 5: no property 'energy'"):
        dataset = GNC(raw.parent, on_missing="skip")
    assert_same(dataset, clusters[:5] + clusters[6:])


def test_missing_row_in_a_table(raw, clusters):
    put(raw, {f"{n}.xyz": xyz(a, "") for n, (a, _) in enumerate(clusters)})
    rows = [f"{n}.xyz;{e}\n" for n, (_, e) in enumerate(clusters)]
    put(raw, {"energies.csv": "file;energy\n" + "".join(rows[:3] + rows[4:])})
    assert_refused(lambda: GNC(raw.parent), "3.xyz, frame 0: ", "energies.csv has no row for it")
    put(raw, {"energies.csv": "file;energy\n" + "".join([*rows[:3], "3.xyz;-\n", *rows[4:]])})
    assert_refused(lambda: GNC(raw.parent), "energies.csv, line 5: the energy is '-', not a finite number")


def test_name_in_a_table_may_mean_several_files(raw, clusters):
    for size in (31, 70):
        put(raw, {f"{size}/{size % 2}.xyz": xyz(next(a for a, _ in clusters if len(a) == size), "")})
        put(raw, {f"{size}/2.xyz": xyz(next(a for a, _ in clusters if len(a) == size), "")})
    put(raw, {"energies.csv": "2.xyz,-70.5\n"})
    assert_refused(lambda: GNC(raw.parent), "energies.csv, line 1: '2.xyz' may be", "give more of the path")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "odd.xyz, frame 0: the file ends within this frame"),
        (lambda text: text.replace("Ga", "Ni", 1), "odd.xyz, frame 0: is Ga30Ni, but GNC has gallium only"),
        (lambda text: text.replace("energy=-7", "energy=-4"), "odd.xyz, frame 0: the energy is -1.310 eV per atom"),
        (lambda text: "", "odd.xyz: no frames"),
        (
            lambda text: text.replace("31", "x", 1),
            "odd.xyz, frame 0: expected a line with the number of atoms, got 'x'",
        ),
        (
            lambda text: "\n".join([*text.splitlines()[:3], *text.splitlines()[2:-1], ""]),
            "two atoms (0 and 1) are 0.00 Å",
        ),
        (
            lambda text: text.replace("energy", 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T" energy'),
            "odd.xyz, frame 0: is connected to its own image along a, b and c",
        ),
    ],
)
def test_odd_structures_are_named(raw, clusters, change, words):
    in_comments(raw, clusters)
    put(raw, {"odd.xyz": change(xyz(clusters[0][0], f"energy={clusters[0][1]}"))})
    assert_refused(lambda: GNC(raw.parent), raw, words)


def test_truncated_poscar(raw, clusters):
    in_poscars_and_a_table(raw, clusters)
    put(raw, {f"{len(clusters[3][0])}/003/CONTCAR": poscar(clusters[3][0])[:900]})
    assert_refused(lambda: GNC(raw.parent), raw, "003/CONTCAR: ASE cannot read it as vasp")


def test_arguments_are_checked(raw, clusters):
    in_comments(raw, clusters)
    assert_refused(lambda: GNC(raw.parent, energy_unit="kJ"), "energy_unit is 'kJ'; use one of eV, meV, Hartree")
    assert_refused(lambda: GNC(raw.parent, on_bad="ignore"), "on_bad must be 'stop' or 'skip'")


# --- files on disk


def test_processed_file_is_used_again_and_changes_are_noticed(raw, clusters):
    in_comments(raw, clusters)
    dataset = GNC(raw.parent)
    path = Path(dataset.processed_paths[0])
    before = path.stat().st_mtime_ns
    assert GNC(raw.parent)._data.y.equal(dataset._data.y) and path.stat().st_mtime_ns == before
    old = next(raw.glob("Ga70/*"))
    old.rename(raw / "Ga70" / "other.xyz")  # the same contents under another name
    assert "Ga70/other.xyz 0" in GNC(raw.parent).group_names
    next(raw.glob("Ga31/*")).unlink()
    assert len(GNC(raw.parent)) == len(dataset) - 1


@pytest.mark.parametrize(("module", "name", "killer"), [(torch, "save", half_saved), (os, "replace", kill)])
def test_kill_in_a_first_load_breaks_nothing(raw, clusters, monkeypatch, module, name, killer):
    in_comments(raw, clusters)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, killer)
        assert status_of(lambda: len(GNC(raw.parent))) == signal.SIGKILL
    assert not list((raw.parent / "processed").glob("clusters_*"))
    assert_same(GNC(raw.parent), clusters)

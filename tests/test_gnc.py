import gzip
import io
import os
import signal
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from helpers import assert_refused, half_saved, kill, status_of
from torch_geometric.loader import DataLoader

from pyg_clusters.datasets import GNC, GalliumClusters
from pyg_clusters.datasets.gnc_files import energy_in_comment, energy_in_name
from pyg_clusters.frames.join import join_atoms

PART = "ignore:.*GNC_31-70 has 6,851:UserWarning"
KCAL, HARTREE = 23.060548, 27.211386
pytestmark = pytest.mark.filterwarnings(PART)


@pytest.fixture(scope="module")
def clusters():
    """Nine shipped clusters of five sizes, with the energy rounded as a file has it."""
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


def poscar(atoms, old=False, comment="gallium"):
    """In a box of 30 Å whose corner lies in the middle of the cluster, which is therefore cut eight times."""
    boxed = atoms.copy()
    boxed.set_cell([30, 30, 30])
    boxed.set_pbc(True)
    boxed.wrap()
    stream = io.StringIO()
    write(stream, boxed, format="vasp")
    lines = stream.getvalue().splitlines()
    lines[0] = comment
    if old:
        assert lines[5].split() == ["Ga"]
        del lines[5]
    return "\n".join(lines) + "\n"


def put(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def tarred(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def assert_same(dataset, clusters):
    """The same energies, and the same distances between the atoms, in whatever order the clusters come."""
    assert len(dataset) == len(clusters)
    by_energy = {round(data.y.item(), 3): data for data in dataset}
    for atoms, energy in clusters:
        data = by_energy[round(float(np.float32(energy)), 3)]
        assert (data.z == 31).all() and data.cluster_size == len(atoms)
        expected = np.sort(atoms.get_all_distances(), axis=None)
        found = torch.cdist(data.pos.double(), data.pos.double(), compute_mode="donot_use_mm_for_euclid_dist")
        np.testing.assert_allclose(np.sort(found.numpy(), axis=None), expected, atol=2e-5)


# --- the forms that it may come in


def in_comments(raw, clusters):
    put(raw, {f"Ga{len(a)}/{n}.xyz": xyz(a, f"Ga{len(a)} isomer {n}  E = {e} eV") for n, (a, e) in enumerate(clusters)})


def in_lone_numbers(raw, clusters):
    put(raw, {f"{n}.xyz": xyz(a, f"  {e}  ") for n, (a, e) in enumerate(clusters)})


def in_one_extended_file(raw, clusters):
    box = 'Lattice="40.5 0.0 0.0 0.0 40.5 0.0 0.0 0.0 40.5" Properties=species:S:1:pos:R:3'
    text = "".join(
        xyz(a, f'{box} energy={e - 0.27 * len(a)} id={n} binding_energy={e} pbc="T T T"')
        for n, (a, e) in enumerate(clusters)
    )
    (raw / "all.extxyz.gz").write_bytes(gzip.compress(text.encode()))


def in_a_zip_of_sizes(raw, clusters):
    sizes = sorted({len(atoms) for atoms, _ in clusters})
    files = {f"GNC/Ga{s}.xyz": "".join(xyz(a, f"energy {e}") for a, e in clusters if len(a) == s) for s in sizes}
    zipped(raw / "GNC_31-70.zip", files | {"__MACOSX/GNC/._Ga31.xyz": "junk", "GNC/README.txt": "See Ga31.xyz first."})


def in_poscars_and_a_table(raw, clusters):
    rows = "".join(f"{n},{len(a)}/{n:03}/CONTCAR,{len(a)},{e}\n" for n, (a, e) in enumerate(clusters))
    files = {f"{len(a)}/{n:03}/CONTCAR": poscar(a, old=n % 2 == 1) for n, (a, e) in enumerate(clusters)}
    tarred(raw / "GNC.tar.gz", files | {"energies.csv": "no,file,atoms,E (eV)\n" + rows})


def in_poscar_comments(raw, clusters):
    put(raw, {f"POSCAR_{n}": poscar(a, comment=f"Ga E= {e}") for n, (a, e) in enumerate(clusters)})


def in_names(raw, clusters):
    put(raw, {f"Ga{len(a)}_{n}_{e:.4f}.vasp": poscar(a) for n, (a, e) in enumerate(clusters)})


def in_tables_beside_files_of_the_same_names(raw, clusters):
    for size in {len(atoms) for atoms, _ in clusters}:
        own = [(a, e) for a, e in clusters if len(a) == size]
        put(raw / f"Ga{size}", {f"{n}.xyz": xyz(a, "relaxed") for n, (a, _) in enumerate(own)})
        put(raw / f"Ga{size}", {"energies.txt": "".join(f"{n}.xyz   {n}   {e}\n" for n, (_, e) in enumerate(own))})


def in_a_table_of_frames(raw, clusters):
    put(raw, {"all.xyz": "".join(xyz(a, "") for a, _ in clusters)})
    put(raw, {"all.dat": "".join(f"all {e}\n" for _, e in clusters)})


def in_archives_within_archives(raw, clusters):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for n, (a, e) in enumerate(clusters):
            archive.writestr(f"{n}.xyz", xyz(a, f"BE: {e}"))
    tarred(raw / "1234567.tar.xz", {"download/GNC.zip": inner.getvalue()}, "w:xz")


FORMS = [
    *(in_comments, in_lone_numbers, in_one_extended_file, in_a_zip_of_sizes, in_poscars_and_a_table),
    *(in_poscar_comments, in_names, in_tables_beside_files_of_the_same_names, in_a_table_of_frames),
    in_archives_within_archives,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_clusters(raw, clusters, form):
    form(raw, clusters)
    assert_same(GNC(raw.parent), clusters)


def test_clusters_batch_and_know_where_they_are_from(raw, clusters):
    in_a_zip_of_sizes(raw, clusters)
    dataset = GNC(raw.parent)
    assert dataset.group_names[:2] == ["GNC_31-70.zip/GNC/Ga31.xyz 0", "GNC_31-70.zip/GNC/Ga31.xyz 1"]
    assert dataset.groups.tolist() == list(range(9))
    batch = next(iter(DataLoader(dataset, batch_size=9)))
    assert batch.y.shape == (9,) and batch.ptr.diff().tolist() == dataset.sizes.tolist()


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"unit": "kcal/mol"}, lambda energy, size: energy * KCAL),
        ({"unit": "hartree"}, lambda energy, size: energy / HARTREE),
        ({"per_atom_energies": True}, lambda energy, size: energy / size),
        ({"positive_is_bound": True}, lambda energy, size: -energy),
        ({"unit": "kcal/mol", "per_atom_energies": True}, lambda energy, size: energy / size * KCAL),
        ({"references": {"Ga": -0.9}}, lambda energy, size: energy - 0.9 * size),
    ],
)
def test_units_are_converted_and_a_wrong_one_is_told(raw, clusters, arguments, value):
    put(raw, {f"{n}.xyz": xyz(a, f"E = {value(e, len(a)):.9f}") for n, (a, e) in enumerate(clusters)})
    assert_same(GNC(raw.parent, **arguments), clusters)
    advice = ", ".join(f"{key}={content!r}" for key, content in arguments.items()).split("=")[0]
    assert_refused(lambda: GNC(raw.parent), raw, "median of", "eV per atom", "bound by -3.0 to -2.0; try", advice)


def test_advice_is_what_helps(raw, clusters):
    put(raw, {f"{n}.xyz": xyz(a, f"E = {-e * KCAL:.6f}") for n, (a, e) in enumerate(clusters)})
    assert_refused(lambda: GNC(raw.parent), "try unit='kcal/mol', positive_is_bound=True")
    assert_same(GNC(raw.parent, unit="kcal/mol", positive_is_bound=True), clusters)


def test_the_source_of_the_energies_can_be_named(raw, clusters):
    files = {f"Ga_{e + 1:.4f}.xyz": xyz(a, f"E = {e} U = {e + 2}") for a, e in clusters}
    put(raw, files | {"table.csv": "".join(f"Ga_{e + 1:.4f}.xyz,{e + 3}\n" for _, e in clusters)})

    def shifted(by):
        return [(atoms, round(energy + by, 4)) for atoms, energy in clusters]

    assert_same(GNC(raw.parent), shifted(3))
    assert_same(GNC(raw.parent, energy_from="comment"), shifted(0))
    assert_same(GNC(raw.parent, energy_from="name"), shifted(1))
    assert_same(GNC(raw.parent, energy_from="comment", energy_key="U"), shifted(2))


@pytest.mark.parametrize(
    ("comment", "energy"),
    [
        ("energy=-73.25", -73.25),
        ('Properties=species:S:1:pos:R:3 REF_energy=-73.25 pbc="F F F"', -73.25),
        ("Energy (eV): -73.25, isomer 12", -73.25),
        ("Total energy = -7.325E+01", -73.25),
        ("Etot=-90.5 E_b = -73.25", -73.25),
        ("E[kcal/mol] -1689.2", -1689.2),
        ("Ga31  -73.25  12", -73.25),
        ("E = -73", -73.0),
        ('Lattice="20.5 0 0 0 20.5 0 0 0 20.5"', None),
        ("between 1.5 and 2.5", None),
        ("time = 3", None),
        ("energy = nan", None),
        ("isomer 12", None),
        ("", None),
    ],
)
def test_energy_in_comment(comment, energy):
    assert energy_in_comment(comment) == energy


def test_energy_in_name():
    assert energy_in_name("a/Ga31-73.25.xyz.gz") == -73.25
    assert energy_in_name("a_-1.5/POSCAR_-73.25") == -73.25
    assert energy_in_name("Ga31_-73.25/POSCAR") == -73.25
    assert energy_in_name("v1.0/Ga31_4.xyz") is None


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
    blocks = [f"{c.num_nodes}\nE = {c.y.item():.6f}\n" + positions(c.pos) for c in some]
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


# --- what is missing or wrong


def test_nothing_there_says_what_to_download(tmp_path):
    words = (tmp_path / "raw", "GNC_31-70", "figshare", "6,851", "https://doi.org/10.1039/d1cp02956h", "put it there")
    assert_refused(lambda: GNC(tmp_path), *words)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / ".DS_Store").touch()
    assert_refused(lambda: GNC(tmp_path), *words)
    (tmp_path / "raw" / "paper.pdf").write_text("no data")
    assert_refused(lambda: GNC(tmp_path), "no XYZ or POSCAR files, but paper.pdf", "figshare")
    assert not (tmp_path / "processed").exists() or not list((tmp_path / "processed").iterdir())


@pytest.mark.filterwarnings("default:.*GNC_31-70 has 6,851:UserWarning")
def test_a_part_of_the_data_is_told(raw, clusters):
    in_comments(raw, clusters)
    with pytest.warns(UserWarning, match="9 structures of 31 to 70 atoms; GNC_31-70 has 6,851 of 31 to 70"):
        GNC(raw.parent)


@pytest.mark.parametrize("name", ["GNC.zip", "GNC.tar.gz", "GNC.tar"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_archive(raw, clusters, name, share):
    files = {f"{n}.xyz": xyz(a, f"E = {e}") for n, (a, e) in enumerate(clusters)}
    pack = {"GNC.zip": zipped, "GNC.tar.gz": tarred, "GNC.tar": lambda path, files: tarred(path, files, "w")}[name]
    pack(raw / name, files)
    content = (raw / name).read_bytes()
    if name == "GNC.tar":
        content = content[: content.rindex(b"8.xyz") + 3200]  # without the zeros that fill the last block
    (raw / name).write_bytes(content[: int(share * len(content))])
    assert_refused(lambda: GNC(raw.parent), raw / name, "cut short or damaged", "download it again")


def test_tar_cut_between_two_members_is_noticed(raw, clusters):
    files = {f"{n}.xyz": xyz(a, f"E = {e}") for n, (a, e) in enumerate(clusters)}
    tarred(raw / "GNC.tar", files, "w")
    content = (raw / "GNC.tar").read_bytes()
    (raw / "GNC.tar").write_bytes(content[: content.index(b"5.xyz")])
    assert_refused(lambda: GNC(raw.parent), "cut short or damaged")


@pytest.mark.parametrize("name", ["../../escaped.xyz", "/escaped.xyz", "a/../../../escaped.xyz", "..\\escaped.xyz"])
@pytest.mark.parametrize("pack", [zipped, lambda path, files: tarred(path.with_suffix(".tgz"), files)])
def test_archive_cannot_write_elsewhere(raw, clusters, name, pack):
    before = set(raw.parent.parent.rglob("*escaped*"))
    pack(raw / "GNC.zip", {"good.xyz": xyz(*clusters[0][:1], "E = -70"), name: "escaped"})
    assert_refused(lambda: GNC(raw.parent), raw, "would be written elsewhere", "do not trust")
    assert set(raw.parent.parent.rglob("*escaped*")) == before and not Path("/escaped.xyz").exists()


def test_link_in_archive_leads_nowhere(raw, clusters, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(raw / "GNC.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        data = xyz(clusters[0][0], f"E = {clusters[0][1]}").encode()
        member = tarfile.TarInfo("link/a.xyz")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    assert_same(GNC(raw.parent), clusters[:1])
    assert not list(outside.iterdir())


def test_archive_too_large_is_refused(raw, clusters, monkeypatch):
    in_a_zip_of_sizes(raw, clusters)
    monkeypatch.setattr("pyg_clusters.datasets.gnc_files.MAX_UNPACKED", 1000)
    assert_refused(lambda: GNC(raw.parent), "unpacks to more than")


def test_one_frame_without_energy_among_many(raw, clusters):
    texts = [xyz(a, f"E = {e}" if n != 5 else "E = ?") for n, (a, e) in enumerate(clusters)]
    (raw / "all.xyz").write_text("".join(texts))
    message = f"{raw / 'all.xyz'}, frame 5: no energy in its comment line 'E = ?' (1 of 9 structures lack one there)"
    assert_refused(lambda: GNC(raw.parent), message, "on_bad='skip'")
    with pytest.warns(UserWarning, match="1 frames are left out .*all.xyz, frame 5: no energy"):
        dataset = GNC(raw.parent, on_bad="skip")
    assert_same(dataset, clusters[:5] + clusters[6:])


def test_missing_row_in_a_table(raw, clusters):
    put(raw, {f"{n}.xyz": xyz(a, "") for n, (a, _) in enumerate(clusters)})
    put(raw, {"table.csv": "file;energy\n" + "".join(f"{n}.xyz;{e}\n" for n, (_, e) in enumerate(clusters) if n != 3)})
    assert_refused(lambda: GNC(raw.parent), "3.xyz, frame 0: no row of a table", "1 of 9")
    put(
        raw,
        {
            "table.csv": "file;energy\n"
            + "".join(f"{n}.xyz;{e if n != 3 else '-'}\n" for n, (_, e) in enumerate(clusters))
        },
    )
    assert_refused(lambda: GNC(raw.parent), "table.csv, line 5: no energy for 3.xyz, but '-'")


def test_name_in_a_table_may_mean_several_files(raw, clusters):
    for size in (31, 70):
        put(raw, {f"{size}/0.xyz": xyz(next(a for a, _ in clusters if len(a) == size), "")})
    put(raw, {"table.csv": "0.xyz,-70.5\n"})
    assert_refused(lambda: GNC(raw.parent), "table.csv, line 1: '0.xyz' may be any of 2 files")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "odd.xyz, frame 0: the file ends within this frame"),
        (lambda text: text.replace("Ga", "Ni", 1), "odd.xyz, frame 0: is Ga30Ni, but GNC has gallium only"),
        (lambda text: text.replace("E = -7", "E = -4"), "odd.xyz, frame 0: the energy is -1.310 eV per atom"),
        (lambda text: "", "odd.xyz, frame 0: no frames in it"),
        (
            lambda text: text.replace("31", "x", 1),
            "odd.xyz, frame 0: expected a line with the number of atoms, got 'x'",
        ),
        (
            lambda text: "\n".join([*text.splitlines()[:3], *text.splitlines()[2:-1], ""]),
            "two atoms (0 and 1) are 0.00 Å",
        ),
        (
            lambda text: text.replace("E =", 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T" E='),
            "odd.xyz, frame 0: is connected to its own image along a, b and c",
        ),
    ],
)
def test_odd_structures_are_named(raw, clusters, change, words):
    in_comments(raw, clusters)
    put(raw, {"odd.xyz": change(xyz(clusters[0][0], f"E = {clusters[0][1]}"))})
    assert_refused(lambda: GNC(raw.parent), raw, words)


def test_poscar_cut_short(raw, clusters):
    in_poscar_comments(raw, clusters)
    put(raw, {"POSCAR_3": poscar(clusters[3][0])[:900]})
    assert_refused(lambda: GNC(raw.parent), raw / "POSCAR_3", "frame 0: cannot be read as a POSCAR")


def test_arguments_are_checked(raw, clusters):
    in_comments(raw, clusters)
    assert_refused(lambda: GNC(raw.parent, unit="kJ"), "unit is 'kJ'; known are eV, meV, Hartree")
    assert_refused(lambda: GNC(raw.parent, energy_from="file"), "energy_from must be 'auto' or 'table'")
    assert_refused(lambda: GNC(raw.parent, on_bad="ignore"), "on_bad must be 'stop' or 'skip'")


# --- what is kept on disk


def test_processed_file_is_used_again_and_changes_are_noticed(raw, clusters):
    in_names(raw, clusters)
    dataset = GNC(raw.parent)
    path = Path(dataset.processed_paths[0])
    before = path.stat().st_mtime_ns
    assert GNC(raw.parent)._data.y.equal(dataset._data.y) and path.stat().st_mtime_ns == before
    old = next(raw.glob("Ga70*"))
    energy = float(old.stem.split("_")[-1])
    old.rename(raw / f"Ga70_8_{energy - 1:.4f}.vasp")  # the same contents under another name
    assert GNC(raw.parent)._data.y.sum().item() == pytest.approx(dataset._data.y.sum().item() - 1, abs=1e-3)
    next(raw.glob("Ga31*")).unlink()
    assert len(GNC(raw.parent)) == len(dataset) - 1


@pytest.mark.parametrize(("module", "name", "killer"), [(torch, "save", half_saved), (os, "replace", kill)])
def test_kill_in_a_first_load_breaks_nothing(raw, clusters, monkeypatch, module, name, killer):
    in_comments(raw, clusters)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, killer)
        assert status_of(lambda: len(GNC(raw.parent))) == signal.SIGKILL
    assert not list((raw.parent / "processed").glob("clusters_*"))
    assert_same(GNC(raw.parent), clusters)

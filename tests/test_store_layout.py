"""Invalid frame stores are refused in one line by every reader."""

import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from ase import Atoms

from pyg_clusters.cli import main
from pyg_clusters.datasets import OnDiskClusters
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, StoreReader, write_extxyz, write_store

SECRET = np.arange(18.0).reshape(6, 3) * 3


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of two frames of three atoms, with one label of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    frames = []
    for number in range(2):
        atoms = Atoms("Ga3", positions=[[0, 0, 0], [0, 0, 2.8], [0, 2.8, 0]])
        atoms.info |= {"energy": -3.5 - number, "name": f"md{number}"}
        atoms.arrays["softness"] = np.array([0.1, 0.2, -0.3])
        frames.append(atoms)
    write_extxyz(folder / "a.extxyz", frames)
    labels = {"properties": ["energy", "name"], "atom_properties": ["softness"]}
    write_store(folder / "sound.h5", Frames.open(folder / "a.extxyz", **labels), compressed=False)
    with h5py.File(folder / "secret.h5", "w") as file:
        file["pos"] = SECRET
    SECRET.tofile(folder / "secret.bin")
    return folder / "sound.h5"


def replaced(name, **options):
    """An attack that replaces a data set."""

    def attack(file, folder):
        del file[name]
        file.create_dataset(name, **options)

    return attack


def ptr(values, dtype=np.int64):
    return replaced("ptr", data=np.array(values, dtype=dtype))


def virtual(file, folder):
    del file["pos"]
    layout = h5py.VirtualLayout((6, 3), float)
    layout[:] = h5py.VirtualSource(folder / "secret.h5", "pos", shape=(6, 3))
    file.create_virtual_dataset("pos", layout)


def linked(name, link):
    def attack(file, folder):
        del file[name]
        file[name] = link(folder) if callable(link) else link

    return attack


def reference(file, folder):
    del file["properties/energy"]
    file.create_dataset("properties/energy", data=np.array([file["z"].ref] * 2, dtype=h5py.ref_dtype))


def attribute(name, value):
    def attack(file, folder):
        file.attrs[name] = value

    return attack


def without(name):
    def attack(file, folder):
        del file[name]

    return attack


def group_at(name):
    def attack(file, folder):
        del file[name]
        file.create_group(name)

    return attack


def unknown_filter(file, folder):
    del file["pos"]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((6, 3))
    plist.set_filter(40000, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((6, 3))
    dataset = h5py.h5d.create(file.id, b"pos", h5py.h5t.NATIVE_DOUBLE, space, plist)
    h5py.Dataset(dataset)[...] = SECRET


COMPOUND = np.zeros(2, dtype=[("a", float), ("b", int)])
EXTERNAL = {"shape": (6, 3), "dtype": float, "external": [("secret.bin", 0, h5py.h5f.UNLIMITED)]}

ATTACKS = {
    "negative ptr": (ptr([0, -3, 6]), "'ptr' goes from 0 to -3"),
    "decreasing ptr": (ptr([0, 5, 3]), "'ptr' goes from 5 to 3"),
    "flat ptr": (ptr([0, 0, 6]), "'ptr' goes from 0 to 0"),
    "float ptr": (ptr([0.0, 3.0, 6.0], float), "'ptr' has the type float64"),
    "text ptr": (replaced("ptr", data=["0", "3", "6"]), "'ptr' has the type object"),
    "boolean ptr": (ptr([0, 1, 1], bool), "'ptr' has the type bool"),
    "two-dimensional ptr": (replaced("ptr", data=np.array([[0, 3, 6]])), "'ptr' has the shape (1, 3)"),
    "scalar ptr": (replaced("ptr", data=6), "'ptr' has the shape ()"),
    "null ptr": (replaced("ptr", data=h5py.Empty("i8")), "'ptr' has the shape None"),
    "ptr from 1": (ptr([1, 3, 6]), "'ptr' starts at 1"),
    "ptr that ends early": (ptr([0, 2, 4]), "'ptr' ends at 4, but there are 6 atoms"),
    "ptr past the end": (ptr([0, 3, 9]), "'ptr' goes from 3 to 9"),
    "ptr beyond int64": (ptr([0, 3, 2**64 - 1], np.uint64), "'ptr' goes from 3 to 18446744073709551615"),
    "empty ptr": (ptr([]), "no frames"),
    "ptr of no frame": (ptr([0]), "no frames"),
    "huge ptr": (replaced("ptr", shape=(10**12,), dtype="i8", chunks=(1024,)), "claims the shape"),
    "huge contiguous ptr": (replaced("ptr", shape=(10**12,), dtype="i8"), "claims the shape"),
    "huge pos": (replaced("pos", shape=(6, 3), dtype="f8", chunks=(6, 3)), "claims the shape"),
    "huge property": (replaced("properties/energy", shape=(2, 10**10), dtype="f8", chunks=(1, 1024)), "claims"),
    "huge chunks": (replaced("z", data=np.full(6, 31), chunks=(4 * 10**7,), maxshape=(None,)), "chunks of"),
    "short z": (replaced("z", data=np.full(4, 31)), "'pos' has the shape (6, 3), not [4, 3]"),
    "long z": (replaced("z", data=np.full(9, 31)), "'pos' has the shape (6, 3), not [9, 3]"),
    "float z": (replaced("z", data=np.full(6, 31.0)), "'z' has the type float64"),
    "z of 0": (replaced("z", data=np.zeros(6, int)), "'z' has 0, outside 1 to 118"),
    "z of 119": (replaced("z", data=np.full(6, 119)), "'z' has 119"),
    "negative z": (replaced("z", data=np.full(6, -31)), "'z' has -31"),
    "flat pos": (replaced("pos", data=np.zeros(18)), "'pos' has the shape (18,)"),
    "pos in two dimensions": (replaced("pos", data=np.zeros((6, 2))), "'pos' has the shape (6, 2)"),
    "complex pos": (replaced("pos", data=np.zeros((6, 3), complex)), "'pos' has the type complex128"),
    "integer pos": (replaced("pos", data=np.zeros((6, 3), int)), "'pos' has the type int64"),
    "short property": (replaced("properties/energy", data=np.zeros(1)), "'energy' has the shape (1,)"),
    "long property": (replaced("properties/energy", data=np.zeros(3)), "'energy' has the shape (3,)"),
    "short atom property": (replaced("atom_properties/softness", data=np.zeros(5)), "'softness' has the shape (5,)"),
    "compound property": (replaced("properties/energy", data=COMPOUND), "'energy' has the type"),
    "references": (reference, "'energy' has the type object"),
    "group in place of pos": (group_at("pos"), "'pos' is not a data set"),
    "group in place of a property": (group_at("properties/energy"), "'energy' is not a data set"),
    "data set in place of properties": (replaced("properties", data=1.0), "'properties' is not a group"),
    "no origin": (without("origin"), "'origin' is missing"),
    "no cell": (without("cell"), "'cell' is missing"),
    "no pbc": (without("pbc"), "'pbc' is missing"),
    "no charge": (without("charge"), "'charge' is missing"),
    "no spin": (without("unpaired"), "'unpaired' is missing"),
    "short origin": (replaced("origin/number", data=np.zeros(1, int)), "'number' has the shape (1,)"),
    "origin of no file": (replaced("origin/file", data=np.array([0, 7])), "'origin/file' has 7"),
    "origin of a negative file": (replaced("origin/file", data=np.array([0, -1])), "'origin/file' has -1"),
    "absurd version": (attribute("version", 10**9), "not a frame store of version 1"),
    "version of text": (attribute("version", "one"), "not a frame store of version 1"),
    "versions": (attribute("version", [1, 1]), "not a frame store of version 1"),
    "version NaN": (attribute("version", float("nan")), "not a frame store of version 1"),
    "format of a number": (attribute("format", 3), "not a frame store of version 1"),
    "external link": (linked("pos", lambda f: h5py.ExternalLink(f / "secret.h5", "pos")), "'pos' is a link"),
    "soft link": (linked("properties/energy", h5py.SoftLink("/pos")), "'energy' is a link"),
    "soft link to itself": (linked("ptr", h5py.SoftLink("/ptr")), "'ptr' is a link"),
    "linked group": (linked("properties", h5py.SoftLink("/")), "'properties' is a link"),
    "external storage": (replaced("pos", **EXTERNAL), "'pos' is stored in another file"),
    "virtual data set": (virtual, "'pos' is stored in another file"),
    "unknown filter": (unknown_filter, "filters [40000]"),
    "scale-offset": (replaced("z", data=np.full(6, 31), chunks=(6,), scaleoffset=0), "filters [6]"),
}


def spoiled(sound, folder, name):
    path = folder / "s.h5"
    shutil.copy(sound, path)
    for secret in ("secret.h5", "secret.bin"):
        shutil.copy(sound.with_name(secret), folder / secret)
    with h5py.File(path, "a") as file:
        ATTACKS[name][0](file, folder)
    return path


@pytest.mark.parametrize("name", ATTACKS)
def test_malformed_stores_are_refused_by_all_who_read_them(sound, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # the folder that would be searched for external storage
    path = spoiled(sound, tmp_path, name)
    words = ATTACKS[name][1]

    def random_access():
        reader = StoreReader(path)
        reader.atoms("z", [1, 0])
        reader.atoms("pos", [1, 0])

    readers = {
        "frames": lambda: list(Frames.open(path, with_atoms=True)),
        "clusters": lambda: OnDiskClusters(path),
        "single": random_access,
    }
    if "origin" in words:  # not read with single frames
        del readers["single"]
    for read in readers.values():
        with pytest.raises(InputError) as caught:
            read()
        assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    for arguments in (["info", str(path)], ["convert", str(path), "--out", str(tmp_path / "out.h5")]):
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert words in printed.err and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    assert not (tmp_path / "out.h5").exists()


def test_the_sound_store_is_read(sound):
    (block,) = Frames.open(sound, properties=["energy", "name"], atom_properties=["softness"])
    assert block.properties["energy"].tolist() == [-3.5, -4.5] and block.properties["name"].tolist() == ["md0", "md1"]
    assert StoreReader(sound).ptr.tolist() == [0, 3, 6]


@pytest.mark.slow
def test_a_flipped_byte_in_a_property_ends_the_command(tmp_path):
    """The error is raised in the prefetching thread, where it must not leave a lock of HDF5."""
    generator = np.random.default_rng(0)
    frames = []
    for energy in generator.normal(size=3000):
        frames.append(Atoms("Ga3", positions=[[0, 0, 0], [0, 0, 2.8], [0, 2.8, 0]], info={"energy": energy}))
    write_extxyz(tmp_path / "a.extxyz", frames)
    write_store(tmp_path / "a.h5", Frames.open(tmp_path / "a.extxyz", properties=["energy"]))
    with h5py.File(tmp_path / "a.h5") as file:
        chunk = file["properties/energy"].id.get_chunk_info(0)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(content)
    command = [sys.executable, "-m", "pyg_clusters", "predict", "gallium", "a.h5", "--out", "x.extxyz"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and "is it corrupted?" in ended.stderr and "Traceback" not in ended.stderr

import builtins
import copyreg
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import assert_refused
from pytorch_lightning import Trainer
from torch_geometric.loader import DataLoader

from pyg_clusters.cli import main
from pyg_clusters.datasets import GalliumClusters, PublishedDescriptors
from pyg_clusters.datasets.published_descriptors import read_npz
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.models import DART
from pyg_clusters.pairs import shell_counts
from pyg_clusters.training import ClusterDataModule, EnergyTraining
from pyg_clusters.transforms import ShellGraph

KCAL = 23.060548


@pytest.fixture(scope="module")
def clusters():
    """Eight shipped clusters of 31, 40, 50 and 70 atoms."""
    return list(GalliumClusters()[[0, 1, 1500, 1501, 3000, 3001, 6028, 6029]])


def described(cluster):
    """A cluster in the published layout, as lists, made without the package's graphs."""
    distance = (cluster.pos[:, None] - cluster.pos).norm(dim=-1).fill_diagonal_(-1.0)
    inner, outer = GALLIUM_RADII
    shells = [(distance >= 0) & (distance < inner), (distance >= inner) & (distance <= outer), distance > outer]
    tad = torch.stack([shell.sum(1) for shell in shells], dim=1).tolist()
    return [tad, *([[tad[j] for j in row.nonzero().flatten().tolist()] for row in shell] for shell in shells)]


def objects(values):
    array = np.empty(len(values), dtype=object)
    for number, value in enumerate(values):
        array[number] = value
    return array


def write(path, clusters, change=lambda parts: parts):
    desc = objects([change(described(cluster)) for cluster in clusters])
    np.savez(path, desc=desc, ener=objects([[cluster.y.item() * KCAL] for cluster in clusters]))
    return path


@pytest.fixture
def file(tmp_path, clusters):
    return write(tmp_path / "dart.npz", clusters)


@pytest.fixture
def model(clusters):
    torch.manual_seed(0)
    model = DART()
    z, ptr = torch.cat([c.z for c in clusters]), torch.tensor([0, *(c.num_nodes for c in clusters)]).cumsum(0)
    with torch.no_grad():
        model.scale.fit(z, ptr, torch.cat([c.y for c in clusters]))
        model.interaction[-1].weight *= 1e-3  # energies of the magnitude of a trained model
    return model


def energies(model, data):
    with torch.no_grad():
        return model(data.z, data.pos, data.batch, x=data.x, edge_index=data.edge_index, edge_type=data.edge_type)


# --- the graphs


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_energies_are_those_from_positions(tmp_path, file, clusters, model, batch_size):
    dataset = PublishedDescriptors(file, tmp_path)
    expected = torch.cat([model(c.z, c.pos, torch.zeros_like(c.z)).detach() for c in clusters])
    found = torch.cat([energies(model, batch) for batch in DataLoader(dataset, batch_size=batch_size)])
    assert expected.std() > 1  # not all the same
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    model = model.double()
    exact = torch.cat([model(c.z, c.pos, torch.zeros_like(c.z)).detach() for c in clusters])
    found = torch.cat([energies(model, batch) for batch in DataLoader(dataset, batch_size=batch_size)])
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)


def test_counts_are_degrees_and_sources_have_the_counts_of_the_neighbours(tmp_path, file, clusters):
    for data, cluster in zip(PublishedDescriptors(file, tmp_path), clusters, strict=True):
        ptr = torch.tensor([0, cluster.num_nodes])
        assert data.x.long().equal(shell_counts(cluster.pos, ptr, GALLIUM_RADII))
        assert data.pos is None and (data.z == 31).all() and data.num_nodes == data.cluster_size == cluster.num_nodes
        assert data.edge_index.size(1) == cluster.num_nodes * (cluster.num_nodes - 1)
        assert data.y.item() == pytest.approx(cluster.y.item(), abs=1e-5)
        true = ShellGraph()(cluster)
        for graph in (data, true):
            source, target = graph.edge_index
            rows = torch.cat([target[:, None], graph.edge_type[:, None], data.x[source].long()], dim=1)
            graph.rows = rows[np.lexsort(rows.T.numpy())]
        assert data.rows.equal(true.rows)


def test_dart_trains_on_them(tmp_path, file):
    torch.manual_seed(0)
    module = EnergyTraining(DART())
    data = ClusterDataModule(PublishedDescriptors(file, tmp_path), split="random", fractions=(0.5, 0.25, 0.25))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=30, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["train_mae"] < 200  # kcal/mol; the energies exceed 1,600


def test_the_steps_after_a_training_do_not_need_positions(tmp_path, file, capsys):
    dataset = {"class_path": "pyg_clusters.datasets.PublishedDescriptors", "init_args": {"file": str(file)}}
    dataset["init_args"]["root"] = str(tmp_path)
    recipe = {
        "model": {
            "class_path": "pyg_clusters.training.EnergyTraining",
            "init_args": {"model": {"class_path": "pyg_clusters.models.DART"}},
        },
        "data": {"dataset": dataset, "split": "random", "fractions": [0.5, 0.25, 0.25]},
        "trainer": {"max_epochs": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "next: pyg-clusters predict" in printed and "calibrate" not in printed


def as_arrays(parts):
    return [np.array(parts[0])[:, None], *([np.array(entries, dtype=float) for entries in part] for part in parts[1:])]


def as_objects(parts):
    return [objects(part) for part in parts]


def padded(parts):
    return [parts[0], *([entries + [[0, 0, 0]] * 3 for entries in part] for part in parts[1:])]


@pytest.mark.parametrize("change", [as_arrays, as_objects, padded])
def test_nestings_of_lists_and_arrays_are_the_same(tmp_path, file, clusters, change):
    expected = PublishedDescriptors(file, tmp_path)
    dataset = PublishedDescriptors(write(tmp_path / "other.npz", clusters, change), tmp_path)
    for data, other in zip(dataset, expected, strict=True):
        assert data.x.equal(other.x) and data.edge_index.equal(other.edge_index) and data.y.equal(other.y)


def test_clusters_of_one_size_make_a_table_of_objects(tmp_path, clusters):
    pair = [described(cluster) for cluster in clusters[:2]]
    desc = np.empty((2, 4, 31), dtype=object)
    for b, parts in enumerate(pair):
        for s, part in enumerate(parts):
            for i, entries in enumerate(part):
                desc[b, s, i] = entries
    np.savez(tmp_path / "a.npz", desc=desc, ener=np.array([[-1600.0], [-1700.0]]))
    dataset = PublishedDescriptors(tmp_path / "a.npz", tmp_path)
    assert dataset[1].x.tolist() == pair[1][0]


def test_selections_sizes_and_groups(tmp_path, file):
    dataset = PublishedDescriptors(file, tmp_path)
    assert dataset.sizes.tolist() == [31, 31, 40, 40, 50, 50, 70, 70] and dataset.groups.tolist() == list(range(8))
    assert dataset[[6, 2]].sizes.tolist() == [70, 40] and dataset[[6, 2]][1].edge_index.size(1) == 40 * 39
    assert dataset[0].edge_index.equal(dataset[0].edge_index)
    assert len(PublishedDescriptors(file, tmp_path, transform=lambda data: data.edge_type)[0]) == 31 * 30


def test_processed_file_is_small_and_used_again(tmp_path, file, clusters):
    dataset = PublishedDescriptors(file, tmp_path)
    path = Path(dataset.processed_paths[0])
    before = path.stat().st_mtime_ns
    assert PublishedDescriptors(file, tmp_path)._data.y.equal(dataset._data.y)
    assert path.stat().st_mtime_ns == before
    assert path.stat().st_size < 3 * sum(c.num_nodes**2 for c in clusters) + 50_000
    write(file, clusters[:3])
    assert len(PublishedDescriptors(file, tmp_path)) == 3


# --- missing or invalid data


def without_atom(parts):
    return [parts[0][1:], *parts[1:]]


def one_more(parts):
    parts[2][7].append(parts[0][0])
    return parts


def stranger(parts):
    parts[1][4][0] = [30, 0, 0]
    return parts


def half(parts):
    parts[0][2][1] += 0.5
    return parts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_atom, "it has 30 atoms, but lists of J neighbours for 31"),
        (one_more, "atom 7 has the counts"),
        (stranger, "a neighbour has the counts [30, 0, 0] in J, K, L, but no atom does"),
        (half, "are not counts"),
        (lambda parts: parts[:3], "it has 3 parts instead of 4"),
        (lambda parts: [[], [], [], []], "it has 0 atom(s)"),
        (lambda parts: None, "has no len"),
        (lambda parts: ["a", "b", "c", "d"], "could not convert"),
    ],
)
def test_contradictions_are_named(tmp_path, clusters, change, words):
    path = tmp_path / "dart.npz"
    parts = [described(cluster) for cluster in clusters[:3]]
    parts[1] = change(parts[1])
    np.savez(path, desc=objects(parts), ener=np.array([-1600.0, -1700.0, -1900.0]))
    assert_refused(lambda: PublishedDescriptors(path, tmp_path), f"{path}, frame 1: ", words, "on_bad='skip'")
    with pytest.warns(UserWarning, match="1 frame is left out .*, frame 1: "):
        dataset = PublishedDescriptors(path, tmp_path, on_bad="skip")
    assert dataset._data.idx.tolist() == [0, 2] and dataset.groups.tolist() == [0, 1]


def test_wrong_files_are_named(tmp_path, clusters, file):
    def refused(path, *words):
        assert_refused(lambda: PublishedDescriptors(path, tmp_path), path, *words)

    refused(tmp_path / "none.npz", "no such file")
    content = file.read_bytes()
    for share in (0.2, 0.7, 0.99):
        (tmp_path / "cut.npz").write_bytes(content[: int(share * len(content))])
        refused(tmp_path / "cut.npz", "not a complete npz file", "download it again")
    np.savez(tmp_path / "other.npz", descriptors=np.zeros(3), ener=np.zeros(3))
    refused(tmp_path / "other.npz", "no array 'desc'; found: descriptors, ener")
    desc = objects([described(clusters[0])])
    np.savez(tmp_path / "two.npz", desc=desc, ener=np.zeros(2))
    refused(tmp_path / "two.npz", "desc is of shape [1], but ener has 2 energies")
    np.savez(tmp_path / "nan.npz", desc=desc, ener=np.array([np.nan]))
    refused(tmp_path / "nan.npz", "frame 0: the energy is nan")
    np.savez(tmp_path / "pairs.npz", desc=desc, ener=objects([[1.0, 2.0]]))
    refused(tmp_path / "pairs.npz", "one energy for each cluster")
    assert_refused(lambda: PublishedDescriptors(file, tmp_path, on_bad="pass"), "on_bad must be")


# --- no code of a file is executed


class Calls:
    """Object that is pickled as a function call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def npz_of(path, content, shape=(1,)):
    """An npz file whose object array ``desc`` has the given bytes as its pickle."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|O", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("desc.npy", member.getvalue() + content)
        ener = io.BytesIO()
        np.save(ener, np.zeros(shape))
        archive.writestr("ener.npy", ener.getvalue())
    return path


def evil_calls(folder):
    mark, data = str(folder / "mark"), str(folder / "data.npy")
    np.save(data, np.zeros(3))
    return {
        "os.system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(eval, f"open({mark!r}, 'w').close()"),
        "exec": Calls(exec, f"open({mark!r}, 'w').close()"),
        "open": Calls(open, mark, "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "memmap": Calls(np.memmap, mark, "uint8", "w+", 0, (8,)),
        "np.load": Calls(np.load, data, None, True),
        "np.fromfile": Calls(np.fromfile, data),
        "np.save": Calls(np.save, mark, 0),
        "runstring": Calls(np.testing.runstring, f"open({mark!r}, 'w').close()", {}),
        "vectorize": Calls(np.vectorize, eval),
        "apply": Calls(np.apply_along_axis, eval, 0, np.array(["1"])),
        "object": Calls(copyreg._reconstructor, Calls, object, None),
    }


NAMES = [*("os.system", "eval", "exec", "open", "getattr", "memmap", "np.load", "np.fromfile", "np.save")]
NAMES += ["runstring", "vectorize", "apply", "object"]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", NAMES)
def test_calls_are_refused_and_not_made(tmp_path, clusters, name, protocol):
    evil = evil_calls(tmp_path)[name]
    good = described(clusters[0])
    for number, value in enumerate([evil, objects([evil]), objects([[good[0], [evil], *good[2:]]])]):
        path = npz_of(tmp_path / f"{number}.npz", pickle.dumps(value, protocol))
        assert_refused(
            lambda path=path: PublishedDescriptors(path, tmp_path), path, "desc: refused, it names", "executed"
        )
        assert not (tmp_path / "mark").exists()


def test_the_test_would_notice(tmp_path, clusters):
    """NumPy's own reader runs the code of the same files."""
    path = npz_of(tmp_path / "a.npz", pickle.dumps(objects([evil_calls(tmp_path)["eval"]]), 4))
    np.load(path, allow_pickle=True)["desc"]
    assert (tmp_path / "mark").exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
OBJECTS = b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb"
NUMBERS = b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        # without the flags of objects, bytes would be addresses
        (ARRAY + b"(I1\n(I1\nt" + OBJECTS.replace(b"I63", b"I0") + b"I00\nC\x08AAAAAAAAtb.", "with other content"),
        (ARRAY + b"(I1\n(I9\nt" + OBJECTS + b"I00\n(lI1\natb.", "an array of shape (9,) with other content"),
        (ARRAY + b"(I1\n(I-1\nt" + OBJECTS + b"I00\n(ltb.", "an array of shape (-1,)"),
        (ARRAY + b"(I1\n(I9\nt" + NUMBERS + b"I00\nC\x08AAAAAAAAtb.", "an array of shape (9,) with other content"),
        (ARRAY + b"(I1\n(I1\ntNI00\n(lI1\natb.", "a malformed array"),
        (b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.", "elements of the type 'V8'"),
        (b"cnumpy\ndtype\n(S'i8,O'\nI0\nI1\ntR.", "elements of the type 'i8,O'"),
        (b"cnumpy.core.multiarray\nscalar\n(" + OBJECTS + b"C\x08AAAAAAAAtR.", "a malformed number"),
        (b"cnumpy.core.multiarray\nscalar\n(" + NUMBERS + b"C\x03AAAtR.", ""),
        # attributes set on the placeholder of a function
        (b"cnumpy\ndtype\n(N}S'__call__'\ncnumpy\nndarray\nstb.", "__setstate__() missing"),
        (b"cnumpy.core.multiarray\n_reconstruct\n}S'a'\nI1\nsb.", "__setstate__() missing"),
        (b"cnumpy.core.multiarray\nscalar\n(N}S'a'\nI1\nstb.", "__setstate__() missing"),
        (b"cnumpy\nndarray\n(I4\ntR.", "not callable"),
        (b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.", "it names numpy.ndarray.__reduce__"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"P1\n.", "persistent"),
        (b"]q\x00h\x00a.", "not an array of shape [1]"),
        (b"I5\n.", "not an array of shape [1]"),
        (b"garbage", ""),
        (b"", ""),
    ],
)
def test_crafted_pickles_are_refused(tmp_path, content, words):
    path = npz_of(tmp_path / "a.npz", content)
    assert_refused(lambda: read_npz(path, ["desc"]), f"{path}: desc: ", words)
    assert builtins.eval("1") == 1


def test_list_within_itself_is_refused(tmp_path):
    endless = []
    endless.append(endless)
    path = npz_of(tmp_path / "a.npz", pickle.dumps(objects([[endless] * 4]), 4))
    assert_refused(lambda: PublishedDescriptors(path, tmp_path), "frame 0: ")


@pytest.mark.parametrize("protocol", [3, 4])  # NumPy writes the third, or since version 2 the fourth
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_arrays_and_plain_containers_come_back(tmp_path, protocol, module):
    values = [
        [1, 2.5, "text", b"bytes\xff", None, True, (1, (2, 3)), {"a": [1]}],
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([0.5, 1.5], dtype=np.float32),
        objects([np.arange(3), [4]]),
        np.float32(1.5),
        np.int64(-7),
    ]
    content = pickle.dumps(objects(values), protocol)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    if protocol < 4:  # later protocols write the length of a name before it
        content = content.replace(new, old) if module == "numpy.core" else content
    elif module == "numpy.core":
        content = content.replace(bytes([len(new)]) + new, bytes([len(old)]) + old)
    path = npz_of(tmp_path / "a.npz", unframed(content), shape=(7,))
    found = read_npz(path, ["desc"])["desc"]
    assert type(found) is np.ndarray and found.shape == (7,)
    assert found[0] == values[0] and found[5] == 1.5 and found[6] == -7
    for number in (1, 2, 3):
        np.testing.assert_array_equal(found[number], values[number])
        assert found[number].dtype == values[number].dtype.newbyteorder("=")  # NumPy swaps the bytes
    assert found[4][0].tolist() == [0, 1, 2] and found[4][1] == [4]


def unframed(content):
    """A pickle without frame lengths, which would be wrong after changing names."""
    return content[:2] + content[11:] if content[2:3] == b"\x95" else content

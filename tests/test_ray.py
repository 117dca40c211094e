"""A Ray cluster of two nodes gives the results of one process, whatever is lost on the way."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from helpers import save_dart

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.frames import Frames, Parts, write_extxyz, write_store
from pyg_clusters.inference import Predictor, engines, predict
from pyg_clusters.inference.scoring import ScoredBlock, score_frames
from pyg_clusters.labels.labellers import LabelResult, label_on_ray
from pyg_clusters.models import DART
from pyg_clusters.options import EngineOptions

FRAMES, BLOCK = 120, 5

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning")
]  # of Ray
LOSS = "default:a Ray worker was lost:UserWarning"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and frames of mixed sizes in two text files and a store; one frame cannot be used."""
    folder = tmp_path_factory.mktemp("ray")
    rng = np.random.default_rng(3)
    save_dart(folder / "model", 4, 20, hidden_channels=8, interaction_channels=(8,))
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3) * 3
    frames = []
    for size in rng.integers(4, 20, FRAMES):
        frames.append(Atoms(f"Ga{size}", grid[:size] + rng.normal(scale=0.2, size=(size, 3))))
    frames[70].positions[1] = np.nan
    write_extxyz(folder / "a.extxyz", frames[:47])
    write_extxyz(folder / "b.extxyz", frames[47:])
    write_store(folder / "store.h5", Frames.open([folder / "a.extxyz", folder / "b.extxyz"]))
    return folder


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(predict, "BLOCK_SIZE", BLOCK)
    monkeypatch.setattr(engines, "BLOCKS_OF_PIECE", 2)


def command(folder: Path, out: Path, *more: object) -> list[str]:
    inputs = [folder / "store.h5", folder / "a.extxyz", folder / "b.extxyz"]
    return list(map(str, ["predict", folder / "model", *inputs, "--on-bad", "skip", "--out", out, *more]))


def local_run(folder: Path, suffix: str) -> bytes:
    out = folder / f"local{suffix}"
    if not out.exists():
        assert main(command(folder, out)) == 0
    return out.read_bytes()


# Without a cluster


def test_a_missing_extra_is_one_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out.csv"
    assert main(command(folder, out, "--engine", "ray")) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "pyg-clusters: the engine ray needs ray; install it with: pip install 'pyg-clusters[ray]'"
    )
    assert not out.exists()


def test_an_address_is_for_ray(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path / "out.csv", "--address", "head:6379")) == 2
    assert "--address head:6379 requires --engine ray" in capsys.readouterr().err


def test_no_cluster_at_the_address_is_one_line(folder, tmp_path, capsys):
    pytest.importorskip("ray", reason="needs the extra ray")
    assert main(command(folder, tmp_path / "out.csv", "--engine", "ray", "--address", "127.0.0.1:1")) == 2
    assert "--address 127.0.0.1:1: no Ray cluster there" in capsys.readouterr().err.splitlines()[-1]


# On a cluster of two nodes, on this machine


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"  # else its workers are the last to get a core of a busy machine
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def on_cluster(cluster, folder: Path, out: Path) -> list[str]:
    return command(folder, out, "--engine", "ray", "--address", cluster.address)


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(folder, cluster, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert main(on_cluster(cluster, folder, out)) == 0
    captured = capsys.readouterr()
    assert out.read_bytes() == local_run(folder, ".csv")
    assert captured.err.count("b.extxyz, frame 23: the position of atom 1 is [nan") == 1
    assert f"{2 * FRAMES - 2} frames in {out}" in captured.out


@pytest.mark.slow
def test_a_run_stopped_by_a_bad_frame_resumes(folder, cluster, tmp_path, capsys):
    out = tmp_path / "out.extxyz"
    arguments = [word for word in on_cluster(cluster, folder, out) if word not in ("--on-bad", "skip")]
    assert main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "store.h5, frame 70: the position of atom 1 is [nan" in last and f"the {70} finished frames" in last
    assert main([*arguments, "--on-bad", "skip"]) == 0
    assert "resuming after 70 frames" in capsys.readouterr().err
    assert out.read_bytes() == local_run(folder, ".extxyz")


@pytest.mark.slow
def test_blocks_as_the_local_engine_gives_them(folder, cluster):
    predictor = Predictor(DART(hidden_channels=8))
    frames = Frames.open([folder / "a.extxyz", folder / "store.h5"], block_size=BLOCK, on_bad="skip", with_atoms=True)
    options = EngineOptions(engine="ray", address=cluster.address)
    found = list(engines.score_by_engine(predictor, frames, options, each=as_it_is, start=(0, 3)))
    for block, expected in zip(found, score_frames(predictor, frames, start=(0, 3)), strict=True):
        assert block.frames.position == expected.frames.position and block.bad == expected.bad
        np.testing.assert_array_equal(block.energy, expected.energy)
        np.testing.assert_array_equal(block.frames.pos, expected.frames.pos)
        assert list(block.frames.atoms) == list(expected.frames.atoms)


def as_it_is(scored: ScoredBlock) -> ScoredBlock:
    return scored


@pytest.mark.slow
def test_screening_gives_what_one_process_gives(folder, cluster, tmp_path, monkeypatch, capsys):
    inputs = [folder / "store.h5", folder / "a.extxyz", folder / "b.extxyz"]
    start = list(map(str, ["screen", folder / "model", *inputs, "--on-bad", "skip", "--top", 3, "--out"]))
    on_ray_too = [*start, str(tmp_path / "ray"), "--engine", "ray", "--address", cluster.address]
    assert main([*start, str(tmp_path / "local")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(import_module("pyg_clusters.screening.screen"), "write_candidates", stopped)
        assert main(on_ray_too) == 2
    with monkeypatch.context() as patch:  # all that is left to do is to read the frames
        patch.setattr(engines.Parts, "add", stopped)
        assert main(on_ray_too) == 0
    for name in ("candidates.extxyz", "candidates.csv"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def stopped(*arguments):
    raise InputError("stopped")


def killed_once(marker: Path, written, style, uncertainty, scored: ScoredBlock):
    if scored.frames.position == (0, 15) and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return written(style, uncertainty, scored)


@pytest.mark.slow
@pytest.mark.filterwarnings(LOSS)
def test_a_killed_worker_changes_nothing(folder, cluster, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.parquet"
    monkeypatch.setattr(predict, "_encoded", partial(killed_once, tmp_path / "killed", predict._encoded))
    assert main(on_cluster(cluster, folder, out)) == 0
    assert (tmp_path / "killed").exists()
    assert capsys.readouterr().err.count("warning: a Ray worker was lost") == 1
    assert out.read_bytes() == local_run(folder, ".parquet")


def once_both_nodes_work(begun: Path, written, style, uncertainty, scored: ScoredBlock):
    import ray

    (begun / ray.get_runtime_context().get_node_id()).touch()
    end = time.monotonic() + 120
    while len(list(begun.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.2)
    return written(style, uncertainty, scored)


@pytest.mark.slow
@pytest.mark.filterwarnings(LOSS)
def test_a_lost_node_changes_nothing(folder, cluster, tmp_path, monkeypatch, capsys):
    out, begun, add = tmp_path / "out.parquet", tmp_path / "begun", Parts.add
    begun.mkdir()

    def and_a_node_is_lost(parts, *block):
        add(parts, *block)
        if parts.num_parts == 3:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    monkeypatch.setattr(Parts, "add", and_a_node_is_lost)
    monkeypatch.setattr(predict, "_encoded", partial(once_both_nodes_work, begun, predict._encoded))
    assert main(on_cluster(cluster, folder, out)) == 0
    assert len(list(begun.iterdir())) == 2
    assert "warning: a Ray worker was lost" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(predict, "BLOCK_SIZE", BLOCK)
    assert out.read_bytes() == local_run(folder, ".parquet")


# Labels


@pytest.mark.slow
def test_labels_are_those_of_one_process(cluster, tmp_path):
    frames, local, ray = (tmp_path / f"{name}.extxyz" for name in ("cu", "local", "ray"))
    write_extxyz(frames, [Atoms("Cu3", [[0, 0, 0], [0, 0, d], [0, d, 0]]) for d in np.linspace(2.2, 3, 9)])
    start = ["label", "energy", str(frames), "--calculator", "emt", "--out"]
    assert main([*start, str(local)]) == 0
    assert main([*start, str(ray), "--engine", "ray", "--address", cluster.address]) == 0
    assert ray.read_bytes() == local.read_bytes()


@dataclass(frozen=True)
class SizeLabeller:
    """Counts atoms; the worker that is given three dies the first time."""

    marker: Path
    memory: float = 0.0

    def problem(self, atoms: Atoms) -> str | None:
        return None

    def needed_memory(self, atoms: Atoms) -> float:
        return 1e18 if len(atoms) > 5 else 1e6

    def __call__(self, atoms: Atoms) -> LabelResult:
        if len(atoms) == 3 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return LabelResult(atoms, None, f"{len(atoms)} atoms in {self.memory:g} bytes")


@pytest.mark.slow
def test_a_lost_worker_loses_only_its_current_frame(cluster, tmp_path):
    labeller = SizeLabeller(tmp_path / "killed")
    frames = [Atoms(f"Cu{size}") for size in (1, 2, 3, 4, 5)]
    found = sorted(label_on_ray(frames, labeller, address=cluster.address), key=lambda item: item[0])
    assert labeller.marker.exists()
    assert [result.note for _, result, _ in found] == [f"{size} atoms in 1e+06 bytes" for size in (1, 2, 3, 4, 5)]
    with pytest.raises(InputError, match=r"Cu6 needs 1000000000\.0 GB of memory, and the largest node"):
        list(label_on_ray([Atoms("Cu6")], labeller, address=cluster.address))

"""Two processes on one output, kills at any moment, signals, full disks."""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from pyg_clusters.cli.main import main
from pyg_clusters.errors import InputError
from pyg_clusters.files import output_lock, replacing
from pyg_clusters.frames import write_extxyz
from pyg_clusters.models import DART
from pyg_clusters.models.checkpoint import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model and six frames of gallium."""
    folder = tmp_path_factory.mktemp("reliability")
    torch.manual_seed(0)
    model = DART(hidden_channels=8, interaction_channels=(8,))
    model.domain.fit(torch.full((12,), 31), torch.tensor([0, 4, 12]))
    save_model(model, folder / "model")
    generator = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), -1).reshape(-1, 3) * 2.8
    frames = [Atoms("Ga8", grid + generator.normal(scale=0.2, size=grid.shape)) for _ in range(6)]
    write_extxyz(folder / "md.extxyz", frames)
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def in_child(work) -> int:
    """How work in a process of its own ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            code = work()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


# Outputs by verb: the command, and the output that it locks.
WRITERS = {
    "predict": (["predict", "MODEL", "MD", "--out", "OUT/x.csv"], "x.csv"),
    "screen": (["screen", "MODEL", "MD", "--top", "2", "--out", "OUT/x"], "x"),
    "evaluate": (["evaluate", "MODEL", "--data", "MD", "--out", "OUT/x.json"], "x.json"),
    "evaluate-screening": (["evaluate-screening", "MODEL", "MD", "--truth", "energy", "--out", "OUT/x"], "x"),
    "spectrum": (["spectrum", "sodium", "MD", "--out", "OUT/x"], "x"),
    "relax": (["relax", "MD", "--calculator", "emt", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "relax many": (["relax", "MD", "--calculator", "gupta", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "label": (["label", "energy", "MD", "--calculator", "emt", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "sblda": (["generate", "sblda", "--sizes", "6", "--count", "2", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "quench": (
        ["generate", "quench", "--formula", "Cu4", "--calculator", "emt", "--count", "1", "--out", "OUT/x.xyz"],
        "x.xyz",
    ),
    "convert": (["convert", "MD", "OUT/x.h5"], "x.h5"),
    "merge": (["merge", "MD", "--out", "OUT/x.csv"], "x.csv"),
    "ensemble": (["ensemble", "MODEL", "MODEL", "--out", "OUT/x"], "x"),
    "describe": (["describe", "MD", "--radii", "3.5,6", "--out", "OUT/x"], "x"),
    "analyse": (["analyse", "core-surface", "MODEL", "MD", "--out", "OUT/x"], "x"),
    "demo": (["demo", "--out", "OUT/x"], "x"),
    "reproduce": (["reproduce", "layers", "--quick", "--out", "OUT/x"], "x"),
}


@pytest.mark.parametrize("verb", WRITERS)
def test_a_second_process_stops(folder, tmp_path, verb, capsys):
    words, out = WRITERS[verb]
    places = {"MODEL": str(folder / "model"), "MD": str(folder / "md.extxyz")}
    command = [places.get(word, word.replace("OUT", str(tmp_path))) for word in words]
    with output_lock(tmp_path / out, folder="." not in out):
        before = names(tmp_path)
        assert main(command) == 2
        lines = capsys.readouterr().err.splitlines()
        assert f"{tmp_path / out} is being written by process {os.getpid()} on " in lines[-1]
        assert names(tmp_path) == before
    assert names(tmp_path) == set()


def test_a_lock_ends_with_its_process(tmp_path):
    out = tmp_path / "x.csv"

    def work():
        with output_lock(out) as lock:
            lock.begin("predict md.xyz")
            with replacing(out) as temporary:
                temporary.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert os.WTERMSIG(in_child(work)) == signal.SIGKILL
    assert len(names(tmp_path)) == 2
    with output_lock(out) as lock:
        assert lock.unfinished == "predict md.xyz"
        assert names(tmp_path) == {".x.csv.lock"}
        lock.finish()
    assert names(tmp_path) == set()


def test_temporary_files_of_others_stay(tmp_path):
    foreign = [".partial-0123456789ab-y.csv", "run/.partial-0123456789ab-x.csv", ".partial-notes", ".y.csv.lock"]
    own = [".partial-0123456789ab-x.csv", "figures/.partial-0123456789ab-x.csv"]
    for name in (*foreign, *own, "run/.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with output_lock(tmp_path, folder=True):
        assert names(tmp_path) == {*foreign, "run", "run/.lock", "figures", ".lock"}


def test_two_names_of_one_output(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").symlink_to(tmp_path / "here")
    with output_lock(tmp_path / "here" / "x"), pytest.raises(InputError, match="is being written by process"):
        with output_lock(tmp_path / "there" / "x"):
            pass


def test_an_output_below_a_file_is_refused(tmp_path, folder, capsys):
    (tmp_path / "file").touch()
    for verb in ("predict", "screen"):
        out = tmp_path / "file" / "x.csv"
        assert main([verb, str(folder / "model"), str(folder / "md.extxyz"), "--out", str(out)]) == 2
        assert "is no folder" in capsys.readouterr().err.splitlines()[-1]
    assert main(["predict", str(folder / "model"), str(folder / "md.extxyz"), "--out", str(tmp_path)]) == 2


def test_results_of_an_unfinished_command_are_replaced_by_it_alone(folder, tmp_path, capsys):
    out, md = tmp_path / "out.extxyz", folder / "md.extxyz"
    command = ["generate", "sblda", "--sizes", "6", "--count", "2", "--out", str(out)]

    def work():
        unlink = Path.unlink

        def die(path, *arguments, **named):
            if path.name.endswith(".lock"):
                os.kill(os.getpid(), signal.SIGKILL)
            unlink(path, *arguments, **named)

        Path.unlink = die
        return main(command)

    in_child(work)
    whole = out.read_bytes()
    assert main(["generate", "sblda", "--sizes", "7", "--count", "2", "--out", str(out)]) == 2
    assert "unfinished results of another command, 'generate sblda --sizes 6" in capsys.readouterr().err
    assert main(command) == 0
    assert out.read_bytes() == whole and names(tmp_path) == {"out.extxyz"}
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    shutil.copy(md, out)
    assert main(["convert", str(md), str(out), "--overwrite"]) == 2  # no store: nothing is written or left
    assert names(tmp_path) == {"out.extxyz"} and out.read_bytes() == md.read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("swallowed", [False, True])
def test_signals_end_a_command_with_one_line(folder, tmp_path, number, code, swallowed, monkeypatch, capsys):
    from pyg_clusters.frames import store

    def append(writer, block):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if not swallowed:
                raise

    monkeypatch.setattr(store._Writer, "append", append)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert main(["convert", str(folder / "md.extxyz"), str(tmp_path / "x.h5")]) == code
    assert capsys.readouterr().err == f"pyg-clusters: stopped by {signal.Signals(number).name}\n"
    assert names(tmp_path) == set()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers

"""Simultaneous processes, kills at any moment, signals, full disks."""

import io
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from helpers import save_dart, status_of

from pyg_clusters.cli import main
from pyg_clusters.concurrency import check_stopped, stopping_on_signals
from pyg_clusters.datasets import ClusterDataset
from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, output_lock
from pyg_clusters.frames import Frames, read_atoms, write_extxyz


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model and six frames of gallium."""
    folder = tmp_path_factory.mktemp("reliability")
    save_dart(folder / "model", 4, 8, hidden_channels=8, interaction_channels=(8,))
    generator = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), -1).reshape(-1, 3) * 2.8
    frames = [Atoms("Ga8", grid + generator.normal(scale=0.2, size=grid.shape)) for _ in range(6)]
    write_extxyz(folder / "md.extxyz", frames)
    for symbol, length in (("Cu", 2.5), ("Na", 3.6)):
        triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]]) * length
        few = [Atoms(f"{symbol}3", triangle + generator.normal(scale=0.1, size=(3, 3))) for _ in range(3)]
        write_extxyz(folder / f"{symbol.lower()}.xyz", few)
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Command of each verb, and the output that it locks.
WRITERS = {
    "predict": (["predict", "MODEL", "MD", "--out", "OUT/x.csv"], "x.csv"),
    "screen": (["screen", "MODEL", "MD", "--top", "2", "--out", "OUT/x"], "x"),
    "evaluate": (["evaluate", "MODEL", "MD", "--out", "OUT/x.json"], "x.json"),
    "benchmark-screening": (["benchmark-screening", "MODEL", "MD", "--truth", "energy", "--out", "OUT/x"], "x"),
    "spectrum": (["spectrum", "sodium", "MD", "--out", "OUT/x"], "x"),
    "relax": (["relax", "MD", "--calculator", "emt", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "relax many": (["relax", "MD", "--calculator", "gupta", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "label": (["label", "energy", "MD", "--calculator", "emt", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "sblda": (["generate", "sblda", "--sizes", "6", "--count", "2", "--out", "OUT/x.extxyz"], "x.extxyz"),
    "quench": (
        ["generate", "quench", "--formula", "Cu6", "--calculator", "emt", "--count", "1", "--out", "OUT/x.xyz"],
        "x.xyz",
    ),
    "hot": (["generate", "hot", "MD", "--calculator", "emt", "--count", "1", "--out", "OUT/x.xyz"], "x.xyz"),
    "convert": (["convert", "MD", "--out", "OUT/x.h5"], "x.h5"),
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


def command_of(verb: str, folder: Path, out: str) -> list[str]:
    """Command of a verb with its output in a folder; without a folder the output is empty."""
    places = {
        "MODEL": str(folder / "model"),
        "MD": str(folder / ("cu.xyz" if verb in ("label", "hot") else "md.extxyz")),
    }
    words = [places.get(word, word) for word in WRITERS[verb][0]]
    return [word if not word.startswith("OUT/") else out and out + word.removeprefix("OUT") for word in words]


@pytest.mark.parametrize("verb", [*WRITERS, "train"])
def test_an_empty_output_is_refused(folder, tmp_path, verb, monkeypatch, capsys):
    """An empty output is not the working directory, on the command line or in a file of options."""
    monkeypatch.chdir(tmp_path)
    command = ["train", "--config", "x.yaml", "--out", ""] if verb == "train" else command_of(verb, folder, "")
    assert main(command) == 2
    assert "--out needs the name of a file or folder" in capsys.readouterr().err
    assert names(tmp_path) == set()
    if verb in ("screen", "evaluate", "describe"):
        (tmp_path / "options.yaml").write_text("out: ''\n")
        assert main([*command[:-2], "--config", "options.yaml"]) == 2
        assert "--out is empty" in capsys.readouterr().err
        assert names(tmp_path) == {"options.yaml"}


FIRST_RESULT = {
    "screen": "candidates.csv",
    "benchmark-screening": "ranking.csv",
    "spectrum": "spectrum.csv",
    "ensemble": "ensemble.json",
    "describe": "summary.json",
    "analyse": "core_surface.json",
}


@pytest.mark.parametrize("verb", [verb for verb in WRITERS if verb not in ("demo", "reproduce")])
def test_results_are_replaced_on_request_only(folder, tmp_path, verb, capsys):
    out = tmp_path / WRITERS[verb][1]
    result = out / FIRST_RESULT[verb] if "." not in out.name else out
    result.parent.mkdir(exist_ok=True)
    result.write_text("mine")
    assert main(command_of(verb, folder, str(tmp_path))) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert result.read_text() == "mine"


def test_a_lock_ends_with_its_process(tmp_path):
    out = tmp_path / "x.csv"

    def work():
        with output_lock(out) as lock:
            lock.begin("predict md.xyz")
            with atomic_write(out) as temporary:
                temporary.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert os.WTERMSIG(status_of(work)) == signal.SIGKILL
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
        assert "cannot create the folder" in capsys.readouterr().err.splitlines()[-1]
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

    status_of(work)
    whole = out.read_bytes()
    assert main(["generate", "sblda", "--sizes", "7", "--count", "2", "--out", str(out)]) == 2
    assert "unfinished results of another command, 'pyg-clusters generate sblda --sizes 6" in capsys.readouterr().err
    assert main(command) == 0
    assert out.read_bytes() == whole and names(tmp_path) == {"out.extxyz"}
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    shutil.copy(md, out)
    assert main(["convert", str(md), "--out", str(out), "--overwrite"]) == 2  # not a store: nothing is written
    assert names(tmp_path) == {"out.extxyz"} and out.read_bytes() == md.read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("swallowed", [False, True])
def test_signals_end_a_command_with_one_line(folder, tmp_path, number, code, swallowed, monkeypatch, capsys):
    from pyg_clusters.frames import store_writer

    def append(writer, block):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if not swallowed:
                raise

    monkeypatch.setattr(store_writer._Writer, "append", append)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert main(["convert", str(folder / "md.extxyz"), "--out", str(tmp_path / "x.h5")]) == code
    assert capsys.readouterr().err == f"pyg-clusters: stopped by {signal.Signals(number).name}\n"
    assert names(tmp_path) == set()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("method", ["write", "seek", "readinto"])
@pytest.mark.parametrize("event", [3, 12])
def test_signals_within_hdf5_do_not_break_it(folder, tmp_path, method, event, monkeypatch, capfd):
    """HDF5 calls methods of a file; an exception in one of them would cause a segmentation fault."""
    from pyg_clusters.frames import store_layout

    calls, plain = [], getattr(store_layout._File, method)

    def signalled(self, *arguments):
        calls.append(method)
        if len(calls) == event:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, *arguments)

    monkeypatch.setattr(store_layout._File, method, signalled)
    assert main(["convert", str(folder / "md.extxyz"), "--out", str(tmp_path / "x.h5")]) == (
        130 if len(calls) >= event else 0
    )
    if len(calls) >= event:
        assert capfd.readouterr().err == "pyg-clusters: stopped by SIGINT\n"
        assert names(tmp_path) == set()


def test_signals_in_finalisers_are_silent(capfd):
    class Signalling:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM"), stopping_on_signals():
        thing = Signalling()
        del thing
        check_stopped()
    assert capfd.readouterr().err == ""


# Commands that are completed by the same command after a kill, and their results.
RESUMABLE = {
    "predict": (["predict", "MODEL", "MD", "--out", "OUT/x.csv"], ["x.csv"]),
    "predict parquet": (["predict", "MODEL", "MD", "--shard", "1/1", "--out", "OUT/x.parquet"], ["x.parquet"]),
    "screen": (
        ["screen", "MODEL", "MD", "--top", "2", "--write", "vasp", "--out", "OUT/x"],
        ["x/candidates.csv", "x/candidates.extxyz", "x/report.html", "x/vasp/0001_Ga8/POSCAR"],
    ),
    "convert": (["convert", "MD", "--out", "OUT/x.h5"], []),
    "relax": (["relax", "CU", "--calculator", "emt", "--steps", "2", "--out", "OUT/x.extxyz"], ["x.extxyz"]),
    "relax many": (["relax", "NA", "--calculator", "gupta", "--steps", "2", "--out", "OUT/x.extxyz"], ["x.extxyz"]),
    "label": (["label", "energy", "CU", "--calculator", "emt", "--out", "OUT/x.extxyz"], ["x.extxyz"]),
    "quench": (
        ["generate", "quench", "--formula", "Cu6", "--calculator", "emt", "--count", "2", "--out", "OUT/x.xyz"],
        ["x.xyz"],
    ),
}
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")


def changes_files(event: str, arguments: tuple, below: str) -> bool:
    """Whether an audited event changes a file below a folder, or opens one for writing."""
    if not arguments or not str(arguments[0]).startswith(below):
        return False
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))
    return event in CHANGES


def killed_at(command: list[str], out: Path, number: int | None) -> int:
    """Run a command in a process that is killed before the given event; without it, count the events."""
    reading, writing = os.pipe()

    def work():
        count = 0

        def hook(event, arguments):
            nonlocal count
            if changes_files(event, arguments, str(out)):
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        code = main(command)
        os.write(writing, str(count).encode())
        return code

    status = status_of(work)
    os.close(writing)
    with os.fdopen(reading) as stream:
        counted = stream.read()
    assert (status == 0) if number is None else os.WIFSIGNALED(status)
    return int(counted or 0)


def whole_run(folder: Path, tmp_path: Path, verb: str) -> tuple[list[str], set[str], dict[str, bytes]]:
    """A finished command, all its files, and the contents of its results."""
    words, results = RESUMABLE[verb]
    out = tmp_path / "out"
    places = {"MODEL": folder / "model", "MD": folder / "md.extxyz", "CU": folder / "cu.xyz", "NA": folder / "na.xyz"}
    command = [str(places.get(word, word.replace("OUT", str(out)))) for word in words]
    out.mkdir()
    assert main(command) == 0
    return command, names(out), results_of(tmp_path, results)


def results_of(tmp_path: Path, results) -> dict[str, bytes]:
    return {name: (tmp_path / "out" / name).read_bytes() for name in results}


def sweep(folder: Path, tmp_path: Path, verb: str, numbers):
    command, listed, expected = whole_run(folder, tmp_path, verb)
    out = tmp_path / "out"

    def start_again():
        shutil.rmtree(out)
        out.mkdir()

    start_again()
    count = killed_at(command, out, None)
    for number in numbers(count):
        start_again()
        killed_at(command, out, number)
        where = f"after {number - 1} of {count} events"
        assert main(command) == 0, where
        assert names(out) == listed, where
        assert results_of(tmp_path, expected) == expected, where
        if verb == "convert":
            assert sum(map(len, Frames.open(out / "x.h5"))) == 6
        if verb == "label":
            lines = (out / "x.log.jsonl").read_text().splitlines()
            assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 3


@pytest.mark.parametrize("verb", RESUMABLE)
def test_killed_at_some_of_its_file_events(folder, tmp_path, verb):
    sweep(folder, tmp_path, verb, lambda count: (2 * count // 3, count))


@pytest.mark.slow
@pytest.mark.parametrize("verb", RESUMABLE)
def test_killed_at_each_of_its_file_events(folder, tmp_path, verb):
    sweep(folder, tmp_path, verb, lambda count: range(1, count + 1))


def signalled_at(command: list[str], below: tuple[str, ...], number: int, event: int | None) -> tuple[int, int, str]:
    """Run a command whose process signals itself when it opens or changes a file below some paths.

    Returns:
        Exit code, number of such events, and standard error.
    """
    reading, writing = os.pipe()

    def work():
        count = 0

        def hook(name, arguments):
            nonlocal count
            if name in ("open", *CHANGES) and arguments and str(arguments[0]).startswith(below):
                count += 1
                if count == event:
                    os.kill(os.getpid(), number)

        printed = sys.stderr = io.StringIO()
        sys.addaudithook(hook)
        code = main(command)
        os.write(writing, json.dumps([count, printed.getvalue()]).encode())
        return code

    status = status_of(work)
    os.close(writing)
    with os.fdopen(reading) as stream:
        count, printed = json.loads(stream.read())
    return os.waitstatus_to_exitcode(status), count, printed


SIGNALLED = {
    "sblda": (WRITERS["sblda"][0], ["x.extxyz"]),
    "quench": RESUMABLE["quench"],
    "hot": (["generate", "hot", "CU", "--calculator", "emt", "--count", "2", "--out", "OUT/x.xyz"], ["x.xyz"]),
    "describe": (["describe", "MD", "--radii", "3.5,5", "--out", "OUT/x"], ["x/summary.json", "x/report.html"]),
    "describe printed": (["describe", "MD", "--radii", "3.5,5"], []),
    "evaluate": (["evaluate", "MODEL", "LABELLED", "--target", "e", "--out", "OUT/x.json"], ["x.json"]),
    "info": (["info", "MD", "MODEL", "CU"], []),
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=pytest.mark.slow if verb in ("quench", "describe") else ()) for verb in SIGNALLED]
)
def test_a_signal_ends_a_verb_with_its_code_and_nothing_but_what_resumes(folder, tmp_path, verb, number, code):
    """Interrupted at some of its file events, it prints one line, and the same command completes the work."""
    words, results = SIGNALLED[verb]
    out, labelled = tmp_path / "out", tmp_path / "labelled.extxyz"
    frames = [frame.atoms for frame in read_atoms([folder / "md.extxyz"])]
    for place, atoms in enumerate(frames):
        atoms.info["e"] = float(place)
    write_extxyz(labelled, frames)
    places = {"MODEL": folder / "model", "MD": folder / "md.extxyz", "CU": folder / "cu.xyz", "LABELLED": labelled}
    command = [str(places.get(word, word.replace("OUT", str(out)))) for word in words]
    below = tuple(map(str, (out, *places.values())))
    out.mkdir()
    assert main(command) == 0
    expected, listed = results_of(tmp_path, results), names(out)
    shutil.rmtree(out)
    out.mkdir()
    finished, count, _ = signalled_at(command, below, number, None)
    assert finished == 0
    for event in (count // 2,) if number == signal.SIGINT else (count,):
        shutil.rmtree(out)
        out.mkdir()
        ended, _, printed = signalled_at(command, below, number, event)
        where = f"at event {event} of {count}: {printed}"
        assert ended == code and printed.splitlines()[-1] == f"pyg-clusters: stopped by {number.name}", where
        assert "Traceback" not in printed, where
        assert not [name for name in names(out) if ".partial-" in name], where
        assert main(command) == 0, where
        assert names(out) == listed and results_of(tmp_path, expected) == expected, where


@pytest.mark.parametrize("limit", [400, 3000, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("verb", RESUMABLE)
def test_full_disk(folder, tmp_path, verb, limit):
    command, listed, expected = whole_run(folder, tmp_path, verb)
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    log = tmp_path / "log"

    def work():
        with log.open("w") as stream:
            sys.stderr = stream
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return main(command)

    status = status_of(work)
    assert os.WIFEXITED(status)
    if os.WEXITSTATUS(status):
        assert os.WEXITSTATUS(status) == 2
        last = log.read_text().splitlines()[-1]
        assert "cannot write" in last and "File too large" in last and "make room" in last
        assert not [name for name in names(tmp_path) if ".partial" in name]
        assert main(command) == 0
    assert names(tmp_path / "out") == listed
    assert results_of(tmp_path, expected) == expected


@pytest.mark.parametrize("verb", ["predict", "screen", "relax many", "label", "sblda", "convert"])
def test_links_are_followed(folder, tmp_path, verb):
    """The target of a symbolic link is written, and the link is kept."""
    words, out = WRITERS[verb]
    places = {
        "MODEL": str(folder / "model"),
        "MD": str(folder / ("cu.xyz" if verb in ("label", "relax many") else "md.extxyz")),
    }
    command = [places.get(word, word.replace("OUT", str(tmp_path / "here"))) for word in words]
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / f"y{Path(out).suffix}"
    if not target.suffix:
        target.mkdir()
    (tmp_path / "here" / out).symlink_to(target)
    assert main(command) == 0
    assert (tmp_path / "here" / out).is_symlink()
    assert target.stat().st_size > 0 and (target.is_file() or any(target.iterdir()))


@pytest.mark.parametrize("verb", ["predict", "evaluate", "relax many", "sblda", "convert"])
def test_pipes_are_not_replaced(folder, tmp_path, verb, capsys):
    words, out = WRITERS[verb]
    places = {"MODEL": str(folder / "model"), "MD": str(folder / "md.extxyz")}
    os.mkfifo(tmp_path / out)
    command = [places.get(word, word.replace("OUT", str(tmp_path))) for word in words]
    assert main([*command, *([] if verb == "evaluate" else ["--overwrite"])]) == 2
    assert "it is a device or a pipe" in capsys.readouterr().err
    assert (tmp_path / out).is_fifo()


@pytest.mark.parametrize("verb", WRITERS)
def test_a_name_that_is_too_long(folder, tmp_path, verb, capsys):
    words, out = WRITERS[verb]
    places = {"MODEL": str(folder / "model"), "MD": str(folder / "md.extxyz")}
    out = tmp_path / ("x" * 300 + Path(out).suffix)
    command = [places.get(word, str(out) if word.startswith("OUT") else word) for word in words]
    assert main(command) == 2
    assert "too long" in capsys.readouterr().err


def test_a_data_set_is_processed_once_by_three_processes_at_once(folder, tmp_path):
    files = [str(folder / f"{name}.xyz") for name in ("cu", "na")]
    for file in files:
        frames = [frame.atoms for frame in read_atoms(file)]
        for atoms in frames:
            atoms.info["energy"] = float(atoms.get_all_distances().sum())
        write_extxyz(tmp_path / Path(file).name, frames)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                data = ClusterDataset(tmp_path / "root", str(tmp_path / "*.xyz"), target="energy")
                code = 0 if len(data) == 6 else 2
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len([name for name in names(tmp_path / "root") if name.endswith(".pt")]) == 1
    assert not [name for name in names(tmp_path) if "partial" in name or name.endswith(".lock")]

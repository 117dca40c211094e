"""Runs that are killed and restarted, or divided into parts, give the output of a single run."""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from ase import Atoms
from helpers import in_child, save_dart

from pyg_clusters.cli import main
from pyg_clusters.frames import Frames, Parts, resume, write_extxyz, write_store
from pyg_clusters.inference import Calibration, OutOfRangeFlagger, Predictor, predict
from pyg_clusters.inference.calibration import CALIBRATION
from pyg_clusters.inference.engines import score_resumably
from pyg_clusters.inference.scoring import ScoredBlock, job_settings
from pyg_clusters.models import DART, AlloyDART, NodeSchNet, load_model, save_ensemble
from pyg_clusters.models.checkpoint import save_model, weights_hash
from pyg_clusters.options import EngineOptions

FRAMES = 60
BLOCK = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and frames of mixed sizes in two text files and a store."""
    folder = tmp_path_factory.mktemp("resume")
    generator = np.random.default_rng(3)
    save_dart(folder / "model", 4, 8, hidden_channels=8, interaction_channels=(8,))
    frames = []
    for number in range(FRAMES):
        size = int(generator.integers(4, 9))
        grid = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), -1).reshape(-1, 3)[:size] * 3
        frames.append(Atoms(f"Ga{size}", grid + generator.normal(scale=0.2, size=grid.shape)))
        frames[-1].info["temperature"] = 300 + number
    frames[40].positions[1] = np.nan
    write_extxyz(folder / "a.extxyz", frames[:24])
    write_extxyz(folder / "b.extxyz", frames[24:])
    write_store(folder / "store.h5", Frames.open([folder / "a.extxyz", folder / "b.extxyz"]))
    return folder


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(predict, "BLOCK_SIZE", BLOCK)


def command(folder: Path, out: Path, *more: object) -> list[str]:
    inputs = [folder / "a.extxyz", folder / "b.extxyz", folder / "a.extxyz"]
    return list(map(str, ["predict", folder / "model", *inputs, "--on-bad", "skip", "--out", out, *more]))


def whole_run(folder: Path, suffix: str) -> bytes:
    out = folder / f"whole{suffix}"
    if not out.exists():
        assert main(command(folder, out)) == 0
    return out.read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".extxyz"])
def test_killed_at_random_moments(folder, tmp_path, suffix, capsys):
    expected = whole_run(folder, suffix)
    out = tmp_path / f"out{suffix}"
    moments = random.Random(1)
    start = time.monotonic()
    assert os.waitpid(in_child(lambda: main(command(folder, tmp_path / f"timed{suffix}"))), 0)[1] == 0
    duration = time.monotonic() - start
    for _ in range(3):
        child = in_child(lambda: main(command(folder, out)))
        time.sleep(moments.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if out.exists():
            assert out.read_bytes() == expected
            shutil.rmtree(tmp_path / f"out{suffix}.unfinished", ignore_errors=True)
            out.unlink()
    capsys.readouterr()
    assert main(command(folder, out)) == 0
    assert out.read_bytes() == expected
    assert not (tmp_path / f"out{suffix}.unfinished").exists()
    assert capsys.readouterr().err.count("b.extxyz, frame 16: the position of atom 1 is [nan") == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".extxyz"])
@pytest.mark.parametrize("moment", ["half a part", "no name", "half a file", "written", "not removed"])
def test_killed_at_the_worst_moments(folder, tmp_path, suffix, moment, capsys):
    expected = whole_run(folder, suffix)
    out = tmp_path / f"out{suffix}"
    add = Parts.add

    def die(*arguments, **named):
        os.kill(os.getpid(), signal.SIGKILL)

    def cut_add(parts, position, frames, results, bad=(), flagged=0):
        if parts.num_parts == 4:
            if moment == "half a file":
                add(parts, position, frames, results, bad, flagged)
                file = parts.folder / "4.part"
                os.truncate(file, file.stat().st_size - 3)
                die()
            partial = parts.folder / ".partial-0123456789ab-4.part"
            partial.write_bytes(results[: len(results) // 2] if moment == "half a part" else results)
            die()
        add(parts, position, frames, results, bad, flagged)

    def work():
        if moment == "written":
            Parts.remove = lambda parts: die() if parts.num_parts else None
        elif moment == "not removed":
            rmtree = shutil.rmtree
            resume.shutil.rmtree = lambda *more, **named: die() if out.exists() else rmtree(*more, **named)
        else:
            Parts.add = cut_add
        return main(command(folder, out))

    status = os.waitpid(in_child(work), 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert out.exists() == (moment in ("written", "not removed"))
    assert main(command(folder, out)) == 0
    going_on = capsys.readouterr().err
    if moment in ("half a part", "no name", "half a file"):
        assert f"resuming after {4 * BLOCK - 4:,} frames" in going_on  # the last block of the first file has 3 frames
    assert out.read_bytes() == expected


def test_another_run_is_refused(folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    parts = Parts(tmp_path / "out.csv.unfinished", {"model": "another"})
    parts.add((0, 0), 1, b"results of another model")
    assert main(command(folder, out)) == 2
    line = capsys.readouterr().err
    assert "was started with model = 'another'" in line and "--overwrite" in line and not out.exists()
    assert [results for _, results in parts] == [b"results of another model"]
    assert main(command(folder, out, "--overwrite")) == 0
    assert out.read_bytes() == whole_run(folder, ".csv")


def test_a_changed_input_is_another_run(folder, tmp_path, capsys):
    given, out = tmp_path / "md.extxyz", tmp_path / "out.csv"
    shutil.copy(folder / "b.extxyz", given)
    arguments = ["predict", str(folder / "model"), str(given), "--out", str(out)]
    assert main(arguments) == 2  # a bad frame
    line = capsys.readouterr().err
    assert "frame 16: the position" in line and f"the {2 * BLOCK} finished frames are kept in {out}.unf" in line
    content = given.read_bytes()
    given.write_bytes(content.replace(b"Ga", b"Al", 1))  # of the same size
    assert main([*arguments, "--on-bad", "skip"]) == 2
    assert "input 0" in capsys.readouterr().err
    given.write_bytes(content)
    os.utime(given, ns=(0, 1))  # the date does not matter
    assert main([*arguments, "--on-bad", "skip"]) == 0


def test_a_run_stopped_by_a_bad_frame_resumes_without_it(folder, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    arguments = [argument for argument in command(folder, out) if argument not in ("--on-bad", "skip")]
    assert main(arguments) == 2
    capsys.readouterr()
    assert main([*arguments, "--on-bad", "skip"]) == 0
    assert f"resuming after {24 + 2 * BLOCK:,} frames" in capsys.readouterr().err
    assert out.read_bytes() == whole_run(folder, ".parquet")


def test_screening_resumes_with_the_existing_energies(folder, tmp_path, monkeypatch):
    arguments = ["screen", str(folder / "model"), str(folder / "store.h5"), "--on-bad", "skip", "--top", "3"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0

    def die(*more, **named):
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        sys.modules["pyg_clusters.screening.screen"].write_candidates = die
        return main([*arguments, "--out", str(tmp_path / "out")])

    os.waitpid(in_child(work), 0)
    assert (tmp_path / "out" / "scores.unfinished" / "0.part").exists()
    evaluate = lambda *_, **__: pytest.fail("a frame was evaluated again")  # noqa: E731
    monkeypatch.setattr(DART, "forward", evaluate)
    monkeypatch.setattr("pyg_clusters.models.fast_dart.FusedDART.__call__", evaluate)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    for name in ("candidates.csv", "candidates.extxyz"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / "scores.unfinished").exists()


def test_screening_resumes_without_frames_that_have_no_prediction(tmp_path, monkeypatch, capsys):
    """A model with a reference energy of sodium alone has no energy of potassium."""
    model = AlloyDART([11, 19], hidden_channels=8)
    model.domain.fit(torch.tensor([11, 11, 19, 11]), torch.tensor([0, 4]))
    model.scale.set_references({"Na": -4410.25})
    save_model(model, tmp_path / "model")
    square = np.array([[0.0, 0.0, 0.0], [3.4, 0.0, 0.0], [3.4, 3.4, 0.0], [0.0, 3.4, 0.0]])
    write_extxyz(tmp_path / "nak.extxyz", [Atoms("Na4", square), Atoms("NaK3", square), Atoms("Na4", 1.1 * square)])
    arguments = ["screen", str(tmp_path / "model"), str(tmp_path / "nak.extxyz"), "--on-bad", "skip"]
    arguments += ["--choose", "bins", "--out"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["pyg_clusters.screening.screen"], "write_candidates", lambda *_: 1 / 0)
        assert main([*arguments, str(tmp_path / "out")]) == 1
    capsys.readouterr()
    stopping = [argument.replace("skip", "stop") for argument in arguments]
    assert main([*stopping, str(tmp_path / "out")]) == 2
    assert "frame 1: the model predicts inf; fix or remove" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "out")]) == 0
    assert "frame 1: the model predicts inf" in capsys.readouterr().err
    for name in ("candidates.csv", "candidates.extxyz"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_screening_killed_at_random_moments(folder, tmp_path):
    start = ["screen", str(folder / "model"), str(folder / "store.h5"), "--on-bad", "skip", "--top", "3", "--out"]
    begin = time.monotonic()
    assert os.waitpid(in_child(lambda: main([*start, str(tmp_path / "whole")])), 0)[1] == 0
    duration, moments, out = time.monotonic() - begin, random.Random(2), tmp_path / "out"
    for _ in range(5):
        child = in_child(lambda: main([*start, str(out)]))
        time.sleep(moments.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # If killed while writing results, it requires --overwrite and keeps the existing files.
    more = ["--overwrite"] if (out / "candidates.extxyz").exists() else []
    assert main([*start, str(out), *more]) == 0
    for name in ("candidates.csv", "candidates.extxyz"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# Parts


def rows(*files: Path) -> list[str]:
    """Rows of tables, or text of frames, in the order of the frames."""
    found = []
    for file in files:
        if file.suffix == ".csv":
            found += pyarrow.csv.read_csv(file).to_pylist()
        elif file.suffix == ".parquet":
            found += pyarrow.parquet.read_table(file).to_pylist()
        else:
            found += [
                {"source_file": atoms.info["source_file"], "source_frame": int(atoms.info["source_frame"])}
                | {name: str(value) for name, value in sorted({**atoms.info, **atoms.arrays}.items())}
                for atoms in ase.io.read(file, ":")
            ]
    return [str(row) for row in sorted(found, key=lambda row: (row["source_file"], row["source_frame"]))]


def predict_in_parts(folder: Path, arguments: list[str], suffix: str, count: int) -> list[Path]:
    """Predictions of the parts of a job array, by the arguments of one run."""
    if "--out" in arguments:
        at = arguments.index("--out")
        arguments = arguments[:at] + arguments[at + 2 :]
    parts = [folder / f"part{number}{suffix}" for number in range(1, count + 1)]
    for number, part in enumerate(parts, start=1):
        assert main([*arguments, "--out", str(part), "--shard", f"{number}/{count}"]) == 0
    return parts


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".extxyz"])
def test_parts_make_the_whole(folder, tmp_path, suffix):
    whole_run(folder, suffix)
    parts = predict_in_parts(tmp_path, command(folder, tmp_path), suffix, 4)
    found = rows(*parts)
    assert len(found) == FRAMES + 24 - 1 and min(len(rows(part)) for part in parts) > 0
    assert found == rows(folder / f"whole{suffix}")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0"])
def test_parts_that_do_not_exist(folder, tmp_path, shard, capsys):
    assert main(command(folder, tmp_path / "out.csv", "--shard", shard)) == 2
    assert "--shard" in capsys.readouterr().err


# Spreads, intervals and flags


@pytest.fixture(scope="module")
def calibrated(folder) -> Path:
    """An ensemble calibrated on the frames of one file; those of the other are outside its training set."""
    members = [folder / f"member_{seed}" for seed in (0, 1)]
    for seed, member in enumerate(members):
        save_dart(member, 4, 8, seed=seed, hidden_channels=8, interaction_channels=(8,))
    save_ensemble(folder / "ensemble", members)
    block = next(iter(Frames.open(folder / "a.extxyz")))
    known = OutOfRangeFlagger.fit_blocks([tuple(map(torch.from_numpy, (block.z, block.pos, block.ptr)))], (3.49,))
    scores = np.linspace(0.1, 2.0, 20).tolist()
    weights = weights_hash(folder / "ensemble")
    Calibration("ensemble", 0.1, scores, list(range(20)), weights, range=known).save(folder / "ensemble" / CALIBRATION)
    return folder / "ensemble"


def with_intervals(folder: Path, out: Path, *more: object) -> list[str]:
    arguments = command(folder, out, "--coverage", "0.9", *more)
    return [str(folder / "ensemble") if word == str(folder / "model") else word for word in arguments]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".extxyz"])
def test_intervals_and_flags_of_interrupted_and_divided_runs(folder, calibrated, tmp_path, suffix, capsys):
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    assert main(with_intervals(folder, whole)) == 0
    add = Parts.add

    def cut_add(parts, *block):
        if parts.num_parts == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        add(parts, *block)

    def work():
        Parts.add = cut_add
        return main(with_intervals(folder, out))

    os.waitpid(in_child(work), 0)
    capsys.readouterr()
    other = [word if word != "0.9" else "0.8" for word in with_intervals(folder, out)]
    assert main(other) == 2
    assert "was started with coverage = 0.9" in capsys.readouterr().err
    assert main(with_intervals(folder, out)) == 0
    assert "resuming after" in capsys.readouterr().err and out.read_bytes() == whole.read_bytes()

    assert rows(*predict_in_parts(tmp_path, with_intervals(folder, out), suffix, 3)) == rows(whole)
    if suffix == ".parquet":
        table = pyarrow.parquet.read_table(whole).to_pydict()
        low, energy, high = (np.array(table[name]) for name in ("pred_energy_low", "pred_energy", "pred_energy_high"))
        spread = np.array(table["pred_energy_spread"])
        assert (spread > 0).all()
        half = 1.9 * np.sqrt(spread**2 + 0.1**2 * np.array(table["size"]))
        np.testing.assert_allclose([high - energy, energy - low], [half, half], rtol=1e-5)
        flagged = np.array(table["pred_flag"]) != ""
        assert not flagged[:24].any() and flagged[24:-24].any() and not flagged[-24:].any()


def test_spreads_are_kept_with_the_energies_of_finished_blocks(folder, calibrated, tmp_path, monkeypatch):
    predictor, paths = Predictor(load_model(calibrated)), [folder / "a.extxyz", folder / "b.extxyz"]

    def blocks() -> list[ScoredBlock]:
        frames = Frames.open(paths, on_bad="skip")
        parts = Parts(tmp_path / "parts", job_settings(predictor, frames))
        return list(score_resumably(predictor, frames, parts, EngineOptions()))

    first = blocks()
    monkeypatch.setattr(Predictor, "__call__", None)
    for block, again in zip(first, blocks(), strict=True):
        np.testing.assert_array_equal(again.spread, block.spread)
        np.testing.assert_array_equal(again.energy, block.energy)


def test_spreads_of_files_are_those_of_arrays(folder, calibrated):
    predictor = Predictor(load_model(calibrated))
    found = predictor(Frames.open(folder / "b.extxyz", block_size=BLOCK, on_bad="skip"))
    frames = ase.io.read(folder / "b.extxyz", ":")
    good = np.array([bool(np.isfinite(atoms.positions).all()) for atoms in frames])
    expected = predictor([atoms for atoms, usable in zip(frames, good, strict=True) if usable])
    assert found.spread.isfinite().tolist() == found.energy.isfinite().tolist() == good.tolist()
    np.testing.assert_allclose(found.spread[good], expected.spread, rtol=1e-5)
    np.testing.assert_allclose(found.energy[good], expected.energy, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".extxyz"])
def test_spreads_of_shieldings(folder, tmp_path, suffix):
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_model(NodeSchNet(hidden_channels=8, num_filters=8), tmp_path / f"m{seed}")
    save_ensemble(tmp_path / "ensemble", [tmp_path / "m0", tmp_path / "m1"])
    arguments = ["predict", str(tmp_path / "ensemble"), str(folder / "a.extxyz"), "--out", str(tmp_path / f"p{suffix}")]
    assert main(arguments) == 0
    each = [Predictor(load_model(tmp_path / f"m{seed}"))(Frames.open(folder / "a.extxyz")).shielding for seed in (0, 1)]
    if suffix == ".csv":
        spread = pyarrow.csv.read_csv(tmp_path / "p.csv")["pred_nmr_shielding_spread"].to_numpy()
    else:
        written = ase.io.read(tmp_path / "p.extxyz", ":")
        spread = np.concatenate([atoms.arrays["pred_nmr_shielding_spread"] for atoms in written])
    np.testing.assert_allclose(spread, (each[0] - each[1]).abs() / 2**0.5, rtol=1e-3, atol=1e-5)


# Stores


def test_a_store_gives_the_energies_of_the_text(folder, tmp_path):
    inputs = [str(folder / "a.extxyz"), str(folder / "b.extxyz")]
    for name, given in (("text", inputs), ("store", [str(folder / "store.h5")])):
        arguments = ["predict", str(folder / "model"), *given, "--on-bad", "skip", "--out"]
        assert main([*arguments, str(tmp_path / f"{name}.parquet")]) == 0
    text, store = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("text", "store"))
    assert store["source_file"].to_pylist() == text["source_file"].to_pylist()
    assert store["source_frame"].to_pylist() == text["source_frame"].to_pylist()
    np.testing.assert_allclose(store["pred_energy"], text["pred_energy"], rtol=1e-6)


def test_no_frame_that_can_be_used(folder, tmp_path, capsys):
    write_extxyz(tmp_path / "bad.extxyz", [Atoms("Ga"), Atoms("Ga")])
    arguments = ["predict", str(folder / "model"), str(tmp_path / "bad.extxyz"), "--on-bad", "skip"]
    assert main([*arguments, "--out", str(tmp_path / "p.csv")]) == 2
    assert "no frame of" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.extxyz"]


def test_finished_parts_are_restored(tmp_path):
    folder, settings = tmp_path / "parts", {"a": 1, "b": 2}
    parts = Parts(folder, settings)
    parts.add((0, 0), 3, b"one,")
    parts.add((1, 0), 2, b"two,")
    again = Parts(folder, settings)
    assert again.next_position == (1, 1) and again.num_frames == 5
    assert [(part.position, results) for part, results in again] == [((0, 0), b"one,"), ((1, 0), b"two,")]
    assert json.loads((folder / "settings.json").read_text()) == settings
    os.truncate(folder / "1.part", (folder / "1.part").stat().st_size - 1)  # as after a power failure
    shorter = Parts(folder, settings)
    assert shorter.next_position == (0, 1) and [results for _, results in shorter] == [b"one,"]


def test_row_groups_are_of_one_size_however_rows_arrive(folder, tmp_path, monkeypatch):
    whole_run(folder, ".parquet")
    monkeypatch.setattr(predict, "ROWS_AT_ONCE", 10)
    assert main(command(folder, tmp_path / "p.parquet")) == 0
    merged = pyarrow.parquet.ParquetFile(tmp_path / "p.parquet")
    groups = [merged.metadata.row_group(number).num_rows for number in range(merged.metadata.num_row_groups)]
    assert groups == [10] * 8 + [3]
    assert merged.read().equals(pyarrow.parquet.read_table(folder / "whole.parquet"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".extxyz"])
def test_shieldings_are_divided_like_energies(folder, tmp_path, suffix):
    torch.manual_seed(0)
    save_model(NodeSchNet(hidden_channels=8, num_filters=8), tmp_path / "model")
    arguments = ["predict", str(tmp_path / "model"), str(folder / "a.extxyz")]
    whole = tmp_path / f"whole{suffix}"
    assert main([*arguments, "--out", str(whole)]) == 0
    assert rows(*predict_in_parts(tmp_path, arguments, suffix, 2)) == rows(whole)
    if suffix == ".csv":
        atoms = sum(len(atoms) for atoms in ase.io.read(folder / "a.extxyz", ":"))
        assert len(whole.read_text().splitlines()) == 1 + atoms

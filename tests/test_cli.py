"""The verbs on valid input, and one clear line with exit code 2 on invalid input."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers import atoms_of, refused, rows_of

from pyg_clusters import cli
from pyg_clusters.cli import main, main_verbs
from pyg_clusters.frames import read_atoms, write_extxyz
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference import Predictor
from pyg_clusters.models import DART, AlloyDART
from pyg_clusters.models.checkpoint import load_model, save_model
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.testing import random_clusters
from pyg_clusters.units import ENERGY_UNITS

SIZES = (31, 40, 40, 52, 40)


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    z, pos, ptr = random_clusters(SIZES, 31, torch.Generator().manual_seed(1))
    clusters = atoms_of(z, pos, ptr)
    for number, atoms in enumerate(clusters):
        atoms.info["binding_energy"] = -2.4 * len(atoms) - 0.1 * number
    return clusters


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained DART whose domain is Ga31 to Ga70."""
    torch.manual_seed(0)
    model = DART(hidden_channels=16)
    z, ptr = torch.full((101,), 31), torch.tensor([0, 31, 101])
    model.domain.fit(z, ptr)
    model.scale.fit(z, ptr, -2.4 * ptr.diff())  # the zero of the labels of the frames
    folder = tmp_path_factory.mktemp("model")
    save_model(model, folder)
    return folder


@pytest.fixture
def trajectory(frames, tmp_path) -> Path:
    write_extxyz(tmp_path / "md.extxyz", frames)
    return tmp_path / "md.extxyz"


def refused_frames(frames: list[Atoms], model: Path, tmp_path: Path, capsys) -> str:
    """The error of ``predict`` on frames; nothing is written."""
    path = tmp_path / "bad.extxyz"
    ase.io.write(path, frames, format="extxyz")
    out = tmp_path / "out" / "p.csv"
    line = refused(["predict", model, path, "--out", out], capsys)
    assert not out.exists() and not list(tmp_path.rglob(".partial*"))
    assert str(path) in line
    return line


# Valid input


def test_predict_writes_the_predictions_of_the_model(model, frames, trajectory, tmp_path, capsys):
    expected = Predictor(load_model(model))(frames).energy.numpy()
    for suffix in ("csv", "parquet", "extxyz"):
        out = tmp_path / f"p.{suffix}"
        assert main(["predict", str(model), str(trajectory), str(trajectory), "--out", str(out)]) == 0
        assert f"{2 * len(SIZES)} frames" in capsys.readouterr().out
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["source_frame"] == 2 * list(range(len(SIZES)))
    assert table["size"] == 2 * list(SIZES)
    assert set(table["source_file"]) == {str(trajectory)}
    np.testing.assert_allclose(table["pred_energy"], np.tile(expected, 2), rtol=1e-6)
    np.testing.assert_allclose(np.array(table["pred_energy_per_atom"]) * table["size"], table["pred_energy"], rtol=1e-5)
    written = ase.io.read(tmp_path / "p.extxyz", ":")
    assert [atoms.info["source_frame"] for atoms in written] == table["source_frame"]
    np.testing.assert_allclose([atoms.info["pred_energy"] for atoms in written], table["pred_energy"], rtol=1e-6)
    np.testing.assert_allclose(written[3].positions, frames[3].positions, atol=1e-6)
    assert (tmp_path / "p.csv").read_text().splitlines()[0].replace('"', "") == ",".join(table)


def test_values_of_a_frame_are_never_overwritten(model, frames, tmp_path):
    given, once, twice, screened = (tmp_path / name for name in ("md.extxyz", "once.extxyz", "twice.extxyz", "s"))
    own = {"file": "run3/md.lammpstrj", "frame": 1000, "flag": "mine", "rank": 77, "why": "so", "spread": 0.1}
    own_prediction = {"pred_energy": -1.0, "pred_energy_spread": 0.2, "pred_reason": "so", "source_file": "x"}
    written = [Atoms(atoms.numbers, atoms.positions, info=own | own_prediction) for atoms in frames]
    write_extxyz(given, written)
    assert main(["predict", str(model), str(given), "--out", str(once)]) == 0
    assert main(["predict", str(model), str(once), "--out", str(twice)]) == 0
    assert main(["screen", str(model), str(given), "--out", str(screened)]) == 0
    energy = Predictor(load_model(model))(frames).energy.numpy()
    for path in (once, twice, screened / "candidates.extxyz"):
        for atoms in ase.io.read(path, ":"):
            number = atoms.info["source_frame"]
            assert own.items() <= atoms.info.items() and atoms.info["source_file"] == str(given)
            assert atoms.info["pred_energy"] == pytest.approx(energy[number], rel=1e-5)
            # an earlier prediction is kept under another name
            assert atoms.info["earlier_pred_energy"] == -1.0 and atoms.info["earlier_pred_energy_spread"] == 0.2
            assert "pred_energy_spread" not in atoms.info and atoms.info["earlier_pred_reason"] == "so"
            assert atoms.info["earlier_source_file"] == "x"
    assert [atoms.info["source_frame"] for atoms in ase.io.read(twice, ":")] == list(range(len(frames)))


def test_the_first_origin_is_kept_everywhere(model, frames, trajectory, tmp_path):
    def run(verb, *arguments):
        assert main([verb, *map(str, arguments)]) == 0

    once, store, labelled = tmp_path / "once.extxyz", tmp_path / "frames.h5", tmp_path / "labelled.extxyz"
    run("predict", model, trajectory, "--out", once)
    given = ase.io.read(once, ":")[::-1]
    given[1].info["quoted"] = 'a "quoted" text'
    write_extxyz(once, given)
    ase.io.write(tmp_path / "once.traj", given)
    run("convert", once, "--out", store)
    run("label", "energy", store, "--calculator", "ase.calculators.lj:LennardJones", "--out", labelled)
    paths = [once, tmp_path / "once.traj", store, labelled]
    for path in paths:
        for suffix in ("csv", "extxyz"):
            run("predict", model, path, "--out", tmp_path / f"p.{suffix}", "--overwrite")
        table = pyarrow.csv.read_csv(tmp_path / "p.csv").to_pydict()
        assert table["source_frame"] == list(range(len(frames)))[::-1] and set(table["source_file"]) == {
            str(trajectory)
        }
        written = ase.io.read(tmp_path / "p.extxyz", ":")
        assert [atoms.info["source_frame"] for atoms in written] == table["source_frame"]
    run("screen", model, *paths, "--top", "36", "--out", tmp_path / "s")
    rows = pyarrow.csv.read_csv(tmp_path / "s/candidates.csv").to_pydict()
    assert sorted(rows["source_frame"]) == sorted(len(paths) * list(range(len(frames))))
    assert [len(frames[number]) for number in rows["source_frame"]] == rows["size"]


@pytest.mark.figures
def test_screen_selects_the_lowest_of_each_size(model, frames, trajectory, tmp_path):
    energy = Predictor(load_model(model))(frames).energy.numpy()
    out = tmp_path / "screening"
    arguments = ["screen", str(model), str(trajectory), "--top", "2", "--out", str(out), "--truth", "binding_energy"]
    assert main(arguments) == 0
    picked = ase.io.read(out / "candidates.extxyz", ":")
    of_40 = sorted((energy[number], number) for number in (1, 2, 4))[:2]
    assert [atoms.info["source_frame"] for atoms in picked] == [0, *(number for _, number in of_40), 3]
    assert [atoms.info["pred_rank"] for atoms in picked] == [1, 1, 2, 1]
    assert [atoms.info["binding_energy"] for atoms in picked] == [
        frames[atoms.info["source_frame"]].info["binding_energy"] for atoms in picked
    ]
    assert len((out / "candidates.csv").read_text().splitlines()) == 5
    assert "<svg" in (out / "report.html").read_text() or "data:image" in (out / "report.html").read_text()
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0


def test_evaluate_on_labelled_frames(model, frames, trajectory, tmp_path):
    out = tmp_path / "errors.json"
    assert main(["evaluate", str(model), str(trajectory), "--out", str(out)]) == 0
    predicted = Predictor(load_model(model))(frames).energy.double().numpy()
    error = 23.060548 * np.abs(predicted - [atoms.info["binding_energy"] for atoms in frames])
    result = json.loads(out.read_text())
    assert result["overall"]["mae_kcal_mol"] == pytest.approx(error.mean(), rel=1e-5)
    assert {row["size"]: row["num_clusters"] for row in result["by_size"]} == {31: 1, 40: 3, 52: 1}
    assert result["by_size"][0]["spearman"] is None


def test_info(model, trajectory, capsys):
    assert main(["info", str(trajectory), str(model)]) == 0
    out = capsys.readouterr().out
    assert "5 frames" in out and "31: 1, 40: 3, 52: 1" in out and "Ga (203 atoms)" in out
    assert "DART" in out and "Ga clusters of 31 to 70 atoms" in out


def test_info_skips_bad_frames_on_request(trajectory, tmp_path, capsys):
    """A frame with a broken line is refused with the remedy of info, or listed while the others are summarised."""
    lines = trajectory.read_text().splitlines(keepends=True)
    lines[5] = "Ga 0.0 nothing 1.0\n"
    (tmp_path / "broken.extxyz").write_text("".join(lines))
    assert main(["info", str(tmp_path / "broken.extxyz")]) == 2
    line = capsys.readouterr().err
    assert "broken.extxyz, frame 0" in line and "--on-bad skip" in line
    assert main(["info", str(tmp_path / "broken.extxyz"), "--on-bad", "skip"]) == 0
    said = capsys.readouterr()
    assert "1 frame was left out" in said.err and "broken.extxyz, frame 0" in said.err
    assert "broken.extxyz: 4 frames" in said.out


def test_info_names_frames_that_other_commands_refuse(tmp_path, capsys):
    whole = ase.Atoms("Ga4", [[0, 0, 0], [2.7, 0, 0], [0, 2.7, 0], [0, 0, 2.7]])
    torn = ase.Atoms("Ga4", [[0, 0, 0], [2.7, 0, 0], [0, 2.7, 0], [0, 0, 17.3]])  # by a cell of 20 Å
    ase.io.write(tmp_path / "frames.xyz", [whole, torn, ase.Atoms("Ga")], format="xyz")
    assert main(["info", str(tmp_path / "frames.xyz")]) == 0
    out = capsys.readouterr().out
    assert "frames.xyz: 3 frames" in out and "rejected by other commands: 1 frame, the first is" in out
    assert "frame 1: has no periodic cell, but is in 2 pieces" in out


def test_labels_in_other_units_are_converted(model, trajectory, tmp_path, capsys):
    frames, unit = ase.io.read(trajectory, ":"), "kcal/mol"
    for atoms in frames:
        atoms.info["binding_energy"] /= ENERGY_UNITS[unit]
    write_extxyz(tmp_path / "other.extxyz", frames)
    errors = [tmp_path / "ev.json", tmp_path / "other.json"]
    target = ["--target", "binding_energy"]
    assert main(["evaluate", str(model), str(trajectory), *target, "--out", str(errors[0])]) == 0
    other = [str(tmp_path / "other.extxyz"), "--energy-unit", unit]
    assert main(["evaluate", str(model), *other, *target, "--out", str(errors[1])]) == 0
    first, second = (json.loads(path.read_text())["overall"]["mae_kcal_mol"] for path in errors)
    assert second == pytest.approx(first, rel=1e-6)
    tables, truth = [], ["--truth", "binding_energy"]
    for name, options in ((trajectory, []), (tmp_path / "other.extxyz", ["--energy-unit", unit])):
        out = tmp_path / f"worth_{len(tables)}"
        asked = [*truth, "--own", "binding_energy", "--top", "2", "--out", str(out)]
        assert main(["benchmark-screening", str(model), str(name), *asked, *options]) == 0
        tables.append(read_columns(out / "ranking.csv"))
    for name in ("mae_kcal_mol", "mae_own_kcal_mol"):
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=1e-6)
    capsys.readouterr()
    assert main(["evaluate", str(model), str(trajectory), "--energy-unit", "joule"]) == 2
    assert "--energy-unit is 'joule'; use one of eV" in capsys.readouterr().err
    assert main(["evaluate", str(model), "--energy-unit", "eV"]) == 2
    assert "--energy-unit requires FRAMES" in capsys.readouterr().err
    for atoms in frames:
        atoms.info["energy_unit"] = unit
    write_extxyz(tmp_path / "stated.extxyz", frames)
    stated = str(tmp_path / "stated.extxyz")
    for asked in (["evaluate", str(model), stated], ["benchmark-screening", str(model), stated, *truth]):
        assert main([*asked, "--energy-unit", "eV"]) == 2
        assert f"(--energy-unit {unit})" in capsys.readouterr().err
    out = tmp_path / "worth_stated"
    assert main(["benchmark-screening", str(model), stated, *truth, "--top", "2", "--out", str(out)]) == 0
    np.testing.assert_allclose(read_columns(out / "ranking.csv")["mae_kcal_mol"], tables[0]["mae_kcal_mol"], rtol=1e-6)
    longest = max(atoms.get_all_distances().max() for atoms in frames)
    radii = ["--radii", f"{longest - 0.01}"]  # all but one frame of a size have the same counts
    for name, options in ((trajectory, []), (tmp_path / "other.extxyz", ["--energy-unit", unit]), (stated, [])):
        out = tmp_path / f"described_{len(tables)}"
        asked = ["describe", str(name), "--target", "binding_energy", *radii, *options, "--out", str(out)]
        assert main(asked) == 0
        tables.append(json.loads((out / "summary.json").read_text())["collisions"]["largest_spread_kcal_mol"])
        out = tmp_path / f"screened_{len(tables)}"
        asked = ["screen", str(model), str(name), *truth, "--top", "2", *options, "--out", str(out)]
        assert main(asked) == 0
        columns = pyarrow.csv.read_csv(out / "candidates.csv").to_pydict()
        key = "binding_energy" if name == trajectory else "binding_energy_eV"
        true = [frames[n].info["binding_energy"] * ENERGY_UNITS[unit] for n in columns["source_frame"]]
        np.testing.assert_allclose(columns[key], true)
    assert tables[-3] > 1.0 and tables[-2:] == pytest.approx([tables[-3]] * 2)


def test_demo_trains_and_screens(monkeypatch, tmp_path, capsys):
    full = shipped_recipe(cli.DEMO_RECIPE).read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(full.replace("max_epochs: ", "limit_train_batches: 2\n  max_epochs: 1 # ", 1))
    monkeypatch.setattr(cli, "DEMO_RECIPE", str(recipe))
    write_extxyz(tmp_path / "md.extxyz", [frame.atoms for frame in islice(read_atoms([cli.DEMO_TRAJECTORY]), 30)])
    monkeypatch.setattr(cli, "DEMO_TRAJECTORY", str(tmp_path / "md.extxyz"))
    for _ in range(2):  # the second time, training is already finished
        assert main(["demo", "--out", str(tmp_path / "demo"), "--top", "7"]) == 0
        out = capsys.readouterr().out
        assert "MAE" in out and "report.html" in out
        assert len(ase.io.read(tmp_path / "demo/screening/candidates.extxyz", ":")) == 7
    assert "finished" in out


def test_module_and_help_and_version():
    run = subprocess.run([sys.executable, "-m", "pyg_clusters", "--help"], capture_output=True, text=True, check=True)
    assert all(verb in run.stdout for verb in main_verbs())


def help_of(words: str, capsys) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([*words.split(), "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_help_uses_words_of_users_and_fits_two_screens(capsys):
    subcommands = [
        "label energy",
        "label prescreen",
        "label shielding",
        "generate sblda",
        "generate quench",
        "generate hot",
    ]
    for words in (*main_verbs(), *subcommands, "analyse core-surface", "reproduce dart", "reproduce layers"):
        text = help_of(words, capsys)
        assert not re.search(r"<class|null|type:|None|Literal|default: False", text), text
        assert len(text.splitlines()) <= 80, words
    assert "(default: rank)" in help_of("screen", capsys)


def test_threads_do_not_spin_while_they_wait_unless_the_user_says_so(monkeypatch, capsys):
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if given:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        assert main(["models"]) == 0
        assert os.environ["OMP_WAIT_POLICY"] == expected


def test_help_loads_no_network_and_no_data():
    code = (
        "import sys; from pyg_clusters.cli import main\n"
        "for verb in ('train', 'screen', 'predict', 'evaluate'):\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit: pass\n"
        "sys.exit(str({'torch', 'matplotlib', 'ase', 'scipy', 'h5py'} & set(sys.modules) or ''))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.strip() == ""


def test_options_come_from_a_file_and_the_command_line_wins(model, trajectory, tmp_path):
    file = tmp_path / "screen.yaml"
    file.write_text(f"model: {model}\nframes: [{trajectory}]\ntop: 2\nout: {tmp_path / 'a'}\n")
    assert main(["screen", "--config", str(file)]) == 0
    assert len(ase.io.read(tmp_path / "a/candidates.extxyz", ":")) == 4
    assert main(["screen", "--config", str(file), "--top", "1", "--out", str(tmp_path / "b")]) == 0
    assert len(ase.io.read(tmp_path / "b/candidates.extxyz", ":")) == 3


def test_quiet_prints_nothing_and_verbose_the_versions(model, trajectory, tmp_path, capsys):
    command = ["predict", str(model), str(trajectory), "--out", str(tmp_path / "p.csv"), "--overwrite"]
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "") and (tmp_path / "p.csv").exists()
    assert main([*command, "--verbose"]) == 0
    assert re.search(r"pyg-clusters \S+, Python .*\nfinished after \d+ s\n", capsys.readouterr().err)


def test_tab_completion_knows_verbs_and_options(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert main(["--print-completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    words = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_pyg_clusters; echo "${COMPREPLY[@]}"'
    for typed, expected in (("scr", "screen"), ("screen --spread-w", "--spread-weight"), ("generate q", "quench")):
        run = subprocess.run(
            ["bash", "-c", words, script, "pyg-clusters", *typed.split()], capture_output=True, text=True
        )
        assert run.stdout.strip() == expected, run.stderr
    assert "must be bash" in refused(["--print-completion", "fish"], capsys)


@pytest.mark.parametrize("verb", main_verbs())
def test_help_of_each_verb_ends_in_an_example(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([verb, "--help"])
    assert exit_.value.code == 0
    assert f"example: pyg-clusters {verb}" in " ".join(capsys.readouterr().out.split())


# Invalid input


def test_positions_not_finite(model, frames, tmp_path, capsys):
    bad = frames[1].copy()
    bad.positions[3, 1] = np.nan
    line = refused_frames([frames[0], bad], model, tmp_path, capsys)
    assert "frame 1" in line and "atom 3" in line and "nan" in line


def test_empty_file(model, tmp_path, capsys):
    (tmp_path / "md.xyz").touch()
    assert "empty" in refused(["predict", model, tmp_path / "md.xyz", "--out", tmp_path / "p.csv"], capsys)


def test_missing_file(model, tmp_path, capsys):
    assert "md.xyz" in refused(["predict", model, tmp_path / "md.xyz", "--out", tmp_path / "p.csv"], capsys)


@pytest.mark.filterwarnings("always:.* is perhaps still being written")
def test_truncated_last_frame(model, trajectory, tmp_path, capsys):
    text = trajectory.read_text().splitlines()
    trajectory.write_text("\n".join(text[:-7]) + "\n")
    assert main(["predict", str(model), str(trajectory), "--out", str(tmp_path / "p.parquet")]) == 0
    assert "frame 4 and is perhaps still being written; the complete frames before it" in capsys.readouterr().err
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet")["source_frame"].to_pylist() == [0, 1, 2, 3]
    assert main(["evaluate", str(model), str(trajectory)]) == 0
    assert "the file ends within frame 4" in capsys.readouterr().err


def test_one_atom(model, frames, tmp_path, capsys):
    line = refused_frames([frames[0], Atoms("Ga")], model, tmp_path, capsys)
    assert "frame 1" in line and "1" in line


def test_coinciding_atoms(model, frames, tmp_path, capsys):
    bad = frames[1].copy()
    bad.positions[5] = bad.positions[2]
    line = refused_frames([bad], model, tmp_path, capsys)
    assert "frame 0" in line and "2 and 5" in line and "0.00 Å" in line


def test_element_unknown_to_the_model(model, frames, tmp_path, capsys):
    bad = frames[2].copy()
    bad.symbols[4] = "Al"
    line = refused_frames([*frames[:2], bad], model, tmp_path, capsys)
    assert "frame 2" in line and "atom 4 is Al" in line and "Ga" in line


def test_periodic_cell(model, frames, tmp_path, capsys):
    bad = frames[0].copy()
    bad.set_cell([30, 30, 10])
    bad.pbc = True
    line = refused_frames([bad], model, tmp_path, capsys)
    assert "frame 0: is connected to its own image along c: a wire, not a cluster" in line


@pytest.mark.filterwarnings("always:.*150")
def test_size_far_outside_the_training_set_gives_a_warning(model, tmp_path, capsys):
    z, pos, _ = random_clusters((150,), 31, torch.Generator().manual_seed(2))
    write_extxyz(tmp_path / "big.extxyz", [Atoms(z.numpy(), pos.numpy())])
    out = tmp_path / "p.csv"
    assert main(["predict", str(model), str(tmp_path / "big.extxyz"), "--out", str(out)]) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("warning:") and "150" in line and "31 to 70" in line
    assert out.exists()


def test_bad_frames_are_skipped_on_request(model, frames, tmp_path, capsys):
    bad = frames[1].copy()
    bad.positions[3, 1] = np.inf
    path = tmp_path / "md.extxyz"
    ase.io.write(path, [frames[0], bad, frames[2]], format="extxyz")
    out = tmp_path / "p.parquet"
    assert main(["predict", str(model), str(path), "--on-bad", "skip", "--out", str(out)]) == 0
    assert pyarrow.parquet.read_table(out)["source_frame"].to_pylist() == [0, 2]
    assert f"{path}, frame 1" in capsys.readouterr().err


def test_wrong_target_key(model, trajectory, capsys):
    line = refused(["evaluate", model, trajectory, "--target", "energie"], capsys)
    assert "energie" in line and "binding_energy" in line


def test_corrupt_checkpoint(model, trajectory, tmp_path, capsys):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    line = refused(["predict", tmp_path, trajectory, "--out", tmp_path / "p.csv"], capsys)
    assert "model.safetensors" in line and "corrupted" in line


def test_no_model(trajectory, tmp_path, capsys):
    line = refused(["predict", tmp_path / "nowhere", trajectory, "--out", tmp_path / "p.csv"], capsys)
    assert "nowhere" in line


@pytest.mark.parametrize("verb", ["predict", "screen"])
def test_full_disk(verb, model, trajectory, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    out = tmp_path / "out.csv" if verb == "predict" else tmp_path / "screening"
    line = refused([verb, model, trajectory, "--out", out], capsys)
    assert "No space left on device" in line and str(tmp_path) in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != trajectory]


def test_unknown_verb_option_suffix_and_recipe(model, trajectory, tmp_path, capsys):
    assert "predict" in refused(["predcit"], capsys)
    assert "did you mean 'out'" in refused(["predict", model, trajectory, "--ou", tmp_path / "p.csv"], capsys)
    assert ".parquet" in refused(["predict", model, trajectory, "--out", tmp_path / "p.txt"], capsys)
    assert "--config" in refused(["train"], capsys)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(shipped_recipe(cli.DEMO_RECIPE).read_text().replace("batch_size", "batchsize"))
    line = refused(["train", "--config", recipe, "--out", tmp_path / "run"], capsys)
    assert "batchsize" in line and "did you mean" in line and "batch_size" in line
    assert "nothing.yaml" in refused(["train", "--config", "nothing.yaml", "--out", tmp_path / "run"], capsys)
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(model, tmp_path):
    with pytest.raises(ValueError):
        main(["predict", str(model), str(tmp_path / "none.xyz"), "--out", str(tmp_path / "p.csv"), "--debug"])


def test_predict_keeps_values_of_the_frames(model, frames, tmp_path):
    labelled = [atoms.copy() for atoms in frames]
    for number, atoms in enumerate(labelled):
        atoms.info["temperature"] = 300.0 + number
        atoms.arrays["depth"] = np.arange(len(atoms)) * 0.1
    given, out = tmp_path / "md.extxyz", tmp_path / "out.extxyz"
    write_extxyz(given, labelled)
    assert main(["predict", str(model), str(given), "--out", str(out)]) == 0
    for before, after in zip(labelled, ase.io.read(out, ":"), strict=True):
        assert after.info["temperature"] == before.info["temperature"]
        assert after.info["binding_energy"] == pytest.approx(before.info["binding_energy"])
        np.testing.assert_allclose(after.arrays["depth"], before.arrays["depth"])
        assert "pred_energy" in after.info
    assert main(["screen", str(model), str(given), "--top", "1", "--out", str(tmp_path / "s")]) == 0
    assert ase.io.read(tmp_path / "s" / "candidates.extxyz", 0).info["temperature"] == 300.0


def test_predict_does_not_overwrite_its_input_or_an_older_result(model, trajectory, tmp_path, capsys):
    before = trajectory.read_text()
    assert "one of the inputs" in refused(["predict", model, trajectory, "--out", trajectory, "--overwrite"], capsys)
    assert trajectory.read_text() == before
    out = tmp_path / "p.csv"
    out.write_text("older")
    assert "--overwrite" in refused(["predict", model, trajectory, "--out", out], capsys)
    assert out.read_text() == "older"
    assert main(["predict", str(model), str(trajectory), "--out", str(out), "--overwrite"]) == 0
    folder = tmp_path / "screened"
    folder.mkdir()
    shutil.copy(trajectory, folder / "candidates.extxyz")
    arguments = ["screen", model, folder / "candidates.extxyz", "--out", folder, "--overwrite"]
    assert "one of the inputs" in refused(arguments, capsys)


@pytest.mark.parametrize("value", ["nan", "unknown"])
def test_labels_that_are_not_numbers(value, model, trajectory, capsys):
    text = trajectory.read_text().splitlines(keepends=True)
    line = 2 + 31 + 1  # the comment line of frame 1
    text[line] = " ".join(
        f"binding_energy={value}" if w.startswith("binding_energy") else w for w in text[line].split()
    )
    trajectory.write_text("".join(part if part.endswith("\n") else part + "\n" for part in text))
    message = refused(["evaluate", model, trajectory], capsys)
    shown = value if value == "nan" else repr(value)
    assert f"{trajectory}, frame 1: 'binding_energy' must be a number, got {shown}" in message
    arguments = ["screen", model, trajectory, "--truth", "binding_energy", "--out", trajectory.parent / "s"]
    assert "frame 1" in refused(arguments, capsys)


def test_device_that_does_not_exist(model, trajectory, tmp_path, capsys):
    arguments = ["predict", model, trajectory, "--out", tmp_path / "p.csv", "--device", "warp"]
    assert "device warp cannot be used" in refused(arguments, capsys)
    assert "device warp cannot be used" in refused(["evaluate", model, trajectory, "--device", "warp"], capsys)


def test_info_counts_labels_that_are_not_finite(tmp_path, capsys):
    frames = [Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]], info={"energy": energy}) for energy in (-1.0, np.nan, -0.5)]
    frames[0].info["step"] = 5
    frames[2].arrays["forces"] = np.array([[0.0, 0.0, 0.2], [0.0, np.inf, -0.2]])
    write_extxyz(tmp_path / "na.extxyz", frames)
    assert main(["info", str(tmp_path / "na.extxyz")]) == 0
    out = capsys.readouterr().out
    assert "energy: -1 to -0.5 (per frame; not finite in 1 frame)" in out
    assert "step: 5 to 5 (per frame; in 1 frame only)" in out
    assert "forces: -0.2 to 0.2 (3 values per atom; in 1 frame only; not finite in 1 frame)" in out


def test_info_distinguishes_values_of_frames_and_atoms(tmp_path, capsys):
    """The stress has six values, also in a frame of six atoms."""
    frames = [Atoms(f"Na{n}", [[0, 0, 3.1 * k] for k in range(n)]) for n in (6, 7)]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=np.full(6, 0.5))
        atoms.arrays["charge_of"] = np.full(len(atoms), 0.25)
    write_extxyz(tmp_path / "na.extxyz", frames)
    assert main(["info", str(tmp_path / "na.extxyz")]) == 0
    out = capsys.readouterr().out
    assert "stress: 0.5 to 0.5 (6 values per frame)" in out and "charge_of: 0.25 to 0.25 (per atom)" in out


def test_info_does_not_take_a_list_of_a_frame_for_values_of_its_atoms(tmp_path, capsys):
    """As in all other commands, values per atom are those in arrays and results; a list may have any shape."""
    atoms = Atoms(
        "Na3", [[0, 0, 0], [3.4, 0, 0], [1.7, 2.9, 0]], info={"field": [0.1, 0.2, 0.3], "bonds": [[1, 2], [0]]}
    )
    ase.io.write(tmp_path / "na.traj", atoms)
    assert main(["info", str(tmp_path / "na.traj")]) == 0
    said = capsys.readouterr().out
    assert "field: 0.1 to 0.3 (3 values per frame)" in said and "bonds: '[[1, 2], [0]]' (per frame)" in said


def test_info_prints_the_labels_and_their_ranges(trajectory, capsys):
    assert main(["info", str(trajectory)]) == 0
    assert "binding_energy: -125.1 to -74.4 (per frame)" in capsys.readouterr().out


def test_predictions_that_are_not_finite_are_named(tmp_path, capsys):
    """A model with a reference energy of sodium alone has no energy of potassium."""
    model = AlloyDART([11, 19], hidden_channels=8)
    model.domain.fit(torch.tensor([11, 11, 19, 11]), torch.tensor([0, 4]))
    model.scale.set_references({"Na": -4410.25})
    save_model(model, tmp_path / "model")
    square = [[0.0, 0.0, 0.0], [3.4, 0.0, 0.0], [3.4, 3.4, 0.0], [0.0, 3.4, 0.0]]
    write_extxyz(tmp_path / "nak.extxyz", [Atoms("Na4", square), Atoms("NaK3", square)])
    command = ["predict", str(tmp_path / "model"), str(tmp_path / "nak.extxyz"), "--out", str(tmp_path / "p.csv")]
    assert "nak.extxyz, frame 1: the model predicts inf; fix or remove the frame" in refused(command, capsys)
    assert main([*command, "--on-bad", "skip"]) == 0
    assert "frame 1: the model predicts inf" in capsys.readouterr().err
    (row,) = rows_of(tmp_path / "p.csv")
    assert float(row["pred_energy"]) == pytest.approx(-4 * 4410.25, abs=5)

"""Comparison with the tables of a paper."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
from helpers import in_child

from pyg_clusters.cli import main
from pyg_clusters.errors import InputError
from pyg_clusters.papers import dart
from pyg_clusters.shipped import recipe_file, shipped_recipe
from pyg_clusters.training.launcher import Training, run_trainings


def write_run(folder: Path, name: str, overall: tuple[float, float, int], by_size: dict | None = None, seed: int = 0):
    """The files of a finished run with the given errors (MAE, RMSE, clusters) that the tables read."""
    run = folder / dart.folder_name(name, seed)
    (run / "splits").mkdir(parents=True)
    (run / "splits" / "train.txt").write_text("0\n1\n2\n")
    keys = ("mae_kcal_mol", "rmse_kcal_mol", "num_clusters")
    rows = [{"size": size, **dict(zip(keys, values, strict=True))} for size, values in (by_size or {}).items()]
    metrics = {"overall": dict(zip(keys, overall, strict=True)), "by_size": rows}
    (run / "test_metrics.json").write_text(json.dumps(metrics))
    (run / "finished.json").write_text(json.dumps({"seconds": 120.0}))


def test_rows_contain_the_values_of_the_paper():
    paper = {row.label: row.paper for row in dart.rows() if row.paper}
    assert paper["DART"] == (3.59, 4.55) and paper["BPSF-HDNN"] == (2.4, 3.03) and paper["DART, Ga70"] == (4.71, 5.96)
    assert paper["DART without K and L"] == (4.29, 5.45) and paper["DART, 57, 60, 66"] == (4.34, 5.58)
    for row in dart.rows():
        assert dart.options_of(row.training), row
    assert {row.training for row in dart.rows(hdnn=False)} == {
        row.training for row in dart.rows() if not row.training.startswith("hdnn")
    }


def test_errors_of_several_sizes_are_combined_from_those_of_each(tmp_path):
    sizes = {46: (2.0, 3.0, 10), 57: (4.0, 5.0, 30), 60: (1.0, 1.5, 5)}
    write_run(tmp_path, "dart_without_46_57_60", (3.22, 4.33, 45), sizes)
    row = dart.Row("Table 3", "two", "dart_without_46_57_60", (46, 57))
    (result,) = dart.results([row], tmp_path, 1)
    assert result.mae == pytest.approx([3.5]) and result.clusters == 40
    assert result.rmse[0] == pytest.approx(((10 * 9 + 30 * 25) / 40) ** 0.5)
    with pytest.raises(InputError, match="seed1: the training is not finished"):
        dart.results([row], tmp_path, 2)


def test_all_available_seeds_count(tmp_path):
    row = next(row for row in dart.rows() if row.label == "DART")
    for seed, mae in enumerate((3.0, 4.0, 5.0)):
        write_run(tmp_path, "dart", (mae, mae + 1, 45), seed=seed)
    (result,) = dart.results([row], tmp_path, 1)
    assert result.mae == (3.0, 4.0, 5.0) and result.rmse == (4.0, 5.0, 6.0)


def test_findings_are_confirmed_or_rejected_by_the_errors(tmp_path):
    names = ("DART", "BPSF-HDNN", "DART without K", "DART without L", "DART without interaction")
    chosen = [row for row in dart.rows() if row.table == "Table 2" and row.label in names]
    for row, mae in zip(chosen, (2.0, 4.0, 5.0, 6.0, 13.0), strict=True):
        write_run(tmp_path, row.training, (mae, mae, 5))
    said = {finding.statement: finding.holds for finding in dart.findings(dart.results(chosen, tmp_path, 1))}
    assert said == {
        "The K shell matters more than the L shell.": False,
        "Without the interaction network the error triples.": True,
        "BPSF-HDNN is more accurate than DART.": True,
    }


@pytest.mark.figures
def test_a_table_of_finished_runs_is_written_with_mean_and_spread(tmp_path, capsys):
    for seed, mae in enumerate((4.0, 3.6)):
        write_run(tmp_path / "full", "dart_without_k", (mae, 5.0, 587), seed=seed)
    arguments = ["reproduce", "dart", "--only", "dart_without_k", "--seeds", "2", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "2 training runs, 2 of them already finished" in capsys.readouterr().out
    header, line = (tmp_path / "results.csv").read_text().splitlines()
    assert header.startswith("table,row,paper MAE,paper RMSE")
    assert line.startswith("Table 2,DART without K,4.06,5.16,656,3.80 ± 0.28,5.00 ± 0.00,587,3,2,2,")
    assert "| Table 2 | DART without K | 4.06 |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "beside_the_paper.png").stat().st_size > 10_000
    assert main([*arguments[:3], "nosuch", "--out", str(tmp_path)]) == 2


@pytest.mark.slow
def test_quick_run_is_marked_and_resumes_after_a_kill(tmp_path):
    arguments = ["reproduce", "dart", "--quick", "--only", "Learning curve", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "pyg_clusters", *arguments]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("quick/*/metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert main(arguments) == 0
    assert "QUICK RUN" in (tmp_path / "quick_results.md").read_text()
    assert len(list(tmp_path.glob("quick/*/finished.json"))) == 4  # the last of the curve is the training by group


def test_a_training_that_fails_is_named_with_its_last_line(tmp_path):
    broken = Training("broken", shipped_recipe("dart_gallium.yaml"), ("--model.no_such_option", "1"))
    with pytest.raises(InputError, match=r"training broken failed .*no_such_option"):
        run_trainings([broken], tmp_path, workers=1)


def test_another_recipe_is_not_mixed_with_existing_runs(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "finished.json").write_text('{"seconds": 1.0}')
    run_trainings([Training("a", shipped_recipe("dart_gallium.yaml"))], tmp_path)
    run_trainings([Training("a", shipped_recipe("dart_gallium.yaml"))], tmp_path)
    with pytest.raises(InputError, match="started with a different recipe"):
        run_trainings([Training("a", shipped_recipe("dart_gallium_quick.yaml"))], tmp_path)
    with pytest.raises(InputError, match="no such recipe"):
        run_trainings([Training("b", tmp_path / "nosuch.yaml")], tmp_path)


def test_recipes_are_files_or_shipped_ones(tmp_path, capsys):
    (tmp_path / "own.yaml").touch()
    assert recipe_file(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"
    assert recipe_file("dart-gallium") == shipped_recipe("dart_gallium.yaml")
    assert main(["reproduce", "nmr", "--recipe", "dart-galium", "--out", str(tmp_path / "runs")]) == 2
    assert "no file dart-galium, and no recipe of that name" in capsys.readouterr().err


def test_the_papers_own_data_are_named_in_every_training_run(tmp_path):
    made = dart.trainings(["dart", "hdnn", "dart_without_46_57_60"], tmp_path / "a", tmp_path / "b", gnc=tmp_path)
    for training in made:
        assert "pyg_clusters.datasets.GNC" in training.options and str(tmp_path) in training.options
        last = max(place for place, option in enumerate(training.options) if option == "--data.split")
        assert training.options[last + 1] == ("size" if "46" in training.name else "paper")
    assert "pyg_clusters.transforms.SymmetryFunctions" in made[1].options
    assert {row.table for row in dart.rows(gnc=True)} == {"Table 2", "Section 3.2", "Table 3"}


def test_termination_stops_the_training_runs(tmp_path):
    def work():
        os.setpgid(0, 0)
        forkserver._forkserver._forkserver_pid = None  # the one of this process starts no training of a fork
        return main(["reproduce", "dart", "--quick", "--only", "dart_600", "--out", str(tmp_path)])

    process = in_child(work)
    while not (tmp_path / "quick" / "dart_600_seed0.log").exists():
        time.sleep(0.05)
    assert len(in_group(process)) >= 2  # the command and its training
    os.kill(process, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 143
    deadline = time.monotonic() + 30
    while (running := in_group(process)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running


def in_group(number: int) -> list[int]:
    """Running processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group, _ = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended in the meantime
            continue
        if int(group) == number and state != "Z":
            found.append(int(path.parent.name))
    return found

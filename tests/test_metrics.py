import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.evaluate import Compared, _errors_by_file
from pyg_clusters.evaluation.result import Evaluation
from pyg_clusters.metrics import energy_metrics, metrics_by_size
from pyg_clusters.units import KCAL_PER_MOL


def test_errors_of_two_clusters_by_hand():
    # errors of 0.1 eV on 40 atoms (2.5 meV/atom) and -0.3 eV on 50 atoms (6 meV/atom)
    metrics = energy_metrics(np.array([-99.9, -130.3]), np.array([-100.0, -130.0]), np.array([40, 50]))
    assert metrics["mae_kcal_mol"] == pytest.approx(0.2 * 23.060548)
    assert metrics["rmse_kcal_mol"] == pytest.approx(math.sqrt(0.05) * 23.060548)
    assert metrics["mae_mev_per_atom"] == pytest.approx(4.25)
    assert metrics["rmse_mev_per_atom"] == pytest.approx(math.sqrt((2.5**2 + 6.0**2) / 2))
    assert metrics["num_clusters"] == 2
    assert math.isnan(metrics["spearman_within_size"])


def test_rank_correlation_is_weighted_by_clusters_and_skips_small_sizes():
    order = np.arange(5.0)
    swapped = np.array([1.0, 0.0, 2.0, 3.0, 4.0])  # 1 - 6 * 2 / (5 * 24) = 0.9
    ten = np.arange(10.0)
    predicted = np.concatenate([swapped, -ten, [1.0, 2.0]])
    target = np.concatenate([order, ten, [2.0, 1.0]])
    sizes = np.repeat([31, 32, 33], [5, 10, 2])
    metrics = energy_metrics(predicted, target, sizes)
    assert metrics["spearman_within_size"] == pytest.approx((5 * 0.9 - 10 * 1.0) / 15)


def test_rows_by_size_are_sorted_and_agree_with_the_whole():
    rng = np.random.default_rng(0)
    sizes = rng.permutation(np.repeat([40, 31, 55], [7, 3, 1]))
    target = -2.4 * sizes + rng.normal(size=11)
    predicted = target + rng.normal(size=11)
    rows = metrics_by_size(predicted, target, sizes)
    assert [(row["size"], row["num_clusters"]) for row in rows] == [(31, 3), (40, 7), (55, 1)]
    assert list(rows[0]) == ["size", "num_clusters", "mae_kcal_mol", "rmse_kcal_mol", "mae_mev_per_atom", "spearman"]
    whole = energy_metrics(predicted, target, sizes)
    weights = [row["num_clusters"] for row in rows]
    assert np.average([row["mae_kcal_mol"] for row in rows], weights=weights) == pytest.approx(whole["mae_kcal_mol"])
    squares = [row["rmse_kcal_mol"] ** 2 for row in rows]
    assert np.average(squares, weights=weights) == pytest.approx(whole["rmse_kcal_mol"] ** 2)
    assert whole["spearman_within_size"] == rows[1]["spearman"]
    assert math.isnan(rows[2]["spearman"])


def test_per_atom_and_per_cluster_errors_of_one_size_are_proportional():
    (row,) = metrics_by_size([1.0, 2.0, 4.0], [1.0, 1.0, 1.0], [50, 50, 50])
    assert row["mae_mev_per_atom"] * 50 / 1000 * KCAL_PER_MOL == pytest.approx(row["mae_kcal_mol"])


def test_constant_energies_have_no_rank_correlation_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = energy_metrics([1.0] * 6, [1, 2, 3, 4, 5, 6], [31] * 6)
    assert math.isnan(metrics["spearman_within_size"])


def test_perfect_predictions():
    metrics = energy_metrics([1.0, 2, 3, 4, 5], [1.0, 2, 3, 4, 5], [31] * 5)
    assert metrics["mae_kcal_mol"] == metrics["rmse_mev_per_atom"] == 0.0
    assert metrics["spearman_within_size"] == pytest.approx(1.0)


def test_nothing_to_compare():
    with pytest.raises(InputError, match="no clusters"):
        energy_metrics([], [], [])


@pytest.mark.parametrize("function", [energy_metrics, metrics_by_size])
def test_different_lengths(function):
    with pytest.raises(ValueError, match=r"\[\[2\], \[3\], \[2\]\]"):
        function([1.0, 2.0], [1.0, 2.0, 3.0], [31, 31])


class TwoFiles(list):
    """Data set of two files of the same name in different folders."""

    files = (Path("a/OUTCAR"), Path("b/OUTCAR"))
    file_of_cluster = torch.tensor([0, 0, 1])


def test_errors_of_files_of_one_name_are_kept_apart():
    run = SimpleNamespace(dataset=TwoFiles(range(3)))
    predicted, target = np.array([-1.0, -1.0, -1.0]), np.array([-1.0, -1.0, -1.1])
    compared = Compared(predicted, target, None, np.full(6, 31), None, np.array([0, 2, 4, 6]), np.arange(3), False)
    errors = _errors_by_file(run, torch.arange(3), compared)
    found = {each["file"]: each["mae_kcal_mol"] for each in errors}
    assert found == pytest.approx({"a/OUTCAR": 0.0, "b/OUTCAR": 2.306}, abs=1e-3)


def test_the_model_and_its_baseline_share_a_table(capsys, tmp_path):
    """Errors of files have a table of their own, whatever the names of the files."""
    model, baseline = energy_metrics([1.0, 2.0], [1.0, 2.0], [3, 4]), energy_metrics([2.0, 2.0], [1.0, 2.0], [3, 4])
    by_file = [{"file": "forces", **model}, {"file": "overall", **baseline}]
    further = {"baseline": baseline, "forces": {"mae_mev_per_angstrom": 5.0, "rmse_mev_per_angstrom": 7.0}}
    evaluation = Evaluation("test set", False, model, metrics_by_size([1.0], [1.0], [3]), further, [], by_file)
    evaluation.print(by_size=False)
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    rows = [[each.strip() for each in line] for line in lines]
    assert ["MAE (kcal/mol)", "0.00", "11.53"] in rows and ["clusters", "2", "2"] in rows
    assert [row[0] for row in rows[-3:]] == ["forces", "overall", "5.00"]
    evaluation.write(tmp_path / "errors.json")
    written = json.loads((tmp_path / "errors.json").read_text())
    assert written["forces"]["mae_mev_per_angstrom"] == 5.0 and written["overall"]["mae_kcal_mol"] == 0.0
    assert [(row["file"], round(row["mae_kcal_mol"], 2)) for row in written["by_file"]] == [
        ("forces", 0.0),
        ("overall", 11.53),
    ]

"""Comparison with the shieldings of Kaneko et al. 2023."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots
from pyg_clusters.analysis.plots import render
from pyg_clusters.cli import main
from pyg_clusters.datasets import ClusterDataset, SodiumShielding, UnrelaxedOnly
from pyg_clusters.errors import InputError
from pyg_clusters.frames import write_extxyz
from pyg_clusters.frames.writing import write_table
from pyg_clusters.nn import ShieldingScale
from pyg_clusters.nn.shielding_scale import GeneralizedLogistic
from pyg_clusters.papers import nmr, plots_nmr
from pyg_clusters.papers.nmr import Division, Extent, Row, lasso, schnet
from pyg_clusters.papers.nmr_findings import (
    LabelledCluster,
    Labels,
    clusters_of_figure_7,
    findings,
    labelled_cluster,
    relaxed_pairs,
)
from pyg_clusters.papers.nmr_report import lines_of, write_results
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.transforms.neighbors import SODIUM_RADII

FOLDS = tuple(Division(fold) for fold in range(3))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> SodiumShielding:
    return SodiumShielding(tmp_path_factory.mktemp("sodium"), pre_filter=UnrelaxedOnly())


def skewed(number: int, seed: int = 0) -> np.ndarray:
    """Shieldings as in the paper: a peak near 605 ppm and a tail to lower values."""
    return np.clip(615 - np.random.default_rng(seed).exponential(40, number), 400, 640)


def write_run(
    folder: Path, name: str, predicted: np.ndarray, target: np.ndarray, first: int = 0, size: int = 14, loss: float = 1
):
    """The files of a finished training or fit with the given predictions that the tables read."""
    run = folder / name
    (run / "splits").mkdir(parents=True)
    (run / "splits" / "train.txt").write_text("0\n1\n2\n")
    clusters = first + np.arange(len(target)) // size
    table = {"idx": clusters, "size": np.full(len(target), size), "nmr_shielding": target}
    write_table(run / "test_predictions.csv", {**table, "pred_nmr_shielding": predicted})
    (run / "metrics.csv").write_text(f"epoch,val_loss\n0,5.0\n1,{loss}\n2,2.0\n")
    (run / "finished.json").write_text(json.dumps({"seconds": 120.0}))


def results_of(folder: Path, predictions: dict, table: str = nmr.FOLDS_TABLE) -> list[nmr.Result]:
    """Results of methods whose prediction, in each of three folds, is a function of the target."""
    rows = []
    for method, predict in predictions.items():
        for fold, division in enumerate(FOLDS):
            target = skewed(140, fold)
            write_run(folder, nmr.folder_name(method, division, 0), predict(target), target, 10 * fold)
        rows.append(Row(table, method, FOLDS))
    return nmr.results(rows, folder, 1)


def off(error: float):
    """Predictions with alternating errors of equal magnitude."""
    return lambda target: target + error * (-1.0) ** np.arange(len(target))


def verdicts(found) -> dict[str, bool | None]:
    return {finding.statement.split("(")[0].strip(" ."): finding.holds for finding in found}


def test_rows_contain_the_values_of_the_paper():
    paper = {row.method.name: row.method.paper_rmse for row in nmr.rows(69) if row.method.paper_rmse}
    assert paper == {
        "lasso_coordination": 37.6,
        "lasso_populations": 35.1,
        "lasso_both": 34.9,
        "schnet_a0": 35.2,
    }
    tables = {row.table for row in nmr.rows(69)}
    assert tables == {"Five folds", "Split of the paper", "Trade-off", "Learning curve"}
    assert [row.method.a for row in nmr.rows(69) if row.table == "Trade-off"] == [0, 0.3, 1, 3, 10]


def test_learning_curve_has_only_available_numbers():
    def numbers(clusters):
        return [r.divisions[0].most for r in nmr.rows(clusters) if r.table == nmr.CURVE and r.method.variables is None]

    assert numbers(69) == [10, 20, None] and numbers(200) == [10, 20, 40, 80, None]


def test_each_training_run_occurs_once_with_all_its_options():
    rows = nmr.rows(69)
    made = nmr.trainings(rows, shipped_recipe("sodium_node_schnet.yaml"), 2, 30)
    assert len({training.name for training in made}) == len(made) == 2 * (8 * (5 + 1) + 3 * 5 + 2 * 5)
    training = next(t for t in made if t.name == "schnet_a3_transformed_fold2_seed1")
    options = dict(zip(training.options[::2], training.options[1::2], strict=True))
    assert options["--data.fold"] == "2" and options["--seed_everything"] == "1"
    assert options["--model.loss.init_args.a"] == "3.0" and options["--model.model.init_args.transform"] == "true"
    assert options["--trainer.max_epochs"] == "30" and "UnrelaxedOnly" in options["--data.dataset.init_args.pre_filter"]
    assert options["--data.dataset.init_args.subset"] == "stable"
    training = next(t for t in made if t.name == "shielding_dart_a3_sizes_seed0")
    options = dict(zip(training.options[::2], training.options[1::2], strict=True))
    assert training.recipe.name == "sodium_shielding_dart.yaml" and options["--model.loss.init_args.a"] == "3.0"
    assert options["--data.split"] == "paper" and options["--data.dataset.init_args.subset"] == "all_sizes"


def test_lasso_and_network_are_tested_on_the_same_clusters(dataset, tmp_path):
    """The Lasso and the training runs have the same test sets, so that errors can be paired."""
    rows = [Row(nmr.CURVE, lasso("populations"), (Division(1), Division(1, 10)))]
    nmr.fit_lassos(rows, {"stable": dataset}, tmp_path)
    whole, few = (
        nmr.TrainingData(dataset, **division.arguments()).split for division in (Division(1), Division(1, 10))
    )
    for name, split in (("lasso_populations_fold1", whole), ("lasso_populations_fold1_of10", few)):
        assert (tmp_path / name / "splits/train.txt").read_text().split() == [str(i) for i in split.train.tolist()]
    assert whole.test.equal(few.test) and few.train.numel() == 10
    (result,) = nmr.results([Row(nmr.CURVE, lasso("populations"), (Division(1),))], tmp_path, 3)
    assert result.clusters == whole.test.numel() and len(result.overall) == 1
    assert 20 < result.mean("rmse_ppm") < 60
    before = (tmp_path / "lasso_populations_fold1/test_predictions.csv").stat().st_mtime_ns
    nmr.fit_lassos(rows, {"stable": dataset}, tmp_path)
    assert (tmp_path / "lasso_populations_fold1/test_predictions.csv").stat().st_mtime_ns == before
    summary = tmp_path / "lasso_populations_fold1/finished.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "data": "of other clusters"}))
    nmr.fit_lassos(rows, {"stable": dataset}, tmp_path)
    assert (tmp_path / "lasso_populations_fold1/test_predictions.csv").stat().st_mtime_ns > before


def test_errors_are_over_all_folds_together(tmp_path):
    method = schnet()
    write_run(tmp_path, "schnet_a0_fold0_seed0", np.array([603.0, 600.0]), np.array([600.0, 600.0]), 0, 1)
    write_run(tmp_path, "schnet_a0_fold1_seed0", np.array([596.0, 600.0]), np.array([600.0, 600.0]), 2, 1)
    (result,) = nmr.results([Row("t", method, FOLDS[:2])], tmp_path, 1)
    assert result.mean("rmse_ppm") == pytest.approx((25 / 4) ** 0.5) and result.mean("mae_ppm") == pytest.approx(7 / 4)
    assert result.clusters == 4 and result.train_clusters == 3 and result.minutes == pytest.approx(2)
    with pytest.raises(InputError, match="schnet_a0_fold0_seed1: the training is not finished"):
        nmr.results([Row("t", method, FOLDS[:2])], tmp_path, 2)


def test_differences_are_taken_part_by_part(tmp_path):
    """Parts of very different difficulty, but with the same difference between the methods."""
    target = np.full(10, 600.0)
    for fold, error in enumerate((10.0, 50.0, 90.0)):
        write_run(tmp_path, f"lasso_both_fold{fold}", target + error, target)
        for seed in range(2):
            write_run(tmp_path, f"schnet_a0_fold{fold}_seed{seed}", target + error - 2 + seed, target)
    first, second = nmr.results([Row("t", schnet(), FOLDS), Row("t", lasso("both"), FOLDS)], tmp_path, 2)
    pair = nmr.paired(first, second)
    assert (pair.mean, pair.lower, pair.number) == (pytest.approx(-1.5), 6, 6)
    assert pair.deviation == pytest.approx(np.std([-2, -2, -2, -1, -1, -1], ddof=1))
    assert nmr.paired(second, first).mean == pytest.approx(1.5)


def test_seeds_are_joined(tmp_path):
    """Errors of opposite sign cancel in the mean over seeds; the best seed of each fold is chosen by validation."""
    target = np.full(10, 600.0)
    for fold, best in enumerate((0, 1, 1)):
        for seed, error in enumerate((20.0, -12.0)):
            loss = 1 if seed == best else 3
            write_run(tmp_path, f"schnet_a0_fold{fold}_seed{seed}", target + error, target, loss=loss)
    (result,) = nmr.results([Row(nmr.FOLDS_TABLE, schnet(), FOLDS)], tmp_path, 2)
    rmse = {how: metrics["rmse_ppm"] for how, metrics in result.overall_of_seeds.items()}
    assert rmse == {
        nmr.BEST_OF_SEEDS: pytest.approx(np.sqrt((400 + 144 + 144) / 3)),
        nmr.MEAN_OF_SEEDS: pytest.approx(4),
    }
    best = [metrics["rmse_ppm"] for metrics in result.of_seeds[nmr.BEST_OF_SEEDS].values()]
    assert best == [pytest.approx(20), pytest.approx(12), pytest.approx(12)]
    lines = {line[1]: line[3] for line in lines_of([result])}
    assert lines["NodeSchNet, MSE, mean over seeds"] == "4.0" and "NodeSchNet, MSE" in lines


def test_findings_on_models_are_confirmed(tmp_path):
    """Invented values that agree with all findings of the paper."""
    mean = skewed(140).mean()
    found = results_of(
        tmp_path,
        {
            lasso("coordination"): lambda y: off(38)(y) - 30,
            lasso("coordination", True): lambda y: off(60)(y) * 0 + np.roll(y, 7),
            lasso("populations"): off(33),
            lasso("both"): off(31),
            schnet(): lambda y: mean + 0.3 * (y - mean),
            schnet(0.0, True): lambda y: mean + 0.3 * (y - mean) + 0.1,
            schnet(3.0): lambda y: np.roll(y, 1),
            schnet(3.0, True): lambda y: np.roll(y, 1) + 0.1,
        },
    )
    said = verdicts(findings(found))
    assert len(said) == 11 and all(said.values()), said


def test_findings_on_models_are_denied(tmp_path):
    """The same methods with the opposite findings."""
    found = results_of(
        tmp_path,
        {
            lasso("coordination"): off(20),
            lasso("coordination", True): lambda y: off(20)(y) - 30,
            lasso("populations"): off(33),
            lasso("both"): off(40),
            schnet(): lambda y: y + 25,
            schnet(0.0, True): off(45),
            schnet(3.0): lambda y: y - 24,
            schnet(3.0, True): off(45),
        },
    )
    said = verdicts(findings(found))
    considerably = "It worsens the RMSE of Lasso on coordination numbers considerably"
    assert len(said) == 11 and said.pop(considerably) is True and not any(said.values()), said
    denied = next(f for f in findings(found) if f.statement.startswith("NodeSchNet with MSE is better"))
    assert denied.verdict == "does not hold" and "RMSE 25.0 against 20.0 ppm, 25.0% higher" in denied.figures
    assert "lower in 0 of 3 parts" in denied.figures


def test_a_finding_states_where_the_largest_sizes_disagree(tmp_path):
    folds = results_of(tmp_path / "a", {schnet(): off(20), lasso("coordination"): off(30)})
    sizes = results_of(tmp_path / "b", {schnet(): off(30), lasso("coordination"): off(20)}, nmr.SIZES_TABLE)
    finding = next(f for f in findings([*folds, *sizes]) if f.statement.startswith("NodeSchNet with MSE is better"))
    assert finding.holds and finding.figures.endswith("(there it does not hold)")
    alone = next(f for f in findings(sizes) if f.statement.startswith("NodeSchNet with MSE is better"))
    assert alone.holds is False


def made_up_labels(sign: float) -> Labels:
    y = skewed(400) if sign > 0 else 1200 - skewed(400)
    noise = np.random.default_rng(1).normal(size=(19, 400))
    names = [*("3S", "3PX", "3PY", "3PZ", "4S", "4PX", "4PY", "4PZ")]
    values = dict(zip(names, noise, strict=False))
    values["3S"] = sign * y
    values |= {name: -sign * y for name in ("3PX", "3PY", "3PZ")}
    if sign < 0:
        values["4S"] = y
    return Labels(y, np.full(400, 20), np.where(y < 500, 6.0 if sign > 0 else 2.0, 11.0), values, 20)


def test_findings_on_labels_are_confirmed_or_denied():
    confirmed = verdicts(findings([], made_up_labels(1.0)))
    relaxing = next(name for name in confirmed if name.startswith("Low shieldings come from"))
    assert confirmed.pop(relaxing) is None and len(confirmed) == 5 and all(confirmed.values()), confirmed
    denied = findings([], made_up_labels(-1.0))
    assert not any(finding.holds for finding in denied)


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory) -> ClusterDataset:
    """Two random clusters, one of them also labelled after relaxation, which raises its lowest shielding by 180 ppm."""
    folder = tmp_path_factory.mktemp("relaxed")
    frames = []
    for seed, is_relaxed, lowest in ((1, 0, 400.0), (2, 0, 560.0), (1, 1, 580.0)):
        atoms = Atoms("Na14", np.random.default_rng(seed).normal(0, 4, (14, 3)), info={"seed": seed})
        atoms.info |= {"relaxed": is_relaxed, "energy": -is_relaxed}
        atoms.arrays["sigma"] = np.linspace(lowest, 620.0, 14)
        frames.append(atoms)
    write_extxyz(folder / "frames.extxyz", frames)
    files = folder / "frames.extxyz"
    return ClusterDataset(
        folder,
        files,
        target="sigma",
        per_atom=True,
        group="seed",
        keep=["relaxed", "energy"],
        fragments="keep",
    )


def test_relaxed_clusters_confirm_where_there_are_some(relaxed, dataset):
    ((grown, after),) = pairs = relaxed_pairs(relaxed)
    assert grown.shielding.min() == 400 and after.shielding.min() == 580 and after.name == "Na14, relaxed"
    finding = next(f for f in findings([], made_up_labels(1.0), pairs) if f.statement.startswith("Low shieldings come"))
    assert finding.holds and "from 400 to 580 ppm, up in 1 of them, by 180 ppm" in finding.figures
    reverse = [(after, grown), (grown, labelled_cluster(relaxed, 0, "as it was"))]
    finding = next(f for f in findings([], made_up_labels(1.0), reverse) if f.statement.startswith("Low shieldings"))
    assert finding.holds is False
    lowest, *pair = clusters_of_figure_7(relaxed, pairs, relaxed)
    assert pair == [grown, after]
    assert lowest.shielding.min() == 580 and lowest.name == "Na14, the lowest energy"
    worst, best = clusters_of_figure_7(dataset, [], dataset)
    assert worst.shielding.min() == dataset._data.y.min() and best.shielding.min() > worst.shielding.min() + 50
    assert len(worst.atoms) == len(best.atoms)


def test_relaxed_clusters_are_not_trained_on(relaxed):
    assert [bool(UnrelaxedOnly()(cluster)) for cluster in relaxed] == [True, True, False]


def test_labels_are_those_of_the_data_set(dataset):
    labels = Labels.of(dataset)
    assert labels.clusters == len(dataset) and labels.shielding.shape == labels.coordination.shape
    assert list(labels.populations)[:2] == ["1S", "2S"]
    assert sum(labels.populations.values()).sum() == pytest.approx(11 * labels.shielding.size, rel=1e-4)
    distance = (dataset[0].pos[:, None] - dataset[0].pos).norm(dim=-1)
    by_hand = (distance < 4.0).sum(dim=1) - 1
    np.testing.assert_allclose(labels.coordination[: by_hand.numel()], by_hand, atol=0.6)


def test_tables_and_figures_of_finished_runs(tmp_path, capsys, dataset, monkeypatch):
    """All files are written with the number of clusters, and a quick run is marked."""
    monkeypatch.setattr(plots, "render", drawn_roughly)
    folder = tmp_path / "quick"
    predictions = {method: off(20.0 + number) for number, method in enumerate(nmr.METHODS)}
    predictions |= {schnet(0.3): off(25), schnet(1.0): off(26), schnet(10.0): off(27)}
    found = results_of(folder, predictions)
    found += [nmr.Result(Row(nmr.TRADE_OFF, r.row.method, FOLDS), *_rest(r)) for r in found if not _is_lasso(r)]
    found += [nmr.Result(Row(nmr.CURVE, found[0].row.method, FOLDS), *_rest(found[0])) for _ in range(2)]
    write_results(found, dataset, Extent(epochs=7), tmp_path, quick=True).print()
    text = (tmp_path / "quick_results.md").read_text()
    assert "QUICK RUN" in text and f"on {len(dataset)} random clusters" in text and "2,000" in text
    assert "| Five folds | Lasso, coordination | 37.6 | 20.0 | 20.0 |" in text and "at most 7 epochs" in text
    assert "NodeSchNet, MSE − Lasso, coordination | +6.0 ± 0.0 | 0 of 3 |" in text
    lines = list(csv.DictReader((tmp_path / "quick_results.csv").read_text().splitlines()))
    assert all("QUICK" in line["note"] for line in lines) and lines[0]["row"] == "DFT"
    parts = list(csv.DictReader((tmp_path / "quick_parts.csv").read_text().splitlines()))
    assert len(parts) == 3 * len(predictions) and float(parts[0]["rmse_ppm"]) == pytest.approx(20, abs=1e-3)
    figures = {path.stem for path in tmp_path.glob("*.png")}
    assert {f"quick_figure_{number}" for number in range(1, 8)} == {"_".join(f.split("_")[:3]) for f in figures} - {
        "quick_trade_off",
        "quick_learning_curve",
    }
    assert {"quick_trade_off", "quick_learning_curve"} <= figures
    assert "QUICK RUN" in capsys.readouterr().out


def drawn_roughly(figure: Figure, file_format: str = "png") -> bytes:
    """Draw a figure at low resolution and without its layout, which takes most of the time."""
    figure.set_layout_engine("none")
    figure.savefig(buffer := io.BytesIO(), format=file_format, dpi=30)
    return buffer.getvalue()


def _rest(result: nmr.Result) -> tuple:
    return tuple(getattr(result, name) for name in nmr.Result.__dataclass_fields__ if name != "row")


def _is_lasso(result: nmr.Result) -> bool:
    return result.row.method.variables is not None


def test_figures_of_few_atoms_are_made():
    """One size, one model, no atom below 500 ppm."""
    y = skewed(28).clip(510)
    fit = GeneralizedLogistic.fit(y)
    atoms = Atoms("Na14", np.random.default_rng(0).normal(0, 4, (14, 3)))
    running = np.linspace(0, 13, 14 * len(SODIUM_RADII)).reshape(14, -1)
    made = [
        plots_nmr.distribution_by_size(y, np.full(28, 14), fit),
        plots_nmr.predicted_distributions(["one"], [y + 5], y),
        plots_nmr.quantiles(["one"], [y + 5], y, fit),
        plots_nmr.shielding_by_coordination(np.arange(28) % 12, y),
        plots_nmr.running_coordination_numbers([LabelledCluster("one", atoms, y[:14], running)]),
    ]
    assert all(len(render(figure)) > 10_000 for figure in made)


def test_shieldings_that_cannot_be_learned():
    """One line for a missing value, no atom, one atom, and equal values."""
    z, ptr = torch.full((12,), 11), torch.tensor([0, 12])
    scale = ShieldingScale(transform=True)
    for values, message in (
        (torch.tensor([600.0, float("nan")] * 6), "must be finite numbers: one is nan"),
        (torch.zeros(0), "there is none"),
        (torch.tensor([600.0]), "at least 10 values are needed to fit a distribution, got 1"),
        (torch.full((12,), 600.0), "all 12 values are 600"),
    ):
        with pytest.raises(InputError, match=message):
            scale.fit(z, ptr, values)


def test_wrong_arguments(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    assert main(["reproduce", "nmr", "--only", "nosuch", *out]) == 2
    assert "--only 'nosuch' is not in any table; choose from Split of the paper" in capsys.readouterr().err
    assert main(["reproduce", "nmr", "--epochs", "0", *out]) == 2
    assert main(["reproduce", "nosuch", *out]) == 2
    assert "no paper 'nosuch'; choose one of dart, nmr, layers" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run_from_end_to_end(tmp_path):
    arguments = ["reproduce", "nmr", "--quick", "--only", "Learning curve", "schnet_a3", "--out", str(tmp_path)]
    assert main([*arguments, "--epochs", "3"]) == 0
    assert "QUICK RUN" in (tmp_path / "quick_results.md").read_text()
    finished = {path.parent.name for path in tmp_path.glob("quick/*/finished.json")}
    assert {"schnet_a0_fold0_of20_seed0", "schnet_a3_sizes_seed0", "lasso_coordination_fold1"} <= finished
    assert (tmp_path / "quick_learning_curve.png").exists() and (tmp_path / "quick_figure_5_node_schnet.png").exists()
    before = (tmp_path / "quick_results.csv").read_text()
    assert main([*arguments, "--epochs", "3"]) == 0
    assert (tmp_path / "quick_results.csv").read_text() == before

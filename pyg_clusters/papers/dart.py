"""Tables of Modee et al. 2021 (doi 10.1039/d1cp02956h), reproduced on the shipped gallium clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from pyg_clusters.datasets import GNC, ClusterDataset, GalliumClusters
from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.files import read_json
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.run import FINISHED, METRICS
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.options.training import ReproduceDartOptions
from pyg_clusters.papers.tables import (
    QUICK_MARK,
    QUICK_TITLE,
    Finding,
    Reproduction,
    Table,
    bars_beside_paper,
    chosen_rows,
    mean_and_spread,
    num_train_clusters,
    power_law,
    seconds_of_finished,
    write_report,
)
from pyg_clusters.shipped import recipe_file, shipped_recipe
from pyg_clusters.training.launcher import Training, run_trainings

RANDOM = ("--data.split", "random", "--data.left_out_sizes", "[70]")
"""Split of the paper: random over 31 to 69 atoms, without Ga70 (section 2.1)."""

GROUP = ("--data.split", "group", "--data.left_out_sizes", "[]")  # split that keeps related minima in the same part
CASES: tuple[tuple[int, int, int], ...] = ((46, 57, 60), (46, 57, 66), (57, 60, 66))  # held-out sizes of Table 3

FEWER: tuple[int, ...] = (600, 1200, 2400)
"""Numbers of training clusters in the learning curve, in addition to the full training set."""

QUICK: tuple[str, ...] = (
    *("--trainer.max_epochs", "8", "--model.scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR"),
    *("--model.scheduler.init_args.T_max", "8", "--model.average_decay", "null"),
)
"""Options of a quick training run."""

COLUMNS = (
    *("table", "row", "paper MAE", "paper RMSE", "paper clusters"),
    *("MAE", "RMSE", "clusters", "training clusters", "seeds", "minutes"),
)

MAE_LABEL = "mean absolute error / kcal mol⁻¹ per cluster"


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    table: str  #: Table or section of the paper.
    label: str  #: Model or test.
    training: str  #: Name of the training run.
    sizes: tuple[int, ...] = ()  #: Cluster sizes of the test set to use; all if empty.
    apart: bool = False  #: Whether these sizes are excluded from the training data.
    paper: tuple[float, float] | None = None  #: MAE and RMSE of the paper in kcal/mol per cluster, if given.
    paper_clusters: int | None = None  #: Number of clusters in the test set of the paper.


@dataclass(frozen=True)
class Result:
    """Errors of a row in kcal/mol per cluster, one per seed, and mean training time."""

    row: Row
    mae: tuple[float, ...]
    rmse: tuple[float, ...]
    clusters: int
    train_clusters: int
    minutes: float


def reproduce_dart(options: ReproduceDartOptions) -> Reproduction:
    """Perform the missing training runs, and compare our results with those of Modee et al. 2021.

    Raises:
        InputError: If a row is unknown or a training run fails.
    """
    gnc = None if options.gnc is None else Path(options.gnc)
    hdnn = find_spec("torchani") is not None
    selected = chosen_rows(options.only, rows(hdnn, gnc is not None), _names)
    if not hdnn:
        print("BPSF-HDNN is left out: it needs torchani (pip install 'pyg-clusters[hdnn]')")
    recipe = recipe_file(options.recipe)
    names = [row.training for row in selected]
    quick = QUICK if options.quick else ()
    planned = trainings(names, recipe, shipped_recipe("hdnn_gallium.yaml"), options.seeds, quick, gnc)
    out = Path(options.out)
    with open_output(options, results=()):
        runs = out / ("quick" if options.quick else "full")
        run_trainings(planned, runs, options.workers)
        achieved = results(selected, runs, options.seeds, gnc)
        data = "GAP energies of the shipped gallium minima" if gnc is None else f"the paper's own data in {gnc}"
        text = f"Errors in kcal/mol per cluster: the paper's on DFT energies of GNC_31-70, ours on {data}. "
        lines = [_line(result) for result in achieved]
        return write_report(
            out,
            "Modee et al. 2021, compared with the paper",
            [text + "Minutes are for one training run on one thread."],
            [Table("Modee et al. 2021: errors in kcal/mol per cluster", COLUMNS, lines)],
            _figures(achieved, QUICK_TITLE if options.quick else ""),
            findings=findings(achieved),
            mark=QUICK_MARK if options.quick else "",
        )


def rows(hdnn: bool = True, gnc: bool = False) -> list[Row]:
    """Rows of all tables, with or without those of the BPSF-HDNN baseline.

    With the data of the paper (``gnc``), there are no rows of splits by group and of the learning curve.
    """
    table_2 = [
        Row("Table 2", label, training, paper=paper, paper_clusters=656)
        for label, training, paper in (
            ("BPSF-HDNN", "hdnn", (2.4, 3.03)),
            ("DART", "dart", (3.59, 4.55)),
            ("DART without K", "dart_without_k", (4.06, 5.16)),
            ("DART without L", "dart_without_l", (3.93, 5.05)),
            ("DART without K and L", "dart_without_k_l", (4.29, 5.45)),
            ("DART without interaction", "dart_without_interaction", (12.33, 16.40)),
        )
    ]
    transfer = [Row("Section 3.2", "DART, Ga70", "dart", (70,), True, (4.71, 5.96), 285)]
    by_group = [Row("By group", label, f"{name}_by_group") for label, name in (("BPSF-HDNN", "hdnn"), ("DART", "dart"))]
    papers = ((4.77, 6.16, 427), (4.76, 6.02, 436), (4.34, 5.58, 570))
    table_3 = []
    for case, (mae, rmse, clusters) in zip(CASES, papers, strict=True):
        name = "dart_without_" + "_".join(map(str, case))
        label = "DART, " + ", ".join(map(str, case))
        table_3.append(Row("Table 3", label, name, case, paper=(mae, rmse), paper_clusters=clusters))
        table_3 += [Row("Table 3", f"  Ga{size}", name, (size,)) for size in case]
    curve = [Row("Learning curve", f"DART, {number}", f"dart_{number}") for number in FEWER]
    all_rows = [*table_2, *transfer, *table_3] if gnc else [*table_2, *transfer, *by_group, *table_3, *curve]
    return [row for row in all_rows if hdnn or not row.training.startswith("hdnn")]


def _names(row: Row) -> tuple[str, ...]:
    curve = ("Learning curve",) if row.training == "dart_by_group" else ()  # also its last point
    return (row.table, row.training, *curve)


def options_of(name: str) -> tuple[str, ...]:
    """Options of a training run in :func:`rows` that modify its recipe."""
    shells = "--model.model.init_args.active_shells"
    special = {
        "hdnn": RANDOM,
        "hdnn_by_group": GROUP,
        "dart": RANDOM,
        "dart_by_group": GROUP,
        "dart_without_k": (*RANDOM, shells, "[0, 2]"),
        "dart_without_l": (*RANDOM, shells, "[0, 1]"),
        "dart_without_k_l": (*RANDOM, shells, "[0]"),
        # The focal features, summed over the cluster, with a linear readout.
        "dart_without_interaction": (*RANDOM, "--model.model.init_args.interaction_channels", "[]"),
    }
    for case in CASES:
        held_out = ("--data.split", "size", "--data.held_out_sizes", str(list(case)))
        special["dart_without_" + "_".join(map(str, case))] = held_out
    for number in FEWER:
        special[f"dart_{number}"] = (*GROUP, "--data.max_train_clusters", str(number))
    return special[name]


def trainings(
    names: Sequence[str],
    recipe: Path,
    hdnn_recipe: Path,
    seeds: int = 1,
    options: Sequence[str] = (),
    gnc: Path | None = None,
) -> list[Training]:
    """Training runs of rows, one per name and seed; the seed changes initialisation and order, not the split."""
    planned = []
    for seed in range(seeds):
        seeded = ("--seed_everything", str(seed), "--data.shuffle_seed", str(seed), "--trainer.max_time", "null")
        for name in dict.fromkeys(names):
            all_options = (*options_of(name), *_data_options(name, gnc), *seeded, *options)
            of_name = hdnn_recipe if name.startswith("hdnn") else recipe
            planned.append(Training(folder_name(name, seed), of_name, all_options))
    return planned


def _data_options(name: str, gnc: Path | None) -> tuple[str, ...]:
    if gnc is None:
        return ()
    dataset = "--data.dataset"
    data: tuple[str, ...] = (dataset, "pyg_clusters.datasets.GNC", f"{dataset}.init_args.root", str(gnc.absolute()))
    if name.startswith("hdnn"):
        data += (f"{dataset}.init_args.pre_transform", "pyg_clusters.transforms.SymmetryFunctions")
    return data if options_of(name)[:2] == ("--data.split", "size") else (*data, "--data.split", "paper")


def folder_name(name: str, seed: int) -> str:
    """Folder of a training run."""
    return f"{name}_seed{seed}"


def results(selected: Sequence[Row], folder: Path, seeds: int, gnc: Path | None = None) -> list[Result]:
    """Collect the errors of rows, over at least the given number of seeds; additional finished seeds are also used.

    Raises:
        InputError: If a training run is not finished.
    """
    apart: ClusterDataset | None = None
    if any(row.apart for row in selected):
        apart = GalliumClusters() if gnc is None else GNC(gnc)
    achieved = []
    for row in selected:
        runs = [folder / folder_name(row.training, seed) for seed in range(seeds)]
        further = (folder / folder_name(row.training, seed) for seed in count(seeds))
        runs += takewhile(lambda run: (run / FINISHED).is_file(), further)
        minutes = [seconds_of_finished(run) / 60 for run in runs]
        metrics = [_errors(run, row.sizes, apart if row.apart else None) for run in runs]
        mae, rmse = (tuple(errors[key] for errors in metrics) for key in ("mae_kcal_mol", "rmse_kcal_mol"))
        clusters, train_clusters = int(metrics[-1]["num_clusters"]), num_train_clusters(runs[-1])
        achieved.append(Result(row, mae, rmse, clusters, train_clusters, float(np.mean(minutes))))
    return achieved


def _errors(run: Path, sizes: Sequence[int], apart: ClusterDataset | None) -> dict:
    """Compute the errors of a run on the given sizes of its test set, or of another data set."""
    if apart is not None:
        clusters = torch.isin(apart.sizes, torch.tensor(sizes)).nonzero().flatten().tolist()
        batch = ClusterBatches(apart).stored(clusters)
        predicted = Predictor(load_model(run))(batch.z, batch.pos, batch.ptr).energy
        return energy_metrics(predicted.numpy(), batch.y.numpy(), batch.ptr.diff().numpy())
    metrics = read_json(run / METRICS, "evaluate the run again")
    if not sizes:
        return metrics["overall"]
    by_size = {row["size"]: row for row in metrics["by_size"]}
    keys = ("num_clusters", "mae_kcal_mol", "rmse_kcal_mol")
    numbers, mae, rmse = (np.array([by_size[size][key] for size in sizes]) for key in keys)
    return {
        "mae_kcal_mol": float(np.average(mae, weights=numbers)),
        "rmse_kcal_mol": float(np.sqrt(np.average(rmse**2, weights=numbers))),
        "num_clusters": int(numbers.sum()),
    }


def _line(result: Result) -> list[str]:
    """Cells of :data:`COLUMNS`."""
    row = result.row
    return [
        row.table,
        row.label,
        *([f"{value:.2f}" for value in row.paper] if row.paper else ["", ""]),
        str(row.paper_clusters or ""),
        mean_and_spread(result.mae),
        mean_and_spread(result.rmse),
        str(result.clusters),
        str(result.train_clusters),
        str(len(result.mae)),
        f"{result.minutes:.0f}",
    ]


def findings(achieved: Sequence[Result]) -> list[Finding]:
    """Confirm or reject the findings of the paper for which the required rows are given."""
    mae = {(result.row.table, result.row.label): float(np.mean(result.mae)) for result in achieved}
    rmse = {(result.row.table, result.row.label): float(np.mean(result.rmse)) for result in achieved}
    full, hdnn, no_k, no_l, no_interaction = (
        mae.get(("Table 2", label))
        for label in ("DART", "BPSF-HDNN", "DART without K", "DART without L", "DART without interaction")
    )
    decided = []
    if full and no_k and no_l:
        figures = f"MAE {full:.2f} with all shells, {no_k:.2f} without K, {no_l:.2f} without L"
        decided.append(Finding("The K shell matters more than the L shell.", no_k > no_l, figures))
    if full and no_interaction:
        ratio = no_interaction / full
        figures = f"{ratio:.1f} times (paper: {12.33 / 3.59:.1f})"
        decided.append(Finding("Without the interaction network the error triples.", ratio > 2.5, figures))
    if full and hdnn is not None:
        figures = f"MAE {hdnn:.2f} against {full:.2f}"
        decided.append(Finding("BPSF-HDNN is more accurate than DART.", hdnn < full, figures))
    if all(("Table 3", "DART, " + ", ".join(map(str, case))) in mae for case in CASES):
        by_size: dict[int, list[float]] = {}
        for result in achieved:
            if result.row.table == "Table 3" and len(result.row.sizes) == 1:
                by_size.setdefault(result.row.sizes[0], []).append(float(np.mean(result.rmse)))
        worst = max(by_size, key=lambda size: float(np.mean(by_size[size])))
        means = ", ".join(f"Ga{size} {np.mean(values):.2f}" for size, values in sorted(by_size.items()))
        text = "Ga46, a magic cluster, is predicted worse than 57, 60 and 66."
        decided.append(Finding(text, worst == 46, f"RMSE {means}"))
        spread = max(max(values) - min(values) for size, values in by_size.items() if size != 46)
        text = "The RMSE of 57, 60 and 66 does not depend on the other held-out sizes."
        decided.append(Finding(text, spread < 0.5, f"largest difference {spread:.2f} kcal/mol"))
    grouped = mae.get(("By group", "DART"))
    if grouped and full:
        text = "A random split underestimates the error: related minima are in both parts."
        both = rmse["Table 2", "DART"], rmse["By group", "DART"]
        figures = f"MAE {full:.2f} at random, {grouped:.2f} by group (RMSE {both[0]:.2f}, {both[1]:.2f})"
        decided.append(Finding(text, grouped > full, figures))
    return decided


def _figures(achieved: Sequence[Result], title: str) -> dict[str, Figure]:
    figures = {}
    compared = [result for result in achieved if result.row.paper]
    if compared:
        figures["beside_the_paper"] = bars_beside_paper(
            [result.row.label for result in compared],
            np.array([result.row.paper[0] for result in compared if result.row.paper]),
            [result.mae for result in compared],
            MAE_LABEL,
            title,
        )
    curve = [result for result in achieved if "Learning curve" in _names(result.row)]
    curve.sort(key=lambda result: result.train_clusters)
    if len(curve) > 1:
        clusters = np.array([result.train_clusters for result in curve])
        figures["learning_curve"] = power_law(clusters, [result.mae for result in curve], MAE_LABEL, title)
    return figures

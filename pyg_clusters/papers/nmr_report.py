"""The tables and figures of Kaneko et al. 2023, compared with the paper."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis.plots import SMALL
from pyg_clusters.datasets import SodiumShielding, UnrelaxedOnly
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference.run import Run
from pyg_clusters.nn.shielding_scale import GeneralizedLogistic
from pyg_clusters.options.training import ReproduceNmrOptions
from pyg_clusters.papers import nmr, plots_nmr
from pyg_clusters.papers.nmr_findings import Labels, clusters_of_figure_7, findings, relaxed_pairs
from pyg_clusters.papers.tables import (
    QUICK_MARK,
    QUICK_TITLE,
    Reproduction,
    Table,
    chosen_rows,
    deviation,
    mean_and_spread,
    write_csv,
    write_report,
)
from pyg_clusters.shipped import recipe_file
from pyg_clusters.terminal import span
from pyg_clusters.training.launcher import run_trainings

COLUMNS = (
    *("table", "row", "paper", "RMSE", "MAE", "Wasserstein", "K-S", "peak", "skewness"),
    *("train", "test", "seeds", "minutes"),
)

METRICS = ("rmse_ppm", "mae_ppm", "wasserstein_ppm", "kolmogorov_smirnov", "peak_ppm", "skewness")
DIGITS = (1, 1, 1, 2, 0, 2)

PART_COLUMNS = ("method", "division", "seed", *METRICS, "target_peak_ppm", "target_skewness", "num_atoms")

PAIR_COLUMNS = ("table", "first minus second", "RMSE", "first lower", "Wasserstein", "first lower", "pairs")


def reproduce_nmr(options: ReproduceNmrOptions) -> Reproduction:
    """Perform the missing fits and training runs, and write our results next to those of Kaneko et al. 2023.

    Raises:
        InputError: If a row is unknown or a training run fails.
    """
    datasets = {name: SodiumShielding(subset=name, pre_filter=UnrelaxedOnly()) for name in ("stable", "all_sizes")}
    dataset = datasets["stable"]
    extent = nmr.QUICK if options.quick else nmr.Extent()
    if options.epochs is not None:
        extent = replace(extent, epochs=options.epochs)
    rows = chosen_rows(options.only, nmr.rows(len(dataset), extent), lambda row: (row.table, row.method.name))
    recipe = recipe_file(options.recipe)
    trainings = nmr.trainings(rows, recipe, options.seeds, extent.epochs)
    trained_on = {
        nmr.folder_name(row.method, division, seed): datasets[division.subset]
        for row in rows
        for division in row.divisions
        for seed in range(options.seeds)
        if row.method.variables is None
    }
    out = Path(options.out)
    with open_output(options, results=()):
        runs = out / ("quick" if options.quick else "full")
        for name, data in trained_on.items():
            Run(runs / name).check_fingerprint(data)
        nmr.fit_lassos(rows, datasets, runs)
        run_trainings(trainings, runs, options.workers)
        return write_results(nmr.results(rows, runs, options.seeds), dataset, extent, out, options.quick)


def write_results(
    results: Sequence[nmr.Result], dataset: SodiumShielding, extent: nmr.Extent, folder: Path, quick: bool
) -> Reproduction:
    """Write tables, findings and figures of finished training runs."""
    every = SodiumShielding()
    labels, pairs = Labels.of(dataset), relaxed_pairs(every)
    tables = [Table("Kaneko et al. 2023: errors in ppm per atom", COLUMNS, lines_of(results))]
    if pair_lines := _pair_lines(results):
        title = "Differences in ppm on the same test sets, mean and standard deviation over folds and seeds"
        tables.append(Table(title, PAIR_COLUMNS, pair_lines))
    mark = QUICK_MARK if quick else ""
    name = "quick_parts.csv" if quick else "parts.csv"
    write_csv(folder / name, [*PART_COLUMNS, "note"], [[*line, mark] for line in _part_lines(results)])
    figures = {**_figures_of_labels(labels, dataset, pairs, every), **_figures_of_models(results)}
    for figure in figures.values() if quick else ():
        figure.suptitle(QUICK_TITLE, fontsize=min(10, 1.8 * figure.get_figwidth()))
    text = [
        "Errors in ppm per atom, over all test sets together, at the lowest validation loss of at most "
        f"{extent.epochs} epochs. Wasserstein distance (ppm) and Kolmogorov-Smirnov statistic (K-S) are between "
        "predicted and DFT distributions; peaks in ppm. Split of the paper: trained on 14 to 26 atoms, validated on 28 "
        "and 30, tested on 40. Five folds: by cluster. Populations come from the DFT calculation that the model is "
        "meant to replace. Paper: its RMSE. Train, test: numbers of clusters. Minutes are for one training run on one "
        "thread."
    ]
    title = "Kaneko et al. 2023, compared with the paper"
    notes = (
        f"The results are based on {labels.clusters} random clusters of {span(labels.sizes)} atoms "
        f"({labels.shielding.size:,} atoms). The paper has 2,000 clusters of 14 to 40 atoms, trains on those of 14 to "
        "26, and tests on 200 of 40: its values are for orientation only."
    )
    judged = findings(results, labels, pairs)
    return write_report(folder, title, text, tables, figures, findings=judged, mark=mark, notes=notes)


def lines_of(results: Sequence[nmr.Result]) -> list[list[str]]:
    """Cells of :data:`COLUMNS`."""
    lines = []
    tables: set[str] = set()
    for result in results:
        table = result.row.table
        if table not in tables and table in (nmr.FOLDS_TABLE, nmr.SIZES_TABLE):
            peak, skewness = result.mean("target_peak_ppm"), result.mean("target_skewness")
            lines.append([table, "DFT", "", "", "", "", "", f"{peak:.0f}", f"{skewness:.2f}", "", "", "", ""])
        tables.add(table)
        paper = result.row.method.paper_rmse if table in (nmr.FOLDS_TABLE, nmr.SIZES_TABLE) else None
        combinations = {"": result.overall}
        if table in (nmr.FOLDS_TABLE, nmr.SIZES_TABLE):
            combinations |= {f", {name}": (metrics,) for name, metrics in result.overall_of_seeds.items()}
        for name, of_each in combinations.items():
            lines.append(
                [
                    table,
                    result.row.label + name,
                    f"{paper:.1f}" if paper else "",
                    *(
                        mean_and_spread([float(metrics[key]) for metrics in of_each], digits)
                        for key, digits in zip(METRICS, DIGITS, strict=True)
                    ),
                    f"{result.train_clusters:.0f}",
                    str(result.clusters),
                    str(len(result.overall)),
                    f"{result.minutes:.1f}",
                ]
            )
    return lines


def _part_lines(results: Sequence[nmr.Result]) -> list[list[object]]:
    """Errors of each training run or fit on its own test set."""
    lines = {}
    for result in results:
        for (seed, division), metrics in result.parts.items():
            row = [result.row.method.name, division.name, seed]
            lines[tuple(row)] = [*row, *(metrics[key] for key in PART_COLUMNS[3:])]
    return list(lines.values())


def _pair_lines(results: Sequence[nmr.Result]) -> list[list[str]]:
    """Differences between methods: cells of :data:`PAIR_COLUMNS`."""
    by_name = {r.row.method.name: r for r in results if r.row.table == nmr.FOLDS_TABLE}
    mse, penalty, coordination = nmr.schnet(), nmr.schnet(3.0), nmr.lasso("coordination")
    pairs = [
        (mse, coordination),
        (mse, nmr.lasso("populations")),
        (nmr.shielding_dart(), coordination),
        (nmr.shielding_dart(), mse),
        (nmr.shielding_dart(3.0), nmr.shielding_dart()),
        (nmr.shielding_dart(3.0), penalty),
        (penalty, mse),
        (nmr.schnet(0.0, True), mse),
        (nmr.schnet(3.0, True), penalty),
        (nmr.lasso("coordination", True), coordination),
        (nmr.lasso("populations", True), nmr.lasso("populations")),
        (nmr.lasso("populations"), coordination),
    ]
    lines = []
    for first, second in pairs:
        if first.name not in by_name or second.name not in by_name:
            continue
        line = [nmr.FOLDS_TABLE, f"{first.label} − {second.label}"]
        lines.append(line + _pair(by_name[first.name], by_name[second.name]))
        for name, parts in by_name[first.name].of_seeds.items() if second.variables else ():
            joined = replace(by_name[first.name], parts=parts)
            line = [nmr.FOLDS_TABLE, f"{first.label}, {name} − {second.label}"]
            lines.append(line + _pair(joined, by_name[second.name]))
    return lines


def _pair(first: nmr.Result, second: nmr.Result) -> list[str]:
    pairs = [nmr.paired(first, second, key) for key in ("rmse_ppm", "wasserstein_ppm")]
    words = [(f"{pair.mean:+.1f} ± {pair.deviation:.1f}", f"{pair.lower} of {pair.number}") for pair in pairs]
    return [*words[0], *words[1], str(pairs[0].number)]


def _figures_of_labels(
    labels: Labels, dataset: SodiumShielding, pairs: Sequence, every: SodiumShielding
) -> dict[str, Figure]:
    fit = GeneralizedLogistic.fit(labels.shielding)
    structures = plots_nmr.running_coordination_numbers(clusters_of_figure_7(dataset, pairs, every))
    if not pairs:
        structures.supxlabel("No relaxed cluster is labelled: two random clusters of one size", fontsize=SMALL)
    return {
        "figure_1_distribution": plots_nmr.distribution_by_size(labels.shielding, labels.sizes, fit),
        "figure_2_populations": plots_nmr.populations(
            {name: labels.populations[name] for name in ("3S", "3PX", "4S", "4PX")},
            labels.shielding,
            labels.coordination,
        ),
        "figure_6_coordination": plots_nmr.shielding_by_coordination(labels.coordination, labels.shielding),
        "figure_7_structures": structures,
    }


def _figures_of_models(results: Sequence[nmr.Result]) -> dict[str, Figure]:
    figures = {}
    folds = {r.row.method.name: r for r in results if r.row.table == nmr.FOLDS_TABLE}
    sizes = {r.row.method.name: r for r in results if r.row.table == nmr.SIZES_TABLE}
    tested = folds or sizes
    for title, name in (("figure_3_lasso", "lasso"), ("figure_5_node_schnet", "schnet")):
        shown = [result for key, result in tested.items() if key.startswith(name) and "both" not in key]
        if shown:
            labels = [result.row.label.split(", ", 1)[1] for result in shown]
            figures[title] = plots_nmr.predicted_distributions(
                labels, [result.predicted for result in shown], shown[0].target
            )
    networks = [network(a) for network in (nmr.schnet, nmr.huckel_schnet) for a in (0.0, 3.0)]
    shown_in_quantiles = [nmr.lasso("coordination"), nmr.lasso("populations"), *networks]
    compared = [tested[method.name] for method in shown_in_quantiles if method.name in tested]
    if compared:
        figures["figure_4_quantiles"] = plots_nmr.quantiles(
            [result.row.label for result in compared],
            [result.predicted for result in compared],
            compared[0].target,
            GeneralizedLogistic.fit(compared[0].target),
        )
    curve = [result for result in results if result.row.table == nmr.TRADE_OFF]
    if len(curve) > 1:
        figures["trade_off"] = plots_nmr.trade_off(
            np.array([result.row.method.a for result in curve]),
            np.array([result.mean("rmse_ppm") for result in curve]),
            np.array([result.mean("wasserstein_ppm") for result in curve]),
        )
    series: dict[str, list[nmr.Result]] = {}
    for result in results:
        if result.row.table == nmr.CURVE:
            series.setdefault(result.row.method.label, []).append(result)
    if any(len(points) > 1 for points in series.values()):
        figures["learning_curve"] = plots_nmr.errors_by_training_clusters(
            list(series),
            [np.array([point.train_clusters for point in points]) for points in series.values()],
            [np.array([point.mean("rmse_ppm") for point in points]) for points in series.values()],
            [
                np.array([deviation([part["rmse_ppm"] for part in point.parts.values()]) for point in points])
                for points in series.values()
            ],
        )
    return figures

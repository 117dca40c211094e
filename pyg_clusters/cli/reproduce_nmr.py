"""``pyg-clusters reproduce nmr``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis.plot_style import SMALL, save_figure
from pyg_clusters.datasets import SodiumShielding, UnrelaxedOnly
from pyg_clusters.distributions import GeneralizedLogistic
from pyg_clusters.errors import InputError
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.papers import nmr, plots_nmr
from pyg_clusters.papers.findings import Finding
from pyg_clusters.papers.nmr_findings import findings
from pyg_clusters.papers.nmr_labels import Labels, clusters_of_figure_7, relaxed_pairs
from pyg_clusters.papers.tables import (
    QUICK_MARK,
    QUICK_TITLE,
    chosen_rows,
    deviation,
    markdown_findings,
    markdown_table,
    mean_and_spread,
    print_findings,
    print_table,
    write_csv,
    write_text,
)
from pyg_clusters.training.launcher import run_trainings
from pyg_clusters.training.recipes import shipped_recipe
from pyg_clusters.training.run import CONFIGURATION, check_fingerprint

COLUMNS = (
    "table",
    "row",
    "paper",
    "RMSE",
    "MAE",
    "Wasserstein",
    "K-S",
    "peak",
    "skewness",
    "train",
    "test",
    "seeds",
    "minutes",
)

METRICS = ("rmse_ppm", "mae_ppm", "wasserstein_ppm", "kolmogorov_smirnov", "peak_ppm", "skewness")
DIGITS = (1, 1, 1, 2, 0, 2)

PAIR_COLUMNS = ("table", "first less second", "RMSE", "first lower", "Wasserstein", "first lower", "pairs")

PAPER_CLUSTERS = (
    "The paper has 2,000 clusters of 14 to 40 atoms, trains on those of 14 to 26, and tests on 200 of 40: its figures "
    "are for orientation."
)


def run(argv: Sequence[str]):
    """Trains what is missing and sets the figures of the paper beside ours."""
    parser = verb_parser(
        "reproduce nmr",
        "Kaneko et al. 2023 on the shipped shieldings of sodium clusters: fits and trains what is missing (a run that "
        "is stopped goes on when it is called again), and writes tables (Markdown, CSV), the figures of the paper, and "
        "which of its findings hold.",
        "pyg-clusters reproduce nmr --out runs/reproduce_nmr",
    )
    parser.add_argument("--quick", action="store_true", help="a few epochs: shows that all works, in a few minutes")
    parser.add_argument(
        "--only", type=str, nargs="+", help="tables or methods by their names: 'Five folds', schnet_a3, lasso_both"
    )
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind; the folds stay the same")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument(
        "--epochs", type=int | None, help=f"most epochs of a training, {nmr.Extent().epochs} by default"
    )
    parser.add_argument("--recipe", type=Path, help="recipe of NodeSchNet instead of sodium_node_schnet.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the results")
    options = parse(parser, argv)
    if options.seeds < 1 or options.workers < 1 or (options.epochs is not None and options.epochs < 1):
        raise InputError("--seeds, --workers and --epochs must be at least 1")

    dataset = SodiumShielding(pre_filter=UnrelaxedOnly())
    extent = nmr.QUICK if options.quick else nmr.Extent()
    if options.epochs is not None:
        extent = replace(extent, epochs=options.epochs)
    rows = chosen_rows(options.only, nmr.rows(len(dataset), extent), lambda row: (row.table, row.method.name))
    recipe = options.recipe or shipped_recipe("sodium_node_schnet.yaml")
    trainings = nmr.trainings(rows, recipe, options.seeds, extent.epochs)
    with open_output(options.out, ("reproduce", "nmr", *argv), results=()):
        runs = options.out / ("quick" if options.quick else "full")
        for training in trainings:
            if (runs / training.name / CONFIGURATION).exists():
                check_fingerprint(runs / training.name, dataset)
        nmr.fit_lassos(rows, dataset, runs)
        run_trainings(trainings, runs, options.workers)
        results = nmr.results(rows, runs, options.seeds)
        _write(results, dataset, extent, options.out, options.quick)


def _write(results: Sequence[nmr.Result], dataset: SodiumShielding, extent: nmr.Extent, folder: Path, quick: bool):
    every = SodiumShielding()
    labels, pairs = Labels.of(dataset), relaxed_pairs(every)
    stated = _stated(labels)
    mark = QUICK_MARK if quick else ""
    lines, pair_lines = _lines(results), _pair_lines(results)
    said = findings(results, labels, pairs)
    print_table("Kaneko et al. 2023: errors in ppm per atom", COLUMNS, lines, mark)
    if pair_lines:
        print_table("Differences in ppm on the same test parts", PAIR_COLUMNS, pair_lines, mark)
    print_findings(said)
    print(stated)

    name = "quick_" if quick else ""
    note = [mark] if quick else [""]
    write_csv(folder / f"{name}results.csv", [*COLUMNS, "note"], [[*line, *note] for line in lines])
    write_csv(folder / f"{name}parts.csv", [*PART_COLUMNS, "note"], [[*line, *note] for line in _part_lines(results)])
    write_text(folder / f"{name}results.md", _markdown(lines, pair_lines, said, mark, stated, extent))
    figures = {**_figures_of_labels(labels, dataset, pairs, every), **_figures_of_models(results)}
    for title, figure in figures.items():
        if quick:
            figure.suptitle(QUICK_TITLE, fontsize=min(10, 1.8 * figure.get_figwidth()))
        save_figure(figure, folder / f"{name}{title}.png")
    print(f"results in {folder / f'{name}results.md'}, .csv, and figures beside them")


def _stated(labels: Labels) -> str:
    """What stands behind the figures."""
    sizes = np.unique(labels.sizes)
    return (
        f"Behind these figures stand {labels.clusters} random clusters of {sizes.min()} to {sizes.max()} atoms "
        f"({labels.shielding.size:,} atoms). {PAPER_CLUSTERS}"
    )


def _lines(results: Sequence[nmr.Result]) -> list[list[str]]:
    lines = []
    tables: set[str] = set()
    for result in results:
        table = result.row.table
        if table not in tables and table in (nmr.FOLDS_TABLE, nmr.SIZES_TABLE):
            peak, skewness = result.mean("target_peak_ppm"), result.mean("target_skewness")
            lines.append([table, "DFT", "", "", "", "", "", f"{peak:.0f}", f"{skewness:.2f}", "", "", "", ""])
        tables.add(table)
        paper = result.row.method.paper_rmse if table in (nmr.FOLDS_TABLE, nmr.SIZES_TABLE) else None
        ways = {"": result.overall}
        if table in (nmr.FOLDS_TABLE, nmr.SIZES_TABLE):
            ways |= {f", {how}": (metrics,) for how, metrics in result.overall_of_seeds.items()}
        for how, of_each in ways.items():
            lines.append(
                [
                    table,
                    result.row.label + how,
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


PART_COLUMNS = ("method", "division", "seed", *METRICS, "target_peak_ppm", "target_skewness", "num_atoms")


def _part_lines(results: Sequence[nmr.Result]) -> list[list[object]]:
    """A line for each training or fit: its errors on its own test part."""
    lines = {}
    for result in results:
        for (seed, division), metrics in result.parts.items():
            row = [result.row.method.name, division.name, seed]
            lines[tuple(row)] = [*row, *(metrics[key] for key in PART_COLUMNS[3:])]
    return list(lines.values())


def _pair_lines(results: Sequence[nmr.Result]) -> list[list[str]]:
    """Differences between methods, mean and standard deviation over folds and seeds."""
    by_name = {r.row.method.name: r for r in results if r.row.table == nmr.FOLDS_TABLE}
    mse, penalty, coordination = nmr.schnet(), nmr.schnet(3.0), nmr.lasso("coordination")
    wanted = [
        (mse, coordination),
        (mse, nmr.lasso("populations")),
        (penalty, mse),
        (nmr.schnet(0.0, True), mse),
        (nmr.schnet(3.0, True), penalty),
        (nmr.lasso("coordination", True), coordination),
        (nmr.lasso("populations", True), nmr.lasso("populations")),
        (nmr.lasso("populations"), coordination),
    ]
    lines = []
    for first, second in wanted:
        if first.name not in by_name or second.name not in by_name:
            continue
        line = [nmr.FOLDS_TABLE, f"{first.label} − {second.label}"]
        lines.append(line + _pair(by_name[first.name], by_name[second.name]))
        for how in by_name[first.name].of_seeds if second.variables else ():
            joined = replace(by_name[first.name], parts=by_name[first.name].of_seeds[how])
            line = [nmr.FOLDS_TABLE, f"{first.label}, {how} − {second.label}"]
            lines.append(line + _pair(joined, by_name[second.name]))
    return lines


def _pair(first: nmr.Result, second: nmr.Result) -> list[str]:
    pairs = [nmr.paired(first, second, key) for key in ("rmse_ppm", "wasserstein_ppm")]
    words = [(f"{pair.mean:+.1f} ± {pair.deviation:.1f}", f"{pair.lower} of {pair.number}") for pair in pairs]
    return [*words[0], *words[1], str(pairs[0].number)]


def _markdown(
    lines: Sequence[Sequence[str]],
    pair_lines: Sequence[Sequence[str]],
    said: Sequence[Finding],
    mark: str,
    stated: str,
    extent: nmr.Extent,
) -> list[str]:
    text = ["# Kaneko et al. 2023, beside the paper", ""]
    text += [f"**{mark}.**", ""] if mark else []
    text += [
        stated,
        "",
        f"Errors in ppm per atom, over the test parts together, at the best validation loss of at most {extent.epochs} "
        "epochs. Wasserstein distance (ppm) and Kolmogorov-Smirnov statistic (K-S) are between predicted and DFT "
        "distributions; peaks in ppm. Five folds: by cluster. Largest sizes: trained on the smaller ones. Populations "
        "come from the very calculation that the model is to save. Paper: its RMSE. Train, test: numbers of clusters. "
        "Minutes are those of one training on one thread.",
        "",
        *markdown_table(COLUMNS, lines),
    ]
    if pair_lines:
        text += ["", "## Differences on the same test parts", ""]
        text += [
            "Mean and standard deviation over folds and seeds, in ppm.",
            "",
            *markdown_table(PAIR_COLUMNS, pair_lines),
        ]
    return [*text, "", "## Findings of the paper", "", *markdown_findings(said)]


def _figures_of_labels(
    labels: Labels, dataset: SodiumShielding, pairs: Sequence, every: SodiumShielding
) -> dict[str, Figure]:
    fit = GeneralizedLogistic.fit(labels.shielding)
    shown = clusters_of_figure_7(dataset, pairs, every)
    structures = plots_nmr.running_coordination_numbers(
        [cluster.atoms for cluster in shown],
        [cluster.shielding for cluster in shown],
        [cluster.running for cluster in shown],
        [cluster.name for cluster in shown],
    )
    if not pairs:
        structures.supxlabel("None is labelled relaxed: two random clusters of one size", fontsize=SMALL)
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
    beside = [tested[method.name] for method in nmr.METHODS if not method.transform and method.name in tested]
    if beside:
        figures["figure_4_quantiles"] = plots_nmr.quantiles(
            [result.row.label for result in beside],
            [result.predicted for result in beside],
            beside[0].target,
            GeneralizedLogistic.fit(beside[0].target),
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
            [np.array([deviation(_of_parts(point)) for point in points]) for points in series.values()],
        )
    return figures


def _of_parts(result: nmr.Result) -> list[float]:
    return [float(metrics["rmse_ppm"]) for metrics in result.parts.values()]

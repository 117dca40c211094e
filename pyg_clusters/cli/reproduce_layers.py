"""``pyg-clusters reproduce layers``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.errors import InputError
from pyg_clusters.frames.outputs import open_output
from pyg_clusters.options.parsing import parse, verb_parser
from pyg_clusters.papers import layers
from pyg_clusters.papers.plots_layers import error_against_speed
from pyg_clusters.papers.tables import markdown_table, mean_and_spread, print_table, write_csv, write_text
from pyg_clusters.training.launcher import run_trainings
from pyg_clusters.training.recipes import shipped_recipe

QUICK = layers.Budget(train_clusters=300, epochs=2, shielding_epochs=5, folds=1, channels=16, num_layers=2)

METALS = ("gallium", "sodium")
"""Whose clusters have the targets."""

UNITS = {"energy": "kcal mol⁻¹ per cluster", "shielding": "ppm per atom"}

COLUMNS = (
    "target",
    "layer",
    "edges",
    "parameters",
    "MAE",
    "RMSE",
    "trainings",
    "seconds per epoch",
    "frames per second",
)

WORDS: int = 3
"""The first columns hold words, the others numbers."""


def run(argv: Sequence[str]):
    """Trains what is missing and compares layers in the same model."""
    full = layers.Budget()
    parser = verb_parser(
        "reproduce layers",
        "Ten layers in the same model on the same data, split, head and number of epochs: energies of gallium clusters "
        "and shieldings of sodium clusters. Trains what is missing (a run that is stopped goes on when it is called "
        "again), and writes a table (Markdown, CSV) and a figure of the error against the speed.",
        "pyg-clusters reproduce layers --out runs/layers",
    )
    parser.add_argument("--quick", action="store_true", help="two epochs: shows that all works, in some minutes")
    parser.add_argument("--only", type=str, nargs="+", help=f"layers of these: {', '.join(layers.LAYERS)}")
    parser.add_argument(
        "--targets", type=Literal[layers.TARGETS], nargs="+", default=list(layers.TARGETS), help="what is learned"
    )
    parser.add_argument("--train-clusters", type=int, default=full.train_clusters, help="gallium clusters to train on")
    parser.add_argument("--epochs", type=int, default=full.epochs, help="epochs of the energies")
    parser.add_argument("--shielding-epochs", type=int, default=full.shielding_epochs, help="epochs of the shieldings")
    parser.add_argument("--folds", type=int, default=full.folds, help="folds of the shieldings, of five")
    parser.add_argument("--channels", type=int, default=full.channels, help="features of an atom")
    parser.add_argument("--num-layers", type=int, default=full.num_layers, help="number of layers")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the results")
    options = parse(parser, argv)
    if options.workers < 1:
        raise InputError("--workers must be at least 1")
    names = _chosen(options.only)
    budget = QUICK
    if not options.quick:
        budget = layers.Budget(**{name: options[name] for name in vars(full)})
    recipes = {
        target: shipped_recipe(f"layered_{what}.yaml") for target, what in zip(layers.TARGETS, METALS, strict=True)
    }
    with open_output(options.out, ("reproduce", "layers", *argv), results=()):
        runs = options.out / ("quick" if options.quick else "full")
        run_trainings(layers.trainings(names, options.targets, recipes, budget), runs, options.workers)
        found = layers.results(names, options.targets, runs, budget.folds)
        _write(found, options.out, options.quick, budget)


def _chosen(only: Sequence[str] | None) -> list[str]:
    if only is None:
        return list(layers.TEN)
    unknown = [name for name in only if name not in layers.LAYERS]
    if unknown:
        raise InputError(f"--only {unknown[0]!r} is none of the layers; there are {', '.join(layers.LAYERS)}")
    return list(dict.fromkeys(only))


def _write(results: Sequence[layers.Result], folder: Path, quick: bool, budget: layers.Budget):
    lines = [_line(result) for result in results]
    mark = "QUICK RUN, two epochs of a narrow model: these are not the figures that the layers reach" if quick else ""
    print_table("Layers in the same model", COLUMNS, lines, mark, words=WORDS)
    name = "quick_" if quick else ""
    write_csv(folder / f"{name}results.csv", [*COLUMNS, "note"], [[*line, mark] for line in lines])
    write_text(folder / f"{name}results.md", _markdown(lines, mark, budget))
    panels = {}
    for target in dict.fromkeys(result.target for result in results):
        rows = [result for result in results if result.target == target]
        speed = np.array([row.frames_per_second for row in rows])
        error = np.array([layers.mean(row.mae) for row in rows])
        panels[f"{target}: mean absolute error / {UNITS[target]}"] = [row.name for row in rows], speed, error
    save_figure(error_against_speed(panels, mark), folder / f"{name}error_against_speed.png")
    print(f"results in {folder / f'{name}results.md'}, .csv, and {name}error_against_speed.png beside them")


def _line(result: layers.Result) -> list[str]:
    return [
        result.target,
        result.name,
        "all, by shell" if layers.LAYERS[result.name].every_pair else "within the cut-off",
        f"{result.parameters:,}",
        mean_and_spread(result.mae),
        mean_and_spread(result.rmse),
        str(len(result.mae)),
        f"{result.epoch_seconds:.3g}",
        f"{result.frames_per_second:,.0f}",
    ]


def _markdown(lines: Sequence[Sequence[str]], mark: str, budget: layers.Budget) -> list[str]:
    text = ["# Layers in the same model", ""]
    text += [f"**{mark}.**", ""] if mark else []
    text += [
        f"{budget.num_layers} layers of {budget.channels} features.",
        f"Energies of gallium minima in kcal/mol per cluster: {budget.train_clusters} training clusters, "
        f"{budget.epochs} epochs, split by group.",
        f"Shieldings of sodium clusters in ppm per atom: {budget.shielding_epochs} epochs, mean and spread over "
        f"{budget.folds} of five folds by cluster.",
        "Seconds (training steps of an epoch) and frames per second are in processor time of one thread.",
        "",
        *markdown_table(COLUMNS, lines, WORDS),
    ]
    return text

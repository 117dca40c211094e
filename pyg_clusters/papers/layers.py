"""Comparison of message-passing layers in the same model, with the same data, split, head and number of epochs."""

import json
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import nn

from pyg_clusters.analysis.plots import BLUE, SIZE, SMALL, plain_log_ticks, tidy
from pyg_clusters.datasets import ClusterDataset, GalliumClusters, SodiumShielding, UnrelaxedOnly
from pyg_clusters.datasets.splits import Split
from pyg_clusters.datasets.training_data import ClusterBatches
from pyg_clusters.errors import InputError
from pyg_clusters.files import read_json
from pyg_clusters.frames.writing import open_output
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.run import METRICS, SPLITS
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.options.training import ReproduceLayersOptions, Target
from pyg_clusters.papers.tables import Reproduction, Table, mean_and_spread, seconds_of_finished, write_report
from pyg_clusters.shipped import shipped_recipe
from pyg_clusters.training.launcher import Training, run_trainings

TARGETS: tuple[Target, ...] = get_args(Target)

RECIPES = {"energy": "layered_gallium.yaml", "shielding": "layered_sodium.yaml"}

UNITS = {"energy": "kcal mol⁻¹ per cluster", "shielding": "ppm per atom"}

QUICK: dict[str, Any] = {
    **{"train_clusters": 300, "epochs": 2, "shielding_epochs": 5},
    **{"folds": 1, "channels": 16, "num_layers": 2},
}
"""Options of a quick run."""

QUICK_MARK = "QUICK RUN, two epochs of a narrow model: these are not the errors that the layers reach"

COLUMNS = (
    *("target", "layer", "edges"),
    *("parameters", "MAE", "RMSE", "trainings", "seconds per epoch", "frames per second"),
)

BATCH_SIZE: int = 16  # batch size of the speed measurements


@dataclass(frozen=True)
class Layer:
    """A layer to compare."""

    conv: str  #: Import path of its class.
    conv_args: dict[str, Any] = field(default_factory=dict)  #: Arguments specific to this class.
    #: Whether it uses all pairs of atoms with their shells as edges, instead of pairs within a cutoff.
    every_pair: bool = False


PYG = "torch_geometric.nn."

LAYERS: dict[str, Layer] = {
    "GCNConv": Layer(PYG + "GCNConv"),
    "SAGEConv": Layer(PYG + "SAGEConv"),
    "GINEConv": Layer(PYG + "GINEConv"),
    "GATv2Conv": Layer(PYG + "GATv2Conv", {"heads": 4, "concat": False}),
    "TransformerConv": Layer(PYG + "TransformerConv", {"heads": 4, "concat": False}),
    "NNConv": Layer(PYG + "NNConv"),
    "RGCNConv": Layer(PYG + "RGCNConv", every_pair=True),
    "FiLMConv": Layer(PYG + "FiLMConv", every_pair=True),
    "ShellConv": Layer("pyg_clusters.nn.ShellConv", every_pair=True),
    "InteractionBlock": Layer(PYG + "models.schnet.InteractionBlock"),
    "GeneralConv": Layer(PYG + "GeneralConv"),
    "RGATConv": Layer(PYG + "RGATConv", every_pair=True),
    "CFConv": Layer(PYG + "models.schnet.CFConv"),
    "SchNet": Layer(PYG + "SchNet"),
    "DimeNetPlusPlus": Layer(PYG + "DimeNetPlusPlus"),
    "ViSNet": Layer(PYG + "ViSNet"),
}
"""Layers and whole models by name."""

TEN: tuple[str, ...] = tuple(LAYERS)[:10]  # layers compared by default


@dataclass(frozen=True)
class Result:
    """Errors and speed of a layer."""

    name: str  #: Name of the layer.
    target: str  #: ``"energy"`` (errors in kcal/mol per cluster) or ``"shielding"`` (ppm per atom).
    mae: tuple[float, ...]  #: Errors on the test set, one per training run.
    rmse: tuple[float, ...]  #: Root mean square errors on the test set, one per training run.
    parameters: int  #: Number of parameters.
    epoch_seconds: float  #: Processor time of the training steps of an epoch, one thread.
    frames_per_second: float  #: Predicted clusters per second of processor time, one thread.


def reproduce_layers(options: ReproduceLayersOptions) -> Reproduction:
    """Perform the missing training runs, and compare layers in the same model.

    Raises:
        InputError: If a layer is unknown or a training run fails.
    """
    if options.quick:
        options = replace(options, **QUICK)
    unknown = [name for name in options.only or () if name not in LAYERS]
    if unknown:
        raise InputError(f"--only {unknown[0]!r} is not one of the layers {', '.join(LAYERS)}")
    names = list(dict.fromkeys(options.only or TEN))
    targets = options.targets or TARGETS
    out = Path(options.out)
    with open_output(options, results=()):
        runs = out / ("quick" if options.quick else "full")
        run_trainings(trainings(names, targets, options), runs, options.workers)
        achieved = results(names, targets, runs, options.folds)
        mark = QUICK_MARK if options.quick else ""
        text = [
            f"{options.num_layers} layers of {options.channels} features.",
            f"Energies of gallium minima in kcal/mol per cluster: {options.train_clusters} training clusters, "
            f"{options.epochs} epochs, split by group.",
            f"Shieldings of sodium clusters in ppm per atom: {options.shielding_epochs} epochs, mean and spread over "
            f"{options.folds} of five folds by cluster.",
            "Seconds (training steps of an epoch) and frames per second are in processor time of one thread.",
        ]
        table = Table("Layers in the same model", COLUMNS, [_line(result) for result in achieved], words=3)
        figures = {"error_against_speed": _figure(achieved, mark)}
        return write_report(out, "Layers in the same model", text, [table], figures, mark=mark)


def trainings(names: Sequence[str], targets: Sequence[str], options: ReproduceLayersOptions) -> list[Training]:
    """Training runs of layers."""
    planned = []
    for target in targets:
        for name in names:
            for fold in range(options.folds if target == "shielding" else 1):
                changes = _changes(LAYERS[name], target, options, fold)
                planned.append(Training(folder_name(name, target, fold), shipped_recipe(RECIPES[target]), changes))
    return planned


def folder_name(name: str, target: str, fold: int = 0) -> str:
    """Folder of a training run."""
    return f"{name}_{target}" + (f"_fold{fold}" if target == "shielding" else "")


def _changes(layer: Layer, target: str, options: ReproduceLayersOptions, fold: int) -> tuple[str, ...]:
    """Options of a training run that modify its recipe."""
    training = "--model" if target == "energy" else "--model.init_args"
    model = f"{training}.model.init_args"
    epochs = options.epochs if target == "energy" else options.shielding_epochs
    energy_data = ("--data.max_train_clusters", str(options.train_clusters))
    return (
        *(("--config", _without_cutoff(target)) if layer.every_pair else ()),
        *(f"{model}.conv", layer.conv),
        *(f"{model}.conv_args", json.dumps(layer.conv_args)),
        *(f"{model}.hidden_channels", str(options.channels)),
        *(f"{model}.num_layers", str(options.num_layers)),
        *(energy_data if target == "energy" else ("--data.fold", str(fold))),
        *("--trainer.max_epochs", str(epochs)),
        *(f"{training}.scheduler.init_args.T_max", str(epochs)),
    )


def _without_cutoff(target: str) -> str:
    """Configuration without a cutoff, as null on the command line does not reach a model given by class_path."""
    model: dict[str, Any] = {"model": {"init_args": {"cutoff": None}}}
    return json.dumps({"model": model if target == "energy" else {"init_args": model}})


def results(names: Sequence[str], targets: Sequence[str], folder: Path, folds: int) -> list[Result]:
    """Errors of finished training runs and speed of their models.

    Raises:
        InputError: If a training run is not finished.
    """
    achieved = []
    for target in targets:
        dataset: ClusterDataset = (
            GalliumClusters() if target == "energy" else SodiumShielding(pre_filter=UnrelaxedOnly())
        )
        unit = "kcal_mol" if target == "energy" else "ppm"
        for name in names:
            runs = [folder / folder_name(name, target, fold) for fold in range(folds if target == "shielding" else 1)]
            for run in runs:
                seconds_of_finished(run)
            errors = [read_json(run / METRICS, "evaluate the run again")["overall"] for run in runs]
            model, split = load_model(runs[0]), Split.load(runs[0] / SPLITS)
            achieved.append(
                Result(
                    name,
                    target,
                    tuple(error[f"mae_{unit}"] for error in errors),
                    tuple(error[f"rmse_{unit}"] for error in errors),
                    sum(weight.numel() for weight in model.parameters()),
                    epoch_seconds(model, dataset, split),
                    frames_per_second(model, dataset, split),
                )
            )
    return achieved


def frames_per_second(model: nn.Module, dataset: ClusterDataset, split: Split) -> float:
    """Measure the number of clusters of the test set predicted per second of processor time on one thread."""
    batch = ClusterBatches(dataset).stored(split.test[:64].tolist())
    predictor = Predictor(model, max_atoms=2048)
    return (batch.ptr.numel() - 1) / _processor_seconds(lambda: predictor(batch.z, batch.pos, batch.ptr))


def epoch_seconds(model: nn.Module, dataset: ClusterDataset, split: Split) -> float:
    """Estimate the processor time of the training steps of an epoch on one thread, from two batches.

    A step consists of forward pass, backward pass and Adam update. The model is not modified.
    """
    clusters = split.train[: 2 * BATCH_SIZE]
    batches = [ClusterBatches(dataset).stored(part.tolist()) for part in clusters.split(BATCH_SIZE)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters())

    def steps():
        for batch in batches:
            optimizer.zero_grad()
            (model(batch.z, batch.pos, batch.batch) - batch.y).abs().mean().backward()
            optimizer.step()

    seconds = _processor_seconds(steps)
    model.load_state_dict(before)
    return seconds * split.train.numel() / clusters.numel()


def _processor_seconds(work: Callable[[], object]) -> float:
    """Return the shortest of three measurements of processor time on one thread, after a warm-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return min(timeit.repeat(work, number=1, repeat=4, timer=time.process_time)[1:])
    finally:
        torch.set_num_threads(threads)


def _line(result: Result) -> list[str]:
    """Cells of :data:`COLUMNS`."""
    return [
        result.target,
        result.name,
        "all, by shell" if LAYERS[result.name].every_pair else "within the cutoff",
        f"{result.parameters:,}",
        mean_and_spread(result.mae),
        mean_and_spread(result.rmse),
        str(len(result.mae)),
        f"{result.epoch_seconds:.3g}",
        f"{result.frames_per_second:,.0f}",
    ]


def _figure(achieved: Sequence[Result], title: str) -> Figure:
    """Error on the test set against speed of prediction, a panel per target; the best are low and to the right."""
    targets = list(dict.fromkeys(result.target for result in achieved))
    figure = Figure(figsize=(SIZE[0] * len(targets), SIZE[1] + 0.6), layout="constrained")
    for axes, target in zip(np.atleast_1d(figure.subplots(1, len(targets))), targets, strict=True):
        rows = [result for result in achieved if result.target == target]
        rows.sort(key=lambda row: float(np.mean(row.mae)))
        speed, error = [row.frames_per_second for row in rows], [float(np.mean(row.mae)) for row in rows]
        ylabel = f"{target}: mean absolute error / {UNITS[target]}"
        tidy(axes, "clusters per second of processor time, one thread", ylabel)
        axes.plot(speed, error, "o", color=BLUE, markersize=6)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(speed) / 2, max(speed) * 2)  # room for the names
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(y=0.12)
        plain_log_ticks(axes)
        for row, x, y, left in zip(rows, speed, error, cycle((False, True)), strict=False):
            label: dict[str, Any] = {"ha": "right", "xytext": (-6, 0)} if left else {"ha": "left", "xytext": (6, 0)}
            axes.annotate(row.name, (x, y), textcoords="offset points", va="center", fontsize=SMALL, **label)
    figure.suptitle(title, fontsize=10)
    return figure

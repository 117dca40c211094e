"""One layer after the other in the same model: the same data, split, head and number of epochs."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pyg_clusters.datasets import ClusterDataset, GalliumClusters, SodiumShielding, UnrelaxedOnly
from pyg_clusters.datasets.splits import Split
from pyg_clusters.errors import InputError
from pyg_clusters.inference import Predictor
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.training.data import ClusterBatches
from pyg_clusters.training.launcher import Training, seconds_of

TARGETS: tuple[str, ...] = ("energy", "shielding")

BATCH_SIZE: int = 16
"""Clusters in a batch of the speed measurements."""


@dataclass(frozen=True)
class Layer:
    """A layer that is compared.

    Attributes:
        conv: Import path of its class.
        conv_args: Arguments that are not those of any layer.
        every_pair: Whether its edges are all pairs with their shell, instead of those within a cut-off.
    """

    conv: str
    conv_args: dict[str, Any] = field(default_factory=dict)
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
"""The layers that are known by name."""

TEN: tuple[str, ...] = tuple(LAYERS)[:10]
"""Those that are compared if none are named."""


@dataclass(frozen=True)
class Budget:
    """What each training gets.

    Attributes:
        train_clusters: Gallium clusters of the training set.
        epochs: Epochs of the energies.
        shielding_epochs: Epochs of the shieldings.
        folds: Folds of the shieldings, of five.
        channels: Features of an atom.
        num_layers: Number of layers.
    """

    train_clusters: int = 1500
    epochs: int = 40
    shielding_epochs: int = 100
    folds: int = 5
    channels: int = 64
    num_layers: int = 3

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1 or (name == "folds" and value > 5):
                limit = "from 1 to 5" if name == "folds" else "at least 1"
                raise InputError(f"--{name.replace('_', '-')} must be {limit}, got {value}")


@dataclass(frozen=True)
class Result:
    """What a layer reached.

    Attributes:
        name: Name of the layer.
        target: ``"energy"`` (errors in kcal/mol per cluster) or ``"shielding"`` (ppm per atom).
        mae: Of the test set, one per training.
        rmse: One per training.
        parameters: Number of weights.
        epoch_seconds: Processor time of the training steps of an epoch, one thread.
        frames_per_second: Predicted clusters per second of processor time, one thread.
    """

    name: str
    target: str
    mae: tuple[float, ...]
    rmse: tuple[float, ...]
    parameters: int
    epoch_seconds: float
    frames_per_second: float


def trainings(names: Sequence[str], targets: Sequence[str], recipes: dict[str, Path], budget: Budget) -> list[Training]:
    """The trainings of layers.

    Args:
        names: Keys of :data:`LAYERS`.
        targets: Of :data:`TARGETS`.
        recipes: The recipe of each target.
        budget: What each training gets.
    """
    made = []
    for target in targets:
        for name in names:
            for fold in range(budget.folds if target == "shielding" else 1):
                options = _options(LAYERS[name], target, budget, fold)
                made.append(Training(folder_name(name, target, fold), recipes[target], options))
    return made


def folder_name(name: str, target: str, fold: int = 0) -> str:
    """Folder of a training."""
    return f"{name}_{target}" + (f"_fold{fold}" if target == "shielding" else "")


def _options(layer: Layer, target: str, budget: Budget, fold: int) -> tuple[str, ...]:
    training = "--model" if target == "energy" else "--model.init_args"
    model = f"{training}.model.init_args"
    epochs = budget.epochs if target == "energy" else budget.shielding_epochs
    data = ("--data.max_train_clusters", str(budget.train_clusters))
    if target == "shielding":
        data = ("--data.fold", str(fold))
    return (
        *(("--config", _without_cutoff(target)) if layer.every_pair else ()),
        *(f"{model}.conv", layer.conv),
        *(f"{model}.conv_args", json.dumps(layer.conv_args)),
        *(f"{model}.hidden_channels", str(budget.channels)),
        *(f"{model}.num_layers", str(budget.num_layers)),
        *data,
        *("--trainer.max_epochs", str(epochs)),
        *(f"{training}.scheduler.init_args.T_max", str(epochs)),
    )


def _without_cutoff(target: str) -> str:
    """A configuration that changes nothing else: an option of null does not reach the model of a class_path."""
    model: dict[str, Any] = {"model": {"init_args": {"cutoff": None}}}
    return json.dumps({"model": model if target == "energy" else {"init_args": model}})


def results(names: Sequence[str], targets: Sequence[str], folder: Path, folds: int) -> list[Result]:
    """What finished trainings reached, and how fast their models are.

    Raises:
        InputError: If a training is not finished.
    """
    found = []
    for target in targets:
        dataset: ClusterDataset = (
            GalliumClusters() if target == "energy" else SodiumShielding(pre_filter=UnrelaxedOnly())
        )
        unit = "kcal_mol" if target == "energy" else "ppm"
        for name in names:
            runs = [folder / folder_name(name, target, fold) for fold in range(folds if target == "shielding" else 1)]
            unfinished = [run for run in runs if seconds_of(run) is None]
            if unfinished:
                raise InputError(f"{unfinished[0]}: not trained to the end yet")
            errors = [json.loads((run / "test_metrics.json").read_text())["overall"] for run in runs]
            model, split = load_model(runs[0]), Split.load(runs[0] / "splits")
            found.append(
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
    return found


def frames_per_second(model: nn.Module, dataset: ClusterDataset, split: Split, frames: int = 64) -> float:
    """Clusters of the test set that a model predicts in a second of processor time, on one thread."""
    batch = ClusterBatches(dataset).stored(split.test[:frames].tolist())
    predictor = Predictor(model, max_atoms=2048)
    with one_thread():
        seconds = _processor_seconds(lambda: predictor(batch.z, batch.pos, batch.ptr))
    return (batch.ptr.numel() - 1) / seconds


def epoch_seconds(model: nn.Module, dataset: ClusterDataset, split: Split) -> float:
    """Processor time of the training steps of an epoch (forward, backward, Adam) on one thread, from two batches.

    The model is left as it was.
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

    with one_thread():
        seconds = _processor_seconds(steps)
    model.load_state_dict(before)
    return seconds * split.train.numel() / clusters.numel()


def _processor_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of some measurements after one that does not count."""
    measured = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        work()
        measured.append(time.process_time() - begin)
    return min(measured[1:])


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread within the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def mean(values: Sequence[float]) -> float:
    """The mean over the trainings."""
    return float(np.mean(values))

"""Errors of a trained model of shieldings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from torch_geometric.data import Data

from pyg_clusters.conformal import interval_metrics
from pyg_clusters.errors import InputError
from pyg_clusters.formatting import cell, write_errors
from pyg_clusters.frames.writing import write_table
from pyg_clusters.inference import Calibration, Prediction, Predictor
from pyg_clusters.inference.predictor import usable_device
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.models.forward_arguments import extra_arguments
from pyg_clusters.shielding_metrics import shielding_metrics
from pyg_clusters.training import ClusterDataModule
from pyg_clusters.training.run import groups_of

LABELS = {
    "mae_ppm": "MAE (ppm)",
    "rmse_ppm": "RMSE (ppm)",
    "wasserstein_ppm": "Wasserstein distance (ppm)",
    "kolmogorov_smirnov": "Kolmogorov-Smirnov",
    "peak_ppm": "peak (ppm)",
    "target_peak_ppm": "peak, DFT (ppm)",
    "skewness": "skewness",
    "target_skewness": "skewness, DFT",
    "num_atoms": "atoms",
}


def evaluate_shieldings(
    folder: Path,
    data: ClusterDataModule,
    by_size: bool = True,
    device: str | None = None,
    calibration: Calibration | None = None,
    coverage: float | None = None,
):
    """Errors on the test set of a run; writes ``test_metrics.json`` and ``test_predictions.csv``.

    Args:
        folder: Folder of the run.
        data: Its data.
        by_size: Whether to print the errors of each cluster size; they are written in any case.
        device: Where to compute.
        calibration: Of the model, for intervals.
        coverage: Of the intervals.
    """
    clusters = data.split.test
    if clusters.numel() == 0:
        raise InputError(f"{folder}: the test part of the split is empty; split the data otherwise")
    batch = data.batches.stored(clusters.tolist())
    found = shieldings_of(folder, data, batch, device)
    predicted, target, sizes = found.shielding.numpy(), batch.y.numpy(), batch.ptr.diff().numpy()
    table = {
        "idx": clusters.numpy().repeat(sizes),
        "size": sizes.repeat(sizes),
        "atom": np.concatenate([np.arange(size) for size in sizes]),
        "nmr_shielding": target,
        "pred_nmr_shielding": predicted,
    }
    if found.spread is not None:
        table["pred_nmr_shielding_spread"] = found.spread.numpy()
    write_table(folder / "test_predictions.csv", table)
    more = {}
    if calibration is not None and coverage is not None:
        spread = table.get("pred_nmr_shielding_spread")
        groups = groups_of(data, clusters).repeat(sizes)
        more["intervals"] = intervals_of_atoms(predicted, target, spread, calibration, coverage, groups)
    out = folder / "test_metrics.json"
    report_shieldings(predicted, target, sizes, f"test set of {folder}", out, by_size, more)


def shieldings_of(folder: Path, data: ClusterDataModule, batch: Data, device: str | None = None) -> Prediction:
    """What the model of a run says of clusters of its data."""
    model = load_model(folder)
    values = {name: batch[name] for name in extra_arguments(model) if name in batch}
    transform = None if values else data.dataset.transform
    predictor = Predictor(model, device=usable_device(device), transform=transform)
    return predictor(batch.z, batch.pos, batch.ptr, values)


def intervals_of_atoms(
    shielding: np.ndarray,
    target: np.ndarray,
    spread: np.ndarray | None,
    calibration: Calibration,
    coverage: float,
    group_of_atom: np.ndarray,
) -> dict[str, float | int]:
    """How often intervals of shieldings ``[num_atoms]`` (ppm) hold the truth, and how wide they are."""
    half = calibration.half_width(coverage, np.ones(len(shielding)), spread)
    return interval_metrics(shielding - target, half, coverage, group_of_atom, "ppm", 1.0)


def report_shieldings(
    predicted: np.ndarray,
    target: np.ndarray,
    sizes: np.ndarray,
    title: str,
    out: Path | None,
    by_size: bool = True,
    more: Mapping[str, dict] | None = None,
):
    """Prints errors over all atoms and by cluster size, and writes them as JSON.

    Args:
        predicted: Shieldings in ppm, ``[num_atoms]``.
        target: Shieldings in ppm, ``[num_atoms]``.
        sizes: Number of atoms of each cluster, ``[num_graphs]``.
        title: What was evaluated.
        out: The JSON file, if one is wanted.
        by_size: Whether to print the errors of each cluster size.
        more: What else to print and write, by a name (``intervals``).
    """
    more = more or {}
    overall = shielding_metrics(predicted, target)
    size_of_atom = sizes.repeat(sizes)
    rows = []
    for size in np.unique(sizes).tolist():
        chosen = size_of_atom == size
        rows.append({"size": size, **shielding_metrics(predicted[chosen], target[chosen])})
    if out is not None:
        write_errors(out, overall, rows, more)
    console = Console(width=100)
    table = Table(title=f"Errors per atom: {title}", title_justify="left")
    table.add_column("")
    columns = [overall, *(rows if by_size else [])]
    for column in columns:
        table.add_column(f"{column['size']} atoms" if "size" in column else "all", justify="right")
    for key, label in LABELS.items():
        table.add_row(label, *(cell(column[key]) for column in columns))
    console.print(table)
    for row in more.values():
        print("  ".join(f"{name} {cell(value)}" for name, value in row.items()))

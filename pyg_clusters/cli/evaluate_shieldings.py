"""Errors of a trained model of shieldings."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from torch_geometric.data import Data

from pyg_clusters.cli.runs import groups_of
from pyg_clusters.cli.tables import cell, for_json
from pyg_clusters.conformal import interval_metrics
from pyg_clusters.errors import InputError
from pyg_clusters.files import replacing
from pyg_clusters.frames.writing import write_table
from pyg_clusters.inference import Calibration, ShieldingPrediction, ShieldingPredictor
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.models.extra_arguments import extra_arguments
from pyg_clusters.shielding_metrics import shielding_metrics
from pyg_clusters.training import ClusterDataModule

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
    calibration: Calibration | None = None,
    coverage: float | None = None,
):
    """Errors on the test set of a run; writes ``test_metrics.json`` and ``test_predictions.csv``.

    Args:
        folder: Folder of the run.
        data: Its data.
        by_size: Whether to print the errors of each cluster size; they are written in any case.
        calibration: Of the model, for intervals.
        coverage: Of the intervals.
    """
    clusters = data.split.test
    if clusters.numel() == 0:
        raise InputError(f"{folder}: the test part of the split is empty; split the data otherwise")
    batch = data.batches.stored(clusters.tolist())
    found = shieldings_of(folder, data, batch)
    predicted, target, sizes = found.shielding.numpy(), batch.y.numpy(), batch.ptr.diff()
    size_of_atom = sizes.repeat_interleave(sizes).numpy()
    table = {
        "idx": clusters.repeat_interleave(sizes).numpy(),
        "size": size_of_atom,
        "atom": [atom for size in sizes.tolist() for atom in range(size)],
        "nmr_shielding": target,
        "pred_nmr_shielding": predicted,
    }
    write_table(folder / "test_predictions.csv", table)
    overall = shielding_metrics(predicted, target)
    more = {}
    if calibration is not None and coverage is not None:
        spread = None if found.spread is None else found.spread.numpy()
        half = calibration.half_width(coverage, np.ones(len(predicted)), spread)
        groups = np.repeat(groups_of(data, clusters), sizes.numpy())
        more["intervals"] = interval_metrics(predicted - target, half, coverage, groups, "ppm", 1.0)
    rows = []
    for size in sizes.unique().tolist():
        chosen = size_of_atom == size
        rows.append({"size": size, **shielding_metrics(predicted[chosen], target[chosen])})
    with replacing(folder / "test_metrics.json") as path:
        result = {"overall": for_json(overall), "by_size": [for_json(row) for row in rows]}
        result |= {name: for_json(row) for name, row in more.items()}
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    _print(overall, rows if by_size else [], f"test set of {folder}")
    for row in more.values():
        print("  ".join(f"{name} {cell(value)}" for name, value in row.items()))


def shieldings_of(folder: Path, data: ClusterDataModule, batch: Data) -> ShieldingPrediction:
    """What the model of a run says of clusters of its data."""
    model = load_model(folder)
    values = {name: batch[name] for name in extra_arguments(model) if name in batch}
    predictor = ShieldingPredictor(model, transform=None if values else data.dataset.transform)
    return predictor(batch.z, batch.pos, batch.ptr, values)


def _print(overall: dict, rows: list[dict], title: str):
    console = Console(width=100)
    table = Table(title=f"Errors per atom: {title}", title_justify="left")
    table.add_column("")
    columns = [overall, *rows]
    for column in columns:
        table.add_column(f"{column['size']} atoms" if "size" in column else "all", justify="right")
    for key, label in LABELS.items():
        table.add_row(label, *(cell(column[key]) for column in columns))
    console.print(table)

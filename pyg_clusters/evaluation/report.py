"""Errors of a model as JSON, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from pyg_clusters.analysis import plots
from pyg_clusters.files import write_json
from pyg_clusters.formatting import cell, for_json, print_lines
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference.run import HISTORY
from pyg_clusters.metrics import metrics_by_size

ENERGY_LABELS = {
    "num_clusters": "clusters",
    "mae_kcal_mol": "MAE (kcal/mol)",
    "rmse_kcal_mol": "RMSE (kcal/mol)",
    "mae_mev_per_atom": "MAE (meV/atom)",
    "rmse_mev_per_atom": "RMSE (meV/atom)",
    "spearman_within_size": "Spearman within a size",
    "spearman": "Spearman",
    "size": "atoms",
    "composition": "composition",
    "coverage": "requested coverage",
    "coverage_reached": "observed coverage",
    "standard_error": "standard error",
    "mean_width_kcal_mol": "mean width (kcal/mol)",
    "num_groups": "groups",
    "mae_mev_per_angstrom": "MAE (meV/Å)",
    "rmse_mev_per_angstrom": "RMSE (meV/Å)",
}
SHIELDING_LABELS = {
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
TITLES = {
    "on_the_zero_of_the_labels": "the model, shifted to the zero of the labels",
    "baseline": "baseline, mean per composition of the training set",
    "baseline_of_these_labels": "baseline, mean per composition of these labels",
    "new_structures": "clusters that are not copies of training structures",
}
"""Titles of further errors by name."""


@dataclass
class Evaluation:
    """Errors of a model.

    Attributes:
        title: Model and data.
        per_atom: Whether they are errors of shieldings, not of energies.
        overall: Errors over all clusters or atoms, by name and unit.
        by_size: Errors of each cluster size, or composition of alloys.
        further: Further errors: ``baseline``, ``intervals``, ``forces``, those of each file.
        remarks: Remarks on the data.
    """

    title: str
    per_atom: bool
    overall: dict[str, Any]
    by_size: list[dict[str, Any]]
    further: dict[str, dict[str, Any]]
    remarks: list[str]

    def write(self, path: Path):
        """Write the errors as JSON: ``overall``, ``by_size``, and further ones by name."""
        result = {"overall": for_json(self.overall), "by_size": [for_json(row) for row in self.by_size]}
        result |= {name: for_json(row) for name, row in self.further.items()}
        write_json(path, result, allow_nan=False)

    def print(self, by_size: bool = True):
        """Print tables of the errors, those of each size on request."""
        print_lines(self.remarks)
        console = Console(width=100)
        if self.per_atom:
            console.print(_columns_table([self.overall, *(self.by_size if by_size else [])], self.title))
            for row in self.further.values():
                print("  ".join(f"{name} {cell(value)}" for name, value in row.items()))
            return
        within = "composition" if "composition" in self.by_size[0] else "size"
        if by_size:
            kind = "composition" if within == "composition" else "cluster size"
            console.print(_rows_table(self.by_size, f"Errors by {kind}: {self.title}", within))
        console.print(_rows_table([self.overall], f"Errors: {self.title}", within))
        for name, row in self.further.items():
            console.print(_rows_table([row], f"Errors: {TITLES.get(name, name)}", within))


def _rows_table(rows: Sequence[dict], title: str, within: str) -> Table:
    table = Table(title=title, title_justify="left")
    for key in rows[0]:
        table.add_column(ENERGY_LABELS[key].replace("within a size", f"within a {within}"), justify="right")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    return table


def _columns_table(columns: Sequence[dict], title: str) -> Table:
    table = Table(title=f"Errors per atom: {title}", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(f"{column['size']} atoms" if "size" in column else "all", justify="right")
    for key, label in SHIELDING_LABELS.items():
        table.add_row(label, *(cell(column[key]) for column in columns))
    return table


def run_figures(folder: Path, predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray) -> dict[str, Figure]:
    """Learning curve, parity plot and errors by size of a run of energies.

    Args:
        folder: Folder of the run.
        predicted: Energies ``[num_graphs]`` in eV.
        target: Labels ``[num_graphs]`` in eV.
        sizes: Number of atoms of each cluster ``[num_graphs]``.
    """
    figures = {
        "parity": plots.parity(target, predicted, sizes),
        "error_by_size": plots.error_by_size(metrics_by_size(predicted, target, sizes)),
    }
    if (folder / HISTORY).is_file():
        names = ("epoch", "train_mae", "val_mae", "learning_rate")
        history = read_columns(folder / HISTORY, names, "restore it, or remove it to have no learning curve")
        figures["learning_curve"] = plots.learning_curve(*(history[name] for name in names))
    return figures

"""Errors of a model as JSON, tables and figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots
from pyg_clusters.files import write_json
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference.run import HISTORY
from pyg_clusters.metrics import metrics_by_size
from pyg_clusters.terminal import cell, print_table

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
    "file": "file",
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
SETS = {
    "on_the_zero_of_the_labels": "model, shifted to the zero of the labels",
    "baseline": "baseline: mean per composition of the training set",
    "baseline_of_these_labels": "baseline: mean of the other labels of the composition",
    "new_structures": "model, without copies of training structures",
}
"""Headings of further errors by name, beside those of the model."""
TITLES = {"intervals": "Intervals", "forces": "Errors of the forces"}
"""Titles of tables of other errors by name."""


@dataclass
class Evaluation:
    """Errors of a model."""

    title: str  #: Model and data.
    per_atom: bool  #: Whether they are errors of shieldings, not of energies.
    overall: dict[str, Any]  #: Errors over all clusters or atoms, by name and unit.
    by_size: list[dict[str, Any]]  #: Errors of each cluster size, or of each composition for alloys.
    further: dict[str, dict[str, Any]]  #: ``baseline``, ``intervals``, ``forces``, those of each element.
    remarks: list[str]  #: Remarks on the data.
    by_file: list[dict[str, Any]] = field(default_factory=list)  #: Errors of each file, if there are several.

    def write(self, path: Path, **notes: str):
        """Write as JSON: ``overall``, ``by_size``, ``by_file``, and further errors by name; NaN becomes null."""
        result = {"overall": _for_json(self.overall), "by_size": [_for_json(row) for row in self.by_size], **notes}
        if self.by_file:
            result["by_file"] = [_for_json(row) for row in self.by_file]
        write_json(path, result | {name: _for_json(row) for name, row in self.further.items()}, allow_nan=False)

    def print(self, by_size: bool = True):
        """Print tables of the errors, by default also those of each size."""
        for line in self.remarks:
            print(line)
        if self.per_atom:
            elements = {name: row for name, row in self.further.items() if row.keys() >= SHIELDING_LABELS.keys()}
            sets = {"all": self.overall} | elements
            sets = {name.replace("_", " "): errors for name, errors in sets.items()}
            sets |= {f"{errors['size']} atoms": errors for errors in (self.by_size if by_size else [])}
            rows = [[label, *(errors[key] for errors in sets.values())] for key, label in SHIELDING_LABELS.items()]
            print_table(f"Errors per atom: {self.title}", ["", *sets], rows)
            for row in (row for name, row in self.further.items() if name not in elements):
                print("  ".join(f"{name} {cell(value)}" for name, value in row.items()))
            return
        within = "composition" if "composition" in self.by_size[0] else "size"
        if by_size:
            kind = "composition" if within == "composition" else "cluster size"
            _print_energy_table(f"Errors by {kind}: {self.title}", self.by_size, within)
        sets = {"model": self.overall} | {SETS[name]: row for name, row in self.further.items() if name in SETS}
        rows = [[_label(key, within), *(errors[key] for errors in sets.values())] for key in self.overall]
        print_table(f"Errors: {self.title}", ["", *sets], rows)
        if self.by_file:
            _print_energy_table(f"Errors by file: {self.title}", self.by_file, within)
        for name, row in self.further.items():
            if name in TITLES:
                _print_energy_table(TITLES[name], [row], within)


def _print_energy_table(title: str, rows: Sequence[Mapping[str, Any]], within: str):
    columns = [_label(key, within) for key in rows[0]]
    print_table(title, columns, [list(row.values()) for row in rows], words=("file",))


def _label(key: str, within: str) -> str:
    return ENERGY_LABELS[key].replace("within a size", f"within a {within}")


def _for_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def run_figures(folder: Path, predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray) -> dict[str, Figure]:
    """Learning curve of the run in a folder, parity plot and errors by size, from energies ``[num_graphs]`` in eV."""
    figures = {
        "parity": plots.parity(target, predicted, sizes),
        "error_by_size": plots.error_by_size(metrics_by_size(predicted, target, sizes)),
    }
    if (folder / HISTORY).is_file():
        names = ("epoch", "train_mae", "val_mae")
        history = read_columns(folder / HISTORY, names, "restore it, or remove it to omit the learning curve")
        figures["learning_curve"] = plots.learning_curve(*(history[name] for name in names))
    return figures

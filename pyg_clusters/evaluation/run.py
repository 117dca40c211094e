"""Errors of trained models on the test set of their run, or on labelled frames."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_clusters.analysis import plots
from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.composition import comparable, composition_names
from pyg_clusters.conformal import interval_metrics, reliability_rows
from pyg_clusters.datasets.label_reading import unit_of_labels
from pyg_clusters.errors import InputError
from pyg_clusters.evaluation.shieldings import evaluate_shieldings, intervals_of_atoms, report_shieldings
from pyg_clusters.evaluation.training_set import TITLES, TrainingSet, energy_context
from pyg_clusters.formatting import cell, print_lines, write_errors
from pyg_clusters.frames import FrameBlock
from pyg_clusters.frames.checks import list_bad
from pyg_clusters.frames.writing import read_columns, write_table
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.inference import Calibration, Prediction, Predictor
from pyg_clusters.inference.loading import load_predictor
from pyg_clusters.inference.predictor import usable_device
from pyg_clusters.inference.scoring import check_atom_numbers, check_numbers, score_files
from pyg_clusters.metrics import energy_metrics, metrics_by_size
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.models.forward_arguments import extra_arguments
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.training import ClusterDataModule
from pyg_clusters.training.run import data_of_run, groups_of, target_of_run

LABELS = {
    "num_clusters": "clusters",
    "mae_kcal_mol": "MAE (kcal/mol)",
    "rmse_kcal_mol": "RMSE (kcal/mol)",
    "mae_mev_per_atom": "MAE (meV/atom)",
    "rmse_mev_per_atom": "RMSE (meV/atom)",
    "spearman_within_size": "Spearman within a size",
    "spearman": "Spearman",
    "size": "atoms",
    "composition": "composition",
    "coverage": "coverage asked for",
    "coverage_reached": "coverage reached",
    "standard_error": "standard error",
    "mean_width_kcal_mol": "mean width (kcal/mol)",
    "num_groups": "groups",
    "mae_mev_per_angstrom": "MAE (meV/Å)",
    "rmse_mev_per_angstrom": "RMSE (meV/Å)",
}
CLUSTERS_AT_ONCE = 64
"""Clusters whose forces are computed together."""


def evaluate_frames(options: Namespace, calibration: Calibration | None):
    """Print the errors on labelled frames, and write them if asked to.

    Args:
        options: Of the command line.
        calibration: Of the model, for intervals.
    """
    coverage = options.coverage
    predictor = load_predictor(options.run, options.device, calibration)
    score = partial(score_files, predictor, options.data, on_bad=options.on_bad, fragments=options.fragments)
    per_atom = predictor.per_atom
    if per_atom and options.energy_unit is not None:
        raise InputError("--energy-unit belongs to energies, and this model predicts shieldings in ppm: leave it out")
    target = options.target or target_of_run(options.run) or ("nmr_shielding" if per_atom else "binding_energy")
    if per_atom:
        blocks = [check_atom_numbers(block, target) for block in score(atom_properties=[target])]
    else:
        unit = unit_of_labels(options.data, options.energy_unit)
        blocks = [check_numbers(block, target, unit) for block in score(properties=[target])]
    list_bad([frame for block in blocks for frame in block.bad])
    scored = [block for block in blocks if len(block.frames)]
    if not scored:
        raise InputError(f"no frame of {', '.join(options.data)} can be used")
    if per_atom:
        predicted = np.concatenate([block.shielding for block in scored])
        true = np.concatenate([block.frames.atom_properties[target] for block in scored])
    else:
        predicted = np.concatenate([block.energy for block in scored])
        true = np.concatenate([block.frames.properties[target] for block in scored])
    sizes = np.concatenate([block.frames.sizes for block in scored])
    more = {} if per_atom else _context_of_frames(options.run, predicted, true, [block.frames for block in scored])
    if calibration is not None:
        spreads = [block.spread for block in scored if block.spread is not None]
        spread = np.concatenate(spreads) if spreads else None
        if per_atom:
            groups = np.arange(len(sizes)).repeat(sizes)
            more["intervals"] = intervals_of_atoms(predicted, true, spread, calibration, coverage, groups)
        else:
            half = calibration.half_width(coverage, sizes, spread)
            more["intervals"] = interval_metrics(predicted - true, half, coverage)
    title = f"{options.run} on {', '.join(options.data)}"
    if per_atom:
        report_shieldings(predicted, true, sizes, title, options.out, more=more)
    else:
        names = np.concatenate([composition_names(block.frames.z, block.frames.ptr) for block in scored])
        _report(predicted, true, sizes, comparable(names, sizes), title, options.out, more=more)


def evaluate_run(
    folder: Path,
    data: ClusterDataModule | None = None,
    by_size: bool = True,
    device: str | None = None,
    calibration: Calibration | None = None,
    coverage: float | None = None,
):
    """Errors on the test set of a run; writes ``test_metrics.json``, ``test_predictions.csv`` and figures.

    Args:
        folder: Folder of the run.
        data: Its data, where they are at hand.
        by_size: Whether to print the errors of each cluster size; they are written in any case.
        device: Where to compute.
        calibration: Of the model, for intervals.
        coverage: Of the intervals.
    """
    data = data_of_run(folder) if data is None else data
    if getattr(data.dataset, "per_atom", False):
        evaluate_shieldings(folder, data, by_size, device, calibration, coverage)
        return
    clusters = data.split.test
    if clusters.numel() == 0:
        raise InputError(f"{folder}: the test part of the split is empty; give labelled frames with --data")
    batch = data.batches.stored(clusters.tolist())
    if "pos" in batch:
        found = load_predictor(folder, device, calibration)(batch.z, batch.pos, batch.ptr)
    else:  # published descriptors: a graph is all that there is
        found = _energies_of_graphs(load_model(folder), data, clusters, usable_device(device))
    predicted, target, sizes = found.energy.numpy(), data.labels(batch).numpy(), batch.ptr.diff().numpy()
    kinds = comparable(composition_names(batch.z.numpy(), batch.ptr.numpy()), sizes)
    table = {"idx": clusters.numpy(), "size": sizes, "energy": target, "pred_energy": predicted}
    if kinds.dtype.kind == "U":
        table["composition"] = kinds
    if found.spread is not None:
        table["pred_energy_spread"] = found.spread.numpy()
    write_table(folder / "test_predictions.csv", table)
    _write_figures(folder, predicted, target, sizes)
    more, lines = energy_context(
        predicted,
        target,
        batch.z.numpy(),
        batch.pos.numpy() if "pos" in batch else None,
        batch.ptr.numpy(),
        TrainingSet.of(data),
    )
    print_lines(lines)
    more |= _by_file(predicted, target, sizes, kinds, data, clusters)
    if calibration is not None and coverage is not None:
        spread, groups = table.get("pred_energy_spread"), groups_of(data, clusters)
        error = predicted.astype(float) - target
        half = calibration.half_width(coverage, sizes, spread)
        more["intervals"] = interval_metrics(error, half, coverage, groups)
        rows = reliability_rows(error, lambda asked: calibration.half_width(asked, sizes, spread), groups)
        save_figure(plots.reliability(rows), folder / "figures" / "reliability.png")
    if "force" in batch:
        more["forces"] = _force_errors(load_predictor(folder, device), batch)
    _report(predicted, target, sizes, kinds, f"test set of {folder}", folder / "test_metrics.json", by_size, more)


def _context_of_frames(
    folder: Path, predicted: np.ndarray, true: np.ndarray, blocks: Sequence[FrameBlock]
) -> dict[str, dict]:
    """Errors to read those of labelled frames beside; prints the remarks on them."""
    z, pos = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("z", "pos"))
    ptr = np.concatenate([[0], np.cumsum(np.concatenate([block.sizes for block in blocks]))])
    rows, lines = energy_context(predicted, true.astype(float), z, pos, ptr, TrainingSet.of_run(folder))
    print_lines(lines)
    return rows


def _by_file(
    predicted: np.ndarray,
    target: np.ndarray,
    sizes: np.ndarray,
    kinds: np.ndarray,
    data: ClusterDataModule,
    clusters: Tensor,
) -> dict[str, dict]:
    """Errors on the clusters of each file, where the data set has several and tells them apart."""
    files = getattr(data.dataset, "file_of_cluster", torch.zeros(len(data.dataset), dtype=torch.long))[clusters].numpy()
    if len(set(files.tolist())) < 2:
        return {}
    chosen = {data.dataset.files[number].name: files == number for number in np.unique(files)}
    return {name: energy_metrics(predicted[of], target[of], sizes[of], kinds[of]) for name, of in chosen.items()}


def _force_errors(predictor: Predictor, batch: Data) -> dict[str, float]:
    """Errors of the components of the forces in meV/Å."""
    errors = []
    for first in range(0, batch.ptr.numel() - 1, CLUSTERS_AT_ONCE):
        ptr = batch.ptr[first : first + CLUSTERS_AT_ONCE + 1]
        atoms = slice(int(ptr[0]), int(ptr[-1]))
        inputs = batch.z[atoms], batch.pos[atoms], ptr_to_batch(ptr - ptr[0])
        _, forces = energy_and_forces(predictor.model, *(part.to(predictor.device) for part in inputs))
        errors.append(1000 * (forces.cpu() - batch.force[atoms]).flatten())
    error = torch.cat(errors)
    return {
        "mae_mev_per_angstrom": float(error.abs().mean()),
        "rmse_mev_per_angstrom": float(error.square().mean() ** 0.5),
    }


@torch.no_grad()
def _energies_of_graphs(
    model: nn.Module, data: ClusterDataModule, clusters: Tensor, device: torch.device
) -> Prediction:
    model, names = model.to(device), extra_arguments(model)
    energies, num_atoms = [], 0
    for part in clusters.split(data.batch_size):
        batch = data.batches[part.tolist()].to(device)
        extra = {name: batch[name] for name in names if name in batch}
        energies.append(model(batch.z, batch.get("pos"), batch.batch, **extra))
        num_atoms += batch.batch.numel()
    return Prediction(torch.cat(energies).cpu(), clusters.numel(), num_atoms, type(model).__name__)


def _report(
    predicted: np.ndarray,
    target: np.ndarray,
    sizes: np.ndarray,
    kinds: np.ndarray,
    title: str,
    out: Path | None,
    print_sizes: bool = True,
    more: Mapping[str, dict] | None = None,
):
    """Prints the errors and writes them; further ones by a name (a file, ``forces``) beside them."""
    more = more or {}
    overall = energy_metrics(predicted, target, sizes, kinds)
    by_size = metrics_by_size(predicted, target, sizes, kinds)
    within = "composition" if kinds.dtype.kind == "U" else "size"
    if out is not None:
        write_errors(out, overall, by_size, more)
    console = Console(width=100)
    if print_sizes:
        by = "composition" if within == "composition" else "cluster size"
        console.print(_table(by_size, f"Errors by {by}: {title}"))
    console.print(_table([overall], f"Errors: {title}", within))
    for name, row in more.items():
        console.print(_table([row], f"Errors: {TITLES.get(name, name)}", within))


def _table(rows: Sequence[dict], title: str, within: str = "size") -> Table:
    table = Table(title=title, title_justify="left")
    for key in rows[0]:
        table.add_column(LABELS[key].replace("within a size", f"within a {within}"), justify="right")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    return table


def _write_figures(folder: Path, predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray):
    for name, figure in run_figures(folder, predicted, target, sizes).items():
        save_figure(figure, folder / "figures" / f"{name}.png")


def run_figures(folder: Path, predicted: np.ndarray, target: np.ndarray, sizes: np.ndarray) -> dict:
    """Learning curve, parity and errors by size of a run."""
    figures = {
        "parity": plots.parity(target, predicted, sizes),
        "error_by_size": plots.error_by_size(metrics_by_size(predicted, target, sizes)),
    }
    if (folder / "metrics.csv").is_file():
        names = ("epoch", "train_mae", "val_mae", "learning_rate")
        history = read_columns(folder / "metrics.csv", names, "restore it, or remove it to have no learning curve")
        figures["learning_curve"] = plots.learning_curve(*(history[name] for name in names))
    return figures

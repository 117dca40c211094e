"""The report of a screening."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots
from pyg_clusters.analysis.plot_style import MAX_PANELS, save_figure
from pyg_clusters.analysis.report import Report
from pyg_clusters.composition import kind_label
from pyg_clusters.evaluation.run import run_figures
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference import Predictor
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.screening.bins import text_of_bins
from pyg_clusters.screening.candidates import Screening
from pyg_clusters.screening.options import WAYS
from pyg_clusters.screening.plots import picked_by_size
from pyg_clusters.screening.report_structures import add_candidates
from pyg_clusters.units import KCAL_PER_MOL

MANY_SIZES = 5
CAPTIONS = {
    "learning_curve": "Error in training, per cluster, after each epoch.",
    "parity": "Binding energies of the test set, none of which the training saw.",
    "error_by_size": "Error of the test set by cluster size.",
}


def write_report(
    screening: Screening,
    folder: Path,
    predictor: Predictor,
    model: Path,
    truth: str | None = None,
    way: str = "rank",
    bins: int | None = None,
):
    """Writes the report and its figures.

    Args:
        screening: What was found.
        folder: Where to.
        predictor: Of the model, for the energies of the atoms.
        model: Its folder, or its name.
        truth: Name of the true energy.
        way: One of :data:`~pyg_clusters.screening.options.WAYS`.
        bins: Number of bins of energy, where these were used.
    """
    figures = screening_figures(screening, truth)
    for name, figure in figures.items():
        save_figure(figure, folder / "figures" / f"{name}.png")
    make_report(screening, figures, predictor, model, truth, way, bins).write(folder / "report.html")


def make_report(
    screening: Screening,
    figures: dict[str, Figure],
    predictor: Predictor,
    model: Path,
    truth: str | None,
    way: str,
    bins: int | None = None,
) -> Report:
    """What was screened, what was picked, and how good the model is."""
    report = Report("Screening of cluster trajectories")
    sizes = np.unique(screening.size)
    files = ", ".join(dict.fromkeys(Path(name).name for name in screening.file))
    report.text(
        f"{len(screening.energy):,} frames of {_list(sizes)} atoms from {files} were scored with the model in {model}; "
        f"{len(screening.candidates)} of them are the candidates: {WAYS[way]}. Energies are binding energies in eV per "
        "cluster; errors are in kcal/mol per cluster."
    )
    if bins is not None:
        report.text(text_of_bins(screening, bins, model))
    relaxed = [candidate for candidate in screening.candidates if candidate.relaxation]
    if relaxed:
        converged = sum(bool(candidate.relaxation["converged"]) for candidate in relaxed)
        report.text(
            "They were chosen after the lowest frames of each size had been relaxed with the forces of the model; "
            f"{converged} of {len(relaxed)} candidates are converged. Both figures and the table below show the "
            "energies before, those of the candidates are the ones after."
        )
        if screening.num_left_range:
            report.text(
                f"{screening.num_left_range} frames left the geometries that the model was trained on while they were "
                "relaxed (distances, coordination numbers). They were stopped there and come after all others: a frame "
                "is a candidate only where all of its size left them, and `left_range` then says how."
            )
    report.figure(
        figures["trajectory"],
        "Predicted energy along the trajectory, and the frames that were picked."
        + (f" True is what the file calls `{truth}`." if truth else ""),
    )
    report.figure(figures["picked"], "Where the candidates lie among all frames.")
    _add_summary(report, screening, truth)
    add_candidates(report, screening, predictor, truth)
    _add_model(report, model)
    return report


def screening_figures(screening: Screening, truth: str | None) -> dict[str, Figure]:
    """The trajectory with the frames that were picked, and where they lie among all."""
    true = screening.properties.get(truth) if truth else None
    number = np.arange(len(screening.energy))
    few = len(np.unique(screening.kind)) <= MAX_PANELS
    histogram = picked_by_size if few else plots.picked_histogram
    return {
        "trajectory": plots.energy_along_trajectory(number, screening.energy, screening.picked, true, screening.kind),
        "picked": histogram(screening.energy, screening.picked, screening.kind),
    }


def _add_summary(report: Report, screening: Screening, truth: str | None):
    rows = _summary(screening, screening.properties.get(truth) if truth else None)
    kind = next(iter(rows[0]))
    if len(rows) <= MANY_SIZES:  # beside each other, a column for each size
        columns = ["", *(kind_label(row[kind]) for row in rows)]
        lines = [[key, *(row[key] for row in rows)] for key in rows[0] if key != kind]
    else:
        columns, lines = list(rows[0]), [list(row.values()) for row in rows]
    report.table(columns, lines, f"What was picked, by {'composition' if kind == 'composition' else 'cluster size'}.")


def _summary(screening: Screening, true: np.ndarray | None) -> list[dict[str, Any]]:
    rows = []
    kinds = screening.kind
    for kind in np.unique(kinds).tolist():
        of_size = kinds == kind
        predicted, picked = screening.energy[of_size], screening.picked[of_size]
        row: dict[str, object] = {
            "composition" if isinstance(kind, str) else "atoms": kind,
            "frames": int(of_size.sum()),
            "candidates": int(picked.sum()),
            "lowest predicted (eV)": f"{predicted.min():.3f}",
            "highest candidate (eV)": f"{predicted[picked].max():.3f}",
        }
        if true is not None:
            above = (true[of_size][picked].min() - true[of_size].min()) * KCAL_PER_MOL
            metrics = energy_metrics(predicted, true[of_size], screening.size[of_size])
            row["best true energy among them above the lowest (kcal/mol)"] = f"{above:.2f}"
            row["Spearman, predicted against true"] = f"{metrics['spearman_within_size']:.2f}"
            row["MAE (kcal/mol)"] = f"{metrics['mae_kcal_mol']:.1f}"
        rows.append(row)
    return rows


def _add_model(report: Report, model: Path):
    """The figures of the run that trained the model, where they are."""
    predictions = model / "test_predictions.csv"
    if not predictions.is_file():
        return
    table = read_columns(predictions)
    arrays = table["pred_energy"], table["energy"], table["size"].astype(int)
    metrics = energy_metrics(*arrays, table.get("composition"))
    within = "composition" if "composition" in table else "size"
    report.text("## The model")
    report.text(
        f"The model on its test set of {metrics['num_clusters']} clusters: MAE {metrics['mae_kcal_mol']:.2f}, RMSE "
        f"{metrics['rmse_kcal_mol']:.2f} kcal/mol per cluster, {metrics['mae_mev_per_atom']:.1f} meV per atom, rank "
        f"correlation within a {within} {metrics['spearman_within_size']:.2f}."
    )
    figures = run_figures(model, *arrays)
    for name, caption in CAPTIONS.items():
        if name in figures:
            report.figure(figures[name], caption)


def _list(sizes: np.ndarray) -> str:
    return ", ".join(map(str, sizes)) if len(sizes) <= 5 else f"{sizes.min()} to {sizes.max()}"

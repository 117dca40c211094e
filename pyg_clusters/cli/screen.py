"""``pyg-clusters screen``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots
from pyg_clusters.analysis.report import Report
from pyg_clusters.cli.evaluate import read_columns, run_figures
from pyg_clusters.cli.options import add_frame_options
from pyg_clusters.cli.parsing import parse, verb_parser
from pyg_clusters.cli.predict import list_bad, with_progress
from pyg_clusters.cli.runs import predictor_of
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, check_output, write_extxyz, write_table
from pyg_clusters.inference.scoring import check_numbers, score_files
from pyg_clusters.inference.screening import Screening, rank
from pyg_clusters.inference.work import score_log
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.units import KCAL_PER_MOL

MANY_SIZES = 5
RESULTS = ("candidates.extxyz", "candidates.csv", "report.html")
CAPTIONS = {
    "learning_curve": "Error in training, per cluster, after each epoch.",
    "parity": "Binding energies of the test set, none of which the training saw.",
    "error_by_size": "Error of the test set by cluster size.",
}


def run(argv: Sequence[str]):
    """Picks the lowest predicted energies of each cluster size and writes them with a report."""
    parser = verb_parser(
        "screen",
        "The lowest-energy candidates among the frames of trajectories, by cluster size: candidates.extxyz, "
        "candidates.csv and report.html.",
        "pyg-clusters screen runs/dart md.extxyz --top 100 --out screening",
    )
    add_frame_options(parser)
    parser.add_argument("--top", type=int, default=100, help="candidates per cluster size")
    parser.add_argument("--truth", type=str | None, help="name of the true energy (eV) in the frames, for the report")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are in the folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parse(parser, argv)
    if options.top < 1:
        raise InputError(f"--top must be at least 1, got {options.top}")
    present = [name for name in RESULTS if (options.out / name).exists()]
    if present and not options.overwrite:
        raise InputError(
            f"{options.out} holds results already ({', '.join(present)}); pass --overwrite, or another --out"
        )

    for name in RESULTS:
        check_output(options.out / name, options.frames, overwrite=True)

    predictor = predictor_of(options.model, options.device)
    log = score_log(
        options.out / "scores.unfinished",
        predictor,
        options.frames,
        ignore_cell=options.ignore_cell,
        overwrite=options.overwrite,
    )
    blocks = score_files(
        predictor,
        options.frames,
        properties=[options.truth] if options.truth else [],
        with_atoms=True,
        on_bad=options.on_bad,
        ignore_cell=options.ignore_cell,
        half_written="leave",
        log=log,
    )
    if options.truth:
        blocks = (check_numbers(block, options.truth) for block in blocks)
    bad: list[BadFrame] = []
    screening = rank(with_progress(blocks, bad), options.top)
    list_bad(bad)
    if not screening.candidates:
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to choose from")
    write_results(screening, options.out, options.model, options.truth)
    log.remove()
    print(f"{len(screening.candidates)} candidates of {len(screening.energy)} frames in {options.out}:")
    for name in RESULTS:
        print(f"  {options.out / name}")


def write_results(screening: Screening, folder: Path, model: Path, truth: str | None = None):
    """Writes candidates and report."""
    chosen = screening.candidates
    write_extxyz(folder / "candidates.extxyz", _atoms(screening))
    columns: dict[str, list] = {
        "file": [candidate.file for candidate in chosen],
        "frame": [candidate.frame for candidate in chosen],
        "size": [candidate.size for candidate in chosen],
        "rank": [candidate.rank for candidate in chosen],
        "pred_energy": [candidate.energy for candidate in chosen],
    }
    if truth:
        columns[truth] = [candidate.properties[truth] for candidate in chosen]
    write_table(folder / "candidates.csv", columns)
    for name, figure in screening_figures(screening, truth).items():
        plots.save_figure(figure, folder / "figures" / f"{name}.png")
    make_report(screening, model, truth).write(folder / "report.html")


def make_report(screening: Screening, model: Path, truth: str | None) -> Report:
    """What was screened, what was picked, and how good the model is."""
    report = Report("Screening of cluster trajectories")
    sizes = np.unique(screening.size)
    files = ", ".join(dict.fromkeys(Path(name).name for name in screening.file))
    report.text(
        f"{len(screening.energy):,} frames of {_list(sizes)} atoms from {files} were scored with the model in {model}; "
        f"the {len(screening.candidates)} lowest predicted energies are the candidates. Energies are binding energies "
        "in eV per cluster; errors are in kcal/mol per cluster."
    )
    true = screening.properties.get(truth) if truth else None
    figures = screening_figures(screening, truth)
    report.figure(
        figures["trajectory"],
        "Predicted energy along the trajectory, and the frames that were picked."
        + (f" True is what the file calls `{truth}`." if truth else ""),
    )
    report.figure(figures["picked"], "Where the candidates lie among all frames.")
    rows = _summary(screening, true)
    if len(rows) <= MANY_SIZES:  # beside each other, a column for each size
        columns = ["", *(f"{row['atoms']} atoms" for row in rows)]
        lines = [[key, *(row[key] for row in rows)] for key in rows[0] if key != "atoms"]
    else:
        columns, lines = list(rows[0]), [list(row.values()) for row in rows]
    report.table(columns, lines, "What was picked, by cluster size.")
    lowest = screening.candidates[:10]
    labels = [f"{candidate.rank}: frame {candidate.frame}, {candidate.energy:.2f} eV" for candidate in lowest]
    report.structures([candidate.atoms for candidate in lowest], labels, "The first candidates.")
    _add_model(report, model)
    return report


def screening_figures(screening: Screening, truth: str | None) -> dict[str, Figure]:
    """The trajectory with the frames that were picked, and where they lie among all."""
    true = screening.properties.get(truth) if truth else None
    number = np.arange(len(screening.energy))
    return {
        "trajectory": plots.energy_along_trajectory(number, screening.energy, screening.picked, true, screening.size),
        "picked": plots.picked_histogram(screening.energy, screening.picked, screening.size),
    }


def _summary(screening: Screening, true: np.ndarray | None) -> list[dict[str, object]]:
    rows = []
    for size in np.unique(screening.size):
        of_size = screening.size == size
        predicted, picked = screening.energy[of_size], screening.picked[of_size]
        row: dict[str, object] = {
            "atoms": int(size),
            "frames": int(of_size.sum()),
            "candidates": int(picked.sum()),
            "lowest predicted (eV)": f"{predicted.min():.3f}",
            "highest candidate (eV)": f"{predicted[picked].max():.3f}",
        }
        if true is not None:
            above = (true[of_size][picked].min() - true[of_size].min()) * KCAL_PER_MOL
            metrics = energy_metrics(predicted, true[of_size], np.full(len(predicted), size))
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
    metrics = energy_metrics(*arrays)
    report.text(
        f"The model on its test set of {metrics['num_clusters']} clusters: MAE {metrics['mae_kcal_mol']:.2f}, RMSE "
        f"{metrics['rmse_kcal_mol']:.2f} kcal/mol per cluster, {metrics['mae_mev_per_atom']:.1f} meV per atom, rank "
        f"correlation within a size {metrics['spearman_within_size']:.2f}."
    )
    figures = run_figures(model, *arrays)
    for name, caption in CAPTIONS.items():
        if name in figures:
            report.figure(figures[name], caption)


def _atoms(screening: Screening) -> Iterator[Atoms]:
    for candidate in screening.candidates:
        atoms = candidate.atoms.copy()
        atoms.info |= {
            "pred_energy": candidate.energy,
            "file": candidate.file,
            "frame": candidate.frame,
            "rank": candidate.rank,
        }
        yield atoms


def _list(sizes: np.ndarray) -> str:
    return ", ".join(map(str, sizes)) if len(sizes) <= 5 else f"{sizes.min()} to {sizes.max()}"

"""``pyg-clusters screen``."""

import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from jsonargparse import Namespace
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots
from pyg_clusters.analysis.plot_style import MAX_PANELS, save_figure
from pyg_clusters.analysis.plots_screening import picked_by_size
from pyg_clusters.analysis.report import Report
from pyg_clusters.cli.evaluate import read_columns, run_figures
from pyg_clusters.cli.options import add_frame_options
from pyg_clusters.cli.parsing import parse, verb_parser
from pyg_clusters.cli.predict import list_bad, with_progress
from pyg_clusters.cli.runs import predictor_of
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock, Frames, check_output, write_extxyz, write_table
from pyg_clusters.frames.folders import VACUUM, check_folders, write_folders
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.choosing import (
    Choice,
    bin_width,
    cluster_features,
    farthest,
    lowest_of_bins,
    lowest_of_cells,
    lowest_unique,
    mean_shell_counts,
)
from pyg_clusters.inference.scoring import ScoredBlock, check_numbers, score_files
from pyg_clusters.inference.screening import Candidate, Screening, choose, choose_again, rank
from pyg_clusters.inference.uniqueness import SAME_STRUCTURE
from pyg_clusters.inference.work import score_log
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.models.checkpoint import is_ensemble, model_folder, read_configuration
from pyg_clusters.units import KCAL_PER_MOL

MANY_SIZES = 5
BINS = 100
"""Default number of bins, the paper's."""
POOLS = {"unique": 10, "diverse": 3}
"""Among how many times as many of the lowest frames as are wanted the distinct or diverse ones are sought."""
BINNED = ("bins", "descriptor-bins")
WAYS = {
    "rank": "the lowest predicted energies",
    "bins": "the lowest frames of equal-width bins of predicted energy",
    "descriptor-bins": "the lowest frames of the cells of a grid over the mean descriptor, for comparison",
    "unique": "the lowest predicted energies of distinct structures",
    "diverse": "the frames of low predicted energy that differ most from each other to the model",
}
RESULTS = ("candidates.extxyz", "candidates.csv", "report.html")
CAPTIONS = {
    "learning_curve": "Error in training, per cluster, after each epoch.",
    "parity": "Binding energies of the test set, none of which the training saw.",
    "error_by_size": "Error of the test set by cluster size.",
}


def run(argv: Sequence[str]):
    """Picks candidates of each cluster size and writes them with a report."""
    parser = verb_parser(
        "screen",
        "The lowest-energy candidates among the frames of trajectories, by cluster size: candidates.extxyz, "
        "candidates.csv (file, frame, size, rank, predicted energy, why chosen) and report.html.",
        "pyg-clusters screen runs/dart md.extxyz --top 100 --out screening",
    )
    add_frame_options(parser)
    parser.add_argument(
        "--choose",
        type=Literal["rank", "bins", "descriptor-bins", "unique", "diverse"],
        default="rank",
        help="; ".join(f"{way}: {what}" for way, what in WAYS.items()),
    )
    parser.add_argument("--top", type=int, default=100, help="candidates per cluster size, at most (not of bins)")
    parser.add_argument("--bins", type=int | None, help=f"number of bins per cluster size, {BINS} if not given")
    parser.add_argument(
        "--tolerance",
        type=float | None,
        help="for unique: structures are copies if their atoms can be brought this near each other (root mean square "
        f"in Å), {SAME_STRUCTURE} if not given",
    )
    parser.add_argument(
        "--pool",
        type=int | None,
        help="for unique and diverse: lowest frames of a size to choose among, 10 and 3 times --top if not given",
    )
    parser.add_argument("--truth", type=str | None, help="name of the true energy (eV) in the frames, for the report")
    parser.add_argument(
        "--write",
        type=str | None,
        help="write each candidate to a folder of its own, too, in this format of ASE (vasp: POSCAR, aims, xyz, ...)",
    )
    parser.add_argument(
        "--vacuum", type=float, default=VACUUM, help="Å between a candidate and its box in these; 0: no box"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are in the folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parse(parser, argv)
    _check_choice(options)
    present = [name for name in RESULTS if (options.out / name).exists()]
    if present and not options.overwrite:
        raise InputError(
            f"{options.out} holds results already ({', '.join(present)}); pass --overwrite, or another --out"
        )

    for name in RESULTS:
        check_output(options.out / name, options.frames, overwrite=True)
    if options.write:
        check_folders(options.out / options.write, options.write)

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
        with_atoms=options.choose not in BINNED,
        on_bad=options.on_bad,
        ignore_cell=options.ignore_cell,
        half_written="leave",
        log=log,
    )
    if options.truth:
        blocks = (check_numbers(block, options.truth) for block in blocks)
    bad: list[BadFrame] = []
    screening = _screen(with_progress(blocks, bad), options, predictor)
    list_bad(bad)
    if not screening.candidates:
        raise InputError(f"no frame of {', '.join(options.frames)} can be used: nothing to choose from")
    if options.choose == "bins":
        warn_of_narrow_bins(screening, options.bins or BINS, options.model)
    write_candidates(screening, options.out, options.truth)
    write_report(screening, options.out, options.model, options.truth, options.choose)
    if options.write:
        structures = [candidate.atoms for candidate in screening.candidates]
        write_folders(options.out / options.write, structures, options.write, options.vacuum)
    log.remove()
    print(f"{len(screening.candidates)} candidates of {len(screening.energy)} frames in {options.out}:")
    for name in RESULTS:
        print(f"  {options.out / name}")
    if options.write:
        print(f"  {options.out / options.write}{os.sep} (a folder each)")


def _check_choice(options: Namespace):
    for name, ways in {"bins": BINNED, "tolerance": ("unique",), "pool": ("unique", "diverse")}.items():
        if getattr(options, name) is not None and options.choose not in ways:
            raise InputError(f"--{name} goes with --choose {' or '.join(ways)}, not with {options.choose}")
    for name in ("top", "bins", "pool"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if options.tolerance is not None and not (math.isfinite(options.tolerance) and options.tolerance > 0):
        raise InputError(f"--tolerance must be positive (in Å), got {options.tolerance:g}")
    if not (math.isfinite(options.vacuum) and options.vacuum >= 0):
        raise InputError(f"--vacuum must be a length in Å, or 0 for no box, got {options.vacuum:g}")


def _screen(blocks: Iterator[ScoredBlock], options: Namespace, predictor: Predictor) -> Screening:
    if options.choose in BINNED:
        return _screen_by_bins(blocks, options, predictor)
    if options.choose == "rank":
        return rank(blocks, options.top)
    pool = options.pool or POOLS[options.choose] * options.top

    def way(candidates: list[Candidate]) -> Choice:
        energy = np.array([candidate.energy for candidate in candidates])
        z = np.array([candidate.atoms.numbers for candidate in candidates])
        pos = np.array([candidate.atoms.positions for candidate in candidates])
        if options.choose == "diverse":
            return farthest(energy, cluster_features(predictor.model, z, pos), options.top)
        ptr = np.arange(len(z) + 1) * z.shape[1]
        tolerance = options.tolerance or SAME_STRUCTURE
        choice = lowest_unique(energy, z.ravel(), pos.reshape(-1, 3), ptr, options.top, tolerance)
        if len(choice.places) < options.top and len(candidates) == pool:
            warnings.warn(
                f"{len(choice.places)} distinct structures among the {pool} lowest frames of {z.shape[1]} atoms, "
                f"{options.top} were wanted; a larger --pool may find more",
                stacklevel=2,
            )
        return choice

    return choose_again(rank(blocks, pool), way)


def _screen_by_bins(blocks: Iterator[ScoredBlock], options: Namespace, predictor: Predictor) -> Screening:
    number = options.bins or BINS
    keys = [options.truth] if options.truth else []

    def reread() -> Iterator[FrameBlock]:
        frames = Frames.open(
            options.frames, properties=keys, with_atoms=True, on_bad=options.on_bad, half_written="leave"
        )
        return frames.blocks()

    def describe(frames: FrameBlock) -> np.ndarray:
        return mean_shell_counts(frames.pos, frames.ptr, getattr(predictor.model, "radii", GALLIUM_RADII))

    if options.choose == "bins":
        return choose(blocks, lambda energy, _: lowest_of_bins(energy, number), reread)
    return choose(blocks, lambda energy, counts: lowest_of_cells(energy, counts, number), reread, describe)


def warn_of_narrow_bins(screening: Screening, num_bins: int, model: Path):
    """Says so where bins are narrower than the error of the model: it cannot tell the frames of two of them apart."""
    error = error_on_test_set(model)
    if error is None:
        return
    widths = {
        int(size): KCAL_PER_MOL * bin_width(screening.energy[screening.size == size], num_bins)
        for size in np.unique(screening.size)
    }
    narrow = {size: width for size, width in widths.items() if width < error}
    if narrow:
        size, width = min(narrow.items(), key=lambda item: item[1])
        others = f" and of {len(narrow) - 1} other sizes" if len(narrow) > 1 else ""
        warnings.warn(
            f"the bins of {size} atoms{others} are {width:.2f} kcal/mol wide, narrower than the error of the model on "
            f"its test set ({error:.2f} kcal/mol); it does not tell neighbouring bins apart, fewer --bins would do",
            stacklevel=2,
        )


def error_on_test_set(model: Path) -> float | None:
    """Mean absolute error of a model on its test set in kcal/mol per cluster, where its run or its notes tell it."""
    metrics = model / "test_metrics.json"
    if metrics.is_file():
        return json.loads(metrics.read_text())["overall"].get("mae_kcal_mol")
    if is_ensemble(model):
        return None
    return read_configuration(model_folder(model)).get("notes", {}).get("test_mae_kcal_mol")


def write_candidates(screening: Screening, folder: Path, truth: str | None = None):
    """Writes the candidates and their table."""
    chosen = screening.candidates
    write_extxyz(folder / "candidates.extxyz", _atoms(screening))
    columns: dict[str, list] = {
        "file": [candidate.file for candidate in chosen],
        "frame": [candidate.frame for candidate in chosen],
        "size": [candidate.size for candidate in chosen],
        "rank": [candidate.rank for candidate in chosen],
        "pred_energy": [candidate.energy for candidate in chosen],
        "why": [candidate.why for candidate in chosen],
    }
    if truth:
        columns[truth] = [candidate.properties[truth] for candidate in chosen]
    write_table(folder / "candidates.csv", columns)


def write_report(screening: Screening, folder: Path, model: Path, truth: str | None = None, way: str = "rank"):
    """Writes the report and its figures."""
    for name, figure in screening_figures(screening, truth).items():
        save_figure(figure, folder / "figures" / f"{name}.png")
    make_report(screening, model, truth, way).write(folder / "report.html")


def make_report(screening: Screening, model: Path, truth: str | None, way: str = "rank") -> Report:
    """What was screened, what was picked, and how good the model is."""
    report = Report("Screening of cluster trajectories")
    sizes = np.unique(screening.size)
    files = ", ".join(dict.fromkeys(Path(name).name for name in screening.file))
    report.text(
        f"{len(screening.energy):,} frames of {_list(sizes)} atoms from {files} were scored with the model in {model}; "
        f"{len(screening.candidates)} of them are the candidates: {WAYS[way]}. Energies are binding energies in eV per "
        "cluster; errors are in kcal/mol per cluster."
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
    few = len(np.unique(screening.size)) <= MAX_PANELS
    histogram = picked_by_size if few else plots.picked_histogram
    return {
        "trajectory": plots.energy_along_trajectory(number, screening.energy, screening.picked, true, screening.size),
        "picked": histogram(screening.energy, screening.picked, screening.size),
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
            "why": candidate.why,
        }
        yield atoms


def _list(sizes: np.ndarray) -> str:
    return ", ".join(map(str, sizes)) if len(sizes) <= 5 else f"{sizes.min()} to {sizes.max()}"

"""Report of a screening: figures, interactive 3D structures and a table of the candidates."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots
from pyg_clusters.analysis.info import model_card
from pyg_clusters.analysis.report import MAX_ATOMS, Property, Report, literal, shown_first, viewer_section
from pyg_clusters.composition import above_element_mean, kind_label
from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.evaluation.result import run_figures
from pyg_clusters.frames.paths import short_names
from pyg_clusters.frames.writing import read_columns
from pyg_clusters.inference import Predictor
from pyg_clusters.inference.flags import text_of_flags
from pyg_clusters.inference.run import Run
from pyg_clusters.metrics import energy_metrics
from pyg_clusters.screening.candidates import Candidate, Screening
from pyg_clusters.strategies import Strategy, bin_width
from pyg_clusters.terminal import count_of
from pyg_clusters.units import KCAL_PER_MOL, MEV

MANY_SIZES = 5
FILES = {
    "candidates.extxyz": "structures of the candidates, with their energies and origins",
    "candidates.csv": "the table of the candidates",
    "figures/trajectory.png": "energies along the trajectories",
    "figures/distribution.png": "the distribution of the energies",
}
"""Other files in the folder of the report."""
CAPTIONS = {
    "learning_curve": "Error during training, per cluster, after each epoch.",
    "parity": "Energies of the test set, which was not used in training.",
    "error_by_size": "Error on the test set by cluster size.",
}
ROWS = 40  # approximate number of candidates in the table of the report
SHORT = {
    "predicted energy": "predicted",
    "predicted energy above the lowest": "above lowest",
    "energy before relaxing": "before relaxing",
    "true energy": "true",
    "true energy above the lowest": "true above lowest",
}
"""Short headings of columns of the table."""
RELAXATION = {"energy before relaxing": "initial_pred_energy", "largest force": "model_fmax", "steps": "model_steps"}
UNITS = {"initial_pred_energy": "eV", "model_fmax": "eV/Å"}
OF_ATOM = "energy above the mean / meV"
"""Property that colours the atoms, relative to their element; its range is small compared with the energies."""


def make_report(
    screening: Screening,
    folder: Path,
    predictor: Predictor,
    model: Run,
    strategy: Strategy,
    command: str = "pyg-clusters screen",
) -> Report:
    """HTML report of the candidates selected by a strategy, to be written to a folder."""
    figures = screening_figures(screening)
    report = Report("Screening of cluster trajectories")
    report.origin(command)
    _add_introduction(report, screening, model, strategy)
    text = f" The true energies are `{literal(screening.truth)}` of the files." if screening.truth else ""
    what, all_ = ("energy", "all") if screening.relaxed is None else ("energy after the relaxation", "the relaxed")
    report.figure(
        figures["trajectory"], f"Predicted {what} along the trajectory, and the candidates.{text}", "trajectory"
    )
    report.figure(figures["distribution"], f"The candidates in the distribution of {all_} frames.", "distribution")
    _add_summary(report, screening)
    report.text("## Candidates")
    try:
        _add_viewer(report, screening, predictor)
    except MissingExtra as error:
        message = literal(error)
        report.text(f"{message[0].upper()}{message[1:]}.")
    _add_table(report, screening)
    report.next_steps(
        FILES,
        "Calculate the energies of the candidates by DFT (`--write vasp` writes a folder for each), and compare "
        f"them with the predictions: `pyg-clusters compare-dft {folder} {folder}/vasp/*/OUTCAR`.",
    )
    _add_model(report, model)
    return report


def screening_figures(screening: Screening) -> dict[str, Figure]:
    """Energies along the trajectory and their distribution, each with the candidates."""
    shown, energy = screening.compared
    true = None if screening.true is None else screening.true[shown]
    picked, kind = screening.picked[shown], screening.kind[shown]
    frames = count_of(len(shown), "frame" if screening.relaxed is None else "relaxed frame")
    title = f"{count_of(int(picked.sum()), 'candidate')} of {frames}"
    if len(screening.energy) > len(shown):
        title += f", the lowest of {len(screening.energy):,}"
    return {
        "trajectory": plots.energy_along_trajectory(shown, energy, picked, true, kind, title=title),
        "distribution": plots.picked_histogram(energy, picked, kind),
    }


def _add_introduction(report: Report, screening: Screening, model: Run, strategy: Strategy):
    sizes = np.unique(screening.size)
    listed = ", ".join(map(str, sizes)) if len(sizes) <= 5 else f"{sizes.min()} to {sizes.max()}"
    was = "was" if len(screening.energy) == 1 else "were"
    files = ", ".join(dict.fromkeys(literal(Path(name).name) for name in screening.file))
    report.text(
        f"{count_of(len(screening.energy), 'frame')} of {listed} atoms from {files} {was} scored with the model "
        f"{literal(model.path)}; {len(screening.candidates):,} of them are the candidates: {strategy.purpose}. "
        "Energies are in eV per cluster, with the zero of the training labels; errors are in kcal/mol per cluster."
    )
    if screening.flagged is not None and screening.flagged.any():
        report.text(
            f"**{text_of_flags(int(screening.flagged.sum()), len(screening.energy))}** of the model (compositions, "
            "sizes, distances, neighbour counts): their energies are less certain. `pyg-clusters predict` lists the "
            "reasons."
        )
    relaxed = [candidate for candidate in screening.candidates if candidate.relaxation]
    if relaxed:
        converged = sum(bool(candidate.relaxation["converged"]) for candidate in relaxed)
        report.text(
            "The candidates were selected after the lowest frames of each size had been relaxed with the forces of the "
            f"model; {converged} of {count_of(len(relaxed), 'candidate')} are converged. Figures, summary and "
            "candidates show the energies after the relaxation."
        )
        if screening.num_left_range:
            report.text(
                f"{count_of(screening.num_left_range, 'frame')} left the geometries of the training set (distances, "
                "coordination numbers) during the relaxation; they were stopped there and ranked last. Such a frame is "
                "a candidate only if all frames of its size left them; `left_range` gives the reason."
            )


def warn_of_narrow_bins(screening: Screening, num_bins: int, model: Run):
    """Warn about bins that are narrower than the error of the model, which cannot tell neighbouring bins apart."""
    error = model.test_error
    if error is None or num_bins == 1:
        return
    narrow = {kind: width for kind, width in widths_of_bins(screening, num_bins).items() if width < error}
    if narrow:
        kind, width = min(narrow.items(), key=lambda item: item[1])
        others = f" and of {len(narrow) - 1} other {'compositions' if isinstance(kind, str) else 'sizes'}"
        warnings.warn(
            f"the bins of {kind_label(kind)}{others if len(narrow) > 1 else ''} are {width:.2f} kcal/mol wide, "
            f"narrower than the error of the model on its test set ({error:.2f} kcal/mol), so it cannot tell "
            "neighbouring bins apart; decrease --bins",
            stacklevel=2,
        )


def widths_of_bins(screening: Screening, num_bins: int) -> dict[int | str, float]:
    """Width of the bins of each size (for alloys: composition) with several frames, in kcal/mol."""
    kinds, counts = np.unique(screening.kind, return_counts=True)
    return {
        kind: KCAL_PER_MOL * bin_width(screening.energy[screening.kind == kind], num_bins)
        for kind in kinds[counts > 1].tolist()
    }


def _add_summary(report: Report, screening: Screening):
    rows = _summary(screening)
    kind = next(iter(rows[0]))
    if len(rows) <= MANY_SIZES:  # a column for each size
        columns = ["", *(kind_label(row[kind]) for row in rows)]
        lines = [[key, *(row[key] for row in rows)] for key in rows[0] if key != kind]
    else:
        columns, lines = list(rows[0]), [list(row.values()) for row in rows]
    report.table(columns, lines, f"Summary by {'composition' if kind == 'composition' else 'cluster size'}.")


def _summary(screening: Screening) -> list[dict[str, Any]]:
    rows, regrets = [], {} if screening.true is None else screening.regrets()
    shown, energy = screening.compared
    kinds, picks, sizes = screening.kind[shown], screening.picked[shown], screening.size[shown]
    for kind in np.unique(kinds).tolist():
        of_kind = kinds == kind
        predicted, picked = energy[of_kind], picks[of_kind]
        row: dict[str, object] = {
            "composition" if isinstance(kind, str) else "atoms": kind,
            "frames": int((screening.kind == kind).sum()),
            **({} if screening.relaxed is None else {"relaxed frames": int(of_kind.sum())}),
            "candidates": int(picked.sum()),
            "lowest predicted (eV)": f"{predicted.min():.3f}",
            "highest candidate (eV)": f"{predicted[picked].max():.3f}",
        }
        if screening.true is not None:
            metrics = energy_metrics(predicted, screening.true[shown][of_kind], sizes[of_kind])
            row["lowest true energy of the candidates, above that of all frames (kcal/mol)"] = f"{regrets[kind]:.2f}"
            row["Spearman, predicted against true"] = f"{metrics['spearman_within_size']:.2f}"
            row["MAE (kcal/mol)"] = f"{metrics['mae_kcal_mol']:.1f}"
        rows.append(row)
    return rows


def _add_viewer(report: Report, screening: Screening, predictor: Predictor):
    """Add interactive 3D structures of the candidates.

    Raises:
        MissingExtra: Without chemiscope.
    """
    candidates = screening.candidates
    shown = [candidates[index] for index in shown_first([candidate.size for candidate in candidates])]
    atoms = [candidate.atoms for candidate in shown]
    properties = candidate_properties(screening, shown)
    energies = predictor.atomic_energies(atoms, fragments="keep")
    caption = (
        "Each point is a candidate: click on it to see its structure, and drag the structure to rotate it. The "
        "buttons with three bars open the settings."
    )
    if energies is not None:
        shares = np.concatenate(energies)
        properties["energy of the atom"] = Property(shares, "eV", of_atoms=True)
        above_mean = above_element_mean(shares, np.concatenate([one.numbers for one in atoms]))
        properties[OF_ATOM] = Property(MEV * above_mean, of_atoms=True)
        caption += (
            " Atoms are coloured by their contributions to the predicted energy, relative to the mean of their element."
        )
    if len(shown) < len(candidates):
        caption += (
            f" Only the first {len(shown):,} of {len(candidates):,} candidates are shown, size by size, because a page "
            f"shows at most {MAX_ATOMS:,} atoms. All are in `candidates.extxyz`."
        )
    several = len({candidate.size for candidate in shown}) > 1
    section = viewer_section(
        atoms,
        properties,
        x="predicted energy above the lowest" if screening.truth else "rank",
        y="true energy above the lowest" if screening.truth else "predicted energy above the lowest",
        color="atoms" if several else "spread" if "spread" in properties else "rank",
        atom_color=None if energies is None else OF_ATOM,
    )
    report.viewer(section, caption)


def candidate_properties(screening: Screening, candidates: Sequence[Candidate]) -> dict[str, Property]:
    """Properties of some candidates of a screening by name."""
    energy = np.array([candidate.energy for candidate in candidates])
    kind = np.array([screening.kind_of(candidate) for candidate in candidates])
    relaxed = [candidate for candidate in screening.candidates if candidate.relaxation]
    compared, energies = screening.compared
    all_energies = (energies, screening.kind[compared])
    properties = {
        "rank": Property(np.array([candidate.rank for candidate in candidates])),
        "atoms": Property(np.array([candidate.size for candidate in candidates])),
        "predicted energy": Property(energy, "eV"),
        "predicted energy above the lowest": Property(energy - _lowest(*all_energies, kind), "eV"),
    }
    if screening.has_alloys:
        properties["composition"] = Property(kind)
    if screening.spread is not None:
        properties["spread"] = Property(np.array([one.spread for one in candidates], dtype=float), "eV")
    if relaxed:
        for name, key in RELAXATION.items():
            values = np.array([one.relaxation[key] for one in candidates])
            properties[name] = Property(values, UNITS.get(key, ""))
        if not all(one.inside for one in candidates):
            properties["left range"] = Property(np.array([str(one.relaxation["left_range"]) for one in candidates]))
    if len(np.unique(screening.file)) > 1 or any(one.source_file != one.file for one in candidates):
        files = short_names(one.source_file for one in candidates)
        properties["source_file"] = Property(np.array([files[one.source_file] for one in candidates]))
    properties["source_frame"] = Property(np.array([one.source_frame for one in candidates]))
    if screening.true is not None:
        true = screening.true[[one.index for one in candidates]]
        above = true - _lowest(screening.true, screening.kind, kind)
        properties |= {"true energy": Property(true, "eV"), "true energy above the lowest": Property(above, "eV")}
    return properties


def _lowest(energy: np.ndarray, kinds: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Lowest energy of all frames, for each of the given sizes or compositions."""
    lowest = {kind: energy[kinds == kind].min() for kind in np.unique(of).tolist()}
    return np.array([lowest[kind] for kind in of.tolist()])


def _add_table(report: Report, screening: Screening):
    """Add a table of the first candidates of each size."""
    candidates = screening.candidates
    kinds = [screening.kind_of(candidate) for candidate in candidates]
    begin = {kind: kinds.index(kind) for kind in set(kinds)}
    each = -(-ROWS // len(begin))
    shown = [one for index, one in enumerate(candidates) if index - begin[kinds[index]] < each]
    columns: dict[str, Sequence[object]] = {}
    for name, values in candidate_properties(screening, shown).items():
        columns[f"{SHORT.get(name, name)} ({values.unit})" if values.unit else name] = values.values.tolist()
    columns["reason"] = [candidate.reason for candidate in shown]
    caption = "The candidates."
    if len(shown) < len(candidates):
        caption = f"The first {each} candidates of each size, of {len(candidates):,} in total."
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    report.table(list(columns), rows, f"{caption} All columns are in candidates.csv.")


def _add_model(report: Report, model: Run):
    """Add the card of the model, and the results of the run that trained it, if available."""
    report.text("## The model")
    with suppress(InputError):  # a model without its own folder
        report.text("\n\n".join(model_card(model)))
    predictions = model.path / "test_predictions.csv"
    if model.metrics is None or not predictions.is_file():
        return
    remedy = f"recreate it with pyg-clusters evaluate {model.path}"
    table = read_columns(predictions, ("pred_energy", "energy", "size"), remedy)
    arrays = table["pred_energy"], table["energy"], table["size"].astype(int)
    metrics = energy_metrics(*arrays, table.get("composition"))
    text = (
        f"The model on its test set of {metrics['num_clusters']} clusters: MAE {metrics['mae_kcal_mol']:.2f}, RMSE "
        f"{metrics['rmse_kcal_mol']:.2f} kcal/mol per cluster, {metrics['mae_mev_per_atom']:.1f} meV per atom"
    )
    if np.isfinite(spearman := metrics["spearman_within_size"]):
        text += f", rank correlation within a {'composition' if 'composition' in table else 'size'} {spearman:.2f}"
    report.text(f"{text}.")
    figures = run_figures(model.path, *arrays)
    for name, caption in CAPTIONS.items():
        if name in figures:
            report.figure(figures[name], caption)

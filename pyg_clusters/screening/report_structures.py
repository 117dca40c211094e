"""The candidates in the report of a screening: structures that can be turned, and a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyg_clusters.analysis.report import Report
from pyg_clusters.analysis.viewer import MAX_ATOMS, Property, shown_first
from pyg_clusters.errors import MissingExtra
from pyg_clusters.inference import Predictor
from pyg_clusters.screening.candidates import Candidate, Screening

DRAWN = 10
"""Candidates that are drawn where they cannot be turned."""
ROWS = 40
"""Candidates in the table of the report, about."""
SHORT = {
    "predicted energy": "predicted",
    "predicted energy above the lowest": "above lowest",
    "energy before relaxing": "before relaxing",
    "true energy": "true",
    "true energy above the lowest": "true above lowest",
}
"""Headings of its columns."""
RELAXATION = {"energy before relaxing": "initial_pred_energy", "largest force": "model_fmax", "steps": "model_steps"}
UNITS = {"initial_pred_energy": "eV", "model_fmax": "eV/Å"}
OF_ATOM = "energy of the atom above the mean / meV"
"""What colours the atoms: its differences are small beside the energies."""


def add_candidates(report: Report, screening: Screening, predictor: Predictor, truth: str | None = None):
    """Adds the candidates as structures and as a table."""
    report.text("## Candidates")
    try:
        _add_viewer(report, screening, predictor, truth)
    except MissingExtra:
        first = screening.candidates[:DRAWN]
        labels = [f"{candidate.rank}: frame {candidate.source_frame}, {candidate.energy:.2f} eV" for candidate in first]
        report.structures([candidate.atoms for candidate in first], labels, "The first candidates.")
        report.text("`pip install 'pyg-clusters[report]'` makes of these drawings structures that can be turned.")
    _add_table(report, screening, truth)


def _add_viewer(report: Report, screening: Screening, predictor: Predictor, truth: str | None):
    everything = screening.candidates
    chosen = [everything[place] for place in shown_first([candidate.size for candidate in everything])]
    atoms = [candidate.atoms for candidate in chosen]
    properties = candidate_properties(screening, chosen, truth)
    energies = predictor.atomic_energies(atoms)
    if energies is not None:
        shares = np.concatenate(energies)
        properties["energy of the atom"] = Property(shares, "eV", of_atoms=True)
        properties[OF_ATOM] = Property(1000 * (shares - shares.mean()), of_atoms=True)
    caption = (
        "A point for each candidate: click on it to see its structure, drag the structure to turn it. The buttons with "
        "three bars change what is shown."
    )
    caption += (
        " The colour of an atom is its share in the predicted energy, above the mean of all."
        if energies is not None
        else ""
    )
    if len(chosen) < len(everything):
        caption += (
            f" The first {len(chosen):,} of {len(everything):,} candidates, size by size: a page shows at most "
            f"{MAX_ATOMS:,} atoms. All are in `candidates.extxyz`."
        )
    several = len({candidate.size for candidate in chosen}) > 1
    report.viewer(
        atoms,
        properties,
        caption,
        x="predicted energy above the lowest" if truth else "rank",
        y="true energy above the lowest" if truth else "predicted energy above the lowest",
        color="atoms" if several else "spread" if "spread" in properties else "rank",
        atom_color=None if energies is None else OF_ATOM,
    )


def candidate_properties(
    screening: Screening, chosen: Sequence[Candidate], truth: str | None = None
) -> dict[str, Property]:
    """What is known of candidates, by name.

    Args:
        screening: All frames that were scored.
        chosen: Some of its candidates.
        truth: Name of the true energy.
    """
    size = np.array([candidate.size for candidate in chosen])
    energy = np.array([candidate.energy for candidate in chosen])
    relaxed = [candidate for candidate in screening.candidates if candidate.relaxation]
    kind = np.array([screening.kind_of(candidate) for candidate in chosen])
    everything = (screening.energy, screening.kind)
    if relaxed:  # these energies are lower than those of all frames
        everything = (np.array([one.energy for one in relaxed]), np.array([screening.kind_of(one) for one in relaxed]))
    properties = {
        "rank": Property(np.array([candidate.rank for candidate in chosen])),
        "atoms": Property(size),
        "predicted energy": Property(energy, "eV"),
        "predicted energy above the lowest": Property(energy - _lowest(*everything, kind), "eV"),
    }
    if kind.dtype.kind == "U":
        properties["composition"] = Property(kind)
    if screening.spread is not None:
        properties["spread"] = Property(np.array([candidate.spread for candidate in chosen], dtype=float), "eV")
    if relaxed:
        for name, key in RELAXATION.items():
            properties[name] = Property(np.array([float(one.relaxation[key]) for one in chosen]), UNITS.get(key, ""))
        if not all(one.inside for one in chosen):
            properties["left range"] = Property(np.array([str(one.relaxation["left_range"]) for one in chosen]))
    if len(np.unique(screening.file)) > 1 or any(one.source_file != one.file for one in chosen):
        properties["source_file"] = Property(np.array([Path(candidate.source_file).name for candidate in chosen]))
    properties["source_frame"] = Property(np.array([candidate.source_frame for candidate in chosen]))
    if truth:
        true = np.array([candidate.properties[truth] for candidate in chosen], dtype=float)
        above = true - _lowest(screening.properties[truth], screening.kind, kind)
        properties |= {"true energy": Property(true, "eV"), "true energy above the lowest": Property(above, "eV")}
    return properties


def _lowest(energy: np.ndarray, sizes: np.ndarray, of_sizes: np.ndarray) -> np.ndarray:
    """Lowest energy of all frames of each of some sizes or compositions."""
    lowest = {size: energy[sizes == size].min() for size in np.unique(of_sizes).tolist()}
    return np.array([lowest[size] for size in of_sizes.tolist()])


def _add_table(report: Report, screening: Screening, truth: str | None):
    """The first candidates, as many of each size."""
    everything = screening.candidates
    kinds = [screening.kind_of(candidate) for candidate in everything]
    begin = {kind: kinds.index(kind) for kind in set(kinds)}
    each = -(-ROWS // len(begin))
    chosen = [one for place, one in enumerate(everything) if place - begin[kinds[place]] < each]
    columns: dict[str, Sequence[object]] = {}
    for name, given in candidate_properties(screening, chosen, truth).items():
        columns[f"{SHORT.get(name, name)} ({given.unit})" if given.unit else name] = given.values.tolist()
    columns["reason"] = [candidate.why for candidate in chosen]
    caption = "The candidates."
    if len(chosen) < len(everything):
        caption = f"The first {each} candidates of each size, of {len(everything):,} in all."
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    report.table(list(columns), rows, f"{caption} All that is known of them is in candidates.csv.")

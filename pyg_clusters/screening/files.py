"""The candidates of a screening, written."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ase import Atoms

from pyg_clusters.frames import write_extxyz, write_table
from pyg_clusters.frames.provenance import (
    EARLIER,
    ENERGY_PREDICTION,
    INITIAL,
    SOURCE_FILE,
    SOURCE_FRAME,
    set_origin,
    write_values,
)
from pyg_clusters.screening.candidates import Screening


def write_candidates(screening: Screening, folder: Path, truth: str | None = None):
    """Writes the candidates and their table."""
    chosen = screening.candidates
    write_extxyz(folder / "candidates.extxyz", _atoms(screening))
    columns: dict[str, list] = {
        SOURCE_FILE: [candidate.source_file for candidate in chosen],
        SOURCE_FRAME: [candidate.source_frame for candidate in chosen],
        "size": [candidate.size for candidate in chosen],
        **(
            {"composition": [candidate.composition for candidate in chosen]} if screening.kind.dtype.kind == "U" else {}
        ),
        "pred_rank": [candidate.rank for candidate in chosen],
        "pred_energy": [candidate.energy for candidate in chosen],
    }
    if screening.spread is not None:
        columns["pred_energy_spread"] = [candidate.spread for candidate in chosen]
    for name in chosen[0].relaxation if chosen else ():
        columns[name] = [candidate.relaxation[name] for candidate in chosen]
    columns["pred_reason"] = [candidate.why for candidate in chosen]
    if truth:
        relaxed = INITIAL if chosen and chosen[0].relaxation else ""
        columns |= {_free(relaxed + truth, columns): [candidate.properties[truth] for candidate in chosen]}
    write_table(folder / "candidates.csv", columns)


def _free(name: str, columns: Mapping[str, object]) -> str:
    return EARLIER + name if name in columns else name


def _atoms(screening: Screening) -> Iterator[Atoms]:
    for candidate in screening.candidates:
        atoms = candidate.atoms.copy()
        spread = {} if candidate.spread is None else {"pred_energy_spread": candidate.spread}
        set_origin(atoms.info, candidate.source_file, candidate.source_frame)
        rank = {"pred_energy": candidate.energy, **spread, "pred_rank": candidate.rank, "pred_reason": candidate.why}
        relaxation = {name: value for name, value in candidate.relaxation.items() if value != ""}
        write_values(atoms.info, {**relaxation, **rank}, replaced=ENERGY_PREDICTION)
        yield atoms

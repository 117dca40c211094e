"""The candidates of a screening, written."""

from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from pyg_clusters.frames import write_extxyz, write_table
from pyg_clusters.inference.candidates import Screening


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
    }
    if screening.spread is not None:
        columns["spread"] = [candidate.spread for candidate in chosen]
    for name in chosen[0].relaxation if chosen else ():
        columns[name] = [candidate.relaxation[name] for candidate in chosen]
    columns["why"] = [candidate.why for candidate in chosen]
    if truth:
        columns[truth] = [candidate.properties[truth] for candidate in chosen]
    write_table(folder / "candidates.csv", columns)


def _atoms(screening: Screening) -> Iterator[Atoms]:
    for candidate in screening.candidates:
        atoms = candidate.atoms.copy()
        spread = {} if candidate.spread is None else {"spread": candidate.spread}
        atoms.info |= {
            **candidate.relaxation,
            **spread,
            "pred_energy": candidate.energy,
            "file": candidate.file,
            "frame": candidate.frame,
            "rank": candidate.rank,
            "why": candidate.why,
        }
        yield atoms

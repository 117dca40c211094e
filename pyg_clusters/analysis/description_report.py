"""The results of ``pyg-clusters describe``: on the screen, as files, and as a report."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from pyg_clusters.analysis import plots_descriptor
from pyg_clusters.analysis.description import Description
from pyg_clusters.analysis.descriptor import (
    DISTINCT_ENERGY,
    DISTINCT_STRUCTURE,
    shell_name,
)
from pyg_clusters.analysis.plot_style import save_figure
from pyg_clusters.analysis.report import Report, literal
from pyg_clusters.datasets.frame_sets import FrameSet
from pyg_clusters.files import atomic_write
from pyg_clusters.frames import write_table
from pyg_clusters.units import MEV

SHOWN_SHARED = 20
"""Shared multisets that the report lists."""

DISTINCT = (
    f"Isomers are distinct if they differ in their multiset of descriptors, by more than {MEV * DISTINCT_ENERGY:g} meV "
    f"in energy, or by more than {DISTINCT_STRUCTURE:g} Å (root mean square) in their sorted pair distances."
)


def summary_lines(description: Description) -> list[str]:
    """What is printed."""
    frames, distribution = description.frames, description.distribution
    sizes = frames.sizes
    finest = description.shared[-1]
    rows = len(np.unique(np.column_stack([frames.z, description.counts]), axis=0))
    lines = [
        f"clusters: {len(frames):,} of {_range(sizes)} atoms ({_elements(frames)}), {len(frames.z):,} atoms",
        f"shortest distance: {distribution.smallest_distance:.3f} Å, bond length: {distribution.bond_length:.2f} Å",
        f"minima of g(r): {_lengths(description.minima)}",
        f"suggested shell radii: {_lengths(description.suggested)}",
        f"shell radii used: {_lengths(description.radii)} ({description.origin})",
        "mean counts per atom: "
        + ", ".join(f"{shell_name(s)} {mean:.2f}" for s, mean in enumerate(description.counts.mean(axis=0))),
        f"distinct descriptors: {rows:,}",
        f"distinct isomers: {finest.num_isomers:,} of {finest.num_frames:,} structures",
    ]
    for number, found in enumerate(description.shared, start=1):
        text = (
            f"isomers that share all counts within {_lengths(description.radii[:number])}: {found.num_colliding:,} of "
            f"{found.num_isomers:,} ({found.rate:.2%}), in {len(found.shared):,} multisets"
        )
        if description.target and found.shared:
            text += (
                f"; energies of a multiset are {found.mean_spread:.2f} kcal/mol apart on average, "
                f"{found.largest_spread:.2f} at most"
            )
        lines.append(text)
    if not description.target:
        lines.append("(name the energy by --target to see how far apart such isomers are)")
    return lines


def write_results(description: Description, folder: Path, names: Sequence[str]):
    """Writes summary, tables, figures and report."""
    distribution = description.distribution
    table = {"r": distribution.r, "g": distribution.g, "neighbors_within": distribution.neighbors_within()}
    write_table(folder / "pair_distribution.csv", table)
    write_table(folder / "shells.csv", {key: [row[key] for row in description.shells] for key in description.shells[0]})
    write_table(folder / "collisions.csv", _shared_columns(description))
    with atomic_write(folder / "summary.json") as path:
        path.write_text(json.dumps(summary(description, names), indent=2) + "\n")
    figures = description_figures(description)
    for name, figure in figures.items():
        save_figure(figure, folder / "figures" / f"{name}.png")
    make_report(description, figures, names).write(folder / "report.html")


def summary(description: Description, names: Sequence[str]) -> dict:
    """The result in JSON's types; what is not known is ``None``."""
    frames, distribution = description.frames, description.distribution
    return {
        "frames": list(names),
        "num_clusters": len(frames),
        "num_atoms": len(frames.z),
        "elements": sorted({chemical_symbols[z] for z in frames.z}),
        "clusters_per_size": {row["size"]: row["num_clusters"] for row in description.shells},
        "smallest_distance": distribution.smallest_distance,
        "bond_length": distribution.bond_length,
        "minima": list(description.minima),
        "suggested_radii": list(description.suggested),
        "radii": list(description.radii),
        "radii_from": description.origin,
        "mean_counts": description.counts.mean(axis=0).tolist(),
        "target": description.target,
        "distinct_energy_ev": DISTINCT_ENERGY,
        "distinct_structure_angstrom": DISTINCT_STRUCTURE,
        "collisions": [
            {
                "radii": list(description.radii[:number]),
                "num_frames": found.num_frames,
                "num_isomers": found.num_isomers,
                "num_multisets": found.num_multisets,
                "num_shared_multisets": len(found.shared),
                "num_colliding_isomers": found.num_colliding,
                "collision_rate": found.rate,
                "mean_spread_kcal_mol": _known(found.mean_spread),
                "largest_spread_kcal_mol": _known(found.largest_spread),
                "error_floor_kcal_mol": _known(found.error_floor),
            }
            for number, found in enumerate(description.shared, start=1)
        ],
    }


def description_figures(description: Description) -> dict[str, Figure]:
    """Pair distribution, clusters per size, mean counts per shell."""
    distribution, rows = description.distribution, description.shells
    sizes = np.array([row["size"] for row in rows])
    means = np.array([[row[key] for key in row if key.startswith("mean_")] for row in rows])
    return {
        "pair_distribution": plots_descriptor.pair_distribution_curve(
            distribution.r, distribution.g, distribution.neighbors_within(), description.radii, description.minima
        ),
        "clusters_per_size": plots_descriptor.clusters_per_size(sizes, np.array([row["num_clusters"] for row in rows])),
        "shell_counts": plots_descriptor.mean_shell_counts(sizes, means, description.radii),
    }


def make_report(description: Description, figures: dict[str, Figure], names: Sequence[str]) -> Report:
    """Everything on a page."""
    report = Report("What the descriptor sees")
    report.text(f"Clusters from {', '.join(map(literal, names))}.")
    report.text("\n".join(f"- {line}" for line in summary_lines(description)))
    captions = {
        "pair_distribution": "Pair-distance distribution, the shells that were used, and the minima of g; below, the "
        "mean number of neighbours of an atom within r.",
        "clusters_per_size": "Clusters of each size.",
        "shell_counts": "Mean number of neighbours of an atom in each shell.",
    }
    for name, figure in figures.items():
        report.figure(figure, captions[name])
    report.text("## Isomers that the descriptor does not tell apart")
    report.text(DISTINCT)
    rows = [
        [
            _lengths(description.radii[:number]),
            found.num_isomers,
            found.num_multisets,
            found.num_colliding,
            f"{found.rate:.2%}",
            found.mean_spread,
            found.largest_spread,
            found.error_floor,
        ]
        for number, found in enumerate(description.shared, start=1)
    ]
    columns = ["radii", "isomers", "multisets", "sharing isomers", "rate", "mean spread", "largest spread", "floor"]
    report.table(
        columns,
        rows,
        "Isomers that share the multiset of their counts, for the first radius alone and for more of them. Energies in "
        "kcal/mol: highest less lowest of a multiset; the floor is the smallest mean absolute error that any function "
        "of the multiset can have on this set.",
    )
    columns_shared = _shared_columns(description)
    if columns_shared["size"]:
        rows = [list(row) for row in zip(*columns_shared.values(), strict=True)][:SHOWN_SHARED]
        report.table(list(columns_shared), rows, "Multisets of all shells that are shared, the widest first.")
    keys = list(description.shells[0])
    report.table(keys, [[row[key] for key in keys] for row in description.shells], "Mean counts per atom by size.")
    return report


def _shared_columns(description: Description) -> dict[str, list]:
    """A row for each multiset of all shells that more than one isomer has."""
    frames, shared = description.frames, description.shared[-1].shared
    several = len(set(frames.file.tolist())) > 1

    def name(place: int) -> str:
        return f"{Path(frames.file[place]).name}:{frames.number[place]}" if several else str(frames.number[place])

    return {
        "size": [group.size for group in shared],
        "isomers": [len(group.frames) for group in shared],
        "spread_kcal_mol": [group.spread for group in shared],
        "frames": [" ".join(name(place) for place in group.frames) for group in shared],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _lengths(values: Sequence[float]) -> str:
    return " and ".join(f"{value:.4g}" for value in values) + " Å" if values else "none"


def _range(sizes: np.ndarray) -> str:
    return str(sizes.min()) if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"


def _elements(frames: FrameSet) -> str:
    return ", ".join(chemical_symbols[z] for z in np.unique(frames.z))

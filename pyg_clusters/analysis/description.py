"""Description of a set of clusters by the topological descriptor: tables, figures and report."""

import math
import shlex
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_clusters.analysis.descriptor import (
    DISTINCT_ENERGY,
    DISTINCT_STRUCTURE,
    Description,
    description_of,
    shell_name,
    shell_text,
)
from pyg_clusters.analysis.frame_set import read_set
from pyg_clusters.analysis.plots import BLUE, SHELL_COLORS, SIZE, SMALL, figure_with_axes, integer_ticks, legend, tidy
from pyg_clusters.analysis.report import Report, literal
from pyg_clusters.composition import comparable, composition_names
from pyg_clusters.files import write_json
from pyg_clusters.frames import write_table
from pyg_clusters.frames.energy_units import units_of_labels
from pyg_clusters.frames.paths import check_named_once, short_names
from pyg_clusters.frames.writing import open_output
from pyg_clusters.geometry import parse_radii
from pyg_clusters.metrics import energy_problem
from pyg_clusters.options.frames import DescribeOptions
from pyg_clusters.options.parsing import command_words
from pyg_clusters.shipped import TARGETS
from pyg_clusters.units import MEV

RESULTS = ("pair_distribution.csv", "shells.csv", "collisions.csv", "summary.json", "report.html")

FILES = {
    "summary.json": "the summary",
    "pair_distribution.csv": "pair-distance distribution and neighbours within r",
    "shells.csv": "mean counts by size",
    "collisions.csv": "the shared multisets, with their frames",
}
"""Other files in the folder of the report."""

SHOWN_SHARED = 20  # maximum number of shared multisets in the report

DISTINCT = (
    f"Isomers are distinct if they differ in their multiset of descriptors, by more than {MEV * DISTINCT_ENERGY:g} meV "
    f"in energy, or by more than {DISTINCT_STRUCTURE:g} Å (root mean square) in their sorted pair distances."
)


def describe(options: DescribeOptions) -> Description:
    """Describe a set of clusters by the topological descriptor, and write tables, figures and report on request.

    Raises:
        InputError: If no frame can be used, the radii do not suit the clusters, or a label is missing.
    """
    radii = None if options.radii is None else parse_radii(options.radii)
    target = options.target or (TARGETS.get(options.frames[0]) if len(options.frames) == 1 else None)
    out = None if options.out is None else Path(options.out)
    with open_output(options, results=RESULTS):
        check_named_once(options.frames)
        frames = read_set(options.frames, target=target, on_bad=options.on_bad, fragments=options.fragments)
        if target:
            units = units_of_labels(options.frames, target, options.energy_unit)
            frames.properties[target] = frames.properties[target] * [units[file] for file in frames.file.tolist()]
            kinds = comparable(composition_names(frames.z, frames.ptr), frames.sizes)
            if problem := energy_problem(frames.properties[target], frames.sizes, kinds):
                warnings.warn(problem, stacklevel=2)
        description = description_of(frames, radii, target)
        if out is not None:
            description.out = options.out
            distribution, shells = description.distribution, description.shells
            table = {"r": distribution.r, "g": distribution.g, "neighbors_within": distribution.neighbors_within()}
            write_table(out / "pair_distribution.csv", table)
            write_table(out / "shells.csv", {key: [row[key] for row in shells] for key in shells[0]})
            write_table(out / "collisions.csv", _shared_columns(description))
            write_json(out / "summary.json", summary(description, options.frames))
            report = make_report(description, options.frames, shlex.join(command_words(options)))
            report.write(out / "report.html")
    return description


def summary(description: Description, names: Sequence[str]) -> dict:
    """Results as JSON types; unknown values are ``None``."""
    frames, distribution, same = description.frames, description.distribution, description.collisions
    return {
        "frames": list(names),
        "num_clusters": len(frames),
        "num_atoms": len(frames.z),
        "elements": [chemical_symbols[z] for z in np.unique(frames.z)],
        "clusters_per_size": {row["size"]: row["num_clusters"] for row in description.shells},
        "smallest_distance": distribution.smallest_distance,
        "bond_length": distribution.bond_length,
        "suggested_radii": list(description.suggested),
        "radii": list(description.radii),
        "radii_from": description.origin,
        "mean_counts": description.counts.mean(axis=0).tolist(),
        "target": description.target,
        "distinct_energy_ev": DISTINCT_ENERGY,
        "distinct_structure_angstrom": DISTINCT_STRUCTURE,
        "collisions": {
            "num_frames": same.num_frames,
            "num_isomers": same.num_isomers,
            "num_multisets": same.num_multisets,
            "num_shared_multisets": len(same.shared),
            "num_colliding_isomers": same.num_colliding,
            "collision_rate": same.rate,
            "mean_spread_kcal_mol": _known(same.mean_spread),
            "largest_spread_kcal_mol": _known(same.largest_spread),
            "error_floor_kcal_mol": _known(same.error_floor),
        },
    }


def make_report(description: Description, names: Sequence[str], command: str) -> Report:
    """HTML report."""
    report = Report("Clusters in the topological descriptor")
    report.origin(command)
    report.text(f"Clusters from {', '.join(map(literal, names))}.")
    report.text("\n".join(f"- {line}" for line in description.lines))
    neighbors = "mean number of neighbours of an atom"
    text = f"Pair-distance distribution and the shells used; below, the {neighbors} within r."
    report.figure(_pair_distribution(description), text, "pair_distribution")
    report.figure(_clusters_per_size(description), "Clusters of each size.", "clusters_per_size")
    report.figure(_shell_counts(description), f"{neighbors.capitalize()} in each shell.", "shell_counts")
    report.text("## Isomers with the same descriptors")
    report.text(DISTINCT)
    same = description.collisions
    numbers = [same.num_isomers, same.num_multisets, same.num_colliding, f"{same.rate:.2%}"]
    energies = [f"{name} (kcal/mol)" for name in ("mean spread", "largest spread", "floor")]
    report.table(
        ["isomers", "multisets", "sharing isomers", "rate", *energies],
        [[*numbers, same.mean_spread, same.largest_spread, same.error_floor]],
        "Isomers that share the multiset of their counts. A spread is the highest minus the lowest energy of a "
        "multiset; the floor is the smallest mean absolute error of any function of the multiset on this set.",
    )
    columns_shared = _shared_columns(description)
    if columns_shared["size"]:
        rows = [list(row) for row in zip(*columns_shared.values(), strict=True)][:SHOWN_SHARED]
        headings = ["atoms", "isomers", "energy spread (kcal/mol)", "frames"]
        report.table(headings, rows, "Shared multisets, by decreasing spread.")
    keys = list(description.shells[0])
    headings = ["atoms", "clusters", *(key.removeprefix("mean_") for key in keys[2:])]
    report.table(headings, [[row[key] for key in keys] for row in description.shells], "Mean counts per atom by size.")
    report.next_steps(
        FILES,
        "`pyg-clusters new-recipe` writes a recipe that trains a model on labelled frames, with shell radii from their "
        "g(r); `--model.model.radii` of `train` replaces them.",
    )
    return report


def _shared_columns(description: Description) -> dict[str, list]:
    """Columns with a row for each multiset that several isomers share."""
    frames, shared = description.frames, description.collisions.shared
    files = short_names(frames.file.tolist())

    def name(index: int) -> str:
        number = str(frames.number[index])
        return f"{files[str(frames.file[index])]}:{number}" if len(files) > 1 else number

    return {
        "size": [group.size for group in shared],
        "isomers": [len(group.frames) for group in shared],
        "spread_kcal_mol": [group.spread for group in shared],
        "frames": [" ".join(name(index) for index in group.frames) for group in shared],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _pair_distribution(description: Description) -> Figure:
    """Pair-distance distribution with shell radii, above the mean number of neighbours within r."""
    radii, r, g = description.radii, description.distribution.r, description.distribution.g
    neighbors = description.distribution.neighbors_within()
    figure = Figure(figsize=(SIZE[0], 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1.0))
    tidy(upper, "", "g(r) / Å⁻³")
    tidy(lower, "distance r / Å", "neighbours within r")
    upper.plot(r, g, color=BLUE, linewidth=1.4)
    lower.plot(r + description.distribution.bin_width / 2, neighbors, color=BLUE, linewidth=1.4)
    within = np.flatnonzero(neighbors < 0.999 * neighbors[-1])
    last = float(r[within[-1]]) if within.size else float(r[-1])
    upper.set(xlim=(0.0, last), ylim=(0.0, 1.12 * (g.max() or 1.0)))
    lower.set_ylim(bottom=0.0)
    for shell, (inner, outer) in enumerate(pairwise([0.0, *radii, max(last, *radii)])):
        shade = {"color": SHELL_COLORS[shell % len(SHELL_COLORS)], "alpha": 0.12, "linewidth": 0, "zorder": 0}
        upper.axvspan(inner, outer, label=shell_text(shell, radii), **shade)
        lower.axvspan(inner, outer, **shade)
    legend(upper, loc="upper right")
    figure.align_ylabels()
    return figure


def _clusters_per_size(description: Description) -> Figure:
    sizes, numbers = ([row[key] for row in description.shells] for key in ("size", "num_clusters"))
    figure, axes = figure_with_axes("number of atoms in the cluster", "number of clusters")
    axes.bar(sizes, numbers, width=0.8, color=BLUE)
    axes.set_xlim(min(sizes) - 0.8, max(sizes) + 0.8)
    axes.set_title(f"{sum(numbers):,} clusters", fontsize=SMALL, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    integer_ticks(axes)
    return figure


def _shell_counts(description: Description) -> Figure:
    sizes = [row["size"] for row in description.shells]
    figure, axes = figure_with_axes("number of atoms in the cluster", "mean number of neighbours of an atom")
    for shell in range(description.counts.shape[1]):
        means = [row[f"mean_{shell_name(shell)}"] for row in description.shells]
        color = SHELL_COLORS[shell % len(SHELL_COLORS)]
        label = shell_text(shell, description.radii)
        axes.plot(sizes, means, color=color, marker="o", markersize=3.5, linewidth=1.3, label=label)
    axes.set_ylim(bottom=0.0)
    integer_ticks(axes)
    legend(axes)
    return figure

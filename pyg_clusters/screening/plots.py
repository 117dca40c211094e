"""Figures of what choosing frames by a model is worth, and of what was found for them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pyg_clusters.analysis.plot_style import (
    BLUE,
    GREY,
    MAX_PANELS,
    ORANGE,
    SHELL_COLORS,
    SMALL,
    bin_edges,
    legend,
    padded_limits,
    tidy,
)
from pyg_clusters.composition import kind_label
from pyg_clusters.units import KCAL_PER_MOL


def recall_curves(curves: Mapping[int | str, tuple[np.ndarray, np.ndarray]], lowest: int, window: float) -> Figure:
    """What is found among the lowest predictions, by the number of DFT runs.

    Args:
        curves: By cluster size or composition, share of the lowest frames and share of the low isomers among the 1, 2,
            3, ... lowest predictions, ``[num_frames]`` each.
        lowest: Number of frames that were to be found.
        window: Isomers this far above the lowest in eV were to be found.
    """
    figure = Figure(figsize=(8.4, 3.8), layout=ConstrainedLayoutEngine(wspace=0.06))
    titles = f"share of the lowest {lowest} frames", f"share of the isomers within {window:g} eV"
    for number, (axes, title) in enumerate(zip(figure.subplots(1, 2), titles, strict=True)):
        tidy(axes, "DFT runs, lowest prediction first", title)
        shown = list(curves.items())[:MAX_PANELS]
        for (size, pair), color in zip(shown, SHELL_COLORS, strict=False):
            runs = np.arange(1, len(pair[number]) + 1)
            axes.plot(runs, pair[number], color=color, linewidth=1.5, label=kind_label(size))
        longest = max(len(pair[number]) for _, pair in shown)
        axes.plot(
            [0, longest], [0, 1], color="black", linestyle=":", linewidth=1, label="random" if not number else "_"
        )
        axes.set_ylim(0, 1.02)
        legend(axes, loc="lower right")
    return figure


def worth_by_way(rows: Sequence[Mapping[str, object]], window: float) -> Figure:
    """What each way of choosing found: low isomers, and how far the best stays above the lowest.

    Args:
        rows: Of :class:`~pyg_clusters.screening.benchmark.Worth` as dictionaries.
        window: Isomers this far above the lowest in eV are counted.
    """
    sizes = list(dict.fromkeys(_kind(row) for row in rows))[:MAX_PANELS]
    ways = list(dict.fromkeys(str(row["way"]) for row in rows))
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    tidy(left, f"distinct isomers within {window:g} eV (runs)", "")
    tidy(right, "lowest chosen above the lowest / kcal mol⁻¹", "")
    height = 0.8 / len(sizes)
    for number, (size, color) in enumerate(zip(sizes, SHELL_COLORS, strict=False)):
        place = np.arange(len(ways))[::-1] + 0.4 - height * (number + 0.5)
        of_size = {str(row["way"]): row for row in rows if _kind(row) == size}
        for axes, key in ((left, "low_isomers"), (right, "regret_kcal_mol")):
            values = [float(str(of_size[way][key])) for way in ways]
            axes.barh(place, values, 0.9 * height, color=color, label=kind_label(size))
            for y, value, way in zip(place, values, ways, strict=True):
                text = f"{value:.0f} ({of_size[way]['runs']:.0f})" if axes is left else f"{value:.1f}"
                axes.annotate(text, (value, y), (3, 0), textcoords="offset points", va="center", fontsize=SMALL - 1)
    left.set_yticks(np.arange(len(ways))[::-1], ways)
    for axes in (left, right):
        axes.set_xlim(right=1.2 * axes.get_xlim()[1])
        axes.grid(visible=False, axis="y")
    legend(right, loc="best")
    return figure


def _kind(row: Mapping[str, object]) -> int | str:
    """Composition of a row, or the number of atoms where there are no alloys."""
    return str(row["composition"]) if row.get("composition") else int(str(row["size"]))


def predicted_and_found(predicted: np.ndarray, found: np.ndarray, composition: np.ndarray) -> Figure:
    """Predicted against found energies of candidates, each above the mean of its composition.

    Args:
        predicted: In eV ``[num_candidates]``.
        found: In eV ``[num_candidates]``.
        composition: Formula of each, ``[num_candidates]``: the colour of its point.
    """
    predicted, found = (np.asarray(values, dtype=float) * KCAL_PER_MOL for values in (predicted, found))
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    tidy(axes, "found above the mean / kcal mol⁻¹", "predicted above the mean / kcal mol⁻¹")
    limits = padded_limits(np.concatenate([predicted, found]))
    axes.plot(limits, limits, color=GREY, linewidth=1.0, zorder=1)
    formulas = list(dict.fromkeys(np.asarray(composition).tolist()))
    for number, formula in enumerate(formulas):
        of_it = np.asarray(composition) == formula
        color = SHELL_COLORS[number % len(SHELL_COLORS)]
        axes.scatter(
            found[of_it], predicted[of_it], s=13, color=color, alpha=0.8, linewidths=0, label=formula, zorder=2
        )
    axes.set(xlim=limits, ylim=limits, box_aspect=1)
    if len(formulas) <= len(SHELL_COLORS):
        legend(axes, loc="upper left")
    return figure


def picked_by_size(predicted: np.ndarray, picked: np.ndarray, sizes: np.ndarray) -> Figure:
    """Distribution of the predicted energies of each cluster size, and where the picked frames lie in it.

    Args:
        predicted: In eV per cluster ``[num_frames]``.
        picked: Whether each was picked, ``[num_frames]``.
        sizes: Number of atoms, or composition, of each, ``[num_frames]``; up to
            :data:`~pyg_clusters.analysis.MAX_PANELS` of these.
    """
    shown = np.unique(sizes)[:MAX_PANELS].tolist()
    figure = Figure(figsize=(6.4, 1.2 + 2.0 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, size in zip(panels, shown, strict=True):
        of_size = sizes == size
        energy, chosen = predicted[of_size], predicted[of_size & picked]
        bins = bin_edges(energy)
        tidy(axes, "", "number of frames")
        axes.hist(energy, bins=bins, color=BLUE, alpha=0.45, label=f"{len(energy):,} frames of {kind_label(size)}")
        axes.hist(chosen, bins=bins, color=ORANGE, label=f"{len(chosen):,} picked")
        axes.plot(chosen, np.zeros(len(chosen)), "|", color="black", markersize=8, clip_on=False)
        legend(axes, loc="upper right")
    panels[-1].set_xlabel("predicted energy / eV per cluster")
    return figure

"""Figures of what the descriptor sees of clusters."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_clusters.analysis.descriptor import shell_name
from pyg_clusters.analysis.plot_style import (
    BLUE,
    ORANGE,
    SHELL_COLORS,
    SIZE,
    SMALL,
    figure_with_axes,
    integer_ticks,
    legend,
    tidy,
)


def pair_distribution_curve(
    r: np.ndarray, g: np.ndarray, neighbors: np.ndarray, radii: Sequence[float] = (), minima: Sequence[float] = ()
) -> Figure:
    """Pair-distance distribution with shell radii and minima, above the mean number of neighbours within r.

    Args:
        r: Distances in Å ``[num_bins]``.
        g: Density of neighbours in Å⁻³ ``[num_bins]``.
        neighbors: Mean number of neighbours of an atom within r ``[num_bins]``.
        radii: Shell radii in Å; the shells between them are shaded in turn.
        minima: Minima of g in Å, marked by their values.
    """
    figure = Figure(figsize=(SIZE[0], 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1.0))
    tidy(upper, "", "g(r) / Å⁻³")
    tidy(lower, "distance r / Å", "neighbours within r")
    upper.plot(r, g, color=BLUE, linewidth=1.4)
    lower.plot(r, neighbors, color=BLUE, linewidth=1.4)
    within = np.flatnonzero(neighbors < 0.999 * neighbors[-1])
    last = float(r[within[-1]]) if within.size else float(r[-1])
    upper.set(xlim=(0.0, last), ylim=(0.0, 1.12 * (g.max() or 1.0)))
    lower.set_ylim(bottom=0.0)
    edges = [0.0, *radii, max(last, *radii)] if radii else []
    for shell, (inner, outer) in enumerate(pairwise(edges)):
        shade = {"color": SHELL_COLORS[shell % len(SHELL_COLORS)], "alpha": 0.12, "linewidth": 0, "zorder": 0}
        upper.axvspan(inner, outer, label=shell_text(shell, radii), **shade)
        lower.axvspan(inner, outer, **shade)
    for number, minimum in enumerate(minima):
        label = "_" if number else f"minima of g: {', '.join(f'{value:.2f}' for value in minima)} Å"
        upper.axvline(minimum, color=ORANGE, linewidth=1.1, linestyle="--", label=label)
    if radii or len(minima):
        legend(upper, loc="upper right")
    figure.align_ylabels()
    return figure


def shell_text(shell: int, radii: Sequence[float]) -> str:
    """Letter and distances of a shell."""
    inner = f"{radii[shell - 1]:g}" if shell else ""
    outer = f"{radii[shell]:g}" if shell < len(radii) else ""
    limits = f"{inner} to {outer}" if inner and outer else f"below {outer}" if outer else f"beyond {inner}"
    return f"{shell_name(shell)}: {limits} Å"


def clusters_per_size(sizes: np.ndarray, numbers: np.ndarray) -> Figure:
    """Number of clusters of each size.

    Args:
        sizes: Numbers of atoms ``[num_sizes]``.
        numbers: Numbers of clusters ``[num_sizes]``.
    """
    figure, axes = figure_with_axes("number of atoms in the cluster", "number of clusters")
    axes.bar(sizes, numbers, width=0.8, color=BLUE)
    axes.set_xlim(min(sizes) - 0.8, max(sizes) + 0.8)
    axes.set_title(f"{sum(numbers):,} clusters", fontsize=SMALL, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    integer_ticks(axes)
    return figure


def mean_shell_counts(sizes: np.ndarray, means: np.ndarray, radii: Sequence[float]) -> Figure:
    """Mean number of neighbours of an atom in each shell by cluster size.

    Args:
        sizes: Numbers of atoms ``[num_sizes]``.
        means: Mean counts ``[num_sizes, num_shells]``.
        radii: Shell radii in Å.
    """
    figure, axes = figure_with_axes("number of atoms in the cluster", "mean number of neighbours of an atom")
    for shell, values in enumerate(np.asarray(means).T):
        color = SHELL_COLORS[shell % len(SHELL_COLORS)]
        label = shell_text(shell, radii)
        axes.plot(sizes, values, color=color, marker="o", markersize=3.5, linewidth=1.3, label=label)
    axes.set_ylim(bottom=0.0)
    integer_ticks(axes)
    legend(axes)
    return figure

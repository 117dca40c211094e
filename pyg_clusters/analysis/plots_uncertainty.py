"""Figures of intervals and spreads."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pyg_clusters.analysis.plot_style import BLUE, GREY, ORANGE, figure_with_axes, legend


def reliability(rows: Sequence[Mapping[str, float]], labels: Sequence[str] = (), more: Sequence = ()) -> Figure:
    """Coverage reached against coverage asked for; on the diagonal the intervals hold what they say.

    Args:
        rows: The rows of :func:`pyg_clusters.conformal.reliability_rows`; bars are standard errors.
        labels: A label of these rows, and of each of the further ones.
        more: Further rows, to be drawn beside them.
    """
    figure, axes = figure_with_axes("coverage asked for", "coverage reached")
    figure.set_size_inches(4.6, 4.4)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--")
    curves = [rows, *more]
    names = list(labels) or [f"{rows[0]['num_groups']} groups of clusters"]
    for curve, name, color, marker in zip(curves, names, (BLUE, ORANGE), ("o", "s"), strict=False):
        asked, reached, error = (
            np.array([row[key] for row in curve]) for key in ("coverage", "coverage_reached", "standard_error")
        )
        shift = 0.004 * (1 if color == ORANGE else -1) if more else 0.0
        axes.errorbar(
            asked + shift,
            reached,
            error,
            color=color,
            marker=marker,
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=name,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    legend(axes, loc="upper left")
    return figure

"""Figures that compare layers."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from pyg_clusters.analysis.plot_style import BLUE, SIZE, SMALL, plain_log_ticks, tidy


def error_against_speed(panels: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """Error on the test set against the speed of prediction, a panel for each target; low and to the right is good.

    Args:
        panels: The label of the vertical axis (the error and its unit), and for each layer its name, its speed in
            clusters per second ``[num_layers]`` and its error ``[num_layers]``.
        title: Above the figure.
    """
    figure = Figure(figsize=(SIZE[0] * len(panels), SIZE[1] + 0.6), layout="constrained")
    for axes, (label, (names, speed, error)) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        tidy(axes, "clusters per second of processor time, one thread", label)
        axes.plot(speed, error, "o", color=BLUE, markersize=6)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(speed) / 2, max(speed) * 2)  # room for the names
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(y=0.12)
        plain_log_ticks(axes)
        for place, (name, x, y) in enumerate(sorted(zip(names, speed, error, strict=True), key=lambda row: row[2])):
            left = place % 2 == 1
            axes.annotate(
                name,
                (x, y),
                (-6 if left else 6, 0),
                textcoords="offset points",
                va="center",
                ha="right" if left else "left",
                fontsize=SMALL,
            )
    figure.suptitle(title, fontsize=10)
    return figure

"""Figures of NMR spectra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_clusters.analysis.plot_style import BLUE, ORANGE, SMALL, tidy
from pyg_clusters.analysis.spectrum import Spectrum, overlap

COLORS: dict[str, str] = {"predicted": BLUE, "DFT": ORANGE}

SHOWN: float = 0.01
"""Shifts are shown where some intensity is above this fraction of the highest of its panel."""


@dataclass
class Panel:
    """Spectra that are drawn over each other."""

    title: str
    spectra: Mapping[str, Spectrum]
    """By name, ``"predicted"`` and perhaps ``"DFT"``, on a common axis."""


def spectra_figure(rows: Sequence[Sequence[Panel]], columns: Sequence[str] = ()) -> Figure:
    """Spectra below and beside each other, the shift increasing to the left, as is the custom in NMR.

    Each panel has its own scale of intensity.

    Args:
        rows: The panels of each row, the first one with all names.
        columns: A heading over each column, if there is more than one.
    """
    num_columns = len(rows[0])
    figure = Figure(figsize=(1.2 + 4.6 * num_columns, 1.2 + 1.25 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), num_columns, sharex=True, squeeze=False)
    for number, panels in enumerate(rows):
        for axes, panel in zip(grid[number], panels, strict=True):
            tidy(axes, "", "")
            axes.grid(visible=False)
            for name, lines in panel.spectra.items():
                axes.plot(lines.shift, lines.intensity, color=COLORS[name], linewidth=1.4, label=name)
            first = next(iter(panel.spectra.values()))
            axes.fill_between(first.shift, first.intensity, color=COLORS["predicted"], alpha=0.15, linewidth=0)
            axes.set_yticks([])
            axes.set_ylim(bottom=0.0)
            text = panel.title
            if len(panel.spectra) == 2:
                text += f"\noverlap {overlap(*panel.spectra.values()):.2f}"
            axes.text(0.015, 0.95, text, transform=axes.transAxes, va="top", fontsize=SMALL)
    _limit(grid[0, 0], [lines for panels in rows for panel in panels for lines in panel.spectra.values()])
    for axes in grid[-1]:
        axes.set_xlabel("shift δ / ppm")
        axes.xaxis.set_major_locator(MaxNLocator(8))
    for axes, heading in zip(grid[0], columns, strict=False):
        axes.set_title(heading, fontsize=SMALL + 1)
    figure.supylabel("intensity")
    names = rows[0][0].spectra
    if len(names) > 1:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=SMALL, frameon=False, loc="outside upper center", ncols=len(names))
    return figure


def _limit(axes: Axes, spectra: Sequence[Spectrum]):
    seen = [lines.shift[lines.intensity > SHOWN * lines.intensity.max()] for lines in spectra]
    low, high = min(shift[0] for shift in seen), max(shift[-1] for shift in seen)
    margin = 0.03 * (high - low)
    axes.set_xlim(float(high + margin), float(low - margin))

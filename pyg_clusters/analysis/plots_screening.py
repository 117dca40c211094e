"""Figures of what choosing frames by a model is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pyg_clusters.analysis.plots import MAX_PANELS, SHELL_COLORS, SMALL, _legend, _tidy


def recall_curves(curves: Mapping[int, tuple[np.ndarray, np.ndarray]], lowest: int, window: float) -> Figure:
    """What is found among the lowest predictions, by the number of DFT runs.

    Args:
        curves: By cluster size, share of the lowest frames and share of the low isomers among the 1, 2, 3, ... lowest
            predictions, ``[num_frames]`` each.
        lowest: Number of frames that were to be found.
        window: Isomers this far above the lowest in eV were to be found.
    """
    figure = Figure(figsize=(8.4, 3.8), layout=ConstrainedLayoutEngine(wspace=0.06))
    titles = f"share of the lowest {lowest} frames", f"share of the isomers within {window:g} eV"
    for number, (axes, title) in enumerate(zip(figure.subplots(1, 2), titles, strict=True)):
        _tidy(axes, "DFT runs, lowest prediction first", title)
        shown = list(curves.items())[:MAX_PANELS]
        for (size, pair), color in zip(shown, SHELL_COLORS, strict=False):
            runs = np.arange(1, len(pair[number]) + 1)
            axes.plot(runs, pair[number], color=color, linewidth=1.5, label=f"{size} atoms")
        longest = max(len(pair[number]) for _, pair in shown)
        axes.plot(
            [0, longest], [0, 1], color="black", linestyle=":", linewidth=1, label="random" if not number else "_"
        )
        axes.set_ylim(0, 1.02)
        _legend(axes, loc="lower right")
    return figure


def worth_by_way(rows: Sequence[Mapping[str, object]], window: float) -> Figure:
    """What each way of choosing found: low isomers, and how far the best stays above the lowest.

    Args:
        rows: Of :class:`~pyg_clusters.analysis.screening_worth.Worth` as dictionaries.
        window: Isomers this far above the lowest in eV are counted.
    """
    sizes = list(dict.fromkeys(row["size"] for row in rows))[:MAX_PANELS]
    ways = list(dict.fromkeys(str(row["way"]) for row in rows))
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _tidy(left, f"distinct isomers within {window:g} eV (runs)", "")
    _tidy(right, "lowest chosen above the lowest / kcal mol⁻¹", "")
    height = 0.8 / len(sizes)
    for number, (size, color) in enumerate(zip(sizes, SHELL_COLORS, strict=False)):
        place = np.arange(len(ways))[::-1] + 0.4 - height * (number + 0.5)
        of_size = {str(row["way"]): row for row in rows if row["size"] == size}
        for axes, key in ((left, "low_isomers"), (right, "regret_kcal_mol")):
            values = [float(str(of_size[way][key])) for way in ways]
            axes.barh(place, values, 0.9 * height, color=color, label=f"{size} atoms")
            for y, value, way in zip(place, values, ways, strict=True):
                text = f"{value:.0f} ({of_size[way]['runs']:.0f})" if axes is left else f"{value:.1f}"
                axes.annotate(text, (value, y), (3, 0), textcoords="offset points", va="center", fontsize=SMALL - 1)
    left.set_yticks(np.arange(len(ways))[::-1], ways)
    for axes in (left, right):
        axes.set_xlim(right=1.2 * axes.get_xlim()[1])
        axes.grid(visible=False, axis="y")
    _legend(right, loc="best")
    return figure

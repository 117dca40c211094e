"""Figures of screenings, their benchmark, and DFT results."""

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
from pyg_clusters.screening.scores import LOWEST, WINDOW, StrategyScore
from pyg_clusters.units import KCAL_PER_MOL


def recall_curves(curves: Mapping[int | str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Recall among the lowest predictions, against the number of DFT runs.

    Args:
        curves: By cluster size or composition, share of the lowest frames and share of the low isomers among the 1, 2,
            3, ... lowest predictions, ``[num_frames]`` each.
    """
    figure = Figure(figsize=(8.4, 3.8), layout=ConstrainedLayoutEngine(wspace=0.06))
    titles = f"share of the lowest {LOWEST} frames", f"share of the isomers within {WINDOW:g} eV"
    shown = list(curves.items())[:MAX_PANELS]
    for panel, (axes, title) in enumerate(zip(figure.subplots(1, 2), titles, strict=True)):
        tidy(axes, "DFT runs, lowest prediction first", title)
        for (kind, pair), color in zip(shown, SHELL_COLORS, strict=False):
            runs = np.arange(1, len(pair[panel]) + 1)
            axes.plot(runs, pair[panel], color=color, linewidth=1.5, label=kind_label(kind))
        longest = max(len(pair[panel]) for _, pair in shown)
        label = "_" if panel else "random"
        axes.plot([0, longest], [0, 1], color="black", linestyle=":", linewidth=1, label=label)
        axes.set_ylim(0, 1.02)
        legend(axes, loc="lower right")
    return figure


def scores_by_strategy(scores: Sequence[StrategyScore]) -> Figure:
    """Low isomers selected by each strategy, and the regret of its best frame."""
    kinds = list(dict.fromkeys(score.kind for score in scores))[:MAX_PANELS]
    strategies = list(dict.fromkeys(score.strategy for score in scores))
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    tidy(left, f"distinct isomers within {WINDOW:g} eV (DFT runs)", "")
    tidy(right, "regret / kcal mol⁻¹", "")
    height = 0.8 / len(kinds)
    for number, (kind, color) in enumerate(zip(kinds, SHELL_COLORS, strict=False)):
        y = np.arange(len(strategies))[::-1] + 0.4 - height * (number + 0.5)
        of_kind = {score.strategy: score for score in scores if score.kind == kind}
        shown = [of_kind[strategy] for strategy in strategies]
        bars = [
            (
                left,
                [score.low_isomers for score in shown],
                [f"{score.low_isomers:.0f} ({score.runs})" for score in shown],
            ),
            (right, [score.regret_kcal_mol for score in shown], [f"{score.regret_kcal_mol:.1f}" for score in shown]),
        ]
        for axes, values, texts in bars:
            axes.barh(y, values, 0.9 * height, color=color, label=kind_label(kind))
            for each in zip(y, values, texts, strict=True):
                axes.annotate(
                    each[2], (each[1], each[0]), (3, 0), textcoords="offset points", va="center", fontsize=SMALL - 1
                )
    left.set_yticks(np.arange(len(strategies))[::-1], strategies)
    for axes in (left, right):
        axes.set_xlim(right=1.2 * axes.get_xlim()[1])
        axes.grid(visible=False, axis="y")
    legend(right, loc="best")
    return figure


def predicted_against_dft(predicted: np.ndarray, dft: np.ndarray, composition: np.ndarray) -> Figure:
    """Predicted against DFT energies of candidates in eV, each relative to the mean of its composition."""
    predicted, dft = (np.asarray(values, dtype=float) * KCAL_PER_MOL for values in (predicted, dft))
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    tidy(axes, "DFT, above the mean / kcal mol⁻¹", "predicted, above the mean / kcal mol⁻¹")
    limits = padded_limits(np.concatenate([predicted, dft]))
    axes.plot(limits, limits, color=GREY, linewidth=1.0, zorder=1)
    formulas = list(dict.fromkeys(composition.tolist()))
    for number, formula in enumerate(formulas):
        rows = composition == formula
        color = SHELL_COLORS[number % len(SHELL_COLORS)]
        axes.scatter(dft[rows], predicted[rows], s=13, color=color, alpha=0.8, linewidths=0, label=formula, zorder=2)
    axes.set(xlim=limits, ylim=limits, box_aspect=1)
    if len(formulas) <= len(SHELL_COLORS):
        legend(axes, loc="upper left")
    return figure


def picked_by_size(predicted: np.ndarray, picked: np.ndarray, sizes: np.ndarray) -> Figure:
    """Distribution of the predicted energies in eV of each cluster size or composition, and the candidates in it."""
    shown = np.unique(sizes)[:MAX_PANELS].tolist()
    figure = Figure(figsize=(6.4, 1.2 + 2.0 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, size in zip(panels, shown, strict=True):
        of_size = sizes == size
        energy, chosen = predicted[of_size], predicted[of_size & picked]
        bins = bin_edges(energy)
        tidy(axes, "", "number of frames")
        axes.hist(energy, bins=bins, color=BLUE, alpha=0.45, label=f"{len(energy):,} frames of {kind_label(size)}")
        axes.hist(chosen, bins=bins, color=ORANGE, label=f"{len(chosen):,} candidates")
        axes.plot(chosen, np.zeros(len(chosen)), "|", color="black", markersize=8, clip_on=False)
        legend(axes, loc="upper right")
    panels[-1].set_xlabel("predicted energy / eV per cluster")
    return figure

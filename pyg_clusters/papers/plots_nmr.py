"""Figures of shieldings and their models, after Kaneko et al. 2023 (doi 10.20517/jmi.2022.39)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import covalent_radii
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import ks_1samp, norm

from pyg_clusters.analysis.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SIZE,
    SMALL,
    color_bar,
    figure_with_axes,
    legend,
    padded_limits,
    tidy,
)
from pyg_clusters.metrics import peak_position
from pyg_clusters.nn.shielding_scale import GeneralizedLogistic
from pyg_clusters.papers.nmr_findings import LabelledCluster
from pyg_clusters.transforms.neighbors import SODIUM_RADII

SHIELDING, COUNT = "shielding / ppm", "number of atoms"
CURVE_COLORS = (BLUE, ORANGE, GREEN, "#8a5fb0", "#b5485d", "#4fa3a5")


def distribution_by_size(shielding: np.ndarray, sizes: np.ndarray, fit: GeneralizedLogistic) -> Figure:
    """Histogram of shieldings for each cluster size, and of all with the distribution fitted to them (Fig. 1).

    Shieldings are in ppm; arrays, also the size of the cluster of each atom, are ``[num_atoms]``.
    """
    present = np.unique(sizes)
    columns = min(3, len(present) + 1)
    rows = -(-(len(present) + 1) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * rows), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    bins = np.linspace(*padded_limits(shielding), 41)
    for axes, size in zip(every, present, strict=False):
        chosen = shielding[sizes == size]
        tidy(axes, "", COUNT)
        axes.hist(chosen, bins=bins, color=BLUE, alpha=0.85)
        number = f"{len(chosen) // size} cluster{'s' if len(chosen) > size else ''}"
        axes.set_title(f"Na{size}, {number}", fontsize=SMALL, loc="left")
    axes = every[len(present)]
    tidy(axes, "", COUNT)
    axes.hist(shielding, bins=bins, color=GREY, alpha=0.85, label=f"peak {peak_position(shielding):.0f} ppm")
    x = np.linspace(bins[0], bins[-1], 401)
    expected = len(shielding) * np.diff(_cdf(fit, x)) * (bins[1] - bins[0]) / (x[1] - x[0])
    statistic = ks_1samp(shielding, lambda values: _cdf(fit, values)).statistic
    c, loc, scale = (float(value) for value in (fit.c, fit.loc, fit.scale))
    label = f"c = {c:.2g}, {loc:.0f}, {scale:.1f} ppm;\nK-S {statistic:.3f}"
    axes.plot(0.5 * (x[1:] + x[:-1]), expected, color=ORANGE, linewidth=1.6, label=label)
    axes.set_title("all, with the generalised logistic", fontsize=SMALL, loc="left")
    axes.set_ylim(top=1.5 * axes.dataLim.y1)  # room for the legend
    legend(axes, loc="upper left")
    for axes in every[len(present) + 1 :]:
        axes.set_axis_off()
    for axes in every[: len(present) + 1]:
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(labelbottom=True)
    figure.supxlabel(SHIELDING, fontsize=10)
    return figure


def populations(values: Mapping[str, np.ndarray], shielding: np.ndarray, coordination: np.ndarray) -> Figure:
    """Orbital populations (electrons, by function) against shieldings (ppm), and the first two against the numbers of
    neighbours within 4.0 Å (Fig. 2); all arrays are ``[num_atoms]``.
    """
    names = list(values)
    figure = Figure(figsize=(3.0 * 3, 2.7 * 2), layout="constrained")
    panels = figure.subplots(2, 3)
    style = {"markersize": 2.2, "alpha": 0.5, "markeredgewidth": 0}
    for axes, name in zip(panels[:, :2].flat, names, strict=False):
        tidy(axes, f"{name} population / electrons", SHIELDING)
        axes.plot(values[name], shielding, "o", color=BLUE, **style)
        _correlation(axes, values[name], shielding)
    for axes, name in zip(panels[:, 2], names, strict=False):
        tidy(axes, "neighbours within 4.0 Å", f"{name} population / electrons")
        axes.plot(coordination, values[name], "o", color=GREEN, **style)
        _correlation(axes, coordination, values[name])
    for axes in panels.flat:
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    for axes in panels[:, 2]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def predicted_distributions(labels: Sequence[str], predicted: Sequence[np.ndarray], target: np.ndarray) -> Figure:
    """Histogram and scatter plot of the shieldings ``[num_atoms]`` in ppm of several models and DFT (Figs. 3 and 5)."""
    figure = Figure(figsize=(2.7 * len(labels) + 0.3, 5.0), layout="constrained")
    panels = figure.subplots(2, len(labels), squeeze=False, sharex=True)
    low, high = np.percentile(np.concatenate([target, *predicted]), [0.1, 99.9])
    limits = min(low, target.min()) - 10, max(high, target.max()) + 10
    bins = np.linspace(*limits, 36)
    for column, (label, values) in enumerate(zip(labels, predicted, strict=True)):
        upper, lower = panels[:, column]
        tidy(upper, "", COUNT if column == 0 else "")
        upper.hist(target, bins=bins, color=GREY, alpha=0.55, label="DFT")
        upper.hist(values, bins=bins, histtype="step", color=ORANGE, linewidth=1.5, label="predicted")
        upper.set_title(label, fontsize=9.5)
        legend(upper, loc="upper left")
        tidy(lower, "DFT / ppm", "predicted / ppm" if column == 0 else "")
        lower.plot(limits, limits, color=GREY, linewidth=1.0)
        lower.plot(target, values, "o", color=BLUE, markersize=2.2, alpha=0.5, markeredgewidth=0)
        rmse = np.sqrt(np.square(values - target).mean())
        lower.text(0.04, 0.96, f"RMSE {rmse:.1f} ppm", transform=lower.transAxes, va="top", fontsize=SMALL)
        lower.set(xlim=limits, ylim=limits)
        lower.xaxis.set_major_locator(MaxNLocator(4))
    top = max(np.histogram(values, bins)[0].max() for values in (target, *predicted))
    for axes in panels[0]:
        axes.set_ylim(0, 1.3 * top)
    return figure


def quantiles(
    labels: Sequence[str], predicted: Sequence[np.ndarray], target: np.ndarray, fit: GeneralizedLogistic
) -> Figure:
    """Quantiles of DFT against the distribution fitted to it, and of models against DFT (Fig. 4); the shieldings
    are in ppm ``[num_atoms]``.
    """
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    share = (np.arange(len(target)) + 0.5) / len(target)
    ordered = np.sort(target)
    limits = padded_limits(ordered)
    for axes in (left, right):
        axes.plot(limits, limits, color=GREY, linewidth=1.0)
    tidy(left, "quantile of the fitted distribution / ppm", "quantile of DFT / ppm")
    fitted = fit.inverse(torch.from_numpy(norm.ppf(share))).numpy()
    left.plot(fitted, ordered, color=BLUE, linewidth=1.8, label="generalised logistic")
    normal = norm.ppf(share, target.mean(), target.std())
    left.plot(normal, ordered, color=ORANGE, linewidth=1.2, linestyle="--", label="normal")
    tidy(right, "quantile of DFT / ppm", "quantile of the predictions / ppm")
    for label, values, color in zip(labels, predicted, CURVE_COLORS[: len(labels)], strict=True):
        right.plot(ordered, np.quantile(values, share), color=color, linewidth=1.4, label=label)
    for axes, place in ((left, "upper left"), (right, "lower right")):
        axes.set(xlim=limits, ylim=limits)
        legend(axes, loc=place)
    return figure


def shielding_by_coordination(coordination: np.ndarray, shielding: np.ndarray) -> Figure:
    """Shieldings in ppm against the numbers of neighbours within 4.0 Å ``[num_atoms]`` (Fig. 6).

    Shieldings below 500 ppm are marked.
    """
    figure, axes = figure_with_axes("neighbours within 4.0 Å", SHIELDING)
    below = shielding < 500.0
    style: dict[str, Any] = {"markersize": 3.2, "alpha": 0.6, "markeredgewidth": 0}
    axes.plot(coordination[~below], shielding[~below], "o", color=BLUE, label="500 ppm and above", **style)
    axes.plot(coordination[below], shielding[below], "o", color=ORANGE, label=f"below: {below.sum()} atoms", **style)
    whole = np.round(coordination)
    numbers = [number for number in np.unique(whole) if (whole == number).sum() >= 5]
    means = [shielding[whole == number].mean() for number in numbers]
    axes.plot(numbers, means, color="black", linewidth=1.3, marker="_", markersize=9, label="mean")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes, loc="lower right")
    return figure


def running_coordination_numbers(clusters: Sequence[LabelledCluster]) -> Figure:
    """Running coordination number of each atom of clusters, above their structures (Fig. 7).

    The colour of lines and atoms is the shielding.
    """
    figure = Figure(figsize=(4.2 * len(clusters) + 0.8, 5.4), layout="constrained")
    panels = figure.subplots(2, len(clusters), squeeze=False, height_ratios=(1.0, 1.0))
    every = np.concatenate([cluster.shielding for cluster in clusters])
    scale = Normalize(every.min(), every.max())
    color = colormaps["viridis"]
    views = [_view_of(cluster.atoms.positions) for cluster in clusters]
    extent = max(np.abs(view[:, :2]).max() for view in views) + 1.8
    for column, (cluster, view) in enumerate(zip(clusters, views, strict=True)):
        upper, lower = panels[:, column]
        values = cluster.shielding
        tidy(upper, "radius / Å", "neighbours within the radius" if column == 0 else "")
        for atom in np.argsort(-values):  # the lowest shieldings on top
            upper.plot(SODIUM_RADII, cluster.running[atom], color=color(scale(values[atom])), linewidth=1.1)
        upper.set_title(cluster.name, fontsize=9.5)
        upper.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        upper.axvline(4.0, color=GREY, linewidth=0.9, linestyle=":")
        low, high = np.sort(values)[:2], values.max()
        text = f"lowest {low[0]:.1f}, {low[1]:.1f} ppm\nhighest {high:.1f} ppm"
        upper.text(0.97, 0.05, text, transform=upper.transAxes, ha="right", fontsize=SMALL)
        _draw_atoms(lower, view, cluster.atoms.numbers, color(scale(values))[:, :3])
        lower.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        lower.set_axis_off()
    color_bar(figure, ScalarMappable(scale, "viridis"), panels, SHIELDING, shrink=0.8, ticks=MaxNLocator(6))
    return figure


def _view_of(positions: np.ndarray) -> np.ndarray:
    """Rotate positions to the principal axes: the longest to the right, the shortest towards the viewer."""
    centred = positions - positions.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    return centred @ (axes * np.sign(axes[largest, range(3)]))


def _draw_atoms(axes: Axes, view: np.ndarray, numbers: np.ndarray, colors: np.ndarray):
    """Draw atoms from the furthest to the nearest."""
    order = np.argsort(view[:, 2])
    diameter = 1.9 * covalent_radii[numbers[order]]
    circles = EllipseCollection(
        diameter,
        diameter,
        np.zeros(len(view)),
        units="xy",
        offsets=view[order, :2],
        offset_transform=axes.transData,
        facecolors=colors[order],
        edgecolors="black",
        linewidths=0.5,
    )
    axes.add_collection(circles)


def trade_off(weights: np.ndarray, rmse: np.ndarray, wasserstein: np.ndarray) -> Figure:
    """Error of the atoms against error of their distribution, both in ppm ``[num_rows]``, for weights a of the sorted
    penalty.
    """
    figure, axes = figure_with_axes("root mean square error / ppm", "Wasserstein distance to DFT / ppm")
    order = np.argsort(weights)
    axes.plot(rmse[order], wasserstein[order], color=BLUE, marker="o", linewidth=1.2)
    for a, x, y in zip(weights, rmse, wasserstein, strict=True):
        axes.annotate(f"a = {a:g}", (x, y), (7, 5), textcoords="offset points", fontsize=SMALL)
    axes.set_ylim(bottom=0.0, top=1.15 * wasserstein.max())
    axes.margins(x=0.12)
    return figure


def errors_by_training_clusters(
    labels: Sequence[str], clusters: Sequence[np.ndarray], rmse: Sequence[np.ndarray], spread: Sequence[np.ndarray]
) -> Figure:
    """Errors of models in ppm against the number of training clusters, ``[num_rows]`` each.

    The spread is the standard deviation over the test sets; NaN for one test set.
    """
    figure, axes = figure_with_axes("training clusters", "root mean square error / ppm")
    figure.set_size_inches(SIZE[0], 3.6)
    for index, (label, x, y, deviation) in enumerate(zip(labels, clusters, rmse, spread, strict=True)):
        color, order = CURVE_COLORS[index % len(CURVE_COLORS)], np.argsort(x)
        x = x * (1 + 0.012 * index)  # separate overlapping error bars
        error = np.nan_to_num(deviation)[order]
        axes.errorbar(x[order], y[order], error, color=color, marker="o", capsize=2, linewidth=1.3, label=label)
    axes.text(0.02, 0.03, "bars: standard deviation over the test sets", transform=axes.transAxes, fontsize=SMALL)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend(axes, loc="upper right")
    return figure


def _correlation(axes: Axes, x: np.ndarray, y: np.ndarray):
    axes.set_title(f"correlation {np.corrcoef(x, y)[0, 1]:.2f}", fontsize=SMALL, loc="left")


def _cdf(fit: GeneralizedLogistic, values: np.ndarray) -> np.ndarray:
    return fit.log_cdf(torch.from_numpy(np.asarray(values, dtype=float))).exp().numpy()

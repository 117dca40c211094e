"""Figures of training, errors, intervals and trajectories.

Every function takes plain arrays and returns a new :class:`matplotlib.figure.Figure`, without
:mod:`matplotlib.pyplot`; :func:`~pyg_clusters.analysis.plots.save_figure` writes it.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from pyg_clusters.composition import kind_label
from pyg_clusters.files import atomic_write
from pyg_clusters.units import KCAL_PER_MOL

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#e07b28", "#3a9156", "#8a8f98"
SHELL_COLORS = (BLUE, ORANGE, GREEN, GREY)
SIZE = (6.4, 4.0)  # size of a figure in inches
SMALL = 8.5  # size of secondary text in points
MAX_PANELS: int = 4  # maximum number of cluster sizes with a panel each


def save_figure(figure: Figure, path: str | Path):
    """Write a figure atomically, in the format of the suffix (png, svg, pdf)."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(render(figure, temporary.suffix.lstrip(".") or "png"))


def render(figure: Figure, file_format: str = "png") -> bytes:
    """Render a figure to the bytes of a file, reproducibly for the same data; png at 200 dots per inch.

    The layout of the figure is fixed at the first call.
    """
    if (layout := figure.get_layout_engine()) is not None:  # avoid repeated layout, which runs twice per file
        layout.execute(figure)
        figure.set_layout_engine("none")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format, {})
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pyg_clusters", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return buffer.getvalue()


def figure_with_axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Figure with labelled axes."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    tidy(axes, xlabel, ylabel)
    return figure, axes


def tidy(axes: Axes, xlabel: str, ylabel: str):
    """Apply the common style and labels to axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, fontsize=10)
    axes.set_ylabel(ylabel, fontsize=10)
    axes.tick_params(labelsize=9, color=GREY)


def legend(axes: Axes, **kwargs):
    """Add a legend with a translucent frame."""
    axes.legend(fontsize=SMALL, framealpha=0.85, edgecolor="none", **kwargs)


def color_bar(figure: Figure, of: ScalarMappable, axes: Any, label: str, **kwargs):
    """Add a colour bar without an outline."""
    bar = figure.colorbar(of, ax=axes, pad=0.02, **kwargs)
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def integer_ticks(axes: Axes):
    """Set ticks at integers, for sizes and epochs."""
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))


def plain_log_ticks(axes: Axes):
    """Set ticks at 1, 2, 5 of each decade, as plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    formatter = ScalarFormatter()
    formatter.set_scientific(False)
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_formatter(NullFormatter())


def padded_limits(values: np.ndarray) -> tuple[float, float]:
    """Axis limits around values."""
    low, high = float(values.min()), float(values.max())
    padding = 0.05 * (high - low) or 0.05
    return low - padding, high + padding


def bin_edges(values: np.ndarray) -> list[float]:
    """Edges of 10 to 40 bins, depending on the number of values."""
    return np.histogram_bin_edges(values, bins=int(np.clip(np.sqrt(len(values)), 10, 40))).tolist()


def learning_curve(epochs: np.ndarray, train_mae: np.ndarray, val_mae: np.ndarray) -> Figure:
    """Mean absolute errors of the training and the validation set by epoch, on a logarithmic axis.

    They are in kcal/mol per cluster ``[num_epochs]``, NaN where not measured; the lowest of the validation is marked.
    """
    epochs, train_mae, val_mae = (np.asarray(values, dtype=float) for values in (epochs, train_mae, val_mae))
    figure, axes = figure_with_axes("epoch", "mean absolute error / kcal mol⁻¹ per cluster")
    for values, color, label in ((train_mae, BLUE, "training"), (val_mae, ORANGE, "validation")):
        shown = np.isfinite(values)
        marker = "o" if shown.sum() == 1 else None
        axes.plot(epochs[shown], values[shown], color=color, linewidth=1.4, marker=marker, label=label)
    if np.isfinite(val_mae).any():
        best = int(np.nanargmin(val_mae))
        label = f"lowest: {val_mae[best]:.3g} kcal/mol, epoch {epochs[best]:g}"
        axes.plot(epochs[best], val_mae[best], "o", color=ORANGE, markeredgecolor="black", markersize=6, label=label)
    axes.set_yscale("log")
    plain_log_ticks(axes)
    integer_ticks(axes)
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    legend(axes, loc="upper right")
    return figure


def parity(target: np.ndarray, predicted: np.ndarray, sizes: np.ndarray) -> Figure:
    """Predicted against true energies per atom, coloured by size, and distribution of the errors per cluster.

    All arrays are ``[num_graphs]``: energies of the clusters in eV, and their numbers of atoms.
    """
    target, predicted, sizes = (np.asarray(values, dtype=float) for values in (target, predicted, sizes))
    figure = Figure(figsize=(8.0, 3.6), layout=ConstrainedLayoutEngine(wspace=0.08))
    points, errors = figure.subplots(1, 2)
    tidy(points, "true energy / eV per atom", "predicted / eV per atom")
    x, y = target / sizes, predicted / sizes
    limits = padded_limits(np.concatenate([x, y]))
    points.plot(limits, limits, color=GREY, linewidth=1.0, zorder=1)
    scatter = points.scatter(x, y, c=sizes, s=11, cmap="viridis", linewidths=0, alpha=0.8, zorder=2)
    points.set(xlim=limits, ylim=limits, box_aspect=1)
    for axis in (points.xaxis, points.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    if np.ptp(sizes) == 0:
        points.set_title(f"{sizes[0]:g} atoms", fontsize=SMALL, loc="left")
    else:
        color_bar(figure, scatter, points, "number of atoms", ticks=MaxNLocator(5, integer=True))
    error = (predicted - target) * KCAL_PER_MOL
    box = (
        f"MAE {np.abs(error).mean():.2f} kcal/mol\nRMSE {np.sqrt(np.square(error).mean()):.2f} kcal/mol\n"
        f"{len(error):,} clusters"
    )
    frame = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#c9cdd3", "alpha": 0.9}
    points.text(0.04, 0.96, box, transform=points.transAxes, va="top", fontsize=SMALL, bbox=frame, zorder=3)

    tidy(errors, "error / kcal mol⁻¹ per cluster", "number of clusters")
    errors.hist(error, bins=bin_edges(error), color=BLUE, alpha=0.85)
    errors.axvline(0.0, color="black", linewidth=0.8)
    errors.set_box_aspect(1)
    errors.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    errors.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def error_by_size(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Mean absolute error and number of clusters of each size in :func:`pyg_clusters.metrics.metrics_by_size`."""
    sizes = np.array([row["size"] for row in rows])
    errors = np.array([row["mae_kcal_mol"] for row in rows])
    numbers = np.array([row["num_clusters"] for row in rows])
    figure = Figure(figsize=SIZE, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
    tidy(upper, "", "mean absolute error /\nkcal mol⁻¹ per cluster")
    tidy(lower, "number of atoms in the cluster", "clusters")
    upper.bar(sizes, errors, width=0.8, color=BLUE)
    mean = np.average(errors, weights=numbers)
    upper.axhline(mean, color=ORANGE, linewidth=1.3, label=f"all clusters: {mean:.2f} kcal/mol")
    upper.set_ylim(top=1.18 * max(errors.max(), mean) or 1.0)
    lower.bar(sizes, numbers, width=0.8, color=GREY)
    lower.set_xlim(sizes.min() - 0.8, sizes.max() + 0.8)
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    integer_ticks(lower)
    figure.align_ylabels()
    legend(upper)
    return figure


def energy_along_trajectory(
    number: np.ndarray,
    predicted: np.ndarray,
    picked: np.ndarray,
    truth: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """Plot predicted energies along a trajectory, with the candidates marked.

    Energies are relative to the lowest of the same type (predicted or true) and cluster size. Up to four sizes have
    separate panels; more sizes share one panel. Sparse frames are drawn as points, with a line from the predicted to
    the true energy.

    Args:
        number: Frame indices ``[num_frames]``.
        predicted: Energies in eV ``[num_frames]``.
        picked: Mask ``[num_frames]`` or indices of the picked frames.
        truth: True energies in eV ``[num_frames]``; NaN where they are unknown.
        sizes: Number of atoms of each frame ``[num_frames]``, if they differ; or their compositions.
        title: Title of a figure of one panel.
    """
    number, predicted = np.asarray(number), np.asarray(predicted, dtype=float)
    picked = _mask(picked, len(predicted))
    groups = _size_groups(sizes, len(predicted))
    predicted = _above_lowest(predicted, sizes)
    truth = None if truth is None else _above_lowest(np.asarray(truth, dtype=float), sizes)
    panels = groups if len(groups) <= MAX_PANELS else {"": np.ones(len(predicted), dtype=bool)}

    height = SIZE[1] if len(panels) == 1 else 0.8 + 2.2 * len(panels)
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (kind, chosen) in zip(all_axes, panels.items(), strict=True):
        last = axes is all_axes[-1]
        tidy(axes, "frame" if last else "", "" if len(panels) > 1 else "energy above the lowest / eV")
        order = np.flatnonzero(chosen)[np.argsort(number[chosen], kind="stable")]
        best = order[picked[order]]
        style = {"linewidth": 0.8} if len(groups) == len(panels) else {"linestyle": "", "marker": ".", "markersize": 2}
        if len(groups) == len(panels) and _is_sparse(number[order]):
            style = {"linestyle": "", "marker": ".", "markersize": 4}
            if truth is not None:
                ends = number[order], predicted[order], truth[order]
                axes.vlines(*ends, color="#b9bdc4", linewidth=0.8, zorder=1)
        if truth is not None:
            axes.plot(number[order], truth[order], color="#9aa0a8", label="true", **style)
        axes.plot(number[order], predicted[order], color=BLUE, alpha=0.8, label="predicted", **style)
        label = f"candidates ({len(best):,})"
        axes.plot(number[best], predicted[best], "o", color=ORANGE, markersize=4.5, markeredgewidth=0, label=label)
        if truth is not None:
            hollow = {"markerfacecolor": "none", "markeredgewidth": 1.0}
            axes.plot(number[best], truth[best], "o", color=GREEN, markersize=4.5, label="candidates, true", **hollow)
        if len(panels) > 1:
            axes.set_title(kind, fontsize=SMALL, loc="left")
        elif title:
            axes.set_title(title, fontsize=10, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))
        axes.set_ylim(top=axes.get_ylim()[1] + 0.22 * np.ptp(axes.get_ylim()))
        legend(axes, loc="upper right", ncols=4)
    if len(panels) > 1:
        figure.supylabel("energy above the lowest / eV", fontsize=10)
    return figure


def _is_sparse(number: np.ndarray) -> bool:
    """Whether less than half of the frames between the first and the last are present."""
    steps = np.diff(np.unique(number))
    return len(steps) > 0 and len(steps) < 0.5 * np.ptp(number) / max(steps.min(), 1)


def picked_histogram(predicted: np.ndarray, picked: np.ndarray, sizes: np.ndarray | None = None) -> Figure:
    """Distribution of the predicted energies of the frames and of the candidates, relative to the lowest of each size.

    The arguments are those of :func:`energy_along_trajectory`.
    """
    predicted = _above_lowest(np.asarray(predicted, dtype=float), sizes)
    picked = _mask(picked, len(predicted))
    several = sizes is not None and len(np.unique(sizes)) > 1
    kind = "size" if sizes is None or np.asarray(sizes).dtype.kind in "iu" else "composition"
    xlabel = f"predicted energy above the lowest{f' of its {kind}' if several else ''} / eV per cluster"
    figure, axes = figure_with_axes(xlabel, "number of frames")
    bins = bin_edges(predicted)
    axes.hist(predicted, bins=bins, color=BLUE, alpha=0.45, label=f"frames ({len(predicted):,})")
    axes.hist(predicted[picked], bins=bins, color=ORANGE, label=f"candidates ({picked.sum():,})")
    if picked.any():
        axes.plot(predicted[picked], np.zeros(picked.sum()), "|", color="black", markersize=8, clip_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(axes)
    return figure


def reliability(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Measured against nominal coverage in :func:`pyg_clusters.metrics.reliability_rows`, with standard errors."""
    figure, axes = figure_with_axes("nominal coverage", "measured coverage")
    figure.set_size_inches(4.6, 4.4)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--")
    nominal, measured, error = (
        np.array([row[key] for row in rows]) for key in ("coverage", "coverage_reached", "standard_error")
    )
    style: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 4, "linewidth": 1.2, "capsize": 2}
    axes.errorbar(nominal, measured, error, label=f"{rows[0]['num_groups']} groups of clusters", **style)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    legend(axes, loc="upper left")
    return figure


def _mask(picked: np.ndarray, length: int) -> np.ndarray:
    mask = np.zeros(length, dtype=bool)
    mask[np.asarray(picked) if len(picked) else []] = True
    return mask


def _size_groups(sizes: np.ndarray | None, length: int) -> dict[str, np.ndarray]:
    sizes = np.zeros(length, dtype=int) if sizes is None else np.asarray(sizes)
    return {kind_label(kind): sizes == kind for kind in np.unique(sizes).tolist()}


def _above_lowest(energies: np.ndarray, sizes: np.ndarray | None) -> np.ndarray:
    result = np.empty_like(energies)
    for chosen in _size_groups(sizes, len(energies)).values():
        known = energies[chosen & np.isfinite(energies)]
        result[chosen] = energies[chosen] - (known.min() if len(known) else 0.0)
    return result

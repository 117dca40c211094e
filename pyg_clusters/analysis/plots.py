"""Figures of training, errors, trajectories and structures.

Every function takes plain arrays and returns a :class:`matplotlib.figure.Figure` of its own: no state is shared with
:mod:`matplotlib.pyplot`, and no display is needed. :func:`save_figure` writes it.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from pyg_clusters.analysis.descriptor import shell_name
from pyg_clusters.files import replacing
from pyg_clusters.units import KCAL_PER_MOL

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#e07b28", "#3a9156", "#8a8f98"
SHELL_COLORS = (BLUE, ORANGE, GREEN, GREY)
REGION_COLORS = ("#c8452e", "#e3b23c", "#2f6db3")
SIZE = (6.4, 4.0)
"""Size of a figure in inches."""
SMALL = 8.5
"""Size of secondary text in points."""
MAX_PANELS: int = 4
"""Most cluster sizes that get a panel each."""
MAX_MARKED_DROPS: int = 8
"""Most drops of the learning rate that are marked; a schedule with more of them is continuous."""


def learning_curve(
    epochs: np.ndarray, train_mae: np.ndarray, val_mae: np.ndarray, learning_rate: np.ndarray | None = None
) -> Figure:
    """Mean absolute errors of the training and the validation set by epoch, on a logarithmic axis.

    Args:
        epochs: Epoch numbers ``[num_epochs]``.
        train_mae: In kcal/mol per cluster ``[num_epochs]``; not-a-number where it was not measured.
        val_mae: The same for the validation set. Its lowest value is marked.
        learning_rate: Learning rate of each epoch ``[num_epochs]``; its drops are marked.
    """
    epochs, train_mae, val_mae = (np.asarray(values, dtype=float) for values in (epochs, train_mae, val_mae))
    figure, axes = _figure_with_axes("epoch", "mean absolute error / kcal mol⁻¹ per cluster")
    for values, color, label in ((train_mae, BLUE, "training"), (val_mae, ORANGE, "validation")):
        shown = np.isfinite(values)
        marker = "o" if shown.sum() == 1 else None
        axes.plot(epochs[shown], values[shown], color=color, linewidth=1.4, marker=marker, label=label)
    if np.isfinite(val_mae).any():
        best = int(np.nanargmin(val_mae))
        label = f"lowest: {val_mae[best]:.3g} kcal/mol, epoch {epochs[best]:g}"
        axes.plot(epochs[best], val_mae[best], "o", color=ORANGE, markeredgecolor="black", markersize=6, label=label)
    axes.set_yscale("log")
    _plain_log_ticks(axes)
    _integer_ticks(axes)
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    if learning_rate is not None:
        _mark_drops(axes, epochs, np.asarray(learning_rate, dtype=float))
    _legend(axes, loc="upper right")
    return figure


def parity(target: np.ndarray, predicted: np.ndarray, sizes: np.ndarray) -> Figure:
    """Predicted against true binding energies per atom, and the distribution of the errors per cluster.

    Args:
        target: Binding energies in eV ``[num_graphs]``.
        predicted: Binding energies in eV ``[num_graphs]``.
        sizes: Number of atoms of each cluster ``[num_graphs]``; the colour of its point.
    """
    target, predicted, sizes = (np.asarray(values, dtype=float) for values in (target, predicted, sizes))
    figure = Figure(figsize=(8.0, 3.6), layout=ConstrainedLayoutEngine(wspace=0.08))
    points, errors = figure.subplots(1, 2)
    _draw_parity(points, target / sizes, predicted / sizes, sizes)
    error = (predicted - target) * KCAL_PER_MOL
    box = (
        f"MAE {np.abs(error).mean():.2f} kcal/mol\nRMSE {np.sqrt(np.square(error).mean()):.2f} kcal/mol\n"
        f"{len(error):,} clusters"
    )
    points.text(0.04, 0.96, box, transform=points.transAxes, va="top", fontsize=SMALL, bbox=_box(), zorder=3)

    _tidy(errors, "error / kcal mol⁻¹ per cluster", "number of clusters")
    errors.hist(error, bins=_bins(error), color=BLUE, alpha=0.85)
    errors.axvline(0.0, color="black", linewidth=0.8)
    errors.set_box_aspect(1)
    errors.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    errors.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def error_by_size(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Mean absolute error of each cluster size, above the number of clusters that it was measured on.

    Args:
        rows: The rows of :func:`pyg_clusters.metrics.metrics_by_size`.
    """
    sizes = np.array([row["size"] for row in rows])
    errors = np.array([row["mae_kcal_mol"] for row in rows])
    numbers = np.array([row["num_clusters"] for row in rows])
    figure = Figure(figsize=SIZE, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
    _tidy(upper, "", "mean absolute error /\nkcal mol⁻¹ per cluster")
    _tidy(lower, "number of atoms in the cluster", "clusters")
    upper.bar(sizes, errors, width=0.8, color=BLUE)
    mean = np.average(errors, weights=numbers)
    upper.axhline(mean, color=ORANGE, linewidth=1.3, label=f"all clusters: {mean:.2f} kcal/mol")
    upper.set_ylim(top=1.18 * max(errors.max(), mean) or 1.0)
    lower.bar(sizes, numbers, width=0.8, color=GREY)
    lower.set_xlim(sizes.min() - 0.8, sizes.max() + 0.8)
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _integer_ticks(lower)
    figure.align_ylabels()
    _legend(upper)
    return figure


def energy_along_trajectory(
    number: np.ndarray,
    predicted: np.ndarray,
    picked: np.ndarray,
    truth: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    xlabel: str = "frame",
) -> Figure:
    """Predicted energies along a trajectory, with the picked frames marked.

    Energies are relative to the lowest one of the same kind and cluster size. Up to four sizes get a panel each; of
    more sizes, all are drawn in one.

    Args:
        number: Frame numbers or times ``[num_frames]``.
        predicted: Energies in eV ``[num_frames]``.
        picked: Which frames were picked: a mask ``[num_frames]``, or their positions in the arrays.
        truth: True energies in eV ``[num_frames]``, where they are known; not-a-number where not.
        sizes: Number of atoms of each frame ``[num_frames]``, if they differ.
        xlabel: What ``number`` is, with its unit.
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
    for axes, (title, chosen) in zip(all_axes, panels.items(), strict=True):
        last = axes is all_axes[-1]
        _tidy(axes, xlabel if last else "", "" if len(panels) > 1 else "energy above the lowest / eV")
        order = np.flatnonzero(chosen)[np.argsort(number[chosen], kind="stable")]
        best = order[picked[order]]
        style = {"linewidth": 0.8} if len(groups) == len(panels) else {"linestyle": "", "marker": ".", "markersize": 2}
        if truth is not None:
            axes.plot(number[order], truth[order], color="#b9bdc4", label="true", **style)
        axes.plot(number[order], predicted[order], color=BLUE, alpha=0.8, label="predicted", **style)
        label = f"picked ({len(best)})"
        axes.plot(number[best], predicted[best], "o", color=ORANGE, markersize=4.5, markeredgewidth=0, label=label)
        if truth is not None:
            hollow = {"markerfacecolor": "none", "markeredgewidth": 1.0}
            axes.plot(number[best], truth[best], "o", color=GREEN, markersize=4.5, label="picked, true", **hollow)
        if len(panels) > 1:
            axes.set_title(title, fontsize=SMALL, loc="left")
        axes.set_ylim(top=axes.get_ylim()[1] + 0.22 * np.ptp(axes.get_ylim()))
        _legend(axes, loc="upper right", ncols=4)
    if len(panels) > 1:
        figure.supylabel("energy above the lowest / eV", fontsize=10)
    return figure


def picked_histogram(predicted: np.ndarray, picked: np.ndarray, sizes: np.ndarray | None = None) -> Figure:
    """Where the picked frames lie in the distribution of the predicted energies.

    Args:
        predicted: Energies in eV ``[num_frames]``; shown relative to the lowest one of the same cluster size.
        picked: Which frames were picked: a mask ``[num_frames]``, or their positions in the arrays.
        sizes: Number of atoms of each frame ``[num_frames]``, if they differ.
    """
    predicted = _above_lowest(np.asarray(predicted, dtype=float), sizes)
    picked = _mask(picked, len(predicted))
    several = sizes is not None and len(np.unique(sizes)) > 1
    xlabel = f"predicted energy above the lowest{' of its size' if several else ''} / eV per cluster"
    figure, axes = _figure_with_axes(xlabel, "number of frames")
    bins = _bins(predicted)
    axes.hist(predicted, bins=bins, color=BLUE, alpha=0.45, label=f"all frames ({len(predicted):,})")
    axes.hist(predicted[picked], bins=bins, color=ORANGE, label=f"picked ({picked.sum():,})")
    if picked.any():
        axes.plot(predicted[picked], np.zeros(picked.sum()), "|", color="black", markersize=8, clip_on=False)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(axes)
    return figure


def structure_gallery(atoms: Sequence[Atoms], labels: Sequence[str], columns: int = 5) -> Figure:
    """Clusters as depth-shaded circles, all at one scale, each seen along its shortest principal axis.

    Args:
        atoms: The clusters.
        labels: A line under each of them.
        columns: Most clusters in a row.

    Raises:
        ValueError: If there are no clusters, or the labels are not as many.
    """
    if not atoms or len(atoms) != len(labels):
        raise ValueError(f"a gallery needs clusters and as many labels, got {len(atoms)} and {len(labels)}")
    columns = min(columns, len(atoms))
    rows = -(-len(atoms) // columns)
    figure = Figure(figsize=(max(1.6 * columns, 3.2), 1.8 * rows), layout="constrained")
    views = [_view(cluster.positions) for cluster in atoms]
    extent = max(np.abs(view[:, :2]).max() for view in views) + 1.6
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if number < len(atoms):
            _draw(axes, views[number], atoms[number].numbers)
            axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
            axes.text(0.5, 0.0, labels[number], transform=axes.transAxes, ha="center", va="top", fontsize=SMALL)
    return figure


def errors_beside(labels: Sequence[str], paper: np.ndarray, ours: np.ndarray, spread: np.ndarray, title: str) -> Figure:
    """Mean absolute errors of a paper and of ours, a pair of bars for each.

    Args:
        labels: What was tested.
        paper: In kcal/mol per cluster ``[num_rows]``; not-a-number where the paper has none.
        ours: The same of ours, the mean over the seeds.
        spread: Its standard deviation over the seeds; not-a-number for one seed.
        title: Above the figure.
    """
    figure, axes = _figure_with_axes("", "")
    _tidy(axes, "mean absolute error / kcal mol⁻¹ per cluster", "")
    place = np.arange(len(labels))[::-1]
    axes.barh(place + 0.2, np.nan_to_num(paper), 0.36, color=GREY, label="paper (its own data)")
    axes.barh(place - 0.2, ours, 0.36, color=BLUE, xerr=np.nan_to_num(spread), label="this package", capsize=2)
    for y, value in [*zip(place + 0.2, paper, strict=True), *zip(place - 0.2, ours, strict=True)]:
        if np.isfinite(value):
            axes.annotate(f"{value:.2f}", (value, y), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
    axes.set_yticks(place, labels)
    axes.set_xlim(0, 1.15 * np.nanmax(np.concatenate([paper, ours])))
    axes.set_title(title, fontsize=10)
    figure.set_size_inches(SIZE[0], max(2.4, 0.55 * len(labels) + 1.2))
    _legend(axes, loc="lower right")
    return figure


def error_by_training_clusters(clusters: np.ndarray, mae: np.ndarray, spread: np.ndarray, title: str) -> Figure:
    """Error on the test set against the number of training clusters, both logarithmic, with a power law through it.

    Args:
        clusters: Numbers of training clusters ``[num_rows]``.
        mae: In kcal/mol per cluster ``[num_rows]``.
        spread: Its standard deviation over the seeds; not-a-number for one seed.
        title: Above the figure.
    """
    figure, axes = _figure_with_axes("training clusters", "mean absolute error / kcal mol⁻¹ per cluster")
    axes.errorbar(clusters, mae, np.nan_to_num(spread), color=BLUE, marker="o", capsize=2, label="test set")
    if len(clusters) > 1:
        exponent, factor = np.polyfit(np.log(clusters), np.log(mae), 1)
        x = np.geomspace(min(clusters), 4 * max(clusters))
        label = f"MAE ∝ N$^{{{exponent:.2f}}}$"
        axes.plot(x, np.exp(factor) * x**exponent, color=GREY, linestyle="--", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_log_ticks(axes)
    axes.set_title(title, fontsize=10)
    _legend(axes, loc="upper right")
    return figure


def save_figure(figure: Figure, path: str | Path):
    """Writes a figure, in the format of the suffix (png, svg, pdf): the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(render(figure, temporary.suffix.lstrip(".") or "png"))


def render(figure: Figure, file_format: str = "png") -> bytes:
    """The bytes of a figure's file; the same data give the same bytes. A png has 200 pixels an inch."""
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format, {})
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pyg_clusters", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return buffer.getvalue()


def _figure_with_axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    _tidy(axes, xlabel, ylabel)
    return figure, axes


def _tidy(axes: Axes, xlabel: str, ylabel: str):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, fontsize=10)
    axes.set_ylabel(ylabel, fontsize=10)
    axes.tick_params(labelsize=9, color=GREY)


def _legend(axes: Axes, **kwargs):
    axes.legend(fontsize=SMALL, framealpha=0.85, edgecolor="none", **kwargs)


def _box() -> dict[str, object]:
    return {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#c9cdd3", "alpha": 0.9}


def _integer_ticks(axes: Axes):
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))


def _plain_log_ticks(axes: Axes):
    """Ticks at 1, 2, 5 of each decade, written as plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    formatter = ScalarFormatter()
    formatter.set_scientific(False)
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark_drops(axes: Axes, epochs: np.ndarray, learning_rate: np.ndarray):
    measured = np.isfinite(learning_rate)
    epochs, learning_rate = epochs[measured], learning_rate[measured]
    drops = np.flatnonzero(np.diff(learning_rate) < 0) + 1
    if len(drops) > MAX_MARKED_DROPS:
        return
    for number, drop in enumerate(drops):
        label = "_" if number else f"learning rate lowered, {learning_rate[0]:.2g} to {learning_rate[-1]:.2g}"
        axes.axvline(epochs[drop], color=GREY, linewidth=0.9, linestyle=":", zorder=0, label=label)


def _padded_limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    padding = 0.05 * (high - low) or 0.05
    return low - padding, high + padding


def _bins(values: np.ndarray) -> list[float]:
    """Edges of 10 to 40 bins by the number of values."""
    return np.histogram_bin_edges(values, bins=int(np.clip(np.sqrt(len(values)), 10, 40))).tolist()


def _mask(picked: np.ndarray, length: int) -> np.ndarray:
    mask = np.zeros(length, dtype=bool)
    mask[np.asarray(picked) if len(picked) else []] = True
    return mask


def _size_groups(sizes: np.ndarray | None, length: int) -> dict[str, np.ndarray]:
    sizes = np.zeros(length, dtype=int) if sizes is None else np.asarray(sizes)
    return {f"{size} atoms": sizes == size for size in np.unique(sizes)}


def _above_lowest(energies: np.ndarray, sizes: np.ndarray | None) -> np.ndarray:
    result = np.empty_like(energies)
    for chosen in _size_groups(sizes, len(energies)).values():
        known = energies[chosen & np.isfinite(energies)]
        result[chosen] = energies[chosen] - (known.min() if len(known) else 0.0)
    return result


def _view(positions: np.ndarray) -> np.ndarray:
    """Positions along the principal axes, the longest to the right, the shortest towards the viewer."""
    centred = positions - positions.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    return centred @ (axes * np.sign(axes[largest, range(3)]))


def _draw_parity(axes: Axes, x: np.ndarray, y: np.ndarray, sizes: np.ndarray):
    _tidy(axes, "true binding energy / eV per atom", "predicted / eV per atom")
    limits = _padded_limits(np.concatenate([x, y]))
    axes.plot(limits, limits, color=GREY, linewidth=1.0, zorder=1)
    scatter = axes.scatter(x, y, c=sizes, s=11, cmap="viridis", linewidths=0, alpha=0.8, zorder=2)
    axes.set(xlim=limits, ylim=limits, box_aspect=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    if np.ptp(sizes) == 0:
        axes.set_title(f"{sizes[0]:g} atoms", fontsize=SMALL, loc="left")
        return
    bar = axes.figure.colorbar(scatter, ax=axes, pad=0.02, ticks=MaxNLocator(5, integer=True))
    bar.set_label("number of atoms", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def _draw(axes: Axes, view: np.ndarray, numbers: np.ndarray, colors: np.ndarray | None = None, haze: float = 0.65):
    """Draws atoms, the nearest last; the furthest are hidden by the haze most."""
    order = np.argsort(view[:, 2])
    colors = jmol_colors[numbers[order]] if colors is None else colors[order]
    view, numbers = view[order], numbers[order]
    depth = (view[:, 2] - view[0, 2]) / (np.ptp(view[:, 2]) or 1.0)  # 0 furthest, 1 nearest
    veil = haze * (1.0 - depth[:, None])
    diameter = 1.9 * covalent_radii[numbers]
    circles = EllipseCollection(
        diameter,
        diameter,
        np.zeros(len(view)),
        units="xy",
        offsets=view[:, :2],
        offset_transform=axes.transData,
        facecolors=colors * (1.0 - veil) + veil,
        edgecolors=0.75 * veil * np.ones(3),
        linewidths=0.5,
    )
    axes.add_collection(circles)


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
    _tidy(upper, "", "g(r) / Å⁻³")
    _tidy(lower, "distance r / Å", "neighbours within r")
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
        _legend(upper, loc="upper right")
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
    figure, axes = _figure_with_axes("number of atoms in the cluster", "number of clusters")
    axes.bar(sizes, numbers, width=0.8, color=BLUE)
    axes.set_xlim(min(sizes) - 0.8, max(sizes) + 0.8)
    axes.set_title(f"{sum(numbers):,} clusters", fontsize=SMALL, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    _integer_ticks(axes)
    return figure


def mean_shell_counts(sizes: np.ndarray, means: np.ndarray, radii: Sequence[float]) -> Figure:
    """Mean number of neighbours of an atom in each shell by cluster size.

    Args:
        sizes: Numbers of atoms ``[num_sizes]``.
        means: Mean counts ``[num_sizes, num_shells]``.
        radii: Shell radii in Å.
    """
    figure, axes = _figure_with_axes("number of atoms in the cluster", "mean number of neighbours of an atom")
    for shell, values in enumerate(np.asarray(means).T):
        color = SHELL_COLORS[shell % len(SHELL_COLORS)]
        label = shell_text(shell, radii)
        axes.plot(sizes, values, color=color, marker="o", markersize=3.5, linewidth=1.3, label=label)
    axes.set_ylim(bottom=0.0)
    _integer_ticks(axes)
    _legend(axes)
    return figure


def region_map(places: np.ndarray, region: np.ndarray, names: Sequence[str], energy: np.ndarray) -> Figure:
    """A map of atoms, coloured by region on the left and by their energy on the right.

    Args:
        places: Coordinates in the map ``[num_atoms, 2]``.
        region: Region of each atom ``[num_atoms]``.
        names: Name of each region.
        energy: Share of each atom in the energy of its cluster in eV ``[num_atoms]``.
    """
    places, region, energy = np.asarray(places), np.asarray(region), np.asarray(energy)
    figure = Figure(figsize=(9.2, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    size = float(np.clip(2e4 / len(places), 1.5, 20.0))
    colors = np.array([REGION_COLORS[number % len(REGION_COLORS)] for number in range(len(names))])
    order = np.random.default_rng(0).permutation(len(places))  # no region covers another
    style = {"s": size, "linewidths": 0, "alpha": 0.7, "rasterized": True}
    left.scatter(*places[order].T, c=colors[region[order]], **style)
    for number, name in enumerate(names):
        label = f"{name} ({int((region == number).sum()):,})"
        left.plot([], [], "o", color=colors[number], markersize=6, label=label)
    # Below the map, where no atom can lie under it.
    left.legend(fontsize=SMALL, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(names))
    norm = _energy_norm(energy)
    right.scatter(*places[order].T, c=energy[order], norm=norm, cmap="viridis", **style)
    _energy_bar(figure, ScalarMappable(norm, "viridis"), right)
    for axes in (left, right):
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.spines[:].set_color("#c9cdd3")
    return figure


def energy_by_distance(
    distance: np.ndarray, energy: np.ndarray, radii: Sequence[float], names: Sequence[str]
) -> Figure:
    """Energies of atoms by their distance from the centre of mass, with mean and standard deviation.

    Args:
        distance: In Å ``[num_atoms]``.
        energy: Share of each atom in the energy of its cluster in eV ``[num_atoms]``.
        radii: Where the regions end, in Å.
        names: Name of each region.
    """
    distance, energy = np.asarray(distance), np.asarray(energy)
    figure, axes = _figure_with_axes("distance from the centre of mass / Å", "energy of the atom / eV")
    axes.plot(distance, energy, ".", color=GREY, markersize=1.5, alpha=0.35, rasterized=True)
    edges = np.arange(0.0, distance.max() + 0.5, 0.5)
    places = np.digitize(distance, edges) - 1
    filled = [place for place in range(len(edges)) if (places == place).sum() >= 3]
    middle = [float(distance[places == place].mean()) for place in filled]
    mean = [float(energy[places == place].mean()) for place in filled]
    spread = [float(energy[places == place].std()) for place in filled]
    axes.errorbar(
        middle,
        mean,
        spread,
        color=BLUE,
        marker="o",
        markersize=4,
        linewidth=1.5,
        capsize=2,
        label="mean and standard deviation",
    )
    low, high = np.percentile(energy, [0.2, 99.8])
    axes.set_xlim(0.0, 1.03 * distance.max())
    axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low) or high + 1.0)
    ends = [0.0, *radii, max(distance.max(), *radii)]
    for radius in radii:
        axes.axvline(radius, color=ORANGE, linewidth=1.0, linestyle="--")
    for name, inner, outer in zip(names, ends, ends[1:], strict=False):
        place = 0.5 * (inner + outer)
        axes.text(place, 0.985, name, transform=axes.get_xaxis_transform(), va="top", ha="center", fontsize=SMALL)
    _legend(axes, loc="upper left", bbox_to_anchor=(0.0, 0.94))
    return figure


def energies_on_structures(
    atoms: Sequence[Atoms], energies: Sequence[np.ndarray], labels: Sequence[str], columns: int = 3
) -> Figure:
    """Drawings of clusters with each atom coloured by its energy, whole on top and cut through the middle below.

    The nearer half of a cluster is left out of the lower drawing, so that its core is seen.

    Args:
        atoms: The structures.
        energies: Energies of their atoms in eV, ``[num_atoms]`` each.
        labels: A label under each.
        columns: Structures beside each other.
    """
    columns = min(columns, len(atoms))
    rows = 2 * -(-len(atoms) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.9, 2.6 * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    views = [_view(cluster.positions) for cluster in atoms]
    extent = max(np.abs(view[:, :2]).max() for view in views) + 1.8
    norm = _energy_norm(np.concatenate(energies))
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (cluster, values, view) in enumerate(zip(atoms, energies, views, strict=True)):
        colors = colormaps["viridis"](norm(values))[:, :3]
        row, column = 2 * (number // columns), number % columns
        behind = view[:, 2] <= np.median(view[:, 2])
        for axes, shown in ((grid[row, column], np.ones_like(behind)), (grid[row + 1, column], behind)):
            _draw(axes, view[shown], cluster.numbers[shown], colors[shown], haze=0.0)
            axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        text = grid[row + 1, column].text
        text(0.5, 0.0, labels[number], transform=grid[row + 1, column].transAxes, ha="center", va="top", fontsize=SMALL)
    _energy_bar(figure, ScalarMappable(norm, "viridis"), list(grid.flat))
    return figure


def _energy_norm(energies: np.ndarray) -> Normalize:
    """From the first to the last percentile, so that single atoms do not bleach all others."""
    low, high = np.percentile(energies, [1.0, 99.0])
    return Normalize(low, high) if low < high else Normalize(low - 0.5, high + 0.5)


def _energy_bar(figure: Figure, mappable: ScalarMappable, axes: Axes | list[Axes]):
    bar = figure.colorbar(mappable, ax=axes, pad=0.02, shrink=0.8, extend="both", ticks=MaxNLocator(6))
    bar.set_label("energy of the atom / eV", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)

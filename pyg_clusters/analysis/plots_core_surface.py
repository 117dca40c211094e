"""Figures of what a model makes of core and surface."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_clusters.analysis.plot_style import (
    BLUE,
    GREY,
    ORANGE,
    SMALL,
    figure_with_axes,
    legend,
)
from pyg_clusters.analysis.plots_structures import draw_atoms, view_of

REGION_COLORS = ("#c8452e", "#e3b23c", "#2f6db3")


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
    figure, axes = figure_with_axes("distance from the centre of mass / Å", "energy of the atom / eV")
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
    legend(axes, loc="upper left", bbox_to_anchor=(0.0, 0.94))
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
    views = [view_of(cluster.positions) for cluster in atoms]
    extent = max(np.abs(view[:, :2]).max() for view in views) + 1.8
    norm = _energy_norm(np.concatenate(energies))
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (cluster, values, view) in enumerate(zip(atoms, energies, views, strict=True)):
        colors = colormaps["viridis"](norm(values))[:, :3]
        row, column = 2 * (number // columns), number % columns
        behind = view[:, 2] <= np.median(view[:, 2])
        for axes, shown in ((grid[row, column], np.ones_like(behind)), (grid[row + 1, column], behind)):
            draw_atoms(axes, view[shown], cluster.numbers[shown], colors[shown], haze=0.0)
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
